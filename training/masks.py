"""A draw -> the order in which an autoencoder's patches are seen: single patches at random, or with blocks of them hidden."""

from __future__ import annotations

import numpy as np

# Sides of a block, as shares of the grid's area and as ratios of height to width (BEiT, Bao et al. 2022).
AREA, RATIO = (0.03, 0.25), (0.3, 1 / 0.3)


def order(rng: np.random.Generator, grid: tuple[int, int], mask_ratio: float, block_share: float) -> np.ndarray:
    """(N,) int64 permutation whose first part, as ``mask_ratio`` leaves it, is seen; with probability ``block_share`` what is
    not seen lies in blocks, the last of them cut to the number asked for.
    """
    count = grid[0] * grid[1]
    if rng.random() >= block_share:
        return rng.permutation(count)
    wanted = int(count * mask_ratio)
    hidden = np.zeros(grid, bool)
    while hidden.sum() < wanted:
        area = count * rng.uniform(*AREA)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        h = int(np.clip(round(np.sqrt(area * ratio)), 1, grid[0]))
        w = int(np.clip(round(np.sqrt(area / ratio)), 1, grid[1]))
        y, x = int(rng.integers(grid[0] - h + 1)), int(rng.integers(grid[1] - w + 1))
        fresh = np.zeros(grid, bool)
        fresh[y : y + h, x : x + w] = True
        new = np.flatnonzero(fresh & ~hidden)
        hidden.flat[new[: wanted - int(hidden.sum())]] = True
    seen, masked = np.flatnonzero(~hidden), np.flatnonzero(hidden)
    return np.concatenate([rng.permutation(seen), rng.permutation(masked)])
