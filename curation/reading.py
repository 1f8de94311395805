"""One row of the input table -> the picture's bytes and what its source says about it, wherever it lies."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError, MissingError, PhotoError
from manifests.store import REMOTE, Store, open_store

# What a browser or a camera would call a picture, and what scrapers leave beside them.
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif"}
# One request of a bucket takes 50 ms whatever its size; a tar's headers lie a picture apart.
BUFFER = 128 * 1024
MAX_JSON = 1 << 20


def read(row: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an input and its metadata. Raises PhotoError: `io_error` (gone, unreadable, empty row) or
    `download_failed` (whoever fetched the corpus could not); StorageError where a bucket goes on refusing.
    """
    said = told(row)
    if row["kind"] == "missing":
        why = said.get("error_message") or said.get("status") or "not on disk"
        raise PhotoError("download_failed" if "status" in said else "io_error", str(why)[:200])
    try:
        if row["kind"] == "table":
            return _table_row(row["file"], row["offset"], row["length"])
        if row["kind"] == "tar":
            if row["meta_length"]:
                said = _parsed(_stretch(row["file"], row["meta_offset"], min(row["meta_length"], MAX_JSON)))
            return _stretch(row["file"], row["offset"], row["length"]), said
        if row["meta_length"] == -1:
            with contextlib.suppress(OSError, MissingError):
                said = _parsed(_all(row["file"].rpartition(".")[0] + ".json")[:MAX_JSON])
        return _all(row["file"]), said
    except MissingError as error:
        raise PhotoError("io_error", str(error)) from None
    except OSError as error:
        raise PhotoError("io_error", error.strerror or str(error)) from None


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a list or downloader said of an input, without reading anything."""
    return _parsed(row["meta"]) if row.get("meta") else {}


def opened(file: str) -> Any:
    """A binary stream with seek, of a path or a bucket's object; objects are read in stretches."""
    if not REMOTE.match(file):
        return open(file, "rb")
    return io.BufferedReader(_Ranges(*_of(file)), BUFFER)


class Table:
    """A Parquet or Arrow file, read a part (row group, record batch) at a time."""

    def __init__(self, stream: Any, file: str) -> None:
        self._stream = stream
        try:
            if file.endswith(".parquet"):
                self._parquet = pq.ParquetFile(stream)
                self.schema = self._parquet.schema_arrow
                self._batches = None
            else:
                self._parquet, self._batches = None, _batches(stream)
                self.schema = self._batches[0].schema if self._batches else pa.schema([])
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file}: not a whole table ({str(error).splitlines()[0]}); fetch it again") from None

    def parts(self) -> list[tuple[int, int]]:
        """(rows, bytes) of each part."""
        if self._batches is not None:
            return [(b.num_rows, b.nbytes) for b in self._batches]
        groups = [self._parquet.metadata.row_group(i) for i in range(self._parquet.num_row_groups)]
        return [(g.num_rows, g.total_byte_size) for g in groups]

    def read(self, part: int) -> pa.Table:
        """All columns of a part."""
        if self._batches is not None:
            return pa.Table.from_batches([self._batches[part]])
        return self._parquet.read_row_group(part)


def _batches(stream: Any) -> list[pa.RecordBatch]:
    magic = stream.read(6)
    stream.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(stream)
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    return list(pa.ipc.open_stream(stream))


@contextlib.contextmanager
def table_of(file: str) -> Iterator[Table]:
    """The table in ``file``. Raises InputError where it is damaged."""
    # A map costs no memory of its own: rows are copied out one by one.
    with opened(file) if REMOTE.match(file) else pa.memory_map(file) as stream:
        yield Table(stream, file)


@functools.lru_cache(maxsize=1)
def _part(file: str, part: int) -> pa.Table:
    with table_of(file) as table:
        return table.read(part)


def _table_row(file: str, part: int, i: int) -> tuple[bytes, dict[str, Any]]:
    from curation.archives import bytes_column

    table = _part(file, part)
    name = bytes_column(table.schema)
    record = table.slice(i, 1).to_pylist()[0]
    value = record.pop(name)
    if isinstance(value, dict):
        record["path"] = value.get("path")
        value = value["bytes"]
    said = {k: v for k, v in record.items() if v is not None and not isinstance(v, bytes)}
    if value is None:
        failed = record.get("status") not in (None, "success")
        why = record.get("error_message") or record.get("status") or "no bytes in its row"
        raise PhotoError("download_failed" if failed else "io_error", str(why)[:200])
    return value, said


def _all(file: str) -> bytes:
    if not REMOTE.match(file):
        with open(file, "rb") as stream:
            return stream.read()
    store, name = _of(file)
    return store.read(name)


def _stretch(file: str, offset: int, length: int) -> bytes:
    if REMOTE.match(file):
        store, name = _of(file)
        return store.read_range(name, offset, length) if length else b""
    with open(file, "rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) != length:
        raise PhotoError("io_error", f"the archive ends {length - len(data)} bytes early")
    return data


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _of(file: str) -> tuple[Store, str]:
    folder, _, name = file.rpartition("/")
    return _store(folder), name


@functools.lru_cache(maxsize=8)
def _store(folder: str) -> Store:
    return open_store(folder)


class _Ranges(io.RawIOBase):
    """A bucket's object as a stream that asks for what is read, and no more."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self._at, self._size = store, name, 0, store.size(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = self._store.read_range(self._name, self._at, length)
        self._at += length
        return length
