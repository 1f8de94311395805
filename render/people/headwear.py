"""A head -> the hat on it: a dome over scalp and hair with a cuff, a visor or a brim.

Legend: H points of the head, N points of the hat, A directions round the head.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

ROUND, RISE = 56, 14
# Room for flattened hair between scalp and hat.
HAIR_M = 0.007
CLOTH_M = 0.003
# Radians from the front at which a visor ends.
VISOR = 1.15


@dataclasses.dataclass
class Hat:
    """``points``: (N, 3) metres, posed. ``quads``: (Q, 4). ``uv``: (N, 2) metres. ``inside``: (V,) how far beyond the
    rim each body vertex lies inside, degrees; ``limit``: (V,) metres from ``centre`` that hair there may reach.
    """

    points: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    inside: np.ndarray
    limit: np.ndarray
    centre: np.ndarray


def hat_on(kind: str, rest: np.ndarray, posed: np.ndarray, head: np.ndarray, eye: np.ndarray) -> Hat:
    """``kind``: of HATS. ``rest``, ``posed``: (V, 3) metres. ``head``: (V,) bool. ``eye``: (3,) rest, between the eyes."""
    shape = HATS[kind]
    top = rest[head, 2].max()
    tall = top - eye[2]
    scalp = head & (rest[:, 2] > eye[2] + 0.28 * tall)
    middle = (rest[scalp].max(axis=0) + rest[scalp].min(axis=0)) / 2
    centre = np.array([middle[0], middle[1], eye[2] + 0.25 * tall])
    away = rest[scalp] - centre
    radius = np.linalg.norm(away, axis=1)
    tree = cKDTree(away / radius[:, None])
    azimuth = np.linspace(-np.pi, np.pi, ROUND, endpoint=False)
    rim = _rim(azimuth, shape, tall, float(np.median(radius)))
    lift = np.linspace(0, 1, RISE + 1)[:, None]
    elevation = rim[None] + (np.pi / 2 - rim)[None] * lift
    direction = np.stack(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)], axis=2
    )
    reach = radius[tree.query(direction.reshape(-1, 3), k=6)[1]].max(axis=1).reshape(elevation.shape)
    reach[-1] = reach[-1].max()
    for _ in range(3):
        reach[:-1] = np.maximum(reach[:-1], (np.roll(reach, 1, 1) + np.roll(reach, -1, 1) + 2 * reach)[:-1] / 4)
    for _ in range(4):
        reach[1:-1] = (reach[:-2] + reach[2:] + np.roll(reach, 1, 1)[1:-1] + np.roll(reach, -1, 1)[1:-1]) / 4
    # Its edge sits close: a third of the room there.
    reach += (HAIR_M * np.clip(0.35 + 3 * lift, 0, 1) + CLOTH_M) * tall / 0.12
    reach += shape.crown * tall * np.sin(np.pi * np.clip(lift * 1.1, 0, 1)) ** 0.8 * np.ones_like(reach)
    if shape.loose:
        back = np.clip(-direction[:, :, 1] * -1, 0, 1) * np.clip(direction[:, :, 2], 0, 1)
        reach += shape.loose * tall * back
    if shape.panels:
        # Stiffened panels: steep sides, a flat top, and a seam between each two.
        steep = 2 + 0.7 * np.clip(np.cos(azimuth), 0, 1) ** 0.5
        above = np.clip(elevation - rim, 0, np.pi / 2)
        reach *= (np.cos(above) ** steep + np.sin(above) ** steep) ** (-0.35 / steep)
        seam = np.abs((azimuth / (2 * np.pi) * shape.panels) % 1 - 0.5) * 2
        reach -= 0.0022 * np.where(seam > 0.9, 1.0, 0.35 * seam**4) * np.sin(np.pi * np.clip(lift * 1.6, 0, 1) / 2)
    dome = centre + direction * reach[..., None]
    points, quads, uv = _dome(dome, azimuth, reach)
    extra = []
    if shape.cuff:
        extra.append(_cuff(dome, centre, shape.cuff * tall))
    if shape.visor:
        extra.append(_brim(dome[0], centre, shape.visor * tall, front=True))
    if shape.brim:
        extra.append(_brim(dome[0], centre, shape.brim * tall, front=False))
    extra.append(_lining(dome, centre))
    for p, q in extra:
        quads = np.concatenate([quads, q + len(points)])
        uv = np.concatenate([uv, p[:, :2] + p[:, 2:] * 0.5])
        points = np.concatenate([points, p])
    turn, shift = rigid(rest[scalp], posed[scalp])
    out = rest - centre
    far = np.linalg.norm(out, axis=1)
    at = np.arctan2(out[:, 0], -out[:, 1])
    el = np.arcsin(np.clip(out[:, 2] / np.maximum(far, 1e-9), -1, 1))
    beyond = np.degrees(el - np.interp(at, azimuth, rim, period=2 * np.pi))
    beyond[~head] = -180
    unit = out / np.maximum(far, 1e-9)[:, None]
    nearest = cKDTree(direction.reshape(-1, 3)).query(unit)[1]
    return Hat(
        points @ turn.T + shift, quads, uv, beyond, reach.ravel()[nearest] - 1.5 * CLOTH_M, centre @ turn.T + shift
    )


def rigid(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The turn (3, 3) and shift (3,) that bring points ``a`` (N, 3) nearest to ``b`` (Kabsch 1976)."""
    ca, cb = a.mean(axis=0), b.mean(axis=0)
    u, _, vt = np.linalg.svd((b - cb).T @ (a - ca))
    turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return turn, cb - turn @ ca


def _rim(azimuth: np.ndarray, shape: Shape, tall: float, radius: float) -> np.ndarray:
    """(A,) radians above the centre's level: high on the forehead, low at the nape, above the ears."""
    front = (1 + np.cos(azimuth)) / 2
    height = shape.back + (shape.front - shape.back) * front**1.5 - 0.25
    return np.arcsin(np.clip(height * tall / radius, -0.9, 0.9))


def _dome(dome: np.ndarray, azimuth: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, n = dome.shape[:2]
    quads = _grid(rows, n)
    along = np.concatenate([np.zeros((1, n)), np.cumsum(np.linalg.norm(np.diff(dome, axis=0), axis=2), axis=0)])
    uv = np.stack([np.broadcast_to(azimuth * float(reach[0].mean()), (rows, n)), along], axis=2)
    return dome.reshape(-1, 3), quads, uv.reshape(-1, 2)


def _grid(rows: int, n: int, closed: bool = True) -> np.ndarray:
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(n if closed else n - 1), indexing="ij")
    k = (j + 1) % n
    return np.stack([i * n + j, i * n + k, (i + 1) * n + k, (i + 1) * n + j], axis=2).reshape(-1, 4)


def _cuff(dome: np.ndarray, centre: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The turned-up edge of a knitted hat: a rounded band outside its rim."""
    out = dome[0] - centre
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    up = dome[1] - dome[0]
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    profile = [(0.0, 0.0), (0.003, -0.002), (0.006, 0.1), (0.0065, 0.5), (0.006, 0.9), (0.004, 1.0), (-0.001, 0.98)]
    rows = [dome[0] + out * o + up * (v * width if v > 0 else v) for o, v in profile]
    return np.concatenate(rows), _grid(len(rows), len(dome[0]))


def _brim(rim: np.ndarray, centre: np.ndarray, width: float, front: bool) -> tuple[np.ndarray, np.ndarray]:
    """A visor (``front``) or a brim all round, 3 mm thick, sloping a little down."""
    azimuth = np.arctan2(rim[:, 0] - centre[0], -(rim[:, 1] - centre[1]))
    order = np.argsort(azimuth, kind="stable")
    azimuth, rim = azimuth[order], rim[order]
    reach = np.full(len(azimuth), width)
    if front:
        # Its ends run out on the crown's edge, which arches it.
        even = np.linspace(-VISOR, VISOR, ROUND // 2 + 1)
        rim = np.stack([np.interp(even, azimuth, rim[:, c]) for c in range(3)], axis=1)
        azimuth, reach = even, width * np.sqrt(1 - (even / VISOR) ** 2)
    out = np.stack([np.sin(azimuth), -np.cos(azimuth), np.zeros(len(azimuth))], axis=1)
    if front:
        out = out * 0.2 + np.array([0.0, -0.8, 0.0])
    down = np.array([0, 0, -1.0])
    rows = [
        rim + np.outer(reach * s, [1, 1, 1]) * out + np.outer(reach * (0.2 * s if front else 0.16 * s * s), down)
        for s in np.linspace(-0.06, 1, 7)
    ]
    half = np.array([0, 0, 0.0015])
    # Winding outwards on top: azimuth grows to the left, rows outwards.
    every = np.stack([r + half for r in rows] + [r - half for r in rows[::-1]])
    return every.reshape(-1, 3), _grid(len(every), every.shape[1], closed=not front)[:, ::-1]


def _lining(dome: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rim's thickness and 2 cm of the inside."""
    toward = centre - dome[:3]
    toward /= np.linalg.norm(toward, axis=2, keepdims=True)
    rows = np.concatenate([dome[:1], dome[:3] + toward * CLOTH_M])
    return rows.reshape(-1, 3), _grid(len(rows), dome.shape[1])[:, ::-1]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shares of the height from eyes to crown: where the rim is in front and behind, and what sits on it. ``panels``:
    that it is sewn of.
    """

    front: float
    back: float
    crown: float = 0.0
    loose: float = 0.0
    cuff: float = 0.0
    visor: float = 0.0
    brim: float = 0.0
    panels: int = 0


HATS = {
    "beanie": Shape(front=0.46, back=0.02, crown=0.02, loose=0.18, cuff=0.38),
    "cap": Shape(front=0.43, back=0.12, crown=0.01, visor=0.56, panels=6),
    "brimmed": Shape(front=0.50, back=0.16, crown=0.16, brim=0.62),
}
