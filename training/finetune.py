"""Rendered samples and an encoder -> a model of one dense task."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests.errors import InputError
from training import data, loop, official, schedule, team
from training.budget import Budget, Shape, budget
from training.fit import fitted
from training.heads import DenseModel
from training.loader import Copied
from training.pretrain import check_grid
from training.settings import Finetune, digest, folders
from training.sources import DenseSources, uniform
from training.tasks import objective
from training.transforms import Backgrounds, dense_sample
from training.vit import SIZES


def finetune(run: Path, settings: Finetune) -> Path:
    """Train to the end, or go on; returns ``run``/finetune/NAME/model.safetensors."""
    check_grid(settings.width, settings.height, SIZES[settings.model].patch, f"finetune {settings.name}")
    me = team.join(settings.compute)
    dtype = team.precision(settings.compute, me.device)
    shape = Shape(head=settings.head, head_width=settings.head_width)

    def estimate(batch: int, checkpointing: bool) -> Budget:
        picture = (settings.height, settings.width)
        return budget(
            settings.model, *picture, batch, settings.task, checkpointing, dtype, shape, settings.optim.ema > 0
        )

    compute = fitted(settings.compute, settings.optim.batch, estimate, me)
    rows = data.Rows(folders(run, settings.data), "train", settings.weights, (settings.samples, settings.seed))
    torch.manual_seed(settings.seed)
    model = built(settings)
    source = begin(run, settings, model)
    size, how, task = (settings.height, settings.width), settings.augment, settings.task
    backgrounds = Backgrounds(how.backgrounds) if how.backgrounds else None

    def make(kind: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return dense_sample(row, rng, size, task, how, backgrounds)

    sources = DenseSources(task, size, how, backgrounds)
    on_gpu = uniform(rows, me.device)
    order, find = rows.order(settings.seed)
    goal = objective(task, settings.loss)
    return loop.run(
        loop.Training(
            folder=run / "finetune" / settings.name,
            title=settings.name,
            model=model,
            groups=lambda m: schedule.parameter_groups(m, settings.optim.weight_decay, settings.layer_decay),
            optim=settings.optim,
            compute=compute,
            schedule=schedule.linear(settings.optim),
            order=order,
            batches=lambda steps, who: data.stream(
                rows, order, find, sources if on_gpu else Copied(make), settings.optim.batch, steps, compute, who
            ),
            view=sources.view if on_gpu else loop.as_they_are,
            loss_of=lambda module, b: goal.loss(goal.trained(module(b["image"])), b["target"], b["mask"]),
            flops=estimate(1, False).flops_per_image,
            digest=digest(settings, [*rows.identity, *source], dtype),
        ),
        me,
    )


def built(settings: Finetune) -> DenseModel:
    """The model that ``settings`` describe, as yet untrained. Its positions are weights, as Sapiens v1 fine-tunes them."""
    size = SIZES[settings.model]
    grid = (settings.height // size.patch, settings.width // size.patch)
    width, head, padding = settings.head_width, settings.head, settings.patch_padding
    return DenseModel(size, settings.task, width, head=head, grid=grid, padding=padding)


def begin(run: Path, settings: Finetune, model: DenseModel) -> list[str]:
    """Fill the encoder as `init` says; returns the sha256 of what it came from, for the digest. Raises InputError."""
    if settings.init == "random":
        return []
    start = run / "pretrain/model.safetensors" if settings.init == "pretrain" else Path(settings.init)
    if not start.is_file():
        raise InputError(
            f"finetune {settings.name}: init {start} does not exist; run pretrain first, or set init: random"
        )
    official.load_encoder(start, model)
    with start.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]
