"""Predictions and truth of one picture -> the field's error measures, on foreground pixels.

Legend: M foreground pixels.
"""

from __future__ import annotations

import numpy as np

WITHIN_DEG = (11.25, 22.5, 30.0)


def depth_metrics(prediction: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """AbsRel and RMSE (metres) after a least-squares scale and shift (DAViD section 5.4). Both (M,) float; ``depth``
    metres.
    """
    p, z = prediction.astype(np.float64), depth.astype(np.float64)
    centred = p - p.mean()
    variance = (centred**2).sum()
    scale = (centred * (z - z.mean())).sum() / variance if variance > 1e-12 else 0.0
    fitted = z.mean() + scale * centred
    return {"absrel": float((np.abs(fitted - z) / z).mean()), "rmse": float(np.sqrt(((fitted - z) ** 2).mean()))}


def normal_angles(prediction: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(M,) degrees between unit vectors, both (M, 3)."""
    p = prediction / np.maximum(np.linalg.norm(prediction, axis=1, keepdims=True), 1e-6)
    return np.degrees(np.arccos(np.clip((p * normal).sum(axis=1), -1, 1)))


def normal_metrics(prediction: np.ndarray, normal: np.ndarray) -> dict[str, float]:
    """Mean and median angle in degrees, and the share strictly within 11.25, 22.5 and 30 degrees. Both (M, 3)."""
    angle = normal_angles(prediction, normal)
    shares = {f"within_{limit:g}".replace(".", "_"): float((angle < limit).mean()) for limit in WITHIN_DEG}
    return {"mean_deg": float(angle.mean()), "median_deg": float(np.median(angle)), **shares}


METRICS = {"depth": depth_metrics, "normal": normal_metrics}
# The measure by which a model is said to beat a trivial predictor; lower is better.
HEADLINE = {"depth": "absrel", "normal": "mean_deg"}
