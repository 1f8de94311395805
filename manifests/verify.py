"""A dataset folder -> the list of everything that is not as it was written, or not geometry."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from manifests import index
from manifests.cache import fetched
from manifests.columns import read as read_columns
from manifests.commit import LEDGER, newest_manifest
from manifests.errors import MaquetteError
from manifests.sample import RenderedSample, schemas
from manifests.sealed import unsealed
from manifests.shards import located_batches, row_hash, rows_of, sample_of
from manifests.store import Store, open_store

CHUNK_BYTES = 8 * 2**20


def verify(folder: str | Path, deep: bool = True) -> list[str]:
    """Problems of the dataset in ``folder``, one line each; an empty list means sound.

    Re-reads every byte: manifests, ledger, index and shards against the hashes that each carries or another holds, the
    index's hash of each row, counts, schema. ``deep`` decodes every rendered row and checks its geometry, too.
    """
    store = open_store(folder)
    problems, manifest = ledger_problems(store)
    if manifest is None:
        return problems or [f"{store.url}: no manifest"]
    labels: dict[str, dict[int, dict[str, Any]]] = {}
    try:
        table = index.read(store, manifest)
        for row in table.to_pylist():
            labels.setdefault(row["shard"], {})[row["position"]] = row
        twice = [k for k, n in Counter(table["sample_id"].to_pylist()).items() if n > 1]
        problems += [f"sample {k}: stands more than once" for k in twice]
        if table.num_rows != manifest["rows"]:
            problems.append(f"{manifest['index']}: {table.num_rows} rows, the manifest says {manifest['rows']}")
    except MaquetteError as error:
        problems.append(str(error))
    for shard in manifest["shards"]:
        problems += shard_problems(store, shard) or _rows(
            store, shard, manifest["kind"], labels.get(shard["path"], {}), deep, shard["path"] in manifest["pending"]
        )
    for entry in manifest["columns"]:
        problems += shard_problems(store, entry)
        try:
            if not problems and read_columns(fetched(store, entry)).num_rows != entry["rows"]:
                problems.append(f"{entry['path']}: not the {entry['rows']} rows the manifest says")
        except MaquetteError as error:
            problems.append(str(error))
    return problems


def ledger_problems(store: Store) -> tuple[list[str], dict[str, Any] | None]:
    """What is wrong with manifests and ledger, and the newest manifest (None when there is none that can be trusted)."""
    problems: list[str] = []
    manifest: dict[str, Any] | None = None
    try:
        manifest = newest_manifest(store)
    except MaquetteError as error:
        problems.append(str(error))
    for name in store.names("manifest")[:-1]:
        found = _seal(store, name, None)
        problems += found
        if not found:
            try:
                index.read(store, unsealed(store, name))
            except MaquetteError as error:
                problems.append(str(error))
    said = manifest["ledger"] if manifest else {}
    names = {n.removesuffix(".json"): n for part in LEDGER for n in store.names(part) if n.endswith(".json")}
    for key, name in names.items():
        problems += _seal(store, name, said.get(key))
    problems += [f"{key}.json: the manifest knows it and it is gone" for key in said if key not in names]
    return problems, manifest


def shard_problems(store: Store, shard: dict[str, Any]) -> list[str]:
    """What is wrong with the bytes of a shard or column file, by its manifest entry."""
    name = shard["path"]
    sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    try:
        actual = store.size(name)
        for start in range(0, actual, CHUNK_BYTES):
            chunk = store.read_range(name, start, min(CHUNK_BYTES, actual - start))
            sha256.update(chunk)
            xxh3.update(chunk)
            size += len(chunk)
    except MaquetteError as error:
        return [str(error)]
    if (sha256.hexdigest(), xxh3.hexdigest(), size) != (shard["sha256"], shard["xxh3"], shard["bytes"]):
        return [f"{name}: its bytes are not what was written ({size} bytes, {shard['bytes']} expected)"]
    return []


def _seal(store: Store, name: str, expected: str | None) -> list[str]:
    try:
        found = unsealed(store, name)["sha256"]
    except MaquetteError as error:
        return [str(error)]
    if expected is not None and not found.startswith(expected):
        return [f"{store.url}/{name}: sound in itself, but not the file that the manifest folded"]
    return []


def _rows(
    store: Store, shard: dict[str, Any], kind: str, labels: dict[int, dict[str, Any]], deep: bool, pending: bool
) -> list[str]:
    """Problems of the rows of one shard whose bytes are sound; ``labels``: position -> index row."""
    name = shard["path"]
    problems: list[str] = []
    position = 0
    try:
        for batch, offset, size in located_batches(fetched(store, shard)):
            if not any(batch.schema.equals(known) for known in schemas(kind)):
                return [f"{name}: its schema is not this version's"]
            for at, row in enumerate(rows_of(batch)):
                label = labels.get(position)
                if label is None and pending:
                    position += 1
                    continue
                found = _row(row, kind, label, deep)
                if label and (label["batch_offset"], label["batch_bytes"], label["batch_row"]) != (offset, size, at):
                    found.append("the index says it lies elsewhere in the file")
                problems += [f"{name} row {position} ({row['sample_id']}): {p}" for p in found]
                position += 1
    except MaquetteError as error:
        problems.append(str(error))
    except pa.ArrowInvalid as error:
        problems.append(f"{name}: {str(error).splitlines()[0]}")
    if position != shard["rows"]:
        problems.append(f"{name}: {position} rows, the manifest says {shard['rows']}")
    return problems


def _row(row: dict[str, Any], kind: str, label: dict[str, Any] | None, deep: bool) -> list[str]:
    problems = []
    if label is None or label["sample_id"] != row["sample_id"]:
        problems.append("the index names another sample here")
    elif label["xxh3"] != row_hash(row) or label["index"] != row["index"]:
        problems.append("it is not the row that the index hashed")
    if kind == "rendered":
        if deep:
            try:
                problems += geometry(sample_of(row))
            except (MaquetteError, ValueError) as error:
                problems.append(f"does not decode: {error}")
    elif hashlib.sha256(row["image"]["bytes"]).hexdigest() != row["sha256"]:
        problems.append("its image is not the one its sha256 names")
    return problems


def geometry(s: RenderedSample) -> list[str]:
    """What is wrong with the geometry of one sample: sizes, unit normals, depth only inside the mask, K, pose,
    boxes.
    """
    h, w = s.mask.shape
    inside = s.mask != 0
    found = []
    if s.image.shape != (h, w, 3):
        found.append(f"image is {s.image.shape}, mask {s.mask.shape}")
    if not inside.any():
        found.append("mask is empty")
        return found
    if (s.depth[inside] <= 0).any() or not np.isfinite(s.depth).all():
        found.append("depth inside the mask is not finite and above 0")
    if (s.depth[~inside] != 0).any() or (s.normal[~inside] != 0).any():
        found.append("depth or normal outside the mask")
    if np.abs(np.linalg.norm(s.normal[inside], axis=1) - 1).max() > 1e-3:
        found.append("normals are not unit")
    if set(np.unique(s.mask)) - set(range(len(s.people) + 1)):
        found.append("mask names a person who is not listed")
    K = s.K
    if not (K[0, 0] > 0 and K[1, 1] > 0 and K[2].tolist() == [0, 0, 1]):
        found.append("K is not an intrinsic matrix")
    elif not (-w <= K[0, 2] <= 2 * w and -h <= K[1, 2] <= 2 * h):
        found.append(f"K's principal point ({K[0, 2]:.0f}, {K[1, 2]:.0f}) does not match a picture of {w}x{h}")
    rotation = s.world_to_camera[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6 or np.linalg.det(rotation) < 0:
        found.append("world_to_camera is not a rigid transform")
    for i, person in enumerate(s.people):
        x0, y0, x1, y1 = person.box
        if not (0 <= x0 <= x1 <= w and 0 <= y0 <= y1 <= h):
            found.append(f"box of {person.asset_id} leaves the picture")
        ys, xs = np.nonzero(s.mask == i + 1)
        if len(xs) and (
            xs.min() < x0 - 0.01 or xs.max() + 1 > x1 + 0.01 or ys.min() < y0 - 0.01 or ys.max() + 1 > y1 + 0.01
        ):
            found.append(f"box of {person.asset_id} does not hold its pixels")
    return found
