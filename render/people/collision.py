"""A posed doll -> how deep its limbs are inside its other parts, in metres.

A vertex of a limb is inside another part when it lies behind the tangent planes of that part's three nearest vertices;
its depth is the least of the three. On a closed rounded part of radius R whose vertices are c apart, that is off by about
c^2 / 8R: 1 mm on a forearm. Legend: S vertices.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial import cKDTree

from render.people.doll import Doll, Skin

# Farther than this from a part's surface a vertex is taken for outside: no part is thicker than twice this.
REACH_M = 0.16
# What moves against what. Neighbours along a limb are left out: they share a crease.
PAIRS = {
    "hand": ("trunk", "head", "hip", "thigh", "shin", "foot", "shoulder", "arm", "hand'", "forearm'", "arm'"),
    "forearm": ("trunk", "head", "hip", "thigh", "shin", "foot", "forearm'", "arm'", "shoulder'"),
    "arm": ("trunk", "head", "thigh", "shin", "foot"),
    "thigh": ("trunk", "thigh'", "hip'"),
    "shin": ("trunk", "hip", "thigh'", "shin'", "hip'", "head"),
    "foot": ("trunk", "hip", "thigh", "thigh'", "shin'", "foot'", "head"),
}


def contacts(doll: Doll, points: np.ndarray, normals: np.ndarray) -> list[tuple[float, str, str, str]]:
    """(depth in metres, limb, its side, the part it is inside) of every pair that meets.

    ``points``, ``normals``: (S, 3) as ``Doll.skinned`` gives them.
    """
    found = []
    for mover, side, part, movers, obstacle in _pairs(doll.skin):
        inside = _pair_depth(points, normals, movers, obstacle)
        if inside > 0:
            found.append((inside, mover, side, part))
    return found


def depth(doll: Doll, points: np.ndarray, normals: np.ndarray) -> float:
    """The greatest depth in metres of any limb inside another part; 0 where nothing meets."""
    return max((c[0] for c in contacts(doll, points, normals)), default=0.0)


def _pair_depth(points: np.ndarray, normals: np.ndarray, movers: np.ndarray, obstacle: np.ndarray) -> float:
    at, to = points[movers], points[obstacle]
    low, high = to.min(0) - 0.002, to.max(0) + 0.002
    near = ((at > low) & (at < high)).all(axis=1)
    if not near.any():
        return 0.0
    at = at[near]
    distance, found = cKDTree(to).query(at, k=3, distance_upper_bound=REACH_M)
    sound = np.isfinite(distance).all(axis=1)
    if not sound.any():
        return 0.0
    at, found = at[sound], found[sound]
    behind = np.einsum("nki,nki->nk", to[found] - at[:, None], normals[obstacle][found])
    return float(max(behind.min(axis=1).max(), 0.0))


def _members(skin: Skin, part: str, side: str) -> np.ndarray:
    """(N,) indices of a part's vertices; NAME' is the other side's."""
    if part.endswith("'"):
        part, side = part[:-1], "R" if side == "L" else "L"
    return np.flatnonzero((skin.part == part) & ((skin.side == side) | np.isin(skin.part, ("trunk", "head"))))


@functools.cache
def _pairs(skin: Skin) -> list[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """(limb, side, part, the limb's vertices, the part's) of all that may meet."""
    return [
        (mover, side, part, _members(skin, mover, side), _members(skin, part, side))
        for side in ("L", "R")
        for mover, parts in PAIRS.items()
        for part in parts
    ]
