"""Datasets -> the same rows in other shards: compacted, merged, split, filtered, or without what was withdrawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests import columns, commit, index
from manifests.card import SPLIT_NAMES
from manifests.commit import Outcome, Receipt, fold, newest_manifest, write_receipt
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.sample import early
from manifests.sealed import sealed
from manifests.shards import ShardWriter
from manifests.store import open_store

SHARD_BYTES = 256 * 2**20
ROWS_PER_TASK = 1024


def compact(folder: str | Path, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Put small shards of one split together up to ``shard_bytes``, and drop withdrawn rows; returns replaced shards.

    Each new shard is its own commit: an interrupted compaction goes on where it stopped. The replaced files stay for
    readers of older manifests until `gc`. Raises StorageError, ShardError.
    """
    dataset = Dataset(folder)
    pending = set(dataset.manifest["pending"])
    replaced: list[str] = []
    for group in _groups(dataset.manifest["shards"], pending, shard_bytes):
        replaced += _rewrite(folder, dataset, group)
    fold(folder, dataset.kind, dataset.manifest["stage_digest"])
    return replaced


def withdraw(folder: str | Path, ids: Iterable[str], why: str) -> list[str]:
    """Take samples out for good, such as after a withdrawn consent; returns the ids that were found.

    The tombstone hides them at once from the index, the card and the hf/ views; then the shards that hold them are
    rewritten, added columns too, and the old bytes and manifests are deleted. Interrupted, the same call goes on.
    Raises InputError when no id is known, StorageError, ShardError.
    """
    store = open_store(folder)
    manifest = newest_manifest(store)
    if manifest is None:
        raise InputError(f"{store.url}: no dataset here (no manifest/)")
    asked = sorted(set(ids))
    known = set(index.read(store, manifest)["sample_id"].to_pylist()) | set(manifest["withdrawn"])
    found = [i for i in asked if i in known]
    if not found:
        raise InputError(f"{store.url}: holds none of {', '.join(asked[:5]) or 'no ids'}; nothing was withdrawn")
    name = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
    store.create(f"tombstones/{name}.json", sealed({"ids": found, "why": why}))
    manifest = fold(folder, manifest["kind"], manifest["stage_digest"])
    assert manifest is not None
    dataset = Dataset(folder)
    for path in manifest["pending"]:
        _rewrite(folder, dataset, [path])
    _rewrite_columns(folder, manifest, set(found))
    latest = fold(folder, dataset.kind, manifest["stage_digest"])
    assert latest is not None
    commit.drop_history(folder)
    live = {e["path"] for e in [*latest["shards"], *latest["columns"]]}
    for path in [*manifest["pending"], *(c["path"] for c in manifest["columns"])]:
        if path not in live:
            store.delete(path)
    return found


def write(rows: Iterable[dict[str, Any]], out: str | Path, kind: str, stage_digest: str) -> int:
    """A new dataset at ``out`` of ``rows``, numbered from 0 in that order; returns how many.

    Raises InputError when ``out`` is a dataset already, or an id comes twice; StorageError.
    """
    store = open_store(out)
    if store.names("receipts") or store.names("manifest"):
        raise InputError(f"{store.url}: a dataset is there already; name another place for the new one")
    seen: set[str] = set()
    waiting = iter(rows)
    number = 0
    while True:
        writer = ShardWriter(out, f"{number:08d}", kind)
        outcomes: list[Outcome] = []
        with writer:
            size = 0
            for row in waiting:
                if row["sample_id"] in seen:
                    raise InputError(
                        f"sample {row['sample_id']}: comes twice; nothing of it was committed at {store.url}"
                    )
                seen.add(row["sample_id"])
                index_ = number + len(outcomes)
                writer.append({**row, "index": index_})
                outcomes.append(Outcome(row["sample_id"], index_, "done", "", 0.0, 1))
                size += index.row_bytes(row)
                if size >= SHARD_BYTES or len(outcomes) == ROWS_PER_TASK:
                    break
            shards = writer.close()
        if not outcomes:
            break
        write_receipt(out, Receipt(f"{number:08d}", stage_digest, shards, outcomes, {}))
        number += len(outcomes)
    fold(out, kind, stage_digest)
    return number


def subset(source: Dataset, out: str | Path) -> int:
    """Write the rows of a view (`Dataset.filter`, a slice) as a dataset of their own; returns how many.

    Added columns come along. Raises InputError on an empty view.
    """
    if not len(source):
        raise InputError(f"{source.url}: no row is left to write; nothing was made")
    count = write(plain(source), out, source.kind, source.manifest["stage_digest"])
    copy_columns([source], out)
    return count


def merge(folders: list[str | Path], out: str | Path) -> int:
    """Write the rows of several datasets of one kind as one; returns how many. Raises InputError where kinds differ."""
    sources = [Dataset(f) for f in folders]
    kinds = sorted({s.kind for s in sources})
    if len(kinds) > 1:
        raise InputError(
            f"a dataset holds rows of one kind; these hold {' and '.join(kinds)} rows: merge each kind apart"
        )
    digests = sorted({s.manifest["stage_digest"] for s in sources})
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    count = write((row for s in sources for row in plain(s)), out, kinds[0], digest)
    copy_columns(sources, out)
    return count


def split(source: Dataset, out: str | Path, by: str) -> dict[str, int]:
    """A dataset at ``out``/VALUE for each value of the label ``by``; returns value -> rows. Raises InputError."""
    names = source.labels.table.column_names
    if by not in names:
        raise InputError(f"--by {by}: no such label; the index of {source.url} has {', '.join(names)}")
    values = sorted({str(v) for v in source.labels.table[by].to_pylist() if v is not None and not isinstance(v, list)})
    if not values or len(values) > 256 or any("/" in v or v.startswith(".") for v in values):
        raise InputError(
            f"--by {by}: {len(values)} values that can name a folder; choose a label with 1 to 256 of them"
        )
    asked = source.labels.table[by].to_pylist()
    return {
        v: subset(source.take([i for i, a in enumerate(asked) if str(a) == v]), f"{str(out).rstrip('/')}/{v}")
        for v in values
    }


def plain(source: Dataset) -> Iterator[dict[str, Any]]:
    """Rows without added columns."""
    for i in range(len(source)):
        batch, at = source.batch(i)
        yield batch.slice(at, 1).to_pylist()[0]


def _groups(shards: list[dict[str, Any]], pending: set[str], shard_bytes: int) -> Iterator[list[str]]:
    """Shards to be written as one, in order of path; a shard that would stay alone is left, unless it must change."""
    for split_name in SPLIT_NAMES:
        group: list[str] = []
        size = 0
        mine = [s for s in shards if s["split"] == split_name]
        for shard in [*mine, None]:
            if group and (shard is None or size + shard["bytes"] > shard_bytes):
                if len(group) > 1 or group[0] in pending:
                    yield group
                group, size = [], 0
            if shard is not None:
                group.append(shard["path"])
                size += shard["bytes"]


def _rewrite(folder: str | Path, dataset: Dataset, paths: list[str]) -> list[str]:
    """Commit one shard with the rows of ``paths`` that ``dataset`` still lists; ``paths`` when this attempt was first."""
    rows = dataset.filter(shard=paths)
    key = hashlib.sha256("\n".join([*sorted(paths), *rows.labels.table["sample_id"].to_pylist()]).encode()).hexdigest()
    task_id = f"{key[:16]}"
    firsts = np.unique(rows.shards(), return_index=True)[1]
    before = all(early(dataset.kind, rows.batch(int(i))[0].schema.names) for i in firsts)
    with ShardWriter(folder, task_id, dataset.kind, before) as writer:
        for row in plain(rows):
            writer.append(row)
        shards = writer.close()
    receipt = Receipt(task_id, dataset.manifest["stage_digest"], shards, [], {}, replaces=sorted(paths))
    return paths if write_receipt(folder, receipt) else []


def _rewrite_columns(folder: str | Path, manifest: dict[str, Any], gone: set[str]) -> None:
    """Write every column file that names a withdrawn id again, without it."""
    store = open_store(folder)
    known = set(index.read(store, manifest)["sample_id"].to_pylist())
    for entry in manifest["columns"]:
        table = columns.read(columns.fetched(store, entry))
        if not gone & set(table["sample_id"].to_pylist()):
            continue
        rows = (r for r in table.to_pylist() if r["sample_id"] in known)
        fresh = columns.write(store, entry["name"], rows, table.schema, known)
        name = f"columns/{entry['name']}.json"
        store.replace(name, sealed({"columns": {**fresh, "fills": entry["fills"]}}))
    if manifest["columns"]:
        fold(folder, manifest["kind"], manifest["stage_digest"], rebuild=True)


def copy_columns(sources: list[Dataset], out: str | Path) -> None:
    """Add the sources' added columns to the new dataset: those of one name together, where their schemas agree."""
    target = Dataset(out)
    kept = set(target.labels.table["sample_id"].to_pylist())
    found: dict[str, list[Any]] = {}
    for source in sources:
        for entry in source.manifest["columns"]:
            table = columns.read(columns.fetched(open_store(source.url), entry))
            found.setdefault(entry["name"], []).append(table)
    for name, tables in found.items():
        if any(not t.schema.equals(tables[0].schema) for t in tables):
            raise InputError(f"columns {name}: the datasets hold them with different types; rename one of them first")
        rows = (r for t in tables for r in t.to_pylist() if r["sample_id"] in kept)
        columns.add(out, name, rows, tables[0].schema)
