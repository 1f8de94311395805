"""A scan and how it stands -> what is wrong with it: a code, whether it bars the asset, and a sentence with the mend."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manifests.assets import FilesSource, ScanSource
from render.assets.repair import repair
from render.assets.stand import METRES, Standing, guess_unit, upside_down
from render.scene import Mesh, Scan


class Problem(NamedTuple):
    """``code``: one of the words below. ``bars``: the asset is skipped for it. ``what`` is wrong, and the ``mend``."""

    code: str
    bars: bool
    what: str
    mend: str = ""

    @property
    def text(self) -> str:
        """One line of both."""
        return f"{self.what}; {self.mend}" if self.mend else self.what


def barring(scan: Scan, mesh: Mesh, standing: Standing, source: ScanSource) -> list[Problem]:
    """What makes a scan unusable. ``mesh``: as stood up, metres."""
    found = _height(standing, source)
    if scan.missing_colour and source.missing_colour == "skip":
        names = ", ".join(scan.missing_colour)
        mend = "put it beside the mesh, or set missing_colour: grey"
        found.append(Problem("missing_texture", True, f"colour {names} is missing or unreadable", mend))
    # Whoever is posed by the job may well bow or stand on the hands.
    posed = isinstance(source, FilesSource) and (source.clip is not None or bool(source.bones))
    if source.up == "auto" and not posed and upside_down(mesh.vertices, mesh.faces):
        found.append(Problem("upside_down", True, "seems to stand on its head (a guess)", "set up to an axis"))
    return found


def _height(standing: Standing, source: ScanSource) -> list[Problem]:
    """Outside the gate: at a declared or set unit, the unit that would pass is named; at a guessed one none does."""
    low, high = source.height_gate_m
    height, unit = standing.height_m, standing.unit.rsplit(" (", 1)[0]
    if low <= height <= high:
        return []
    raw = height / METRES[unit] if unit in METRES else height
    other = guess_unit(raw, source.height_gate_m)
    passes = other != unit and low <= raw * METRES[other] <= high
    hint = f" (as {other} it would be {raw * METRES[other]:.2f} m)" if passes else ""
    what = f"height {height:.3g} m is outside {low:g}-{high:g} m at unit {unit}"
    found = [Problem("height", True, what, f"set render.assets' unit{hint} or up, or its height_gate_m")]
    if "guessed" in standing.unit:
        found.append(Problem("no_unit", True, "the file says no unit, and none makes it a person", "set unit"))
    return found


def remarks(scan: Scan, standing: Standing) -> list[Problem]:
    """What a person should know of a scan that is used all the same, materials and units first."""
    found = []
    if "guessed" in standing.unit:
        unit = standing.unit.split()[0]
        what = f"the file says no unit; {unit} guessed from the height"
        found.append(Problem("no_unit", False, what, f"set unit: {unit}"))
    lost = scan.missing_other + scan.missing_colour
    if lost:
        mend = "put it beside the mesh"
        found.append(Problem("missing_texture", False, f"{', '.join(lost)} is missing; drawn without", mend))
    if scan.found:
        what = f"{', '.join(scan.found)} found by file name, not where the file says"
        found.append(Problem("texture_moved", False, what, "mend its path"))
    if scan.bare:
        what = f"no material on {', '.join(scan.bare[:4])}; drawn grey"
        found.append(Problem("missing_material", False, what, "assign one"))
    if not lost and not any(m.base_color_texture is not None or m.vertex_color for m in scan.mesh.materials):
        found.append(Problem("no_texture", False, "no texture and no vertex colours", "bake its colour"))
    if scan.helpers:
        names = ", ".join(scan.helpers[:4])
        found.append(Problem("helper_shapes", False, f"{names} left out: no part of the person", "nothing to do"))
    return found


def geometry(mesh: Mesh) -> tuple[bool, list[Problem]]:
    """Whether the surface is closed, and what is odd about its triangles. ``mesh``: metres.

    Vertices at one place are one vertex: a seam of the texture is no hole. What repair() would change is counted by it.
    """
    import trimesh

    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    changes = repair(shape)[1]
    told = [(c.count, *KINDS[c.kind]) for c in changes]
    found = [Problem(code, False, f"{count} {what}", mend) for count, code, what, mend in told]
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces]
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    key = edges[:, 0].astype(np.int64) * (int(faces.max(initial=0)) + 1) + edges[:, 1]
    _, counts = np.unique(key[edges[:, 0] != edges[:, 1]], return_counts=True)
    shared = int((counts > 2).sum())
    if shared:
        what = f"{shared} edges with more than two triangles"
        found.append(Problem("non_manifold", False, what, "remove inner or doubled faces"))
    if _against(mesh) > 0.5:
        what = "vertex normals point against the triangles"
        found.append(Problem("inverted_normals", False, what, "recompute them"))
    return bool((counts == 2).all() and len(counts)), found


def _against(mesh: Mesh) -> float:
    """Share of triangles whose corner normals point away from their own side."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    dots = np.einsum("fc,fkc->f", np.cross(b - a, c - a), mesh.corner_normals.astype(np.float64))
    return float((dots < 0).mean()) if len(dots) else 0.0


# What repair() counts -> our code, the words after the count, and the mend.
KINDS = {
    "degenerate": ("flat_faces", "triangles without area", "merge their corners"),
    "duplicate": ("duplicate_faces", "triangles that lie on others and may flicker", "merge them"),
    "inverted": ("inverted_normals", "triangles that look inwards, drawn from both sides", "flip them"),
    "hole": ("holes", "holes", "close them where they show"),
    "open": ("holes", "open edges of sheets or wide openings", "close them where they show"),
}
