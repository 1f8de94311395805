"""A clothed trunk -> a scarf round the neck, a backpack, a bag on a strap across the body.

Straps are taut: where one goes round the body it is the convex outline of the section it lies on. Legend: N points.
"""

from __future__ import annotations

import numpy as np

from render.people.accessories import Thing
from render.people.piece import Piece
from render.people.solids import Solid, box, merged, sheet, tube
from render.people.wearing import Wearer

# Of skin and cloth of limbs, none may be deeper than this inside a bag; else the person carries none in this pose.
DEEPEST_M = 0.012
STRAP_M = 0.0016
# Points round a turn of a scarf; rows on a bag's side: hair stays out of surfaces by their points, which lie 2 cm apart so.
ROUND, FINE = 48, 16


class Trunk:
    """The trunk's own frame: x to its left, y behind, z up along the back, from the hips' middle."""

    def __init__(self, wearer: Wearer) -> None:
        at = wearer.posed.bones
        self.hips = (at["upperleg01.L"] + at["upperleg01.R"]) / 2
        up = at["neck01"] - self.hips
        self.long = float(np.linalg.norm(up))
        up = up / self.long
        left = at["upperarm01.L"] - at["upperarm01.R"]
        left -= up * (left @ up)
        left /= np.linalg.norm(left)
        self.axes = np.stack([left, np.cross(up, left), up])
        self.cloud = self.local(wearer.trunk)

    def local(self, points: np.ndarray) -> np.ndarray:
        """World (N, 3) in the frame."""
        return (points - self.hips) @ self.axes.T

    def world(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) of the frame in the world."""
        return points @ self.axes + self.hips


def scarf(thing: Thing, wearer: Wearer) -> list[Piece]:
    """Two turns round the neck and an end that hangs on the chest."""
    rng = np.random.default_rng(thing.seed)
    at, size = wearer.posed.bones, wearer.size
    up = at["head"] - at["neck01"]
    tall = float(np.linalg.norm(up))
    up /= tall
    ahead = np.cross(at["upperarm01.R"] - at["upperarm01.L"], up)
    ahead /= np.linalg.norm(ahead)
    if ahead @ (wearer.head.turn @ np.array([0, -1.0, 0])) < 0:
        ahead = -ahead
    left = np.cross(up, -ahead)
    foot = at["neck01"] + up * 0.1 * tall
    # The nape too, where a head leans back; never the jaw, which a scarf lies under.
    skin = wearer.posed.vertices
    nape = (wearer.limb == "head") & ((skin - foot) @ ahead < 0)
    cloud = np.concatenate([wearer.trunk, skin[(wearer.limb == "neck") | nape]]) - foot
    flat = np.stack([cloud @ left, -(cloud @ ahead), cloud @ up], 1)
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    angle, far = np.arctan2(flat[:, 0], -flat[:, 1]), np.hypot(flat[:, 0], flat[:, 1])
    far = np.where(far > 0.14 * size, np.nan, far)
    coils: list[Solid] = []
    throat = foot
    for lift, tilt, thick in ((0.018, 0.10, 0.015), (0.042, -0.06, 0.014)):
        height = (lift + 0.03 * (0.5 - 0.5 * np.cos(turn)) * (1 + tilt) - 0.012 * np.cos(turn)) * size
        reach = np.zeros(64)
        for i, t in enumerate(turn):
            near = np.abs((angle - t + np.pi) % (2 * np.pi) - np.pi) < 0.22
            near &= np.abs(flat[:, 2] - height[i]) < 0.036 * size
            reach[i] = np.nanmax(far[near]) if (near & ~np.isnan(far)).any() else np.nan
        known = ~np.isnan(reach)
        reach = np.interp(turn, turn[known], reach[known], period=2 * np.pi)
        for _ in range(8):
            reach = np.maximum(reach, (np.roll(reach, 1) + np.roll(reach, -1)) / 2)
        path = (
            foot
            + np.outer((reach + 1.25 * thick * size) * np.sin(turn), left)
            + np.outer((reach + 1.25 * thick * size) * np.cos(turn), ahead)
        )
        path += np.outer(height, up)
        throat = path[0]
        points, quads = tube(path, (thick * size, 0.030 * size), ROUND, closed=True, up=up)
        rows = points.reshape(64, ROUND, 3)
        # Gathered cloth: folds of several widths that run along the turn and drift round it.
        section = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
        fold = 1 + 0.10 * np.sin(3 * turn + rng.uniform(0, 6.3))[:, None]
        for folds, drift, deep in ((3, 2, 0.12), (5, -1, 0.10), (8, 3, 0.07), (11, -2, 0.05)):
            swell = deep * (1 + 0.6 * np.sin(2 * turn + rng.uniform(0, 6.3)))
            fold = fold + swell[:, None] * np.sin(folds * section + drift * turn[:, None] + rng.uniform(0, 6.3))
        # The neck is a quarter of the thickness away from the path's inner side: outwards folds are flatter than inwards.
        fold = np.where(fold > 1, 1 + 0.2 * np.tanh((fold - 1) / 0.2), np.maximum(fold, 0.65))
        rows = path[:, None] + (rows - path[:, None]) * fold[..., None]
        coils.append((rows.reshape(-1, 3), quads))
    coils.append(_end(wearer, rng, size, throat))
    points, quads = merged(*coils)
    uv = np.stack([points @ left, points @ up], 1)[quads] / 0.1
    return [Piece("scarf", points, quads, uv=uv)]


def _end(wearer: Wearer, rng: np.random.Generator, size: float, throat: np.ndarray) -> Solid:
    """A strip down the chest from ``throat`` (3,), inside the upper turn: above it, it would stand before the chin."""
    trunk = Trunk(wearer)
    cloud, long = trunk.cloud, trunk.long
    x0, half, down = float(rng.uniform(-0.05, 0.05)) * size, 0.05 * size, float(rng.uniform(0.35, 0.6))
    top = min(1.06 * long, float(trunk.local(throat)[2]))
    z = np.linspace(top, top - down * long, 16)
    x = x0 + np.linspace(-half, half, 9)
    front = np.zeros((16, 9, 3))
    for i, h in enumerate(z):
        for j, u in enumerate(x):
            near = (
                (np.abs(cloud[:, 2] - h) < 0.03 * size) & (np.abs(cloud[:, 0] - u) < 0.03 * size) & (cloud[:, 1] < 0.02)
            )
            front[i, j] = u, cloud[near, 1].min() if near.any() else np.nan, h
    y = front[..., 1]
    known = ~np.isnan(y)
    y[~known] = np.nanmax(y)
    # Cloth hangs: nothing recedes below what stands out above it by more than it would swing.
    for i in range(1, 16):
        y[i] = np.minimum(y[i], y[i - 1] + 0.010 * size)
    y -= 0.009 * size + 0.004 * size * (1 + np.sin(np.linspace(0, 3 * np.pi, 9) + rng.uniform(0, 6)))[None]
    points, quads = sheet(front, np.broadcast_to(np.array([0, 0.005 * size, 0]), front.shape))
    return trunk.world(points), quads


def bag(thing: Thing, wearer: Wearer) -> list[Piece] | None:
    """A backpack with two straps, or a bag at the hip on one; None where limbs are where it would hang."""
    trunk, size = Trunk(wearer), wearer.size
    rng = np.random.default_rng(thing.seed)
    made = (_backpack if thing.kind == "backpack" else _crossbody)(trunk, size, rng)
    half, at, frame, straps, points, quads = made
    inside = (half - np.abs((trunk.local(wearer.solid_points()) - at) @ frame)).min(axis=1)
    if inside.max() > DEEPEST_M:
        return None
    strap_points, strap_quads = merged(*straps)
    uv = (points[:, [0, 2]] / 0.08)[quads]
    return [Piece("bag", trunk.world(points), quads, uv=uv), Piece("strap", trunk.world(strap_points), strap_quads)]


# Half sides, middle, axes as columns, straps, and the bag itself.
Made = tuple[np.ndarray, np.ndarray, np.ndarray, list[Solid], np.ndarray, np.ndarray]


def _backpack(trunk: Trunk, size: float, rng: np.random.Generator) -> Made:
    half = np.array([0.14, 0.06 + 0.03 * rng.random(), 0.19 + 0.03 * rng.random()]) * size
    middle = 0.66 * trunk.long
    c = trunk.cloud
    at, frame = _leaning(c, half, middle)
    points, quads = box((half[0], half[1], half[2]), 0.045 * size, between=FINE)
    pocket, more = box((half[0] * 0.72, half[1] * 0.45, half[2] * 0.42), 0.02 * size)
    points, quads = merged((points, quads), (pocket + np.array([0, half[1] * 0.9, -half[2] * 0.4]), more))
    straps = []
    for sign in (1, -1):
        x = sign * 0.085 * size
        slab = c[np.abs(c[:, 0] - x) < 0.022 * size]
        slab = slab[slab[:, 2] > 0.55 * trunk.long]
        hull = _hull(slab[:, 1:])
        path = np.column_stack([np.full(len(hull), x), hull])
        top = int(path[:, 2].argmax())
        path = np.roll(path, -top, axis=0)
        # From the top forwards and down the chest, whichever way the outline was drawn.
        if path[5, 1] > path[-5, 1]:
            path = np.roll(path[::-1], 1, axis=0)
        front = path[: int(np.argmax(path[:, 2] < 0.70 * trunk.long))]
        back = path[len(path) - 12 :]
        back = back[back[:, 2] > middle + half[2] * 0.5]
        start = at + frame @ np.array([x, -half[1] + 0.004, half[2] * 0.72])
        straps.append(_band(np.concatenate([start[None], back, front]), np.array([1.0, 0, 0]), 0.030 * size))
        level = 0.70 * trunk.long
        ring = c[np.abs(c[:, 2] - level) < 0.02 * size]
        ring = ring[ring[:, 0] * sign > 0.0]
        side = _hull(ring[:, :2])
        way = np.arctan2(side[:, 0] * sign, -side[:, 1])
        order = np.argsort(way)
        around = side[order][(way[order] > np.arctan2(abs(x), -front[-1, 1])) & (way[order] < 2.5)]
        if len(around) > 2:
            low = np.column_stack([around, np.linspace(level, middle - half[2] * 0.6, len(around))])
            end = at + frame @ np.array([x * 1.3, -half[1] * 0.6, -half[2] * 0.7])
            straps.append(_band(np.concatenate([front[-1:], low, end[None]]), np.array([0, 0, 1.0]), 0.016 * size))
    return half, at, frame, straps, points @ frame.T + at, quads


def _crossbody(trunk: Trunk, size: float, rng: np.random.Generator) -> Made:
    side = 1 if rng.random() < 0.5 else -1
    half = np.array([0.05, 0.13, 0.10]) * size * float(rng.uniform(0.8, 1.1))
    c = trunk.cloud
    # The strap's plane runs from beside the neck to the other hip.
    high, low = (
        np.array([-side * 0.075 * size, 0, trunk.long * 1.0]),
        np.array([side * 0.17 * size, 0, 0.10 * trunk.long]),
    )
    along = (high - low) / np.linalg.norm(high - low)
    normal = np.cross(along, [0, 1.0, 0])
    normal /= np.linalg.norm(normal)
    slab = c[np.abs((c - low) @ normal) < 0.02 * size] - low
    flat = _hull(np.stack([slab @ along, slab[:, 1]], 1))
    path = low + np.outer(flat[:, 0], along) + np.outer(flat[:, 1], [0, 1.0, 0])
    straps = [_band(path, normal, 0.030 * size, closed=True)]
    # Behind the hip, where an arm seldom hangs.
    hip = c[(np.abs(c[:, 2] - 0.05 * trunk.long) < half[2]) & (c[:, 0] * side > 0)]
    turn = np.radians(62.0)
    out = np.array([side * np.cos(turn), np.sin(turn), 0])
    at = out * (float((hip @ out).max()) + half[0] + 0.004)
    at[2] = 0.05 * trunk.long
    points, quads = box((half[1], half[0], half[2]), 0.022 * size, between=FINE)
    flap, more = box((half[1] * 1.01, half[0] * 0.25, half[2] * 0.55), 0.012 * size)
    points, quads = merged((points, quads), (flap + np.array([0, half[0] * 0.82, half[2] * 0.46]), more))
    across = np.array([-out[1], out[0], 0])
    frame = np.stack([across, out, [0, 0, 1.0]], axis=1)
    if np.linalg.det(frame) < 0:
        frame[:, 0] *= -1
    return np.array([half[1], half[0], half[2]]), at, frame, straps, points @ frame.T + at, quads


def _leaning(cloud: np.ndarray, half: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """(3,) middle and (3, 3) axes of a box that lies on the back: on the two places where it stands out most."""
    near = cloud[(np.abs(cloud[:, 0]) < 0.8 * half[0]) & (np.abs(cloud[:, 2] - middle) < half[2])]
    z = np.linspace(middle - half[2], middle + half[2], 13)
    y = np.array([near[np.abs(near[:, 2] - h) < 0.02, 1].max(initial=-1.0) for h in z])
    z, y = z[y > -1], y[y > -1]
    # The line over all rows whose mean height above them is least: an edge of their hull.
    slopes = np.tan(np.radians(np.linspace(-22, 22, 45)))
    gaps = [float((y - s * (z - middle)).max() - (y - s * (z - middle)).mean()) for s in slopes]
    lean = float(np.arctan(slopes[int(np.argmin(gaps))]))
    up = np.array([0.0, np.sin(lean), np.cos(lean)])
    out = np.array([0.0, np.cos(lean), -np.sin(lean)])
    frame = np.stack([[1.0, 0.0, 0.0], out, up], axis=1)
    away = float((near @ out).max()) + 0.003 + half[1]
    return out * away + up * (middle * np.cos(lean)), frame


def _hull(points: np.ndarray) -> np.ndarray:
    """(N, 2) convex outline, evenly spaced 1.5 cm apart."""
    from scipy.spatial import ConvexHull

    ring = points[ConvexHull(points).vertices]
    ring = np.concatenate([ring, ring[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    even = np.linspace(0, length[-1], max(int(length[-1] / 0.015), 12), endpoint=False)
    return np.stack([np.interp(even, length, ring[:, k]) for k in range(2)], 1)


def _band(path: np.ndarray, across: np.ndarray, width: float, closed: bool = False) -> Solid:
    """A flat strap along ``path`` (N, 3), 3 mm over what it lies on: outwards is away from the path's middle."""
    middle = path.mean(axis=0)
    ahead = (np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else np.gradient(path, axis=0)
    out = np.cross(ahead, across)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    out *= np.where(np.einsum("nc,nc->n", out, path - middle) < 0, -1, 1)[:, None]
    if closed:
        path, out = np.concatenate([path, path[:1]]), np.concatenate([out, out[:1]])
    return tube(path + out * (STRAP_M + 0.0015), (STRAP_M, width / 2), 8, up=np.broadcast_to(across, path.shape))
