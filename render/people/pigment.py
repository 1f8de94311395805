"""Linear RGB of skin on a chart's texels -> tinted, clouded and spotted, and its bytes. Legend: S texels of a side."""

from __future__ import annotations

import cv2
import numpy as np

from render.response import srgb


def tint(rgb: np.ndarray, share: np.ndarray, factor: tuple[float, float, float]) -> None:
    """Multiply by ``factor`` where ``share`` is 1."""
    for c in range(3):
        rgb[..., c] *= 1 + share * np.float32(factor[c] - 1)


def clouds(rng: np.random.Generator, cells: int, octaves: int, px: int) -> np.ndarray:
    """(px, px) float32 in about 0..1, the largest lumps a ``cells``-th of the map."""
    total = np.zeros((px, px), np.float32)
    for k in range(octaves):
        n = min(cells * 2**k, px)
        grid = rng.random((n, n)).astype(np.float32)
        total += cv2.resize(grid, (px, px), interpolation=cv2.INTER_CUBIC) * 0.5**k
    low, high = np.quantile(total[::8, ::8], [0.02, 0.98])
    return np.clip((total - low) / (high - low), 0, 1)


def spots(at: np.ndarray, radius_m: np.ndarray, depth: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    """(S, S) float32: round marks at ``at`` (N, 2), x and y in texels, ``depth`` (N,) deep, as round on the skin as texels of
    ``size_m`` (S, S, 2) allow.
    """
    made = np.zeros(size_m.shape[:2], np.float32)
    texel = size_m[at[:, 1].astype(int), at[:, 0].astype(int)]
    axes = np.maximum(radius_m[:, None] / texel * 16, 8).astype(int)
    for (x, y), axis, d in zip(at, axes.tolist(), depth):
        cv2.ellipse(made, (round(x * 16), round(y * 16)), axis, 0, 0, 360, (float(d),), -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(made, (0, 0), 0.9)


def coloured(rgb: np.ndarray) -> np.ndarray:
    """(S, S, 4) uint8 sRGB, opaque, of linear (S, S, 3), by a table: charts are large."""
    table = np.rint(srgb(np.arange(4097) / 4096) * 255).astype(np.uint8)
    value = table[np.clip(rgb * 4096, 0, 4096).astype(np.int32)]
    return np.dstack([value, np.full(rgb.shape[:2], 255, np.uint8)])
