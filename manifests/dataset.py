"""A dataset folder -> rows by position, filters and iteration, through its newest manifest; shards are
memory-mapped.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.commit import newest_manifest
from manifests.errors import InputError, ShardError
from manifests.sample import RenderedSample
from manifests.shards import sample_of


class Dataset:
    """Rows of ``folder`` in order of ``index``. Shards open on first touch, once per process, so forks and spawns
    are safe.

    ``len``, ``ds[i]`` (a row as a dict, blobs coded), ``ds.sample(i)`` (decoded), iteration, ``filter``. ``labels``:
    one dict
    per row from the index. Raises InputError where there is no dataset, ShardError where its files are not what was
    written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = newest_manifest(self.folder)
        if manifest is None:
            raise InputError(
                f"{self.folder}: no dataset here (no manifest/); give a folder such as runs/quickstart/render"
            )
        self.manifest: dict[str, Any] = manifest
        self.kind: str = manifest["kind"]
        self.labels: list[dict[str, Any]] = pq.read_table(self.folder / manifest["index"]).to_pylist()
        self._open: dict[str, tuple[list[pa.RecordBatch], list[int]]] = {}
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        label = self.labels[i]
        batches, ends = self._shard(label["shard"])
        batch = bisect_right(ends, label["position"])
        first = ends[batch - 1] if batch else 0
        return batches[batch].slice(label["position"] - first, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def sample(self, i: int) -> RenderedSample:
        """Row ``i`` decoded; only for rendered datasets."""
        if self.kind != "rendered":
            raise InputError(f"{self.folder}: holds {self.kind} rows; only rendered rows decode to samples")
        return sample_of(self[i])

    def filter(self, **labels: Any) -> Dataset:
        """A view of the rows whose index labels equal ``labels``: ``ds.filter(split="test", framing="face")``."""
        view = object.__new__(Dataset)
        view.__dict__ = {**self.__dict__}
        view.labels = [r for r in self.labels if all(r[k] == v for k, v in labels.items())]
        return view

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _shard(self, name: str) -> tuple[list[pa.RecordBatch], list[int]]:
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        if name not in self._open:
            path = self.folder / name
            try:
                batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
            except (OSError, pa.ArrowInvalid) as error:
                raise ShardError(f"shard {path}: {str(error).splitlines()[0]}; run `maquette verify`") from None
            self._open[name] = (batches, list(accumulate(b.num_rows for b in batches)))
        return self._open[name]
