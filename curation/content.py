"""A decoded picture -> what is in it beside people: overlaid text, drawing, repetition, a vector, heads' scores, head pose.

Stages that need no weights always run; the others leave nulls where the job gives no model, and the funnel says so.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation import watermark
from curation.embedding import Embedder, packed
from curation.faces import Faces, pose
from curation.heads import Classifier, LinearHead
from curation.overlay import TextOverlay
from curation.style import Drawn
from manifests.curation import CurateStage


@dataclasses.dataclass
class Waiting:
    """The small inputs of one picture's batched models, by name."""

    embedding: np.ndarray | None
    classifiers: dict[str, np.ndarray]


class Content:
    """All models of a job, in memory. ``embedder``: made by the caller, since maquette's own encoder is no part of curation."""

    def __init__(self, stage: CurateStage, root: Path, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._text = TextOverlay(root / stage.text.weights if stage.text else None)
        self._drawn = Drawn()
        self._faces = Faces(stage.face, root) if stage.face else None
        self._linear: dict[str, LinearHead] = {}
        self._classifiers: dict[str, Classifier] = {}
        for name, head in sorted(stage.heads.items()):
            if head.kind == "classifier":
                self._classifiers[name] = Classifier(head, root)
            elif embedder is not None:
                self._linear[name] = LinearHead(head, root, embedder.weights_sha256)
        self.models = json.dumps(dict(self._named()))

    def _named(self) -> list[tuple[str, str]]:
        """Every model's name and weights."""
        models: list[Any] = [
            self._embedder,
            self._text,
            self._faces,
            *self._linear.values(),
            *self._classifiers.values(),
        ]
        found = [(m.name, m.weights_sha256 or "") for m in models if m is not None]
        return [*found, (self._drawn.name, "")]

    def look(self, rgb: np.ndarray, row: dict[str, Any], spent: dict[str, float | None]) -> Waiting:
        """Fill ``row`` with what one picture (H, W, 3) uint8 tells at once, and give back what waits for a batch."""
        start = time.perf_counter()
        row["models"] = self.models
        row["text"] = round(self._text(rgb), 5)
        at = time.perf_counter()
        spent["text"] = 1e3 * (at - start)
        row["drawn"], row["tiled"] = round(self._drawn(rgb), 5), round(watermark.tiled(rgb), 3)
        spent["style"] = 1e3 * (time.perf_counter() - at)
        if self._faces is not None:
            at = time.perf_counter()
            face = self._faces.largest(rgb)
            if face is not None:
                row["yaw"], row["pitch"], row["roll"] = (round(v, 2) for v in pose(face.points))
            spent["face"] = 1e3 * (time.perf_counter() - at)
        at = time.perf_counter()
        waiting = Waiting(
            self._embedder.prepare(rgb) if self._embedder else None,
            {name: model.prepare(rgb) for name, model in self._classifiers.items()},
        )
        spent["embed"] = 1e3 * (time.perf_counter() - at) if self._embedder or self._classifiers else None
        return waiting

    def batch(self, rows: Sequence[dict[str, Any]], waiting: Sequence[Waiting]) -> None:
        """Fill the rows' vectors and scores, all in one pass of each model."""
        if not rows:
            return
        start = time.perf_counter()
        if self._embedder is not None:
            # What is stored is what the heads see: a score can be made again from the stored vector.
            vectors = self._embedder.embed([w.embedding for w in waiting if w.embedding is not None])
            stored = vectors.astype(np.float16).astype(np.float32)
            for row, vector in zip(rows, vectors):
                row["embedding"] = packed(vector)
            _share(rows, "embed", start)
            start = time.perf_counter()
            for name, head in self._linear.items():
                _put(rows, name, head(stored.astype(np.float64)))
        for name, model in self._classifiers.items():
            _put(rows, name, model([w.classifiers[name] for w in waiting]))
        if self._linear or self._classifiers:
            _share(rows, "heads", start)


def _put(rows: Sequence[dict[str, Any]], name: str, scores: np.ndarray) -> None:
    for row, score in zip(rows, scores.tolist()):
        row[name] = round(score, 5)


def _share(rows: Sequence[Mapping[str, Any]], step: str, start: float) -> None:
    each = 1e3 * (time.perf_counter() - start) / len(rows)
    for row in rows:
        row["ms"][step] = (row["ms"][step] or 0.0) + each
