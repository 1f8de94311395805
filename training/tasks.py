"""A task's name -> its losses, and how what the head puts out is read: all that differs between tasks in training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import heatmaps, losses, losses_points, losses_tasks

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Reading = Callable[[Tensor], Tensor]
Placing = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Objective:
    """``trained``: the head's output as the loss takes it; ``read``: the head's output as a user takes it. ``places``: (K, h, w)
    heatmaps as read -> (K, 3) shares and scores (training/heatmaps.py), of poses.
    """

    loss: Loss
    trained: Reading
    read: Reading
    places: Placing | None = None


def as_it_is(output: Tensor) -> Tensor:
    """Relative depth, larger is farther."""
    return output


def unit(output: Tensor) -> Tensor:
    """(B, 3, H, W) unit vectors."""
    return F.normalize(output, dim=1, eps=1e-6)


def metric(output: Tensor) -> Tensor:
    """(B, 4, H, W) canonical points and scale -> (B, 4, H, W) metres and the scale."""
    scale = output[:, 3:].clamp_min(1e-3)
    return torch.cat([output[:, :3] / scale, output[:, 3:]], dim=1)


def shares(output: Tensor) -> Tensor:
    """(B, C, H, W) logits -> shares of the classes."""
    return output.softmax(dim=1)


def colour(output: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in 0..1."""
    return output.clamp(0, 1)


_PARTS = {
    "cross_entropy_dice": Objective(losses_tasks.cross_entropy_dice, as_it_is, shares),
    "cross_entropy": Objective(losses_tasks.cross_entropy, as_it_is, shares),
}
_POSE = {
    "udp": Objective(losses_tasks.udp_heatmaps, as_it_is, as_it_is, heatmaps.dark),
    "ohkm": Objective(losses_tasks.hard_heatmaps, as_it_is, as_it_is, heatmaps.dark),
    "integral": Objective(losses_tasks.symmetric_integral, as_it_is, as_it_is, heatmaps.integral),
}
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
    "parts": _PARTS,
    "parts28": _PARTS,
    "pose17": _POSE,
    "pose133": _POSE,
    "pose308": _POSE,
    "pointmap": {"sapiens2": Objective(losses_points.pointmap, as_it_is, metric)},
    "albedo": {"sapiens2": Objective(losses_tasks.albedo, as_it_is, colour)},
}


def objective(task: str, loss: str | None) -> Objective:
    """What ``task`` is trained with; None = its first loss."""
    found = OBJECTIVES[task]
    return found[loss or next(iter(found))]
