"""Receipts -> numbered manifests: what is in a dataset, atomically; a crash at any point loses and doubles nothing.

The ledger is receipts/ (tasks), rewrites/ (shards put in the place of others), tombstones/ (withdrawn ids) and columns/
(columns added later): small sealed files, each created once. A manifest is the sum of a ledger, with the index of all
rows; it can be made again from the ledger, and the ledger's files from it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import index
from manifests.card import views_are_current, write_views
from manifests.errors import InputError, ShardError
from manifests.sample import SCHEMA_VERSION
from manifests.sealed import seal_of, sealed, unsealed
from manifests.shards import Shard
from manifests.store import LocalStore, Store, open_store

LEDGER = ("receipts", "rewrites", "tombstones", "columns")
# Small reads of a bucket take 50 ms each, whatever their size.
READERS = 16


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
    """One finished task: its commit point. ``replaces``: shards that these stand for (rewrites only)."""

    task_id: str
    stage_digest: str
    shards: list[Shard]
    outcomes: list[Outcome]
    extra: dict[str, Any]
    replaces: list[str] = dataclasses.field(default_factory=list)


def write_receipt(folder: str | Path, receipt: Receipt) -> bool:
    """Create receipts/TASK.json (rewrites/TASK.json when it replaces shards) whole and exclusively; the first writer wins.

    False when another attempt was first: then this attempt's shards are deleted, unless they are the very same files.
    Raises StorageError.
    """
    store = open_store(folder)
    name = f"{'rewrites' if receipt.replaces else 'receipts'}/{receipt.task_id}.json"
    if store.create(name, sealed(dataclasses.asdict(receipt))):
        return True
    winner = {s.path for s in read_receipt(store, name).shards}
    for shard in receipt.shards:
        if shard.path not in winner:
            store.delete(shard.path)
    return False


def receipts(folder: str | Path) -> dict[str, Receipt]:
    """task id -> receipt of every finished task, in order of task id. Raises ShardError when one was altered."""
    store = open_store(folder)
    return {r.task_id: r for r in _read_all(store, store.names("receipts"))}


def read_receipt(store: Store, name: str) -> Receipt:
    """The receipt in file ``name``. Raises ShardError when it was altered, or is none."""
    body = unsealed(store, name)
    body.pop("sha256")
    try:
        body["shards"] = [Shard(**s) for s in body["shards"]]
        body["outcomes"] = [Outcome(**o) for o in body["outcomes"]]
        return Receipt(**body)
    except (KeyError, TypeError) as error:
        raise ShardError(f"{store.url}/{name}: not a receipt ({error}); run `maquette repair` on its dataset") from None


def newest_manifest(folder: str | Path | Store) -> dict[str, Any] | None:
    """The newest manifest, or None in a folder that has none.

    Raises ShardError when it was altered, InputError when a version wrote it that kept no ledger in it.
    """
    store = open_store(folder) if isinstance(folder, str | Path) else folder
    names = [n for n in store.names("manifest") if n.endswith(".json")]
    if not names:
        return None
    manifest = unsealed(store, names[-1])
    if "ledger" not in manifest:
        raise InputError(f"{store.url}: written by an older Maquette; make it again under a new name")
    return manifest


def fold(folder: str | Path, kind: str, stage_digest: str, rebuild: bool = False) -> dict[str, Any] | None:
    """Fold the ledger into the next manifest and its index, card and `datasets` views; returns the newest manifest,
    None before the first receipt.

    Only files that the newest manifest does not know are read; ``rebuild`` reads all of them. Nothing is written when
    the newest manifest already says the same. Two drivers may fold at once: a number is taken by exclusive create,
    and the loser reads again. Raises StorageError, ShardError.
    """
    store = open_store(folder)
    while True:
        newest = newest_manifest(store)
        ledger = _Ledger(store, newest, rebuild)
        if newest is None and not ledger.known:
            return None
        if newest is not None and not ledger.changed:
            manifest, table = newest, index.read(store, newest)
            break
        number = newest["number"] + 1 if newest else 0
        table = ledger.table()
        body = {
            "number": number,
            "kind": kind,
            "schema_version": SCHEMA_VERSION,
            "stage_digest": stage_digest,
            "rows": table.num_rows,
            "counts": dict(ledger.counts),
            "splits": _counted(table["split"]),
            "licences": _counted(pc.list_flatten(table["licences"])),
            "redistributable": pc.sum(table["redistributable"]).as_py() or 0,
            "shards": [ledger.shards[path] for path in sorted(ledger.shards)],
            "pending": ledger.pending(table),
            "withdrawn": sorted(ledger.withdrawn),
            "columns": ledger.columns,
            "ledger": dict(sorted(ledger.known.items())),
            "rewrites": ledger.rewrites,
            "parent": newest["sha256"] if newest else None,
            **index.write(store, number, table),
        }
        if store.create(f"manifest/{number:08d}.json", sealed(body)):
            manifest = unsealed(store, f"manifest/{number:08d}.json")
            break
        rebuild = False
    # Another driver may publish while the views are written: the last word must be the newest manifest's.
    while not views_are_current(store, manifest):
        write_views(store, manifest, table)
        latest = newest_manifest(store)
        assert latest is not None
        if latest["sha256"] != manifest["sha256"]:
            manifest, table = latest, index.read(store, latest)
    return manifest


class _Ledger:
    """The ledger's files summed up, starting from what the newest manifest knows of them."""

    def __init__(self, store: Store, newest: dict[str, Any] | None, rebuild: bool) -> None:
        names = {n.removesuffix(".json"): n for part in LEDGER for n in store.names(part) if n.endswith(".json")}
        start = newest if newest and not rebuild and not set(newest["ledger"]) - set(names) else None
        self._store = store
        self.known: dict[str, str] = dict(start["ledger"]) if start else {}
        self.shards = {s["path"]: s for s in start["shards"]} if start else {}
        self.counts: Counter[str] = Counter(start["counts"] if start else {})
        self.withdrawn = set(start["withdrawn"]) if start else set()
        self.columns: list[dict[str, Any]] = list(start["columns"]) if start else []
        self.rewrites: dict[str, list[str]] = dict(start["rewrites"]) if start else {}
        fresh = [k for k in names if k not in self.known]
        self.changed = bool(fresh) or start is None
        self._parts = [index.read(store, start)] if start and self.changed else []
        receipts = {k: n for k, n in names.items() if k in fresh and k.startswith("receipts/")}
        rewrites = {k: n for k, n in names.items() if k in fresh and k.startswith("rewrites/")}
        for key, receipt in zip(receipts, _read_all(store, list(receipts.values()))):
            self._add(key, receipt)
        self._replace(dict(zip(rewrites, _read_all(store, list(rewrites.values())))))
        for key in fresh:
            if key.startswith(("tombstones/", "columns/")):
                body = unsealed(store, names[key])
                self.known[key] = body["sha256"][:16]
                if key.startswith("tombstones/"):
                    self.withdrawn |= set(body["ids"])
                else:
                    self.columns.append(body["columns"])

    def _add(self, key: str, receipt: Receipt) -> None:
        self.known[key] = _seal(receipt)
        self.counts.update(o.status for o in receipt.outcomes)
        for shard in receipt.shards:
            entry = {k: v for k, v in vars(shard).items() if k != "index"}
            self.shards[shard.path] = {"task_id": receipt.task_id, **entry}
            self._parts.append(pa.Table.from_pylist(shard.index, schema=index.SCHEMA))

    def _replace(self, waiting: dict[str, Receipt]) -> None:
        """Apply rewrites whose shards are all live, as long as there is one; of two that claim a shard, one is left out."""
        progress = True
        while progress:
            progress = False
            for key in sorted(waiting):
                if set(waiting[key].replaces) <= set(self.shards):
                    receipt = waiting.pop(key)
                    for path in receipt.replaces:
                        del self.shards[path]
                    self.rewrites[key] = receipt.replaces
                    self._add(key, receipt)
                    progress = True
        for key, receipt in waiting.items():
            self.known[key] = _seal(receipt)

    def table(self) -> pa.Table:
        """The index: rows of live shards that nobody withdrew, in order of (index, sample_id)."""
        whole = pa.concat_tables(self._parts) if self._parts else index.SCHEMA.empty_table()
        live = pc.is_in(whole["shard"], pa.array(self.shards, pa.string()))
        gone = pc.is_in(whole["sample_id"], pa.array(sorted(self.withdrawn), pa.string()))
        kept = whole.filter(pc.and_not(live, gone))
        return kept.sort_by([("index", "ascending"), ("sample_id", "ascending")])

    def pending(self, table: pa.Table) -> list[str]:
        """Live shards whose bytes still hold withdrawn rows."""
        have = _counted(table["shard"])
        return (
            sorted(path for path, s in self.shards.items() if have.get(path, 0) < s["rows"]) if self.withdrawn else []
        )


def collect_orphans(folder: str | Path, min_age_s: float = 60.0) -> list[str]:
    """Remove temporary files, and shards and indices that nothing names, older than ``min_age_s``; returns their names.

    The age keeps the work of another driver's workers: between its rename and its receipt a shard looks like an orphan.
    """
    store = open_store(folder)
    newest = newest_manifest(store)
    known = set(newest["ledger"]) if newest else set()
    named = {s["path"] for s in newest["shards"]} if newest else set()
    # What no manifest has folded yet may still become live.
    unfolded = [
        n for part in ("receipts", "rewrites") for n in store.names(part) if n.removesuffix(".json") not in known
    ]
    named |= {s.path for r in _read_all(store, unfolded) for s in r.shards}
    named |= {unsealed(store, n)["index"] for n in store.names("manifest")}
    named |= {c["path"] for c in newest["columns"]} if newest else set()
    orphans = store.names("tmp") if isinstance(store, LocalStore) else []
    orphans += [n for part in ("data", "index") for n in store.names(part) if n not in named]
    orphans += [n for n in store.names("columns") if n.endswith(".arrow") and n not in named]
    orphans = [n for n in orphans if min_age_s <= store.age_s(n) < float("inf")]
    for name in orphans:
        store.delete(name)
    return orphans


def drop_history(folder: str | Path) -> list[str]:
    """Remove manifests before the newest one, and their indices; returns the names.

    Only indices that those manifests name: one without a manifest may be another driver's, about to get its own.
    """
    store = open_store(folder)
    newest = newest_manifest(store)
    dropped = []
    for name in store.names("manifest")[:-1]:
        old = unsealed(store, name)["index"]
        dropped += [n for n in (name, old) if newest is None or n != newest["index"]]
        for gone in dropped[-2:]:
            store.delete(gone)
    return dropped


def _read_all(store: Store, names: list[str]) -> list[Receipt]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda name: read_receipt(store, name), names))


def _seal(receipt: Receipt) -> str:
    """The first half of the sha256 that the receipt's file carries: enough to notice an exchange."""
    return seal_of(dataclasses.asdict(receipt))[:16]


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    return {v["values"]: v["counts"] for v in pc.value_counts(values).to_pylist() if v["values"] is not None}
