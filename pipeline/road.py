"""A checked job -> its stages in order, each resumed or skipped, and the exit code of the whole."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Any

from manifests.errors import DONE, FAILURES, InputError, JobError, StorageError
from manifests.job import Job, dump
from manifests.store import REMOTE, open_store
from pipeline.progress import Events, console, seconds

STAGES = ("render", "curate", "pretrain", "finetune", "evaluate", "report")
# Below this much free space a run would end in the middle of a shard.
MIN_FREE_BYTES = 200 * 2**20


def drive(job: Job, root: Path, only: str | None, address: str | None, retry_failed: bool = False) -> int:
    """Run ``job``'s stages (or the one named ``only``) and return the exit code: 0 done, 1 finished with failures.

    ``root``: the folder that relative paths of the job start from. Raises JobError, InputError, StorageError,
    KeyboardInterrupt.
    """
    wanted = stages(job, only)
    run = job.folder.resolve()
    check_references(job, wanted, run, root)
    job = _resolved(job, root)
    _write(job, run)
    events = Events(run)
    events.emit("run_started", job=job.name, stages=wanted)
    started = time.monotonic()
    failures = 0
    for stage in wanted:
        result = _stage(stage, job, run, root, address, retry_failed, events)
        failures += int(result.get("failed", 0))
        if result.get("done", result.get("kept")) == 0:
            _none_made(stage, job, wanted)
    events.emit("run_finished", seconds=round(time.monotonic() - started, 1), failures=failures)
    console.print(
        f"done in {seconds(time.monotonic() - started)}"
        + (f", {failures} failed samples (named in {run}/events.jsonl)" if failures else "")
    )
    return FAILURES if failures else DONE


def prepare(job: Job, root: Path) -> Path:
    """Write the run folder of ``job`` with its resolved job.yaml, which is all that training without Ray needs; returns it.

    Raises as ``drive``.
    """
    run = job.folder.resolve()
    check_references(job, [s for s in ("pretrain", "finetune", "evaluate") if getattr(job, s)], run, root)
    _write(_resolved(job, root), run)
    return run


def fitting(job: Job) -> Job:
    """``job`` with every training told to fit its device's memory."""
    tree = job.model_dump()
    for section in [tree["pretrain"], *tree["finetune"]]:
        if section:
            section["compute"]["fit"] = True
    return Job.model_validate(tree)


def _write(job: Job, run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run).free
        if free < MIN_FREE_BYTES:
            need = f"at least {MIN_FREE_BYTES / 2**20:.0f} MB needed; free space"
            raise StorageError(f"run folder {run}: {free / 2**20:.0f} MB free, {need}")
        (run / "job.yaml").write_text(dump(job))
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"run folder {run}: {error.strerror}; a file stands there: choose another `runs` folder"
        ) from None
    except OSError as error:
        raise StorageError(f"run folder {run}: {error.strerror}; free space or choose another `runs` folder") from None


def _stage(
    stage: str, job: Job, run: Path, root: Path, address: str | None, retry_failed: bool, events: Events
) -> dict[str, Any]:
    """One stage; the imports are here so that a node without Blender or Ray can run the others."""
    console.print(f"[bold]{stage}[/bold]")
    result: dict[str, Any] = {}
    if stage in ("render", "curate"):
        if stage == "render":
            from pipeline.render import render

            result = render(job, run, root, events, retry_failed, address)
        else:
            from pipeline.curate import curate

            result = curate(job, run / "curate", root, events, address)
        console.print("  " + ", ".join(f"{k} {v}" for k, v in result.items() if isinstance(v, int | float)))
    elif stage == "report":
        from pipeline.report import build

        console.print(f"  report: {build(run)}", soft_wrap=True)
    else:
        from pipeline.train import evaluate, train

        start = time.monotonic()
        if stage == "evaluate":
            evaluate(run)
        else:
            train(run, [f"finetune:{f.name}" for f in job.finetune] if stage == "finetune" else [stage], job, address)
        events.emit("stage_finished", stage=stage, seconds=round(time.monotonic() - start, 1))
    return result


def _none_made(made: str, job: Job, wanted: list[str]) -> None:
    """A stage that reads what ``made`` did not make would blame a missing dataset: InputError names the cause."""
    readers: dict[str, list[Any]] = {
        "pretrain": [job.pretrain],
        "finetune": [*job.finetune],
        "evaluate": [job.evaluate],
    }
    for stage, settings in readers.items():
        if stage in wanted and any(s and made in s.data for s in settings):
            why = "nothing was kept" if made == "curate" else "no sample was finished"
            raise InputError(
                f"{stage}: reads `{made}`, and there {why} (reasons above, all of them by `maquette report {job.folder}`); "
                f"change `{made}` in the job, or give {stage}.data a dataset that has rows"
            )


def stages(job: Job, only: str | None = None) -> list[str]:
    """The stages of ``job``, or the one named ``only``; raises JobError where there is none."""
    have = [s for s in STAGES if getattr(job, s)]
    if only is None:
        if not have:
            raise JobError(f"job {job.name}: no section to run; give at least one of {', '.join(STAGES)}")
        return have
    if only not in STAGES:
        raise JobError(f"--only {only}: expected one of {', '.join(STAGES)}")
    if only not in have:
        raise JobError(f"--only {only}: the job has no `{only}` section; it has {', '.join(have)}")
    return [only]


def _grids(job: Job, wanted: list[str]) -> list[str]:
    """What is wrong with the sizes that models see, said before hours of rendering; without torch nothing is."""
    if importlib.util.find_spec("torch") is None:
        return []
    found = []
    if job.pretrain and "pretrain" in wanted:
        from training.backbones import SIZES
        from training.pretrain import check

        found.append(lambda settings=job.pretrain: check(settings, SIZES[settings.model]))
    if "finetune" in wanted:
        from training.finetune import check_size

        found += [lambda settings=settings: check_size(settings) for settings in job.finetune]
    problems = []
    for one in found:
        try:
            one()
        except JobError as error:
            problems.append(str(error))
    return problems


def check_references(job: Job, wanted: list[str], run: Path, root: Path) -> None:
    """Every `data` and `init` of the wanted stages must exist or be made before; raises JobError, all mistakes at
    once.
    """
    problems = []
    readers: list[tuple[str, list[str]]] = []
    if job.pretrain and "pretrain" in wanted:
        readers.append(("pretrain", job.pretrain.data))
    if "finetune" in wanted:
        readers += [(f"finetune.{i}", f.data) for i, f in enumerate(job.finetune)]
    if job.evaluate and "evaluate" in wanted:
        readers.append(("evaluate", job.evaluate.data))
    for where, names in readers:
        for name in names:
            made = name in ("render", "curate") and (name in wanted or (run / name / "manifest").is_dir())
            if not made and not open_store(name if REMOTE.match(name) else root / name).names("manifest"):
                problems.append(f'{where}.data: "{name}": neither a stage of this run nor a dataset folder')
    if "finetune" in wanted:
        for i, finetune in enumerate(job.finetune):
            trained = "pretrain" in wanted or (run / "pretrain").is_dir()
            given = finetune.init == "random" or (finetune.init == "pretrain" and trained)
            if not given and not (root / finetune.init).is_file():
                expected = "expected `pretrain` (with that section in the job), `random` or a checkpoint file"
                problems.append(f'finetune.{i}.init: "{finetune.init}": {expected}')
            earlier = [f.name for f in job.finetune[:i]]
            teacher = finetune.distil.teacher if finetune.distil else None
            if teacher and teacher not in earlier and not (root / teacher).is_file():
                expected = (
                    f"expected an earlier finetune ({', '.join(earlier) or 'there is none'}) or a model.safetensors"
                )
                problems.append(f'finetune.{i}.distil.teacher: "{teacher}": {expected}')
            folder = finetune.augment.backgrounds
            if folder and not (root / folder).is_dir():
                problems.append(f'finetune.{i}.augment.backgrounds: "{folder}": no such folder (looked in {root})')
    if job.curate and "curate" in wanted:
        for i, source in enumerate(job.curate.sources):
            local = source.path != "bundled" and not REMOTE.match(source.path)
            if local and not (root / source.path).exists():
                problems.append(f'curate.sources.{i}.path: "{source.path}": no such file or folder (looked in {root})')
        for name in ("detector", "head_detector"):
            detector = getattr(job.curate, name)
            if detector and detector.kind == "onnx" and not (root / str(detector.weights)).is_file():
                problems.append(f'curate.{name}.weights: "{detector.weights}": no such file (looked in {root})')
    problems += _grids(job, wanted)
    if problems:
        raise JobError(problems)


def _resolved(job: Job, root: Path) -> Job:
    """The job with data and checkpoint paths made absolute, so that the trainer needs no knowledge of the job file's
    place.
    """

    def path(name: str) -> str:
        known = name in ("render", "curate", "pretrain", "random") or REMOTE.match(name)
        return name if known else str((root / name).resolve())

    tree = job.model_dump()
    names = [f["name"] for f in tree["finetune"]]
    for section in [tree["pretrain"], tree["evaluate"], *tree["finetune"]]:
        if section:
            section["data"] = [path(n) for n in section["data"]]
            if "init" in section:
                section["init"] = path(section["init"])
            if section.get("distil") and section["distil"]["teacher"] not in names:
                section["distil"]["teacher"] = path(section["distil"]["teacher"])
            if section.get("augment", {}).get("backgrounds"):
                section["augment"]["backgrounds"] = str((root / section["augment"]["backgrounds"]).resolve())
    return Job.model_validate(tree)


def read_job(run: Path) -> Job:
    """The resolved job of a run folder; raises InputError."""
    from manifests.job import load

    if not (run / "job.yaml").is_file():
        raise InputError(f"{run}: no job.yaml here; give a run folder, such as runs/quickstart")
    return load(run / "job.yaml")
