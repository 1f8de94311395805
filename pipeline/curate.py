"""A curate stage -> a decision for every input and a dataset of the kept ones, through Ray Data; resumes by
partition.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from curation.measure import Measurer
from curation.sources import Photo, listed
from curation.stage import DECISIONS, MEASUREMENTS, decide, funnel, readings
from manifests import commit
from manifests.errors import ShardError
from manifests.job import CurateStage, Job
from manifests.plan import split_of
from manifests.shards import ShardWriter
from manifests.store import storage
from pipeline.freeze import freeze
from pipeline.progress import Events, bar

# Inputs of one partition: measured together, committed together, never measured again.
PARTITION = 64


def curate(job: Job, folder: Path, root: Path, events: Events) -> dict[str, Any]:
    """Measure what is still missing, decide over all, write the kept. Ray must be running.

    ``folder``: the stage's dataset folder. ``root``: where relative paths start. Returns counts. Raises InputError,
    JobError,
    StorageError.
    """
    assert job.curate is not None
    stage = job.curate
    started = time.monotonic()
    photos = listed(stage, root, folder / "bundled")
    digest = freeze(folder, stage, [(p.uri, _sha256(p.path)) for p in photos], engine=_versions())
    commit.collect_orphans(folder)
    rows = _measured(stage, root, folder, photos)
    decisions = decide(rows, stage)
    _write_decisions(folder, decisions)
    _keep(stage, folder, digest, {r["uri"]: r for r in rows}, [d for d in decisions if d["kept"]])
    commit.fold(folder, "curated", digest)
    result = {
        "inputs": len(decisions),
        "kept": sum(d["kept"] for d in decisions),
        "failed": 0,
        "seconds": round(time.monotonic() - started, 1),
    }
    events.emit(
        "stage_finished", stage="curate", funnel=funnel(decisions), readings=readings(decisions, stage), **result
    )
    return result


def _measured(stage: CurateStage, root: Path, folder: Path, photos: list[Photo]) -> list[dict[str, Any]]:
    """All measurement rows; partitions that are on disk are read, the others go through Ray Data."""
    parts = {f"{first:08d}": photos[first : first + PARTITION] for first in range(0, len(photos), PARTITION)}
    where = folder / "measurements"
    missing = [name for name in parts if not (where / f"{name}.parquet").exists()]
    if missing:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context.print_on_execution_start = False
        cores = stage.workers or int(ray.cluster_resources().get("CPU", 1))
        workers = max(1, min(cores, len(missing) * PARTITION // 8 + 1))
        items = [
            {"partition": name, "position": i, "photo": vars(p)} for name in missing for i, p in enumerate(parts[name])
        ]
        measured = ray.data.from_items(items, override_num_blocks=max(1, min(len(items), 4 * workers))).map(
            measuring(stage, root), compute=ray.data.ActorPoolStrategy(size=workers)
        )
        with bar("curate") as progress:
            shown = progress.add_task("", total=len(items), note="")
            waiting: dict[str, list[dict[str, Any]]] = {}
            for row in measured.iter_rows():
                mine = waiting.setdefault(row["partition"], [])
                mine.append(row["row"])
                if len(mine) == len(parts[row["partition"]]):
                    _write(where / f"{row['partition']}.parquet", sorted(mine, key=lambda r: r["uri"]), MEASUREMENTS)
                    del waiting[row["partition"]]
                progress.update(shown, advance=1)
    return [r for name in parts for r in pq.read_table(where / f"{name}.parquet").to_pylist()]


def measuring(stage: CurateStage, root: Path) -> type:
    """A Ray Data actor around one Measurer; its settings travel with the class, not through the object store."""

    class Measure:
        def __init__(self) -> None:
            self._measurer = Measurer(stage, root)

        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            return {"partition": item["partition"], "row": self._measurer.measure(Photo(**item["photo"]))}

    return Measure


def _keep(
    stage: CurateStage, folder: Path, digest: str, measured: dict[str, dict[str, Any]], kept: list[dict[str, Any]]
) -> None:
    """Write the kept photographs, original bytes untouched, in shards of `samples_per_task`."""
    done = commit.receipts(folder)
    for first in range(0, len(kept), stage.samples_per_task):
        chosen = kept[first : first + stage.samples_per_task]
        task_id = f"{first:08d}+{len(chosen)}"
        if task_id in done:
            continue
        outcomes = []
        with ShardWriter(folder, task_id, "curated") as writer:
            for i, decision in enumerate(chosen, first):
                row = _row(stage, digest, i, decision, measured[decision["uri"]]["path"])
                writer.append(row)
                seconds = round(measured[decision["uri"]]["ms"] / 1e3, 6)
                outcomes.append(commit.Outcome(row["sample_id"], i, "done", "", seconds, 1))
            shards = writer.close()
        commit.write_receipt(folder, commit.Receipt(task_id, digest, shards, outcomes, {}))


def _row(stage: CurateStage, digest: str, index: int, d: dict[str, Any], path: str) -> dict[str, Any]:
    with storage(Path(path)):
        data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != d["sha256"]:
        raise ShardError(
            f"{path}: the file changed while the stage ran; give the job a new `name` to curate it as it is now"
        )
    return {
        "sample_id": f"{digest[:12]}-{d['sha256'][:16]}",
        "stage_digest": digest,
        "index": index,
        "split": split_of(d["sha256"], stage.splits),
        "image": {"bytes": data, "path": Path(path).name},
        "width": d["width"],
        "height": d["height"],
        "orientation": d["orientation"],
        "sha256": d["sha256"],
        "phash": d["phash"],
        "boxes": d["boxes"],
        "uri": d["uri"],
        "rights": [
            {
                "id": d["uri"],
                "source": d["uri"].split("/")[0],
                "licence": d["licence"],
                "consent": d["consent"],
                "redistributable": d["redistributable"],
            }
        ],
    }


def _write_decisions(folder: Path, decisions: list[dict[str, Any]]) -> None:
    _write(folder / "decisions" / "decisions.parquet", decisions, DECISIONS)


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), fresh)
        os.replace(fresh, path)


def _sha256(path: str) -> str:
    """Of the file, or of its name where it cannot be read: the decision row will say why."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _versions() -> str:
    return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("pillow", "simplejpeg", "pdqhash"))
