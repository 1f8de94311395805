"""A task's name -> its losses, and how what the head puts out is read: all that differs between dense tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training import losses

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Reading = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Objective:
    """``trained``: the head's output as the loss takes it; ``read``: the head's output as a user takes it."""

    loss: Loss
    trained: Reading
    read: Reading


def as_it_is(output: Tensor) -> Tensor:
    """Relative depth, larger is farther."""
    return output


def unit(output: Tensor) -> Tensor:
    """(B, 3, H, W) unit vectors."""
    return F.normalize(output, dim=1, eps=1e-6)


# The first of a task's is its default. manifests/job_training.py checks names against the same table.
OBJECTIVES: dict[str, dict[str, Objective]] = {
    "depth": {
        "affine": Objective(losses.affine_depth, as_it_is, as_it_is),
        "silog": Objective(losses.silog_depth, F.softplus, F.softplus),
    },
    "normal": {
        "cosine": Objective(losses.cosine_normal, unit, unit),
        "cosine_gradient": Objective(losses.gradient_normal, unit, unit),
    },
    "foreground": {"matting": Objective(losses.matting, as_it_is, torch.sigmoid)},
}


def objective(task: str, loss: str | None) -> Objective:
    """What ``task`` is trained with; None = its first loss."""
    found = OBJECTIVES[task]
    return found[loss or next(iter(found))]
