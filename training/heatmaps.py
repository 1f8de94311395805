"""Keypoints <-> heatmaps: UDP targets (Huang et al. 2020), and three ways back: DARK's sub-pixel step (Zhang et al. 2020), the
plain maximum, and the integral.

Places are shares of the picture between the centres of its first and last pixel, 0..1: the same at any resolution, which is
what unbiased data processing comes to. Legend: B batch, K keypoints, h rows, w columns.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

# Sapiens: deviation 6 at 256 rows (sapiens.md 3.1); blobs end at three deviations; DARK blurs with a kernel of 11 there.
SIGMA, ROWS, REACH, KERNEL = 6.0, 256, 3.0, 11


def shares(uv_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., 2) px of a picture of ``size`` (H, W), pixel centres at halves -> shares."""
    return (uv_px - 0.5) / (np.array(size[::-1]) - 1)


def pixels(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The inverse of ``shares``."""
    return places * (np.array(size[::-1]) - 1) + 0.5


def deviation(rows: int) -> float:
    """Of a blob in a heatmap of ``rows``; at least a place."""
    return max(1.0, SIGMA * rows / ROWS)


def drawn(places: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, 2) shares -> (B, K, h, w) float32 Gaussian blobs of height 1 at sub-pixel places; 0 past three deviations."""
    h, w = size
    sigma = deviation(h)
    scale = torch.tensor([w - 1, h - 1], device=places.device, dtype=places.dtype)
    at = places * scale
    columns = torch.arange(w, device=places.device, dtype=places.dtype)
    rows = torch.arange(h, device=places.device, dtype=places.dtype)
    dx, dy = columns - at[..., :1], rows - at[..., 1:]
    blobs = torch.exp(-(dx**2)[:, :, None, :] / (2 * sigma**2)) * torch.exp(-(dy**2)[:, :, :, None] / (2 * sigma**2))
    near = ((dx.abs() <= REACH * sigma)[:, :, None, :]) & ((dy.abs() <= REACH * sigma)[:, :, :, None])
    return torch.where(near, blobs, 0.0)


def dark(heatmaps: np.ndarray) -> np.ndarray:
    """(K, h, w) -> (K, 3): share across, share down, score (the peak's height). One Newton step on the logarithm of the
    blurred map from its maximum, exact for a Gaussian.
    """
    k, h, w = heatmaps.shape
    kernel = max(3, 2 * round((KERNEL * h / ROWS - 1) / 2) + 1)
    out = np.zeros((k, 3))
    for i, heat in enumerate(heatmaps):
        heat = heat.astype(np.float64)
        y, x = divmod(int(heat.argmax()), w)
        out[i] = x, y, heat[y, x]
        if 0 < x < w - 1 and 0 < y < h - 1:
            blurred = np.log(np.maximum(cv2.GaussianBlur(heat, (kernel, kernel), 0), 1e-10))
            out[i, :2] += _newton(blurred[y - 1 : y + 2, x - 1 : x + 2])
    out[:, :2] /= [max(w - 1, 1), max(h - 1, 1)]
    return out


def _newton(around: np.ndarray) -> np.ndarray:
    """(2,) step across and down to the peak of the parabola through (3, 3) log heights, at most a place each way."""
    gradient = np.array([around[1, 2] - around[1, 0], around[2, 1] - around[0, 1]]) / 2
    xx = around[1, 2] - 2 * around[1, 1] + around[1, 0]
    yy = around[2, 1] - 2 * around[1, 1] + around[0, 1]
    xy = (around[2, 2] - around[2, 0] - around[0, 2] + around[0, 0]) / 4
    hessian = np.array([[xx, xy], [xy, yy]])
    if np.linalg.det(hessian) <= 1e-12 or xx >= 0:
        return np.zeros(2)
    return np.clip(-np.linalg.solve(hessian, gradient), -1, 1)


def integral(heatmaps: np.ndarray) -> np.ndarray:
    """(K, h, w) logits -> (K, 3): the mean place under confidences of sum 1, and the largest confidence (AlphaPose)."""
    found = expected(torch.from_numpy(np.ascontiguousarray(heatmaps))[None].double())[0].numpy()
    score = 1 / (1 + np.exp(-heatmaps.max(axis=(1, 2)).astype(np.float64)))
    return np.concatenate([found, score[:, None]], axis=1)


def expected(logits: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, K, 2) mean shares. A sigmoid for each place's confidence, then all divided by their sum."""
    confidence = logits.sigmoid()
    p = confidence / confidence.sum(dim=(2, 3), keepdim=True)
    h, w = logits.shape[2:]
    across = torch.linspace(0, 1, w, device=p.device, dtype=p.dtype)
    down = torch.linspace(0, 1, h, device=p.device, dtype=p.dtype)
    return torch.stack([_Mean.apply(p.sum(dim=2), across), _Mean.apply(p.sum(dim=3), down)], dim=-1)


class _Mean(torch.autograd.Function):
    """Mean place, with AlphaPose's symmetric gradient (Fang et al. 2022, 3.2): a place's weight grows or falls by the same
    amount on either side of the mean, whatever its distance from the picture's corner.
    """

    AMPLITUDE = 2.0

    @staticmethod
    def forward(ctx, p: Tensor, places: Tensor) -> Tensor:
        mean = (p * places).sum(dim=-1)
        ctx.save_for_backward(mean, places)
        return mean

    @staticmethod
    def backward(ctx, gradient: Tensor):
        mean, places = ctx.saved_tensors
        return _Mean.AMPLITUDE * gradient[..., None] * (places - mean[..., None]).sign(), None
