"""A person of a picture and a draw -> the box that a pose model sees, and the view of it.

Legend: J keypoints. Boxes are xyxy px.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training import truth, views
from training.settings import Augment
from training.views import View

# Sapiens and ViTPose: a box and a quarter.
PADDING = 1.25
# Fewer points than this make no box of a part.
FEWEST = 3
LOWER = ("hip", "knee", "ankle", "toe", "heel", "foot")
HEAD = ("nose", "eye", "ear", "mouth", "lip", "brow", "chin", "face", "jaw", "head")


def people_of(row: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """The people of a row who have a point of the task's set."""
    return [p for p in row["people"] if (truth.points_of(p, truth.SETS[task])[:, 2] > 0).any()]


def chosen(row: dict[str, Any], rng: np.random.Generator | None, task: str) -> dict[str, Any] | None:
    """One person at random, without ``rng`` the one with the largest box; None where nobody has keypoints."""
    found = people_of(row, task)
    if not found:
        return None
    if rng is not None:
        return found[int(rng.integers(len(found)))]
    return max(found, key=lambda p: (p["box"][2] - p["box"][0]) * (p["box"][3] - p["box"][1]))


def around(K: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> View:
    """The padded box filled out to the aspect of ``size`` (H, W)."""
    centre, extent = _filled(box, size)
    return views.aimed(np.eye(3), K, centre, _focal(K, extent, size), size)


def drawn(
    rng: np.random.Generator, K: np.ndarray, person: dict[str, Any], task: str, size: tuple[int, int], how: Augment
) -> View:
    """As ``around``, of the whole person or a part of them, moved, scaled, turned and mirrored as ``how`` allows."""
    box = np.asarray(person["box"], np.float64)
    if rng.random() < how.part_boxes:
        box = part_box(rng, truth.points_of(person, truth.SETS[task]), truth.SETS[task], box)
    centre, extent = _filled(box, size)
    centre = centre + how.box_shift * extent * rng.uniform(-1, 1, 2)
    extent = extent * np.exp(rng.uniform(-1, 1) * np.log1p(how.box_scale))
    turn = np.radians(how.rotate_deg * rng.uniform(-1, 1)) * (rng.random() < how.rotate_share)
    mirror = rng.random() < how.flip
    R = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0]) @ views.roll(turn)
    return views.aimed(R, K, centre, _focal(K, extent, size), size)


def part_box(rng: np.random.Generator, points: np.ndarray, name: str, box: np.ndarray) -> np.ndarray:
    """The box of a part of the body, as a detector would find a person cut off or half hidden (AlphaPose's part-guided
    proposals; half bodies of Sapiens are two of them): upper, lower, left, right or head. ``points``: (J, 3).

    A part with too few visible points leaves ``box``; else its sides are moved by up to a tenth, as detections are.
    """
    names = truth.keypoints.SETS[name].names
    groups = {
        "upper": [not any(w in n for w in LOWER) for n in names],
        "lower": [any(w in n for w in LOWER) for n in names],
        "left": [n.startswith("left") for n in names],
        "right": [n.startswith("right") for n in names],
        "head": [any(w in n for w in HEAD) for n in names],
    }
    which = np.array(groups[list(groups)[int(rng.integers(len(groups)))]]) & (points[:, 2] > 0)
    jitter = rng.uniform(-0.1, 0.1, 4)
    if which.sum() < FEWEST:
        return box
    low, high = points[which, :2].min(axis=0), points[which, :2].max(axis=0)
    sides = np.maximum(high - low, 1.0)
    return np.concatenate([low, high]) + jitter * np.tile(sides, 2)


def _filled(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centre (2,) and extent (2,) px of the padded box, grown to the aspect of ``size``."""
    box = np.asarray(box, np.float64)
    centre, (w, h) = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1.0)
    aspect = size[1] / size[0]
    w, h = max(w, h * aspect), max(h, w / aspect)
    return centre, PADDING * np.array([w, h])


def _focal(K: np.ndarray, extent: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    return float(K[0, 0] * size[1] / extent[0]), float(K[1, 1] * size[0] / extent[1])
