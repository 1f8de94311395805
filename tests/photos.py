"""Measurement rows, pictures and small corpora for tests of curation."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from curation.stage import MEASUREMENTS
from manifests.curation import CurateStage, PhotoSource


def settings(**changes: Any) -> CurateStage:
    return CurateStage(**({"sources": [PhotoSource(path="bundled")]} | changes))


def measured(uri: str, found: Any = (), weak: bool = False, **changes: Any) -> dict[str, Any]:
    """A row of a sound photograph of 1000 x 1000; ``found``: (xyxy, score) with the same raw score."""
    return (
        dict.fromkeys(MEASUREMENTS.names)
        | {"uri": uri, "kind": "file", "file": uri, "offset": 0, "length": 1000, "licence": "x", "consent": "x"}
        | {"redistributable": False, "detector": "d", "detector_sha256": "0", "weak": weak, "calibrated": not weak}
        | {"sha256": uri, "bytes": 1000, "format": "JPEG", "width": 1000, "height": 1000, "orientation": 1}
        | {"blur": 500.0, "dark": 10.0, "bright": 240.0, "entropy": 7.0, "border": 0.0}
        | {"boxes": [{"xyxy": list(map(float, xyxy)), "raw_score": raw, "score": raw} for xyxy, raw in found]}
        | changes
    )


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=MEASUREMENTS)


def cloud(seed: int, width: int = 480, height: int = 360) -> np.ndarray:
    """A made-up photograph (height, width, 3): soft blobs of many sizes, sharp edges, noise; no two seeds alike."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for scale in (60, 20, 7):
        layer = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), scale)
        picture += layer / layer.std() * scale**0.5
    for _ in range(12):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        cv2.circle(picture, (x, y), int(rng.integers(10, 70)), rng.normal(0, 8, 3).tolist(), -1)
    return np.clip(128 + 11 * picture, 0, 255).astype(np.uint8)


def encoded(rgb: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, kind, **options)
    return out.getvalue()
