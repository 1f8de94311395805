"""A garment in the pose -> what finishes it: turned-in hems, collars, hoods, plackets, pockets, buttons.

Legend: N points of a garment, C points of the sheet, R points round a neckline.
"""

from __future__ import annotations

import numpy as np

from render.people.cloth import Cutout, border_edges, cut
from render.people.garments import Marks
from render.people.shell import Sheet, Shell, normals_of

TURN_IN_M = 0.016
Strip = tuple[np.ndarray, np.ndarray]


def hemmed(
    points: np.ndarray, quads: np.ndarray, uv: np.ndarray, thick_m: float, size: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``points`` (N, 3), ``quads`` (Q, 4), ``uv`` (Q, 4, 2) with the cloth's thickness at every border and 16 mm of
    its inside.
    """
    edges = border_edges(quads)
    if not len(edges):
        return points, quads, uv
    rim = np.unique(edges)
    normal = normals_of(points, quads)[rim]
    inner = np.zeros(len(points), bool)
    inner[quads] = True
    inner[rim] = False
    # Inwards along the cloth: away from the border's own direction, towards the middle of the quads that touch it.
    toward = np.zeros_like(points)
    middle = points[quads].mean(axis=1)
    for k in range(4):
        np.add.at(toward, quads[:, k], middle - points[quads[:, k]])
    way = toward[rim] - normal * np.einsum("nc,nc->n", toward[rim], normal)[:, None]
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    n, r = len(points), len(rim)
    near = points[rim] - normal * thick_m
    deep = near + way * TURN_IN_M * size
    at = np.full(n, -1)
    at[rim] = np.arange(r)
    a, b = edges.T
    first = np.stack([b, a, n + at[a], n + at[b]], axis=1)
    second = np.stack([n + at[b], n + at[a], n + r + at[a], n + r + at[b]], axis=1)
    of = np.zeros((n, 2))
    of[quads.ravel()] = uv.reshape(-1, 2)
    edge_uv = np.stack([of[b], of[a], of[a], of[b]], axis=1)
    uv = np.concatenate([uv, edge_uv, edge_uv])
    return np.concatenate([points, near, deep]), np.concatenate([quads, first, second]), uv


def overlay(shell: Shell, depth: np.ndarray, outer: np.ndarray, lift_m: float) -> tuple[Cutout, np.ndarray]:
    """A patch sewn onto the garment whose points are ``outer`` (C, 3): its cut and points, ``lift_m`` above."""
    piece = cut(shell, depth)
    points = piece.take(outer)
    return piece, points + normals_of(points, piece.quads) * lift_m


def neckline(sheet: Sheet, marks: Marks, piece: Cutout, points: np.ndarray) -> Strip:
    """Points (R, 3) round the neck's border, from the front to the left and back round, and their azimuths (R,)."""
    rim = np.flatnonzero(piece.rim & (piece.take(marks.trunk) > 1.2) & (piece.take(marks.arm) < 0.12))
    rest = piece.take(sheet.rest)[rim]
    middle = rest.mean(axis=0)
    azimuth = np.arctan2(rest[:, 0] - middle[0], -(rest[:, 1] - middle[1]))
    order = np.argsort(azimuth, kind="stable")
    # A closed, even ring: the border's own points bunch up where quads were cut.
    even = np.linspace(-np.pi, np.pi, 48, endpoint=False)
    ring = np.stack([np.interp(even, azimuth[order], points[rim][order, c], period=2 * np.pi) for c in range(3)], 1)
    for _ in range(2):
        ring = (np.roll(ring, 1, 0) + np.roll(ring, -1, 0) + 2 * ring) / 4
    return ring, even


def throat(ring: np.ndarray, up: np.ndarray, skin: np.ndarray, size: float) -> np.ndarray:
    """(R,) metres that a collar's stand may lean inwards from its ``ring`` (R, 3) until it lies close to the neck, of whose
    ``skin`` (V, 3) points are given; ``up``: (3,) along the neck.
    """
    middle = ring.mean(axis=0)

    def around_axis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = points - middle
        high = at @ up
        return high, at - np.outer(high, up)

    (high, out), (ring_high, ring_out) = around_axis(skin), around_axis(ring)
    far, ring_far = np.linalg.norm(out, axis=1), np.linalg.norm(ring_out, axis=1)
    beside = ring_out @ out.T > np.cos(0.25) * np.outer(ring_far, far)
    level = np.abs(high - ring_high[:, None] - STAND_M * size) < 0.6 * STAND_M * size
    neck = np.where(beside & level, far, 0.0).max(axis=1)
    room = np.where(neck > 0, np.clip(ring_far - neck - CLOSE_M * size, 0, MOST_LEAN_M * size), 0.0)
    for _ in range(4):
        room = np.minimum(room, (np.roll(room, 1) + np.roll(room, -1) + 2 * room) / 4)
    return room


def around(
    ring: np.ndarray, azimuth: np.ndarray, up: np.ndarray, kind: str, size: float, room: np.ndarray | float = 0.0
) -> Strip:
    """Points (N, 3) and quads (Q, 4) of a collar of ``kind`` on a ``ring`` (R, 3); ``up``: (3,) along the neck. ``room``:
    (R,) as of `throat`.
    """
    closed = kind not in GAPS
    n = len(ring)
    # Of an open collar from the left of its gap round the back to the right: each row by its own gap, so that its front edges
    # run from the throat outwards to the points.
    along = azimuth if closed else np.linspace(0, 2 * np.pi, n)
    rows = PROFILES[kind](np.mod(along + np.pi, 2 * np.pi) - np.pi, (1 - np.cos(along)) / 2)
    lean, gaps = LEANS.get(kind, (0.0,) * len(rows)), GAPS.get(kind, (0.0,) * len(rows))
    middle, room = ring.mean(axis=0), np.broadcast_to(room, n)
    made = []
    for (o, u), share, gap in zip(rows, lean, gaps):
        at = along if closed else gap + along * (1 - gap / np.pi)
        here = np.stack([np.interp(at, azimuth, ring[:, c], period=2 * np.pi) for c in range(3)], axis=1)
        out = here - middle
        out -= np.outer(out @ up, up)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
        inwards = share * np.interp(at, azimuth, room, period=2 * np.pi)
        made.append(here + out * (o * size - inwards)[:, None] + np.outer(u * size, up))
    points = np.stack(made)
    keep = np.arange(n if closed else n - 1)
    i, j = np.meshgrid(np.arange(len(rows) - 1), keep, indexing="ij")
    k = (j + 1) % n
    quads = np.stack([i * n + j, i * n + k, (i + 1) * n + k, (i + 1) * n + j], axis=2).reshape(-1, 4)
    # A fall is drawn from the inside over to the outside, a band the other way round.
    return points.reshape(-1, 3), quads if closed else quads[:, ::-1]


def along_it(rows: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(Q, 4, 2) metres along and across an open collar, whose ``rows`` (M, R, 3) and ``quads`` are those of `around`."""
    steps = np.linalg.norm(np.diff(rows, axis=1), axis=2).mean(axis=0)
    across = np.linalg.norm(np.diff(rows, axis=0), axis=2).mean(axis=1)
    u, v = np.append(0.0, np.cumsum(steps)), np.append(0.0, np.cumsum(across))
    return np.stack(np.broadcast_arrays(u, v[:, None]), axis=2).reshape(-1, 2)[quads]


def _flat(value: float, azimuth: np.ndarray) -> np.ndarray:
    return np.full(len(azimuth), value)


def _rib(azimuth: np.ndarray, back: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    profile = [
        (0.0005, -0.007),
        (0.0024, -0.004),
        (0.0018, 0.001),
        (-0.0015, 0.005),
        (-0.0035, 0.004),
        (-0.0035, -0.01),
    ]
    return [(_flat(o, azimuth), _flat(u, azimuth)) for o, u in profile]


def _collar(azimuth: np.ndarray, back: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """A stand and a fall, its points in front."""
    point = np.exp(-((azimuth / 0.42) ** 2))
    stand = 0.020 + 0.014 * back
    return [
        (_flat(-0.003, azimuth), _flat(-0.012, azimuth)),
        (_flat(-0.001, azimuth), stand * 0.9),
        (_flat(0.003, azimuth), stand + 0.002),
        (_flat(0.008, azimuth), stand - 0.003),
        (0.016 + 0.006 * point, stand - 0.030 - 0.016 * point),
        (0.020 + 0.010 * point, stand - 0.040 - 0.024 * point),
        (0.018 + 0.009 * point, stand - 0.041 - 0.024 * point),
        (0.012 + 0.006 * point, stand - 0.026 - 0.014 * point),
    ]


def _lapel(azimuth: np.ndarray, back: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(o * 1.5 + 0.003, u * 1.35) for o, u in _collar(azimuth, back)]


def _hood(azimuth: np.ndarray, back: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """A hood lying on the back: a roll that grows from the throat to the nape and sags."""
    radius = 0.010 + 0.034 * back**1.5
    rows = []
    for angle in np.radians(np.linspace(-75, 255, 12)):
        sag = 0.030 * back**2 * np.clip(np.cos(angle), 0, 1)
        o = 0.006 + radius * 0.9 * back + radius * np.cos(angle) * (1 + 0.7 * back)
        rows.append((o, 0.012 + radius * np.sin(angle) - sag))
    return rows


PROFILES = {"rib": _rib, "collar": _collar, "lapel": _lapel, "hood": _hood}
# Radians from the middle of the front to where each row of a profile ends.
GAPS = {
    "collar": (0.04, 0.04, 0.05, 0.07, 0.28, 0.50, 0.50, 0.28),
    "lapel": (0.30, 0.30, 0.30, 0.32, 0.44, 0.56, 0.56, 0.44),
}
# How far a stand reaches up, how close to the neck, how far it leans for that, and which share of it each row of a profile takes.
STAND_M, CLOSE_M, MOST_LEAN_M = 0.026, 0.006, 0.03
LEANS = {"collar": (0.0, 0.9, 1.0, 1.0, 0.6, 0.3, 0.3, 0.5), "lapel": (0.0, 0.5, 0.6, 0.6, 0.4, 0.2, 0.2, 0.3)}
BUTTON = 10


def buttons(at: np.ndarray, normal: np.ndarray, radius_m: float) -> Strip:
    """Points and quads of flat round buttons at ``at`` (B, 3) facing ``normal`` (B, 3)."""
    points, quads = [], []
    angle = np.linspace(0, 2 * np.pi, BUTTON, endpoint=False)
    for b, (p, n) in enumerate(zip(at, normal)):
        side = np.cross(n, [0.0, 0.0, 1.0])
        side /= max(float(np.linalg.norm(side)), 1e-9)
        ring = np.outer(np.cos(angle), side) + np.outer(np.sin(angle), np.cross(n, side))
        rows = [p + ring * radius_m, p + n * 0.0022 + ring * radius_m, p + n * 0.0026 + ring * (radius_m * 0.1)]
        points.append(np.concatenate(rows))
        i, j = np.meshgrid(np.arange(2), np.arange(BUTTON), indexing="ij")
        k = (j + 1) % BUTTON
        q = np.stack([i * BUTTON + j, i * BUTTON + k, (i + 1) * BUTTON + k, (i + 1) * BUTTON + j], axis=2)
        quads.append(q.reshape(-1, 4) + 3 * BUTTON * b)
    return np.concatenate(points), np.concatenate(quads)
