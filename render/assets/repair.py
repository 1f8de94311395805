"""A damaged trimesh -> a sound one, and in words what was changed.

Faces are compared by where their corners are, not by vertex index: scans split vertices along texture seams, and a seam
is no hole. Legend: V vertices, F triangles, S distinct places of vertices.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from manifests.errors import InputError

REPAIRABLE = (".obj", ".ply", ".glb")
# Relative to the squared diagonal of the mesh's box: float32 vertices cannot hold a smaller area.
MIN_AREA = 1e-13
# A hole whose edge is longer than this share of the box's diagonal is taken for meant: a neck, a sleeve, a bust's foot.
MAX_HOLE = 0.15
# Nor is it a hole when closing it takes more than this share of the piece's own area: that is the outline of a sheet,
# such as a strand card or an eyebrow.
MAX_LID = 0.25
# How far a piece's faces must look inwards, -1 all to +1 none, to be turned: a shell scores -1, a sheet about 0.
INWARDS = -0.3


@dataclasses.dataclass(frozen=True)
class Change:
    """``count`` faces or holes of one ``kind``; ``str()`` says it in words. ``done`` is False for what was left."""

    kind: str
    count: int
    done: bool = True

    def __str__(self) -> str:
        one, many = WORDS[self.kind]
        return f"{self.count} {one if self.count == 1 else many}"


WORDS = {
    "degenerate": ("face without area", "faces without area"),
    "duplicate": ("duplicate face", "duplicate faces"),
    "inverted": ("inverted face", "inverted faces"),
    "hole": ("hole filled", "holes filled"),
    "open": ("open edge left", "open edges left"),
}


def repair(mesh: trimesh.Trimesh, max_hole: float = MAX_HOLE) -> tuple[trimesh.Trimesh, list[Change]]:
    """A repaired copy of ``mesh`` and what was changed, in the order it was done; ``mesh`` stays as it is.

    Vertices keep their order, place and texture coordinates; filled holes use the vertices round them. Holes longer round
    than ``max_hole`` times the box's diagonal, and the outlines of sheets, stay and are counted as open.
    """
    changes: list[Change] = []
    place, faces = _places(mesh), np.asarray(mesh.faces, np.int64)
    at = np.asarray(mesh.vertices, np.float64)
    diagonal = float(np.linalg.norm(np.ptp(at, axis=0))) if len(at) else 0.0

    flat = _area(at, faces) <= MIN_AREA * diagonal**2
    faces, changes = _without(faces, flat, "degenerate", changes)

    _, first = np.unique(np.sort(place[faces], axis=1), axis=0, return_index=True)
    again = np.ones(len(faces), bool)
    again[first] = False
    faces, changes = _without(faces, again, "duplicate", changes)

    turned = _inverted(at, place, faces)
    if turned.any():
        faces = np.where(turned[:, None], faces[:, ::-1], faces)
        changes.append(Change("inverted", int(turned.sum())))

    new, filled, left = _fill(at, place, faces, max_hole * diagonal)
    if filled:
        faces = np.concatenate([faces, new])
        changes.append(Change("hole", filled))
    if left:
        changes.append(Change("open", left, done=False))
    return _rebuilt(mesh, faces), changes


def repair_file(path: Path, out: Path) -> list[Change]:
    """Write ``path``, an OBJ, PLY or GLB without a rig, repaired into the folder ``out`` under its own name and format,
    with its materials and textures; what was changed, over all its meshes. Unit and axes stay as they are.

    Raises InputError when it is rigged, of another format, or unreadable, when ``out`` is its own folder, and OSError.
    """
    from render.assets.references import gltf_tree
    from render.assets.scan import UNREADABLE

    if path.suffix.lower() in (".glb", ".gltf") and path.is_file() and gltf_tree(path).get("skins"):
        raise InputError(f"{path}: rigged; its skin would be lost, mend it in a modelling program")
    if path.suffix.lower() not in REPAIRABLE:
        raise InputError(f"{path}: {', '.join(REPAIRABLE)} can be repaired; export it as one of them first")
    if out.resolve() == path.parent.resolve():
        raise InputError(f"{path}: --out is its own folder; give another, so that the scan stays as it was")
    try:
        scene = trimesh.load_scene(str(path), process=False)
    except UNREADABLE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read ({first[:160]}); export it again") from None
    changes: Counter[tuple[str, bool]] = Counter()
    for name, mesh in list(scene.geometry.items()):
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            scene.geometry[name], done = repair(mesh)
            for change in done:
                changes[change.kind, change.done] += change.count
    out.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".ply":
        scene.to_mesh().export(out / path.name)
    else:
        scene.export(str(out / path.name))
    return [Change(kind, count, done) for (kind, done), count in changes.items()]


def _places(mesh: trimesh.Trimesh) -> np.ndarray:
    """(V,) int: which vertices stand at the same place, exactly; exporters copy them bit for bit along a seam."""
    _, inverse = np.unique(np.asarray(mesh.vertices, np.float32), axis=0, return_inverse=True)
    return inverse.reshape(-1)


def _without(faces: np.ndarray, drop: np.ndarray, kind: str, changes: list[Change]) -> tuple[np.ndarray, list[Change]]:
    if not drop.any():
        return faces, changes
    return faces[~drop], [*changes, Change(kind, int(drop.sum()))]


def _inverted(at: np.ndarray, place: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) bool: which faces to turn so that neighbours agree and each piece looks outwards."""
    turned = np.zeros(len(faces), bool)
    if not len(faces):
        return turned
    merged = place[faces]
    graph = trimesh.Trimesh(_unique_at(at, place), merged, process=False)
    if not graph.is_winding_consistent:
        trimesh.repair.fix_winding(graph)
        turned = (graph.faces != merged).any(axis=1)
    pieces = trimesh.graph.connected_component_labels(graph.face_adjacency, node_count=len(faces))
    corners = at[faces]
    middle = corners.mean(axis=1)
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = np.where(turned[:, None], -outward, outward)
    area = np.linalg.norm(outward, axis=1)
    weight = np.maximum(np.bincount(pieces, area), 1e-300)
    centre = np.stack([np.bincount(pieces, area * middle[:, c]) for c in range(3)], axis=1) / weight[:, None]
    arm = middle - centre[pieces]
    along = np.bincount(pieces, np.einsum("fc,fc->f", outward, arm))
    reach = np.maximum(np.bincount(pieces, area * np.linalg.norm(arm, axis=1)), 1e-300)
    return turned ^ (along / reach < INWARDS)[pieces]


def _unique_at(at: np.ndarray, place: np.ndarray) -> np.ndarray:
    out = np.zeros((int(place.max()) + 1, 3))
    out[place] = at
    return out


def _fill(at: np.ndarray, place: np.ndarray, faces: np.ndarray, longest: float) -> tuple[np.ndarray, int, int]:
    """(n, 3) new faces, how many holes they close, and how many stay open."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    key = np.sort(place[edges], axis=1)
    _, inverse, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    border = edges[count[inverse.reshape(-1)] == 1]
    loops, broken = _loops(place, border)
    piece = trimesh.graph.connected_component_labels(place[edges], node_count=int(place.max(initial=-1)) + 1)
    surface = np.bincount(piece[place[faces[:, 0]]], _area(at, faces))
    new: list[np.ndarray] = []
    for loop in loops:
        ring = at[loop]
        if np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1).sum() > longest:
            continue
        lid = np.array(_ears(at, loop))
        if _area(at, lid).sum() <= MAX_LID * surface[piece[place[loop[0]]]]:
            new.append(lid)
    return np.concatenate([np.zeros((0, 3), int), *new]), len(new), len(loops) - len(new) + broken


def _area(at: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (at[faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _loops(place: np.ndarray, border: np.ndarray) -> tuple[list[list[int]], int]:
    """Closed rings of vertices, each walked against its faces' winding; and how many runs of edges do not close.

    Places where two holes touch belong to runs that do not close: which way to go on there is a guess.
    """
    # The missing face has each edge the other way round.
    start, end = place[border[:, 1]], place[border[:, 0]]
    vertex = dict(zip(start.tolist(), border[:, 1].tolist()))
    several = {p for p, n in Counter(start.tolist()).items() if n > 1}
    follow = {a: b for a, b in zip(start.tolist(), end.tolist()) if a not in several}
    loops, broken = [], len(several)
    while follow:
        first, here = next(iter(follow.items()))
        del follow[first]
        ring = [first]
        while here != first and here in follow:
            ring.append(here)
            here = follow.pop(here)
        if here == first and len(ring) >= 3:
            loops.append([vertex[p] for p in ring])
        elif not several:
            broken += 1
    return loops, broken


def _ears(at: np.ndarray, loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles that close ``loop``, the shortest new edge first: round holes get even faces."""
    ring, made = list(loop), []
    while len(ring) > 3:
        points = at[ring]
        across = np.linalg.norm(np.roll(points, 1, axis=0) - np.roll(points, -1, axis=0), axis=1)
        i = int(across.argmin())
        made.append((ring[i - 1], ring[i], ring[(i + 1) % len(ring)]))
        del ring[i]
    return [*made, (ring[0], ring[1], ring[2])]


def _rebuilt(mesh: trimesh.Trimesh, faces: np.ndarray) -> trimesh.Trimesh:
    """``mesh``'s vertices with other faces; vertex colours and texture coordinates stay, being per vertex."""
    visual: Any = mesh.visual
    kept = visual.copy() if visual.kind in ("texture", "vertex") else None
    return trimesh.Trimesh(np.array(mesh.vertices), faces, visual=kept, process=False)
