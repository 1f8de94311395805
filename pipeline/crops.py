"""Boxes of people -> cuts of the model's shape, and maps of those cuts -> one map of the whole picture.

Boxes are xyxy px of the picture. Legend: (H, W) the picture, (h, w) a cut, P people, C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

# Room around a box: hair and feet that a detector cuts off, and a rim of background to tell them from.
MARGIN = 1.2
# Rows and columns.
Place = tuple[Any, Any]
# A cut this small holds nothing to predict from.
SMALLEST_PX = 8


@dataclasses.dataclass(frozen=True)
class Crop:
    """A cut of whole px, ``x0`` to ``x1`` and ``y0`` to ``y1`` half open; it may reach past the picture."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        return self.y1 - self.y0, self.x1 - self.x0

    def inside(self, size: tuple[int, ...]) -> Place:
        """Rows and columns of a picture of ``size`` (H, W) that the cut covers."""
        return (
            slice(max(0, self.y0), max(0, min(size[0], self.y1))),
            slice(max(0, self.x0), max(0, min(size[1], self.x1))),
        )

    def own(self, size: tuple[int, ...]) -> Place:
        """The same part in the cut's own rows and columns."""
        rows, columns = self.inside(size)
        return (
            slice(rows.start - self.y0, rows.stop - self.y0),
            slice(columns.start - self.x0, columns.stop - self.x0),
        )

    def intrinsics(self, K: np.ndarray) -> np.ndarray:
        """(3, 3) px of the cut, of the picture's ``K``: the principal point moves, nothing turns."""
        moved = np.array(K, np.float64)
        moved[0] -= self.x0 * moved[2]
        moved[1] -= self.y0 * moved[2]
        return moved


def around(box: Sequence[float], model: tuple[int, int], margin: float = MARGIN) -> Crop:
    """The smallest cut of the shape of ``model`` (height, width) that holds ``box`` and a margin, about its middle."""
    x0, y0, x1, y1 = box
    height = max(margin * (y1 - y0), margin * (x1 - x0) * model[0] / model[1], SMALLEST_PX)
    width = height * model[1] / model[0]
    left, top = round((x0 + x1 - width) / 2), round((y0 + y1 - height) / 2)
    return Crop(left, top, left + max(1, round(width)), top + max(1, round(height)))


def cut(rgb: np.ndarray, crop: Crop) -> np.ndarray:
    """(h, w, 3) uint8 of ``rgb`` (H, W, 3); beyond the picture its border goes on, as no dark edge that looks like one does."""
    rows, columns = crop.inside(rgb.shape[:2])
    edges = (rows.start - crop.y0, crop.y1 - rows.stop, columns.start - crop.x0, crop.x1 - columns.stop)
    return cv2.copyMakeBorder(rgb[rows, columns], *edges, borderType=cv2.BORDER_REPLICATE)


def owners(crops: Sequence[Crop], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: whose cut a pixel is read from, 1 to P, 0 outside all. Where cuts overlap, the one whose middle is nearer
    by its own measure.
    """
    best, owner = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    for i, crop in enumerate(crops, 1):
        (h, w), (rows, columns) = crop.shape, crop.inside(size)
        across = 1 - np.abs((np.arange(columns.start, columns.stop) + 0.5 - crop.x0) / w * 2 - 1)
        down = 1 - np.abs((np.arange(rows.start, rows.stop) + 0.5 - crop.y0) / h * 2 - 1)
        near = np.minimum(down[:, None], across[None]).astype(np.float32)
        mine = near > best[rows, columns]
        best[rows, columns][mine] = near[mine]
        owner[rows, columns][mine] = i
    return owner


def pasted(maps: Sequence[np.ndarray], crops: Sequence[Crop], owner: np.ndarray) -> np.ndarray:
    """(H, W, C) of the maps (h, w, C), each where ``owner`` gives it the pixel; 0 outside all cuts."""
    size = owner.shape[:2]
    out = np.zeros((*size, maps[0].shape[2]), maps[0].dtype)
    for i, (field, crop) in enumerate(zip(maps, crops), 1):
        place = crop.inside(size)
        mine = owner[place] == i
        out[place][mine] = field[crop.own(size)][mine]
    return out
