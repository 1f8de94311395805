"""One input -> everything later rules need to know of it, pixels read once: hashes, sizes, boxes. Nothing is decided
here.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from curation.detectors import load
from curation.sources import Photo
from manifests import photo
from manifests.errors import PhotoError
from manifests.job import CurateStage


class Measurer:
    """Measures photographs with one detector held in memory."""

    def __init__(self, stage: CurateStage, root: Path) -> None:
        self._stage = stage
        self._detector = load(stage.detector, root)

    def measure(self, item: Photo) -> dict[str, Any]:
        """One measurement row; a file that cannot be used gets its reason code in `error`, never an exception."""
        start = time.perf_counter()
        row: dict[str, Any] = {
            "uri": item.uri,
            "path": item.path,
            "licence": item.licence,
            "consent": item.consent,
            "redistributable": item.redistributable,
            "detector": self._detector.name,
            "detector_sha256": self._detector.weights_sha256,
            "weak": self._detector.weak,
            "sha256": None,
            "bytes": None,
            "format": None,
            "width": None,
            "height": None,
            "orientation": None,
            "phash": None,
            "phash_mirrored": None,
            "boxes": [],
            "error": None,
            "error_detail": None,
        }
        try:
            data = Path(item.path).read_bytes()
            row["bytes"], row["sha256"] = len(data), hashlib.sha256(data).hexdigest()
            rgb, header = photo.decode(data, self._stage.max_pixels, self._stage.max_bytes)
            row["format"], row["orientation"] = header.format, header.orientation
            row["height"], row["width"] = rgb.shape[:2]
            row["phash"], row["phash_mirrored"] = hashes(rgb)
            row["boxes"] = [
                {"xyxy": [round(v, 3) for v in b.xyxy], "raw_score": b.raw, "score": b.raw} for b in self._detector(rgb)
            ]
        except PhotoError as error:
            row["error"], row["error_detail"] = error.code, error.message
        except OSError as error:
            row["error"], row["error_detail"] = "io_error", error.strerror or str(error)
        row["ms"] = round(1e3 * (time.perf_counter() - start), 3)
        return row


def hashes(rgb: np.ndarray) -> tuple[bytes, bytes]:
    """256-bit PDQ hash of a picture and of its mirror image, 32 bytes each."""
    import pdqhash

    def one(picture: np.ndarray) -> bytes:
        bits, _ = pdqhash.compute(np.ascontiguousarray(picture))
        return np.packbits(np.asarray(bits, np.uint8)).tobytes()

    return one(rgb), one(rgb[:, ::-1])
