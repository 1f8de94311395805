"""An upright picture -> how sharp, how lit, how varied and how framed it is: numbers alone, the policy decides.

All are measured on luma whose longer side is 256 px, so that a threshold means the same for every size.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

SIDE_PX = 256
# A border is flat where its luma varies by less than this: JPEG's ringing stays below, a clear sky's noise and gradient do
# not always, which is why the policy's limit is generous.
FLAT_STD = 3.0


@dataclasses.dataclass(frozen=True)
class Quality:
    """``blur``: variance of the Laplacian, low is soft. ``dark``, ``bright``: 1st and 99th percentile of luma 0..255.
    ``entropy``: bits. ``border``: share of the area outside ``inner`` (left, top, right, bottom, shares of the sides).
    """

    blur: float
    dark: float
    bright: float
    entropy: float
    border: float
    inner: tuple[float, float, float, float]


def luma(rgb: np.ndarray, side: int = SIDE_PX) -> np.ndarray:
    """(h, w) uint8 luma of (H, W, 3) uint8, its longer side at most ``side`` px."""
    factor = side / max(rgb.shape[:2])
    if factor >= 1:
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    whole = int(1 / factor)
    if whole >= 2:
        # Throwing whole rows away first is quick; two in each direction are left to average over.
        step = max(1, whole // 2)
        rgb = np.ascontiguousarray(rgb[::step, ::step]) if step > 1 else rgb
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    factor = side / max(grey.shape)
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def measure(grey: np.ndarray) -> Quality:
    """``grey``: (h, w) uint8 from `luma`."""
    counts = np.bincount(grey.ravel(), minlength=256)
    share = counts[counts > 0] / grey.size
    below = np.cumsum(counts) / grey.size
    inner = inside(grey)
    return Quality(
        blur=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        dark=float(np.searchsorted(below, 0.01)),
        bright=float(np.searchsorted(below, 0.99)),
        entropy=float(-(share * np.log2(share)).sum()),
        border=float(1 - (inner[2] - inner[0]) * (inner[3] - inner[1])),
        inner=inner,
    )


def inside(grey: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, as shares of the sides, of what flat borders frame; all of a picture that is flat."""
    rows, columns = _busy(grey), _busy(grey.T)
    if rows is None or columns is None:
        return (0.0, 0.0, 1.0, 1.0)
    h, w = grey.shape
    return (columns[0] / w, rows[0] / h, columns[1] / w, rows[1] / h)


def _busy(grey: np.ndarray) -> tuple[int, int] | None:
    """First and last + 1 of the rows that a flat border does not hold: each flat, and all of the border's own shade."""
    first = _border(grey)
    return None if first is None else (first, len(grey) - (_border(grey[::-1]) or 0))


def _border(grey: np.ndarray) -> int | None:
    """How many rows, from the first, are border; None where all are. Most pictures have none: a few rows are looked at."""
    shade = grey[0].mean()
    for start in range(0, len(grey), 8):
        some = grey[start : start + 8]
        busy = (some.std(axis=1) > FLAT_STD) | (abs(some.mean(axis=1) - shade) > FLAT_STD)
        if busy.any():
            return start + int(busy.argmax())
    return None
