"""A damaged dataset -> a sound one: what can be made again is queued again, what is whole is kept, the rest is named.

Manifests are made again from the ledger, ledger files from the newest manifest; a damaged file goes to quarantine/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import index
from manifests.cache import fetched
from manifests.commit import LEDGER, Outcome, Receipt, fold, newest_manifest, write_receipt
from manifests.errors import InputError, MaquetteError, MissingError, ShardError
from manifests.plan import task_range
from manifests.sample import early, schemas
from manifests.sealed import sealed, unsealed
from manifests.shards import Shard, ShardWriter, located_batches, rows_of
from manifests.store import Store, open_store
from manifests.verify import shard_problems, verify


@dataclasses.dataclass
class Repaired:
    """What a repair did. ``lost``: sample ids that nothing brings back; ``requeued``: tasks that will run again."""

    quarantined: list[str] = dataclasses.field(default_factory=list)
    rebuilt: list[str] = dataclasses.field(default_factory=list)
    requeued: list[str] = dataclasses.field(default_factory=list)
    salvaged: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    remaining: list[str] = dataclasses.field(default_factory=list)


def repair(folder: str | Path, rerun: bool) -> Repaired:
    """Mend the dataset in ``folder``. ``rerun``: its tasks can run again (the job and its inputs are there).

    With ``rerun`` a damaged shard's receipt is taken back, so that the same command makes it again; without, its sound
    rows go into a new shard. Raises InputError where neither manifest nor receipts can be read, StorageError.
    """
    store = open_store(folder)
    done = Repaired()
    manifest = _sound_manifest(store, done)
    table = _sound_index(store, manifest, done)
    _mend_ledger(store, manifest, table, rerun, done)
    kind, digest = _identity(store, manifest)
    if manifest is None or done.rebuilt or done.quarantined:
        manifest = fold(folder, kind, digest, rebuild=True)
    if manifest is None:
        raise InputError(f"{store.url}: neither a manifest nor a receipt can be read; nothing is left to build on")
    table = index.read(store, manifest)
    for shard in manifest["shards"]:
        if shard_problems(store, shard):
            rows = table.filter(pc.equal(table["shard"], shard["path"])).to_pylist()
            _mend_shard(folder, store, shard, rows, manifest, rerun, done)
    for entry in manifest["columns"]:
        if shard_problems(store, entry):
            _quarantine(store, entry["path"], done)
            _quarantine(store, f"columns/{entry['name']}.json", done)
            done.lost.append(f"columns {entry['name']}")
    fold(folder, kind, digest)
    done.remaining = verify(folder)
    return done


def _sound_manifest(store: Store, done: Repaired) -> dict[str, Any] | None:
    """The newest manifest whose seal holds; damaged ones are put away, and old ones whose index is."""
    names = store.names("manifest")
    for name in names:
        try:
            manifest = unsealed(store, name)
            if name != names[-1]:
                index.read(store, manifest)
        except (ShardError, MissingError):
            _quarantine(store, name, done)
    return newest_manifest(store)


def _sound_index(store: Store, manifest: dict[str, Any] | None, done: Repaired) -> pa.Table | None:
    if manifest is None:
        return None
    try:
        return index.read(store, manifest)
    except MaquetteError:
        _quarantine(store, manifest["index"], done)
        # What it says is still used; as a file it would name an index that is gone.
        _quarantine(store, f"manifest/{manifest['number']:08d}.json", done)
        return None


def _mend_ledger(
    store: Store, manifest: dict[str, Any] | None, table: pa.Table | None, rerun: bool, done: Repaired
) -> None:
    """Put damaged ledger files away, and write them again from what the manifest and its index know."""
    names = {n for part in LEDGER for n in store.names(part) if n.endswith(".json")}
    names |= {f"{key}.json" for key in (manifest["ledger"] if manifest else {})}
    tombstones = False
    for name in sorted(names):
        try:
            found = unsealed(store, name)["sha256"]
            expected = (manifest["ledger"] if manifest else {}).get(name.removesuffix(".json"), "")
            if found.startswith(expected):
                continue
        except MaquetteError:
            pass
        _quarantine(store, name, done)
        part, key = name.removesuffix(".json").split("/")
        if part == "tombstones":
            tombstones = True
        elif part == "columns":
            _mend_columns(store, manifest, name, key, done)
        else:
            _mend_receipt(store, manifest, table, name, rerun, done)
    if tombstones:
        if manifest is None:
            raise InputError(f"{store.url}: a tombstone and the manifests are damaged: withdrawn ids would come back")
        store.create("tombstones/repaired.json", sealed({"ids": manifest["withdrawn"], "why": "rebuilt by repair"}))
        done.rebuilt.append("tombstones/repaired.json")


def _mend_columns(store: Store, manifest: dict[str, Any] | None, name: str, key: str, done: Repaired) -> None:
    entries = [c for c in manifest["columns"] if c["name"] == key] if manifest else []
    if entries:
        store.create(name, sealed({"columns": entries[0]}))
        done.rebuilt.append(name)
    else:
        done.lost.append(f"columns {key}")


def _mend_receipt(
    store: Store, manifest: dict[str, Any] | None, table: pa.Table | None, name: str, rerun: bool, done: Repaired
) -> None:
    """Build a receipt again from the manifest; outcomes other than done stand nowhere else and are made again or named."""
    key = name.removesuffix(".json")
    task_id = key.split("/")[1]
    if manifest is None or table is None or key not in manifest["ledger"]:
        # Nothing to build from: the task runs again, and its shards are orphans until then.
        (done.requeued if rerun and key.startswith("receipts/") else done.lost).append(f"task {task_id}")
        return
    rows = {e["path"]: _rows_in(table, e["path"]) for e in manifest["shards"] if e["task_id"] == task_id}
    shards = [
        Shard(**{k: v for k, v in e.items() if k != "task_id"}, index=rows[e["path"]])
        for e in manifest["shards"]
        if e["task_id"] == task_id
    ]
    # Shards that a rewrite has replaced: their rows live on there, and only their names are needed here.
    mine = f"data/{task_id}-"
    gone = [p for paths in manifest["rewrites"].values() for p in paths if p.startswith(mine)]
    shards += [Shard(p, p.removeprefix(mine).split("-")[0], 0, 0, "", "", []) for p in gone]
    replaces = manifest["rewrites"].get(key, [])
    outcomes: list[Outcome] = []
    if key.startswith("receipts/"):
        labels = _task_rows(table, task_id) if gone else [r for found in rows.values() for r in found]
        outcomes = [Outcome(r["sample_id"], r["index"], "done", "", 0.0, 1) for r in labels]
        missing = _missing(task_id, outcomes)
        if missing and rerun and not gone:
            done.requeued.append(f"task {task_id}")
            return
        done.lost += [f"outcome of index {i} of task {task_id}" for i in missing]
    receipt = Receipt(task_id, manifest["stage_digest"], shards, outcomes, {"rebuilt": True}, replaces)
    store.create(name, sealed(dataclasses.asdict(receipt)))
    done.rebuilt.append(name)


def _mend_shard(
    folder: str | Path,
    store: Store,
    shard: dict[str, Any],
    rows: list[dict[str, Any]],
    manifest: dict[str, Any],
    rerun: bool,
    done: Repaired,
) -> None:
    """Queue the shard's task again, or keep its rows whose hash is still the index's; ``rows``: its index rows."""
    receipt_name = f"receipts/{shard['task_id']}.json"
    if rerun and store.exists(receipt_name):
        _quarantine(store, receipt_name, done)
        _quarantine(store, shard["path"], done)
        done.requeued.append(f"task {shard['task_id']}")
        return
    sound = {r["sample_id"]: r for r in _sound_rows(store, shard, rows, manifest["kind"])}
    key = hashlib.sha256("\n".join([shard["path"], *sorted(sound)]).encode()).hexdigest()[:16]
    before = all(early(manifest["kind"], row) for row in sound.values())
    with ShardWriter(folder, key, manifest["kind"], before) as writer:
        for label in rows:
            if label["sample_id"] in sound:
                writer.append(sound[label["sample_id"]])
        shards = writer.close()
    lost = [r["sample_id"] for r in rows if r["sample_id"] not in sound]
    receipt = Receipt(key, manifest["stage_digest"], shards, [], {"lost": lost}, replaces=[shard["path"]])
    write_receipt(folder, receipt)
    _quarantine(store, shard["path"], done)
    done.salvaged += len(sound)
    done.lost += lost


def _sound_rows(store: Store, shard: dict[str, Any], labels: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Rows of a damaged shard that hash to what the index says; batches past the damage are found by their offsets."""
    wanted = {(r["xxh3"], r["index"]) for r in labels}
    found: dict[str, dict[str, Any]] = {}
    data = b""
    with contextlib.suppress(MaquetteError):
        size = store.size(shard["path"])
        data = store.read_range(shard["path"], 0, size) if size else b""
    # The schemas that shards may have, not the file's own: that may be what is damaged.
    places = sorted({(r["batch_offset"], r["batch_bytes"]) for r in labels})
    for fields, (offset, length) in itertools.product(schemas(kind), places):
        with contextlib.suppress(pa.ArrowInvalid, OSError, EOFError, ValueError, UnicodeDecodeError, KeyError):
            message = pa.ipc.read_message(pa.BufferReader(data[offset : offset + length]))
            batch = pa.ipc.read_record_batch(message, fields)
            for i in range(batch.num_rows):
                with contextlib.suppress(pa.ArrowInvalid, ValueError, UnicodeDecodeError, KeyError, OSError):
                    row = batch.slice(i, 1).to_pylist()[0]
                    if (index.row_hash(row), row["index"]) in wanted:
                        found.setdefault(row["sample_id"], row)
    return list(found.values())


def _rows_in(table: pa.Table, path: str) -> list[dict[str, Any]]:
    return table.filter(pc.equal(table["shard"], path)).to_pylist()


def _task_rows(table: pa.Table, task_id: str) -> list[dict[str, Any]]:
    """Index rows in the range of a task whose own shards are gone."""
    if "r" in task_id or "+" not in task_id:
        return []
    first, length = task_range(task_id)
    inside = pc.and_(pc.greater_equal(table["index"], first), pc.less(table["index"], first + length))
    return table.filter(inside).to_pylist()


def _missing(task_id: str, outcomes: list[Outcome]) -> list[int]:
    """Indices of a first try's range without an outcome; a retry's list of samples stands nowhere else."""
    if "r" in task_id or "+" not in task_id:
        return []
    first, length = task_range(task_id)
    return sorted(set(range(first, first + length)) - {o.index for o in outcomes})


def _identity(store: Store, manifest: dict[str, Any] | None) -> tuple[str, str]:
    """(kind, stage digest), from the manifest or else from a receipt and its shard."""
    if manifest is not None:
        return manifest["kind"], manifest["stage_digest"]
    for name in store.names("receipts"):
        body = unsealed(store, name)
        for shard in body["shards"]:
            for batch, _, _ in located_batches(fetched(store, shard)):
                row = next(rows_of(batch))
                return "rendered" if "depth" in row else "curated", body["stage_digest"]
    raise InputError(f"{store.url}: neither a manifest nor a receipt can be read; nothing is left to build on")


def _quarantine(store: Store, name: str, done: Repaired) -> None:
    """Move a damaged file aside, under a free name; one that is gone needs no moving."""
    if not store.exists(name):
        return
    number = len(store.names("quarantine"))
    store.move(name, f"quarantine/{number:04d}-{name.replace('/', '-')}")
    done.quarantined.append(name)
