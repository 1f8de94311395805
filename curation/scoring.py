"""Boxes found and boxes drawn by people -> which are right, and rates with their 95 % intervals.

Legend: N boxes found, P people. Boxes are xyxy px of the upright picture.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from manifests.errors import InputError
from manifests.seeds import generator

IOU = 0.5
Z95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A photograph with every person in it marked; ``boxes``: (P, 4) float."""

    path: Path
    boxes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Judged:
    """The boxes of one picture, best first: ``corners`` (N, 4), ``raw`` (N,), ``right`` (N,) bool; ``people``: P."""

    corners: np.ndarray
    raw: np.ndarray
    right: np.ndarray
    people: int
    truth: np.ndarray


def labelled(folder: Path) -> list[Labelled]:
    """Photographs of a folder whose index.json lists `image` and `person_boxes_xywh` (px), in its order.

    A COCO annotation file (instances_*.json beside the pictures, or the path of one) is read as well. Raises InputError.
    """
    index = folder / "index.json" if folder.is_dir() else folder
    try:
        tree = json.loads(index.read_text())
        if isinstance(tree, dict):
            return _coco(tree, index.parent)
        found = [Labelled(index.parent / e["image"], _xyxy(e["person_boxes_xywh"])) for e in tree]
    except OSError as error:
        raise InputError(f"labels {index}: {error.strerror}; give a folder with index.json, or a COCO file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"labels {index}: neither a list of pictures and boxes nor a COCO file ({error!r})") from None
    return found


def judge(corners: np.ndarray, raw: np.ndarray, truth: np.ndarray) -> Judged:
    """Match boxes to people, best score first, each person once, at IoU >= 0.5. ``corners`` (N, 4), ``truth`` (P, 4)."""
    order = np.argsort(-raw, kind="stable")
    corners, raw = corners[order].reshape(-1, 4), raw[order]
    overlap = iou(corners, truth)
    right = np.zeros(len(raw), bool)
    for i in range(len(raw)):
        if overlap.shape[1] and overlap[i].max() >= IOU:
            right[i] = True
            overlap[:, overlap[i].argmax()] = -1
    return Judged(corners, raw, right, len(truth), truth)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, (N, P), of boxes (N, 4) and (P, 4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(v[:, 2:] - v[:, :2], 0).prod(axis=1) for v in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def wilson(hits: int, n: int) -> tuple[float, float, float]:
    """The rate ``hits`` of ``n`` and its 95 % interval (Wilson 1927); (nan, 0, 1) of nothing."""
    if n == 0:
        return float("nan"), 0.0, 1.0
    p, z2 = hits / n, Z95**2 / n
    middle, half = (p + z2 / 2) / (1 + z2), Z95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return p, max(0.0, middle - half), min(1.0, middle + half)


def over_pictures(
    hits: Sequence[int], n: Sequence[int], seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """As wilson for things that come several to a picture: pictures are drawn again, ``draws`` times."""
    h, m = np.asarray(hits), np.asarray(n)
    if m.sum() == 0:
        return float("nan"), 0.0, 1.0
    chosen = generator("calibration", seed, "pictures").integers(0, len(m), (draws, len(m)))
    rates = h[chosen].sum(axis=1) / np.maximum(m[chosen].sum(axis=1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    # Where every box was right the draws all agree; Wilson knows how little that says.
    _, wide_low, wide_high = wilson(int(h.sum()), int(m.sum()))
    return float(h.sum() / m.sum()), float(min(low, wide_low)), float(max(high, wide_high))


def _xyxy(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    xywh = np.asarray(boxes, float).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _coco(tree: dict, folder: Path) -> list[Labelled]:
    people = {c["id"] for c in tree["categories"] if c["name"] == "person"}
    boxes: dict[int, list[list[float]]] = {i["id"]: [] for i in tree["images"]}
    for a in tree["annotations"]:
        if a["category_id"] in people and not a.get("iscrowd"):
            boxes[a["image_id"]].append(a["bbox"])
    return [Labelled(folder / i["file_name"], _xyxy(boxes[i["id"]])) for i in tree["images"]]
