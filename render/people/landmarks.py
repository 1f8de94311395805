"""A posed body -> the points of a keypoint set, each where its anchor on the base mesh went; absent ones NaN.

anchors.py finds the anchors and says which points have none. Legend: V vertices, J keypoints.
"""

from __future__ import annotations

import functools
import json

import numpy as np

from manifests.keypoints import COCO17, SETS
from render.people.anchors import FILE


class Landmarks:
    """The anchors of one set, read once."""

    def __init__(self, keypoint_set: str) -> None:
        names = SETS[keypoint_set].names
        known = anchors()
        self._regressed = [(j, COCO17.index(name)) for j, name in enumerate(names) if name in COCO17]
        places = [(j, known[name]["weights"]) for j, name in enumerate(names) if "weights" in known.get(name, {})]
        self._count = len(names)
        self._point = np.array([j for j, weights in places for _ in weights], int)
        self._vertex = np.array([int(v) for _, weights in places for v in weights], int)
        self._weight = np.array([w for _, weights in places for w in weights.values()])
        self.sound = np.zeros(len(names), bool)
        self.sound[[j for j, _ in self._regressed] + [j for j, _ in places]] = True

    def __call__(self, vertices: np.ndarray, coco: np.ndarray) -> np.ndarray:
        """(J, 3) float64. ``vertices``: (V, 3) posed base mesh; ``coco``: (17, 3) what anny regresses from it."""
        points = np.zeros((self._count, 3))
        np.add.at(points, self._point, vertices[self._vertex] * self._weight[:, None])
        for j, i in self._regressed:
            points[j] = coco[i]
        points[~self.sound] = np.nan
        return points


@functools.cache
def landmarks(keypoint_set: str) -> Landmarks:
    """One reader a set."""
    return Landmarks(keypoint_set)


@functools.cache
def anchors() -> dict[str, dict]:
    """anchors.json: name -> {"kind", "weights"} or {"absent": reason}."""
    return json.loads(FILE.read_text())
