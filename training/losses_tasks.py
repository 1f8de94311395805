"""Prediction and truth -> the losses of parts, pose and albedo; those of point maps are in losses_points.py.

Means over pictures of means over a picture's own pixels or keypoints, as in losses.py: what is not labelled adds nothing.
Legend: B batch, C classes, K keypoints, H rows, W columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from manifests import parts
from training import heatmaps
from training.losses import mean

DICE_EPSILON = 1e-3
# Share of the keypoints that count as hard: 128 of Sapiens's 308; 8 of COCO's 17, as in CPN.
HARD = 128 / 308
# Sapiens2's weight on heatmaps, whose squares are small.
HEATMAP_WEIGHT = 10.0


def cross_entropy(logits: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
    """Weighted by class (Sapiens v1). ``logits``: (B, C, H, W); ``classes``: (B, 1, H, W) ids as floats, 255 = unlabelled."""
    labelled = mask & (classes < logits.shape[1])
    ids = torch.where(labelled, classes, 0).long()[:, 0]
    weights = class_weights(logits.shape[1], logits)
    values = F.cross_entropy(logits.float(), ids, reduction="none") * weights[ids]
    return mean(values[:, None], labelled)


def cross_entropy_dice(logits: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
    """Weighted cross entropy plus Dice, 1 : 1 (Sapiens2, sapiens.md 3.2)."""
    return cross_entropy(logits, classes, mask) + dice(logits, classes, mask)


def dice(logits: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
    """1 - (2 sum pg + e) / (sum p^2 + sum g^2 + e), a mean over the classes present in a picture, background left out."""
    labelled = (mask & (classes < logits.shape[1])).float()
    p = logits.float().softmax(dim=1) * labelled
    ids = torch.where(labelled > 0, classes, 0).long()[:, 0]
    g = F.one_hot(ids, logits.shape[1]).movedim(3, 1).to(p.dtype) * labelled
    both, squares = (p * g).sum(dim=(2, 3)), (p * p).sum(dim=(2, 3)) + g.sum(dim=(2, 3))
    lost = 1 - (2 * both + DICE_EPSILON) / (squares + DICE_EPSILON)
    present = g.sum(dim=(2, 3)) > 0
    present[:, 0] = False
    return ((lost * present).sum(dim=1) / present.sum(dim=1).clamp_min(1)).mean()


def class_weights(classes: int, like: Tensor) -> Tensor:
    """(C,) weights of the 29 or 28 classes."""
    table = parts.WEIGHTS if classes == len(parts.CLASSES) else parts.WEIGHTS28
    return torch.tensor(table, device=like.device, dtype=torch.float32)


def udp_heatmaps(prediction: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Mean square against UDP blobs. ``prediction``: (B, K, h, w); ``places``: (B, K, 2) shares; ``mask``: (B, K, 1) bool."""
    return HEATMAP_WEIGHT * _each(prediction, places, mask).mean()


def hard_heatmaps(prediction: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """As ``udp_heatmaps``, of each picture's worst keypoints alone (OHKM, Chen et al. 2018)."""
    count = math.ceil(HARD * places.shape[1])
    return HEATMAP_WEIGHT * _each(prediction, places, mask).topk(count, dim=1).values.mean()


def symmetric_integral(prediction: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """L1 between places and the heatmaps' means, with AlphaPose's symmetric gradient. Arguments as ``udp_heatmaps``."""
    error = (heatmaps.expected(prediction.float()) - places).abs().sum(dim=2)
    seen = mask[..., 0]
    return (torch.where(seen, error, 0.0).sum(dim=1) / seen.sum(dim=1).clamp_min(1)).mean()


def albedo(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """2 L1 + 2 gradients + chroma L1 (Sapiens2, sapiens.md 3.6). Both (B, 3, H, W) sRGB 0..1."""
    error = prediction - truth
    plain = 2 * mean(error.abs().mean(dim=1, keepdim=True), mask)
    across, down = mask[..., 1:] & mask[..., :-1], mask[..., 1:, :] & mask[..., :-1, :]
    dx = (error[..., 1:] - error[..., :-1]).square().mean(dim=1, keepdim=True)
    dy = (error[..., 1:, :] - error[..., :-1, :]).square().mean(dim=1, keepdim=True)
    edges = mean(dx, across) + mean(dy, down)
    colour = (_chroma(prediction.clamp(0, 1)) - _chroma(truth)).abs().mean(dim=1, keepdim=True)
    return plain + edges + mean(colour, mask)


def _chroma(rgb: Tensor) -> Tensor:
    return rgb / (rgb.sum(dim=1, keepdim=True) + 1e-6)


def _each(prediction: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """(B, K) mean squares over a heatmap's places, 0 where a keypoint is not known."""
    size = prediction.shape[2], prediction.shape[3]
    blobs = heatmaps.drawn(places, size)
    return torch.where(mask[..., 0], (prediction.float() - blobs).square().mean(dim=(2, 3)), 0.0)
