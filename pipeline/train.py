"""A training stage -> checkpoints and metrics: Ray Train places the workers and restarts them; the loop is training's own.

`torchrun -m training RUN` is the same without Ray. Evaluation is one process beside the run.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.errors import (
    BAD_JOB,
    DONE,
    INTERRUPTED,
    InputError,
    JobError,
    MaquetteError,
    MissingError,
    ShardError,
    StorageError,
)
from manifests.errors import STORAGE as STORAGE_CODE
from manifests.job import Job
from manifests.job_training import Compute
from pipeline import progress

# Written by a worker whose error no restart can mend; read by the driver.
FAILED = "train_failed.json"
POLL_S = 0.5
KINDS = {kind.__name__: kind for kind in (JobError, InputError, StorageError, MissingError, ShardError)}


def train(run: Path, stages: list[str], job: Job, address: str | None = None) -> None:
    """Run stages named pretrain or finetune:NAME of ``job``, in order. Raises JobError, StorageError, KeyboardInterrupt or
    MaquetteError.

    Neighbours that ask for the same workers share them: starting workers takes longer than a small training.
    """
    sections = {f"finetune:{f.name}": f for f in job.finetune} | ({"pretrain": job.pretrain} if job.pretrain else {})
    for compute, group in itertools.groupby(stages, key=lambda name: sections[name].compute):
        launch(run, {name: sections[name].optim.steps for name in group}, compute, address)


def launch(run: Path, stages: dict[str, int], compute: Compute, address: str | None) -> None:
    """Train ``stages`` (name -> steps) with the workers that ``compute`` asks for, inside Ray Train, a bar beside it."""
    from pipeline.workers import join

    # The newer interface; Ray 2.60 still asks for it by name.
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    join(address, run)
    import ray
    from ray import train as ray_train
    from ray.train.torch import TorchTrainer

    has = ray.cluster_resources()
    gpu = compute.gpu == "yes" or (compute.gpu == "auto" and has.get("GPU", 0) >= compute.workers)
    cpus = compute.cpus or max(1, int(has.get("CPU", 1)) // compute.workers)
    if cpus * compute.workers > has.get("CPU", 1) or (gpu and compute.workers > has.get("GPU", 0)):
        raise JobError(
            f"{', '.join(stages)}: {compute.workers} workers of {cpus} cores{' and a GPU' if gpu else ''} each are asked for; the "
            f"cluster has {has.get('CPU', 0):g} cores and {has.get('GPU', 0):g} GPUs. Lower compute.workers or compute.cpus"
        )
    failed, kept = run / FAILED, run / ".ray_train"
    failed.unlink(missing_ok=True)
    # What a killed driver left of Ray's own book-keeping; the training's state is in its checkpoints.
    shutil.rmtree(kept, ignore_errors=True)
    title = ", ".join(stages)
    trainer = TorchTrainer(
        work,
        train_loop_config={"run": str(run), "stages": list(stages), "threads": cpus},
        scaling_config=ray_train.ScalingConfig(
            num_workers=compute.workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpu else {})}
        ),
        run_config=ray_train.RunConfig(
            name="training",
            storage_path=str(kept),
            failure_config=ray_train.FailureConfig(max_failures=compute.failures),
        ),
    )
    error = beside_bars(trainer.fit, run, stages)
    shutil.rmtree(kept, ignore_errors=True)
    if failed.exists():
        told = json.loads(failed.read_text())
        failed.unlink()
        raise KINDS.get(told["kind"], MaquetteError)(told["message"])
    if error is not None:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise MaquetteError(
            f"{title}: a worker died {compute.failures + 1} times ({reason}); the last checkpoint is kept: run again to go on"
        )


def work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train does: the same as `torchrun -m training`."""
    import torch

    from training.__main__ import stage

    run = Path(config["run"])
    if (run / FAILED).exists():
        return
    torch.set_num_threads(config["threads"])
    try:
        for name in config["stages"]:
            stage(run, name)
    except MaquetteError as error:
        (run / FAILED).write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))
        # Alone there is nobody to set free; else the others would wait for this one for ever.
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise


def beside_bars(fit: Callable[[], Any], run: Path, stages: dict[str, int]) -> BaseException | None:
    """Call ``fit`` in a thread, so that an interrupt reaches this one, and show the steps that each stage's metrics.jsonl
    has; returns what it raised.
    """
    from ray.train import TrainingFailedError

    found: list[BaseException] = []

    def target() -> None:
        try:
            fit()
        except TrainingFailedError as error:
            found.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    with progress.bar("") as bar:
        tasks = {name: bar.add_task(name, total=steps, note=name) for name, steps in stages.items()}
        while thread.is_alive():
            thread.join(POLL_S)
            for name, task in tasks.items():
                row = last_row(metrics_of(run, name))
                if row is not None:
                    bar.update(task, completed=row["step"] + 1, note=f"{name}, loss {row['loss'] or 0:.4f}")
    return found[0] if found else None


def metrics_of(run: Path, stage: str) -> Path:
    """Where the workers of ``stage`` write a row every few steps."""
    kind, _, name = stage.partition(":")
    return run / kind / name / "metrics.jsonl" if name else run / kind / "metrics.jsonl"


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a metrics.jsonl, or None."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines[:-1]):
        try:
            return dict(json.loads(line))
        except ValueError:
            continue
    return None


def evaluate(run: Path) -> None:
    """Judge the models of ``run`` in a process of its own. Raises by the process's exit code; the reason is on its stderr."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    code = subprocess.run(
        [sys.executable, "-m", "training", str(run), "--stage", "evaluate"], env=environment, check=False
    ).returncode
    if code == DONE:
        return
    if code in (INTERRUPTED, -2):
        raise KeyboardInterrupt
    kinds = {BAD_JOB: JobError, STORAGE_CODE: StorageError}
    raise kinds.get(code, MaquetteError)(f"evaluate: ended with exit code {code}; the reason stands above")
