"""A head -> a mask over nose and mouth, headphones over the ears.

Legend: R rows, C columns, A directions.
"""

from __future__ import annotations

import numpy as np

from render.people.accessories import Thing
from render.people.piece import Piece
from render.people.solids import Solid, merged, sheet, tube, turned
from render.people.wearing import Head, Wearer

ROWS, COLUMNS = 19, 33
# From the middle of the face to the mask's side edge.
SIDE_DEG = 58.0
CLEAR_M, THICK_M = 0.0025, 0.001


def mask(thing: Thing, wearer: Wearer) -> list[Piece]:
    """A cloth drawn tight from the bridge of the nose to under the chin, with pleats, and a loop round each ear."""
    head = wearer.head
    scale = head.ipd / 0.062
    p = head.points[head.skin]
    centre = np.array([head.eyes[:, 0].mean(), head.lobes[:, 1].mean(), 0.0])
    turn = np.radians(np.linspace(-SIDE_DEG, SIDE_DEG, COLUMNS))
    # High over the nose, down at the cheeks; below, under the chin.
    middle = np.cos(turn / np.radians(SIDE_DEG) * np.pi / 2) ** 1.2
    bridge = head.nose[2] + 0.55 * (head.root[2] - head.nose[2])
    side_top = head.nose[2] + 0.004 * scale
    side_low = head.chin[2] + 0.016 * scale
    top = side_top + (bridge - side_top) * middle
    low = side_low + (head.chin[2] - 0.004 * scale - side_low) * middle
    share = np.linspace(0, 1, ROWS)[:, None]
    z = top + (low - top) * share
    reach = _reach(p, centre, turn, z, 0.13, 0.006 * scale)
    for _ in range(14):
        wide = np.pad(reach, 1, mode="edge")
        level = (wide[1:-1, :-2] + wide[1:-1, 2:]) / 2
        upright = (wide[:-2, 1:-1] + wide[2:, 1:-1]) / 2
        reach = np.maximum(reach, np.maximum(level, upright))
    reach += CLEAR_M * scale
    pleat = 0.0009 * scale * np.sin(share * np.pi * 8) * np.clip(1 - np.abs(share - 0.5) * 2.2, 0, 1)
    reach += np.abs(pleat)
    away = np.stack([np.sin(turn), -np.cos(turn), np.zeros(COLUMNS)], 1)
    front = np.stack([centre[0] + away[:, 0] * reach, centre[1] + away[:, 1] * reach, z], axis=2)
    # The lower edge is drawn in under the chin.
    front[-1] += (centre - front[-1]) * [0.05, 0.05, 0]
    points, quads = sheet(front, np.broadcast_to(-away[None] * THICK_M * scale, front.shape))
    loops = [_loop(head, front, which, sign, scale) for which, sign in ((0, 1), (1, -1))]
    loop_points, loop_quads = merged(*loops)
    uv = (points[:, [0, 2]] / 0.08)[quads]
    return [Piece("mask", head.world(points), quads, uv=uv), Piece("mask_loop", head.world(loop_points), loop_quads)]


def _reach(
    p: np.ndarray, centre: np.ndarray, turn: np.ndarray, z: np.ndarray, within: float, band_m: float
) -> np.ndarray:
    """(R, C) how far out from the vertical axis through ``centre`` the points ``p`` reach near each direction and height."""
    away = p - centre
    angle, far = np.arctan2(away[:, 0], -away[:, 1]), np.hypot(away[:, 0], away[:, 1])
    out = np.full(z.shape, np.nan)
    for j, t in enumerate(turn):
        near = np.abs((angle - t + np.pi) % (2 * np.pi) - np.pi) < within
        heights, reaches = p[near, 2], far[near]
        for i in range(len(z)):
            mine = np.abs(heights - z[i, j]) < band_m
            if mine.any():
                out[i, j] = reaches[mine].max()
    for j in range(out.shape[1]):
        known = ~np.isnan(out[:, j])
        out[:, j] = np.interp(np.arange(len(z)), np.flatnonzero(known), out[known, j])
    return out


def _loop(head: Head, front: np.ndarray, which: int, sign: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A cord from the upper corner round behind the ear to the lower one."""
    column = -1 if sign > 0 else 0
    top, low = front[1, column], front[-2, column]
    up, lobe = head.ear_tops[which], head.lobes[which]
    out = np.array([sign, 0, 0.0])
    over = np.array([up[0], up[1] - 0.004 * scale, up[2] - 0.004 * scale]) - out * 0.006 * scale
    behind = (
        np.array([(up[0] + lobe[0]) / 2, max(up[1], lobe[1]) + 0.014 * scale, (up[2] + lobe[2]) / 2])
        - out * 0.008 * scale
    )
    under = np.array([lobe[0], lobe[1] + 0.006 * scale, lobe[2] + 0.002 * scale]) - out * 0.003 * scale
    knots = np.array([top, (top + over) / 2 + out * 0.003, over, behind, under, (under + low) / 2 + out * 0.003, low])
    from scipy.interpolate import make_interp_spline

    path = make_interp_spline(np.arange(len(knots)), knots, k=3)(np.linspace(0, len(knots) - 1, 40))
    p = head.points[head.skin]
    # On the cheek the cord lies on the skin, not in it.
    for i, at in enumerate(path):
        if min(up[1], lobe[1]) - 0.012 * scale < at[1]:
            continue
        near = (np.abs(p[:, 1:] - at[1:]) < 0.007 * scale).all(axis=1) & (p[:, 0] * sign > 0)
        if near.any():
            path[i, 0] = sign * max(abs(at[0]), np.abs(p[near, 0]).max() + 0.0015)
    return tube(path, 0.0013 * scale, 6)


def headphones(thing: Thing, wearer: Wearer) -> list[Piece]:
    """A band over the skull and the hair that it presses on, hollow cups round the ears."""
    head, rng = wearer.head, np.random.default_rng(thing.seed)
    scale = head.ipd / 0.062
    p = head.points[head.skin]
    ears = (head.ear_tops + head.lobes) / 2
    y0, z0 = float(ears[:, 1].mean()), float(ears[:, 2].mean())
    inner = (0.5 * float(np.abs(head.ear_tops[:, 2] - head.lobes[:, 2]).mean()) + 0.004 * scale) * 1.04
    outer = inner + 0.012 * scale
    solid: list[Solid] = []
    pads: list[Solid] = []
    ends = []
    for sign in (1, -1):
        ring = (p[:, 0] * sign > 0) & (np.hypot(p[:, 1] - y0, p[:, 2] - z0) < outer + 0.004)
        rim = ring & (np.hypot(p[:, 1] - y0, p[:, 2] - z0) > inner)
        base, most = np.abs(p[rim, 0]).max(), np.abs(p[ring, 0]).max()
        deep = max(most - base + 0.008 * scale, 0.022 * scale)
        # The cup's axis runs outwards from the ear.
        frame = np.array([[0.0, 0.0, sign], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
        shell = turned(
            [
                (outer - 0.003, 0.010),
                (outer, 0.013),
                (outer, deep),
                (outer * 0.86, deep + 0.006),
                (outer * 0.4, deep + 0.008),
                (0, deep + 0.008),
            ]
        )
        pad = turned(
            [
                (outer - 0.002, 0.012),
                (outer + 0.001, 0.006),
                (outer - 0.003, 0.0005),
                (inner + 0.003, 0.0),
                (inner, 0.005),
                (inner + 0.001, deep - 0.002),
                (0, deep),
            ]
        )
        at = np.array([sign * base, y0, z0])
        for made, kept in ((shell, solid), (pad, pads)):
            points = made[0] @ frame.T + at
            quads = made[1] if np.linalg.det(frame) > 0 else made[1][:, ::-1]
            kept.append((points, quads))
        ends.append(base + deep * 0.55)
    near = (np.abs(p[:, 1] - y0) < 0.02 * scale) & (p[:, 2] > z0 + 0.03 * scale)
    feet = np.array([[e * sign, z] for sign, e in zip((1, -1), ends) for z in (z0 - 0.012 * scale, z0 + 0.01 * scale)])
    band_xz = _over(np.concatenate([p[near][:, [0, 2]], feet]), (0.004 + wearer.hair_m) * scale)
    band = np.column_stack([band_xz[:, 0], np.full(len(band_xz), y0), band_xz[:, 1]])
    up = np.gradient(band, axis=0)
    up = np.column_stack([-up[:, 2], np.zeros(len(up)), up[:, 0]])
    solid.append(tube(band, (float(rng.uniform(0.009, 0.016)) * scale, 0.004 * scale), 12, up=up))
    points, quads = merged(*solid)
    pad_points, pad_quads = merged(*pads)
    return [Piece("headphones", head.world(points), quads), Piece("pads", head.world(pad_points), pad_quads)]


def _over(points: np.ndarray, lift_m: float) -> np.ndarray:
    """(N, 2) the upper convex outline of points (x, z), from its right end over the top to its left, ``lift_m`` out."""
    from scipy.spatial import ConvexHull

    ring = points[ConvexHull(points).vertices]
    low = ring[ring[:, 1] < ring[:, 1].min() + 0.004]
    middle = (low[low[:, 0].argmin()] + low[low[:, 0].argmax()]) / 2
    angle = np.arctan2(ring[:, 0] - middle[0], ring[:, 1] - middle[1])
    ring = ring[np.argsort(angle)]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    even = np.linspace(0, length[-1], 48)
    path = np.stack([np.interp(even, length, ring[:, k]) for k in range(2)], 1)
    out = path - middle
    return path + lift_m * out / np.linalg.norm(out, axis=1, keepdims=True)
