"""An upright picture -> the pose of its largest face, from the five points of a YuNet export.

Degrees: yaw to the picture's right, pitch up, roll clockwise are positive; 0, 0, 0 looks at the camera.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from curation.overlay import session
from manifests.curation import FaceModel

STRIDES = (8, 16, 32)
# Eyes, nose, corners of the mouth of an adult head in mm (x to the picture's right, y down, z away from the camera), the
# picture's left first: means of anthropometric surveys (Farkas 1994), rounded.
POINTS = np.array([[-31.5, -34.0, 0.0], [31.5, -34.0, 0.0], [0.0, 0.0, -28.0], [-25.5, 32.0, -2.0], [25.5, 32.0, -2.0]])


class Face(NamedTuple):
    """``xyxy`` px of the picture, ``score`` 0..1, ``points`` (5, 2) px in the order of POINTS."""

    xyxy: np.ndarray
    score: float
    points: np.ndarray


class Faces:
    """Finds faces; `pose` reads one."""

    def __init__(self, settings: FaceModel, root: Path) -> None:
        path = root / settings.weights
        self._session = session(path, "curate.face.weights")
        self.name, self.weights_sha256 = f"faces {path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
        self._least = settings.min_score
        one = self._session.get_inputs()[0]
        self._input = one.name
        h, w = one.shape[2:]
        self._size = (h if isinstance(h, int) else 640, w if isinstance(w, int) else 640)

    def largest(self, rgb: np.ndarray) -> Face | None:
        """The face with the largest box above the score, or None. ``rgb``: (H, W, 3) uint8."""
        height, width = self._size
        scale = min(height / rgb.shape[0], width / rgb.shape[1])
        small = cv2.resize(rgb, (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))))
        canvas = np.zeros((height, width, 3), np.float32)
        canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
        names = [o.name for o in self._session.get_outputs()]
        out = dict(zip(names, self._session.run(None, {self._input: canvas.transpose(2, 0, 1)[None]})))
        found = [f for stride in STRIDES for f in self._of_stride(out, stride)]
        if not found:
            return None
        best = max(found, key=lambda f: (np.prod(f.xyxy[2:] - f.xyxy[:2]), f.score))
        return Face(best.xyxy / scale, best.score, best.points / scale)

    def _of_stride(self, out: dict[str, Any], stride: int) -> list[Face]:
        """Every cell of one grid above the score: box centre and points as offsets in cells, size as logarithm."""
        likely, there, box, points = (np.asarray(out[f"{n}_{stride}"])[0] for n in ("cls", "obj", "bbox", "kps"))
        score = np.sqrt(likely[:, 0].clip(0, 1) * there[:, 0].clip(0, 1))
        across = -(-self._size[1] // stride)
        found = []
        for i in np.flatnonzero(score >= self._least):
            cell = np.array([i % across, i // across], float)
            centre, extent = (cell + box[i, :2]) * stride, np.exp(box[i, 2:]) * stride
            five = (points[i].reshape(5, 2) + cell) * stride
            found.append(Face(np.concatenate([centre - extent / 2, centre + extent / 2]), float(score[i]), five))
        return found


def pose(points: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees of a face whose five ``points`` (5, 2) px are in the order of POINTS.

    Scaled orthographic projection solved in the least squares (DeMenthon and Davis 1995, first step): the camera's focal
    length is not known, and over a face perspective is small.
    """
    model = POINTS - POINTS.mean(axis=0)
    seen = points - points.mean(axis=0)
    rows = np.linalg.lstsq(model, seen, rcond=None)[0].T
    # Two rows of a rotation times one scale: the nearest such pair.
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    first, second = u @ vt
    turn = np.stack([first, second, np.cross(first, second)])
    # Where the face looks: its model's -z.
    look = turn @ np.array([0.0, 0.0, -1.0])
    yaw = np.degrees(np.arctan2(look[0], -look[2]))
    pitch = np.degrees(np.arcsin(np.clip(-look[1], -1, 1)))
    roll = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    return float(yaw), float(pitch), float(roll)
