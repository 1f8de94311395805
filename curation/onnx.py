"""An ONNX detector's file -> an engine: pictures laid into its input once or twice, boxes in the pictures' own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.boxes import KEEP_SCORE, Prepared, View, sha256_of
from curation.fusion import fused, nms
from curation.graphs import any_size
from curation.layouts import LAYOUTS
from manifests.curation import Detector
from manifests.errors import InputError

# Of a picture's candidates these many are compared, and of its boxes these many kept: COCO's own evaluation takes 100.
CANDIDATES, MOST_BOXES = 1000, 300
# The second look's longer side, where the model's own is smaller: as large as most web pictures, and the largest that
# small YOLOX models were trained at. Sides of a free-size input are multiples of the coarsest stride.
SECOND_SIDE, STRIDE = 640, 32


class Onnx:
    """Any ONNX detector whose head is in LAYOUTS; a fixed batch of one is fed one by one.

    Where the layout says that its models bear it and the graph runs at any size, pictures keep their shape instead of being
    padded to a square, and are looked at twice: at the model's own size, and mirrored at SECOND_SIDE or more.
    """

    def __init__(self, settings: Detector, root: Path) -> None:
        path = root / str(settings.weights)
        if not path.is_file():
            raise InputError(f"curate.detector.weights: {path}: no such file")
        if settings.layout not in LAYOUTS:
            raise InputError(f"curate.detector.layout: {settings.layout}: expected one of {', '.join(LAYOUTS)}")
        self.weights_sha256 = sha256_of(path)
        self._layout, self._classes = LAYOUTS[settings.layout], settings.classes
        try:
            self._session = _session(str(path))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common public base
            raise InputError(f"curate.detector.weights: {path}: onnxruntime cannot load it ({error})") from None
        inputs = self._session.get_inputs()
        self._inputs = [i.name for i in inputs]
        n, _, h, w = inputs[0].shape
        self._one_by_one = n == 1 or len(inputs) > 1 or self._layout.decode.__name__ == "gfl"
        # A free size is asked for at 640, which DETR-like models are trained at.
        self._size = (h if isinstance(h, int) else 640, w if isinstance(w, int) else 640)
        self._checked(path, settings.layout)
        free = self._freed(path) if self._layout.any_size and settings.looks > 1 else None
        self._sides: tuple[int, ...] = ()
        if free is not None:
            self._session, self._sides = free, (max(self._size), max(*self._size, SECOND_SIDE))
        self.looks = max(1, len(self._sides))
        self.name = f"onnx {settings.layout} {path.name}" + (", 2 looks" if self.looks > 1 else "")

    def _checked(self, path: Path, layout: str) -> None:
        """InputError where the head of the file is not what ``layout`` says, as a grey picture shows."""
        grey = self._fitted(np.full((*self._size, 3), 127, np.uint8))
        try:
            out = self._run(self._blob(grey)[None])
        except Exception as error:  # noqa: BLE001 - as above
            raise InputError(
                f"curate.detector.weights: {path}: cannot run on one picture of 3 channels ({error})"
            ) from None
        try:
            corners, score = self._layout.decode(out, self._size, self._classes)
            sound = corners.shape == (*score.shape, 4) and not np.any(
                (score < 0) | (score > 1 + 1e-3) | np.isnan(score)
            )
        except (ValueError, IndexError, TypeError):
            sound = False
        if not sound:
            shapes = ", ".join("x".join(map(str, o.shape)) for o in out)
            raise InputError(
                f"curate.detector.layout: {path.name} answers with {shapes}, which is not the head of `{layout}`; give one of "
                f"{', '.join(LAYOUTS)}, or add its own to curation/layouts.py"
            )

    def _freed(self, path: Path) -> Any:
        """A session that takes any size, None where the graph turns out to hold its own."""
        try:
            session = _session(any_size(path.read_bytes()))
            # Neither the size that it was made for nor a square.
            size = (max(self._size) + 2 * STRIDE, max(self._size) - STRIDE)
            out = session.run(None, {self._inputs[0]: np.zeros((1, 3, *size), np.float32)})
            self._layout.decode([np.asarray(o) for o in out], size, self._classes)
        except Exception:  # noqa: BLE001 - whatever stops it, the file is used at its own size, and the name says so
            return None
        return session

    def prepare(self, rgb: np.ndarray) -> Prepared:
        size = (rgb.shape[0], rgb.shape[1])
        if self._sides:
            views = tuple(self._whole(rgb, side, mirrored=k > 0) for k, side in enumerate(self._sides))
        else:
            views = (self._fitted(rgb),)
        return Prepared(views, size)

    def _fitted(self, rgb: np.ndarray) -> View:
        """A picture laid into the model's fixed input."""
        how = self._layout
        height, width = self._size
        scale = (width / rgb.shape[1], height / rgb.shape[0])
        if how.fit != "stretch":
            scale = (min(scale), min(scale))
        w, h = max(1, round(rgb.shape[1] * scale[0])), max(1, round(rgb.shape[0] * scale[1]))
        corner = ((width - w) // 2, (height - h) // 2) if how.fit == "centre" else (0, 0)
        return View(self._canvas(_shrunk(rgb, w, h), self._size, corner), scale, corner)

    def _whole(self, rgb: np.ndarray, side: int, mirrored: bool) -> View:
        """A picture in an input of its own shape, longer side ``side`` px, padded to whole strides."""
        scale = side / max(rgb.shape[:2])
        w, h = (max(1, round(v * scale)) for v in rgb.shape[1::-1])
        small = _shrunk(rgb, w, h)
        size = (-(-h // STRIDE) * STRIDE, -(-w // STRIDE) * STRIDE)
        return View(
            self._canvas(small[:, ::-1] if mirrored else small, size, (0, 0)), (scale, scale), mirrored=mirrored
        )

    def _canvas(self, small: np.ndarray, size: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8 in the model's order of channels: bytes wait for their batch in a quarter of the memory."""
        x, y = corner
        canvas = np.full((*size, 3), round(self._layout.pad), np.uint8)
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small[..., ::-1] if self._layout.bgr else small
        return canvas

    def infer(self, inputs: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        views = [(k, view) for k, item in enumerate(inputs) for view in item.views]
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in inputs]
        if self._one_by_one:
            for k, view in views:
                found[k].append(self._decoded(self._run(self._blob(view)[None]), view, inputs[k].size[1]))
            return [fused(looks) if len(looks) > 1 else looks[0] for looks in found]
        for shape in sorted({v.blob.shape for _, v in views}):
            same = [(k, v) for k, v in views if v.blob.shape == shape]
            out = self._run(np.stack([self._blob(v) for _, v in same]))
            for i, (k, view) in enumerate(same):
                found[k].append(self._decoded([o[i : i + 1] for o in out], view, inputs[k].size[1]))
        return [fused(looks) if len(looks) > 1 else looks[0] for looks in found]

    def _blob(self, view: View) -> np.ndarray:
        """(3, h, w) float32 as the model was trained on."""
        blob = np.empty((3, *view.blob.shape[:2]), np.float32)
        for plane, channel, mean, divisor in zip(blob, cv2.split(view.blob), *self._layout.norm):
            np.subtract(channel, mean, out=plane, dtype=np.float32)
            if divisor != 1:
                plane /= divisor
        return blob

    def _run(self, blob: np.ndarray) -> list[np.ndarray]:
        feed: dict[str, np.ndarray] = {self._inputs[0]: np.ascontiguousarray(blob, np.float32)}
        for name in self._inputs[1:]:
            # Exports that decode themselves ask for the size that boxes shall have: width, height.
            feed[name] = np.array([[self._size[1], self._size[0]]], np.int64)
        return [np.asarray(o) for o in self._session.run(None, feed)]

    def _decoded(self, out: list[np.ndarray], view: View, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of one view in the picture's own px. ``width``: the picture's, about which a mirrored view is turned."""
        corners, score = self._layout.decode(out, (view.blob.shape[0], view.blob.shape[1]), self._classes)
        keep = np.argsort(-score, kind="stable")[:CANDIDATES]
        keep = keep[score[keep] > KEEP_SCORE]
        corners = (corners[keep] - np.tile(view.shift, 2)) / np.tile(view.scale, 2)
        if view.mirrored:
            corners = corners[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        score = score[keep].astype(np.float64)
        chosen = (nms(corners, score) if self._layout.nms else list(range(len(score))))[:MOST_BOXES]
        return corners[chosen], score[chosen]


def _session(model: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # 3: errors alone; older exporters earn hundreds of warnings that no user can act on.
    options.log_severity_level = 3
    # A plan of memory is kept for every shape of input that comes by: pictures have dozens.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())


def _shrunk(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized as the models' own code does; what is much larger is averaged to twice the size first, or it would alias."""
    if min(rgb.shape[1] / width, rgb.shape[0] / height) > 2:
        rgb = cv2.resize(rgb, (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
