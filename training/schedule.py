"""Settings of an optimiser -> the share of its learning rate at each step, and the groups that learn at different rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from training.settings import Optim


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
    """AdamW groups: no decay on vectors and tokens; encoder layer i learns at layer_decay ** (L + 1 - i), the head at 1
    (Sapiens2 3.0). Frozen weights are in none.
    """
    depth = len(model.encoder.blocks)  # type: ignore[union-attr, arg-type]
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = depth + 1
        if name.startswith(("encoder.embed", "encoder.windows")):
            layer = 0
        elif name.startswith("encoder.blocks."):
            layer = int(name.split(".")[2]) + 1
        decay = weight_decay if parameter.ndim > 1 and "token" not in name else 0.0
        groups.setdefault((decay, layer_decay ** (depth + 1 - layer)), []).append(parameter)
    return [{"params": p, "weight_decay": d, "scale": s} for (d, s), p in groups.items()]
