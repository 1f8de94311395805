"""What an ONNX detector puts out -> corners and scores in its input's pixels: one entry of LAYOUTS for each kind of head.

Legend: S side of the input in px, N candidates, C classes. Every decoder takes the outputs, the input's (height, width) and
the class numbers that count, and returns corners (N, 4) float xyxy px of the input and scores (N,) float in 0..1.
A new head needs one decoder, if none here fits, and one line at the foot.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

Decoded = tuple[np.ndarray, np.ndarray]
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
UNIT = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How pictures go in and boxes come out.

    ``fit``: "corner" scales by one factor and pads right and below, "centre" pads all around, "stretch" fills the input.
    ``bgr``: order of the channels. ``norm``: mean and divisor of each channel in that order, of values 0..255.
    ``pad``: value of the padding before that. ``nms``: whether boxes still overlap. ``any_size``: whether models of this
    kind were trained at several sizes and are at home at all of them, if their graph is.
    """

    decode: Callable[[Sequence[np.ndarray], tuple[int, int], Sequence[int]], Decoded]
    fit: str = "stretch"
    bgr: bool = False
    norm: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    pad: float = 0.0
    nms: bool = True
    any_size: bool = False


def yolox(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """(1, N, 5 + C): offsets from the cell, logarithms of the size, objectness, classes; strides 8, 16, 32."""
    rows = out[0][0]
    cells, strides = grid(size, (8, 16, 32))
    score = rows[:, 4] * rows[:, [5 + c for c in classes]].max(axis=1)
    centre = (rows[:, :2] + cells) * strides
    return _corners(centre, np.exp(rows[:, 2:4]) * strides), score


def gfl(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """For each stride (1, n, C) scores and (1, n, 4 x bins) distributions of the distances left, top, right, bottom of
    the cell's middle (Li et al. 2020); in one output of C + 4 x bins columns, or as two lists. NanoDet, PicoDet.
    """
    if len(out) == 1:
        rows = out[0][0]
        bins = 8  # of every release; more would be 16, with few classes: no width tells them apart
        if rows.shape[1] <= 4 * bins:
            raise ValueError(f"{rows.shape[1]} columns hold no distributions")
        scores, spread = rows[:, : -4 * bins], rows[:, -4 * bins :]
    else:
        half = len(out) // 2
        scores = np.concatenate([o.reshape(-1, o.shape[-1]) for o in out[:half]])
        spread = np.concatenate([o.reshape(-1, o.shape[-1]) for o in out[half:]])
    cells, strides = _covering(size, len(scores))
    odds = np.exp(spread.reshape(len(scores), 4, -1) - spread.reshape(len(scores), 4, -1).max(axis=2, keepdims=True))
    away = (odds / odds.sum(axis=2, keepdims=True)) @ np.arange(odds.shape[2]) * strides
    middle = (cells + 0.5) * strides
    return np.concatenate([middle - away[:, :2], middle + away[:, 2:]], axis=1), scores[:, list(classes)].max(axis=1)


def fastest(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """(1, 5 + C, h, w): objectness, offset (tanh), size (sigmoid, of the input), classes; one grid. FastestDet."""
    planes = out[0][0]
    h, w = planes.shape[1:]
    rows = planes.reshape(len(planes), -1).T
    y, x = (a.ravel() for a in np.mgrid[0:h, 0:w])
    centre = (np.tanh(rows[:, 1:3]) + np.stack([x, y], axis=1)) * [size[1] / w, size[0] / h]
    extent = 1 / (1 + np.exp(-rows[:, 3:5])) * [size[1], size[0]]
    # The published decoder weighs objectness by 0.6 and the class by 0.4, in exponents.
    score = rows[:, 0] ** 0.6 * rows[:, [5 + c for c in classes]].max(axis=1) ** 0.4
    return _corners(centre, extent), score


def detr(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """logits (1, N, C) of independent classes and boxes (1, N, 4), centre and size as shares of the input; RT-DETR,
    D-FINE, RF-DETR as transformers exports them.
    """
    logits, boxes = sorted(out[:2], key=lambda o: o.shape[-1] == 4)
    score = 1 / (1 + np.exp(-logits[0][:, list(classes)].max(axis=1)))
    return _shares(boxes[0], size), score


def detr_softmax(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """As detr, but logits (1, N, C + 1) compete, the last for no object; DETR, Conditional DETR, YOLOS."""
    logits, boxes = sorted(out[:2], key=lambda o: o.shape[-1] == 4)
    odds = np.exp(logits[0] - logits[0].max(axis=1, keepdims=True))
    return _shares(boxes[0], size), (odds / odds.sum(axis=1, keepdims=True))[:, list(classes)].max(axis=1)


def finished(out: Sequence[np.ndarray], size: tuple[int, int], classes: Sequence[int]) -> Decoded:
    """labels (1, N), boxes (1, N, 4) xyxy px of the input, scores (1, N), in this order: exports that decode themselves,
    asked for boxes at the input's own size.
    """
    labels, boxes, scores = (o[0] for o in out[:3])
    keep = np.isin(labels, list(classes))
    return boxes[keep].astype(np.float64), scores[keep].astype(np.float64)


@functools.lru_cache(maxsize=64)
def grid(size: tuple[int, int], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cell numbers x, y (N, 2) and strides (N, 1), row by row, stride after stride; a last part of a cell counts."""
    cells, of = [], []
    for stride in strides:
        y, x = np.mgrid[0 : -(-size[0] // stride), 0 : -(-size[1] // stride)]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        of.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(of)


def _covering(size: tuple[int, int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The grid of ``n`` cells: strides 8 to 32, 64 or 128 (NanoDet has three, PicoDet four)."""
    for last in range(3, 6):
        cells, strides = grid(size, (8, 16, 32, 64, 128)[:last])
        if len(cells) == n:
            return cells, strides
    raise ValueError(f"{n} candidates fit no grid of {size[1]}x{size[0]} px")


def _shares(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    scale = np.array([size[1], size[0]], np.float64)
    return _corners(boxes[:, :2] * scale, boxes[:, 2:] * scale)


def _corners(centre: np.ndarray, extent: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)


LAYOUTS: dict[str, Layout] = {
    "yolox": Layout(yolox, "corner", True, NOTHING, 114.0, any_size=True),
    "picodet": Layout(gfl, "stretch"),
    "nanodet": Layout(gfl, "centre", True, ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))),
    "fastestdet": Layout(fastest, "stretch", True, UNIT),
    "detr": Layout(detr, "stretch", norm=UNIT, nms=False),
    "detr_imagenet": Layout(detr, "stretch", nms=False),
    "detr_softmax": Layout(detr_softmax, "stretch", nms=False),
    "finished": Layout(finished, "stretch", norm=UNIT, nms=False),
}
