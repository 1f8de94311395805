"""RenderPeople's posed scans, as they come out of their archives -> people.

rp_NAME_posed_NNN_OBJ/rp_NAME_posed_NNN_100k.obj, with tex/rp_NAME_posed_NNN_dif_2k.jpg or ..._A.jpg; centimetres, y up.
"""

from __future__ import annotations

import re
from pathlib import Path

from manifests.errors import InputError
from render.assets.files import ScanFiles, find
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

    def scan(self, name: str, path: Path) -> Scan:
        """As every scan; no person is grey all over, so what has no colour at all has lost it. Raises AssetError."""
        scan = super().scan(name, path)
        if not scan.missing_colour and all(m.base_color_texture is None for m in scan.mesh.materials):
            scan.missing_colour = [f"tex/{path.stem.rsplit('_', 1)[0]}_dif_2k.jpg"]
        return scan

    def custom(self, name: str, path: Path) -> Custom:
        """Their OBJ files are centimetres, y up."""
        return Custom(unit="cm", up="y", says="RenderPeople")

    def colour(self, path: Path) -> Path | None:
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
