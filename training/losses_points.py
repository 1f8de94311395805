"""Predicted and true point maps -> Sapiens2's loss (sapiens.md 3.5), each term a mean over pictures.

Points are canonical: as a camera of a focal length of one picture's width would see them, so multiplied by the scale
s = width / fx (768 / fx at the published 1024x768). Camera frame OpenCV. Legend: B batch, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Weights of the terms; what is divided by the mean depth counts at most CAP.
L1, SCALES, SILOG, RAYS, SHIFTED, NORMALS, SCALE, CAP = 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 4.0
NEAREST, GAIN = 1e-4, 100.0


def pointmap(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``prediction``: (B, 4, H, W) canonical points and their scale. ``target``: (B, 6, H, W) canonical points, the slopes x / z
    and y / z of each pixel's ray, the scale. ``mask``: (B, 1, H, W) bool.
    """
    points, truth = prediction[:, :3], target[:, :3]
    rays, scale = target[:, 3:5], target[:, 5:6]
    depth = _mean(truth[:, 2:3], mask).clamp_min(NEAREST)
    fine = [F.interpolate(p, scale_factor=2.0, mode="bilinear", align_corners=False) for p in (points, truth)]
    finer = mask.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    total = L1 * _capped(points - truth, mask, depth)
    # Twice as fine means between pixels too: only where all that are mixed count.
    total = total + SCALES * _capped(fine[0] - fine[1], finer & _all_near(finer), depth)
    total = total + SILOG * _silog(points[:, 2:3], truth[:, 2:3], mask)
    off = (points[:, :2] - rays * points[:, 2:3]).abs().sum(dim=1, keepdim=True)
    total = total + RAYS * _mean(off, mask)
    centred = [p - _mean(p, mask)[:, :, None, None] for p in (points, truth)]
    total = total + SHIFTED * _capped(centred[0] - centred[1], mask, depth)
    total = total + NORMALS * _normals(points / scale, truth / scale, mask)
    told, known = prediction[:, 3:4, 0, 0], target[:, 5:6, 0, 0]
    total = total + SCALE * torch.where(mask.any(dim=(2, 3)), (told - known).abs(), 0.0)
    return total.mean()


def normals_of(points: Tensor) -> Tensor:
    """(B, 3, H, W) metres -> (B, 3, H, W) unit: cross product of the steps to the right and down, the border reflected."""
    grown = F.pad(GAIN * points, (0, 1, 0, 1), mode="reflect")
    across, down = grown[..., :-1, 1:] - grown[..., :-1, :-1], grown[..., 1:, :-1] - grown[..., :-1, :-1]
    return F.normalize(torch.linalg.cross(across, down, dim=1), dim=1, eps=1e-6)


def _normals(points: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    both = mask.clone()
    both[..., :-1] &= mask[..., 1:]
    both[..., :-1, :] &= mask[..., 1:, :]
    # At the border the reflected neighbour is the one before.
    both[..., -1] = False
    both[..., -1, :] = False
    mine, theirs = normals_of(points), normals_of(truth)
    error = 1 - (mine * theirs).sum(dim=1, keepdim=True) + (mine - theirs).abs().mean(dim=1, keepdim=True)
    return _mean(error, both)


def _silog(z: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    delta = torch.where(mask, z.clamp_min(NEAREST).log() - truth.clamp_min(NEAREST).log(), 0.0)
    first, second = _mean(delta, mask), _mean(delta**2, mask)
    return (second - 0.5 * first**2).clamp_min(1e-12).sqrt()


def _capped(error: Tensor, mask: Tensor, depth: Tensor) -> Tensor:
    return (_mean(error.abs().mean(dim=1, keepdim=True), mask) / depth).clamp_max(CAP)


def _all_near(mask: Tensor) -> Tensor:
    """Where a 3x3 neighbourhood lies in ``mask`` (B, 1, H, W)."""
    return F.max_pool2d((~mask).float(), 3, stride=1, padding=1) == 0


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C) over the mask; 0 where there is nothing."""
    count = mask.sum(dim=(2, 3)).clamp(min=1)
    return torch.where(mask, values, 0.0).sum(dim=(2, 3)) / count
