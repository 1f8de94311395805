"""One input -> everything later rules need to know of it, decoded once, in stages that grow dearer. Nothing is decided
here; a stage is only not entered where the job's own policy has already refused the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curation import filters, provenance, reading
from curation.boxes import Box, Prepared
from curation.content import Content, Waiting
from curation.detectors import PersonDetector
from curation.embedding import Embedder
from curation.fingerprint import fingerprint
from curation.stage import MEASUREMENTS, STEPS
from manifests import photo
from manifests.curation import CurateStage
from manifests.errors import PhotoError


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An input with its bytes, or the reason why there are none. ``row``: of curation.sources.INPUTS."""

    row: Mapping[str, Any]
    data: bytes | None
    said: Mapping[str, Any]
    error: PhotoError | None
    ms: float


@dataclasses.dataclass
class Look:
    """A measurement row without people, and what the detectors need to add them; None where measuring has ended."""

    row: dict[str, Any]
    person: Prepared | None = None
    head: Prepared | None = None
    content: Waiting | None = None


def fetch(row: Mapping[str, Any]) -> Fetched:
    """The bytes of an input. Raises StorageError where a bucket goes on refusing."""
    start = time.perf_counter()
    try:
        data, said = reading.read(row)
        return Fetched(row, data, said, None, 1e3 * (time.perf_counter() - start))
    except PhotoError as error:
        return Fetched(row, None, {}, error, 1e3 * (time.perf_counter() - start))


class Measurer:
    """Measures photographs with the job's detectors held in memory."""

    def __init__(self, stage: CurateStage, root: Path, embedder: Embedder | None = None) -> None:
        self._stage = stage
        self._content = Content(stage, root, embedder)
        self._detector = PersonDetector(stage.detector, root)
        self._head = PersonDetector(stage.head_detector, root) if stage.head_detector else None

    def measure(self, items: Sequence[Fetched]) -> list[dict[str, Any]]:
        """Measurement rows of a few inputs; a file that cannot be used gets its code in `error`, never an exception."""
        looks = [self.look(item) for item in items]
        self.people(looks)
        return [look.row for look in looks]

    def look(self, item: Fetched) -> Look:
        """Everything but people: decodes the picture once, and lets go of it."""
        look = Look(self.blank(item))
        clock = _Clock(look.row["ms"])
        try:
            self._look(item, look, clock)
        except PhotoError as error:
            look.row["error"], look.row["error_detail"] = error.code, error.message
        return look

    def people(self, looks: Sequence[Look]) -> None:
        """Add what goes in batches to the rows that got that far: boxes of people and heads, vectors, scores of heads."""
        for name, detector, blob in (("boxes", self._detector, "person"), ("heads", self._head, "head")):
            open_ = [look for look in looks if getattr(look, blob) is not None]
            if detector is None or not open_:
                continue
            start = time.perf_counter()
            for look, boxes in zip(open_, detector.infer([getattr(look, blob) for look in open_])):
                look.row[name] = [_row(box) for box in boxes]
            each = 1e3 * (time.perf_counter() - start) / len(open_)
            for look in open_:
                look.row["ms"]["detect"] = (look.row["ms"]["detect"] or 0.0) + each
        seen = [(look.row, look.content) for look in looks if look.content is not None]
        self._content.batch([row for row, _ in seen], [content for _, content in seen])

    def blank(self, item: Fetched) -> dict[str, Any]:
        """A row that knows only where the input lies and what would have measured it."""
        empty = dict.fromkeys(MEASUREMENTS.names)
        given = {k: item.row[k] for k in MEASUREMENTS.names if k in item.row}
        return (
            empty
            | given
            | {
                "detector": self._detector.name,
                "detector_sha256": self._detector.weights_sha256,
                "weak": self._detector.weak,
                "calibrated": self._detector.calibration is not None,
                "head_detector_sha256": self._head.weights_sha256 if self._head else None,
                "ms": dict.fromkeys(STEPS) | {"read": item.ms},
            }
        )

    def _look(self, item: Fetched, look: Look, clock: _Clock) -> None:
        stage, row = self._stage, look.row
        row["stopped"] = "read"
        if item.data is None:
            # Whoever made the list may have said more than that it failed.
            said = provenance.read(b"", reading.told(item.row))
            row["url"], row["metadata"] = said.url, said.metadata
            assert item.error is not None
            raise item.error
        data = item.data
        row["bytes"], row["sha256"] = len(data), hashlib.sha256(data).hexdigest()
        row["stopped"] = "header"
        found = photo.header(data, stage.max_pixels, stage.max_bytes)
        turned = found.orientation >= 5
        row["format"], row["orientation"] = found.format, found.orientation
        row["width"], row["height"] = (found.height, found.width) if turned else (found.width, found.height)
        clock("header")
        row["stopped"] = "provenance"
        origin = provenance.read(data, item.said)
        row["licence"] = origin.licence or row["licence"]
        row["author"], row["url"], row["metadata"] = origin.author, origin.url, origin.metadata
        row["optout"], row["synthetic"] = origin.optout, origin.synthetic
        clock("provenance")
        small = min(found.width, found.height) < stage.min_side_px
        narrow = max(found.width, found.height) > stage.max_aspect * min(found.width, found.height)
        if small or narrow or (stage.optout and origin.optout) or (stage.synthetic and origin.synthetic):
            return
        row["stopped"] = "decode"
        rgb, _ = photo.decode(data, stage.max_pixels, stage.max_bytes)
        clock("decode")
        row["stopped"] = None
        grey = filters.luma(rgb)
        quality = filters.measure(grey)
        row |= {n: round(getattr(quality, n), 4) for n in ("blur", "dark", "bright", "entropy", "border")}
        clock("quality")
        marks = fingerprint(grey, quality.inner)
        row["phash"], row["phash_mirrored"], row["thumb"] = marks.plain, marks.mirrored, marks.thumb
        row["phash_trimmed"], row["phash_trimmed_mirrored"] = marks.trimmed, marks.trimmed_mirrored
        clock("hash")
        look.person = self._detector.prepare(rgb)
        look.head = self._head.prepare(rgb) if self._head else None
        clock("detect")
        look.content = self._content.look(rgb, row, row["ms"])


class _Clock:
    """Milliseconds since the last call, written under the name of the step that ends."""

    def __init__(self, into: dict[str, float | None]) -> None:
        self._into, self._last = into, time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self._into[step] = 1e3 * (now - self._last)
        self._last = now


def _row(box: Box) -> dict[str, Any]:
    return {"xyxy": list(box.xyxy), "raw_score": box.raw, "score": box.score}
