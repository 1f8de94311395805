"""A model, its data and a loss -> trained weights: the one loop of pre-training and fine-tuning.

Resume is the same call again: weights, optimiser, step and data position come back, so a killed run ends with the
same bits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifests.errors import MaquetteError
from training import checkpoint
from training.loader import on_device
from training.settings import Optim

LOG_EVERY = 10
log = logging.getLogger("training")


def run(
    folder: Path,
    model: nn.Module,
    groups: list[dict[str, Any]],
    optim: Optim,
    schedule: Callable[[int], float],
    batches: Callable[[range], Iterator[tuple[dict[str, np.ndarray], float]]],
    loss_of: Callable[[dict[str, Tensor]], Tensor],
    digest: dict[str, Any],
    title: str,
) -> Path:
    """Train to ``optim.steps`` and return the path of the final weights.

    ``groups``: AdamW groups, each with its own `scale` of the learning rate. ``schedule``: step -> share of optim.lr.
    Raises JobError when ``folder`` holds a run of other settings, MaquetteError when the loss stops being finite.
    """
    final = folder / "model.safetensors"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    optimiser = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)
    if final.exists():
        checkpoint.check_same(checkpoint.load(final, model, None)["digest"], digest, folder)
        return final
    first = 0
    latest = checkpoint.newest(folder / "checkpoints")
    if latest is not None:
        state = checkpoint.load(latest, model, optimiser)
        checkpoint.check_same(state["digest"], digest, folder)
        first = state["step"]
    metrics = Metrics(folder, first, title, optim.steps)
    model.train()
    with metrics:
        started = time.perf_counter()
        for step, (batch, waited) in enumerate(on_device(batches(range(first, optim.steps)), device), first):
            share = schedule(step)
            for group in optimiser.param_groups:
                group["lr"] = optim.lr * share * group["scale"]
            loss = loss_of(batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
            if not torch.isfinite(norm):
                raise MaquetteError(
                    f"{title}: the loss or its gradient is not finite at step {step}; lower optim.lr. "
                    f"The last good state is in {folder / 'checkpoints'}"
                )
            optimiser.step()
            now = time.perf_counter()
            metrics.step(step, loss, optim.lr * share, optim.batch / (now - started), waited)
            started = now
            if (step + 1) % optim.checkpoint_every == 0 and step + 1 < optim.steps:
                path = folder / "checkpoints" / f"step_{step + 1:08d}.safetensors"
                checkpoint.save(path, model, optimiser, {"step": step + 1, "digest": digest})
                checkpoint.prune(folder / "checkpoints")
    checkpoint.save(final, model, None, {"step": optim.steps, "digest": digest})
    return final


def cosine(optim: Optim) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine to 0 (MAE)."""

    def share(step: int) -> float:
        if step < optim.warmup_steps:
            return (step + 1) / optim.warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)))

    return share


def linear(optim: Optim) -> Callable[[int], float]:
    """Linear warm-up, then a straight line to 0 (Sapiens2's poly of power 1)."""

    def share(step: int) -> float:
        if step < optim.warmup_steps:
            return (step + 1) / optim.warmup_steps
        return max(0.0, (optim.steps - step) / max(1, optim.steps - optim.warmup_steps))

    return share


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """AdamW groups: no decay on vectors; encoder layer i learns at layer_decay ** (L + 1 - i), the head at 1
    (Sapiens2 3.0).
    """
    depth = len(model.encoder.blocks)  # type: ignore[union-attr, arg-type]
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        layer = depth + 1
        if name.startswith("encoder.embed"):
            layer = 0
        elif name.startswith("encoder.blocks."):
            layer = int(name.split(".")[2]) + 1
        decay = weight_decay if parameter.ndim > 1 and "token" not in name else 0.0
        groups.setdefault((decay, layer_decay ** (depth + 1 - layer)), []).append(parameter)
    return [{"params": p, "weight_decay": d, "scale": s} for (d, s), p in groups.items()]


class Metrics(contextlib.AbstractContextManager["Metrics"]):
    """metrics.jsonl, TensorBoard where it is installed, and a progress bar where rich is."""

    def __init__(self, folder: Path, first: int, title: str, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._title, self._steps = title, steps
        if self._path.exists():
            # A killed run may have logged past its last checkpoint; those steps come again.
            kept = [line for line in self._path.read_text().splitlines() if _step_of(line) < first]
            self._path.write_text("".join(line + "\n" for line in kept))
        self._file = self._path.open("a")
        self._losses: list[Tensor] = []
        self._rates: list[float] = []
        self._waits: list[float] = []
        self._board: Any = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)
        self._bar, self._task = _bar(title, steps, first)

    def step(self, step: int, loss: Tensor, lr: float, images_per_s: float, waited: float) -> None:
        """Note one step; written out every LOG_EVERY, so that the device is not asked for its loss each time."""
        self._losses.append(loss.detach())
        self._rates.append(images_per_s)
        self._waits.append(waited)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == self._steps:
            row = {
                "step": step,
                "loss": round(float(torch.stack(self._losses).mean()), 6),
                "lr": lr,
                "images_per_s": round(float(np.median(self._rates)), 2),
                "data_wait_ms": round(1e3 * float(np.mean(self._waits)), 3),
                "time": round(time.time(), 3),
            }
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            if self._board is not None:
                for key in ("loss", "lr", "images_per_s", "data_wait_ms"):
                    self._board.add_scalar(key, row[key], step)
            if self._bar is not None:
                self._bar.update(self._task, completed=step + 1, note=f"loss {row['loss']:.4f}")
            elif (step + 1) % (10 * LOG_EVERY) == 0:
                log.info("%s step %d of %d, loss %.4f", self._title, step + 1, self._steps, row["loss"])
            self._losses, self._rates, self._waits = [], [], []

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.stop()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf


def _bar(title: str, steps: int, first: int) -> tuple[Any, Any]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None, None
    console = Console(stderr=True)
    if not console.is_terminal:
        return None, None
    columns = (
        TextColumn(f"[bold]{title:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, TextColumn("[dim]{task.fields[note]}"), console=console)
    bar.start()
    return bar, bar.add_task("", total=steps, completed=first, note="")
