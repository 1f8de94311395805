"""The curate section of a job: where photographs come from, what finds people in them, and the rules that decide."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from manifests.model import Model
from manifests.priors import SplitShares

SIDE_RULES = Literal["both", "height", "max_side", "sqrt_area"]
# Pairs further apart than this are never looked for: 256 bits in 16 words, two of them flipped in one at most.
MAX_DISTANCE = 47
# What a preset fills in where the job says nothing. Sapiens, section 3.1: score > 0.9 and box > 300 px; Sapiens2: at
# least one prominent person, short side >= 384 px, head in view.
PRESETS: dict[str, dict[str, Any]] = {
    "sapiens": {"min_score": 0.9, "min_box_px": 300.0, "side_rule": "both", "at_least": False},
    "sapiens2": {"min_score": 0.9, "min_box_px": 384.0, "side_rule": "both", "at_least": True, "need_head": True},
}


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
        "takes three times as long",
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
    tombstones: str | None = Field(None, description="file with one sha256 or URL a line, never to be kept")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _preset(cls, tree: Any) -> Any:
        """What the job says itself stays."""
        name = tree.get("preset") if isinstance(tree, dict) else None
        return {**PRESETS[name], **tree} if name in PRESETS else tree


class CurateStage(Policy):
    """Photographs -> decisions and kept samples."""

    sources: list[PhotoSource] = Field(min_length=1)
    max_pixels: int = Field(100_000_000, ge=1)
    max_bytes: int = Field(200_000_000, ge=1)
    detector: Detector = Detector()
    head_detector: Detector | None = None
    partition: int = Field(64, ge=1, description="inputs measured and committed together")
    partition_mb: int = Field(64, ge=1, description="bytes of a partition, at most, unless one picture is larger")
    picture_deadline_s: float = Field(120.0, gt=0, description="a picture that takes longer ends its worker")
    max_rss_mb: int = Field(8000, ge=500, description="a worker above this is killed at once")
    seed: int = 0
    splits: SplitShares = SplitShares(train=1.0, val=0.0, test=0.0)
    samples_per_task: int = Field(32, ge=1)
    workers: int = Field(0, ge=0, description="0 = one per core")
