"""A mesh file -> triangles and materials as plain arrays, through trimesh: for looking at scans without Blender.

World axes and units are those of render/blender/importer.py. Skins, modifiers and animations are not applied.
Legend: V vertices, F triangles.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import AssetError
from manifests.frames import Z_UP_FROM_Y_UP
from render.assets.files import references
from render.scene import Material, Mesh

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MAX_TEXTURE_PX = 1024
# What trimesh, numpy and Pillow raise on bytes that are not what their name says.
UNREADABLE = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError, EOFError),
    *(OSError, ImportError, MemoryError, struct.error, zlib.error, RecursionError),
)


def read_mesh(name: str, path: Path) -> Mesh:
    """The mesh of ``path``: by trimesh where it knows the format, else by Blender. Raises AssetError."""
    if path.suffix.lower() in SUFFIXES:
        return read(name, path)[0]
    from render.blender.importer import import_file

    return import_file(name, path)


def read(name: str, path: Path) -> tuple[Mesh, list[str]]:
    """One mesh of all triangles in the file, and in words what of it does not show.

    glTF is turned from y up to z up; other formats stay as they are. Raises AssetError.
    """
    import trimesh

    for reference in references(path):
        if not reference.resolve().is_relative_to(path.parent.resolve()):
            raise AssetError(
                name, f"{path.name} refers to {reference}, outside its own folder; copy that file beside it"
            )
    gltf = path.suffix.lower() in (".glb", ".gltf")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene = trimesh.load_scene(str(path), process=False)
        collected = _Collected()
        for node in sorted(scene.graph.nodes_geometry):
            transform, key = scene.graph[node]
            geometry = scene.geometry[key]
            if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                collected.add(geometry, transform)
        # trimesh keeps a picture that it cannot find out of the material without a word.
        notes = [f"{r.name} is missing" for r in references(path) if not r.is_file()]
        notes += collected.notes + (["rigged: shown as modelled"] if gltf and _rigged(path) else [])
        mesh = collected.mesh()
    except UNREADABLE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(name, f"{path.name}: trimesh cannot read it ({first[:160]}); export it again") from None
    if mesh is None:
        raise AssetError(name, f"{path.name}: no triangle in it; export it again with its mesh")
    if not np.isfinite(mesh.vertices).all():
        raise AssetError(name, f"{path.name}: vertices that are not numbers; export it again")
    if gltf:
        turn = Z_UP_FROM_Y_UP.astype(np.float32)
        mesh.vertices, mesh.corner_normals = mesh.vertices @ turn.T, mesh.corner_normals @ turn.T
    return mesh, notes


class _Collected:
    """Pieces of a file, joined; each picture and material is translated once."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._materials: list[Material] = []
        self._known: dict[int, tuple[Any, int]] = {}
        self._pictures: dict[int, tuple[Any, np.ndarray | None]] = {}
        self._first = 0

    def add(self, geometry: Any, transform: np.ndarray) -> None:
        """``geometry``: a trimesh.Trimesh with faces; ``transform``: (4, 4) to the file's world."""
        linear = transform[:3, :3]
        vertices = np.asarray(geometry.vertices, np.float64) @ linear.T + transform[:3, 3]
        faces = np.asarray(geometry.faces)
        # A normal turns by the inverse transpose: scales need not be uniform.
        normals = np.asarray(geometry.vertex_normals, np.float64)[faces] @ np.linalg.pinv(linear)
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
        uv, material = self._surface(geometry, faces)
        if np.linalg.det(linear) < 0:
            faces, normals, uv = faces[:, ::-1], normals[:, ::-1], uv[:, ::-1]
        self._parts.append((vertices, faces + self._first, normals, uv, np.full(len(faces), material)))
        self._first += len(vertices)

    def mesh(self) -> Mesh | None:
        """Everything added; None when that is nothing."""
        if not self._parts:
            return None
        vertices, faces, normals, uv, index = (np.concatenate(p) for p in zip(*self._parts))
        return Mesh(
            vertices=vertices.astype(np.float32),
            faces=np.ascontiguousarray(faces, np.int32),
            corner_normals=normals.astype(np.float32),
            material_index=index.astype(np.int32),
            materials=self._materials,
            uv=uv.astype(np.float32),
        )

    def _surface(self, geometry: Any, faces: np.ndarray) -> tuple[np.ndarray, int]:
        """(F, 3, 2) uv and the material's index."""
        visual = geometry.visual
        uv = np.zeros((len(faces), 3, 2))
        if visual.kind in ("vertex", "face"):
            return _coloured(visual, faces), self._keep(
                visual, Material("colours", base_color_texture=_palette(visual))
            )
        material = getattr(visual, "material", None)
        if getattr(visual, "uv", None) is not None and len(visual.uv) == len(geometry.vertices):
            uv = np.asarray(visual.uv, np.float64)[faces]
        if material is None:
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
                self.notes.append(f"the picture of {name} is broken")
            self._pictures[id(picture)] = (picture, pixels)
        return self._pictures[id(picture)][1]


def _palette(visual: Any) -> np.ndarray:
    """(n, n, 4) uint8: one texel per vertex or face colour, row by row."""
    colours = np.asarray(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors, np.uint8)
    side = _side(visual)
    texels = np.zeros((side * side, 4), np.uint8)
    texels[: len(colours)] = colours
    texels[:, 3] = 255
    return texels.reshape(side, side, 4)


def _coloured(visual: Any, faces: np.ndarray) -> np.ndarray:
    """(F, 3, 2) uv: all corners of a face at the middle of its texel, so that nothing is blurred between texels."""
    texel = faces[:, 0] if visual.kind == "vertex" else np.arange(len(faces))
    side = _side(visual)
    uv = np.stack([(texel % side + 0.5) / side, 1 - (texel // side + 0.5) / side], axis=1)
    return np.repeat(uv[:, None], 3, axis=1)


def _side(visual: Any) -> int:
    colours = visual.vertex_colors if visual.kind == "vertex" else visual.face_colors
    return max(1, int(np.ceil(np.sqrt(len(colours)))))


def _rigged(path: Path) -> bool:
    data = path.read_bytes()
    if data[:4] == b"glTF":
        data = io.BytesIO(data[12:]).read(8 + struct.unpack("<I", data[12:16])[0])[8:]
    return bool(json.loads(data).get("skins"))
