"""A dataset folder -> the list of everything that is not as it was written, or not geometry."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash

from manifests.commit import newest_manifest, receipts
from manifests.errors import MaquetteError
from manifests.sample import RenderedSample, schema
from manifests.shards import read_batches, row_hash, sample_of


def verify(folder: Path) -> list[str]:
    """Problems of the dataset in ``folder``, one line each; an empty list means sound.

    Re-reads every byte: the manifest's, receipts', index's and shards' hashes, the index's hash of each row, counts,
    schema;
    decodes every rendered row and checks its geometry.
    """
    folder = Path(folder)
    try:
        manifest = newest_manifest(folder)
    except MaquetteError as error:
        return [str(error)]
    if manifest is None:
        return [f"{folder}: no manifest"]
    problems: list[str] = []
    try:
        named = {r.shard.path for r in receipts(folder).values() if r.shard}
        problems += [f"{s['path']}: no receipt names it" for s in manifest["shards"] if s["path"] not in named]
    except MaquetteError as error:
        problems.append(str(error))
    labels: dict[str, dict[int, dict[str, Any]]] = {}
    try:
        raw = (folder / manifest["index"]).read_bytes()
        if hashlib.sha256(raw).hexdigest() != manifest["index_sha256"]:
            problems.append(f"{manifest['index']}: its sha256 is not the manifest's")
        else:
            rows = pq.read_table(folder / manifest["index"]).to_pylist()
            for row in rows:
                labels.setdefault(row["shard"], {})[row["position"]] = row
            twice = [k for k, n in Counter(r["sample_id"] for r in rows).items() if n > 1]
            problems += [f"sample {k}: stands more than once" for k in twice]
            if len(rows) != manifest["rows"]:
                problems.append(f"{manifest['index']}: {len(rows)} rows, the manifest says {manifest['rows']}")
    except OSError as error:
        problems.append(f"{manifest['index']}: {error.strerror}")
    for shard in manifest["shards"]:
        problems += _shard(folder, shard, manifest["kind"], labels.get(shard["path"], {}))
    return problems


def _shard(folder: Path, shard: dict[str, Any], kind: str, labels: dict[int, dict[str, Any]]) -> list[str]:
    """Problems of one shard file; ``labels``: position -> index row."""
    name = shard["path"]
    sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    try:
        with (folder / name).open("rb") as file:
            while chunk := file.read(2**22):
                sha256.update(chunk)
                xxh3.update(chunk)
                size += len(chunk)
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    if (sha256.hexdigest(), xxh3.hexdigest(), size) != (shard["sha256"], shard["xxh3"], shard["bytes"]):
        return [f"{name}: its bytes are not what was written ({size} bytes, {shard['bytes']} expected)"]
    problems: list[str] = []
    position = 0
    try:
        for batch in read_batches(folder / name):
            if not batch.schema.equals(schema(kind)):
                return [f"{name}: its schema is not this version's"]
            for i in range(batch.num_rows):
                row = batch.slice(i, 1).to_pylist()[0]
                problems += [
                    f"{name} row {position} ({row['sample_id']}): {p}" for p in _row(row, kind, labels.get(position))
                ]
                position += 1
    except MaquetteError as error:
        problems.append(str(error))
    if position != shard["rows"]:
        problems.append(f"{name}: {position} rows, the manifest says {shard['rows']}")
    return problems


def _row(row: dict[str, Any], kind: str, label: dict[str, Any] | None) -> list[str]:
    problems = []
    if label is None or label["sample_id"] != row["sample_id"]:
        problems.append("the index names another sample here")
    elif label["xxh3"] != row_hash(row):
        problems.append("its blobs are not the ones the index hashed")
    if kind == "rendered":
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
