"""A picture of skin on the base mesh's own map -> its linear colours where a chart's texels lie, or why it is none.

Legend: S texels of a chart, H and W of a picture. Places on the map are (..., 2), v up.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from manifests.errors import PhotoError
from manifests.photo import decode
from render.people.chart import base_uv
from render.response import linear

# Pictures larger than this are read at this size, and smaller than that a face has a few texels.
MOST_PX, LEAST_PX = 2048, 256
# Linear light of the darkest cheeks that a photographed skin may have.
DARKEST = 0.003
# Pixels from an island's edge on, of a picture of MOST_PX, that show its own skin.
RIM_PX = 3


@functools.lru_cache(maxsize=2)
def picture(file: str) -> np.ndarray:
    """(H, W, 3) uint8 sRGB, MOST_PX wide or high at most. Raises PhotoError, OSError."""
    rgb, _ = decode(Path(file).read_bytes())
    if min(rgb.shape[:2]) < LEAST_PX:
        raise PhotoError("too_small", f"{rgb.shape[1]}x{rgb.shape[0]} pixels, {LEAST_PX} needed")
    scale = MOST_PX / max(rgb.shape[:2])
    if scale < 1:
        high, wide = (max(LEAST_PX, round(scale * side)) for side in rgb.shape[:2])
        rgb = cv2.resize(rgb, (wide, high), interpolation=cv2.INTER_AREA)
    high, wide = rgb.shape[:2]
    beside, inside = _rims(high, wide)
    rgb = rgb.copy()
    rgb.reshape(-1, 3)[beside] = rgb.reshape(-1, 3)[inside]
    rgb.setflags(write=False)
    return rgb


def bare(file: str, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3,) linear RGB of skin in the picture: its mean over texels at ``at`` (S, S, 2), ``weight`` (S, S) of each. Raises
    PhotoError where that is black, or the file no picture; OSError.
    """
    rgb = picture(file)
    high, wide = rgb.shape[:2]
    row = np.clip(((1 - at[..., 1]) * high).astype(int), 0, high - 1)
    column = np.clip((at[..., 0] * wide).astype(int), 0, wide - 1)
    mean: np.ndarray = (linear(rgb[row, column]) * weight[..., None]).sum((0, 1)) / weight.sum()
    if mean.min() < DARKEST:
        raise PhotoError("no_skin", "black where cheeks and forehead are on the base mesh's map")
    return mean


def colours(file: str, at: np.ndarray, side: int = MOST_PX) -> np.ndarray:
    """(S, S, 3) float32 linear RGB of the picture, reduced to ``side`` pixels first, at ``at`` (S, S, 2)."""
    rgb = picture(file)
    scale = side / max(rgb.shape[:2])
    light = linear(rgb)
    if scale < 1:
        light = cv2.resize(light, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    high, wide = light.shape[:2]
    columns, rows = at[..., 0] * wide - 0.5, (1 - at[..., 1]) * high - 0.5
    return cv2.remap(light, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@functools.lru_cache(maxsize=2)
def _rims(high: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """(B,) flat pixels of a picture on the base mesh's map that lie beside its islands, or on their edge, where pictures mix
    skin with what is round it; and (B,) the nearest of each well inside.
    """
    rim = max(1, round(RIM_PX * max(high, wide) / MOST_PX))
    on = np.zeros((high, wide), np.uint8)
    for corners in base_uv().values():
        px = (np.array(corners) * [wide, -high] + [0, high]).round().astype(np.int32)
        cv2.fillConvexPoly(on, px, (1,))
    on = cv2.erode(on, np.ones((3, 3), np.uint8), iterations=rim).astype(np.uint8)
    far, label = cv2.distanceTransformWithLabels(1 - on, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    place = np.zeros(int(label.max()) + 1, np.int64)
    inner = np.flatnonzero(on)
    place[label.ravel()[inner]] = inner
    beside = np.flatnonzero((far > 0) & (far < 4 * rim))
    return beside, place[label.ravel()[beside]]
