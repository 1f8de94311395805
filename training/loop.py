"""A model, its data and a loss -> trained weights: the one loop of pre-training and fine-tuning, alone or in a team.

Resume is the same call again: weights, optimiser, averaged weights, guard, generators, step and data position come back, so
a killed run ends with the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifests.errors import JobError, MaquetteError
from training import checkpoint, team
from training.guard import PATIENCE, Average, Guard
from training.journal import Journal, matmul_rate
from training.loader import on_device
from training.order import Order
from training.settings import Compute, Optim
from training.team import Team
from training.vit import compile_blocks, set_checkpointing

log = logging.getLogger("training")
Arrays = Iterator[tuple[dict[str, np.ndarray], float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """All that one training is made of.

    ``groups``: model -> AdamW groups, each with its own `scale` of the learning rate. ``schedule``: step -> share of
    ``optim.lr``. ``batches``: (steps, this worker) -> its part of each batch. ``view``: what the device still has to make
    of it. ``loss_of``: (model, batch) -> a scalar that is a mean over pictures. ``flops``: of one picture.
    ``after``: (model, this worker), once the weights of a step are in place.
    """

    folder: Path
    title: str
    model: nn.Module
    groups: Callable[[nn.Module], list[dict[str, Any]]]
    optim: Optim
    compute: Compute
    schedule: Callable[[int], float]
    order: Order
    batches: Callable[[range, Team], Arrays]
    view: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    loss_of: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    flops: float
    digest: dict[str, Any]
    after: Callable[[nn.Module, Team], None] | None = None


def as_they_are(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of which the device has nothing left to make."""
    return batch


def run(t: Training, me: Team) -> Path:
    """Train to ``t.optim.steps`` and return the path of the final weights (the averaged ones where there are any).

    Raises JobError when ``t.folder`` holds a run of other settings or a batch cannot be shared out evenly, MaquetteError
    when steps stay unusable.
    """
    final, checkpoints = t.folder / "model.safetensors", t.folder / "checkpoints"
    if final.exists():
        checkpoint.check_same(checkpoint.state_of(final)["digest"], t.digest, t.folder)
        return final
    parts = me.world * t.compute.accumulate
    if t.optim.batch % parts:
        raise JobError(
            f"{t.title}: a batch of {t.optim.batch} does not share out evenly over {me.world} workers "
            f"x {t.compute.accumulate} parts; make optim.batch a multiple of {parts}"
        )
    dtype = team.precision(t.compute, me.device)
    t.model.to(me.device).train()
    set_checkpointing(t.model, t.compute.checkpointing)
    if t.compute.compile:
        compile_blocks(t.model)
    model = team.share_out(t.model, t.compute, me, dtype)
    optimiser = torch.optim.AdamW(t.groups(t.model), lr=t.optim.lr, betas=t.optim.betas, fused=True)
    kept = checkpoint.Kept(t.model, optimiser, Average(t.model, t.optim.ema), Guard(t.optim.spike, me.device))
    first = resume(t, kept, checkpoints)
    rate = matmul_rate(me.device, dtype)
    with Journal(
        t.folder, first, t.title, t.optim.steps, t.flops * t.optim.batch / me.world, rate, me.rank > 0
    ) as journal:
        stream = on_device(t.batches(range(first, t.optim.steps), me), me.device)
        started = time.perf_counter()
        for step, (arrays, waited) in enumerate(stream, first):
            lr = t.optim.lr * t.schedule(step)
            for group in optimiser.param_groups:
                group["lr"] = lr * group["scale"]
            loss = backward(t, model, t.view(arrays), dtype, me)
            norm = team.whole(nn.utils.clip_grad_norm_(t.model.parameters(), t.optim.clip))
            bad = kept.guard.judge(loss, norm)
            # A fused optimiser that is told of infinities leaves weights and moments alone, without asking the device.
            optimiser.found_inf, optimiser.grad_scale = bad, None  # type: ignore[attr-defined]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            kept.average.update(t.model, step, bad)
            if t.after is not None:
                t.after(t.model, me)
            now = time.perf_counter()
            due = journal.step(step, loss, lr, t.optim.batch, now - started, waited)
            started = now
            if due:
                watch(t, kept, step, checkpoints, me)
            if (step + 1) % t.optim.checkpoint_every == 0 and step + 1 < t.optim.steps:
                keep(t, kept, step + 1, checkpoints, me)
    kept.save_final(final, {"step": t.optim.steps, "digest": t.digest}, me.rank == 0)
    me.wait()
    return final


def backward(t: Training, model: nn.Module, batch: dict[str, Tensor], dtype: str, me: Team) -> Tensor:
    """Gradients of one step, in as many parts as asked for; () the loss, a mean over all workers."""
    count = len(next(iter(batch.values())))
    size = count // t.compute.accumulate
    total = torch.zeros((), device=me.device)
    narrow = torch.autocast(me.device.type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
    for i in range(t.compute.accumulate):
        part = {k: v[i * size : (i + 1) * size] for k, v in batch.items()}
        with team.quiet(model, i == t.compute.accumulate - 1):
            with narrow:
                loss = t.loss_of(model, part) / t.compute.accumulate
            loss.backward()
        total += loss.detach()
    return me.mean(total)


def resume(t: Training, kept: checkpoint.Kept, checkpoints: Path) -> int:
    """Take up the newest checkpoint; returns the step to go on at."""
    latest = checkpoint.newest(checkpoints)
    if latest is None:
        return 0
    checkpoint.check_same(checkpoint.state_of(latest)["digest"], t.digest, t.folder)
    state = kept.load(latest)
    return t.order.resume(state["order"]) // t.optim.batch


def keep(t: Training, kept: checkpoint.Kept, step: int, checkpoints: Path, me: Team) -> None:
    """Write a checkpoint from which step ``step`` is next."""
    state = {"step": step, "digest": t.digest, "order": t.order.state(step * t.optim.batch)}
    kept.save(checkpoints / f"step_{step:08d}.safetensors", state, me.rank == 0)
    if me.rank == 0:
        checkpoint.prune(checkpoints)


def watch(t: Training, kept: checkpoint.Kept, step: int, checkpoints: Path, me: Team) -> None:
    """Say that steps were left out; stop, the last good state kept, when they come in a row."""
    _, streak, total = kept.guard.counts.tolist()
    if total > kept.told:
        if me.rank == 0:
            log.warning(
                "%s: %d steps up to %d had a loss or gradient that is not finite or %g times the usual; they did not touch "
                "the weights",
                t.title, total - kept.told, step, t.optim.spike,
            )  # fmt: skip
        kept.told = total
    if streak >= PATIENCE:
        keep(t, kept, step + 1, checkpoints, me)
        raise MaquetteError(
            f"{t.title}: no usable step among the last {streak} up to step {step}; lower optim.lr, or look at the data. "
            f"The last good weights are in {checkpoints}: `init` takes them"
        )
