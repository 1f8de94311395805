"""A photograph's bytes -> intrinsics in px, and in words where they are from: EXIF, the user, or an assumption."""

from __future__ import annotations

import io
import math

import numpy as np

FOCAL_LENGTH, FOCAL_35MM, PLANE_X_RESOLUTION, PLANE_UNIT = 0x920A, 0xA405, 0xA20E, 0xA210
EXIF_IFD = 0x8769
# CIPA DCG-001: equal diagonal angle of view with 36 x 24 mm film.
FILM_DIAGONAL_MM = math.hypot(36, 24)
MM_PER_UNIT = {2: 25.4, 3: 10.0}
# Of the long side: about a 43 mm lens on film, as the trainer takes photographs (training/views.py).
ASSUMED_FOCAL = 1.2
# A focal length beyond these shares of the long side is a slip of the file's writer.
SANE = (0.2, 50.0)


def intrinsics(data: bytes | None, width: int, height: int, focal_px: float | None = None) -> tuple[np.ndarray, str]:
    """(3, 3) float64 px of an upright picture ``width`` x ``height`` with a centred principal point, and how it is known.

    ``focal_px``: what the user says; it wins over EXIF, and EXIF over the assumption.
    """
    how = "given"
    if focal_px is None:
        focal_px, how = _exif(data, max(width, height), math.hypot(width, height)) if data else (None, "")
    if focal_px is None:
        focal_px = ASSUMED_FOCAL * max(width, height)
        how = f"assumed: a focal length of {ASSUMED_FOCAL:g} long sides"
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]]), how


def _exif(data: bytes, long_side: int, diagonal: float) -> tuple[float | None, str]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            tags = picture.getexif().get_ifd(EXIF_IFD)
            film, millimetres = float(tags.get(FOCAL_35MM, 0)), float(tags.get(FOCAL_LENGTH, 0))
            density, unit = float(tags.get(PLANE_X_RESOLUTION, 0)), tags.get(PLANE_UNIT)
    except Exception:  # noqa: BLE001 - parsers of hostile metadata raise anything; without it the lens is assumed, and said so
        return None, ""
    found = []
    if film > 0:
        found.append((film * diagonal / FILM_DIAGONAL_MM, f"EXIF: {film:g} mm on film"))
    if millimetres > 0 and density > 0 and unit in MM_PER_UNIT:
        # Right only where the file has the sensor's own size: the same resolution is copied into reduced pictures.
        found.append(
            (millimetres * density / MM_PER_UNIT[unit], f"EXIF: {millimetres:g} mm and the sensor's resolution")
        )
    for focal, how in found:
        if math.isfinite(focal) and SANE[0] < focal / long_side < SANE[1]:
            return focal, how
    return None, ""
