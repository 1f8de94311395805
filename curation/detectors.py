"""Upright pictures -> person boxes in original pixels, by one call for every kind of detector.

Boxes are xyxy px, clipped to the picture. ``raw`` is the model's own score; it is None for a weak detector, which
has none.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.errors import InputError
from manifests.job import Detector

# Boxes below this are noise to every rule a job may set; all others are stored, so that rules can be applied again.
KEEP_SCORE = 0.05
NMS_IOU = 0.65


@dataclasses.dataclass(frozen=True)
class Box:
    """``xyxy``: four px. ``raw``: score or None. ``weak``: from a detector whose boxes carry no score."""

    xyxy: tuple[float, float, float, float]
    raw: float | None
    weak: bool = False


class FaceCascade:
    """OpenCV's bundled frontal-face cascade, each face extended to head and shoulders: a stop-gap without download."""

    weak = True
    name = "opencv haarcascade_frontalface_default (weak)"

    def __init__(self, settings: Detector, root: Path) -> None:
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self.weights_sha256 = _sha256(path)
        self._cascade = cv2.CascadeClassifier(str(path))

    def __call__(self, rgb: np.ndarray) -> list[Box]:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        least = max(24, min(grey.shape) // 12)
        faces = self._cascade.detectMultiScale(grey, scaleFactor=1.08, minNeighbors=8, minSize=(least, least))
        boxes = []
        for x, y, w, h in np.asarray(faces, float).reshape(-1, 4):
            # Head and shoulders are about three faces wide and reach two and a half below the chin.
            boxes.append(_clipped((x - w, y - 0.5 * h, x + 2 * w, y + 3.2 * h), rgb, None, True))
        return sorted(boxes, key=lambda b: b.xyxy)


class OnnxYolox:
    """A YOLOX export: (1, 3, S, S) BGR 0..255, letterboxed top left on 114; out (1, N, 85) before grid decode."""

    weak = False

    def __init__(self, settings: Detector, root: Path) -> None:
        import onnxruntime

        path = root / str(settings.weights)
        if not path.is_file():
            raise InputError(f"curate.detector.weights: {path}: no such file")
        self.weights_sha256 = _sha256(path)
        self.name = f"onnx yolox {path.name}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common public base
            raise InputError(f"curate.detector.weights: {path}: onnxruntime cannot load it ({error})") from None
        given = self._session.get_inputs()[0]
        self._input, self._side = given.name, int(given.shape[2])

    def __call__(self, rgb: np.ndarray) -> list[Box]:
        ratio = self._side / max(rgb.shape[:2])
        h, w = round(rgb.shape[0] * ratio), round(rgb.shape[1] * ratio)
        canvas = np.full((self._side, self._side, 3), 114, np.uint8)
        canvas[:h, :w] = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        blob = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        out = np.asarray(self._session.run(None, {self._input: blob})[0])[0]
        centre, size = self._decode(out)
        # Class 0 of COCO is a person; the score is objectness times class.
        score = out[:, 4] * out[:, 5]
        keep = np.flatnonzero(score > KEEP_SCORE)
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)[keep] / ratio
        chosen = nms(corners, score[keep])
        return [_clipped(tuple(corners[i]), rgb, float(score[keep][i]), False) for i in chosen]

    def _decode(self, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres and sizes (N, 2) px of the letterboxed picture: offsets from the cell, sizes as logarithms."""
        cells, strides = [], []
        for stride in (8, 16, 32):
            n = self._side // stride
            y, x = np.mgrid[0:n, 0:n]
            cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
            strides.append(np.full((n * n, 1), stride))
        cell, stride_of = np.concatenate(cells), np.concatenate(strides)
        return (out[:, :2] + cell) * stride_of, np.exp(out[:, 2:4]) * stride_of


class Transformers:
    """Any `AutoModelForObjectDetection` (RT-DETR, D-FINE, DETR, YOLOS ...) by folder or hub id."""

    weak = False

    def __init__(self, settings: Detector, root: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        folder = root / str(settings.weights)
        where = str(folder) if folder.is_dir() else str(settings.weights)
        torch.set_num_threads(1)
        try:
            self._processor = AutoImageProcessor.from_pretrained(where, use_fast=False)
            self._model = AutoModelForObjectDetection.from_pretrained(where).eval()
        except (OSError, ValueError, ImportError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"curate.detector.weights: {where}: transformers cannot load it ({first})") from None
        labels = {i for i, n in self._model.config.id2label.items() if str(n).lower() == "person"}
        if not labels:
            raise InputError(f"curate.detector.weights: {where}: none of its labels is `person`")
        self._person = labels
        self.name = f"transformers {self._model.config.model_type} {Path(where).name}"
        self.weights_sha256 = _state_sha256(self._model)

    def __call__(self, rgb: np.ndarray) -> list[Box]:
        import torch

        with torch.no_grad():
            out = self._model(**self._processor(images=rgb, return_tensors="pt"))
        found = self._processor.post_process_object_detection(
            out, threshold=KEEP_SCORE, target_sizes=torch.tensor([rgb.shape[:2]])
        )[0]
        people = [
            (tuple(box), score)
            for box, score, label in zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist())
            if label in self._person
        ]
        return [_clipped(box, rgb, score, False) for box, score in sorted(people, key=lambda p: -p[1])]


def nms(corners: np.ndarray, score: np.ndarray, iou: float = NMS_IOU) -> list[int]:
    """Indices kept by greedy non-maximum suppression, best first. ``corners``: (N, 4) xyxy px; ``score``: (N,)."""
    order = np.argsort(-score, kind="stable")
    area = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)
    kept: list[int] = []
    while len(order):
        first, rest = int(order[0]), order[1:]
        kept.append(first)
        low = np.maximum(corners[first, :2], corners[rest, :2])
        high = np.minimum(corners[first, 2:], corners[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        order = rest[shared / np.maximum(area[first] + area[rest] - shared, 1e-9) <= iou]
    return kept


def load(settings: Detector, root: Path) -> Any:
    """The detector a job names: callable on (H, W, 3) uint8, with ``name``, ``weights_sha256``, ``weak``. Raises
    InputError.
    """
    return DETECTORS[settings.kind](settings, root)


def _clipped(box: Any, rgb: np.ndarray, raw: float | None, weak: bool) -> Box:
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box)
    return Box((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))), raw, weak)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state_sha256(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()


DETECTORS: dict[str, Callable[[Detector, Path], Any]] = {
    "face": FaceCascade,
    "onnx": OnnxYolox,
    "transformers": Transformers,
}
