"""Rendered rows -> the folders that Sapiens, Sapiens2 and DAViD's SynthHuman are trained from.

Each exporter takes (file stem, row) pairs and an empty folder, writes the files of every row, and returns what frame
and unit its files have. Raises InputError where a row lacks a field. H, W: rows and columns of a picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests import codecs
from manifests.errors import InputError, StorageError
from manifests.frames import indexed_intrinsics, opengl_from_opencv
from manifests.sample import RenderedSample
from manifests.shards import sample_of

Rows = Iterator[tuple[str, dict[str, Any]]]
CM_PER_M = 100
# SynthHuman marks "no surface" with the largest half float, in whatever type the file stores.
SYNTHHUMAN_INVALID = 65504.0
OPENGL = "unit vectors in the OpenGL camera frame: x right, y up, z to the viewer; 0 where mask is 0"
METRES = "float32 metres, planar z along the optical axis at the pixel centre; 0 where mask is 0"
INDEXED = "3x3 px; the centre of the first pixel is (0, 0): a centred principal point is ((W - 1) / 2, (H - 1) / 2)"


def sapiens_v1(rows: Rows, folder: Path) -> dict[str, str]:
    """rgb/STEM.png, mask/STEM.png, depth/STEM.npy (H, W) float32 metres, normal/STEM.npy (H, W, 3) float32 OpenGL.

    One folder serves as ``data_root`` of both the depth and the normal training of Sapiens v1.
    """
    for stem, row in rows:
        sample = sample_with(row, "sapiens-v1", "depth", "normal")
        _picture(sample, folder, stem)
        _array(sample.depth, folder / "depth", stem)
        _array(_opengl_unit(sample), folder / "normal", stem)
    return {"mask": "255 = person, 0 = background", "depth": METRES, "normal": OPENGL}


def sapiens2_pointmap(rows: Rows, folder: Path) -> dict[str, str]:
    """rgb/, mask/ (png), depth/STEM.npy (H, W) float32 metres, camera_intrinsics/STEM.txt 3x3,
    camera_extrinsics/STEM.txt 4x4 world to OpenCV camera.

    Sapiens2 un-projects by X = (u - cx) Z / fx with u the pixel's index, so the exported principal point is half a
    pixel less than ours.
    """
    for stem, row in rows:
        sample = sample_with(row, "sapiens2-pointmap", "depth")
        _picture(sample, folder, stem)
        _array(sample.depth, folder / "depth", stem)
        _matrix(indexed_intrinsics(sample.K), folder / "camera_intrinsics", stem)
        _matrix(sample.world_to_camera, folder / "camera_extrinsics", stem)
    return {
        "mask": "255 = person, 0 = background",
        "depth": METRES,
        "camera_intrinsics": INDEXED,
        "camera_extrinsics": "4x4, world to OpenCV camera, metres; world z up",
    }


def sapiens2_normal(rows: Rows, folder: Path) -> dict[str, str]:
    """rgb/, mask/ (png), normal/STEM.npy (H, W, 3) float32 OpenGL camera frame."""
    for stem, row in rows:
        sample = sample_with(row, "sapiens2-normal", "normal")
        _picture(sample, folder, stem)
        _array(_opengl_unit(sample), folder / "normal", stem)
    return {"mask": "255 = person, 0 = background", "normal": OPENGL}


def synthhuman(rows: Rows, folder: Path) -> dict[str, str]:
    """Flat, numbered from 0000000: rgb_N.png, alpha_N.png (soft), depth_N.exr (H, W) float32 centimetres, 65504 where
    there is no surface, normal_N.exr (H, W, 3) float32 OpenGL, cam_N.txt 3x3 px.

    The EXR channels are named so that OpenCV, which returns B, G, R, gives X, Y, Z in array order.
    """
    for number, (_, row) in enumerate(rows):
        sample = sample_with(row, "synthhuman", "depth", "normal", "alpha")
        name = f"{number:07d}"
        (folder / f"rgb_{name}.png").write_bytes(codecs.encode_image(sample.image, "png"))
        (folder / f"alpha_{name}.png").write_bytes(png_plane(sample.alpha))
        depth = np.where(sample.mask > 0, sample.depth * np.float32(CM_PER_M), np.float32(SYNTHHUMAN_INVALID))
        _exr(folder / f"depth_{name}.exr", {"Y": depth})
        normal = _opengl_unit(sample)
        _exr(folder / f"normal_{name}.exr", {channel: normal[..., i] for i, channel in enumerate("BGR")})
        np.savetxt(folder / f"cam_{name}.txt", sample.K)
    return {
        "alpha": "soft coverage, 0..255",
        "depth": "float32 centimetres, planar z, channel Y; 65504 = no surface",
        "normal": f"channels B, G, R hold x, y, z; {OPENGL}",
        "cam": "3x3 px; the centre of the first pixel is (0.5, 0.5): a centred principal point is (W / 2, H / 2)",
    }


def sample_with(row: dict[str, Any], name: str, *fields: str) -> RenderedSample:
    """``row`` decoded, once it holds every one of ``fields`` and shows somebody. Raises InputError for format ``name``."""
    for field in fields:
        if row.get(field) is None:
            raise InputError(
                f"sample {row['sample_id']}: has no `{field}`, which the format {name} needs; export these rows as "
                "webdataset or parquet, which leave out what is absent"
            )
    sample = sample_of(row)
    if not sample.mask.any():
        raise InputError(f"sample {sample.sample_id}: its mask is empty, and the readers of {name} fail on that")
    return sample


def png_plane(plane: np.ndarray) -> bytes:
    """PNG bytes of (H, W) uint8, grey, lossless."""
    return cv2.imencode(".png", plane, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()


def npy(values: np.ndarray) -> bytes:
    """NPY file bytes of an array; through memory, because ``np.save`` to a full disk does not say why it failed."""
    kept = io.BytesIO()
    np.save(kept, values, allow_pickle=False)
    return kept.getvalue()


def _picture(sample: RenderedSample, folder: Path, stem: str) -> None:
    """Both readers take .png alone."""
    _file(folder / "rgb", f"{stem}.png").write_bytes(codecs.encode_image(sample.image, "png"))
    person = np.where(sample.mask > 0, 255, 0).astype(np.uint8)
    _file(folder / "mask", f"{stem}.png").write_bytes(png_plane(person))


def _opengl_unit(sample: RenderedSample) -> np.ndarray:
    """(H, W, 3) float32, OpenGL camera frame; of length 1 within 1e-6, else Sapiens divides all of them again."""
    normal = opengl_from_opencv(sample.normal.astype(np.float64))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    # Adding 0 turns -0 into 0.
    return (normal / np.where(length > 0, length, 1) + 0.0).astype(np.float32)


def _array(values: np.ndarray, folder: Path, stem: str) -> None:
    _file(folder, f"{stem}.npy").write_bytes(npy(values))


def _matrix(values: np.ndarray, folder: Path, stem: str) -> None:
    np.savetxt(_file(folder, f"{stem}.txt"), values)


def _file(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / name


def _exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    """Write float32 channels, ZIP-compressed (lossless)."""
    try:
        import OpenEXR
    except ImportError:
        raise InputError(
            "the format synthhuman writes EXR files; install OpenEXR (pip install maquette[render])"
        ) from None
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    # OpenEXR 3.5 writes strided arrays wrongly and says nothing.
    pixels = {name: np.ascontiguousarray(plane, np.float32) for name, plane in channels.items()}
    try:
        OpenEXR.File(header, pixels).write(str(path))
    except RuntimeError as error:
        raise StorageError(f"{path}: {error}; free space or mend the storage, then export again") from None
