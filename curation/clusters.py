"""Embeddings -> a tree of clusters, and which pictures show the same, to the same bits for any order of the rows.

k-means by Lloyd (1982) from k-means++ seeds (Arthur and Vassilvitskii 2007); levels as in Vo et al. 2024: the centroids are
clustered again, and each level is fitted anew on the points nearest to its centroids, so that crowded regions do not take
all of them. Written from the papers; the authors' code is not free and was not used.

Legend: N rows, D numbers of each, K clusters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from manifests.curation import Clusters
from manifests.seeds import generator

ROUNDS, CHUNK = 40, 8192
# Points around each centroid that a level is fitted on again.
NEAR = 8
# Distances kept, 1 - cosine: a policy can draw its line anywhere below.
FARTHEST = 0.3
# Pairs a row may be in, nearest first: a thousand copies of one picture need no million pairs.
MOST_PAIRS = 32
# Cells larger than this are searched at the next finer level.
MOST_IN_CELL = 20_000


def tree(x: np.ndarray, keys: Sequence[str], settings: Clusters) -> list[str]:
    """The path of each row, coarsest cluster first, such as `3/17`. ``x``: (N, D) float32; ``keys``: (N,), a name of each
    row's content by which rows are put in order.
    """
    if not len(x):
        return []
    order = np.lexsort((np.arange(len(x)), np.asarray(keys, str)))
    x = np.ascontiguousarray(x[order])
    sizes = [min(k, len(x)) for k in settings.levels] or automatic(len(x))
    sample = x
    if len(x) > settings.fit:
        chosen = generator("clusters", settings.seed, "sample").choice(len(x), settings.fit, replace=False)
        sample = x[np.sort(chosen)]
    levels, points = [], sample
    for depth, k in enumerate(sizes):
        centres = _level(points, min(k, len(points)), settings.rounds, settings.seed, depth)
        levels.append(centres)
        points = centres
    labels = [assigned(x, levels[0])[0]]
    for finer, coarser in itertools.pairwise(levels):
        labels.append(assigned(finer, coarser)[0][labels[-1]])
    paths = ["/".join(map(str, row)) for row in np.stack(labels[::-1], axis=1).tolist()]
    found = [""] * len(x)
    for at, path in zip(order.tolist(), paths):
        found[at] = path
    return found


def automatic(n: int) -> list[int]:
    """Clusters of each level, finest first, for ``n`` rows: thirty rows in each, and the square root of that."""
    fine = max(1, n // 30)
    coarse = round(fine**0.5)
    return [fine, coarse] if 1 < coarse < fine else [fine]


def kmeans(x: np.ndarray, k: int, *key: int | str) -> np.ndarray:
    """(K, D) float32 centres of ``x`` (N, D), the best of a few starts; rows in the order given. ``key``: of the draws."""
    best, least = x[:k], np.inf
    # Few clusters are cheap, and the fewer there are the more one bad seed costs (measured: 31 % at ten).
    for start in range(8 if k <= 64 else 2 if k <= 1024 else 1):
        centres = _seeds(x, k, generator("kmeans", *key, start))
        centres, inertia = _lloyd(x, centres)
        if inertia < least:
            best, least = centres, inertia
    return best


def _lloyd(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    k = len(centres)
    last = np.full(len(x), -1)
    for _ in range(ROUNDS):
        label, distance = assigned(x, centres)
        counts = np.bincount(label, minlength=k)
        for empty in np.flatnonzero(counts == 0):
            # The point worst served moves there.
            worst = int(np.where(counts[label] > 1, distance, -1).argmax())
            counts[label[worst]] -= 1
            label[worst], distance[worst] = empty, 0.0
            counts[empty] = 1
        if np.array_equal(label, last):
            break
        last = label
        centres = _means(x, label, k)
    return centres, float(assigned(x, centres)[1].sum(dtype=np.float64))


def assigned(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 nearest centre and (N,) float32 squared distance to it."""
    label, distance = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
    norm = (centres**2).sum(axis=1)
    for at in range(0, len(x), CHUNK):
        part = x[at : at + CHUNK]
        to = norm - 2 * part @ centres.T
        label[at : at + CHUNK] = to.argmin(axis=1)
        best = np.take_along_axis(to, label[at : at + CHUNK, None], axis=1)[:, 0]
        distance[at : at + CHUNK] = np.maximum(best + (part**2).sum(axis=1), 0)
    return label, distance


def pairs(x: np.ndarray, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows a < b of one cell whose unit vectors ``x`` (N, D) are within FARTHEST, and 1 - their cosine: three arrays."""
    found: dict[tuple[int, int], float] = {}
    for cell in _cells(paths):
        own = x[cell]
        for at in range(0, len(cell), 1024):
            away = np.clip(1 - own[at : at + 1024] @ own.T, 0, 2)
            away[np.arange(len(away)), at + np.arange(len(away))] = 9.0
            # Ties at the last place are cut by row number of the sorted table, so the same rows come of any order.
            nearest = np.argsort(away, axis=1, kind="stable")[:, :MOST_PAIRS]
            for i, js in enumerate(nearest):
                for j in js:
                    d = float(away[i, j])
                    if d > FARTHEST:
                        break
                    a, b = sorted((int(cell[at + i]), int(cell[j])))
                    found[a, b] = min(d, found.get((a, b), 9.0))
    keys = sorted(found)
    first, second = (np.array([k[i] for k in keys], np.int64) for i in (0, 1))
    return first, second, np.array([found[k] for k in keys], np.float32).round(5)


def _cells(paths: Sequence[str]) -> list[np.ndarray]:
    """Rows of each coarsest cluster; of one that is too large, of its parts."""
    parts = np.array([p.split("/") for p in paths]) if len(paths) else np.zeros((0, 1), str)
    waiting, done = [(np.arange(len(paths)), 0)], []
    while waiting:
        rows, depth = waiting.pop()
        if depth == parts.shape[1] or (depth > 0 and len(rows) <= MOST_IN_CELL):
            done.append(rows)
            continue
        names = parts[rows, depth]
        waiting += [(rows[names == n], depth + 1) for n in np.unique(names)]
    return [d for d in done if len(d) > 1]


def _level(points: np.ndarray, k: int, rounds: int, seed: int, depth: int) -> np.ndarray:
    centres = kmeans(points, k, seed, depth, 0)
    for again in range(1, rounds):
        if len(points) <= k * NEAR:
            break
        label, distance = assigned(points, centres)
        order = np.lexsort((distance, label))
        place = np.arange(len(order)) - np.searchsorted(label[order], label[order], "left")
        near = np.sort(order[place < NEAR])
        centres = kmeans(points[near], k, seed, depth, again)
    return centres


def _seeds(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(K, D): k-means++, each seed the best of a few draws."""
    tries = 2 + int(np.log(k))
    chosen = [int(rng.integers(len(x)))]
    norm = (x**2).sum(axis=1)

    def away(rows: np.ndarray) -> np.ndarray:
        return np.maximum(norm[:, None] + norm[rows] - 2 * x @ x[rows].T, 0)

    nearest = away(np.array(chosen))[:, 0]
    for _ in range(k - 1):
        total = np.cumsum(nearest, dtype=np.float64)
        draws = np.minimum(np.searchsorted(total, rng.random(tries) * total[-1]), len(x) - 1)
        if total[-1] == 0:
            draws = rng.integers(0, len(x), tries)
        left = np.minimum(nearest[:, None], away(draws))
        best = int(left.sum(axis=0, dtype=np.float64).argmin())
        chosen.append(int(draws[best]))
        nearest = left[:, best]
    return x[chosen].copy()


def _means(x: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    order = np.argsort(label, kind="stable")
    first = np.searchsorted(label[order], np.arange(k))
    counts = np.bincount(label, minlength=k)[:, None]
    return (np.add.reduceat(x[order].astype(np.float64), first, axis=0) / counts).astype(np.float32)
