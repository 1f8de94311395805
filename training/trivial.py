"""A training set -> guesses that never look at the picture: what a model must beat to have learnt anything.

A guess is a function (height, width) -> array of the task's kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from manifests import codecs
from training.data import Rows

Guess = Callable[[int, int], np.ndarray]
# Maps are learnt at this size and stretched to each picture.
MAP = (64, 48)


def trivial_predictors(task: str, train: Rows) -> dict[str, Guess]:
    """name -> guess. Depth: a constant (after alignment the mean depth). Normals: the one direction that suits the training
    set best, and its mean normal map. Foreground: everything, and the mean coverage.
    """
    if task == "depth":
        return {"constant depth": lambda h, w: np.ones((h, w), np.float32)}
    if task == "normal":
        return _normals(train)
    mean = np.mean([_small(truth_of(train[i][1], task)) for i in range(len(train))], axis=0)
    return {
        "all foreground": lambda h, w: np.ones((h, w), np.float32),
        "mean coverage": lambda h, w: cv2.resize(mean.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR),
    }


def truth_of(row: dict[str, Any], task: str) -> np.ndarray:
    """(H, W) metres, (H, W, 3) unit normals or (H, W) coverage 0..1."""
    height, width = row["camera"]["height"], row["camera"]["width"]
    if task == "foreground":
        return codecs.decode_u8(row["alpha"], height, width).astype(np.float32) / 255
    decode = codecs.decode_depth if task == "depth" else codecs.decode_normal
    return decode(row[task], height, width)


def _normals(train: Rows) -> dict[str, Guess]:
    total = sum((_small(truth_of(train[i][1], "normal")).astype(float) for i in range(len(train))), np.zeros((*MAP, 3)))
    direction = total.sum(axis=(0, 1))
    direction /= np.linalg.norm(direction)
    length = np.linalg.norm(total, axis=2, keepdims=True)
    mean_map = np.where(length > 1e-9, total / np.maximum(length, 1e-9), direction).astype(np.float32)

    def one_direction(h: int, w: int) -> np.ndarray:
        return np.broadcast_to(direction.astype(np.float32), (h, w, 3))

    def stretched(h: int, w: int) -> np.ndarray:
        full = cv2.resize(mean_map, (w, h), interpolation=cv2.INTER_LINEAR)
        return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6)

    return {"one direction": one_direction, "mean normal map": stretched}


def _small(field: np.ndarray) -> np.ndarray:
    return cv2.resize(field, MAP[::-1], interpolation=cv2.INTER_AREA)
