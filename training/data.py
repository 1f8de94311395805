"""Dataset folders -> batches in an order that depends on seed and position alone, decoded ahead of the step by threads.

Position p is the p-th sample the model ever sees: epoch p // n, place p % n in that epoch's permutation. World size,
threads
and restarts never enter.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from manifests import codecs, photo
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.seeds import generator

PREFETCH = 3


class Rows:
    """The rows of several dataset folders, end to end, of one split (None = all)."""

    def __init__(self, folders: list[Path], split: str | None) -> None:
        self.split = split
        self._sets = [Dataset(f) if split is None else Dataset(f).filter(split=split) for f in folders]
        self._ends = np.cumsum([len(d) for d in self._sets])
        if not len(self):
            where = ", ".join(map(str, folders))
            raise InputError(
                f"no {split or ''} rows in {where}: render or curate more, or choose another split".replace("  ", " ")
            )
        # What the rows are, for the digest: a dataset's newest manifest names its every byte.
        self.identity = [f"{d.manifest['stage_digest']}:{len(d)}" for d in self._sets]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> tuple[str, dict[str, Any]]:
        """(kind, row)."""
        which = int(np.searchsorted(self._ends, i, side="right"))
        dataset = self._sets[which]
        return dataset.kind, dataset[i - (int(self._ends[which - 1]) if which else 0)]


def picture(kind: str, row: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 sRGB, upright."""
    data = row["image"]["bytes"]
    return codecs.decode_image(data) if kind == "rendered" else photo.decode(data)[0]


def index_at(position: int, n: int, seed: int) -> int:
    """The row that position ``position`` shows."""
    epoch, place = divmod(position, n)
    return int(generator(seed, "order", epoch).permutation(n)[place])


def batches(
    rows: Rows,
    make: Callable[[str, dict[str, Any], np.random.Generator], dict[str, np.ndarray]],
    seed: int,
    batch: int,
    steps: range,
) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """Yield (stacked arrays, seconds waited) for each step. ``make`` turns a row into arrays with its own generator."""

    def one(position: int) -> dict[str, np.ndarray]:
        kind, row = rows[index_at(position, len(rows), seed)]
        return make(kind, row, generator(seed, "sample", position))

    def whole(step: int) -> dict[str, np.ndarray]:
        samples = [one(p) for p in range(step * batch, (step + 1) * batch)]
        return {k: np.stack([s[k] for s in samples]) for k in samples[0]}

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[dict[str, np.ndarray]]] = deque()
        upcoming = iter(steps)
        for step in upcoming:
            waiting.append(pool.submit(whole, step))
            if len(waiting) == PREFETCH:
                break
        while waiting:
            start = time.perf_counter()
            ready = waiting.popleft().result()
            waited = time.perf_counter() - start
            following = next(upcoming, None)
            if following is not None:
                waiting.append(pool.submit(whole, following))
            yield ready, waited
