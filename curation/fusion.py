"""Overlapping boxes of one picture -> one box a person, of one look at it or of several.

Legend: N boxes of one look, L looks. Boxes are xyxy px of the upright picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curation.scoring import iou

# Boxes that share more than this are taken for one person.
SAME = 0.55

Boxes = tuple[np.ndarray, np.ndarray]


def nms(corners: np.ndarray, score: np.ndarray, limit: float = SAME) -> list[int]:
    """Indices kept by greedy non-maximum suppression, best first. ``corners``: (N, 4) xyxy px; ``score``: (N,)."""
    order = np.argsort(-score, kind="stable")
    kept: list[int] = []
    while len(order):
        first, rest = int(order[0]), order[1:]
        kept.append(first)
        order = rest[iou(corners[first][None], corners[rest])[0] <= limit]
    return kept


def fused(looks: Sequence[Boxes]) -> Boxes:
    """What L looks agree on: corners (M, 4) and scores (M,), best first.

    A box takes from every other look the one that shares most with it, more than SAME; corners are the mean by score, the
    score is the sum over L, so that what one look alone has seen counts for less (Solovyev, Wang and Gabruseva 2021).
    """
    corners = np.concatenate([c.reshape(-1, 4) for c, _ in looks])
    score = np.concatenate([s for _, s in looks])
    look = np.repeat(np.arange(len(looks)), [len(s) for _, s in looks])
    shared = iou(corners, corners)
    free = np.ones(len(score), bool)
    boxes, scores = [], []
    for first in np.argsort(-score, kind="stable"):
        if not free[first]:
            continue
        members = [int(first)]
        for other in set(range(len(looks))) - {int(look[first])}:
            near = np.where(free & (look == other), shared[first], 0)
            if near.max() > SAME:
                members.append(int(near.argmax()))
        free[members] = False
        weight = score[members]
        boxes.append((corners[members] * weight[:, None]).sum(axis=0) / weight.sum())
        scores.append(weight.sum() / len(looks))
    found, sums = np.array(boxes).reshape(-1, 4), np.array(scores, float)
    kept = nms(found, sums)
    return found[kept], sums[kept]
