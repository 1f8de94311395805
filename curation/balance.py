"""Cluster paths and decisions -> how often each kept picture should be drawn, which ones a balanced subset takes, and which
of those that show the same stays; numbers alone, so that another policy needs no pixels.

Legend: N rows, M pairs.
"""

from __future__ import annotations

import numpy as np


def quotas(sizes: np.ndarray, wanted: int) -> np.ndarray:
    """(K,) int: at most ``sizes`` each, ``wanted`` in all where there are so many, as even as can be: the water level of
    Vo et al. 2024, section 3.3. What is left over goes to the largest, and of equals to the first.
    """
    wanted = min(wanted, int(sizes.sum()))
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= wanted else (low, middle - 1)
    given = np.minimum(sizes, low)
    spare = wanted - int(given.sum())
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    given[[k for k in order if sizes[k] > given[k]][:spare]] += 1
    return given


def chosen(paths: np.ndarray, keys: np.ndarray, wanted: int) -> np.ndarray:
    """(N,) bool: ``wanted`` rows, shared out evenly level by level; within a finest cluster by ``keys``, which are hashes.

    ``paths``: (N,) str; ``keys``: (N,) str. Any order of rows gives the same ones.
    """
    take = np.zeros(len(paths), bool)
    parts = [p.split("/") for p in paths.tolist()]

    def share(rows: np.ndarray, depth: int, count: int) -> None:
        if count >= len(rows):
            take[rows] = True
        elif depth == len(parts[rows[0]]):
            take[rows[np.argsort(keys[rows], kind="stable")[:count]]] = True
        else:
            names = np.array([parts[r][depth] for r in rows])
            labels, of = np.unique(names, return_inverse=True)
            for k, given in enumerate(quotas(np.bincount(of, minlength=len(labels)), count)):
                if given:
                    share(rows[of == k], depth + 1, int(given))

    if len(paths):
        share(np.arange(len(paths)), 0, wanted)
    return take


def weights(paths: np.ndarray) -> np.ndarray:
    """(N,) float, mean 1: drawing rows by them, every cluster of a level comes as often as its sisters."""
    n = len(paths)
    if not n:
        return np.zeros(0)
    weight = np.ones(n)
    parts = [p.split("/") for p in paths.tolist()]
    above = np.zeros(n, np.int64)
    for depth in range(max(map(len, parts))):
        names = np.array([f"{a}/{p[depth] if depth < len(p) else ''}" for a, p in zip(above.tolist(), parts)])
        first, here = np.unique(names, return_index=True, return_inverse=True)[1:]
        sisters = np.bincount(above[first], minlength=above.max() + 1)
        weight /= sisters[above]
        above = here.astype(np.int64)
    weight /= np.bincount(above)[above]
    return weight * n


def removed(a: np.ndarray, b: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) int64: for each row the one that stands for it, itself where it stays; from pairs ``a``, ``b`` (M,) of rows that
    show the same and ``order`` (N,), smallest first.

    A row goes only where one that stays is its neighbour: chains of small steps do not end in one survivor (SemDeDup, Abbas
    et al. 2023, keeps one of each group in the same way).
    """
    stands = np.arange(len(order))
    first, second = np.where(order[a] < order[b], (a, b), (b, a))
    for k in np.lexsort((order[first], order[second])).tolist():
        better, worse = first[k], second[k]
        # Better rows were settled before: pairs come in order of their worse row.
        if stands[better] == better and stands[worse] == worse:
            stands[worse] = better
    return stands
