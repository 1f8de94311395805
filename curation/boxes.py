"""What passes between a picture and an engine that looks for people in it: inputs on the way there, boxes on the way back."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Boxes below this are noise to every rule a job may set; all others are stored, so that rules can be applied again.
KEEP_SCORE = 0.05


@dataclasses.dataclass(frozen=True)
class Box:
    """``xyxy``: four px, inside the picture. ``raw``: the model's own score, None from a weak detector, which has none.
    ``score``: calibrated where a map for the weights exists, else the same as ``raw``.
    """

    xyxy: tuple[float, float, float, float]
    raw: float | None
    score: float | None


class View(NamedTuple):
    """``blob``: one input, in its engine's own form. A point of it is (x - ``shift``) / ``scale`` of the picture, or of its
    mirror image.
    """

    blob: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False


class Prepared(NamedTuple):
    """``views``: the inputs made of one picture of ``size`` (height, width)."""

    views: tuple[View, ...]
    size: tuple[int, int]


def sha256_of(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
