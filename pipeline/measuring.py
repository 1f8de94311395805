"""Partitions of inputs -> measurement files, through Ray Data: readers put encoded bytes into the object store, actors
decode and measure, and each finished partition is committed by the rename of its file.

An actor notes which picture it is about to touch. When it dies there, its successor takes the pictures of that note one
at a time, and one that kills twice in a run is quarantined: its row says `kills_worker`, the others are measured.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from curation.measure import Fetched, Look, Measurer, fetch
from curation.stage import MEASUREMENTS
from manifests.curation import CurateStage
from manifests.errors import PhotoError
from manifests.store import storage
from pipeline.embedders import embedder

# Partitions handed to Ray Data at once: its bookkeeping grows with the number of blocks.
WAVE = 2000
DEATHS = 2
FETCHED = pa.schema(
    [
        ("name", pa.string()),
        ("first", pa.int64()),
        ("data", pa.large_binary()),
        ("said", pa.string()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("ms", pa.float64()),
    ]
)


def partitions(inputs: pa.Table, stage: CurateStage, engine: str) -> dict[str, tuple[int, int]]:
    """file name -> (first input, how many), in order. A name holds a hash of its inputs and of what measures them, so that
    a changed file is measured again and a finished partition never.
    """
    kinds, lengths, sizes = (inputs[n].to_pylist() for n in ("kind", "length", "meta_length"))
    found: dict[str, tuple[int, int]] = {}
    first = size = 0
    for i in range(len(inputs) + 1):
        more = (sizes[i] if kinds[i] == "table" else lengths[i]) if i < len(inputs) else 0
        full = i - first >= stage.partition or (i > first and size + more > stage.partition_mb * 2**20)
        if i > first and (i == len(inputs) or full):
            found[f"{first:09d}-{_key(inputs.slice(first, i - first), engine)}"] = (first, i - first)
            first, size = i, 0
        size += more
    return found


def _key(rows: pa.Table, engine: str) -> str:
    said = [rows[n].to_pylist() for n in ("uri", "kind", "offset", "length", "stamp", "meta")]
    return hashlib.sha256(json.dumps([engine, said]).encode()).hexdigest()[:12]


def measure(
    stage: CurateStage,
    root: Path,
    folder: Path,
    listing: Path,
    missing: dict[str, tuple[int, int]],
    tick: Callable[[int], Any],
) -> None:
    """Measure the partitions ``missing`` of the input table in ``listing`` (Arrow file) into ``folder``/measurements.

    ``tick`` hears how many inputs were finished. Raises StorageError, InputError from the workers.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A partition is one block: it is measured and committed as a whole.
    context.target_max_block_size = 2 * 2**30
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    resources = ray.cluster_resources()
    workers = min(stage.workers or int(resources.get("CPU", 1)), len(missing))
    devices = [head.device for head in stage.heads.values()]
    devices += [stage.detector.device] if stage.detector.kind == "transformers" else []
    devices += [stage.embedding.device] if stage.embedding is not None else []
    gpus = resources.get("GPU", 0) if any(device != "cpu" for device in devices) else 0
    token = uuid.uuid4().hex
    names = list(missing)
    for at in range(0, len(names), WAVE):
        items = [{"name": n, "first": missing[n][0], "count": missing[n][1]} for n in names[at : at + WAVE]]
        done = (
            ray.data.from_items(items, override_num_blocks=len(items))
            # Readers wait for disks and buckets, not for a core: they take no CPU from the actors, but there are few.
            .map_batches(
                reader(listing),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,
                compute=ray.data.TaskPoolStrategy(size=max(1, workers // 2)),
            )
            .map_batches(
                measuring(stage, root, folder, listing, token),
                batch_size=None,
                batch_format="pyarrow",
                zero_copy_batch=True,
                num_cpus=1,
                num_gpus=min(1.0, gpus / workers) if gpus else None,
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            )
        )
        for row in done.iter_rows():
            tick(row["rows"])


def reader(listing: Path) -> Callable[[pa.Table], pa.Table]:
    """A Ray Data task: the name of a partition -> FETCHED, its inputs with their bytes."""

    def read(batch: pa.Table) -> pa.Table:
        item = batch.to_pylist()[0]
        got = [fetch(row) for row in _rows(listing, item["first"], item["count"])]
        n = len(got)
        columns = {
            "name": [item["name"]] * n,
            "first": [item["first"]] * n,
            "data": [f.data for f in got],
            "said": [json.dumps(f.said, default=str) for f in got],
            "code": [f.error.code if f.error else None for f in got],
            "detail": [f.error.message if f.error else None for f in got],
            "ms": [f.ms for f in got],
        }
        return pa.table(columns, schema=FETCHED)

    return read


def measuring(stage: CurateStage, root: Path, folder: Path, listing: Path, token: str) -> type:
    """A Ray Data actor around one Measurer; its settings travel with the class, not through the object store."""

    class Measure:
        def __init__(self) -> None:
            # Pictures come from the object store: Arrow's pool would only keep what it copies.
            self._measurer = Measurer(stage, root, embedder(stage.embedding, root))
            self._watch = Watchdog(stage.max_rss_mb, stage.picture_deadline_s)
            self._watch.start()

        def __call__(self, batch: pa.Table) -> pa.Table:
            name, first = batch["name"][0].as_py(), batch["first"][0].as_py()
            inputs = _rows(listing, first, len(batch))
            notes = Notes(folder, name, token)
            self._watch.notes = notes
            rows = []
            for start, stop in _batches(len(batch), stage.detector.batch, notes.suspects):
                rows += self._measured(batch, inputs, notes, range(start, stop))
            self._watch.notes = None
            write(folder / "measurements" / f"{name}.parquet", pa.Table.from_pylist(rows, schema=MEASUREMENTS))
            notes.clear()
            return pa.table({"name": [name], "rows": [len(rows)]})

        def _measured(self, batch: pa.Table, inputs: list[Any], notes: Notes, which: range) -> list[dict[str, Any]]:
            looks = []
            for i in which:
                item = _fetched(batch, inputs, i)
                if notes.deaths.get(i, 0) >= DEATHS:
                    looks.append(Look(_quarantined(self._measurer.blank(item), item, notes.why)))
                    continue
                notes.at([i])
                looks.append(self._measurer.look(item))
            alive = [i for i, look in zip(which, looks) if look.row["error"] != "kills_worker"]
            notes.at(alive)
            self._measurer.people(looks)
            return [look.row for look in looks]

    return Measure


def _batches(n: int, batch: int, suspects: set[int]) -> Iterator[tuple[int, int]]:
    """Runs of at most ``batch`` inputs; one of several suspects goes alone, so that the next note names the one."""
    start = 0
    while start < n:
        stop = min(n, start + batch)
        alone = suspects & set(range(start, stop))
        if alone:
            stop = start + 1 if start in alone else min(alone)
        yield start, stop
        start = stop


def _fetched(batch: pa.Table, inputs: list[Any], i: int) -> Fetched:
    row = {n: batch[n][i].as_py() for n in ("said", "code", "detail", "ms")}
    error = PhotoError(row["code"], row["detail"]) if row["code"] else None
    return Fetched(inputs[i], batch["data"][i].as_py(), json.loads(row["said"]), error, row["ms"])


def _quarantined(row: dict[str, Any], item: Fetched, why: str) -> dict[str, Any]:
    data = item.data or b""
    return row | {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "stopped": "decode",
        "error": "kills_worker",
        "error_detail": f"its worker died {DEATHS} times on it" + (f": {why}" if why else ""),
    }


def _rows(listing: Path, first: int, count: int) -> list[dict[str, Any]]:
    with pa.memory_map(str(listing)) as mapped:
        return pa.ipc.open_file(mapped).read_all().slice(first, count).to_pylist()


class Notes:
    """What an actor is about to touch, in the stage folder's tmp/, so that its successor knows where it died.

    Only deaths under the same run ``token`` count: a run that a person killed says nothing about a picture.
    """

    def __init__(self, folder: Path, name: str, token: str) -> None:
        self._path, self._token = folder / "tmp" / f"{name}.now", token
        self._why = folder / "tmp" / f"{name}.why"
        self.deaths: dict[int, int] = {}
        self.suspects: set[int] = set()
        self.why = ""
        self.since: float | None = None
        try:
            was = json.loads(self._path.read_text())
        except (OSError, ValueError):
            was = {}
        if was.get("token") == token:
            self.deaths = {int(k): v for k, v in was["deaths"].items()}
            self.suspects = set(was["suspects"]) | set(was["at"])
            if len(was["at"]) == 1:
                self.deaths[was["at"][0]] = self.deaths.get(was["at"][0], 0) + 1
            if self._why.is_file():
                self.why = self._why.read_text()
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def at(self, positions: list[int]) -> None:
        """The actor is about to touch the inputs at ``positions`` of the partition."""
        self.since = time.monotonic()
        said = {"token": self._token, "at": positions, "deaths": self.deaths, "suspects": sorted(self.suspects)}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(said))
        os.replace(fresh, self._path)

    def last_words(self, why: str) -> None:
        """Why the process is about to end itself."""
        self._why.write_text(why)

    def clear(self) -> None:
        """The partition is committed."""
        self.since = None
        for path in (self._path, self._why):
            path.unlink(missing_ok=True)


class Watchdog(threading.Thread):
    """Kills its own process when memory or the time of one picture passes a limit; the note names the picture."""

    def __init__(self, limit_mb: int, deadline_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._limit_mb, self._deadline_s = limit_mb, deadline_s
        self.notes: Notes | None = None

    def run(self) -> None:
        process = psutil.Process()
        while True:
            time.sleep(0.05)
            notes = self.notes
            if notes is None or notes.since is None:
                continue
            rss = _own_mb(process)
            late = time.monotonic() - notes.since
            if rss > self._limit_mb:
                notes.last_words(f"memory grew to {rss:.0f} MB, over curate.max_rss_mb {self._limit_mb}")
            elif late > self._deadline_s:
                notes.last_words(f"it took more than curate.picture_deadline_s {self._deadline_s:g} s")
            else:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


def _own_mb(process: psutil.Process) -> float:
    """Resident memory without what is mapped from the object store and files, which costs nothing twice."""
    info = process.memory_info()
    return (info.rss - getattr(info, "shared", 0)) / 2**20


def write(path: Path, table: pa.Table, synced: bool = True) -> None:
    """A Parquet file, whole or absent; ``synced`` to the disk where making it again would cost more than seconds."""
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Hashes and texts never repeat: a dictionary of them costs time and saves nothing.
        repeating = [n for n in table.schema.names if n in REPEATING]
        if "checks" in table.schema.names:
            rules = [f.name for f in table.schema.field("checks").type]
            repeating += [f"checks.{rule}.{part}" for rule in rules for part in ("status", "threshold")]
        pq.write_table(table, fresh, compression="snappy", use_dictionary=repeating, write_statistics=False)
        if synced:
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(fresh, path)


REPEATING = (
    "kind",
    "file",
    "licence",
    "consent",
    "format",
    "detector",
    "detector_sha256",
    "stopped",
    "error",
    "first_fail",
    "models",
    "site",
    "cluster_path",
)
