"""A job's scaling study -> trainings side by side in Ray, each in a folder of its own, and sweep.json with fits and costs.

Resume is the same command again: a training with a result is not repeated, one that was killed goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray

from manifests import commit
from manifests.errors import DONE, FAILURES, JobError, MaquetteError
from manifests.job import Job, check, dump
from manifests.job_training import SweepStage
from pipeline import progress, road, scaling
from pipeline.workers import join

RESULT = "result.json"
# The one fine-tune of a point's job.
NAME = "point"
METER_S = 2.0
# In Ray's queue beyond what runs: a worker that ends finds the next at once.
AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of the study."""

    source: str
    model: str
    samples: int
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.source}-{self.model}-{self.samples}-s{self.seed}"


def sweep(job: Job, root: Path, address: str | None) -> int:
    """Run the study of ``job``, or go on with it; writes ``run``/sweep/sweep.json and returns the exit code: 0 done, 1 where
    trainings failed. Raises JobError, InputError, StorageError, KeyboardInterrupt.
    """
    run, jobs = planned(job, root)
    events = progress.Events(run)
    todo = {c: j for c, j in jobs.items() if not done(run / "sweep" / c.name, j)}
    progress.console.print(f"[bold]sweep[/bold]\n  {len(jobs)} trainings, {len(jobs) - len(todo)} done before")
    start = time.monotonic()
    failed = _train(run, todo, job, address, len(jobs)) if todo else {}
    for name, why in failed.items():
        events.warn(f"sweep {name}: {why}")
    assert job.sweep is not None
    path = gather(run, jobs, job.sweep)
    events.emit("stage_finished", stage="sweep", seconds=round(time.monotonic() - start, 1))
    progress.console.print(f"  {len(jobs) - len(failed)} of {len(jobs)} trainings: {path}", soft_wrap=True)
    return FAILURES if failed else DONE


def planned(job: Job, root: Path) -> tuple[Path, dict[Cell, Job]]:
    """The run folder, made, and the job of each training. Raises JobError, InputError, StorageError."""
    study = job.sweep
    if study is None:
        raise JobError(f"job {job.name}: no `sweep` section")
    if job.evaluate is None:
        raise JobError(f"job {job.name}: a sweep is judged as the `evaluate` section says; add one")
    run = road.prepare(job, root)
    resolved = road.read_job(run)
    base = next(f for f in resolved.finetune if f.name == study.base)
    assert resolved.evaluate is not None
    sources = study.sources or {"data": base.data}
    jobs = {}
    for source, data in sources.items():
        folders = [_folder(run, root, d) for d in data]
        for model in study.models or [base.model]:
            for samples in study.samples:
                for seed in study.seeds:
                    changed = base.model_dump() | {
                        "name": NAME, "data": folders, "weights": None, "model": model, "samples": samples, "seed": seed,
                        "init": "random" if study.init == "random" else _start(run, base.init),
                        "compute": base.compute.model_dump() | {"workers": 1, "cpus": base.compute.cpus or 1},
                    }  # fmt: skip
                    judged = resolved.evaluate.model_dump()
                    judged["data"] = [_folder(run, root, d) for d in resolved.evaluate.data]
                    cell = Cell(source, model, samples, seed)
                    jobs[cell] = check({"name": "point", "finetune": [changed], "evaluate": judged})
    return run, jobs


def _folder(run: Path, root: Path, name: str) -> str:
    """A dataset's absolute path. Raises JobError."""
    folder = run / name if name in ("render", "curate") else (root / name).resolve()
    if commit.newest_manifest(folder) is None:
        raise JobError(f'sweep: data "{name}": no dataset at {folder}; render it first (maquette render JOB)')
    return str(folder)


def _start(run: Path, init: str) -> str:
    return str(run / "pretrain/model.safetensors") if init == "pretrain" else init


def done(folder: Path, job: Job) -> bool:
    """Whether ``folder`` holds the result of exactly ``job``."""
    try:
        return bool(json.loads((folder / RESULT).read_text())["job"] == mark(job))
    except (OSError, ValueError, KeyError):
        return False


def mark(job: Job) -> str:
    """64 hex digits of all that a training's job says."""
    return hashlib.sha256(dump(job).encode()).hexdigest()


def _train(run: Path, todo: dict[Cell, Job], job: Job, address: str | None, total: int) -> dict[str, str]:
    """Train what is left, as many at once as the cluster has room for; name -> why of those that failed."""
    join(address, run)
    has = ray.cluster_resources()
    base = next(iter(todo.values())).finetune[0].compute
    gpu = base.gpu == "yes" or (base.gpu == "auto" and has.get("GPU", 0) > 0)
    if base.cpus > has.get("CPU", 1):
        raise JobError(f"sweep: {base.cpus} cores are asked for each training, the cluster has {has.get('CPU', 0):g}")
    room = max(1, int(has["GPU"] if gpu else has.get("CPU", 1) // base.cpus))
    remote = train_point.options(num_cpus=base.cpus, num_gpus=1 if gpu else 0, max_retries=base.failures)
    waiting = list(todo.items())
    failed: dict[str, str] = {}
    running: dict[Any, Cell] = {}
    with progress.bar("sweep") as bar:
        task = bar.add_task("sweep", total=total, completed=total - len(todo), note="")
        while waiting or running:
            while waiting and len(running) < room + AHEAD:
                cell, one = waiting.pop(0)
                folder = run / "sweep" / cell.name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "job.yaml").write_text(dump(one))
                running[remote.remote(str(folder), mark(one), base.cpus)] = cell
            ready, _ = ray.wait(list(running), timeout=1.0)
            for reference in ready:
                cell = running.pop(reference)
                try:
                    why = ray.get(reference)
                except ray.exceptions.RayError as error:
                    why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                if why:
                    failed[cell.name] = why
                bar.update(task, advance=1, note=cell.name)
    return failed


@ray.remote
def train_point(folder: str, marked: str, threads: int) -> str:
    """Train and judge the job in ``folder``; returns why not, or "". Its result is written last."""
    import torch

    from training.__main__ import stage

    torch.set_num_threads(threads)
    here = Path(folder)
    try:
        with metered(here, "train"):
            stage(here, f"finetune:{NAME}")
        with metered(here, "judge"):
            stage(here, "evaluate")
    except MaquetteError as error:
        return str(error)
    fresh = here / f".{RESULT}"
    fresh.write_text(json.dumps({"job": marked} | _told(here)))
    os.replace(fresh, here / RESULT)
    return ""


@contextlib.contextmanager
def metered(folder: Path, phase: str) -> Iterator[None]:
    """Write what this process uses meanwhile to ``folder``/usage/, every few seconds: a killed attempt has cost something too."""
    import torch

    path = folder / "usage" / f"{phase}-{uuid.uuid4().hex[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    started, used = time.perf_counter(), time.process_time()
    stop = threading.Event()

    def note() -> None:
        wall = time.perf_counter() - started
        row = {
            "phase": phase,
            "wall_s": wall,
            "cpu_s": time.process_time() - used,
            "gpu_s": wall * torch.cuda.is_available(),
        }
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(row))
        os.replace(fresh, path)

    def watch() -> None:
        while not stop.wait(METER_S):
            note()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        note()


def gather(run: Path, jobs: dict[Cell, Job], study: SweepStage) -> Path:
    """Write ``run``/sweep/sweep.json: every training that has a result, the laws through them, and what each cost."""
    points, rows = [], []
    headline = ""
    for cell, job in jobs.items():
        folder = run / "sweep" / cell.name
        if not done(folder, job):
            continue
        result = json.loads((folder / RESULT).read_text())
        headline = result["headline"]
        table = pq.read_table(folder / "evaluate" / f"{NAME}.parquet", columns=["asset", f"model/{headline}"])
        people: dict[str, tuple[float, int]] = {}
        for asset, value in zip(*(table[c].to_pylist() for c in table.column_names)):
            total, count = people.get(asset, (0.0, 0))
            people[asset] = (total + value, count + 1)
        point = scaling.Point(**dataclasses.asdict(cell), parameters=result["parameters"], people=people)
        points.append(point)
        usage = [json.loads(p.read_text()) for p in sorted((folder / "usage").glob("*.json"))]
        optim = job.finetune[0].optim
        price = scaling.cost(usage, optim.steps * optim.batch, study.power)
        seen = {
            "parameters": point.parameters,
            "error": point.error,
            "attempts": sum(u["phase"] == "train" for u in usage),
        }
        rows.append(dataclasses.asdict(cell) | seen | price)
    laws = []
    for source, model in sorted({(p.source, p.model) for p in points}):
        mine = [p for p in points if (p.source, p.model) == (source, model)]
        found = scaling.law(mine, study.bootstrap, source, model)
        if found is not None:
            laws.append(
                {"source": source, "model": model, "parameters": mine[0].parameters} | dataclasses.asdict(found)
            )
    joint = {s: scaling.joint([p for p in points if p.source == s]) for s in sorted({p.source for p in points})}
    content = {
        "task": next(iter(jobs.values())).finetune[0].task,
        "metric": headline,
        "planned": len(jobs),
        "points": rows,
        "laws": laws,
        "joint": {k: v for k, v in joint.items() if v},
        "power": study.power.model_dump(),
    }
    path = run / "sweep" / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=1))
    os.replace(fresh, path)
    return path


def _told(here: Path) -> dict[str, Any]:
    """What the study must know of a finished training beside its measures."""
    from safetensors import safe_open

    with safe_open(here / "finetune" / NAME / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(k).get_shape() for k in file.keys()]  # noqa: SIM118 - not a dict
    headline = json.loads((here / "evaluate/metrics.json").read_text())[NAME]["headline"]
    return {"parameters": sum(math.prod(s) for s in shapes), "headline": headline}
