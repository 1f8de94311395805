"""Prediction and truth -> a scalar loss per dense task.

Every loss is a mean over pictures of a mean over a picture's own pixels: so neither the number of workers nor the parts a
batch is taken in change it. Legend: B batch, H rows, W columns. ``mask``: (B, 1, H, W) bool, the pixels that count; a
picture without any adds nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


def affine_depth(prediction: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Scale-and-shift-invariant L1 plus multi-scale gradient matching (MiDaS, Ranftl et al. 2020; DAViD section 5.2).

    ``prediction``: (B, 1, H, W) relative. ``depth``: (B, 1, H, W) metres. Truth is normalised per picture to mean 0 and mean
    deviation 1; the prediction is fitted to it by least squares first.
    """
    target = normalised_depth(depth, mask)
    scale, shift = align(prediction, target, mask)
    error = torch.where(mask, prediction * scale + shift - target, 0.0)
    # Directly against the normalised truth too: it keeps the free scale and shift of the fit from drifting.
    anchor = (prediction - target).abs()
    return mean(error.abs() + 0.5 * anchor, mask) + 0.5 * gradient(error, mask)


def silog_depth(prediction: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """SiLog (Eigen et al. 2014, weight 0.5) on depth scaled to 0..1 over each picture's mask, as Sapiens v1 (section 3.3).

    ``prediction``: (B, 1, H, W) positive. The nearest pixel, 0 after scaling, has no logarithm and is left out.
    """
    big = torch.finfo(depth.dtype).max
    near = torch.where(mask, depth, big).amin(dim=(1, 2, 3), keepdim=True)
    far = torch.where(mask, depth, -big).amax(dim=(1, 2, 3), keepdim=True)
    target = (depth - near) / (far - near).clamp_min(EPSILON)
    valid = mask & (target > EPSILON)
    safe = torch.where(valid, target, 1.0)
    delta = torch.where(valid, safe.log() - prediction.clamp_min(EPSILON).log(), 0.0)
    count = valid.sum(dim=(1, 2, 3)).clamp_min(1)
    first, second = delta.sum(dim=(1, 2, 3)) / count, (delta**2).sum(dim=(1, 2, 3)) / count
    # The root has no slope at 0: a picture that fits to the last bit, or has no pixel, stops there.
    return (second - 0.5 * first**2).clamp_min(1e-12).sqrt().mean()


def cosine_normal(prediction: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """(1 - cos) + L1 over the channels, as Sapiens v1 (section 3.4). Both (B, 3, H, W), unit on the mask."""
    return mean(1 - _cosine(prediction, normal) + _l1(prediction, normal), mask)


def gradient_normal(prediction: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """10 (1 - cos) + L1 over the channels + 10 squared differences of forward differences, as Sapiens2 (section 3.4)."""
    plain = mean(10 * (1 - _cosine(prediction, normal)) + _l1(prediction, normal), mask)
    error = prediction - normal
    across, down = _neighbours(mask)
    dx = (error[..., 1:] - error[..., :-1]).square().mean(dim=1, keepdim=True)
    dy = (error[..., 1:, :] - error[..., :-1, :]).square().mean(dim=1, keepdim=True)
    return plain + 10 * (mean(dx, across) + mean(dy, down))


def matting(prediction: Tensor, alpha: Tensor, mask: Tensor) -> Tensor:
    """BCE + L1 + Dice + Laplacian pyramid (DAViD section 5.2). ``prediction``: (B, 1, H, W) logits; ``alpha`` 0..1."""
    guess = prediction.sigmoid()
    bce = F.binary_cross_entropy_with_logits(prediction, alpha, reduction="none")
    inside = torch.where(mask, guess, 0.0), torch.where(mask, alpha, 0.0)
    both = (inside[0] * inside[1]).sum(dim=(1, 2, 3))
    each = (inside[0] ** 2 + inside[1] ** 2).sum(dim=(1, 2, 3))
    dice = 1 - (2 * both + 1) / (each + 1)
    return mean(bce + (guess - alpha).abs(), mask) + dice.mean() + laplacian(*inside)


def laplacian(prediction: Tensor, truth: Tensor, levels: int = 5) -> Tensor:
    """Mean absolute difference of two Laplacian pyramids, (B, 1, H, W) each; level i counts 2 ** i (Niklaus and Liu 2018),
    scaled so that the weights add up to 1. Pictures too small for all levels have fewer.
    """
    levels = max(1, min(levels, min(truth.shape[2:]).bit_length() - 2))
    total = prediction.new_zeros(())
    error = prediction - truth
    for level in range(levels):
        # Both pyramids are linear: the pyramid of the difference is their difference.
        small = F.avg_pool2d(error, 2, ceil_mode=True, count_include_pad=False)
        last = level == levels - 1
        band = error if last else error - F.interpolate(small, error.shape[2:], mode="bilinear", align_corners=False)
        total = total + 2**level * band.abs().mean()
        error = small
    return total / (2**levels - 1)


def normalised_depth(depth: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, H, W): per picture, foreground mean 0 and mean absolute deviation 1; 0 on the background."""
    count = mask.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    middle = torch.where(mask, depth, 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    deviation = torch.where(mask, (depth - middle).abs(), 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    return torch.where(mask, (depth - middle) / deviation.clamp(min=1e-4), 0.0)


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
    """Mean absolute difference of ``error`` (B, 1, H, W) between neighbours that are both in the mask, at three scales."""
    total = error.new_zeros(())
    for step in (1, 2, 4):
        e, m = error[..., ::step, ::step], mask[..., ::step, ::step]
        across, down = _neighbours(m)
        total = total + mean((e[..., 1:] - e[..., :-1]).abs(), across)
        total = total + mean((e[..., 1:, :] - e[..., :-1, :]).abs(), down)
    return total / 3


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, H, W) -> the mean over pictures of each one's mean over its mask."""
    count = mask.sum(dim=(1, 2, 3)).clamp(min=1)
    return (torch.where(mask, values, 0.0).sum(dim=(1, 2, 3)) / count).mean()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(dim=1, keepdim=True)


def _neighbours(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs across and down of which both are in the mask."""
    return mask[..., 1:] & mask[..., :-1], mask[..., 1:, :] & mask[..., :-1, :]
