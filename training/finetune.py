"""Rendered samples and an encoder -> a model of one dense task, or of several that share the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifests.errors import InputError
from training import checkpoint, data, loop, official, official_heads, schedule, team
from training.backbones import SIZES
from training.budget import Budget, Shape, budget
from training.distil import Lesson, teacher_of
from training.fit import fitted
from training.heads import DenseModel, stride_of
from training.loader import Copied
from training.pretrain import check_grid
from training.settings import Finetune, digest, folders
from training.sources import CODED, DenseSources, uniform
from training.tasks import objective
from training.transforms import Backgrounds, dense_sample


def check_size(settings: Finetune) -> None:
    """Raise JobError unless what the model sees is whole patches."""
    check_grid(*seen_by(settings)[::-1], stride_of(SIZES[settings.model]), f"finetune {settings.name}")


def finetune(run: Path, settings: Finetune) -> Path:
    """Train to the end, or go on; returns ``run``/finetune/NAME/model.safetensors."""
    check_size(settings)
    me = team.join(settings.compute)
    dtype = team.precision(settings.compute, me.device)
    shape = Shape(
        head=settings.head, head_width=settings.head_width, others=tuple(settings.also), seen=settings.encoder_size
    )

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
    lesson = None
    if settings.distil:
        teacher, _, known = teacher_of(run, settings)
        lesson, source = Lesson(model, teacher.to(me.device), settings), source + known
    size, how, task = (settings.height, settings.width), settings.augment, settings.task
    others = tuple(settings.also)
    backgrounds = Backgrounds(how.backgrounds) if how.backgrounds else None

    def make(kind: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return dense_sample(row, rng, size, task, how, backgrounds, others)

    on_gpu = uniform(rows, me.device) and task in CODED and not others
    sources = DenseSources(task, size, how, backgrounds) if on_gpu else Copied(make)
    order, find = rows.order(settings.seed)

    def batches(steps: range, who: team.Team) -> loop.Arrays:
        return data.stream(rows, order, find, sources, settings.optim.batch, steps, compute, who)

    if lesson is not None and model.prompt_tokens is not None:
        # Told once; a run that goes on has it in its checkpoint.
        token = model.prompt_tokens.requires_grad_(False)
        if not finished(run, settings):
            view = sources.view if isinstance(sources, DenseSources) else loop.as_they_are
            token.copy_(lesson.token(batches, view, loss_of(settings), model, me))
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
            batches=batches,
            view=sources.view if isinstance(sources, DenseSources) else loop.as_they_are,
            loss_of=loss_of(settings, lesson),
            flops=estimate(1, False).flops_per_image,
            digest=digest(settings, [*rows.identity, *source], dtype),
        ),
        me,
    )


def loss_of(settings: Finetune, lesson: Lesson | None = None) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """(model, batch) -> the loss of the task, and of others beside it by their weights, or what a teacher adds."""
    goal = objective(settings.task, settings.loss)
    if lesson is not None:
        own = lambda output, target, mask: goal.loss(goal.trained(output), target, mask)  # noqa: E731
        return lambda module, b: lesson(module, b, own)
    if not settings.also:
        return lambda module, b: goal.loss(goal.trained(module(b["image"])), b["target"], b["mask"])
    goals = {t: objective(t, None) for t in settings.also}

    def several(module: nn.Module, b: dict[str, Tensor]) -> Tensor:
        found = module(b["image"], every=True)
        total = goal.loss(goal.trained(found[settings.task]), b["target"], b["mask"])
        for task, weight in settings.also.items():
            one = goals[task]
            total = total + weight * one.loss(one.trained(found[task]), b[f"target.{task}"], b[f"mask.{task}"])
        return total

    return several


def finished(run: Path, settings: Finetune) -> bool:
    """Whether there are weights or checkpoints of this fine-tune already, which hold what a teacher told first."""
    folder = run / "finetune" / settings.name
    return (folder / "model.safetensors").exists() or checkpoint.newest(folder / "checkpoints") is not None


def seen_by(settings: Finetune) -> tuple[int, int]:
    """(H, W) px that the encoder sees."""
    return settings.encoder_size or (settings.height, settings.width)


def built(settings: Finetune) -> DenseModel:
    """The model that ``settings`` describe, as yet untrained. Its positions are weights, as Sapiens v1 fine-tunes them."""
    size = SIZES[settings.model]
    seen, stride = seen_by(settings), stride_of(size)
    return DenseModel(
        size,
        settings.task,
        settings.head_width,
        head=settings.head,
        grid=(seen[0] // stride, seen[1] // stride),
        padding=settings.patch_padding,
        others=tuple(settings.also),
        seen=settings.encoder_size,
        prompts=1 if settings.distil and settings.distil.token_steps else 0,
    )


def begin(run: Path, settings: Finetune, model: DenseModel) -> list[str]:
    """Fill the encoder as `init` says, with `init_head` the head too; returns the sha256 of what it came from, for the
    digest. Raises InputError, JobError.
    """
    if settings.init == "random":
        return []
    start = run / "pretrain/model.safetensors" if settings.init == "pretrain" else Path(settings.init)
    if not start.is_file():
        raise InputError(
            f"finetune {settings.name}: init {start} does not exist; run pretrain first, or set init: random"
        )
    if settings.init_head:
        official_heads.load_task(start, model)
    else:
        official.load_encoder(start, model)
    with start.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]
