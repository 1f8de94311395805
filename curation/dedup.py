"""Measured hashes -> groups of duplicates and the one of each that stays, whatever the order of the inputs.

Legend: N pictures. Hashes are 256 bits, packed in 32 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BITS = np.array([bin(i).count("1") for i in range(256)], np.uint16)


def keeper(row: dict[str, Any]) -> tuple[Any, ...]:
    """Sorting key, best first: most pixels, then bytes per pixel, then smallest sha256, then smallest uri."""
    pixels = row["width"] * row["height"]
    return -pixels, -row["bytes"] / pixels, row["sha256"], row["uri"]


def exact(rows: list[dict[str, Any]]) -> dict[int, int]:
    """index -> index of the file with the same bytes that stays (the smallest uri)."""
    first: dict[str, int] = {}
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["uri"]):
        if rows[i]["sha256"]:
            first.setdefault(rows[i]["sha256"], i)
    return {i: first[r["sha256"]] for i, r in enumerate(rows) if r["sha256"] and first[r["sha256"]] != i}


def near(rows: list[dict[str, Any]], distance: int) -> dict[int, tuple[int, int]]:
    """index -> (index of the picture that stays, bits between them) within ``distance`` bits, mirror images included.

    Pairs are joined to groups; ``rows`` have `phash` and `phash_mirrored`, those without are alone.
    """
    have = [i for i, r in enumerate(rows) if r["phash"] is not None]
    parent = {i: i for i in have}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    plain = _matrix(rows, have, "phash")
    mirrored = _matrix(rows, have, "phash_mirrored")
    for a, i in enumerate(have):
        bits = np.minimum(_distances(plain[a], plain[a + 1 :]), _distances(mirrored[a], plain[a + 1 :]))
        for b in np.flatnonzero(bits <= distance):
            parent[root(have[a + 1 + int(b)])] = root(i)
    groups: dict[int, list[int]] = {}
    for i in have:
        groups.setdefault(root(i), []).append(i)
    found: dict[int, tuple[int, int]] = {}
    where = {i: a for a, i in enumerate(have)}
    for members in groups.values():
        best = min(members, key=lambda i: keeper(rows[i]))
        for i in members:
            if i != best:
                a, b = where[i], where[best]
                bits = min(_distances(plain[a], plain[b : b + 1])[0], _distances(mirrored[a], plain[b : b + 1])[0])
                found[i] = (best, int(bits))
    return found


def _matrix(rows: list[dict[str, Any]], have: list[int], key: str) -> np.ndarray:
    return np.array([np.frombuffer(rows[i][key], np.uint8) for i in have]).reshape(-1, 32)


def _distances(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    return BITS[one ^ many].sum(axis=1)
