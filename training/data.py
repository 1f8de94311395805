"""Dataset folders -> the rows a stage trains on, in an order that depends on seed and position alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import codecs, photo
from manifests.dataset import Dataset
from manifests.errors import InputError, JobError
from training.loader import Maker, batches
from training.order import Order, Source
from training.settings import Compute

if TYPE_CHECKING:
    from training.team import Team


class Rows:
    """The rows of several dataset folders of one split (None = all), end to end, or mixed by ``weights``.

    ``weighted``: photographs come as often as their `sampling_weight` says. Its mean is 1 over what a curation kept, so
    that a dataset takes as much of an epoch as its rows, and a row without one (rendered, or not embedded) counts as 1.
    """

    def __init__(
        self,
        folders: list[Path],
        split: str | None,
        weights: list[float] | None = None,
        few: tuple[int | None, int] = (None, 0),
        weighted: bool = False,
    ) -> None:
        """``few``: (how many of the rows, or None for all; seed of the draw). Raises InputError, JobError."""
        self.split, self._weights = split, weights
        if weights is not None and len(weights) != len(folders):
            raise InputError(f"weights: {len(weights)} for {len(folders)} datasets; give one each")
        self.sets = [Dataset(f) if split is None else Dataset(f).filter(split=split) for f in folders]
        count, seed = few
        if count is not None:
            self.sets = drawn(self.sets, count, seed)
        self._ends = np.cumsum([len(d) for d in self.sets])
        if not len(self):
            where = ", ".join(map(str, folders))
            raise InputError(
                f"no {split or ''} rows in {where}: render or curate more, or choose another split".replace("  ", " ")
            )
        self._rates = rates(self.sets) if weighted else [None] * len(self.sets)
        # What the rows are, for the digest of a checkpoint: compacting moves rows, and changes none.
        self.identity = [f"{d.manifest['stage_digest']}:{len(d)}:{_ids(d)}" for d in self.sets]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> tuple[str, dict[str, Any]]:
        """(kind, row)."""
        which, row = (int(v[0]) for v in self.place(np.array([i])))
        return self.sets[which].kind, self.sets[which][row]

    def place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) rows, counted end to end -> (K,) datasets and (K,) rows within them."""
        which = np.searchsorted(self._ends, rows, side="right")
        return which, rows - np.concatenate([[0], self._ends])[which]

    def order(self, seed: int) -> tuple[Order, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """The order of positions, and what it leads to: position -> (dataset, row).

        Every row once per epoch, or as ``weighted`` says; with weights each dataset in its own epochs, at its share.
        """
        if self._weights is not None:
            each = enumerate(zip(self.sets, self._weights, self._rates))
            order = Order([Source(str(i), len(d), w, rates=r) for i, (d, w, r) in each], seed)
            return order, order
        known = [r for r in self._rates if r is not None]
        order = Order([Source("rows", len(self), rates=np.concatenate(known) if known else None)], seed)
        return order, lambda positions: self.place(order(positions)[1])


def picture(kind: str, row: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 sRGB, upright."""
    data = row["image"]["bytes"]
    return codecs.decode_image(data) if kind == "rendered" else photo.decode(data)[0]


def stream(
    rows: Rows,
    order: Order,
    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    maker: Maker,
    batch: int,
    steps: range,
    compute: Compute,
    me: Team,
) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """Yield (this worker's part of each batch, seconds waited) for each step; ``order`` and ``find`` as ``rows.order`` gives."""
    threads = max(1, min(16, compute.cpus - 1)) if compute.cpus else None
    return batches(rows.sets, order, maker, batch, steps, threads, me.rank, me.world, find)


def drawn(sets: list[Dataset], count: int, seed: int) -> list[Dataset]:
    """``count`` rows of all ``sets`` together; of one seed, a larger draw holds the smaller ones. Raises InputError."""
    marks = {i: hashlib.sha256(f"{seed}/{i}".encode()).digest() for d in sets for i in _names(d)}
    if count > len(marks):
        raise InputError(f"samples: {count} of {len(marks)} training rows; render more, or ask for fewer")
    chosen = pa.array(sorted(marks, key=marks.__getitem__)[:count])
    return [d.filter(lambda t: pc.is_in(t["sample_id"], chosen)) for d in sets]


def rates(sets: list[Dataset]) -> list[np.ndarray | None]:
    """(rows,) float64 for each of ``sets``: the `sampling_weight` of each row, 1 where it has none. Raises JobError for
    photographs that none of has one, and where nothing but renders is to be drawn by weight.
    """
    found: list[np.ndarray | None] = []
    for dataset in sets:
        column = dataset.labels.table["sampling_weight"]
        if dataset.kind == "curated" and len(dataset) and column.null_count == len(dataset):
            raise JobError(
                f"weighted: no photograph in {dataset.url} has a sampling_weight; curate it under a new name with "
                "curate.embedding, or leave out weighted"
            )
        value = pc.fill_null(column, 1.0).to_numpy().astype(np.float64)
        if not (np.isfinite(value) & (value > 0)).all():
            raise InputError(f"{dataset.url}: a sampling_weight is not above 0; run `maquette verify` on it")
        found.append(value)
    if all(dataset.kind == "rendered" for dataset in sets):
        raise JobError(
            "weighted: renders have no clusters to draw by; add photographs to `data`, or leave out weighted"
        )
    return found


def _names(dataset: Dataset) -> list[str]:
    return [str(v) for v in dataset.labels.table["sample_id"].to_pylist()]


def _ids(dataset: Dataset) -> str:
    """A digest of the rows' ids, in order."""
    column = pc.cast(dataset.labels.table["sample_id"], "large_string").combine_chunks()
    data = column.to_numpy(zero_copy_only=False)
    return hashlib.sha256("\n".join(data).encode()).hexdigest()[:16]
