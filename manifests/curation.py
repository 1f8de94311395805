"""The curate section of a job: where photographs come from, what finds people in them, and the rules that decide."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import pydantic
from pydantic import Field

from manifests.model import Model
from manifests.presets import PRESETS
from manifests.priors import SplitShares

SIDE_RULES = Literal["both", "height", "max_side", "sqrt_area"]
# Pairs further apart than this are never looked for: 256 bits in 16 words, two of them flipped in one at most.
MAX_DISTANCE = 47


class Detector(Model):
    """A person detector. `onnx`: `weights` is a file, `layout` its head; `transformers`: a folder or hub id; `face`:
    OpenCV's cascade, weak.
    """

    kind: Literal["onnx", "transformers", "face"] = "face"
    weights: str | None = None
    layout: str = Field("yolox", description="of an ONNX file: a name of curation.layouts.LAYOUTS")
    classes: list[int] = Field([0], min_length=1, description="class numbers of an ONNX file that count; COCO: 0")
    labels: list[str] = Field(["person"], min_length=1, description="labels of a transformers model that count")
    calibration: str | None = Field(
        None,
        description="map written by `maquette calibrate`; default: beside the weights, or one that came with maquette",
    )
    looks: int = Field(
        2,
        ge=1,
        le=2,
        description="2: once more at the mirror image, 640 px or larger, where layout and file allow; finds small people, "
        "takes 2.4 times as long",
    )
    batch: int = Field(8, ge=1, description="pictures of one forward pass; halved where memory runs out")
    device: str = Field("auto", description="of a transformers model: auto, cpu, cuda")

    @pydantic.model_validator(mode="after")
    def _weights(self) -> Detector:
        if self.kind != "face" and not self.weights:
            raise ValueError(
                f"detector {self.kind} needs `weights`: a path" + (" or hub id" if self.kind == "transformers" else "")
            )
        return self


class Weights(Model):
    """A model by folder, file or hub id."""

    weights: str
    batch: int = Field(16, ge=1)
    device: str = Field("auto", description="auto, cpu, cuda")


class Embedding(Weights):
    """One vector for each picture. `transformers`: SigLIP2, CLIP, DINOv2 or any other AutoModel with an image processor;
    `encoder`: a checkpoint of maquette's own pre-training.
    """

    kind: Literal["transformers", "encoder"] = "transformers"


class Head(Weights):
    """A score from 0 to 1 or on the head's own scale. `linear`: linear layers on the embedding (safetensors, pth, or what
    `maquette head` wrote); `classifier`: a transformers image classifier, its `labels` summed.
    """

    kind: Literal["linear", "classifier"] = "linear"
    labels: list[str] = Field([], description="of a classifier: those that count; also of a head of several classes")

    @pydantic.model_validator(mode="after")
    def _named(self) -> Head:
        if self.kind == "classifier" and not self.labels:
            raise ValueError("a classifier needs `labels`: which of its classes count")
        return self


class TextModel(Model):
    """An ONNX export of PaddleOCR's DB text detector."""

    weights: str


class FaceModel(Model):
    """An ONNX export of YuNet, whose five points give the head's pose."""

    weights: str
    min_score: float = Field(0.7, ge=0, le=1)


class Clusters(Model):
    """Hierarchical k-means over the embeddings, as in Vo et al. 2024: centroids are clustered again, level by level."""

    levels: list[int] = Field([], description="clusters of each level, finest first; empty: n / 30 and its square root")
    rounds: int = Field(2, ge=1, description="times that each level is fitted again on points near its centroids")
    fit: int = Field(200_000, ge=100, description="pictures that centroids are fitted on, at most")
    seed: int = 0

    @pydantic.model_validator(mode="after")
    def _falling(self) -> Clusters:
        if any(a <= b for a, b in itertools.pairwise(self.levels)) or any(k < 1 for k in self.levels):
            raise ValueError(f"levels must fall and be positive, got {self.levels}")
        return self


HEADS = Literal["artistic", "watermark", "nsfw", "aesthetic", "realism"]


class PhotoSource(Model):
    """A folder, tar or WebDataset shard, Parquet or Arrow table, img2dataset output, list of URLs beside their files, or
    s3:// of these; `bundled`: sample pictures that arrive inside declared dependencies.
    """

    path: str
    kind: Literal["auto", "files", "tar", "table", "list"] = Field(
        "auto", description="auto: by what lies there; list: a csv, jsonl, txt or parquet of URLs beside their files"
    )
    licence: str = Field("LicenseRef-unknown", description="of rows whose own metadata names none")
    consent: str = "unknown"
    redistributable: bool = False


class Policy(Model):
    """The rules that turn stored measurements into decisions; `maquette decide --policy` reads one as YAML."""

    preset: Literal["sapiens", "sapiens2"] | None = Field(None, description="fills in the rules of a paper")
    min_side_px: int = Field(320, ge=1)
    max_aspect: float = Field(5.0, gt=1, description="longer side over shorter")
    min_score: float = Field(0.9, ge=0, le=1, description="strict: score > min_score")
    raw: bool = Field(False, description="hold the score rule against the detector's own score, not the calibrated one")
    min_box_px: float = Field(300, ge=0, description="strict: box > min_box_px")
    at_least: bool = Field(False, description="box >= min_box_px instead")
    side_rule: SIDE_RULES = "both"
    accept_weak: bool = Field(False, description="let a weak detector's boxes pass without a score")
    need_head: bool = Field(False, description="the person's box must hold a head; only where a head detector is given")
    min_head_score: float = Field(0.5, ge=0, le=1)
    duplicate_distance: int = Field(
        MAX_DISTANCE, ge=0, le=MAX_DISTANCE, description="bits of 256; beyond 40 a thumbnail must agree as well"
    )
    # Far from what photographs show, so that they catch the unusable alone: over 64 of COCO and the bundled ones blur is 300
    # and more, entropy 5.3 bits, the bright end 142, the dark end 70 at most.
    min_blur: float = Field(8.0, ge=0, description="variance of the Laplacian at 256 px")
    min_bright: float = Field(24.0, ge=0, le=255, description="99th percentile of luma")
    max_dark: float = Field(245.0, ge=0, le=255, description="1st percentile of luma")
    min_entropy: float = Field(2.0, ge=0, le=8, description="bits of the luma histogram")
    max_border: float = Field(0.75, ge=0, le=1, description="share of the picture that is flat border")
    optout: bool = Field(True, description="refuse what says noai, noimageai or a reserved right to mine")
    synthetic: bool = Field(True, description="refuse what says that a model generated it")
    licences: list[str] | None = Field(None, description="only these licences, as the metadata spells them")
    max_text: float | None = Field(
        0.5, ge=0, le=1, description="evidence of overlaid text; null = rule off, here and below"
    )
    max_tiled: float | None = Field(30.0, ge=0, description="repetition within one picture, in times the usual")
    max_watermark: float | None = Field(0.5, ge=0, le=1, description="the watermark head's score")
    max_watermark_source: float | None = Field(2.0, ge=0, description="consensus of a site's pictures, in times chance")
    max_drawn: float | None = Field(0.5, ge=0, le=1, description="evidence of a sketch or cartoon, without weights")
    max_artistic: float | None = Field(0.5, ge=0, le=1, description="the artistic head's score")
    max_nsfw: float | None = Field(0.5, ge=0, le=1, description="the NSFW head's score")
    min_aesthetic: float | None = Field(None, description="the aesthetic head's score, on its own scale")
    min_realism: float | None = Field(None, description="the realism head's score")
    max_yaw_deg: float | None = Field(None, ge=0, le=180, description="of the largest face, either way")
    max_pitch_deg: float | None = Field(None, ge=0, le=180, description="of the largest face, up or down")
    semantic_distance: float | None = Field(
        None, ge=0, le=0.3, description="1 - cosine of embeddings, below which two pictures show the same"
    )
    balance: int | None = Field(None, ge=1, description="keep so many, drawn evenly over the clusters")
    tombstones: str | None = Field(None, description="file with one sha256 or URL a line, never to be kept")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _preset(cls, tree: Any) -> Any:
        """What the job says itself stays."""
        name = tree.get("preset") if isinstance(tree, dict) else None
        return {**{k: r.value for k, r in PRESETS[name].items()}, **tree} if name in PRESETS else tree


class CurateStage(Policy):
    """Photographs -> decisions and kept samples."""

    @pydantic.model_validator(mode="after")
    def _fed(self) -> CurateStage:
        on_it = sorted(name for name, head in self.heads.items() if head.kind == "linear")
        if on_it and self.embedding is None:
            raise ValueError(f"heads.{on_it[0]} is a linear head: it needs `embedding`, the one that it was fitted on")
        return self

    sources: list[PhotoSource] = Field(min_length=1)
    max_pixels: int = Field(100_000_000, ge=1)
    max_bytes: int = Field(200_000_000, ge=1)
    detector: Detector = Detector()
    head_detector: Detector | None = None
    text: TextModel | None = Field(None, description="a text detector; without it text is found by pixels alone")
    face: FaceModel | None = Field(None, description="a face model, for head pose")
    embedding: Embedding | None = Field(None, description="for heads, duplicates in meaning, and balance")
    heads: dict[HEADS, Head] = Field({}, description="name -> model; without one its rule is skipped")
    clusters: Clusters = Clusters()
    partition: int = Field(64, ge=1, description="inputs measured and committed together")
    partition_mb: int = Field(64, ge=1, description="bytes of a partition, at most, unless one picture is larger")
    picture_deadline_s: float = Field(120.0, gt=0, description="a picture that takes longer ends its worker")
    max_rss_mb: int = Field(8000, ge=500, description="a worker above this is killed at once")
    seed: int = 0
    splits: SplitShares = SplitShares(train=1.0, val=0.0, test=0.0)
    samples_per_task: int = Field(32, ge=1)
    workers: int = Field(0, ge=0, description="0 = one per core")
