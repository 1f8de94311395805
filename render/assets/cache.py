"""A scan file's content hash -> its imported mesh and resized textures, kept on disk: read by Blender once per node.

One .npz per asset, without pickle; textures inside as lossless PNG. Written under another name and renamed, so that an
entry is whole or absent. The folder is $MAQUETTE_CACHE, else ~/.cache/maquette; it may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from render.scene import Material, Mesh, Pose, Scan

MAX_TEXTURE_PX = 2048
# Raise with any change to what importing makes of a file.
VERSION = 4
ARRAYS = ("vertices", "faces", "corner_normals", "material_index", "uv", "part", "corner_colors")
TEXTURES = ("base_color_texture", "normal_texture", "roughness_texture")
log = logging.getLogger(__name__)


def folder() -> Path:
    """Where entries lie."""
    return Path(os.environ.get("MAQUETTE_CACHE") or Path.home() / ".cache" / "maquette") / "scans"


def key_of(content_sha256: str, suffix: str, pose: Pose) -> str:
    """64 hex digits that change with everything an import depends on."""
    made_from = [VERSION, importlib.metadata.version("bpy"), MAX_TEXTURE_PX, suffix.lower(), content_sha256]
    return hashlib.sha256(json.dumps([*made_from, dataclasses.astuple(pose)]).encode()).hexdigest()


def load(key: str) -> Scan | None:
    """The scan kept under ``key``; None where there is none, or none that can be read."""
    path = folder() / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            told = json.loads(stored["told"].tobytes())
            arrays = {name: stored[name] for name in ARRAYS if name in stored}
            materials = [_material(i, m, stored) for i, m in enumerate(told.pop("materials"))]
        return Scan(Mesh(materials=materials, **arrays), **told)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        log.warning("cache entry %s cannot be read (%s); reading the asset again", path.name, error)
        return None


def store(key: str, scan: Scan) -> None:
    """Keep ``scan`` under ``key``. A disk that refuses costs time, not the run: it is logged."""
    mesh = scan.mesh
    told = {f.name: getattr(scan, f.name) for f in dataclasses.fields(scan) if f.name != "mesh"}
    told["materials"] = [
        {f.name: getattr(m, f.name) for f in dataclasses.fields(m) if f.name not in TEXTURES} for m in mesh.materials
    ]
    arrays = {name: value for name in ARRAYS if (value := getattr(mesh, name)) is not None}
    for i, material in enumerate(mesh.materials):
        arrays |= {f"{i}.{t}": _png(p) for t in TEXTURES if (p := getattr(material, t)) is not None}
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    path = folder() / f"{key}.npz"
    partial = path.with_name(f"{key}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        log.warning("cannot keep a scan in %s (%s); it will be imported again", path.parent, error.strerror)
        partial.unlink(missing_ok=True)


def _material(i: int, told: dict[str, Any], stored: Any) -> Material:
    told["base_color"] = tuple(told["base_color"])
    made = Material(**told)
    for name in TEXTURES:
        if f"{i}.{name}" in stored:
            setattr(made, name, _rgba(stored[f"{i}.{name}"]))
    return made


def _png(rgba: np.ndarray) -> np.ndarray:
    """Lossless bytes of (h, w, 4) uint8, without an alpha that is full and without the colour of a grey.

    Level 1: 2048 px in 0.1 s, a tenth larger than the best.
    """
    pixels = cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)
    if (rgba[..., 3] == 255).all():
        grey = (rgba[..., 0] == rgba[..., 1]).all() and (rgba[..., 1] == rgba[..., 2]).all()
        pixels = rgba[..., 0] if grey else pixels[..., :3]
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]


def _rgba(png: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8 of what ``_png`` wrote."""
    pixels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return cv2.cvtColor(pixels, {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}[channels])
