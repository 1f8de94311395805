"""A posed doll -> how deep its limbs are inside its other parts, in metres.

A vertex of a limb is inside another part when it lies behind the tangent planes of two of that part's three nearest
vertices; its depth is the middle one of the three. On a closed rounded part of radius R whose vertices are c apart, that is off by about
c^2 / 8R: 1 mm on a forearm. Legend: S vertices.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial import cKDTree

from render.people.doll import Doll, Skin

# Farther than this from a part's surface a vertex is taken for outside: no part is thicker than twice this.
REACH_M = 0.16
# A hand or a forearm meets cloth, not skin, on these parts: their surface is taken to lie this far out.
CLOTH_M, CLOTHED = 0.012, ("trunk", "hip", "thigh", "shoulder", "arm")
# What moves against what, NAME' on the other side. Parts that join are one surface: at a seam between two, a point inside
# could lie outside each. Neighbours along a limb are left out: they share a crease.
CORE = ("trunk", "head", "hip", "hip'", "thigh", "thigh'", "shin", "shin'", "foot", "foot'")
OTHER_ARM = ("shoulder'", "arm'", "forearm'", "hand'")
OTHER_LEG = ("hip'", "thigh'", "shin'", "foot'")
PAIRS = (
    ("hand", CORE),
    ("hand", OTHER_ARM),
    ("hand", ("shoulder", "arm")),
    ("forearm", CORE),
    ("forearm", OTHER_ARM),
    ("arm", CORE),
    ("thigh", ("trunk",)),
    ("thigh", OTHER_LEG),
    ("shin", ("trunk", "head")),
    ("shin", OTHER_LEG),
    ("foot", ("trunk", "head", "hip", "thigh")),
    ("foot", OTHER_LEG),
)


def contacts(doll: Doll, points: np.ndarray, normals: np.ndarray) -> list[tuple[float, str, str, str]]:
    """(depth in metres, limb, its side, the part it is inside) of every pair that meets; hands meet cloth.

    ``points``, ``normals``: (S, 3) as ``Doll.skinned`` gives them.
    """
    found = []
    for mover, side, movers, obstacle, cloth in _pairs(doll.skin):
        inside, at = _pair_depth(points, normals, movers, obstacle, cloth)
        if inside > 0:
            other = doll.skin.side[at] not in ("", side)
            found.append((inside, mover, side, str(doll.skin.part[at]) + "'" * other))
    return found


def depth(doll: Doll, points: np.ndarray, normals: np.ndarray) -> float:
    """The greatest depth in metres of any limb inside another part; 0 where nothing meets."""
    return max((c[0] for c in contacts(doll, points, normals)), default=0.0)


def _pair_depth(
    points: np.ndarray, normals: np.ndarray, movers: np.ndarray, obstacle: np.ndarray, cloth: np.ndarray
) -> tuple[float, int]:
    """(depth in metres, the vertex of the obstacle that is nearest there); ``cloth``: (N,) metres over the obstacle."""
    at, to = points[movers], points[obstacle]
    low, high = to.min(0) - CLOTH_M, to.max(0) + CLOTH_M
    at = at[((at > low) & (at < high)).all(axis=1)]
    if not len(at):
        return 0.0, -1
    distance, found = cKDTree(to).query(at, k=3, distance_upper_bound=REACH_M)
    sound = np.isfinite(distance).all(axis=1)
    if not sound.any():
        return 0.0, -1
    at, found = at[sound], found[sound]
    behind = np.einsum("nki,nki->nk", to[found] - at[:, None], normals[obstacle][found]) + cloth[found]
    inside = np.median(behind, axis=1)
    deepest = int(inside.argmax())
    return max(float(inside[deepest]), 0.0), int(obstacle[found[deepest, 0]])


def _members(skin: Skin, part: str, side: str) -> np.ndarray:
    """(N,) indices of a part's vertices; NAME' is the other side's."""
    if part.endswith("'"):
        part, side = part[:-1], "R" if side == "L" else "L"
    return np.flatnonzero((skin.part == part) & ((skin.side == side) | np.isin(skin.part, ("trunk", "head"))))


@functools.cache
def _pairs(skin: Skin) -> list[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """(limb, side, the limb's vertices, those it may meet, metres of cloth over each of them)."""
    found = []
    for side in ("L", "R"):
        for mover, parts in PAIRS:
            obstacle = np.concatenate([_members(skin, part, side) for part in parts])
            dressed = np.isin(skin.part[obstacle], CLOTHED) & (mover in ("hand", "forearm"))
            found.append((mover, side, _members(skin, mover, side), obstacle, dressed * CLOTH_M))
    return found
