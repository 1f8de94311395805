"""Hashes of a corpus -> pairs of near-duplicates, and pairs -> groups and the one of each that stays, in any order.

Legend: N pictures, M pairs. A hash is 256 bits in 32 bytes; a row of zeros with ``have`` False stands for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.curation import MAX_DISTANCE

# Up to here two hashes are enough: 100 aligned faces of different people (LFW) are 78 bits apart or more, photographs 98.
# From here to MAX_DISTANCE the thumbnails must agree as well, on LEAST_OPEN of their pixels or more.
SURE_DISTANCE, LEAST_AGREEMENT, LEAST_OPEN = 40, 0.95, 40
# Above this many pictures all pairs (0.9 G a second and core) are slower than sixteen hash tables of 16 bits each.
ALL_PAIRS = 30_000
WORDS = 16
PAIRS = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("distance", pa.int32())])
VARIANTS = ("phash", "phash_mirrored", "phash_trimmed", "phash_trimmed_mirrored")
BITS = np.array([bin(i).count("1") for i in range(256)], np.uint16)


def pairs(table: pa.Table, multi: bool | None = None) -> pa.Table:
    """PAIRS of rows (a < b) whose pictures, mirrored or without border, are within MAX_DISTANCE bits.

    ``table`` has the columns of VARIANTS and `thumb`. Complete: two hashes within 47 bits differ by at most two bits in one
    of sixteen words, which is what the tables are asked for. ``multi``: tables (True) or all pairs (False); default by size.
    """
    hashes = {v: matrix(table[v]) for v in VARIANTS}
    stored = [(v, *hashes[v]) for v in ("phash", "phash_trimmed")]
    found: dict[tuple[int, int], int] = {}
    rows = np.concatenate([np.flatnonzero(have) for _, _, have in stored])
    codes = np.concatenate([bits[have] for _, bits, have in stored])
    if not len(codes):
        return PAIRS.empty_table()
    index = _index(codes, len(codes) > ALL_PAIRS if multi is None else multi)
    for bits, have in hashes.values():
        asked = np.flatnonzero(have)
        for first in range(0, len(asked), 4096):
            some = asked[first : first + 4096]
            limits, distances, hits = index.range_search(bits[some], MAX_DISTANCE + 1)
            a = np.repeat(some, np.diff(limits.astype(np.int64)))
            b = rows[hits]
            for i, j, d in zip(a.tolist(), b.tolist(), distances.astype(int).tolist()):
                if i != j:
                    key = (min(i, j), max(i, j))
                    found[key] = min(d, found.get(key, 256))
    keys = sorted(found)
    a, b = (np.array([k[i] for k in keys], np.int64) for i in (0, 1))
    distance = np.array([found[k] for k in keys], np.int32)
    agreed = (distance <= SURE_DISTANCE) | (_agreement(table["thumb"], a, b) >= LEAST_AGREEMENT)
    return pa.table([a[agreed], b[agreed], distance[agreed]], schema=PAIRS)


def groups(found: pa.Table, size: int, distance: int, allowed: np.ndarray) -> np.ndarray:
    """(N,) int64: the group of each row (its own number where it is alone), over pairs within ``distance`` bits of rows
    that are ``allowed`` (N,) bool.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, d = (found[n].to_numpy() for n in PAIRS.names)
    use = (d <= distance) & allowed[a] & allowed[b]
    graph = coo_matrix((np.ones(use.sum(), bool), (a[use], b[use])), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def keepers(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) int64: for each row the row of its group that stays, the one with the smallest ``order`` (N,)."""
    rows = np.lexsort((order, group))
    first = np.ones(len(rows), bool)
    first[1:] = group[rows[1:]] != group[rows[:-1]]
    best = rows[first]
    label = np.empty(len(rows), np.int64)
    label[rows] = np.cumsum(first) - 1
    return best[label]


def between(table: pa.Table, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) int: the bits between rows ``a`` and ``b``, the nearest of their variants; 256 where one has no hash."""
    if not len(a):
        return np.zeros(0, np.int64)
    hashes = {v: matrix(table[v]) for v in VARIANTS}
    nearest = np.full(len(a), 256)
    for asked, have in hashes.values():
        for stored in ("phash", "phash_trimmed"):
            other, there = hashes[stored]
            bits = BITS[asked[a] ^ other[b]].sum(axis=1)
            nearest = np.where(have[a] & there[b], np.minimum(nearest, bits), nearest)
    return nearest


def matrix(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32) uint8 and (N,) bool of a column of 32-byte binaries; zeros where one is null."""
    have = column.is_valid().to_numpy()
    width = 32
    filled = pc.fill_null(column, pa.scalar(bytes(width), column.type)).combine_chunks()
    joined = b"".join(filled.to_pylist()) if pa.types.is_fixed_size_binary(column.type) else _joined(filled)
    return np.frombuffer(joined, np.uint8).reshape(-1, width), have


def _joined(column: Any) -> Any:
    """The bytes of a binary array, without a Python object for each."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = []
    for chunk in chunks:
        if len(chunk):
            offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            parts.append(np.frombuffer(chunk.buffers()[2], np.uint8)[offsets[0] : offsets[-1]])
    return np.concatenate(parts).tobytes() if parts else b""


def _index(codes: np.ndarray, multi: bool) -> Any:
    import faiss

    index: Any
    if multi:
        index = faiss.IndexBinaryMultiHash(256, WORDS, 256 // WORDS)
        index.nflip = MAX_DISTANCE // WORDS
    else:
        index = faiss.IndexBinaryFlat(256)
    index.add(np.ascontiguousarray(codes))
    return index


def _agreement(thumbs: pa.ChunkedArray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) correlation of the thumbnails of two rows, or of one and the other's mirror image, whichever is more."""
    if not len(a):
        return np.zeros(0)
    planes = np.stack([np.frombuffer(t or bytes(256), np.uint8).reshape(16, 16) for t in thumbs.take(
        np.unique(np.concatenate([a, b]))).to_pylist()]).astype(np.float32)  # fmt: skip
    where = {row: i for i, row in enumerate(np.unique(np.concatenate([a, b])).tolist())}
    left = planes[[where[i] for i in a.tolist()]]
    right = planes[[where[i] for i in b.tolist()]]

    def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
        # What one of them clips to white or black has lost its order there, and only there.
        open_ = np.ones(x.shape, bool)
        for v in (x, y):
            open_ &= (v < v.max(axis=1, keepdims=True)) & (v > v.min(axis=1, keepdims=True))
        n = open_.sum(axis=1, keepdims=True)
        x, y = (np.where(open_, v - (v * open_).sum(axis=1, keepdims=True) / np.maximum(n, 1), 0) for v in (x, y))
        found = (x * y).sum(axis=1) / np.maximum(np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)), 1e-9)
        return np.where(n[:, 0] >= LEAST_OPEN, found, 0.0)

    return np.maximum(correlation(left, right), correlation(left, right[:, :, ::-1]))
