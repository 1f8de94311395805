"""Strands round a head -> one smooth closed-looking surface about their volume, for normals and for GLB.

A density on a grid, the head filled in, blurred; then surface nets: a vertex in every cell that the level passes, a quad
for every edge that it crosses (Gibson 1998). Legend: N strands, K points, V vertices, Q quads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from render.people.shell import normals_of

VOXEL_M, BLUR = 0.006, 1.7
# Strand points in a cell that count as full of hair, and the share of a cell's fill that the surface lies at.
FULL, LEVEL = 2.0, 0.2
ROUNDS, SMOOTH = 5, 16


def hull(
    strands: np.ndarray, outside: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V, 3) points, (Q, 4) int32 quads facing out, (V, 3) unit normals.

    ``strands``: (N, K, 3) metres. ``outside``: a function of (P, 3) points that gives metres outside the body first.
    """
    fine = _denser(strands)
    low = fine.min(0) - 8 * VOXEL_M
    size = np.ceil((fine.max(0) + 8 * VOXEL_M - low) / VOXEL_M).astype(int)
    cell = ((fine - low) / VOXEL_M).astype(int)
    hair = np.bincount(np.ravel_multi_index(cell.T, size), minlength=int(np.prod(size))).reshape(size)
    fill = gaussian_filter(np.minimum(hair / FULL, 1.0).astype(np.float32), BLUR)
    near = fill > 0.03
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    body = np.zeros(size, np.float32)
    body[near] = np.clip(0.5 - outside(low + (grid[near] + 0.5) * VOXEL_M)[0] / VOXEL_M, 0, 1)
    field = np.maximum(fill, gaussian_filter(body, 0.7))
    points, quads = _nets(field - LEVEL)
    if not len(quads):
        return np.zeros((0, 3)), np.zeros((0, 4), np.int32), np.zeros((0, 3))
    here = np.clip(np.rint(points).astype(int), 0, size - 1)
    hairy = fill[tuple(here.T)] > 0.06
    quads = quads[hairy[quads].all(axis=1)]
    used, quads = np.unique(quads, return_inverse=True)
    points, quads = low + (points[used] + 0.5) * VOXEL_M, quads.reshape(-1, 4).astype(np.int32)
    for _ in range(ROUNDS):
        points = points + 0.6 * (_mean(points, quads) - points)
    normals = normals_of(points, quads)
    for _ in range(SMOOTH):
        normals = _mean(normals, quads) + 0.3 * normals
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return points, quads, normals


def _denser(strands: np.ndarray) -> np.ndarray:
    """(P, 3) points along the strands no farther apart than half a cell, about."""
    apart = np.linalg.norm(np.diff(strands, axis=1), axis=2)
    times = int(np.clip(np.ceil(np.quantile(apart, 0.9) / (0.5 * VOXEL_M)), 1, 8))
    t = (np.arange(times) / times)[None, None, :, None]
    return (strands[:, :-1, None] * (1 - t) + strands[:, 1:, None] * t).reshape(-1, 3)


def _nets(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) vertices in cells and (Q, 4) quads facing to lower values, of the zero level of ``field`` (X, Y, Z)."""
    inside = field > 0
    shape = np.array(field.shape) - 1
    total, count = np.zeros((*shape, 3)), np.zeros(shape)
    quads = []
    number = np.full(shape, -1)
    crossings = []
    for axis in range(3):
        a = [slice(None)] * 3
        b = [slice(None)] * 3
        a[axis], b[axis] = slice(None, -1), slice(1, None)
        edge = np.argwhere(inside[tuple(a)] != inside[tuple(b)])
        # A cell on each of four sides of the edge must exist.
        others = [i for i in range(3) if i != axis]
        edge = edge[((edge[:, others] > 0) & (edge[:, others] < shape[others])).all(axis=1)]
        f0 = field[tuple(edge.T)]
        step = np.eye(3, dtype=int)[axis]
        f1 = field[tuple((edge + step).T)]
        where = edge.astype(float)
        where[:, axis] += f0 / (f0 - f1)
        corners = []
        u, v = np.eye(3, dtype=int)[(axis + 1) % 3], np.eye(3, dtype=int)[(axis + 2) % 3]
        for shift in (-u - v, -v, 0 * u, -u):
            cell = edge + shift
            np.add.at(total, tuple(cell.T), where)
            np.add.at(count, tuple(cell.T), 1)
            corners.append(cell)
        crossings.append((corners, f0 > 0))
    used = np.argwhere(count > 0)
    number[tuple(used.T)] = np.arange(len(used))
    points = total[tuple(used.T)] / count[tuple(used.T)][:, None]
    for corners, outward in crossings:
        quad = np.stack([number[tuple(c.T)] for c in corners], axis=1)
        quads.append(np.where(outward[:, None], quad, quad[:, ::-1]))
    return points, np.concatenate(quads)


def _mean(values: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(V, C) mean of each vertex's neighbours along quads' edges."""
    a, b = quads.ravel(), np.roll(quads, -1, axis=1).ravel()
    count = np.maximum(np.bincount(a, minlength=len(values)) + np.bincount(b, minlength=len(values)), 1)
    total = [np.bincount(a, values[b, c], len(values)) + np.bincount(b, values[a, c], len(values)) for c in range(3)]
    return np.stack(total, axis=1) / count[:, None]
