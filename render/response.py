"""Linear radiance <-> the 8 bit sRGB picture that a camera makes of it, by the sRGB curve alone or as photographs look.

`photographic` is three steps with exact inverses: a shoulder that bends light from KNEE on towards white, sRGB with an
S-curve round PIVOT, and colours farther from grey. CONTRAST and SATURATION are set so that rendered close-ups have the
spread of luminance and the saturation of snapshots (`benchmarks/README.md`, response.py).
"""

from __future__ import annotations

import numpy as np

KNEE, PIVOT, CONTRAST, SATURATION = 0.6, 0.42, 1.35, 1.2
# Rec.709's share of each channel in luma.
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# The shoulder reaches white at infinity: a photograph's white comes from here.
BRIGHTEST = np.float32(1 - 1e-3)


def developed(radiance: np.ndarray, response: str) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of linear Rec.709 ``radiance`` (H, W, 3). ``response``: srgb or photographic."""
    if response == "srgb":
        return np.rint(srgb(radiance) * 255).astype(np.uint8)
    light = np.maximum(radiance, 0).astype(np.float32)
    rest = np.float32(1 - KNEE)
    light = np.where(light > KNEE, 1 - rest * np.exp(-(np.maximum(light, KNEE) - KNEE) / rest), light)
    tone = _bent(srgb(light).astype(np.float32), CONTRAST)
    grey = (tone @ LUMA)[..., None]
    return np.rint(np.clip(grey + (tone - grey) * SATURATION, 0, 1) * 255).astype(np.uint8)


def radiance(picture: np.ndarray, response: str) -> np.ndarray:
    """(H, W, 3) float32 linear Rec.709 whose `developed` is ``picture``, (H, W, 3) uint8 sRGB."""
    if response == "srgb":
        return linear(picture)
    tone = picture.astype(np.float32) / 255
    grey = (tone @ LUMA)[..., None]
    light = _linear(_bent(grey + (tone - grey) / SATURATION, 1 / CONTRAST))
    rest = np.float32(1 - KNEE)
    over = np.minimum(np.maximum(light, KNEE), BRIGHTEST)
    return np.where(light > KNEE, KNEE - rest * np.log((1 - over) / rest), light).astype(np.float32)


def _bent(tone: np.ndarray, power: float) -> np.ndarray:
    """An S-curve on [0, 1]: two powers that meet at PIVOT; 1 / ``power`` undoes ``power``."""
    low = PIVOT * (np.minimum(tone, PIVOT) / PIVOT) ** power
    high = 1 - (1 - PIVOT) * ((1 - np.maximum(tone, PIVOT)) / (1 - PIVOT)) ** power
    return np.where(tone < PIVOT, low, high)


def composite(rgba: np.ndarray, behind: np.ndarray, response: str = "srgb") -> np.ndarray:
    """(H, W, 3) uint8 sRGB: premultiplied linear ``rgba`` (H, W, 4) over linear ``behind`` (H, W, 3)."""
    return developed(rgba[..., :3] + behind * (1 - np.clip(rgba[..., 3:], 0, 1)), response)


def linear(picture: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1 backwards: uint8 sRGB of any shape -> float32 linear Rec.709 in [0, 1]."""
    return _linear(picture.astype(np.float32) / 255)


def _linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb(radiance: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: linear Rec.709 -> sRGB in [0, 1], any shape."""
    x = np.clip(radiance, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(np.maximum(x, 1e-8), 1 / 2.4) - 0.055)
