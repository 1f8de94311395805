"""Predicted and true classes, points and albedo of one picture -> the field's measures; sums over many -> pooled ones.

Legend: C classes, M pixels that count, (H, W) the whole picture.
"""

from __future__ import annotations

import cv2
import numpy as np

# Of a point map's error, in canonical units (Sapiens2, sapiens.md 3.5).
WITHIN = (0.05, 0.10, 0.20)
# Of structural similarity: window and deviation, and its two constants for values in 0..1.
WINDOW, DEVIATION, C1, C2 = 11, 1.5, 0.01**2, 0.03**2


def confusion(prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) int64 counts, truth down, prediction across. Both (M,) ids below ``classes``."""
    flat = truth.astype(np.int64) * classes + prediction
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def class_metrics(counts: np.ndarray) -> dict[str, float]:
    """Of one picture's confusion: accuracy, mean IoU and accuracy over the classes present in truth (IoU also in prediction),
    and the Jaccard distance, 1 - mean IoU.
    """
    hit, true, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    union = true + said - hit
    miou = float((hit[union > 0] / union[union > 0]).mean()) if union.any() else 1.0
    macc = float((hit[true > 0] / true[true > 0]).mean()) if true.any() else 1.0
    share = float(hit.sum() / counts.sum()) if counts.sum() else 1.0
    return {"jaccard": 1 - miou, "miou": miou, "aacc": share, "macc": macc}


def pooled_class_metrics(counts: np.ndarray) -> dict[str, float]:
    """Of all pictures' confusion: Sapiens2's protocol, in which a class that never occurs counts 0, as `miou` and `macc`; the same
    over the classes that occur as `miou_present` and `macc_present`.
    """
    hit, true, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    union = true + said - hit
    iou = np.divide(hit, union, out=np.zeros(len(hit)), where=union > 0)
    accuracy = np.divide(hit, true, out=np.zeros(len(hit)), where=true > 0)
    present = class_metrics(counts)
    return {
        "miou": float(iou.mean()),
        "macc": float(accuracy.mean()),
        "aacc": present["aacc"],
        "miou_present": present["miou"],
        "macc_present": present["macc"],
        "jaccard": 1 - float(iou.mean()),
    }


def point_metrics(prediction: np.ndarray, truth: np.ndarray, scale: float) -> dict[str, float]:
    """``prediction``: (M, 4) metres and the told scale; ``truth``: (M, 3) metres; ``scale``: the true canonical one.

    Sapiens2's protocol in canonical units, unaligned: mean distance `l2`, its root mean square, mean error along each axis,
    shares within .05, .1 and .2. Beside it `l2_m`, metres with the predicted scale undone, and `scale_error`, relative.
    """
    told = prediction[:, 3:]
    error = prediction[:, :3].astype(np.float64) * told - truth.astype(np.float64) * scale
    distance = np.linalg.norm(error, axis=1)
    axes = np.abs(error).mean(axis=0)
    metres = np.linalg.norm(prediction[:, :3].astype(np.float64) - truth, axis=1)
    return {
        "l2": float(distance.mean()),
        "l2_rms": float(np.sqrt((distance**2).mean())),
        **{f"mae_{a}": float(v) for a, v in zip("xyz", axes)},
        **{f"within_{w:g}".replace(".", "_"): float((distance < w).mean()) for w in WITHIN},
        "l2_m": float(metres.mean()),
        "scale_error": float(abs(told.mean() / scale - 1)),
    }


def albedo_metrics(prediction: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """MAE, RMSE, PSNR (dB), structural similarity and gradient L1 where ``inside``. Both (H, W, 3) sRGB 0..1."""
    error = (prediction.astype(np.float64) - truth)[inside]
    mse = float((error**2).mean())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse_rgb": float(np.sqrt(mse)),
        "psnr": float(-10 * np.log10(max(mse, 1e-12))),
        "ssim": float(similarity(prediction, truth)[inside].mean()),
        "gradient": gradient_error(prediction, truth, inside),
    }


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W, 3) structural similarity of each place (Wang et al. 2004), Gaussian window of 11, deviation 1.5."""

    def blurred(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (WINDOW, WINDOW), DEVIATION, borderType=cv2.BORDER_REFLECT)

    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb = blurred(a), blurred(b)
    va, vb, ab = blurred(a * a) - ma * ma, blurred(b * b) - mb * mb, blurred(a * b) - ma * mb
    return (2 * ma * mb + C1) * (2 * ab + C2) / ((ma * ma + mb * mb + C1) * (va + vb + C2))


def gradient_error(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """Mean absolute difference of steps across and down between pixels that are both ``inside``."""
    error = a.astype(np.float64) - b
    across, down = inside[:, 1:] & inside[:, :-1], inside[1:] & inside[:-1]
    steps = (np.diff(error, axis=1)[across], np.diff(error, axis=0)[down])
    means = [float(np.abs(s).mean()) for s in steps if s.size]
    return float(np.mean(means)) if means else 0.0
