"""Cycles' coverage of a frame and its strands -> the same coverage with the noise taken out where hair ends.

A few samples leave a pixel's alpha several hundredths off where thin strands cover part of it, and no denoiser works on
alpha. There it is counted again with many more rays, through the same pixel filter, asking only whether anything is hit.
Legend: H rows, W columns, B pixels of the band, S rays of each.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from scipy.stats import qmc

from render.groundtruth.embree import Caster
from render.scene import Camera

RAYS = 128
# So many first: where all of them or none hit, the others are not cast. A pixel that strands cover by 2 % is missed half the time.
FIRST = 32
# The band: within so many pixels of a strand, and of a pixel that Cycles found half covered.
REACH_PX = 2
# Cycles' default pixel filter, a Blackman-Harris window: its width of 1.5 px is doubled (scene/film.cpp).
FILTER_PX = 3.0
AT_ONCE = 1 << 17


def refined(coverage: np.ndarray, strand: np.ndarray, camera: Camera, caster: Caster, threads: int = 1) -> np.ndarray:
    """(H, W) float32 coverage; ``coverage`` itself outside the band. Of any number of ``threads`` the same.

    ``coverage``: (H, W) float32 of Cycles. ``strand``: (H, W) bool, pixels whose centre shows a strand.
    """
    rows, columns = np.nonzero(band(coverage, strand))
    out = coverage.copy()
    offsets = filter_offsets(RAYS)
    inverse = np.linalg.inv(camera.K)
    pixels = max(AT_ONCE // RAYS, 1)
    band_at = np.stack([columns, rows], axis=1)

    def count(first: int) -> None:
        at = band_at[first : first + pixels]
        hits = _hits(at, offsets[:FIRST], inverse, caster)
        share = hits / FIRST
        part = np.flatnonzero((hits > 0) & (hits < FIRST))
        share[part] = (hits[part] + _hits(at[part], offsets[FIRST:], inverse, caster)) / RAYS
        out[at[:, 1], at[:, 0]] = share

    # Most of the time goes to strands, which Embree is asked for without Python's lock (fibres.py).
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(0, len(rows), pixels)))
    return out


def _hits(at: np.ndarray, offsets: np.ndarray, inverse: np.ndarray, caster: Caster) -> np.ndarray:
    """(B,) of S rays through each of the pixels ``at`` (B, 2), column and row, those that hit. ``offsets``: (S, 2) in [0, 1).
    ``inverse``: (3, 3) of K.
    """
    x, y = at.T
    # One pattern, turned round itself by another amount in each pixel: no grain shows.
    turn = np.stack([x * 0.7548776662, y * 0.5698402910], axis=1) + (x * y)[:, None] * 0.1
    uv = at[:, None] + 0.5 + _turned(offsets, turn)
    rays = np.concatenate([uv, np.ones((*uv.shape[:2], 1))], axis=2) @ inverse.T
    return caster.covered(rays.reshape(-1, 3)).reshape(uv.shape[:2]).sum(axis=1)


def band(coverage: np.ndarray, strand: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that strands may cover in part."""
    if not strand.any():
        return np.zeros(strand.shape, bool)
    kernel = np.ones((2 * REACH_PX + 1,) * 2, np.uint8)
    part = ((coverage > 0) & (coverage < 1)).astype(np.uint8)
    return (cv2.dilate(part, kernel) > 0) & (cv2.dilate(strand.astype(np.uint8), kernel) > 0)


def filter_offsets(count: int) -> np.ndarray:
    """(count, 2) float64 in [0, 1): a low-discrepancy pattern, before the filter's shape."""
    return qmc.Sobol(2, scramble=True, seed=1).random(count)


def _turned(offsets: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(B, S, 2) offsets in pixels: the pattern shifted by ``turn`` (B, 2) modulo 1, through the filter's inverse sum."""
    x = np.linspace(-FILTER_PX / 2, FILTER_PX / 2, 1025)
    v = 2 * np.pi * (x / FILTER_PX + 0.5)
    weight = 0.35875 - 0.48829 * np.cos(v) + 0.14128 * np.cos(2 * v) - 0.01168 * np.cos(3 * v)
    total = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    return np.interp((offsets[None] + turn[:, None]) % 1.0, total / total[-1], x)
