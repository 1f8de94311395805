"""Receipts -> numbered manifests: what is in a dataset, atomically; a crash at any point loses and doubles nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import ShardError
from manifests.sample import SCHEMA_VERSION
from manifests.shards import Shard, fsync_folder, read_shard, row_bytes, row_hash, storage


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one sample. ``status``: done, rejected or failed."""

    sample_id: str
    index: int
    status: str
    why: str
    seconds: float
    attempt: int


@dataclasses.dataclass(frozen=True)
class Receipt:
    """One finished task: its commit point."""

    task_id: str
    stage_digest: str
    shard: Shard | None
    outcomes: list[Outcome]
    extra: dict[str, Any]


def write_receipt(folder: Path, receipt: Receipt) -> bool:
    """Create receipts/TASK.json whole and exclusively; the first writer wins.

    False when another attempt was first: then this attempt's shard is deleted, unless it is the very same file. Raises
    StorageError.
    """
    path = folder / "receipts" / f"{receipt.task_id}.json"
    fresh = folder / "tmp" / f"{receipt.task_id}-{uuid.uuid4().hex[:8]}.json"
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(fresh, sealed(dataclasses.asdict(receipt)))
        try:
            # link is atomic and refuses to replace: the one exclusive create that also has its contents.
            os.link(fresh, path)
            first = True
        except FileExistsError:
            first = False
        finally:
            fresh.unlink(missing_ok=True)
        fsync_folder(path.parent)
    if not first and receipt.shard is not None:
        winner = _receipt(path)
        if winner.shard is None or winner.shard.path != receipt.shard.path:
            with contextlib.suppress(FileNotFoundError):
                (folder / receipt.shard.path).unlink()
    return first


def receipts(folder: Path) -> dict[str, Receipt]:
    """task id -> receipt, in order of task id. Raises ShardError when one was altered."""
    return {p.stem: _receipt(p) for p in sorted((folder / "receipts").glob("*.json"))}


def fold(folder: Path, kind: str, stage_digest: str) -> dict[str, Any] | None:
    """Fold all receipts into the next manifest and its index, card and `datasets` views; returns the newest manifest,
    None before the first receipt.

    Nothing is written when the newest manifest already says the same. Two drivers may fold at once: a number is
    taken by
    exclusive create, and the loser reads again. Raises StorageError, ShardError.
    """
    while True:
        found = receipts(folder)
        newest = newest_manifest(folder)
        if not found and newest is None:
            return None
        tasks = [r for r in found.values() if r.shard is not None]
        shards = [{"task_id": r.task_id, **dataclasses.asdict(r.shard)} for r in tasks if r.shard]
        counts = Counter(o.status for r in found.values() for o in r.outcomes)
        if newest and newest["shards"] == shards and newest["counts"] == dict(counts):
            return newest
        number = newest["number"] + 1 if newest else 0
        rows = index_rows(folder, shards, newest)
        body = {
            "number": number,
            "kind": kind,
            "schema_version": SCHEMA_VERSION,
            "stage_digest": stage_digest,
            "rows": sum(s["rows"] for s in shards),
            "counts": dict(counts),
            "splits": dict(Counter(r["split"] for r in rows)),
            "licences": dict(Counter(licence for r in rows for licence in r["licences"])),
            "redistributable": sum(r["redistributable"] for r in rows),
            "shards": shards,
            "tombstones": [],
            "parent": newest["sha256"] if newest else None,
        }
        with storage(folder / "index"):
            body |= _write_index(folder, number, rows)
            if _publish(folder, number, body):
                break
    from manifests.card import write_views

    manifest = newest_manifest(folder)
    assert manifest is not None
    with storage(folder):
        write_views(folder, manifest, rows)
    return manifest


def _write_index(folder: Path, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write index/NUMBER-SHA12.parquet before the manifest that names it; the hash keeps two drivers' files apart."""
    (folder / "index").mkdir(parents=True, exist_ok=True)
    fresh = folder / "tmp" / f"index-{uuid.uuid4().hex[:8]}.parquet"
    fresh.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), fresh)
    digest = hashlib.sha256(fresh.read_bytes()).hexdigest()
    name = f"index/{number:08d}-{digest[:12]}.parquet"
    os.replace(fresh, folder / name)
    return {"index": name, "index_sha256": digest}


def newest_manifest(folder: Path) -> dict[str, Any] | None:
    """The newest manifest, or None in a folder that has none. Raises ShardError when it was altered."""
    paths = sorted((folder / "manifest").glob("*.json"))
    return unsealed(paths[-1]) if paths else None


def collect_orphans(folder: Path, min_age_s: float = 60.0) -> list[Path]:
    """Remove temporary files, and shards that no receipt names, older than ``min_age_s``; returns what was removed.

    The age keeps the work of another driver's workers: between its rename and its receipt a shard looks like an orphan.
    """
    named = {r.shard.path for r in receipts(folder).values() if r.shard}
    orphans = [p for p in sorted((folder / "tmp").glob("*")) if p.is_file()]
    orphans += [p for p in sorted((folder / "data").glob("*.arrow")) if f"data/{p.name}" not in named]
    with storage(folder):
        orphans = [p for p in orphans if p.exists() and time.time() - p.stat().st_mtime >= min_age_s]
        for path in orphans:
            path.unlink(missing_ok=True)
    return orphans


INDEX_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("index", pa.int64()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("position", pa.int32()),
        ("bytes", pa.int64()),
        ("xxh3", pa.string()),
        ("framing", pa.string()),
        ("assets", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("people", pa.int32()),
        ("licences", pa.list_(pa.string())),
        ("redistributable", pa.bool_()),
    ]
)


def index_rows(folder: Path, shards: list[dict[str, Any]], newest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row per sample in order of ``index``; shards that the newest index knows are not read again."""
    known: dict[str, list[dict[str, Any]]] = {}
    if newest:
        for row in pq.read_table(folder / newest["index"]).to_pylist():
            known.setdefault(row["shard"], []).append(row)
    rows: list[dict[str, Any]] = []
    for shard in shards:
        have = known.get(shard["path"])
        if have is None or len(have) != shard["rows"]:
            have = [_index_row(r, shard["path"], i) for i, r in enumerate(read_shard(folder / shard["path"]))]
        rows += have
    return sorted(rows, key=lambda r: (r["index"], r["sample_id"]))


def _index_row(row: dict[str, Any], shard: str, position: int) -> dict[str, Any]:
    camera = row.get("camera") or {}
    return {
        "sample_id": row["sample_id"],
        "index": row["index"],
        "split": row["split"],
        "shard": shard,
        "position": position,
        "bytes": row_bytes(row),
        "xxh3": row_hash(row),
        "framing": camera.get("framing"),
        "assets": [p["asset_id"] for p in row.get("people") or []],
        "width": camera.get("width") or row.get("width"),
        "height": camera.get("height") or row.get("height"),
        "people": len(row.get("people") or row.get("boxes") or []),
        "licences": sorted({r["licence"] for r in row["rights"] if r["licence"]}),
        "redistributable": all(r["redistributable"] for r in row["rights"]),
    }


def sealed(body: dict[str, Any]) -> str:
    """JSON text of ``body`` with its own sha256 inside."""
    text = json.dumps(body, sort_keys=True)
    return json.dumps({**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True, indent=1)


def unsealed(path: Path) -> dict[str, Any]:
    """The dict that ``sealed`` wrote, its sha256 kept. Raises ShardError when a byte differs."""
    with storage(path):
        text = path.read_bytes()
    try:
        body = json.loads(text)
        said = body.pop("sha256")
    except (ValueError, KeyError, AttributeError):
        raise ShardError(f"{path}: not readable as JSON with a sha256; run `maquette verify` on its dataset") from None
    if hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() != said:
        raise ShardError(
            f"{path}: its sha256 does not match; the file was altered. Restore or delete it to redo the task"
        )
    return {**body, "sha256": said}


def _receipt(path: Path) -> Receipt:
    body = unsealed(path)
    body.pop("sha256")
    try:
        shard = Shard(**body["shard"]) if body["shard"] else None
        return Receipt(
            body["task_id"], body["stage_digest"], shard, [Outcome(**o) for o in body["outcomes"]], body["extra"]
        )
    except (KeyError, TypeError) as error:
        raise ShardError(f"{path}: not a receipt ({error})") from None


def _publish(folder: Path, number: int, body: dict[str, Any]) -> bool:
    """Create manifest ``number`` exclusively; False when another driver took it."""
    path = folder / "manifest" / f"{number:08d}.json"
    fresh = folder / "tmp" / f"manifest-{uuid.uuid4().hex[:8]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    _write_synced(fresh, sealed(body))
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    finally:
        fresh.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
