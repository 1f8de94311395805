"""Predicted and true keypoints -> object keypoint similarity, AP and AR as COCO defines them, PCK and a normalised error.

Legend: P people, K keypoints. Points are px.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# COCO's thresholds, recall steps, and people looked at in a picture.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 20
# Shares of the longer side of a person's box.
PCK = (0.05, 0.2)
# Keypoints that a person's score is the mean of (Sapiens).
SCORED = 0.2


@dataclasses.dataclass
class Picture:
    """``found``: (P, K, 3) px and scores, ``scores``: (P,); ``truth``: (Q, K, 3) px and visibility, ``areas``: (Q,) px."""

    found: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    areas: np.ndarray


def similarity(found: np.ndarray, truth: np.ndarray, area: float, sigmas: np.ndarray) -> float:
    """OKS of (K, 2+) px with (K, 3) px and visibility; 0 where nothing is known."""
    known = truth[:, 2] > 0
    if not known.any():
        return 0.0
    squares = ((found[:, :2] - truth[:, :2]) ** 2).sum(axis=1)
    error = squares / (2 * sigmas) ** 2 / (area + np.spacing(1)) / 2
    return float(np.exp(-error[known]).mean())


def person_score(found: np.ndarray) -> float:
    """The mean of the keypoint scores of (K, 3) that pass 0.2, 0 where none does."""
    good = found[:, 2][found[:, 2] > SCORED]
    return float(good.mean()) if len(good) else 0.0


def average_precision(pictures: Sequence[Picture], sigmas: np.ndarray) -> dict[str, float]:
    """AP and AR over OKS 0.50:0.95, and at 0.50 and 0.75. People without a keypoint are left out. NaN where nobody is."""
    total = sum(int((p.truth[:, :, 2] > 0).any(axis=1).sum()) for p in pictures)
    if not total:
        return dict.fromkeys(("ap", "ap50", "ap75", "ar", "ar50", "ar75"), float("nan"))
    scores, hits = [], []
    for picture in pictures:
        order = np.argsort(-picture.scores, kind="mergesort")[:MOST]
        scores.append(picture.scores[order])
        hits.append(matched(picture, order, sigmas))
    rank = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit = np.concatenate(hits, axis=1)[:, rank]
    precision, recall = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for t in range(len(THRESHOLDS)):
        right, wrong = np.cumsum(hit[t]), np.cumsum(~hit[t])
        if not len(right):
            continue
        recalls, precisions = right / total, right / (right + wrong + np.spacing(1))
        # From right to left: a precision is at least what a higher recall still reaches.
        precisions = np.maximum.accumulate(precisions[::-1])[::-1]
        at = np.searchsorted(recalls, RECALLS, side="left")
        precision[t] = np.where(at < len(precisions), precisions[np.minimum(at, len(precisions) - 1)], 0).mean()
        recall[t] = recalls[-1]
    return {
        "ap": float(precision.mean()), "ap50": float(precision[0]), "ap75": float(precision[5]),
        "ar": float(recall.mean()), "ar50": float(recall[0]), "ar75": float(recall[5]),
    }  # fmt: skip


def matched(picture: Picture, order: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(T, P) whether each found person, best first, takes a true one at each threshold: the most similar that is free."""
    truths = np.flatnonzero((picture.truth[:, :, 2] > 0).any(axis=1))
    table = np.array(
        [[similarity(picture.found[d], picture.truth[g], picture.areas[g], sigmas) for g in truths] for d in order]
    ).reshape(len(order), len(truths))
    hit = np.zeros((len(THRESHOLDS), len(order)), bool)
    for t, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(truths), bool)
        for d in range(len(order)):
            free = np.where(taken, -1.0, table[d])
            # Of equals the last, as COCO's loop leaves it.
            which = len(free) - 1 - int(free[::-1].argmax()) if len(free) else -1
            if which >= 0 and free[which] >= min(threshold, 1 - 1e-10):
                taken[which] = hit[t, d] = True
    return hit


def person_metrics(
    found: np.ndarray, truth: np.ndarray, box: np.ndarray, area: float, sigmas: np.ndarray
) -> dict[str, float]:
    """One person: `nme`, the mean distance as a share of the longer side of ``box`` (xyxy), OKS, PCK at .05 and .2."""
    known = truth[:, 2] > 0
    side = max(box[2] - box[0], box[3] - box[1], 1.0)
    distance = np.linalg.norm(found[known, :2] - truth[known, :2], axis=1) / side
    return {
        "nme": float(distance.mean()),
        "oks": similarity(found, truth, area, sigmas),
        **{f"pck_{limit:g}".replace(".", "_"): float((distance < limit).mean()) for limit in PCK},
    }
