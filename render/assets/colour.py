"""A scan that lost its materials and the picture its library keeps of its colour -> the scan dressed in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from manifests.errors import PhotoError, TextureError
from manifests.photo import decode
from render.assets.cache import MAX_TEXTURE_PX
from render.scene import Scan


def dressed(name: str, scan: Scan, picture: Path) -> Scan:
    """``scan`` as it is where any material has a texture or nothing has uv, else with ``picture`` all over.

    Raises TextureError.
    """
    materials = scan.mesh.materials
    if any(m.base_color_texture is not None for m in materials) or scan.mesh.uv is None:
        return scan
    pixels = _read(name, picture)
    for material in materials:
        material.base_color_texture, material.base_color = pixels, (1.0, 1.0, 1.0)
    return dataclasses.replace(scan, missing_colour=[], bare=[])


def _read(name: str, picture: Path) -> np.ndarray:
    """(h, w, 4) uint8 sRGB, no larger than MAX_TEXTURE_PX."""
    try:
        rgb, _ = decode(picture.read_bytes())
    except PhotoError as error:
        text = f"{picture.name}: {error.message}; save it again as JPEG or PNG"
        raise TextureError(name, text, "missing_texture") from None
    scale = MAX_TEXTURE_PX / max(rgb.shape[:2])
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
