"""Position in training -> which row, by arithmetic alone: no list is shuffled, kept or saved.

Position p is the p-th sample the model ever sees. Batches are runs of positions; ranks, threads, restarts never enter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from manifests.errors import InputError, JobError
from training.weighted import Weighted

VERSION = 1
ROUNDS = 8
# Positions over which a mixture keeps its shares exactly; the smallest share it can keep is 2 of them.
BLOCK = 4096
# Shares are counted in millionths: integer arithmetic gives the same order on every machine.
PARTS = 1_000_000


class Permutation:
    """A keyed permutation of range(n) in O(1) memory: a Feistel network over the next even power of two, walked along
    its cycle until it lands inside.

    ``perm(i)``: (K,) int64 places -> (K,) int64. ``key``: ints and strings.
    """

    def __init__(self, n: int, *key: int | str) -> None:
        if n < 1:
            raise ValueError("a permutation needs at least one place")
        self.n = n
        half = max(1, ((n - 1).bit_length() + 1) // 2)
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        text = "/".join(map(str, key))
        words = b"".join(hashlib.sha256(f"{text}/{i}".encode()).digest() for i in range(ROUNDS // 4))
        self._keys = np.frombuffer(words, np.uint64)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        x = self._network(np.asarray(places).astype(np.uint64))
        while (outside := np.flatnonzero(x >= self.n)).size:
            # At most 3 of 4 codes lie outside; the walk is a permutation of those inside.
            x[outside] = self._network(x[outside])
        return x.astype(np.int64)

    def _network(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
            mixed *= np.uint64(0xD6E8FEB86659FD93)
            mixed ^= mixed >> np.uint64(32)
            left, right = right, left ^ (mixed & self._mask)
        return (left << self._half) | right


class Shuffled:
    """Every row of one source once per epoch, or as often as its weight says; each epoch in another order; any position
    at once.

    ``rates``: (rows,) float, by which rows come more or less often (training/weighted.py); whole rows, no windows.
    ``shards`` and ``window``: keep rows of ``window`` shards together (permuted among themselves, windows permuted, too),
    so that a bucket or a hard disk fetches a shard once per epoch. ``shards``: (rows,) int64, the shard of each row.
    """

    def __init__(
        self,
        rows: int,
        *key: int | str,
        shards: np.ndarray | None = None,
        window: int = 0,
        rates: np.ndarray | None = None,
    ) -> None:
        self.rows, self._key = rows, key
        self.weighted = None if rates is None else Weighted(rates, *key)
        if window and self.weighted:
            raise ValueError("rows are drawn by weight, or a window of shards at a time; not both")
        self._window = window if shards is not None else 0
        if shards is not None and window:
            # Rows grouped by shard; O(rows) int32, read only, for as long as rows are many fewer than pixels.
            self._by_shard = np.argsort(shards, kind="stable").astype(np.int32)
            self._counts = np.unique(shards, return_counts=True)[1]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """(K,) int64 positions of this source -> (K,) int64 rows."""
        epochs, places = np.divmod(np.asarray(positions, np.int64), self.rows)
        found = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            order = self._windows if self._window else self._whole
            found[mine] = order(int(epoch), places[mine])
        return found

    def _whole(self, epoch: int, places: np.ndarray) -> np.ndarray:
        found = Permutation(self.rows, *self._key, "epoch", epoch)(places)
        return self.weighted(epoch, found) if self.weighted else found

    def _windows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        shards = Permutation(len(self._counts), *self._key, "shards", epoch)(np.arange(len(self._counts)))
        ends = np.cumsum(self._counts[shards])
        firsts = np.concatenate([[0], np.cumsum(self._counts)])[shards]
        starts = ends - self._counts[shards]
        windows = np.searchsorted(ends[self._window - 1 :: self._window], places, side="right")
        inside = np.empty(len(places), np.int64)
        for window in np.unique(windows):
            mine = windows == window
            low = starts[window * self._window]
            high = ends[min((window + 1) * self._window, len(ends)) - 1]
            inside[mine] = low + Permutation(int(high - low), *self._key, "window", epoch, int(window))(
                places[mine] - low
            )
        at = np.searchsorted(ends, inside, side="right")
        return self._by_shard[firsts[at] + inside - starts[at]].astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of rows of a mixture. ``weight``: its share, relative to the others'; ``shards``, ``window``, ``rates`` as
    Shuffled.
    """

    name: str
    rows: int
    weight: float = 1.0
    shards: np.ndarray | None = None
    window: int = 0
    rates: np.ndarray | None = None


class Order:
    """Position -> (source, row) for one source or a weighted mixture of several.

    In a mixture each block of 4,096 positions holds the shares exactly (to one sample), in a keyed order, and each
    source goes through its own epochs at its own pace. Raises InputError on a source without rows, JobError on a
    weight that the blocks cannot keep.
    """

    def __init__(self, sources: list[Source], seed: int) -> None:
        for source in sources:
            if source.rows < 1:
                raise InputError(f"{source.name}: no rows to train on")
        total = sum(s.weight for s in sources)
        for source in sources:
            if len(sources) > 1 and source.weight / total * BLOCK < 2:
                raise JobError(
                    f"{source.name}: a weight of {source.weight / total:.4%} is below 2 in {BLOCK}; raise it"
                )
        self.sources, self.seed = sources, seed
        self._bounds = np.round(np.cumsum([0.0, *(s.weight for s in sources)]) / total * PARTS).astype(np.int64)
        self._shuffled = [
            Shuffled(s.rows, seed, "order", s.name, shards=s.shards, window=s.window, rates=s.rates) for s in sources
        ]

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) int64 positions -> (K,) int64 sources and (K,) int64 rows within them."""
        positions = np.asarray(positions, np.int64)
        if len(self.sources) == 1:
            return np.zeros(len(positions), np.int64), self._shuffled[0](positions)
        which = np.empty(len(positions), np.int64)
        count = np.empty(len(positions), np.int64)
        blocks, places = np.divmod(positions, BLOCK)
        for block in np.unique(blocks):
            mine = blocks == block
            before, after = (self._bounds * (int(b) * BLOCK) // PARTS for b in (block, block + 1))
            edges = after - before
            slots = Permutation(BLOCK, self.seed, "mix", int(block))(places[mine])
            found = np.searchsorted(edges[1:], slots, side="right")
            which[mine] = found
            count[mine] = (before[1:] - before[:-1])[found] + slots - edges[found]
        rows = np.empty(len(positions), np.int64)
        for source, shuffled in enumerate(self._shuffled):
            mine = which == source
            if mine.any():
                rows[mine] = shuffled(count[mine])
        return which, rows

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """(K,) int64 positions of one rank's part of batch ``step``; the parts of all ranks are the whole batch."""
        return step * size + np.arange(rank * size // world, (rank + 1) * size // world)

    def state(self, position: int) -> dict[str, Any]:
        """All that a checkpoint needs to go on at ``position`` with any number of ranks and threads; under 1 kB."""
        named: list[Any] = [[s.name, s.rows, s.weight, s.window] for s in self.sources]
        # Only where there are weights: checkpoints from before them go on.
        named += [[s.name, f.weighted.digest] for s, f in zip(self.sources, self._shuffled) if f.weighted]
        digest = hashlib.sha256(json.dumps([VERSION, self.seed, named]).encode()).hexdigest()
        return {"version": VERSION, "seed": self.seed, "sources": digest, "position": position}

    def resume(self, state: dict[str, Any]) -> int:
        """The position that ``state`` stands at. Raises JobError when it belongs to another order."""
        expected = self.state(state["position"])
        changed = [k for k in expected if state.get(k) != expected[k]]
        if changed:
            raise JobError(
                f"the checkpoint's data order has another {' and '.join(changed)}; train under a new name, or restore "
                "the data and settings it was made with"
            )
        return int(state["position"])
