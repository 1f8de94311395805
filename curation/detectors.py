"""Upright pictures -> person boxes in original pixels with raw and calibrated score, by one call for every detector.

An engine knows one kind of model: ``prepare`` makes a small input of a large picture at once, so that a batch never holds
full pictures, and ``infer`` gives corners (N, 4) xyxy px of the original and raw scores (N,). `PersonDetector` is what
everything else uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation import calibration
from curation.boxes import KEEP_SCORE, Box, Prepared, View, sha256_of
from curation.embedding import folder_or_hub
from curation.onnx import Onnx
from manifests.curation import Detector
from manifests.errors import InputError


class PersonDetector:
    """One engine with its map: ``name``, ``weights_sha256``, ``looks`` at each picture, ``weak``, ``calibration`` (None:
    scores are raw).
    """

    def __init__(self, settings: Detector, root: Path, calibrated: bool = True) -> None:
        self._engine = ENGINES[settings.kind](settings, root)
        self.name: str = self._engine.name
        self.weights_sha256: str = self._engine.weights_sha256
        self.looks: int = getattr(self._engine, "looks", 1)
        self.weak = settings.kind == "face"
        wanted = calibrated and not self.weak
        self.calibration = calibration.find(settings, root, self.weights_sha256, self.looks) if wanted else None
        self._batch = settings.batch

    def prepare(self, rgb: np.ndarray) -> Prepared:
        """A picture (H, W, 3) uint8 as the model wants it."""
        prepared: Prepared = self._engine.prepare(rgb)
        return prepared

    def infer(self, inputs: Sequence[Prepared]) -> list[list[Box]]:
        """Boxes of each picture, best first. Where memory runs out the batch is halved, down to one picture."""
        found: list[list[Box]] = []
        while len(found) < len(inputs):
            batch = inputs[len(found) : len(found) + self._batch]
            found += [self._boxes(item, *boxes) for item, boxes in zip(batch, self._shrinking(batch))]
        return found

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Box]]:
        """Boxes of each upright picture (H, W, 3) uint8 sRGB, in its own pixels, best first."""
        return self.infer([self.prepare(p) for p in pictures])

    def _shrinking(self, inputs: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        try:
            return list(self._engine.infer(inputs))
        except (MemoryError, RuntimeError) as error:
            # torch's OutOfMemoryError and onnxruntime's allocation failures are RuntimeErrors without a common name.
            short = isinstance(error, MemoryError) or "memory" in str(error).lower() or "alloc" in str(error).lower()
            if not short or len(inputs) == 1:
                raise
        half = len(inputs) // 2
        self._batch = max(1, half)
        return self._shrinking(inputs[:half]) + self._shrinking(inputs[half:])

    def _boxes(self, item: Prepared, corners: np.ndarray, raw: np.ndarray) -> list[Box]:
        height, width = item.size
        inside = np.clip(corners, 0, [width, height, width, height]).round(3)
        order = np.lexsort((*inside.T, -raw))
        shown = raw.round(5)
        score = self.calibration(shown) if self.calibration else shown
        if self.weak:
            return [Box(tuple(inside[i].tolist()), None, None) for i in order]
        return [Box(tuple(inside[i].tolist()), float(shown[i]), float(score[i])) for i in order]


class FaceCascade:
    """OpenCV's bundled frontal-face cascade, each face extended to head and shoulders: a stop-gap without download."""

    name = "opencv haarcascade_frontalface_default (weak)"

    def __init__(self, settings: Detector, root: Path) -> None:
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self.weights_sha256 = sha256_of(path)
        self._cascade = cv2.CascadeClassifier(str(path))

    def prepare(self, rgb: np.ndarray) -> Prepared:
        return Prepared((View(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)),), (rgb.shape[0], rgb.shape[1]))

    def infer(self, inputs: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for grey in (i.views[0].blob for i in inputs):
            least = max(24, min(grey.shape) // 12)
            faces = self._cascade.detectMultiScale(grey, scaleFactor=1.08, minNeighbors=8, minSize=(least, least))
            x, y, w, h = np.asarray(faces, float).reshape(-1, 4).T
            # Head and shoulders are about three faces wide and reach two and a half below the chin.
            found.append((np.stack([x - w, y - 0.5 * h, x + 2 * w, y + 3.2 * h], axis=1), np.zeros(len(x))))
        return found


class Transformers:
    """Any `AutoModelForObjectDetection` (RT-DETRv2, D-FINE, RF-DETR, DETR, YOLOS ...) by folder or hub id, in batches."""

    def __init__(self, settings: Detector, root: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        where = folder_or_hub(str(settings.weights), root, "detector")
        torch.set_num_threads(1)
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._processor = AutoImageProcessor.from_pretrained(where, use_fast=False)
            model = AutoModelForObjectDetection.from_pretrained(where).eval()
        except (OSError, ValueError, ImportError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"curate.detector.weights: {where}: transformers cannot load it ({first})") from None
        wanted = {label.lower() for label in settings.labels}
        self._labels = {int(i) for i, n in model.config.id2label.items() if str(n).lower() in wanted}
        if not self._labels:
            raise InputError(
                f"curate.detector.weights: {where}: none of its labels is {' or '.join(f'`{n}`' for n in sorted(wanted))}"
            )
        self.name = f"transformers {model.config.model_type} {Path(where).name}"
        self.weights_sha256 = _state_sha256(model)
        self._model = model.to(self._device)

    def prepare(self, rgb: np.ndarray) -> Prepared:
        blob = self._processor(images=rgb, return_tensors="np")["pixel_values"][0]
        return Prepared((View(np.asarray(blob, np.float32)),), (rgb.shape[0], rgb.shape[1]))

    def infer(self, inputs: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        import torch

        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        # Models that keep the ratio give inputs of several shapes; those of one shape go together.
        for shape in sorted({i.views[0].blob.shape for i in inputs}):
            which = [k for k, i in enumerate(inputs) if i.views[0].blob.shape == shape]
            blob = torch.from_numpy(np.stack([inputs[k].views[0].blob for k in which])).to(self._device)
            with torch.inference_mode():
                out = self._model(pixel_values=blob)
            sizes = torch.tensor([inputs[k].size for k in which], device=self._device)
            done = self._processor.post_process_object_detection(out, threshold=KEEP_SCORE, target_sizes=sizes)
            for k, result in zip(which, done):
                people = [i for i, label in enumerate(result["labels"].tolist()) if label in self._labels]
                found[k] = (
                    result["boxes"].cpu().numpy().astype(np.float64)[people].reshape(-1, 4),
                    result["scores"].cpu().numpy().astype(np.float64)[people],
                )
        return [found[k] for k in range(len(inputs))]


def _state_sha256(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()


ENGINES: dict[str, Callable[[Detector, Path], Any]] = {
    "face": FaceCascade,
    "onnx": Onnx,
    "transformers": Transformers,
}
