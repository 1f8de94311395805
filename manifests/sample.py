"""The field table: name, type, unit, frame and meaning of every column; the Arrow schemas and README's table derive
from it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.frames import NORMAL_FRAME
from manifests.keypoints import COCO17 as COCO17

SCHEMA_VERSION = 1
FRAMINGS = ("face", "upper", "full")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
XY = pa.list_(pa.float32(), 2)
XYZ = pa.list_(pa.float32(), 3)
# Of no fixed length: Parquet cannot read back a null among lists that have one.
RGB = pa.list_(pa.float32())
PERSON = pa.struct(
    [
        ("asset_id", pa.string()),
        ("box", pa.list_(pa.float32(), 4)),
        ("visible_fraction", pa.float32()),
        ("keypoint_set", pa.string()),
        ("keypoints", pa.list_(XY)),
        ("keypoints_3d", pa.list_(XYZ)),
        ("keypoint_visibility", pa.list_(pa.uint8())),
        ("bones", pa.string()),
        ("phenotype", pa.string()),
    ]
)
CAMERA = pa.struct(
    [
        ("K", pa.list_(pa.float64(), 9)),
        ("world_to_camera", pa.list_(pa.float64(), 16)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("framing", pa.string()),
    ]
)
LIGHTING = pa.struct(
    [
        ("environment", pa.string()),
        ("yaw_deg", pa.float32()),
        ("strength", pa.float32()),
        ("lamps", pa.string()),
        ("backdrop", pa.string()),
    ]
)
RIGHTS = pa.struct(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("redistributable", pa.bool_()),
    ]
)
AGREEMENT = pa.struct([("opaque", pa.float32()), ("strand", pa.float32())])
ENGINE = pa.struct(
    [("renderer", pa.string()), ("version", pa.string()), ("samples", pa.int32()), ("denoiser", pa.string())]
)
BOX = pa.struct([("xyxy", pa.list_(pa.float32(), 4)), ("raw_score", pa.float32()), ("score", pa.float32())])


@dataclasses.dataclass(frozen=True)
class Field:
    """One column: its Arrow type, how the bytes are coded, and what it means."""

    name: str
    type: pa.DataType
    stored: str
    meaning: str
    unit: str = ""
    frame: str = ""
    nullable: bool = False
    # Datasets from before it lack it, and stay as they are.
    later: bool = False


KEYS = (
    Field("sample_id", pa.string(), "string", "unique id; names the sample in receipts, logs and errors"),
    Field(
        "stage_digest",
        pa.string(),
        "string",
        "sha256 of the stage's settings and inputs; with the job it reproduces the row",
    ),
    Field("index", pa.int64(), "int", "position in the stage's plan; seeds every draw"),
    Field("split", pa.string(), "string", "train, val or test, decided per identity"),
)

RENDERED = (
    *KEYS,
    Field("image", IMAGE, "JPEG q95 4:2:0 (job may say 4:4:4, PNG, lossless WebP)", "the picture", "sRGB, 8 bit"),
    Field(
        "depth",
        pa.binary(),
        "u16 affine per sample, byte planes, zstd-1; float32 past the bound",
        "planar z along the axis at the pixel centre, no anti-aliasing; invalid where mask is 0; error <= 0.02 mm",
        "metres",
        "camera z",
    ),
    Field(
        "normal",
        pa.binary(),
        "octahedral 2x12 bit planes, zstd-1 (0.06 deg; 2x16 on request)",
        "interpolated vertex normal, of a strand that of its hair's volume, unit, at the pixel centre, no anti-aliasing",
        "unit vector",
        NORMAL_FRAME,
    ),
    Field("normal_shading", pa.binary(), "as normal", "with normal maps", "unit vector", NORMAL_FRAME, True),
    Field("albedo", IMAGE, "PNG", "base colour without light", "sRGB, 8 bit", "", True),
    Field("alpha", pa.binary(), "u8 zstd-1", "soft foreground coverage, hair included", "0..255"),
    Field("mask", pa.binary(), "u8 zstd-1", "instance id of the first surface, 0 = background; i is people[i - 1]"),
    Field("segmentation", pa.binary(), "u8 zstd-1", "Sapiens2's 29 classes, 255 = not labelled", "", "", True),
    Field(
        "people",
        pa.list_(PERSON),
        "list of struct",
        "asset id, box xyxy, visible fraction (by solid angle), keypoints 2D and 3D with visibility (0 absent, "
        "1 occluded, 2 visible), bones, phenotype",
        "px; metres",
        "pixels; world",
    ),
    Field(
        "camera",
        CAMERA,
        "struct",
        "K, world_to_camera, width, height, framing (face, upper, full)",
        "px; metres",
        "opencv_camera from world",
    ),
    Field(
        "lighting", LIGHTING, "struct", "environment id, yaw, strength, lamps (JSON), backdrop photograph", "degrees"
    ),
    Field(
        "rights",
        pa.list_(RIGHTS),
        "list of struct",
        "per asset and environment: source, licence (SPDX), consent, redistributable",
    ),
    Field(
        "agreement",
        AGREEMENT,
        "struct",
        "share of pixels on which the two engines agree within 0.1 mm, opaque and strand apart",
    ),
    Field("engine", ENGINE, "struct", "renderer, version, samples, denoiser"),
    Field(
        "white_balance",
        RGB,
        "list of 3 float32",
        "what the camera multiplied the light's linear red, green and blue by; null where colours are as the light made them",
        "",
        "",
        True,
        True,
    ),
)

CURATED = (
    *KEYS,
    Field("image", IMAGE, "the original bytes, untouched", "the photograph", "sRGB, 8 bit"),
    Field("width", pa.int32(), "int", "after rotation by orientation", "px"),
    Field("height", pa.int32(), "int", "after rotation by orientation", "px"),
    Field("orientation", pa.int32(), "int", "EXIF orientation 1-8 that the stored bytes carry"),
    Field("sha256", pa.string(), "string", "of the original bytes"),
    Field("phash", pa.binary(), "32 bytes", "256-bit PDQ hash", "", "", True),
    Field("boxes", pa.list_(BOX), "list of struct", "person boxes xyxy after rotation, raw and calibrated score", "px"),
    Field("uri", pa.string(), "string", "where it came from"),
    Field("rights", pa.list_(RIGHTS), "list of struct", "source, licence, consent, redistributable"),
    Field("cluster_path", pa.string(), "string", "place in the tree of clusters, coarsest first", "", "", True, True),
    Field(
        "sampling_weight",
        pa.float32(),
        "float",
        "how often to draw it so that clusters come evenly; mean 1 over what the policy kept",
        "",
        "",
        True,
        True,
    ),
)

KINDS = {"rendered": RENDERED, "curated": CURATED}


def schemas(kind: str) -> list[pa.Schema]:
    """The schemas that shards of ``kind`` may have: this version's, and that from before the columns that came later."""
    return [schema(kind, e) for e in (False, True) if not e or any(f.later for f in KINDS[kind])]


def early(kind: str, names: Iterable[str]) -> bool:
    """Whether rows of ``kind`` with these columns have none of those that came later."""
    return not {f.name for f in KINDS[kind] if f.later} & set(names)


def schema(kind: str, early: bool = False) -> pa.Schema:
    """Arrow schema of ``kind`` ("rendered" or "curated"), with unit and frame on each column and the HF features.

    ``early``: without the columns that came later.
    """
    columns = [f for f in KINDS[kind] if not (early and f.later)]
    fields = [
        pa.field(
            f.name,
            f.type,
            nullable=True,
            metadata={
                k: v
                for k, v in (("stored", f.stored), ("unit", f.unit), ("frame", f.frame), ("meaning", f.meaning))
                if v
            },
        )
        for f in columns
    ]
    features = {f.name: feature(f.type) for f in columns}
    metadata = {
        "maquette": json.dumps({"schema_version": SCHEMA_VERSION, "kind": kind}),
        "huggingface": json.dumps({"info": {"features": features}}),
    }
    return pa.schema(fields, metadata=metadata)


def feature(kind: pa.DataType) -> Any:
    """The `datasets` feature of an Arrow type (datasets 5.2: Value, List, Image, plain dict for a struct)."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {f.name: feature(f.type) for f in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "List"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


@dataclasses.dataclass
class Person:
    """One person of a rendered sample. J keypoints.

    ``box``: (4,) float32 xyxy px of the pixels that show the person. ``keypoints``: (J, 2) float32 px;
    ``keypoints_3d``: (J, 3) float32
    world metres; ``visibility``: (J,) uint8: 0 absent or outside the picture, 1 occluded, 2 visible. ``bones``,
    ``phenotype``: JSON or None.
    """

    asset_id: str
    box: np.ndarray
    visible_fraction: float
    keypoint_set: str | None
    keypoints: np.ndarray
    keypoints_3d: np.ndarray
    visibility: np.ndarray
    bones: dict[str, Any] | None = None
    phenotype: dict[str, Any] | None = None


@dataclasses.dataclass
class RenderedSample:
    """What a renderer hands to a shard writer: one row of RENDERED with plain arrays.

    ``image``: (H, W, 3) uint8 sRGB. ``depth``: (H, W) float32 metres, 0 where ``mask`` is 0. ``normal``,
    ``normal_shading``: (H, W, 3)
    float32 unit, OpenCV camera frame, 0 where ``mask`` is 0. ``albedo``: (H, W, 3) uint8 sRGB. ``alpha``, ``mask``,
    ``segmentation``: (H, W) uint8.
    ``K``: (3, 3) float64 px. ``world_to_camera``: (4, 4) float64. ``rights``: dicts with the keys of RIGHTS.
    ``white_balance``: linear RGB gains, None for none.
    """

    sample_id: str
    stage_digest: str
    index: int
    split: str
    image: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    alpha: np.ndarray
    mask: np.ndarray
    people: list[Person]
    K: np.ndarray
    world_to_camera: np.ndarray
    framing: str
    lighting: dict[str, Any]
    rights: list[dict[str, Any]]
    agreement: dict[str, float | None]
    engine: dict[str, Any]
    normal_shading: np.ndarray | None = None
    albedo: np.ndarray | None = None
    segmentation: np.ndarray | None = None
    white_balance: tuple[float, float, float] | None = None


def markdown_table(kind: str) -> str:
    """README's table of ``kind``, generated so that it cannot drift from the schema."""
    rows = ["| field | stored as | unit | meaning |", "|---|---|---|---|"]
    for f in KINDS[kind]:
        name = f"`{f.name}`" + (" (nullable)" if f.nullable else "")
        meaning = f.meaning + (f" ({f.frame})" if f.frame else "")
        rows.append(f"| {name} | {f.stored} | {f.unit} | {meaning} |")
    return "\n".join(rows)
