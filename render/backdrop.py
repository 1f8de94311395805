"""A folder of photographs -> backgrounds at the frame's size, and the light that such a photograph suggests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from manifests import photo
from manifests.errors import InputError, PhotoError, SampleRejected
from manifests.priors import BackgroundPrior
from render.lighting import MEAN_RADIANCE, mean_radiance
from render.response import radiance
from render.scene import Backdrop, Camera, Lamp, Lighting

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Size of the environment made from a photograph: it knows no more than a few colours per direction.
ROWS, COLUMNS = 32, 64


def photographs(prior: BackgroundPrior, root: Path) -> list[tuple[str, Path, str]]:
    """(id, file, sha256) of every photograph, sorted by id; empty without a folder. Raises InputError."""
    if prior.photos is None:
        return []
    folder = root / prior.photos
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise InputError(f"render.background.photos: no photograph in {prior.photos} (looked in {root})")
    return [(f.relative_to(folder).as_posix(), f, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


def draw_backdrop(
    prior: BackgroundPrior,
    files: list[tuple[str, Path, str]],
    width: int,
    height: int,
    sample_id: str,
    rng: np.random.Generator,
) -> Backdrop | None:
    """A photograph cropped to ``width`` x ``height``, mirrored half the time, or None as the prior's share says.

    Raises SampleRejected when the photograph cannot be decoded.
    """
    if not files or rng.random() >= prior.share:
        return None
    name, path, _ = files[rng.integers(len(files))]
    try:
        rgb, _ = photo.decode(path.read_bytes())
    except (PhotoError, OSError) as error:
        raise SampleRejected(sample_id, f"background {name}: {error}") from None
    scale = max(width / rgb.shape[1], height / rgb.shape[0])
    size = (max(width, round(rgb.shape[1] * scale)), max(height, round(rgb.shape[0] * scale)))
    rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x, y = rng.integers(size[0] - width + 1), rng.integers(size[1] - height + 1)
    rgb = rgb[y : y + height, x : x + width]
    if rng.random() < 0.5:
        rgb = rgb[:, ::-1]
    rights = {
        "id": f"background/{name}",
        "source": str(prior.photos),
        "licence": prior.licence,
        "consent": "no people",
        "redistributable": prior.redistributable,
    }
    return Backdrop(name, np.ascontiguousarray(rgb), rights)


def estimated_light(backdrop: Backdrop, camera: Camera, lamps: list[Lamp], scratch: Path) -> Lighting:
    """An environment that gives each direction the photograph's colour on that side, blurred: in front of the camera
    what it shows, behind it the same mirrored, above its top and below its bottom.

    A photograph holds a third of the sphere and no absolute brightness: colour and side of the light are estimates,
    and strength is brought to the same mean as any map's. ``scratch``: folder for the map's file.
    """
    forward = camera.world_to_camera[2, :3]
    colours = radiance(cv2.resize(backdrop.picture, (8, 8), interpolation=cv2.INTER_AREA), camera.response)
    # Half the sphere in front holds the picture, the half behind its mirror image: no seam.
    around = np.concatenate([colours, colours[:, ::-1]], axis=1)
    around = np.roll(around, 4, axis=1)
    wide = np.concatenate([around] * 3, axis=1)
    smooth = cv2.GaussianBlur(cv2.resize(wide, (3 * COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC), (0, 0), 3)
    picture = np.maximum(smooth[:, COLUMNS : 2 * COLUMNS], 1e-3)
    path = scratch / f"light-{hashlib.sha256(backdrop.picture.tobytes()).hexdigest()[:16]}.hdr"
    if not path.exists():
        cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]))
    return Lighting(
        environment=f"estimated/{backdrop.name}",
        path=str(path),
        yaw_deg=float(np.degrees(np.arctan2(forward[1], forward[0]))),
        strength=MEAN_RADIANCE / mean_radiance(str(path)),
        rights=backdrop.rights,
        lamps=lamps,
    )
