"""A dataset folder or bucket -> rows by position, slices, filters, joined columns, through its newest manifest.

Shards are memory-mapped where they lie; a bucket's are fetched whole into the cache (manifests/cache.py), or by ranges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import index
from manifests.cache import fetched
from manifests.columns import Columns
from manifests.commit import newest_manifest
from manifests.errors import InputError, MissingError, ShardError
from manifests.index import row_hash
from manifests.sample import RenderedSample
from manifests.shards import sample_of
from manifests.store import LocalStore, open_store


class Labels(Sequence[dict[str, Any]]):
    """Index rows as dicts, made when they are looked at: 100,000 of them would take a second and 200 MB."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, i: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, i: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(i, slice):
            return self.table.take(np.arange(len(self))[i]).to_pylist()
        return self.table.slice(_within(i, len(self)), 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches(4096):
            yield from batch.to_pylist()


class Dataset:
    """Rows of a dataset in order of ``index``. Shards open on first touch, once per process: forks and spawns are safe.

    ``len``, ``ds[i]`` (a row as a dict, blobs coded, added columns joined), ``ds[a:b]`` (a view), ``ds.sample(i)``
    (decoded), iteration, ``filter``, ``take``. ``labels``: one dict per row from the index; ``labels.table`` is an
    Arrow table. ``ranged``: read a bucket by ranged GETs of one batch (16 rows at most) instead of whole shards.
    Raises InputError where there is no dataset, ShardError where its files are not what was written.
    """

    def __init__(self, folder: str | Path, ranged: bool = False) -> None:
        self._store = open_store(folder)
        self.url = self._store.url
        manifest = newest_manifest(self._store)
        if manifest is None:
            raise InputError(
                f"{self.url}: no dataset here (no manifest/); give a folder such as runs/quickstart/render"
            )
        self.manifest: dict[str, Any] = manifest
        self.kind: str = manifest["kind"]
        self.labels = Labels(index.read(self._store, manifest).combine_chunks())
        self._ranged = ranged
        self._shards = {s["path"]: s for s in manifest["shards"]}
        self._columns = [Columns(self._store, entry) for entry in manifest["columns"]]
        self._place()
        self._open: dict[str, tuple[pa.Buffer, pa.Schema]] = {}
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, i: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> Dataset: ...
    def __getitem__(self, i: int | slice) -> dict[str, Any] | Dataset:
        if isinstance(i, slice):
            return self.take(np.arange(len(self))[i])
        i = _within(i, len(self))
        batch, at = self.batch(i)
        row = batch.slice(at, 1).to_pylist()[0]
        for added in self._columns:
            row |= added.row(row["sample_id"])
        return row

    def checked(self, i: int) -> dict[str, Any]:
        """Row ``i`` of the shards, without joined columns, compared with its hash in the index; raises ShardError."""
        batch, at = self.batch(i)
        row = batch.slice(at, 1).to_pylist()[0]
        if row_hash(row) != self.labels[i]["xxh3"]:
            raise ShardError(
                f"row {row['sample_id']} of {self.url}: not the bytes that were written; run `maquette repair`"
            )
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def sample(self, i: int) -> RenderedSample:
        """Row ``i`` decoded; only for rendered datasets."""
        if self.kind != "rendered":
            raise InputError(f"{self.url}: holds {self.kind} rows; only rendered rows decode to samples")
        return sample_of(self[i])

    def filter(self, where: Callable[[pa.Table], Any] | None = None, **labels: Any) -> Dataset:
        """A view of the rows whose index labels equal ``labels``: ``ds.filter(split="test", framing="face")``.

        A list means one of its values; ``where`` gets the index as an Arrow table and returns a boolean per row:
        ``ds.filter(lambda t: pc.greater(t["people"], 1))``. No pixels are read. Raises InputError on a label that
        the index does not have.
        """
        table = self.labels.table
        keep = np.ones(table.num_rows, bool)
        for name, value in labels.items():
            if name not in table.column_names:
                raise InputError(
                    f"no label {name!r} in the index of {self.url}; it has {', '.join(table.column_names)}"
                )
            column = table[name]
            if pa.types.is_list(column.type):
                wanted = set(value if isinstance(value, list | tuple | set) else [value])
                keep &= np.array([bool(wanted & set(v or [])) for v in column.to_pylist()], bool)
            else:
                values = pa.array(list(value) if isinstance(value, list | tuple | set) else [value], column.type)
                keep &= pc.is_in(column, values).to_numpy(zero_copy_only=False)
        if where is not None:
            keep &= np.asarray(pc.fill_null(where(table), False)).astype(bool)
        return self.take(np.flatnonzero(keep))

    def take(self, positions: Sequence[int] | np.ndarray) -> Dataset:
        """A view of the rows at ``positions``, in that order."""
        view = object.__new__(Dataset)
        view.__dict__ = {**self.__dict__, "labels": Labels(self.labels.table.take(np.asarray(positions, np.int64)))}
        view._place()
        return view

    def batch(self, i: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds row ``i``, not copied, and the row's place in it."""
        name = self._names[self._shard_of[i]].as_py()
        offset, size, at = (int(column[i]) for column in self._where)
        if self._ranged and not isinstance(self._store, LocalStore):
            fields = self._schema_of(name)
            data = pa.py_buffer(self._store.read_range(name, offset, size))
        else:
            buffer, fields = self._shard(name)
            if buffer.size < offset + size:
                raise ShardError(f"shard {self.url}/{name}: {buffer.size} bytes, too short; run `maquette verify`")
            data = buffer.slice(offset, size)
        try:
            return pa.ipc.read_record_batch(pa.ipc.read_message(pa.BufferReader(data)), fields), at
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise ShardError(f"shard {self.url}/{name}: {_first_line(error)}; run `maquette verify`") from None

    def shards(self) -> np.ndarray:
        """(rows,) int64: which shard of the manifest each row lies in."""
        known = {path: i for i, path in enumerate(self._shards)}
        return np.array([known[n.as_py()] for n in self._names], np.int64)[self._shard_of]

    def blob(self, i: int, name: str) -> memoryview | None:
        """The stored bytes of one binary or image column of row ``i``, not copied; None where it is null."""
        batch, at = self.batch(i)
        column = batch.column(name)
        if pa.types.is_struct(column.type):
            column = column.field("bytes")
        value = column[at]
        return memoryview(value.as_buffer()).cast("B") if value.is_valid else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _place(self) -> None:
        """Keep where rows lie as plain arrays: a look-up must not pay for Arrow scalars."""
        table = self.labels.table
        encoded = pc.dictionary_encode(table["shard"].combine_chunks())
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks() if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
        self._shard_of = encoded.indices.to_numpy()
        self._names = encoded.dictionary
        self._where = [table[n].to_numpy() for n in ("batch_offset", "batch_bytes", "batch_row")]

    def _shard(self, name: str) -> tuple[pa.Buffer, pa.Schema]:
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        found = self._open.get(name)
        if found is None:
            path = fetched(self._store, self._shards[name])
            try:
                buffer = pa.memory_map(str(path)).read_buffer()
                found = (buffer, pa.ipc.read_schema(pa.BufferReader(buffer)))
            except FileNotFoundError:
                raise MissingError(f"shard {self.url}/{name}: No such file; run `maquette verify`") from None
            except (OSError, pa.ArrowInvalid) as error:
                raise ShardError(f"shard {self.url}/{name}: {_first_line(error)}; run `maquette verify`") from None
            self._open[name] = found
        return found

    def _schema_of(self, name: str) -> pa.Schema:
        """A bucket shard's schema: it stands before the first batch."""
        first = min(int(o) for o in self._where[0][self._shard_of == self._names.index(name).as_py()])
        if name not in self._open:
            head = pa.py_buffer(self._store.read_range(name, 0, first))
            self._open[name] = (head, pa.ipc.read_schema(pa.BufferReader(head)))
        return self._open[name][1]


def _within(i: int, length: int) -> int:
    """``i`` as a list takes it. Raises IndexError, which also ends an iteration."""
    if not -length <= i < length:
        raise IndexError(f"row {i} of {length}")
    return i % length


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
