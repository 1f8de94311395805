"""A row and what a model says of it -> a picture file: photograph, truth and prediction side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests import codecs, keypoints, parts, view
from training import truth
from training.judges import foreground, truth_of
from training.metrics import aligned, normal_angles

# Colours of classes: hues a golden angle apart, background black.
HUE_STEP = 137.508
# Errors that are drawn brightest: degrees, metres, coverage, sRGB.
WORST_SHOWN = {"normal": 60.0, "depth": 0.15, "pointmap": 0.3, "foreground": 1.0, "albedo": 0.3}


def draw(path: Path, row: dict[str, Any], predicted: np.ndarray, task: str) -> None:
    """Write the panel of ``task`` as PNG; depth is aligned first, near is bright."""
    rgb, inside, true = codecs.decode_image(row["image"]["bytes"]), foreground(row), truth_of(row, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [rgb, *_both(rgb, inside, true, predicted, task), errors(rgb, inside, true, predicted, task)]
    cv2.imwrite(str(path), np.concatenate(shown, axis=1)[..., ::-1])


def errors(rgb: np.ndarray, inside: np.ndarray, true: np.ndarray, predicted: np.ndarray, task: str) -> np.ndarray:
    """(H, W, 3) uint8: where the prediction is off, dark nowhere to bright at WORST_SHOWN of the task and beyond; for poses, lines
    from where a keypoint is to where it was put.
    """
    if task in truth.SETS:
        out = np.ascontiguousarray(rgb // 2)
        for person, guess in zip(true, predicted):
            # Points that are not there have no place.
            known = person[:, 2] > 0
            for a, b in zip(
                np.rint(person[known, :2]).astype(int).tolist(), np.rint(guess[known, :2]).astype(int).tolist()
            ):
                cv2.line(out, a, b, (255, 120, 60), 1)
        return out
    if task.startswith("parts"):
        wrong = (true != predicted) & (true != parts.UNLABELLED)
        return np.where(wrong[..., None], (255, 120, 60), rgb // 3).astype(np.uint8)
    off = _off(inside, true, predicted, task)
    shown = (255 * np.clip(off / WORST_SHOWN[task], 0, 1)).astype(np.uint8)
    return cv2.applyColorMap(shown, cv2.COLORMAP_INFERNO)[..., ::-1]


def _off(inside: np.ndarray, true: np.ndarray, predicted: np.ndarray, task: str) -> np.ndarray:
    """(H, W) float, in the unit of WORST_SHOWN; 0 where it is not judged."""
    off = np.zeros(true.shape[:2])
    if task == "foreground":
        return np.abs(true - predicted.reshape(true.shape))
    if task == "normal":
        off[inside] = normal_angles(predicted[inside], true[inside])
    elif task == "depth":
        fitted = aligned(
            predicted.reshape(true.shape)[inside].astype(float), true[inside].astype(float), "scale_shift_lsq"
        )
        off[inside] = np.abs(fitted - true[inside])
    elif task == "pointmap":
        off[inside] = np.linalg.norm(predicted[inside][:, :3] - true[inside][:, :3], axis=1)
    else:
        off[inside] = np.abs(predicted[inside] - true[inside]).mean(axis=1)
    return off


def _both(rgb: np.ndarray, inside: np.ndarray, true: np.ndarray, predicted: np.ndarray, task: str) -> list[np.ndarray]:
    if task in ("depth", "pointmap"):
        z, guess = (true, predicted) if task == "depth" else (true[..., 2], predicted[..., 2])
        fitted = np.zeros_like(z)
        how = "scale_shift_lsq" if task == "depth" else "none"
        fitted[inside] = aligned(guess[inside].astype(float), z[inside].astype(float), how)
        span = (float(z[inside].min()), float(z[inside].max()))
        return [view.depth_colour(d, inside, span) for d in (z, fitted)]
    if task == "normal":
        return [view.normal_colour(n, inside) for n in (true, predicted)]
    if task.startswith("parts"):
        palette = _palette()
        return [palette[np.where(c == parts.UNLABELLED, 0, c)] for c in (true, predicted)]
    if task == "albedo":
        return [np.round(255 * np.clip(a, 0, 1)).astype(np.uint8) for a in (true, predicted)]
    if task in truth.SETS:
        return [_skeleton(rgb, p, truth.SETS[task], t) for p, t in ((true, true), (predicted, true))]
    return [np.repeat(np.round(255 * a[..., None]).astype(np.uint8), 3, axis=2) for a in (true, predicted)]


def _palette() -> np.ndarray:
    hue = np.arange(len(parts.CLASSES)) * HUE_STEP % 360 / 2
    hsv = np.stack([hue, np.full_like(hue, 170), np.full_like(hue, 230)], axis=1)
    rgb = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    rgb[0] = 0
    return rgb


def _skeleton(rgb: np.ndarray, people: np.ndarray, name: str, true: np.ndarray) -> np.ndarray:
    """Limbs and points, of those whose truth is known."""
    out = np.ascontiguousarray(rgb // 2)
    for person, known in zip(people, true):
        seen = known[:, 2] > 0
        px = np.round(np.nan_to_num(person[:, :2])).astype(int)
        for a, b in keypoints.SETS[name].skeleton:
            if seen[a] and seen[b]:
                cv2.line(out, px[a].tolist(), px[b].tolist(), (90, 200, 255), 1)
        for x, y in px[seen]:
            cv2.circle(out, (int(x), int(y)), 1, (255, 210, 60), -1)
    return out
