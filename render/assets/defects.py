"""A scan and how it stands -> what is wrong with it: a code, whether it bars the asset, and a sentence with the mend."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manifests.assets import ScanSource
from render.assets.stand import METRES, Standing, guess_unit, upside_down
from render.scene import Mesh, Scan


class Problem(NamedTuple):
    """``code``: one of the words below. ``bars``: the asset is skipped for it. ``text``: what is wrong, and the mend."""

    code: str
    bars: bool
    text: str


def barring(scan: Scan, mesh: Mesh, standing: Standing, source: ScanSource) -> list[Problem]:
    """What makes a scan unusable. ``mesh``: as stood up, metres."""
    found = _height(standing, source)
    if scan.missing_colour and source.missing_colour == "skip":
        names = ", ".join(scan.missing_colour)
        found.append(
            Problem(
                "missing_texture",
                True,
                f"colour texture {names} is missing or unreadable; put it beside the mesh, or set missing_colour: grey",
            )
        )
    if source.up == "auto" and upside_down(mesh.vertices, mesh.faces):
        found.append(
            Problem("upside_down", True, "seems to stand on its head (guessed from its ends); set up to an axis")
        )
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
    found = [Problem("height", True, f"{what}; set render.assets' unit{hint} or up, or its height_gate_m")]
    if "guessed" in standing.unit:
        found.append(Problem("no_unit", True, "the file says no unit, and none makes it a person; set unit"))
    return found


def remarks(scan: Scan, standing: Standing) -> list[Problem]:
    """What a person should know of a scan that is used all the same, materials and units first."""
    found = []
    if "guessed" in standing.unit:
        unit = standing.unit.split()[0]
        found.append(
            Problem("no_unit", False, f"the file says no unit; {unit} guessed from the height: set unit: {unit}")
        )
    lost = scan.missing_other + scan.missing_colour
    if lost:
        found.append(
            Problem("missing_texture", False, f"{', '.join(lost)} missing; drawn without: put it beside the mesh")
        )
    if scan.found:
        names = ", ".join(scan.found)
        found.append(
            Problem("texture_moved", False, f"{names} found by file name, not where the file says; mend its path")
        )
    if scan.bare:
        found.append(
            Problem("missing_material", False, f"no material on {', '.join(scan.bare[:4])}; drawn grey: assign one")
        )
    if scan.helpers:
        names = ", ".join(scan.helpers[:4])
        found.append(Problem("helper_shapes", False, f"{names} left out, not part of the person; nothing to do"))
    return found


def geometry(mesh: Mesh) -> tuple[bool, list[Problem]]:
    """Whether the surface is closed, and what is odd about its triangles. ``mesh``: metres.

    Vertices at one place (0.01 mm) are one vertex: a seam of the texture is no hole.
    """
    import trimesh

    _, same = np.unique(np.rint(mesh.vertices.astype(np.float64) * 1e5).astype(np.int64), axis=0, return_inverse=True)
    faces = same.reshape(-1)[mesh.faces]
    points = np.zeros((faces.max() + 1, 3))
    points[same.reshape(-1)] = mesh.vertices
    solid = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[solid]
    shape = trimesh.Trimesh(points, faces, process=False)
    found = []
    _, counts = np.unique(shape.edges_sorted, axis=0, return_counts=True)
    holes, shared = int((counts == 1).sum()), int((counts > 2).sum())
    twice = len(faces) - len(np.unique(np.sort(faces, axis=1), axis=0))
    if holes:
        found.append(Problem("holes", False, f"{holes} open edges; harmless in pictures: close holes where they show"))
    if shared:
        found.append(
            Problem(
                "non_manifold", False, f"{shared} edges with more than two triangles; remove inner or doubled faces"
            )
        )
    if twice:
        found.append(
            Problem("duplicate_faces", False, f"{twice} triangles lie on others; merge them, or they may flicker")
        )
    # The sum of signed tetrahedra is negative where most of a surface faces inwards, holes or not.
    if len(faces) and float(shape.volume) < 0:
        found.append(Problem("inverted_normals", False, "triangles face inwards; drawn from both sides: flip them"))
    elif _against(mesh) > 0.5:
        found.append(Problem("inverted_normals", False, "vertex normals point against the triangles; recompute them"))
    return bool(shape.is_watertight), found


def _against(mesh: Mesh) -> float:
    """Share of triangles whose corner normals point away from their own side."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    dots = np.einsum("fc,fkc->f", np.cross(b - a, c - a), mesh.corner_normals.astype(np.float64))
    return float((dots < 0).mean()) if len(dots) else 0.0
