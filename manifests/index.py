"""Rows of a shard -> the row that finds and describes each one, so that nobody need touch pixels to choose."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from manifests.errors import ShardError
from manifests.sample import KINDS
from manifests.store import Store

BLOBS = ("image", "depth", "normal", "normal_shading", "albedo", "alpha", "mask", "segmentation")
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("index", pa.int64()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("position", pa.int32()),
        ("batch_offset", pa.int64()),
        ("batch_bytes", pa.int64()),
        ("batch_row", pa.int32()),
        ("bytes", pa.int64()),
        ("xxh3", pa.string()),
        ("framing", pa.string()),
        ("assets", pa.list_(pa.string())),
        ("environment", pa.string()),
        ("visible_fraction", pa.float32()),
        ("score", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("people", pa.int32()),
        ("licences", pa.list_(pa.string())),
        ("redistributable", pa.bool_()),
        ("cluster_path", pa.string()),
        ("sampling_weight", pa.float32()),
    ]
)
# A row from before such a column has the hash that it had.
LATER = {f.name for fields in KINDS.values() for f in fields if f.later}


def label(row: dict[str, Any], position: int) -> dict[str, Any]:
    """What the index says of ``row``, the ``position``-th of its shard; where it lies is filled in by the writer."""
    camera = row.get("camera") or {}
    people = row.get("people") or []
    boxes = row.get("boxes") or []
    return {
        "sample_id": row["sample_id"],
        "index": row["index"],
        "split": row["split"],
        "position": position,
        "bytes": row_bytes(row),
        "xxh3": row_hash(row),
        "framing": camera.get("framing"),
        "assets": [p["asset_id"] for p in people],
        "environment": (row.get("lighting") or {}).get("environment"),
        "visible_fraction": min((p["visible_fraction"] for p in people), default=None),
        "score": max((b["score"] for b in boxes if b["score"] is not None), default=None),
        "width": camera.get("width") or row.get("width"),
        "height": camera.get("height") or row.get("height"),
        "people": len(people or boxes),
        "licences": sorted({r["licence"] for r in row["rights"] if r["licence"]}),
        "redistributable": all(r["redistributable"] for r in row["rights"]),
        "cluster_path": row.get("cluster_path"),
        "sampling_weight": row.get("sampling_weight"),
    }


def row_bytes(row: dict[str, Any]) -> int:
    """Bytes of a row's blobs."""
    return sum(len(b) for b in _blobs(row))


def row_hash(row: dict[str, Any]) -> str:
    """xxh3-128 over all that a row holds, as Arrow gives it back: finds the damaged row in a damaged shard.

    All but ``index``, its number in one dataset: the row stays the same in a filtered or merged one.
    """
    digest = xxhash.xxh3_128()
    for blob in _blobs(row):
        digest.update(len(blob).to_bytes(8, "little"))
        digest.update(blob)
    rest = {k: v if k not in BLOBS else v is not None for k, v in row.items() if k != "index"}
    rest = {k: v for k, v in rest.items() if v is not None or k not in LATER}
    if row.get("image"):
        rest["image"] = row["image"]["path"]
    digest.update(json.dumps(rest, sort_keys=True, default=bytes.hex).encode())
    return digest.hexdigest()


def write(store: Store, number: int, table: pa.Table) -> dict[str, str]:
    """Write index/NUMBER-SHA12.parquet; returns the two manifest fields that name it and hold its sha256.

    The hash in the name keeps the files of two drivers apart.
    """
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=65_536)
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    name = f"index/{number:08d}-{digest[:12]}.parquet"
    store.replace(name, sink.getvalue())
    return {"index": name, "index_sha256": digest}


def read(store: Store, manifest: dict[str, Any]) -> pa.Table:
    """The index that ``manifest`` names, in order of (index, sample_id); nulls in labels that came after it was written.

    Raises ShardError when a byte differs.
    """
    data = store.read(manifest["index"])
    if hashlib.sha256(data).hexdigest() != manifest["index_sha256"]:
        raise ShardError(
            f"{store.url}/{manifest['index']}: its sha256 is not the manifest's; run `maquette repair` on its dataset"
        )
    table = pq.read_table(pa.BufferReader(data))
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _blobs(row: dict[str, Any]) -> Iterator[bytes]:
    for name in BLOBS:
        value = row.get(name)
        if value is not None:
            yield value["bytes"] if isinstance(value, dict) else value
