"""Embree's and Cycles' depth of one frame -> the share of pixels on which they agree; a frame past its limit is
rejected.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import SampleRejected
from manifests.job import Verify

# So many pixels of strands may differ whatever their share: of nine pixels of hair one at an edge would be too many.
FEW = 2


def agreement(
    depth: np.ndarray, mask: np.ndarray, other: np.ndarray, tolerance_m: float, skip: np.ndarray | None = None
) -> float:
    """Share of the pixels that either engine calls foreground on which both do and depths agree within ``tolerance_m``.

    ``depth``, ``other``: (H, W) float32 planar metres, 0 where missed. ``mask``: (H, W) uint8. ``skip``: (H, W)
    bool, pixels that
    are not opaque and do not count. 1.0 for an empty frame.
    """
    close, counted = _compared(depth, mask, other, tolerance_m, skip)
    return close / counted if counted else 1.0


def _compared(
    depth: np.ndarray, mask: np.ndarray, other: np.ndarray, tolerance_m: float, skip: np.ndarray | None
) -> tuple[int, int]:
    """How many pixels agree, and of how many, as `agreement` takes them."""
    either = (mask != 0) | (other > 0)
    if skip is not None:
        either &= ~skip
    both = either & (mask != 0) & (other > 0)
    close = both & (np.abs(depth.astype(np.float64) - other) <= tolerance_m)
    return int(close.sum()), int(either.sum())


def check(
    sample_id: str,
    depth: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    limits: Verify,
    skip: np.ndarray | None = None,
    strand: np.ndarray | None = None,
) -> tuple[float, float | None]:
    """``agreement`` on what is no strand and on strands, None where there is none; or SampleRejected with the figure and
    the worst pixel. ``strand``: (H, W) bool, either engine meets a strand first.
    """
    if not mask.any():
        raise SampleRejected(sample_id, "nobody in the frame")
    skip = np.zeros(mask.shape, bool) if skip is None else skip
    strands: float | None = None
    if strand is not None and (strand & ~skip).any():
        close, counted = _compared(depth, mask, other, limits.tolerance_m, skip | ~strand)
        strands = close / counted if counted else 1.0
        skip = skip | strand
        if strands < limits.strand_share and counted - close > FEW:
            raise SampleRejected(
                sample_id,
                f"Embree and Cycles agree within {limits.tolerance_m * 1e3:g} mm on {strands:.2%} of the strands' pixels, "
                f"{limits.strand_share:.2%} needed",
            )
    share = agreement(depth, mask, other, limits.tolerance_m, skip)
    if share < limits.opaque_share:
        both = (mask != 0) & (other > 0)
        worst = float(np.abs(depth.astype(np.float64) - other)[both].max()) if both.any() else float("nan")
        differ = int(((mask != 0) != (other > 0)).sum())
        raise SampleRejected(
            sample_id,
            f"Embree and Cycles agree within {limits.tolerance_m * 1e3:g} mm on {share:.4%} of the foreground, "
            f"{limits.opaque_share:.2%} needed ({differ} pixels differ in coverage, worst depth {worst * 1e3:.2f} mm)",
        )
    return share, strands
