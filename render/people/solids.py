"""Curves and outlines -> closed quads for things that people wear and carry: tubes, turned bodies, rounded boxes, sheets.

Legend: N points of a path, S points round it, R rows. All quads wind outwards.
"""

from __future__ import annotations

import numpy as np

Solid = tuple[np.ndarray, np.ndarray]


def grid(rows: int, across: int, closed: bool = True) -> np.ndarray:
    """(Q, 4) int32 quads of ``rows`` by ``across`` points, ``closed``: the last column meets the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(across if closed else across - 1), indexing="ij")
    k = (j + 1) % across
    quads = np.stack([i * across + j, i * across + k, (i + 1) * across + k, (i + 1) * across + j], axis=2)
    return quads.reshape(-1, 4).astype(np.int32)


def tube(path: np.ndarray, radius: float | tuple[float, float], sides: int = 10, closed: bool = False,
         up: np.ndarray | None = None) -> Solid:  # fmt: skip
    """A rope along ``path`` (N, 3). ``radius``: metres, or two of an ellipse: sideways and along ``up`` (N, 3) or (3,)."""
    wide, tall = (radius, radius) if isinstance(radius, float) else radius
    n = len(path)
    ahead = (np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else np.gradient(path, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-12)
    if up is None:
        up = np.array([0.0, 0.0, 1.0]) if abs(ahead[:, 2]).mean() < 0.8 else np.array([0.0, 1.0, 0.0])
    up = np.broadcast_to(up, path.shape)
    side = np.cross(ahead, up)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    top = np.cross(side, ahead)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    rows = (
        path[:, None]
        + wide * np.cos(turn)[None, :, None] * side[:, None]
        + tall * np.sin(turn)[None, :, None] * top[:, None]
    )
    if closed:
        rows = np.concatenate([rows, rows[:1]])
        return rows[:-1].reshape(-1, 3), (grid(n + 1, sides) % (n * sides))[:, ::-1]
    # Ends are closed by two rings that shrink to a point.
    ends = [
        path[:1, None] + (rows[:1] - path[:1, None]) * 1e-3,
        rows,
        path[-1:, None] + (rows[-1:] - path[-1:, None]) * 1e-3,
    ]
    rows = np.concatenate(ends)
    # Sideways, up and ahead are left-handed.
    return rows.reshape(-1, 3), grid(n + 2, sides)[:, ::-1]


def turned(profile: list[tuple[float, float]], sides: int = 32) -> Solid:
    """A body of revolution about z from (radius, height) pairs, bottom first; ends on the axis close it."""
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    rows = [
        np.stack([max(r, 1e-6) * np.cos(turn), max(r, 1e-6) * np.sin(turn), np.full(sides, z)], 1) for r, z in profile
    ]
    return np.concatenate(rows), grid(len(rows), sides)


def box(half: tuple[float, float, float], bevel: float, steps: int = 3, between: int = 2) -> Solid:
    """A box of half sides ``half`` with edges rounded by ``bevel``, and ``between`` rows of points on each side's flat."""
    size = np.array(half)
    points, quads, first = [], [], 0
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        lines = []
        for k in (a, b):
            arc = size[k] - bevel + bevel * np.tan(np.linspace(0, np.pi / 4, steps + 1))
            flat = np.linspace(-(size[k] - bevel), size[k] - bevel, between + 2)[1:-1]
            lines.append(np.concatenate([-arc[::-1], flat, arc]))
        for sign in (-1, 1):
            u, v = np.meshgrid(*lines, indexing="ij")
            p = np.zeros((*u.shape, 3))
            p[..., axis], p[..., a], p[..., b] = sign * size[axis], u, v
            inner = np.clip(p, -(size - bevel), size - bevel)
            away = p - inner
            p = inner + bevel * away / np.maximum(np.linalg.norm(away, axis=2, keepdims=True), 1e-12)
            q = grid(len(lines[0]), len(lines[1]), closed=False)
            quads.append((q[:, ::-1] if sign < 0 else q) + first)
            points.append(p.reshape(-1, 3))
            first += p[..., 0].size
    made = np.concatenate(quads)
    # grid() winds rows before columns; on these faces that is inwards.
    return np.concatenate(points), _outwards(np.concatenate(points), made)


def sheet(front: np.ndarray, thick: np.ndarray) -> Solid:
    """A cloth of (R, C, 3) points with a back ``thick`` (R, C, 3) behind it and a border all round."""
    r, c = front.shape[:2]
    q = grid(r, c, closed=False)
    rim = np.concatenate([np.arange(c), np.arange(1, r) * c + c - 1, (r - 1) * c + np.arange(c - 1)[::-1],
                          np.arange(1, r - 1)[::-1] * c])  # fmt: skip
    after = np.roll(rim, -1)
    side = np.stack([rim, after, after + r * c, rim + r * c], axis=1)
    points = np.concatenate([front.reshape(-1, 3), (front + thick).reshape(-1, 3)])
    quads = np.concatenate([q, q[:, ::-1] + r * c, side[:, ::-1]]).astype(np.int32)
    a, b, back = front[1:, 1:] - front[:-1, :-1], front[1:, :-1] - front[:-1, 1:], thick[:-1, :-1]
    # Rows and columns may run either way.
    inward = float(np.sum(np.cross(a, b) * back)) > 0
    return points, quads[:, ::-1] if inward else quads


def merged(*solids: Solid) -> Solid:
    """Several as one."""
    points, quads, first = [], [], 0
    for p, q in solids:
        points.append(p)
        quads.append(q + first)
        first += len(p)
    return np.concatenate(points), np.concatenate(quads).astype(np.int32)


def _outwards(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Quads of a convex body round the origin, wound outwards."""
    a, b, c = (points[quads[:, i]] for i in (0, 1, 2))
    d = points[quads[:, 3]]
    inward = np.einsum("nc,nc->n", np.cross(c - a, d - b), points[quads].mean(axis=1)) < 0
    out = quads.copy()
    out[inward] = out[inward][:, ::-1]
    return out.astype(np.int32)
