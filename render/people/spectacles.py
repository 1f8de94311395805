"""A head -> glasses on it: rims before the eyes, a bridge over the nose, temples to the ears, lenses."""

from __future__ import annotations

import numpy as np

from render.people.accessories import Thing
from render.people.piece import Piece
from render.people.solids import grid, merged, tube
from render.people.wearing import Head, Wearer

# Half width and height over the distance of the eyes, exponent of the outline, radius of the rim in millimetres.
SHAPES = {
    "round": (0.36, 0.345, 2.0, 0.9),
    "panto": (0.385, 0.34, 2.4, 1.3),
    "square": (0.40, 0.30, 3.6, 1.7),
    "narrow": (0.395, 0.225, 3.2, 1.1),
    "thick": (0.41, 0.32, 3.0, 2.4),
    "large": (0.42, 0.385, 2.6, 1.5),
}
RIM, CLEAR_M = 40, 0.002
# Lenses bend back by this much at 6 cm from the middle.
WRAP_M = 0.007


def glasses(thing: Thing, wearer: Wearer) -> list[Piece]:
    """ "glasses" (frame) and "lens"."""
    head, rng = wearer.head, np.random.default_rng(thing.seed)
    name = list(SHAPES)[rng.integers(len(SHAPES))]
    if thing.kind == "sunglasses":
        name = ("square", "large", "thick", "panto")[rng.integers(4)]
    wide, high, power, rim_mm = SHAPES[name]
    ipd = head.ipd
    scale = ipd / 0.062
    middle, z0 = (head.eyes[0] + head.eyes[1]) / 2, float(head.eyes[:, 2].mean()) - 0.05 * ipd
    turn = np.linspace(0, 2 * np.pi, RIM, endpoint=False)
    cos, sin = np.cos(turn), np.sin(turn)
    outline = np.stack(
        [np.sign(cos) * np.abs(cos) ** (2 / power) * wide, np.sign(sin) * np.abs(sin) ** (2 / power) * high], 1
    )
    # Narrower below, towards the nose.
    outline[:, 0] *= np.where(outline[:, 1] < 0, 1 + 0.22 * outline[:, 1] / high * 0.5, 1)
    half = 0.5 + 0.035
    front = _plane(wearer, head, (wide * 1.03, high * 1.05, half), middle, z0)
    frame, lenses = [], []
    radius = rim_mm * 1e-3 * scale

    def at(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.stack([middle[0] + x, front + WRAP_M * (x / 0.06) ** 2 / scale, z], 1)

    for sign in (1, -1):
        ring = at(sign * (half * ipd + outline[:, 0] * ipd), z0 + outline[:, 1] * ipd)
        frame.append(tube(ring, radius, 8, closed=True, up=np.array([0, -1.0, 0])))
        lenses.append(_lens(ring, sign))
        hinge = at(np.array([sign * (half + wide) * ipd]), np.array([z0 + 0.45 * high * ipd]))[0]
        frame.append(_temple(head, hinge, sign, radius, scale))
    inner = half - wide
    arch = np.linspace(-1, 1, 9)
    bridge = at(arch * inner * 1.15 * ipd, z0 + (0.30 * high + 0.05 * (1 - arch**2)) * ipd)
    nose = head.points[head.skin]
    near = nose[(np.abs(nose[:, 0] - middle[0]) < 0.008 * scale) & (np.abs(nose[:, 2] - bridge[4, 2]) < 0.006 * scale)]
    if len(near):
        bridge[:, 1] = np.minimum(bridge[:, 1], near[:, 1].min() - radius - 0.001 + 0.004 * arch**2)
    frame.append(tube(bridge, radius, 8))
    points, quads = merged(*frame)
    lens_points, lens_quads = merged(*lenses)
    return [Piece("glasses", head.world(points), quads), Piece("lens", head.world(lens_points), lens_quads)]


def _plane(wearer: Wearer, head: Head, outline: tuple[float, float, float], middle: np.ndarray, z0: float) -> float:
    """y of the lenses' middle plane: ahead of every lash, brow and cheek behind the rims."""
    from render.people.body import groups

    wide, high, half = outline
    lashes = np.unique(np.concatenate([q for k, q in groups().items() if "eyelashes" in k]))
    mask = (wearer.beneath - head.shift) @ head.turn
    p = np.concatenate([head.points[np.concatenate([head.skin, lashes])], mask])
    x = np.abs(p[:, 0] - middle[0])
    inside = (np.abs(x - half * head.ipd) < wide * head.ipd) & (np.abs(p[:, 2] - z0) < high * head.ipd)
    inside &= p[:, 1] < head.eyes[:, 1].mean()
    # The nose may stand between the lenses.
    inside &= x > 0.20 * head.ipd
    scale = head.ipd / 0.062
    return float((p[inside, 1] - WRAP_M * (x[inside] / 0.06) ** 2 / scale).min()) - CLEAR_M - 0.0015 * scale


def _lens(ring: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """A shallow dish inside the ring."""
    centre = ring.mean(axis=0)
    rows = []
    for s in (1.0, 0.75, 0.5, 0.25, 0.01):
        row = centre + (ring - centre) * s
        row[:, 1] -= 0.0016 * (1 - s * s)
        rows.append(row)
    quads = grid(len(rows), len(ring))
    return np.concatenate(rows), quads if sign > 0 else quads[:, ::-1]


def _temple(head: Head, hinge: np.ndarray, sign: int, radius: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """From the rim along the temple to where ear and skull meet, then down behind the ear."""
    which = 0 if sign > 0 else 1
    top, lobe = head.ear_tops[which], head.lobes[which]
    p = head.points[head.skin]
    ear_front = min(top[1], lobe[1]) - 0.012 * scale
    rest = np.array([sign * 0.0, top[1] - 0.002 * scale, top[2] - 0.006 * scale])
    t = np.linspace(0, 1, 16)
    y = hinge[1] + (rest[1] - hinge[1]) * t
    z = hinge[2] + (rest[2] - hinge[2]) * t
    x = np.zeros(16)
    for i in range(16):
        near = (np.abs(p[:, 1] - min(y[i], ear_front)) < 0.007 * scale) & (np.abs(p[:, 2] - z[i]) < 0.006 * scale)
        near &= p[:, 0] * sign > 0
        x[i] = np.abs(p[near, 0]).max() + radius + 0.0012 if near.any() else abs(hinge[0])
    x[0] = max(abs(hinge[0]), x[0])
    # Taut: never inside the line from the hinge to the ear.
    x = np.maximum(x, np.linspace(x[0], x[-1], 16))
    path = np.stack([sign * x, y, z], 1)
    drop = np.linspace(0.2, 1, 5)[:, None] * np.array([0, 0.016, -0.026]) * scale
    path = np.concatenate([path, path[-1] + drop + np.array([-sign * 0.002, 0, 0]) * np.linspace(0, 1, 5)[:, None]])
    return tube(path, (max(radius * 0.7, 0.0008), max(radius * 1.3, 0.0016)), 8, up=np.array([0, 0, 1.0]))
