"""An upright picture -> how surely it was drawn and not taken: sketches and cartoons, by statistics alone, without weights.

What they cannot do: paintings and rendered people have a photograph's statistics (7 to 9 % found at 1 % false alarms,
measured on PACS); those need a head on an embedding.
"""

from __future__ import annotations

import cv2
import numpy as np

from curation import trees

# Longer side that is looked at, px; what a JPEG does to single pixels is averaged out by the reduction to it.
SIDE_PX = 320
NAMES = ("flat", "almost flat", "palette", "first colour", "five colours", "white", "black", "grey", "saturation",
         "saturation spread", "gradient kurtosis", "gradient tail", "slope of spectrum", "noise", "edges", "dark edges",
         "paper", "bimodal", "fine to coarse", "flat blocks",
         "mean", "skew", "low tenth", "thin dark", "thin dark to light", "calm noise", "calm share", "colour edges")  # fmt: skip


class Drawn:
    """Scores pictures by the ensemble that came along."""

    name = "statistics of drawing"

    def __init__(self) -> None:
        self._trees = trees.load(trees.BUNDLED / "drawn.json")

    def __call__(self, rgb: np.ndarray) -> float:
        """0..1, 0.5 where one in a hundred clean photographs lies above; ``rgb``: (H, W, 3) uint8."""
        return float(self._trees(features(rgb)[None])[0])


def features(rgb: np.ndarray) -> np.ndarray:
    """(len(NAMES),) float, of a picture (H, W, 3) uint8."""
    factor = SIDE_PX / max(rgb.shape[:2])
    size = (max(16, round(rgb.shape[1] * factor)), max(16, round(rgb.shape[0] * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    grey: np.ndarray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    luma = grey.astype(np.float32)
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=0.125)
    size_of = np.hypot(gx, gy)
    top = small.max(axis=2).astype(np.float32)
    chroma = top - small.min(axis=2)
    saturation = chroma / np.maximum(top, 8)
    codes = (np.asarray(small, np.uint8) >> 4).astype(np.int32)
    counts = np.sort(np.bincount((codes @ np.array([256, 16, 1])).ravel()))[::-1]
    share = counts / counts.sum()
    whole = np.sort(np.bincount(grey.ravel(), minlength=256))[::-1] / grey.size
    edge = size_of > 12
    residual = luma - cv2.medianBlur(grey, 3)
    calm = size_of < np.median(size_of) + 0.5
    h, w = (v // 16 * 16 for v in luma.shape)
    blocks = luma[:h, :w].reshape(h // 16, 16, w // 16, 16)
    histogram = np.bincount(grey.ravel() >> 3, minlength=32) / grey.size
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    hollow = float(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc).mean())
    raised = float(cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, disc).mean())
    fine = cv2.absdiff(luma, cv2.GaussianBlur(luma, (0, 0), 1)).mean()
    coarse = cv2.absdiff(luma, cv2.GaussianBlur(luma, (0, 0), 6)).mean()
    return np.array([
        (size_of < 0.6).mean(),
        (size_of < 2).mean(),
        np.searchsorted(np.cumsum(share), 0.9) + 1,
        share[0],
        share[:5].sum(),
        (small.min(axis=2) > 235).mean(),
        (top < 25).mean(),
        (chroma < 12).mean(),
        saturation.mean(),
        saturation.std(),
        np.log((size_of**4).mean() / max((size_of**2).mean() ** 2, 1e-6)),
        np.log1p(np.percentile(size_of, 99)) - np.log1p(np.percentile(size_of, 50)),
        _slope(luma),
        abs(residual[calm]).mean() if calm.any() else 0.0,
        edge.mean(),
        luma[edge].mean() - luma.mean() if edge.any() else 0.0,
        whole[:6].sum(),
        np.sort(histogram)[-2:].sum(),
        np.log((fine + 0.05) / (coarse + 0.05)),
        (blocks.std(axis=(1, 3)) < 1.5).mean(),
        luma.mean(),
        ((luma - luma.mean()) ** 3).mean() / (luma.std() + 4) ** 3,
        np.percentile(grey, 10),
        np.log1p(hollow),
        np.log((hollow + 0.5) / (raised + 0.5)),
        *_noise(rgb),
        np.log1p(abs(cv2.Laplacian(chroma, cv2.CV_32F)).mean()),
    ])  # fmt: skip


def _slope(luma: np.ndarray) -> float:
    """The exponent with which power falls with frequency: near -2 for photographs."""
    side = 128
    square = cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA)
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = abs(np.fft.fft2((square - square.mean()) * window)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) * side
    rings = np.array([power[(radius >= a) & (radius < a * 1.4)].mean() for a in (4, 8, 16, 32)])
    return float(np.polyfit(np.log([4, 8, 16, 32]), np.log(rings + 1e-3), 1)[0])


def _noise(rgb: np.ndarray) -> tuple[float, float]:
    """Deviation of the calmest blocks at the picture's own size, which cameras leave noisy and programs do not; and the
    share of blocks that have next to none.
    """
    h, w = (v // 8 * 8 for v in rgb.shape[:2])
    # Green carries most of the light and the least of the JPEG's own loss.
    plane = rgb[:h, :w, 1].astype(np.float32)
    mean, square = (cv2.resize(v, (w // 8, h // 8), interpolation=cv2.INTER_AREA) for v in (plane, plane * plane))
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    return float(np.percentile(spread, 20)), float((spread < 0.5).mean())
