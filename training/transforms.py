"""Rows -> arrays of the model's size: crops, flips and colour that keep geometry true.

Legend: H, W the model's size. All draws come from the sample's own generator.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from manifests import codecs
from training.data import picture

# ImageNet's, as Sapiens normalises (0..255).
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def normalise(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, H, W) float32."""
    return np.ascontiguousarray(((rgb.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1))


def pretrain_sample(
    kind: str,
    row: dict[str, Any],
    rng: np.random.Generator,
    size: tuple[int, int],
    crop_scale: tuple[float, float],
    patches: int,
) -> dict[str, np.ndarray]:
    """{"image": (3, H, W) float32, "order": (N,) int64}: random resized crop, flip, and the order patches are masked
    in.
    """
    rgb = picture(kind, row)
    h, w = size
    x0, y0, cw, ch = random_crop(rgb.shape[1], rgb.shape[0], crop_scale, w / h, rng)
    out = cv2.resize(rgb[y0 : y0 + ch, x0 : x0 + cw], (w, h), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        out = out[:, ::-1]
    return {"image": normalise(out), "order": rng.permutation(patches)}


def dense_sample(
    row: dict[str, Any], rng: np.random.Generator | None, size: tuple[int, int], task: str
) -> dict[str, np.ndarray]:
    """{"image": (3, H, W), "target": (C, H, W) float32, "mask": (1, H, W) bool}; ``rng`` None = no augmentation.

    Depth in metres, normals unit in the OpenCV camera frame. A flip negates normal x; a crop changes neither.
    """
    camera = row["camera"]
    height, width = camera["height"], camera["width"]
    h, w = size
    rgb = codecs.decode_image(row["image"]["bytes"])
    mask = codecs.decode_u8(row["mask"], height, width)
    decode = codecs.decode_depth if task == "depth" else codecs.decode_normal
    target = decode(row[task], height, width)
    box = (0, 0, width, height) if rng is None else random_crop(width, height, (0.6, 1.0), w / h, rng)
    x0, y0, cw, ch = box
    rgb, mask, target = (a[y0 : y0 + ch, x0 : x0 + cw] for a in (rgb, mask, target))
    rgb = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    # Nearest: a mean of two surfaces is on neither.
    mask = cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST) != 0
    target = cv2.resize(target, (w, h), interpolation=cv2.INTER_NEAREST)
    if rng is not None:
        if rng.random() < 0.5:
            rgb, mask, target = rgb[:, ::-1], mask[:, ::-1], target[:, ::-1]
            if task == "normal":
                target = target * np.array([-1, 1, 1], np.float32)
        rgb = np.clip(rgb * rng.uniform(0.7, 1.3, (1, 1, 3)) + rng.uniform(-20, 20), 0, 255)
    channels = target[None] if task == "depth" else target.transpose(2, 0, 1)
    return {
        "image": normalise(rgb),
        "target": np.ascontiguousarray(channels, np.float32),
        "mask": np.ascontiguousarray(mask[None]),
    }


def random_crop(
    width: int, height: int, scale: tuple[float, float], aspect: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """x, y, w, h of a crop whose area is a share ``scale`` of the largest crop of ``aspect`` (w / h)."""
    largest_w = min(width, height * aspect)
    share = np.sqrt(rng.uniform(*scale))
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    w = int(np.clip(largest_w * share * stretch, 1, width))
    h = int(np.clip(largest_w / aspect * share / stretch, 1, height))
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
