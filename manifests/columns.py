"""Columns made later -> a file beside the shards, joined to their rows by id; no shard is rewritten.

A column file is an Arrow IPC stream: ``sample_id`` and the new columns, rows in any order, ids that are missing are null.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from manifests.cache import fetched
from manifests.errors import InputError, ShardError
from manifests.sealed import sealed
from manifests.store import Store, open_store, storage

BATCH_ROWS = 16


class Columns:
    """One column file of a dataset; opened when the first row is asked for."""

    def __init__(self, store: Store, entry: dict[str, Any]) -> None:
        self._store, self._entry = store, entry
        self._table: pa.Table | None = None
        self._at: dict[str, int] = {}

    def row(self, sample_id: str) -> dict[str, Any]:
        """The columns of one sample; where the file has no such id nothing is added to a column that stood before."""
        if self._table is None:
            self._table = read(fetched(self._store, self._entry))
            self._at = {k: i for i, k in enumerate(self._table["sample_id"].to_pylist())}
        at = self._at.get(sample_id)
        if at is None:
            return {name: None for name in self._entry["fields"] if name not in self._entry["fills"]}
        values = {name: self._table[name][at].as_py() for name in self._entry["fields"]}
        return {k: v for k, v in values.items() if v is not None or k not in self._entry["fills"]}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None, "_at": {}}


def add(folder: str | Path, name: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> dict[str, Any]:
    """Write ``rows`` (dicts with ``sample_id`` and the fields of ``schema``) as columns/NAME-SHA12.arrow; fold to see it.

    Returns the column entry. A field that the rows have already, such as a ``segmentation`` of nulls, is filled where
    the file has a value. Raises InputError when ``name`` is taken, an id twice or unknown, StorageError.
    """
    from manifests.commit import fold, newest_manifest
    from manifests.index import read as read_index
    from manifests.sample import KINDS

    store = open_store(folder)
    manifest = newest_manifest(store)
    if manifest is None:
        raise InputError(f"{store.url}: no dataset here (no manifest/)")
    if "sample_id" not in schema.names:
        raise InputError(f"columns {name}: the schema needs `sample_id`, which joins them to their rows")
    if any(c["name"] == name for c in manifest["columns"]):
        raise InputError(f"columns {name}: {store.url} has them already; give them another name")
    known = set(read_index(store, manifest)["sample_id"].to_pylist())
    taken = {f for c in manifest["columns"] for f in c["fields"]} & set(schema.names)
    if taken:
        raise InputError(f"columns {name}: {', '.join(sorted(taken))} stands in other added columns of {store.url}")
    entry = write(store, name, rows, schema, known)
    entry["fills"] = sorted(set(entry["fields"]) & {f.name for f in KINDS[manifest["kind"]]})
    if not store.create(f"columns/{name}.json", sealed({"columns": entry})):
        raise InputError(f"columns {name}: another writer was first; give them another name")
    fold(folder, manifest["kind"], manifest["stage_digest"])
    return entry


def write(
    store: Store, name: str, rows: Iterable[dict[str, Any]], schema: pa.Schema, known: set[str]
) -> dict[str, Any]:
    """Write the column file itself; ``known``: the ids it may hold. Raises InputError on another id or one twice."""
    path = store.scratch() / f"{uuid.uuid4().hex}.arrow.tmp"
    seen: set[str] = set()
    pending: list[dict[str, Any]] = []
    try:
        with storage(path), pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for row in rows:
                if row["sample_id"] in seen or row["sample_id"] not in known:
                    why = "stands twice" if row["sample_id"] in seen else "is no sample of this dataset"
                    raise InputError(f"columns {name}: {row['sample_id']} {why}; nothing was added")
                seen.add(row["sample_id"])
                pending.append(row)
                if len(pending) == BATCH_ROWS:
                    writer.write_batch(pa.RecordBatch.from_pylist(pending, schema=schema))
                    pending = []
            if pending:
                writer.write_batch(pa.RecordBatch.from_pylist(pending, schema=schema))
        with storage(path), path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            xxh3 = xxhash.xxh3_128(file.read()).hexdigest()
        entry: dict[str, Any] = {
            "name": name,
            "path": f"columns/{name}-{digest[:12]}.arrow",
            "fields": [f for f in schema.names if f != "sample_id"],
            "rows": len(seen),
            "bytes": path.stat().st_size,
            "sha256": digest,
            "xxh3": xxh3,
        }
        store.publish(path, entry["path"])
    finally:
        path.unlink(missing_ok=True)
    return entry


def read(path: Path) -> pa.Table:
    """The column file as a table, memory-mapped. Raises ShardError."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(f"{path}: {str(error).splitlines()[0]}; run `maquette verify` on its dataset") from None
