"""What happens in each step -> metrics.jsonl, TensorBoard where it is installed, and a bar with time left where rich is."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOG_EVERY = 10
log = logging.getLogger("training")


class Journal(contextlib.AbstractContextManager["Journal"]):
    """One row every LOG_EVERY steps, so that the device is not asked for its loss each time.

    ``rate``: FLOP/s that a plain matrix product reaches here, ``flops``: of one step; their quotient over the time of a
    step is the FLOP utilisation. ``quiet``: a worker that is not the first writes nothing.
    """

    def __init__(
        self, folder: Path, first: int, title: str, steps: int, flops: float, rate: float, quiet: bool
    ) -> None:
        self._title, self._steps, self._flops, self._rate, self._quiet = title, steps, flops, rate, quiet
        self._losses: list[Tensor] = []
        self._seconds: list[float] = []
        self._waits: list[float] = []
        self._board: Any = None
        self._bar: Any = None
        if quiet:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            # A killed run may have logged past its last checkpoint; those steps come again.
            kept = [line for line in path.read_text().splitlines() if _step_of(line) < first]
            path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)
        self._bar, self._task = _bar(title, steps, first)

    def step(self, step: int, loss: Tensor, lr: float, images: int, seconds: float, waited: float) -> bool:
        """Note one step; True when a row is due, and so the device is at rest."""
        self._losses.append(loss.detach())
        self._seconds.append(seconds)
        self._waits.append(waited)
        if (step + 1) % LOG_EVERY and step + 1 < self._steps:
            return False
        typical = float(np.median(self._seconds))
        # A step that is faster than the product shows that other work disturbed the product.
        self._rate = max(self._rate, self._flops / typical)
        losses = torch.stack(self._losses)
        finite = losses[losses.isfinite()]
        row = {
            "step": step,
            "loss": round(float(finite.mean()), 6) if len(finite) else None,
            "lr": lr,
            "images_per_s": round(images / typical, 2),
            "mfu": round(self._flops / typical / self._rate, 4),
            "memory_mb": _memory_mb(),
            "data_wait_ms": round(1e3 * float(np.mean(self._waits)), 3),
            "data_wait_share": round(sum(self._waits) / sum(self._seconds), 5),
            "time": round(time.time(), 3),
        }
        self._losses, self._seconds, self._waits = [], [], []
        if not self._quiet:
            self._write(step, row)
        return True

    def _write(self, step: int, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for key in row.keys() - {"step", "time"}:
                if row[key] is not None:
                    self._board.add_scalar(key, row[key], step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step + 1, note=f"loss {row['loss'] or math.nan:.4f}")
        elif (step + 1) % (10 * LOG_EVERY) == 0:
            log.info("%s step %d of %d, loss %.4f", self._title, step + 1, self._steps, row["loss"] or math.nan)

    def __exit__(self, *error: object) -> None:
        if self._quiet:
            return
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.stop()


def matmul_rate(device: torch.device, dtype: str) -> float:
    """FLOP/s of a large matrix product in ``dtype`` on ``device``, best of twelve: what utilisation is counted against.

    A datasheet's figure is not reached by any product (H200: 989 against about 790 TFLOP/s).
    """
    n = 8192 if device.type == "cuda" else 768
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a = torch.ones(n, n, device=device, dtype=kind)
    best = math.inf
    for _ in range(13):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def _memory_mb() -> int:
    """The most that this process has held so far: of the GPU where it has one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


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
