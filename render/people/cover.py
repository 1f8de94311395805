"""Garments in the pose -> what of the body and of other cloth is hidden by them: cut away, or drawn in under a hem.

Legend: C points of the sheet, V vertices of the base mesh, N points of one garment.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from render.people.layers import UNDER_HEM_M, Layers, Worn
from render.people.shell import LEG, normals_of

# What lies under cloth stays this far behind its inner face.
BEHIND_M = 0.0012
REACH_M = 0.05


def hidden(depth: np.ndarray, quads: np.ndarray, margin_m: float) -> np.ndarray:
    """(Q,) bool: quads whose four corners lie deeper than ``margin_m`` inside a garment; ``depth``: (N,)."""
    return (depth[quads] > margin_m).all(axis=1)


def drawn_in(points: np.ndarray, covered: np.ndarray, worn: Worn, reach_m: float = REACH_M) -> np.ndarray:
    """``points`` (N, 3) with those ``covered`` (N,) by ``worn`` brought behind its cloth where they stand out of it."""
    mine = np.flatnonzero(covered)
    if not len(mine):
        return points
    cloth = worn.points
    normals = normals_of(cloth, worn.cutout.quads)
    reached, i = cKDTree(cloth).query(points[mine], k=4, distance_upper_bound=reach_m)
    out = points.copy()
    gap = worn.garment.thick_m + BEHIND_M
    # Behind each of the four nearest points' planes: one alone leaves a corner standing out between two.
    for k in range(4):
        ok = np.isfinite(reached[:, k])
        j = i[ok, k]
        above = np.einsum("nc,nc->n", out[mine[ok]] - cloth[j], normals[j]) + gap
        out[mine[ok]] -= normals[j] * np.clip(above, 0, reach_m)[:, None]
    return out


def laid(rows: np.ndarray, worn: Worn, low_m: np.ndarray, high_m: np.ndarray) -> np.ndarray:
    """``rows`` (M, R, 3) of a fold, each brought from ``low_m`` to ``high_m``, (M,), above the cloth of ``worn`` where that is
    within REACH_M, and evenly so along the row: cloth's own small folds do not print through.
    """
    low, high = (np.repeat(limit, rows.shape[1]) for limit in (low_m, high_m))
    cloth = worn.points
    normals = normals_of(cloth, worn.cutout.quads)
    tree = cKDTree(cloth)
    for _ in range(2):
        points = rows.reshape(-1, 3)
        out = points.copy()
        reached, i = tree.query(points, k=4, distance_upper_bound=REACH_M)
        ok = np.isfinite(reached)
        here, nearest = np.flatnonzero(ok[:, 0]), i[ok[:, 0], 0]
        above = np.einsum("nc,nc->n", out[here] - cloth[nearest], normals[nearest])
        out[here] -= normals[nearest] * np.clip(above - high[here], 0, None)[:, None]
        for k in range(4):
            here, j = np.flatnonzero(ok[:, k]), i[ok[:, k], k]
            below = low[here] - np.einsum("nc,nc->n", out[here] - cloth[j], normals[j])
            out[here] += normals[j] * np.clip(below, 0, REACH_M)[:, None]
        rows = rows + _evened((out - points).reshape(rows.shape), 3)
    return rows


def _evened(moved: np.ndarray, times: int) -> np.ndarray:
    """``moved`` (M, R, 3) smoothed along its rows."""
    for _ in range(times):
        padded = np.pad(moved, ((0, 0), (1, 1), (0, 0)), mode="edge")
        moved = (padded[:, :-2] + padded[:, 2:] + 2 * moved) / 4
    return moved


def clear(rows: np.ndarray, skin: np.ndarray, normals: np.ndarray, gap_m: float) -> np.ndarray:
    """``rows`` (M, R, 3) of a fold with what is inside a body brought out of it, ``gap_m`` above its ``skin`` (V, 3) of ``normals``
    (V, 3); what is beside such places goes with them.
    """
    tree, out = cKDTree(skin), rows.copy()
    for last in (False, False, True):
        points = out.reshape(-1, 3)
        reached, i = tree.query(points, k=4, distance_upper_bound=REACH_M)
        pushed = points.copy()
        for k in range(4):
            here = np.flatnonzero(np.isfinite(reached[:, k]))
            j = i[here, k]
            below = gap_m - np.einsum("nc,nc->n", pushed[here] - skin[j], normals[j])
            pushed[here] += normals[j] * np.clip(below, 0, REACH_M)[:, None]
        out = out + _evened((pushed - points).reshape(rows.shape), 0 if last else 1)
    return out


class Cover:
    """What the finished layers hide of the body."""

    def __init__(self, layers: Layers, under: np.ndarray) -> None:
        """``under``: (V,) the sheet point over each body vertex, -1 where the sheet does not go."""
        self._layers, self._under = layers, under

    def skin(self, vertices: np.ndarray, quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``vertices`` (V, 3) drawn in under hems, and which of the body's ``quads`` are left (bool)."""
        size = self._layers.sheet.size
        on = self._under >= 0
        left = np.ones(len(quads), bool)
        out = vertices
        # The innermost first: what the outermost draws in must not be pushed out again.
        for worn in self._layers.worn:
            depth = np.full(len(vertices), -1.0)
            depth[on] = self._reach(worn)[self._under[on]]
            if not worn.tail:
                left &= ~hidden(depth, quads, UNDER_HEM_M * size)
            out = drawn_in(out, depth > 0.004 * size, worn)
        return out, left

    def covered(self) -> np.ndarray:
        """(V,) bool: skin that lies under a garment, by more than a hem's width of 6 mm."""
        on, size = self._under >= 0, self._layers.sheet.size
        found = np.zeros(len(on), bool)
        for worn in self._layers.worn:
            found[on] |= self._reach(worn)[self._under[on]] > 0.006 * size
        return found

    def beneath(self, index: int) -> np.ndarray:
        """(N,) bool: points of the ``index``-th garment that lie under one put on later."""
        worn, size = self._layers.worn, self._layers.sheet.size
        inner, found = worn[index], np.zeros(len(worn[index].points), bool)
        for outer in worn[index + 1 :]:
            if not (inner.tail and not outer.tail):
                found |= inner.cutout.take(self._reach(outer)) > 0.008 * size
        return found

    def cloth(self) -> None:
        """Cut away and draw in each garment where those put on after it lie over it."""
        worn, size = self._layers.worn, self._layers.sheet.size
        for a, inner in enumerate(worn):
            for outer in worn[a + 1 :]:
                if inner.tail and not outer.tail:
                    continue
                depth = inner.cutout.take(self._reach(outer))
                if not outer.tail and not inner.tail:
                    inner.gone |= hidden(depth, inner.cutout.quads, (UNDER_HEM_M + 0.01) * size)
                # Twice: moved behind one point's plane, another point is the nearest.
                for _ in range(2):
                    inner.points = drawn_in(inner.points, depth > 0.006 * size, outer)

    def _reach(self, worn: Worn) -> np.ndarray:
        """(C,) depth inside ``worn``; inside a skirt, that of the trunk and legs down to its hem."""
        if not worn.tail:
            return worn.depth
        layers = self._layers
        marks, shell = layers.marks, layers.shell
        end = worn.garment.tail or 0.0
        legs = (end - marks.leg) * (marks.crotch - marks.ankle)
        top = (1.0 - marks.trunk) * (marks.waist - marks.crotch)
        depth = np.where(np.isin(shell.limb, (*LEG, "pelvis", "trunk")), np.minimum(legs, top), -1.0)
        depth[shell.tights :] = -1.0
        if worn.garment.open_m is not None:
            edge = np.abs(layers.sheet.rest[:, 0]) - worn.garment.open_m * layers.sheet.size
            depth = np.where(layers.sheet.rest_normals[:, 1] < 0, np.minimum(depth, edge), depth)
        return depth
