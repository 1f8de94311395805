"""A garment's pattern and a posed body -> cloth that hangs: too long where the pose shortens the body, it folds there.

Position-based dynamics towards rest (Mueller et al. 2007), all edges at once (Jacobi): a pattern keeps the lengths it has
on the standing body; what the pose squeezes cannot shrink and buckles outwards. Deterministic.
Legend: N cloth points, E edges, B points of what lies beneath.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

# Jacobi over-relaxation: above about 1.6 meshes of quads with diagonals start to ring.
RELAX = 1.35
# A body that is this deep in another of its parts is no guide to where cloth goes.
MOST_M = 0.03
# Of the noise that creases are made of: it repeats after so many of them.
LATTICE = 32


@dataclasses.dataclass
class Cloth:
    """``quads``: (Q, 4) into N points. ``pattern``: (N, 3) metres, the shape whose lengths it keeps. ``stretch``,
    ``squeeze``: shares of a length error that a sweep takes back, when too long and when too short.

    ``shear``: the same for diagonals, as a share of those. ``bend``: pull to the neighbours' middle per sweep.
    """

    quads: np.ndarray
    pattern: np.ndarray
    stretch: float = 1.0
    squeeze: float = 0.8
    shear: float = 0.4
    bend: float = 0.05


class Beneath:
    """What a garment lies on, told apart by region so that a sleeve is not pushed by the trunk that it hangs beside.

    ``points``, ``normals``: (B, 3) metres, pose frame. ``seen``: region -> (B,) bool, what cloth there may touch.
    ``region``: (N,) names, of the cloth's points.
    """

    def __init__(
        self, points: np.ndarray, normals: np.ndarray, seen: dict[str, np.ndarray], region: np.ndarray
    ) -> None:
        self._points, self._normals = points, normals
        self._of = []
        for name in sorted(set(region.tolist())):
            there = np.flatnonzero(seen[name])
            self._of.append((np.flatnonzero(region == name), there, cKDTree(points[there])))

    def nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point and normal beneath each of (N, 3)."""
        at, normal = np.empty_like(x), np.empty_like(x)
        for mine, there, tree in self._of:
            i = there[tree.query(x[mine])[1]]
            at[mine], normal[mine] = self._points[i], self._normals[i]
        return at, normal


def hang(
    cloth: Cloth,
    start: np.ndarray,
    beneath: Beneath,
    clear: np.ndarray,
    held: np.ndarray,
    *,
    sweeps: int,
    weight_m: float,
) -> np.ndarray:
    """(N, 3) metres at rest. ``start``: (N, 3). ``clear``: (N,) metres kept from what lies beneath. ``held``: (N,)
    in [0, 1], 1 = does not move. ``weight_m``: metres that a free point would fall in all sweeps together.
    """
    a, b, length, share = _springs(cloth)
    n, e = len(start), len(a)
    valence = np.maximum(np.bincount(a, share, n) + np.bincount(b, share, n), 1e-9)
    gather = sp.coo_matrix(
        (np.concatenate([share, -share]), (np.concatenate([a, b]), np.tile(np.arange(e), 2))), shape=(n, e)
    ).tocsr()
    gather = (sp.diags(RELAX * (1 - held) / valence) @ gather).tocsr()
    middle = neighbours(cloth.quads, n)
    x = start.copy()
    free = (1 - held)[:, None]
    fall = np.array([0.0, 0.0, -weight_m / sweeps]) * free
    at, normal = beneath.nearest(x)
    for k in range(sweeps):
        x += fall
        d = x[b] - x[a]
        now = np.sqrt(np.einsum("ec,ec->e", d, d)) + 1e-12
        error = (now - length) / now
        error *= np.where(error > 0, cloth.stretch, cloth.squeeze) * 0.5
        x += gather @ (d * error[:, None])
        if cloth.bend:
            x += (middle @ x - x) * (cloth.bend * free)
        if k % 6 == 5:
            at, normal = beneath.nearest(x)
        x = _out(x, at, normal, clear, free)
    at, normal = beneath.nearest(x)
    return _out(x, at, normal, clear, free)


def relaxed(
    points: np.ndarray, quads: np.ndarray, floor: np.ndarray, normals: np.ndarray, ease: np.ndarray, rounds: int
) -> np.ndarray:
    """(N, 3) of ``points`` smoothed until they no longer show the body, but at least ``ease`` (N,) metres outside the
    planes at ``floor`` with ``normals``, all (N, 3). Borders slide along themselves only.
    """
    middle = neighbours(quads, len(points))
    x = points.copy()
    for _ in range(rounds):
        x += 0.7 * (middle @ x - x)
        depth = ease - np.einsum("nc,nc->n", x - floor, normals)
        x += normals * np.maximum(depth, 0)[:, None]
    return x


def creases(at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) from 0 to 1.2: crests of worn cloth, broad ridges that fork and end; ``at``: (N, 3), their spacing is about 1. Ridged
    noise (Musgrave, "Texturing and Modeling", 2003, ch. 16) on a warped lattice.
    """

    def noise(at: np.ndarray) -> np.ndarray:
        lattice = rng.normal(0, 1, (LATTICE,) * 3)
        return map_coordinates(lattice, at.T, order=3, mode="grid-wrap")

    at = at + rng.uniform(0, LATTICE, 3)
    bent = at + 0.45 * np.stack([noise(0.7 * at) for _ in range(3)], axis=1)
    ridge = np.clip(1 - np.abs(noise(bent)) / 0.8, 0, 1)
    # Not everywhere alike: cloth that is pulled straight lies next to cloth that has room.
    return ridge * np.clip(0.7 + 0.5 * noise(0.5 * at), 0.1, 1.2)


def slack(pattern: np.ndarray, points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(N,) how much longer the cloth of ``pattern`` (N, 3) is than its place at ``points`` (N, 3), over some quads: above 0
    where a pose squeezes it, below 0 where it is pulled.
    """
    a, b = quads.T.ravel(), np.roll(quads, -1, axis=1).T.ravel()
    now = np.linalg.norm(points[a] - points[b], axis=1)
    more = np.log(np.maximum(np.linalg.norm(pattern[a] - pattern[b], axis=1), 1e-6) / np.maximum(now, 1e-6))
    n = len(points)
    total = np.bincount(a, more, n) + np.bincount(b, more, n)
    value = total / np.maximum(np.bincount(a, minlength=n) + np.bincount(b, minlength=n), 1)
    middle = neighbours(quads, n)
    for _ in range(4):
        value = 0.4 * value + 0.6 * (middle @ value)
    return value


def neighbours(quads: np.ndarray, n: int) -> sp.csr_matrix:
    """(N, N) rows that average a point's neighbours along edges; on a border, its neighbours on the border."""
    pairs = np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2).astype(np.int64)
    key = pairs.min(axis=1) << 32 | pairs.max(axis=1)
    key, count = np.unique(key, return_counts=True)
    a, b = key >> 32, key & 0xFFFFFFFF
    rim = count == 1
    on_rim = np.zeros(n, bool)
    on_rim[a[rim]] = on_rim[b[rim]] = True
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    keep = ~on_rim[rows] | np.concatenate([rim, rim])
    rows, columns = rows[keep], columns[keep]
    alone = np.setdiff1d(np.arange(n), rows)
    rows, columns = np.concatenate([rows, alone]), np.concatenate([columns, alone])
    weight = 1 / np.bincount(rows, minlength=n)[rows]
    return sp.coo_matrix((weight, (rows, columns)), shape=(n, n)).tocsr()


def _springs(cloth: Cloth) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    q = cloth.quads.astype(np.int64)
    sides = np.stack([q, np.roll(q, -1, axis=1)], axis=2).reshape(-1, 2)
    key = np.unique(sides.min(axis=1) << 32 | sides.max(axis=1))
    a = np.concatenate([key >> 32, q[:, 0], q[:, 1]])
    b = np.concatenate([key & 0xFFFFFFFF, q[:, 2], q[:, 3]])
    share = np.concatenate([np.ones(len(key)), np.full(2 * len(q), cloth.shear)])
    return a, b, np.linalg.norm(cloth.pattern[a] - cloth.pattern[b], axis=1), share


def _out(x: np.ndarray, at: np.ndarray, normal: np.ndarray, clear: np.ndarray, free: np.ndarray) -> np.ndarray:
    depth = clear - np.einsum("nc,nc->n", x - at, normal)
    return x + normal * (np.clip(depth, 0, MOST_M)[:, None] * free)
