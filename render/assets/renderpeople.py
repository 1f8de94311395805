"""RenderPeople's posed scans, as they come out of their archives -> people.

rp_NAME_posed_NNN_OBJ/rp_NAME_posed_NNN_100k.obj, with tex/rp_NAME_posed_NNN_dif_2k.jpg or ..._A.jpg; centimetres, y up.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np

from manifests.errors import AssetError, InputError, PhotoError
from manifests.photo import decode
from render.assets import cache
from render.assets.files import ScanFiles, find
from render.assets.references import content_sha256
from render.assets.stand import Custom
from render.scene import Scan

FILE = re.compile(r"rp_(?P<who>.+_(?:posed|rigged)_\d+)(?:_(?P<thousands>\d+)k)?\.obj", re.I)
COLOUR = re.compile(r"rp_.*_(?:dif(?:fuse)?(?:_\d+k)?|A|albedo)\.(?:jpe?g|png|tiff?)", re.I)
# Of several densities of one person: the one sold as standard, else the densest.
STANDARD = 100


class RenderPeople(ScanFiles):
    """One person per folder; ids are renderpeople/NAME_posed_NNN."""

    def find(self, root: Path) -> list[tuple[str, Path]]:
        """(id, OBJ) of every person. Raises InputError where none is called as RenderPeople calls them."""
        people: dict[str, tuple[int, Path]] = {}
        for path in find(self.source.paths, root, (".obj",)):
            match = FILE.fullmatch(path.name)
            if match:
                thousands = int(match["thousands"] or 0)
                best = (10**6 if thousands == STANDARD else thousands, path)
                people[match["who"]] = max(people.get(match["who"], best), best)
        if not people:
            where = ", ".join(self.source.paths)
            raise InputError(
                f"render.assets.paths: {where}: no rp_NAME_posed_NNN_100k.obj; use source: files for others"
            )
        return [(f"renderpeople/{who}", path) for who, (_, path) in sorted(people.items())]

    def content(self, path: Path) -> str:
        """sha256 over mesh, materials and the colour that may be found by its name."""
        colour = _colour(path)
        return content_sha256(path) + (content_sha256(colour) if colour else "")

    def custom(self, name: str, path: Path) -> Custom:
        """Their OBJ files are centimetres, y up."""
        return Custom(unit="cm", up="y", says="RenderPeople")

    def mend(self, path: Path, scan: Scan) -> Scan:
        """The colour from tex/, where the OBJ came without its MTL or with the name of another density."""
        materials = scan.mesh.materials
        if any(m.base_color_texture is not None for m in materials) or scan.mesh.uv is None:
            return scan
        colour = _colour(path)
        if colour is None:
            # No person is grey all over: what is not there was lost.
            return dataclasses.replace(scan, missing_colour=scan.missing_colour or [f"{path.stem}_dif_2k.jpg"])
        pixels = _read(path, colour)
        for material in materials:
            material.base_color_texture, material.base_color = pixels, (1.0, 1.0, 1.0)
        return dataclasses.replace(scan, missing_colour=[], bare=[], found=[*scan.found, colour.name])


def _colour(path: Path) -> Path | None:
    """The person's diffuse map: in tex/ or beside, called as the mesh is but for the ending."""
    match = FILE.fullmatch(path.name)
    who = f"rp_{match['who']}_".lower() if match else ""
    home = path.parent.resolve()
    for place in (path.parent / "tex", path.parent):
        if place.is_dir() and place.resolve().is_relative_to(home):
            for file in sorted(place.iterdir()):
                if COLOUR.fullmatch(file.name) and file.name.lower().startswith(who) and not file.is_symlink():
                    return file
    return None


def _read(path: Path, colour: Path) -> np.ndarray:
    """(h, w, 4) uint8 sRGB, no larger than cache.MAX_TEXTURE_PX."""
    try:
        rgb, _ = decode(colour.read_bytes())
    except PhotoError as error:
        raise AssetError(path.stem, f"{colour.name}: {error.message}; save it again as JPEG or PNG") from None
    scale = cache.MAX_TEXTURE_PX / max(rgb.shape[:2])
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
