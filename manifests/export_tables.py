"""Rows -> tar shards and Parquet files that need none of our code to read.

Both keep our conventions: metres, OpenCV camera frame, (0.5, 0.5) the centre of the first pixel. Photographs lose
their metadata on the way. H, W: rows and columns of a picture.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import codecs
from manifests.errors import InputError, PhotoError
from manifests.export_folders import npy, png_plane
from manifests.frames import NORMAL_FRAME
from manifests.index import BLOBS
from manifests.privacy import without_metadata
from manifests.sample import IMAGE, feature, schema

PLANES = ("alpha", "mask", "segmentation")
NORMALS = ("normal", "normal_shading")
FLOATS = pa.list_(pa.float32())
MAX_TAR_BYTES = MAX_PARQUET_BYTES = 2**30
# Arrays as `datasets` and Ray read them: a row group is decoded whole.
MAX_GROUP_ROWS, MAX_GROUP_BYTES = 16, 128 * 2**20
SUFFIXES = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))
CONVENTIONS = {
    "rendered": {
        "depth": "float32 metres, planar z at the pixel centre; 0 where mask is 0",
        "normal": f"float32 unit vectors, {NORMAL_FRAME} frame (x right, y down, z forward); 0 where mask is 0",
        "alpha": "soft coverage, 0..255",
        "mask": "instance id, 0 = background; i is people[i - 1]",
        "camera": "K in px, the centre of the first pixel being (0.5, 0.5); world_to_camera to the OpenCV camera, metres",
    },
    "curated": {
        "image": "upright, without metadata; `sha256` is of the file it was made from",
        "boxes": "xyxy px of the upright picture",
    },
}


def webdataset(rows: Iterator[tuple[str, dict[str, Any]]], folder: Path) -> dict[str, str]:
    """NNNNNN.tar of at most 1 GB: STEM.jpg (or png, webp), STEM.depth.npy (H, W) and STEM.normal.npy (H, W, 3) float32,
    STEM.mask.png, STEM.alpha.png, STEM.segmentation.png, STEM.albedo.png, STEM.json (all else). Absent fields have no
    member; equal rows make equal bytes.
    """
    kind, shards = "rendered", 0
    tar: tarfile.TarFile | None = None
    with contextlib.ExitStack() as opened:
        for stem, row in rows:
            kind, fields = _open_row(row)
            if tar is None or tar.offset > MAX_TAR_BYTES:
                opened.close()
                tar = opened.enter_context(tarfile.open(folder / f"{shards:06d}.tar", "w"))
                shards += 1
            for suffix, data in _members(fields, kind):
                info = tarfile.TarInfo(f"{stem}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return CONVENTIONS[kind]


def parquet(rows: Iterator[tuple[str, dict[str, Any]]], folder: Path) -> dict[str, str]:
    """NNNNN.parquet of about 1 GB: the columns of the dataset, arrays decoded. ``depth`` H * W and ``normal`` H * W * 3
    float32 as flat lists, row by row (``camera`` has height and width); pictures and planes as encoded images.
    """
    kind, files = "rendered", 0
    sink: Any = None
    with contextlib.ExitStack() as opened:
        for kind, group in _groups(rows):
            if sink is None or sink.tell() > MAX_PARQUET_BYTES:
                opened.close()
                sink = opened.enter_context((folder / f"{files:05d}.parquet").open("wb"))
                writer = opened.enter_context(_parquet_writer(sink, kind))
                files += 1
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema=_parquet_schema(kind)))
    shape = "flat, row by row: reshape to (camera.height, camera.width"
    added = {"depth": f"; {shape})", "normal": f"; {shape}, 3)"}
    return {field: text + added.get(field, "") for field, text in CONVENTIONS[kind].items()}


def picture_suffix(data: bytes) -> str:
    """File suffix of a stored picture: jpg, png or webp."""
    for magic, suffix in SUFFIXES:
        if data.startswith(magic):
            return suffix
    raise InputError("a stored picture is neither JPEG, PNG nor WebP; run `maquette verify` on the dataset")


def _open_row(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """("rendered" or "curated", the row with arrays in place of coded blobs and the picture's bytes fit to leave)."""
    fields = dict(row)
    if "camera" not in row:
        try:
            fields["image"] = {**row["image"], "bytes": without_metadata(row["image"]["bytes"])}
        except PhotoError as error:
            raise InputError(f"sample {row['sample_id']}: its photograph does not decode ({error})") from None
        except ImportError:
            raise InputError("photographs leave through pillow; install it (pip install maquette[curate])") from None
        # The metadata that said how to turn the picture is gone, and the picture is turned.
        return "curated", {**fields, "orientation": 1}
    h, w = row["camera"]["height"], row["camera"]["width"]
    for name, decode in (("depth", codecs.decode_depth), *((n, codecs.decode_normal) for n in NORMALS)):
        fields[name] = None if row[name] is None else decode(row[name], h, w)
    for name in PLANES:
        fields[name] = None if row[name] is None else codecs.decode_u8(row[name], h, w)
    return "rendered", fields


def _members(fields: dict[str, Any], kind: str) -> Iterator[tuple[str, bytes]]:
    yield picture_suffix(fields["image"]["bytes"]), fields["image"]["bytes"]
    for name in ("depth", *NORMALS):
        if fields.get(name) is not None:
            yield f"{name}.npy", npy(fields[name])
    for name in PLANES:
        if fields.get(name) is not None:
            yield f"{name}.png", png_plane(fields[name])
    if fields.get("albedo") is not None:
        yield "albedo." + picture_suffix(fields["albedo"]["bytes"]), fields["albedo"]["bytes"]
    told = {name: plain(value) for name, value in fields.items() if name not in BLOBS}
    yield "json", json.dumps({**told, "conventions": CONVENTIONS[kind]}, allow_nan=False).encode()


def plain(value: Any) -> Any:
    """``value`` as strict JSON takes it: bytes in hexadecimal, null for what is no number."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _groups(rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(kind, Parquet rows) by the row group."""
    kind, size = "rendered", 0
    group: list[dict[str, Any]] = []
    for stem, row in rows:
        kind, fields = _open_row(row)
        group.append(_parquet_row(fields, stem))
        size += sum(_bytes(value) for value in group[-1].values())
        if len(group) == MAX_GROUP_ROWS or size > MAX_GROUP_BYTES:
            yield kind, group
            group, size = [], 0
    if group:
        yield kind, group


def _parquet_row(fields: dict[str, Any], stem: str) -> dict[str, Any]:
    packed = dict(fields)
    for name in ("depth", *NORMALS):
        if fields.get(name) is not None:
            packed[name] = fields[name].ravel()
    for name in PLANES:
        if fields.get(name) is not None:
            packed[name] = {"bytes": png_plane(fields[name]), "path": f"{stem}.{name}.png"}
    suffix = picture_suffix(fields["image"]["bytes"])
    return {**packed, "image": {"bytes": fields["image"]["bytes"], "path": f"{stem}.{suffix}"}}


def _parquet_schema(kind: str) -> pa.Schema:
    """The dataset's schema, with the types of the decoded columns and the features `datasets` looks for."""
    types = {**dict.fromkeys(("depth", *NORMALS), FLOATS), **dict.fromkeys(PLANES, IMAGE)}
    plain = schema(kind)
    fields = []
    for field in plain:
        told = {k: v for k, v in (field.metadata or {}).items() if k != b"stored"}
        fields.append(pa.field(field.name, types.get(field.name, field.type), metadata=told or None))
    features = json.dumps({"info": {"features": {f.name: feature(f.type) for f in fields}}})
    return pa.schema(fields, metadata={**plain.metadata, b"huggingface": features.encode()})


def _parquet_writer(sink: Any, kind: str) -> pq.ParquetWriter:
    floats = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("depth", *NORMALS)}
    return pq.ParquetWriter(
        sink,
        _parquet_schema(kind),
        compression="zstd",
        use_dictionary=False,
        # Bytes of like weight lie together: float depth and normals shrink to a fraction.
        column_encoding=floats if kind == "rendered" else None,
        # Parquet notices a flipped bit only when asked to write checksums.
        write_page_checksum=True,
    )


def _bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value["bytes"]) if isinstance(value, dict) and "bytes" in value else 0
