"""A dataset -> a Ray Data dataset, one read task per shard or more; Ray has no reader of Arrow IPC itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from manifests.dataset import Dataset


class Shards(Datasource):
    """The rows of a `Dataset` or of a view of it, as Arrow blocks of one record batch (16 rows) at most.

    Blobs stay coded: decode them in `map` with manifests.codecs, not before they travel through the object store.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self._dataset = dataset

    def get_name(self) -> str:
        return f"Maquette({self._dataset.url})"

    def estimate_inmemory_data_size(self) -> int:
        return int(sum(self._dataset.labels.table["bytes"].to_pylist()))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """About ``parallelism`` tasks of neighbouring rows."""
        count = max(1, min(parallelism, len(self._dataset)))
        edges = [len(self._dataset) * i // count for i in range(count + 1)]
        sizes = self._dataset.labels.table["bytes"].to_pylist()
        tasks = []
        for low, high in itertools.pairwise(edges):
            metadata = BlockMetadata(
                num_rows=high - low, size_bytes=sum(sizes[low:high]), input_files=None, exec_stats=None
            )
            read_rows = functools.partial(blocks, self._dataset[low:high])
            tasks.append(ReadTask(read_rows, metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def blocks(dataset: Dataset) -> Iterator[pa.Table]:
    """Tables of neighbouring rows that lie in one record batch, in the dataset's order, without Python objects between."""
    run: list[int] = []
    batch: pa.RecordBatch | None = None
    key: tuple[Any, ...] | None = None
    for i in range(len(dataset)):
        label = dataset.labels[i]
        place = (label["shard"], label["batch_offset"])
        if place != key:
            if batch is not None:
                yield pa.Table.from_batches([batch]).take(run)
            batch, run, key = dataset.batch(i)[0], [], place
        run.append(label["batch_row"])
    if batch is not None:
        yield pa.Table.from_batches([batch]).take(run)


def read(folder: str | Path, **labels: Any) -> ray.data.Dataset:
    """``folder`` as a Ray Data dataset, only rows whose index labels equal ``labels``. Ray must be running."""
    dataset = Dataset(folder)
    return ray.data.read_datasource(Shards(dataset.filter(**labels) if labels else dataset))
