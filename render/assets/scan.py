"""A mesh file -> triangles and materials as plain arrays, through trimesh: for looking at scans without Blender.

World axes and units are those of render/blender/importer.py. Skins, modifiers and animations are not applied.
Legend: V vertices, F triangles.
"""

from __future__ import annotations

import dataclasses
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from manifests.errors import AssetError
from manifests.frames import Z_UP_FROM_Y_UP
from manifests.parts import UNLABELLED
from render.assets.files import imported
from render.assets.references import as_read, gltf_tree, refuse_outside
from render.people.glb import ATTRIBUTE, classes
from render.response import linear
from render.scene import EMPTY, Material, Mesh, Pose, Scan

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
MAX_TEXTURE_PX = 1024
# What trimesh, numpy and Pillow raise on bytes that are not what their name says.
UNREADABLE = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError, EOFError),
    *(OSError, ImportError, MemoryError, struct.error, zlib.error, RecursionError),
)


def quick(name: str, path: Path, pose: Pose) -> Scan:
    """The scan of ``path``: by trimesh where it knows the format and nothing is to be posed, else as a job reads it.

    Raises AssetError.
    """
    return read(name, path) if path.suffix.lower() in SUFFIXES and pose == Pose() else imported(name, path, pose)


def read(name: str, path: Path) -> Scan:
    """All triangles in the file as one mesh, and what of it could not be read.

    glTF is turned from y up to z up; other formats stay as they are. Raises AssetError.
    """
    import trimesh

    refuse_outside(name, path)
    gltf = path.suffix.lower() in (".glb", ".gltf")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene = trimesh.load_scene(str(path), resolver=_Beside(path.parent), process=False)
        scan = Scan(EMPTY, **(_told(path) if gltf else {}))
        collected = _Collected(scan, not gltf)
        for node in sorted(scene.graph.nodes_geometry):
            transform, key = scene.graph[node]
            geometry = scene.geometry[key]
            if node in scan.helpers:
                continue
            if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                collected.add(path.stem if str(key) == str(path) else str(key), geometry, transform)
        mesh = collected.mesh()
    except UNREADABLE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(name, f"{path.name}: trimesh cannot read it ({first[:160]}); export it again") from None
    if mesh is None:
        raise AssetError(name, f"{path.name}: no triangle in it; export it again with its mesh", "empty")
    if not np.isfinite(mesh.vertices).all():
        raise AssetError(name, f"{path.name}: vertices that are not numbers; export it again")
    if gltf:
        turn = Z_UP_FROM_Y_UP.astype(np.float32)
        mesh.vertices, mesh.corner_normals = mesh.vertices @ turn.T, mesh.corner_normals @ turn.T
    return dataclasses.replace(scan, mesh=mesh)


def _told(path: Path) -> dict[str, Any]:
    """Fields of Scan that a glTF says of itself."""
    tree = gltf_tree(path)
    nodes = tree.get("nodes", [])
    bones = [str(nodes[j].get("name", j)) for skin in tree.get("skins", []) for j in skin["joints"]]
    return {
        "unit_m": 1.0,
        "bones": list(dict.fromkeys(bones)),
        "clips": sorted(str(a.get("name", i)) for i, a in enumerate(tree.get("animations", []))),
        "morphs": sum(len(m["primitives"][0].get("targets", [])) for m in tree.get("meshes", [])),
        "helpers": sorted(str(n.get("name")) for n in nodes if tree.get("skins") and _helper(tree, n)),
    }


def _helper(tree: dict[str, Any], node: dict[str, Any]) -> bool:
    """Whether a node shows a shape that is there for an animator, as render/blender/importer.py has it: loose and bare."""
    if (
        "mesh" not in node
        or "skin" in node
        or any(tree["nodes"][c] is node for n in tree["nodes"] for c in n.get("children", []))
    ):
        return False
    pieces = tree["meshes"][node["mesh"]]["primitives"]
    return not any("material" in p or "COLOR_0" in p["attributes"] for p in pieces)


class _Beside(Mapping[str, bytes]):
    """What a file in ``folder`` names -> its bytes, found as Blender's reader finds it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> bytes:
        at = as_read(self._folder, unquote(name))
        if not at.is_file():
            raise KeyError(name)
        return at.read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Collected:
    """Pieces of a file, joined; each picture and material is translated once. What is wrong goes into ``scan``'s lists.

    ``coded``: vertex colours are sRGB, as PLY has them; glTF's are linear.
    """

    def __init__(self, scan: Scan, coded: bool) -> None:
        self._scan, self._coded = scan, coded
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._materials: list[Material] = []
        self._known: dict[int, tuple[Any, int]] = {}
        self._pictures: dict[int, tuple[Any, np.ndarray | None]] = {}
        self._first = 0

    def add(self, part: str, geometry: Any, transform: np.ndarray) -> None:
        """``geometry``: a trimesh.Trimesh with faces, called ``part``; ``transform``: (4, 4) to the file's world."""
        linear = transform[:3, :3]
        vertices = np.asarray(geometry.vertices, np.float64) @ linear.T + transform[:3, 3]
        faces = np.asarray(geometry.faces)
        # A normal turns by the inverse transpose: scales need not be uniform.
        normals = np.asarray(geometry.vertex_normals, np.float64)[faces] @ np.linalg.pinv(linear)
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
        uv, material = self._surface(part, geometry, faces)
        colours = _colours(geometry, faces, self._coded)
        if np.linalg.det(linear) < 0:
            faces, normals, uv, colours = (x[:, ::-1] for x in (faces, normals, uv, colours))
        values = geometry.vertex_attributes.get(ATTRIBUTE, np.full(len(vertices), UNLABELLED))
        labels = classes(np.asarray(values).reshape(len(vertices), -1)[:, 0], faces)
        index = np.full(len(faces), material)
        self._parts.append((vertices, faces + self._first, normals, uv, index, colours, labels))
        self._first += len(vertices)

    def mesh(self) -> Mesh | None:
        """Everything added; None when that is nothing."""
        if not self._parts:
            return None
        vertices, faces, normals, uv, index, colours, labels = (np.concatenate(p) for p in zip(*self._parts))
        return Mesh(
            vertices=vertices.astype(np.float32),
            faces=np.ascontiguousarray(faces, np.int32),
            corner_normals=normals.astype(np.float32),
            material_index=index.astype(np.int32),
            materials=self._materials,
            uv=uv.astype(np.float32),
            corner_colors=colours.astype(np.float32) if any(m.vertex_color for m in self._materials) else None,
            part=labels if (labels != UNLABELLED).any() else None,
        )

    def _surface(self, part: str, geometry: Any, faces: np.ndarray) -> tuple[np.ndarray, int]:
        """(F, 3, 2) uv and the material's index."""
        visual = geometry.visual
        uv = np.zeros((len(faces), 3, 2))
        if visual.kind in ("vertex", "face"):
            return uv, self._keep(visual, Material("colours", (1.0, 1.0, 1.0), vertex_color=True))
        material = getattr(visual, "material", None)
        # trimesh makes up a picture for uv without a material: one that no file format gave.
        if getattr(getattr(material, "image", None), "format", "") is None:
            material = None
        if getattr(visual, "uv", None) is not None and len(visual.uv) == len(geometry.vertices):
            uv = np.asarray(visual.uv, np.float64)[faces]
        if material is None:
            self._scan.bare.append(part)
            return uv, self._keep(visual, Material("missing", (0.5, 0.5, 0.5)))
        if id(material) in self._known:
            return uv, self._known[id(material)][1]
        return uv, self._keep(material, self._translate(material))

    def _keep(self, owner: Any, material: Material) -> int:
        # The owner is kept too: an id may come back once its object is gone.
        self._known[id(owner)] = (owner, len(self._materials))
        self._materials.append(material)
        return len(self._materials) - 1

    def _translate(self, material: Any) -> Material:
        pbr = material.to_pbr() if hasattr(material, "to_pbr") else material
        factor = np.ones(4) if pbr.baseColorFactor is None else np.asarray(pbr.baseColorFactor, np.float64) / 255
        made = Material(str(pbr.name or "material"), (float(factor[0]), float(factor[1]), float(factor[2])))
        made.base_color_texture = self._pixels(pbr.baseColorTexture, made.name)
        if pbr.alphaMode == "MASK":
            made.alpha_mode = "cutout"
            made.alpha_threshold = 0.5 if pbr.alphaCutoff is None else float(pbr.alphaCutoff)
        elif pbr.alphaMode == "BLEND":
            made.alpha_mode, made.alpha = "blend", float(factor[3])
        return made

    def _pixels(self, picture: Any, name: str) -> np.ndarray | None:
        """(h, w, 4) uint8 of a Pillow picture, at most MAX_TEXTURE_PX; None when there is none or it is broken."""
        if picture is None:
            return None
        if id(picture) not in self._pictures:
            pixels = None
            try:
                # JPEG decodes at a half or a quarter many times faster; other formats ignore this.
                picture.draft("RGB", (MAX_TEXTURE_PX, MAX_TEXTURE_PX))
                picture.thumbnail((MAX_TEXTURE_PX, MAX_TEXTURE_PX))
                pixels = np.array(picture.convert("RGBA"))
            except UNREADABLE:
                self._scan.missing_colour.append(f"of {name}")
            self._pictures[id(picture)] = (picture, pixels)
        return self._pictures[id(picture)][1]


def _colours(geometry: Any, faces: np.ndarray, coded: bool) -> np.ndarray:
    """(F, 3, 3) linear RGB at corners, white where the piece has no colours of its own. ``coded``: the file's are sRGB."""
    visual = geometry.visual
    if visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[faces][..., :3]
    elif visual.kind == "face":
        colours = np.repeat(np.asarray(visual.face_colors)[:, None, :3], 3, axis=1)
    else:
        return np.ones((len(faces), 3, 3))
    return linear(colours) if coded else colours / 255
