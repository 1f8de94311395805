"""Prediction and truth on foreground pixels -> a scalar loss per dense task.

Legend: B batch, H rows, W columns. ``mask``: (B, 1, H, W) bool, foreground.
"""

from __future__ import annotations

import torch
from torch import Tensor


def depth_loss(prediction: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Scale-and-shift-invariant L1 plus gradient matching (MiDaS, Ranftl et al. 2020; DAViD section 5.2).

    ``prediction``: (B, 1, H, W) relative. ``depth``: (B, 1, H, W) metres. Truth is normalised per picture to median
    0 and
    mean deviation 1; the prediction is fitted by least squares first.
    """
    target = normalised_depth(depth, mask)
    scale, shift = align(prediction, target, mask)
    fitted = prediction * scale + shift
    count = mask.sum().clamp(min=1)
    error = torch.where(mask, fitted - target, 0.0)
    # Directly against the normalised truth too: it keeps the free scale and shift of the fit from drifting.
    anchor = (torch.where(mask, prediction - target, 0.0)).abs().sum() / count
    return error.abs().sum() / count + 0.5 * gradient(error, mask) + 0.5 * anchor


def normal_loss(prediction: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """(1 - cos) + L1, as Sapiens v1 (section 3.4). Both (B, 3, H, W), unit on the foreground."""
    count = mask.sum().clamp(min=1)
    cosine = (prediction * normal).sum(dim=1, keepdim=True)
    l1 = (prediction - normal).abs().sum(dim=1, keepdim=True)
    return torch.where(mask, 1 - cosine + l1, 0.0).sum() / count


def normalised_depth(depth: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, H, W): per picture, foreground mean 0 and mean absolute deviation 1; 0 on the background."""
    count = mask.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(mask, depth, 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    deviation = torch.where(mask, (depth - mean).abs(), 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    return torch.where(mask, (depth - mean) / deviation.clamp(min=1e-4), 0.0)


def align(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares scale and shift (B, 1, 1, 1) that carry ``prediction`` to ``target`` on the mask."""
    m = mask.to(prediction.dtype)
    n = m.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    p_mean = (prediction * m).sum(dim=(1, 2, 3), keepdim=True) / n
    t_mean = (target * m).sum(dim=(1, 2, 3), keepdim=True) / n
    p, t = (prediction - p_mean) * m, (target - t_mean) * m
    scale = (p * t).sum(dim=(1, 2, 3), keepdim=True) / (p * p).sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return scale, t_mean - scale * p_mean


def gradient(error: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of ``error`` (B, 1, H, W) between neighbours that are both foreground, at three
    scales.
    """
    total = error.new_zeros(())
    for step in (1, 2, 4):
        e, m = error[..., ::step, ::step], mask[..., ::step, ::step]
        both_x, both_y = m[..., 1:] & m[..., :-1], m[..., 1:, :] & m[..., :-1, :]
        dx, dy = (e[..., 1:] - e[..., :-1]).abs(), (e[..., 1:, :] - e[..., :-1, :]).abs()
        total = total + torch.where(both_x, dx, 0.0).sum() / both_x.sum().clamp(min=1)
        total = total + torch.where(both_y, dy, 0.0).sum() / both_y.sum().clamp(min=1)
    return total / 3


LOSSES = {"depth": depth_loss, "normal": normal_loss}
