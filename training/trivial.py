"""A training set -> guesses that never look at the picture: what a model must beat to have learnt anything.

A guess is a function row -> array of the task's kind (training/judges.py); of the row it looks at the size alone, and at the
boxes of people, which pose models are given too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from manifests import parts
from training import people, truth
from training.data import Rows
from training.heads import CHANNELS
from training.judges import KINDS, foreground, truth_of

Guess = Callable[[dict[str, Any]], np.ndarray]
Map = Callable[[int, int], np.ndarray]
# Maps are learnt at this size and stretched to each picture.
MAP = (64, 48)


def trivial_predictors(task: str, train: Rows) -> dict[str, Guess]:
    """name -> guess. Depth: a constant (after alignment the mean depth). Normals: the one direction that suits the training
    set best, and its mean normal map. Foreground: everything, and the mean coverage. Parts: background, and each place's
    commonest class. Point maps and albedo: the mean point or colour, and the mean map. Poses: the middle of the box, and the
    mean pose in its box.
    """
    if task in truth.SETS:
        return _poses(task, train)
    return {name: _at_its_size(f) for name, f in _maps(task, train).items()}


def _at_its_size(f: Map) -> Guess:
    return lambda row: f(row["camera"]["height"], row["camera"]["width"])


def _maps(task: str, train: Rows) -> dict[str, Map]:
    if task == "depth":
        return {"constant depth": lambda h, w: np.ones((h, w), np.float32)}
    if task == "normal":
        return _normals(train)
    if task.startswith("parts"):
        return _classes(task, train)
    if task in ("pointmap", "albedo"):
        return _fields(task, train)
    mean = np.mean([_small(truth_of(train[i][1], task)) for i in range(len(train))], axis=0)
    return {
        "all foreground": lambda h, w: np.ones((h, w), np.float32),
        "mean coverage": lambda h, w: cv2.resize(mean.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR),
    }


def _classes(task: str, train: Rows) -> dict[str, Map]:
    votes = np.zeros((*MAP, CHANNELS[task]), np.int64)
    for i in range(len(train)):
        small = cv2.resize(truth_of(train[i][1], task), MAP[::-1], interpolation=cv2.INTER_NEAREST)
        known = small != parts.UNLABELLED
        votes[known, small[known]] += 1
    commonest = votes.argmax(axis=2).astype(np.uint8)
    return {
        "background": lambda h, w: np.zeros((h, w), np.int64),
        "commonest class": lambda h, w: cv2.resize(commonest, (w, h), interpolation=cv2.INTER_NEAREST).astype(np.int64),
    }


def _fields(task: str, train: Rows) -> dict[str, Map]:
    """Means over the foreground, and at each place; of point maps in canonical units, under the mean scale."""
    channels = 4 if task == "pointmap" else 3
    total, count, scales = np.zeros((*MAP, channels)), np.zeros((*MAP, 1)), []
    for i in range(len(train)):
        row = train[i][1]
        if not KINDS[task].judged(row, task):
            continue
        inside = foreground(row)[..., None].astype(np.float32)
        if task == "pointmap":
            field, scale = truth.canonical(row)
            scales.append(scale)
            field = np.concatenate([field * scale, np.full_like(inside, scale)], axis=2)
        else:
            field = truth_of(row, task)
        share = _small(inside)[..., None]
        total += _small(field.astype(np.float32) * inside)
        count += share
    mean = total.sum(axis=(0, 1)) / max(count.sum(), 1e-9)
    each = np.where(count > 1e-6, total / np.maximum(count, 1e-6), mean)
    if task == "pointmap":
        # As a guess has them: metres under the scale that is told.
        scale = float(np.mean(scales))
        each[..., :3], each[..., 3] = each[..., :3] / scale, scale
        mean = np.array([*(mean[:3] / scale), scale])
    flat, field_map = mean.astype(np.float32), each.astype(np.float32)
    word = "point" if task == "pointmap" else "colour"
    return {
        f"mean {word}": lambda h, w: np.broadcast_to(flat, (h, w, channels)),
        f"mean {word} map": lambda h, w: cv2.resize(field_map, (w, h), interpolation=cv2.INTER_LINEAR),
    }


def _poses(task: str, train: Rows) -> dict[str, Guess]:
    total, count = np.zeros((CHANNELS[task], 2)), np.zeros((CHANNELS[task], 1))
    for i in range(len(train)):
        row = train[i][1]
        for person, points in zip(people.people_of(row, task), truth_of(row, task)):
            low, side = _corner(person)
            known = points[:, 2:] > 0
            total += np.where(known, (points[:, :2] - low) / side, 0)
            count += known
    mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)

    def placed(places: np.ndarray) -> Guess:
        def guess(row: dict[str, Any]) -> np.ndarray:
            found = []
            for person in people.people_of(row, task):
                low, side = _corner(person)
                found.append(np.concatenate([low + places * side, np.ones((len(places), 1))], axis=1))
            return np.array(found).reshape(-1, CHANNELS[task], 3)

        return guess

    return {"middle of the box": placed(np.full_like(mean, 0.5)), "mean pose": placed(mean)}


def _corner(person: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    box = np.asarray(person["box"], float)
    return box[:2], np.maximum(box[2:] - box[:2], 1.0)


def _normals(train: Rows) -> dict[str, Map]:
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
