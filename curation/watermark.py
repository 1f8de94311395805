"""Photographs of one site -> how surely the site stamps them all, without weights: what lies at the same place in every
picture stands out of the consensus of their gradients (the sign test of a median), however faint.

A stamp may keep its size in px or grow with the picture, and hang in a corner or in the middle: every such way to lay the
pictures over each other is tried. The same pictures, each moved by a random amount, say what chance makes of it.

Legend: N pictures of a site, S side of a window in px.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from manifests.seeds import generator

# Fewer pictures than this find marks at alpha 0.2 and more only, and are not judged.
LEAST, MOST = 32, 64
SIDE, BLOCK = 320, 16
# Gradients below this many levels are JPEG's and the sensor's; above it they count by their sign alone.
SOFT = 4.0
ANCHORS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
SCALES = ("native", "width", "height", "short")
# Side in px that the picture's width, height or shorter side is brought to.
NORMAL_PX = 480
NULLS = 4
# A picture's own repetition is sought in its middle: more px find no more and cost more.
TILED_PX = 512


@dataclasses.dataclass(frozen=True)
class Stamp:
    """``score``: how many times the largest consensus that chance made. ``where``: "scale x y" of the best way."""

    score: float
    where: str
    pictures: int


def prepare(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """scale -> (h, w, 2) int8 of a picture (H, W, 3) uint8: 100 times the soft sign of its two gradients."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    h, w = grey.shape
    sides = {"native": NORMAL_PX, "width": w, "height": h, "short": min(h, w)}
    found = {}
    for scale in SCALES:
        factor = NORMAL_PX / sides[scale]
        size = (max(8, round(w * factor)), max(8, round(h * factor)))
        picture = grey if scale == "native" else cv2.resize(
            grey, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)  # fmt: skip
        found[scale] = _signs(picture)
    return found


def stamped(pictures: Sequence[dict[str, np.ndarray]], seed: int = 0) -> Stamp:
    """The consensus of N pictures from `prepare`, any order. Scores above 1 were never reached by chance."""
    best = Stamp(0.0, "", len(pictures))
    if len(pictures) < LEAST:
        return best
    for scale in SCALES:
        for anchor in ANCHORS:
            windows = [_window(p[scale], anchor) for p in pictures]
            draws = generator("watermark", seed, scale, *map(str, anchor))
            chance = []
            for _ in range(NULLS):
                moves = draws.integers(24, SIDE - 24, (len(windows), 2)).tolist()
                chance.append(_consensus([np.roll(w, move, axis=(0, 1)) for w, move in zip(windows, moves)]))
            score = _consensus(windows) / max(chance)
            if score > best.score:
                best = Stamp(score, f"{scale} {anchor[0]:g} {anchor[1]:g}", len(pictures))
    return best


def _signs(grey: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.8).astype(np.float32)
    parts = []
    for dx, dy in ((1, 0), (0, 1)):
        g = cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3, scale=0.25)
        # What is slow (sky above ground, a vignette) is the same in many clean pictures.
        g = cv2.subtract(g, cv2.blur(g, (31, 31)))
        parts.append(g / (np.abs(g) + SOFT))
    return np.round(100 * np.stack(parts, axis=2)).astype(np.int8)


def _window(signs: np.ndarray, anchor: tuple[float, float]) -> np.ndarray:
    """(SIDE, SIDE, 2) int8 at ``anchor`` (shares of what is left over in x and y); zeros where the picture ends."""
    h, w = signs.shape[:2]
    out = np.zeros((SIDE, SIDE, 2), np.int8)
    places = []
    for have, share in ((h, anchor[1]), (w, anchor[0])):
        spare = round((have - SIDE) * share)
        take = min(SIDE, have)
        places.append((slice(max(0, spare), max(0, spare) + take), slice(max(0, -spare), max(0, -spare) + take)))
    (y, oy), (x, ox) = places
    out[oy, ox] = signs[y, x]
    return out


def _consensus(windows: Sequence[np.ndarray]) -> float:
    """The largest mean square of the pixels' z over blocks of BLOCK px, the frame's own edges left out."""
    total, energy = np.zeros((SIDE, SIDE, 2), np.float32), np.zeros((SIDE, SIDE, 2), np.float32)
    for w in windows:
        f = w.astype(np.float32)
        total += f
        energy += f * f
    z = total / np.sqrt(energy + 100.0**2)
    square = (z**2).sum(axis=2)[4:-4, 4:-4]
    mean = cv2.blur(square, (BLOCK, BLOCK))
    return float(mean.max())


def tiled(rgb: np.ndarray) -> float:
    """How far the strongest repetition of a picture's gradients, at 40 px or more, stands above the usual one.

    ``rgb``: (H, W, 3) uint8; its middle is looked at. Clean photographs: 10 to 20, one in thirty above 30 (fences, tiles).
    """
    h, w = (min(v, TILED_PX) for v in rgb.shape[:2])
    y, x = ((v - s) // 2 for v, s in zip(rgb.shape[:2], (h, w)))
    grey = cv2.cvtColor(np.ascontiguousarray(rgb[y : y + h, x : x + w]), cv2.COLOR_RGB2GRAY)
    signs = _signs(grey).astype(np.float32)
    tall, wide = cv2.getOptimalDFTSize(2 * h), cv2.getOptimalDFTSize(2 * w)
    padded = np.zeros((tall, wide, 2), np.float32)
    # One complex transform carries both gradients: the real part of its autocorrelation is the sum of theirs.
    padded[:h, :w] = signs - signs.mean(axis=(0, 1))
    spectrum = cv2.dft(padded)
    power = np.zeros_like(spectrum)
    power[..., 0] = (spectrum**2).sum(axis=2)
    rows, columns = int(0.6 * h), int(0.6 * w)
    like = cv2.dft(power, flags=cv2.DFT_INVERSE)[..., 0]
    # Lags to the right and below, and to the left and below; the rest mirrors them.
    both = np.stack([like[:rows, :columns], np.roll(like[:rows, ::-1], 1, axis=1)[:, :columns]])
    lag_y, lag_x = np.arange(rows)[:, None], np.arange(columns)
    shared = ((h - lag_y) * (w - lag_x)).astype(np.float32)
    far = (lag_y > 40) | (lag_x > 60)
    found = [(plane / shared - cv2.blur(plane / shared, (9, 9))) * np.sqrt(shared) for plane in both]
    values = np.concatenate([f[far] for f in found])
    usual = float(np.median(np.abs(values))) if len(values) else 0.0
    return float(values.max()) / usual if usual > 0 else 0.0
