"""Predictions and truth of one picture -> the field's error measures.

Legend: M pixels that count, (H, W) the whole picture.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

WITHIN_DEG = (11.25, 22.5, 30.0)
DELTA = 1.25
# Rhemann et al. 2009: steps of the threshold, and the distance below which a pixel counts as connected.
CONNECTED_STEP, CONNECTED_SLACK = 0.1, 0.15


def depth_metrics(prediction: np.ndarray, depth: np.ndarray, alignment: str = "scale_shift_lsq") -> dict[str, float]:
    """AbsRel, RMSE (metres) and the shares with max(p/g, g/p) < 1.25, 1.25^2, 1.25^3. Both (M,) float; ``depth`` metres."""
    z = depth.astype(np.float64)
    fitted = aligned(prediction.astype(np.float64), z, alignment)
    # A fitted depth may be negative: its ratio is then beyond every limit.
    ratio = np.where(fitted > 0, np.maximum(fitted / z, z / np.where(fitted > 0, fitted, 1.0)), np.inf)
    shares = {f"delta{i}": float((ratio < DELTA**i).mean()) for i in (1, 2, 3)}
    return {
        "absrel": float((np.abs(fitted - z) / z).mean()),
        "rmse": float(np.sqrt(((fitted - z) ** 2).mean())),
        **shares,
    }


def aligned(prediction: np.ndarray, depth: np.ndarray, how: str) -> np.ndarray:
    """(M,) ``prediction`` in the scale of ``depth``: as it is (`none`), or by scale or scale and shift, least squares or
    medians (scale_shift_median: median to median, mean absolute deviation to mean absolute deviation, as MiDaS).
    """
    p, z = prediction, depth
    if how == "none":
        return p
    if how == "scale_median":
        middle = np.median(p)
        return p * (np.median(z) / middle) if abs(middle) > 1e-12 else p
    if how == "scale_lsq":
        square = (p * p).sum()
        return p * ((p * z).sum() / square) if square > 1e-12 else p
    if how == "scale_shift_median":
        centred = p - np.median(p)
        spread = np.abs(centred).mean()
        middle = np.median(z)
        return middle + centred * (np.abs(z - middle).mean() / spread if spread > 1e-12 else 0.0)
    centred = p - p.mean()
    variance = (centred**2).sum()
    return z.mean() + centred * ((centred * (z - z.mean())).sum() / variance if variance > 1e-12 else 0.0)


def normal_angles(prediction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(M,) degrees between unit vectors, both (M, 3)."""
    p = prediction / np.maximum(np.linalg.norm(prediction, axis=1, keepdims=True), 1e-6)
    return np.degrees(np.arccos(np.clip((p * normal).sum(axis=1), -1, 1)))


def normal_metrics(prediction: np.ndarray, normal: np.ndarray) -> dict[str, float]:
    """Mean and median angle in degrees, and the share strictly within 11.25, 22.5 and 30 degrees. Both (M, 3)."""
    angle = normal_angles(prediction, normal)
    shares = {f"within_{limit:g}".replace(".", "_"): float((angle < limit).mean()) for limit in WITHIN_DEG}
    return {"mean_deg": float(angle.mean()), "median_deg": float(np.median(angle)), **shares}


def alpha_metrics(prediction: np.ndarray, alpha: np.ndarray) -> dict[str, float]:
    """SAD and connectivity error in thousands of pixels, MSE and MAD per pixel. Both (H, W) float 0..1."""
    error = prediction.astype(np.float64) - alpha
    return {
        "sad": float(np.abs(error).sum() / 1000),
        "mse": float((error**2).mean()),
        "mad": float(np.abs(error).mean()),
        "conn": connectivity(prediction, alpha),
    }


def connectivity(prediction: np.ndarray, alpha: np.ndarray) -> float:
    """Connectivity error of Rhemann et al. 2009, in thousands of pixels.

    A pixel falls off at the largest threshold at which it still belongs to the largest region that both mattes hold; what
    it has above that, where it is 0.15 or more, counts as unconnected.
    """
    fell = np.full(alpha.shape, -1.0)
    steps = np.arange(0, 1 + 1e-9, CONNECTED_STEP)
    for before, threshold in itertools.pairwise(steps):
        both = ((prediction >= threshold) & (alpha >= threshold)).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(both, connectivity=4)
        largest = np.zeros_like(both, bool) if count < 2 else labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        fell[(fell < 0) & ~largest] = before
    fell[fell < 0] = 1.0
    phi = []
    for matte in (prediction, alpha):
        above = matte - fell
        phi.append(1 - above * (above >= CONNECTED_SLACK))
    return float(np.abs(phi[0] - phi[1]).sum() / 1000)


# How a picture's measure joins others': a mean over pixels, the root of one, or neither.
POOLED = {
    **dict.fromkeys(("absrel", "delta1", "delta2", "delta3", "mean_deg", "mse", "mad"), "mean"),
    **dict.fromkeys(("within_11_25", "within_22_5", "within_30"), "mean"),
    **dict.fromkeys(
        ("l2", "mae_x", "mae_y", "mae_z", "within_0_05", "within_0_1", "within_0_2", "l2_m", "mae"), "mean"
    ),
    "rmse": "root",
    "l2_rms": "root",
    "rmse_rgb": "root",
}
