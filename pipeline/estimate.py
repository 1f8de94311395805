"""A job -> a table of what would run: counts, bytes and time; runs nothing and starts no engine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from manifests.errors import InputError
from manifests.job import FinetuneStage, Job, PretrainStage
from manifests.plan import check_splits
from pipeline.progress import seconds, size
from pipeline.road import check_references, stages

# Measured on 2 shared Zen 4 cores, 384x512, 16 samples: seconds per megapixel-sample of one core, per megapixel for the
# denoiser, and per sample for assets, scene build, rays and coding. Another machine scales all alike; `maquette plan` says
# "about".
CYCLES_S_PER_MPX_SAMPLE = 1.0
DENOISE_S_PER_MPX = {"none": 0.0, "fast": 0.4, "balanced": 1.2, "high": 2.2, "accurate": 5.9}
OVERHEAD_S = 1.3
# bytes per pixel of a rendered row: 1.21 MB at 1024x768 (reference measurement of the codecs).
BYTES_PER_PIXEL = 1.54
PHOTO_S = 0.15
# Fine-tuning, seconds of one core per megapixel seen: measured for tiny; the others go by their encoders' multiplications.
TINY_S_PER_MPX = 7.0
# A masked autoencoder looks at a quarter of the patches: measured, 82 pictures of 96x128 a second against 25.
PRETRAIN_SHARE = 0.3


def show(job: Job, root: Path) -> None:
    """Print the plan of ``job``. Raises InputError where its inputs cannot be found, JobError where it cannot run."""
    check_references(job, stages(job), job.folder.resolve(), root)
    cores = os.cpu_count() or 1
    table = Table(title=f"{job.name} -> {job.folder}", title_justify="left")
    for column in ("stage", "what", "tasks", "bytes", "time"):
        table.add_column(column, justify="left" if column in ("stage", "what") else "right")
    total = 0.0
    if job.render:
        from render.stage import pool

        stage = job.render
        identities, _ = pool(stage, root)
        check_splits(stage, identities)
        mpx = stage.width * stage.height / 1e6
        workers = stage.workers or cores
        cycles = stage.engine.samples * CYCLES_S_PER_MPX_SAMPLE + DENOISE_S_PER_MPX[stage.engine.denoiser]
        time = stage.samples * (mpx * cycles + OVERHEAD_S) / workers
        splits = {s: sum(i.split == s for i in identities) for s in ("train", "val", "test")}
        what = (
            f"{stage.samples} samples {stage.width}x{stage.height}, {len(identities)} identities "
            f"({', '.join(f'{n} {s}' for s, n in splits.items() if n)})"
        )
        tasks = -(-stage.samples // stage.samples_per_task)
        table.add_row(
            "render", what, str(tasks), size(stage.samples * mpx * 1e6 * BYTES_PER_PIXEL), f"about {seconds(time)}"
        )
        total += time
    if job.curate:
        from curation.sources import count

        n_inputs, n_bytes = count(job.curate, root)
        time = n_inputs * PHOTO_S / cores + 10
        table.add_row(
            "curate",
            f"{n_inputs} inputs, detector {job.curate.detector.kind}",
            "",
            f"up to {size(n_bytes)}",
            f"about {seconds(time)}",
        )
        total += time
    trained: list[tuple[str, PretrainStage | FinetuneStage]] = [("pretrain", job.pretrain)] if job.pretrain else []
    trained += [(f"finetune {f.name}", f) for f in job.finetune]
    for name, section in trained:
        mpx = section.width * section.height / 1e6
        time = section.optim.steps * section.optim.batch * mpx * train_s_per_mpx(section) / cores
        if isinstance(section, PretrainStage):
            time *= PRETRAIN_SHARE
        what = (
            f"{section.model}, {section.width}x{section.height}, {section.optim.steps} steps of {section.optim.batch}"
        )
        table.add_row(name, what, "", "", f"about {seconds(time)}")
        total += time
    for name in ("evaluate", "report"):
        if getattr(job, name):
            table.add_row(name, "", "", "", "seconds")
    Console().print(table)
    Console().print(f"about {seconds(total)} on {cores} cores; nothing was run")


def train_s_per_mpx(section: PretrainStage | FinetuneStage) -> float:
    """Seconds of one core for a megapixel of pictures that pass forward and back. Raises InputError where only torch knows."""
    if section.model == "tiny":
        return TINY_S_PER_MPX
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"the time of {section.model} is counted with torch, which is not installed; install maquette[train]"
        )
    # It takes seconds to import.
    from training.backbones import SIZES
    from training.budget import encoder_flops
    from training.heads import stride_of

    def each(name: str) -> float:
        stride = stride_of(SIZES[name])
        return encoder_flops(name, max(1, section.height * section.width // stride**2))

    return TINY_S_PER_MPX * each(section.model) / each("tiny")
