"""People, camera and Cycles' alpha -> alpha whose silhouettes are counted by rays instead of drawn by chance.

Cycles weighs its samples by a Blackman-Harris window; with 16 of them a silhouette's alpha is 3 to 4 % off, and nothing
denoises it. Any-hit rays cost a hundredth of a path, and neighbours share them. Legend: H rows, W columns, S subpixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from render.groundtruth.embree import Caster
from render.scene import Camera

# Cycles' `filter_width` of 1.5 px is doubled for its Blackman-Harris window: a pixel weighs what lies 1.5 px around it.
FILTER_RADIUS_PX = 1.5
# Rays a pixel and the step of their lattice: neighbours in the Fibonacci series, so that no edge, however it is turned,
# meets many at once.
RAYS, STEP = 21, 13
# Below this share of a pixel Cycles' colour says too little to be divided by it.
LEAST_ALPHA = 0.02


def counted(mask: np.ndarray, strand: np.ndarray, caster: Caster, camera: Camera) -> np.ndarray:
    """(H, W) float32: the alpha of pixels at silhouettes of opaque surfaces, NaN where that is Cycles' to tell.

    ``mask``: (H, W) uint8, 0 where a pixel's centre shows nobody; ``strand``: (H, W) bool, where it shows a strand. Cycles
    tells of pixels whose window holds anything cut out or blended, of those near strands (coverage.py) and of those more
    than two pixels from every change of ``mask``.
    """
    out = np.full(mask.shape, np.nan, np.float32)
    here = (mask > 0).astype(np.uint8)
    around = np.ones((5, 5), np.uint8)
    edge = cv2.dilate(here, around) != cv2.erode(here, around)
    edge &= ~_near(strand)
    if not edge.any():
        return out
    # The window of an edge pixel reaches into its eight neighbours.
    cast = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = (slice(i.min(), i.max() + 1) for i in np.nonzero(cast))
    cast, edge = cast[rows, columns], edge[rows, columns]
    steps = subpixels()
    ys, xs = np.nonzero(cast)
    k = camera.K
    directions = np.empty((len(ys), len(steps), 3), np.float32)
    directions[..., 0] = (xs[:, None] + (columns.start + 0.5 - k[0, 2] + steps[:, 0])) / k[0, 0]
    directions[..., 1] = (ys[:, None] + (rows.start + 0.5 - k[1, 2] + steps[:, 1])) / k[1, 1]
    directions[..., 2] = 1
    opaque, anything = caster.blocked(directions.reshape(-1, 3))
    weights = window(steps)
    share = _weighed(opaque, cast, weights)
    if anything is not opaque:
        edge &= _weighed(anything & ~opaque, cast, weights) == 0
    out[rows, columns] = np.where(edge, share, np.nan)
    return out


def settled(alpha: np.ndarray, count: np.ndarray, strand: np.ndarray) -> np.ndarray:
    """``alpha`` (H, W) float32 of Cycles with what rays ``count``-ed, (H, W) NaN where they did not, in its place.

    ``strand``: (H, W) bool, where either engine shows a strand: near those Cycles' value stays.
    """
    return np.where(np.isnan(count) | _near(strand), alpha, count).astype(np.float32)


def _near(strand: np.ndarray) -> np.ndarray:
    """(H, W) bool: within two pixels of ``strand``."""
    return cv2.dilate(strand.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def premultiplied(rgba: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) float32 ``rgba``, premultiplied, with ``alpha`` (H, W) in its alpha's place and its colours to match.

    Cycles' colours hold the same chance as its alpha, so their quotient is far steadier than either.
    """
    out = rgba.copy()
    out[..., 3] = alpha
    changed = np.nonzero(alpha != rgba[..., 3])
    before = np.maximum(rgba[..., 3][changed], 1e-6)
    share = np.where(before > LEAST_ALPHA, alpha[changed] / before, 1.0)
    out[..., :3][changed] *= np.clip(share, 0.25, 4.0)[:, None]
    return out


def subpixels() -> np.ndarray:
    """(S, 2) float64 x, y px from the pixel's centre, in (-0.5, 0.5)."""
    i = np.arange(RAYS)
    return np.stack([(i + 0.5) / RAYS - 0.5, ((STEP * i) % RAYS + 0.5) / RAYS - 0.5], axis=1)


def window(steps: np.ndarray) -> np.ndarray:
    """(3, 3, S) float64 weights, sum 1, of the rays of a pixel and its neighbours (row, column) at ``steps`` (S, 2).

    Blackman and Harris's four terms (Harris 1978, table 1), the product of one window along x and one along y.
    """

    def harris(x: np.ndarray) -> np.ndarray:
        t = np.pi * (x / FILTER_RADIUS_PX + 1)
        w = 0.35875 - 0.48829 * np.cos(t) + 0.14128 * np.cos(2 * t) - 0.01168 * np.cos(3 * t)
        return np.where(np.abs(x) < FILTER_RADIUS_PX, w, 0)

    shift = np.arange(-1, 2)
    weights = harris(shift[:, None, None] + steps[:, 1]) * harris(shift[None, :, None] + steps[:, 0])
    return weights / weights.sum()


def _weighed(hits: np.ndarray, cast: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(H, W) float32: ``hits`` (N * S,) of the N pixels of ``cast`` (H, W), weighed with their neighbours' by ``weights``
    (3, 3, S).
    """
    hits = hits.reshape(-1, weights.shape[2]).astype(np.float32)
    total, plane = np.zeros(cast.shape, np.float32), np.zeros(cast.shape, np.float32)
    for s in range(weights.shape[2]):
        plane[cast] = hits[:, s]
        total += cv2.filter2D(plane, -1, weights[..., s], borderType=cv2.BORDER_REPLICATE)
    return total
