"""A scan file (GLB, glTF, OBJ) -> triangles and materials as plain arrays, through Blender's own importers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from manifests.errors import AssetError
from render.blender.engine import captured
from render.scene import Material, Mesh

# What Blender's glTF importer puts here is display help for bones, 2 m wide, and no part of the person.
HELPER_COLLECTION = "glTF_not_exported"
MAX_TEXTURE_PX = 2048


def import_file(asset_id: str, path: Path) -> Mesh:
    """One mesh of all visible geometry in the file, modifiers and skin applied; world axes as Blender imports them
    (z up).

    Scripts and drivers in the file never run; nothing stays in Blender. Raises AssetError.
    """
    before = {kind: set(getattr(bpy.data, kind)) for kind in KINDS}
    try:
        with captured() as log:
            try:
                IMPORTERS[path.suffix.lower()](str(path))
            except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
                first = (str(error).strip().splitlines() or ["unknown"])[-1]
                raise AssetError(asset_id, f"{path.name}: Blender cannot read it ({first})") from None
            printed = log()
        objects = [o for o in bpy.data.objects if o not in before["objects"] and o.type == "MESH" and not _helper(o)]
        mesh = _merge(objects)
        if mesh is None:
            hint = next((x for x in printed.splitlines() if "rror" in x), "only points, bones or empties inside")
            raise AssetError(asset_id, f"{path.name}: no triangle in it ({hint}); export it again with its mesh")
        return mesh
    finally:
        for kind in KINDS:
            bpy.data.batch_remove([b for b in getattr(bpy.data, kind) if b not in before[kind]])


def _helper(obj: Any) -> bool:
    return any(c.name.startswith(HELPER_COLLECTION) for c in obj.users_collection)


def _merge(objects: list[Any]) -> Mesh | None:
    """All evaluated triangles of ``objects`` in world space."""
    graph = bpy.context.evaluated_depsgraph_get()
    materials: list[Material] = []
    known: dict[str, int] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    first = 0
    for obj in objects:
        evaluated = obj.evaluated_get(graph)
        mesh = evaluated.to_mesh()
        mesh.calc_loop_triangles()
        n = len(mesh.loop_triangles)
        if not n:
            continue
        world = np.array(evaluated.matrix_world, np.float64)
        vertices = _read(mesh.vertices, "co", 3) @ world[:3, :3].T + world[:3, 3]
        loops = _read(mesh.loop_triangles, "loops", 3, np.int32)
        faces = _read(mesh.loop_triangles, "vertices", 3, np.int32)
        # A normal turns by the inverse transpose: scales need not be uniform.
        normals = _read(mesh.corner_normals, "vector", 3)[loops] @ np.linalg.inv(world[:3, :3])
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
        if np.linalg.det(world[:3, :3]) < 0:
            faces, loops, normals = faces[:, ::-1], loops[:, ::-1], normals[:, ::-1]
        layer = mesh.uv_layers.active
        uv = _read(layer.uv, "vector", 2)[loops] if layer else np.zeros((n, 3, 2))
        slots = [_material(s.material, known, materials) for s in obj.material_slots] or [
            _material(None, known, materials)
        ]
        index = np.array(slots)[
            np.clip(_read(mesh.loop_triangles, "material_index", 1, np.int32)[:, 0], 0, len(slots) - 1)
        ]
        parts.append((vertices, faces + first, normals, uv, index))
        first += len(vertices)
        evaluated.to_mesh_clear()
    if not parts:
        return None
    vertices, faces, normals, uv, index = (np.concatenate(p) for p in zip(*parts))
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=np.ascontiguousarray(faces, np.int32),
        corner_normals=normals.astype(np.float32),
        material_index=index.astype(np.int32),
        materials=materials,
        uv=uv.astype(np.float32),
    )


def _read(items: Any, attribute: str, width: int, dtype: Any = np.float32) -> np.ndarray:
    out = np.empty(len(items) * width, dtype)
    items.foreach_get(attribute, out)
    out = out.reshape(-1, width)
    return out.astype(np.float64) if dtype == np.float32 else out


def _material(material: Any, known: dict[str, int], materials: list[Material]) -> int:
    """Index of a Blender material in ``materials``, translated on first sight; a missing one is plain grey."""
    name = material.name if material else "missing"
    if name not in known:
        known[name] = len(materials)
        materials.append(_translate(material) if material else Material("missing", (0.5, 0.5, 0.5)))
    return known[name]


def _translate(material: Any) -> Material:
    made = Material(material.name)
    tree = material.node_tree
    shader = next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None) if tree else None
    if shader is None:
        made.base_color = tuple(material.diffuse_color)[:3]
        return made
    colour = shader.inputs["Base Color"]
    made.base_color = tuple(colour.default_value)[:3]
    made.roughness = float(shader.inputs["Roughness"].default_value)
    made.metallic = float(shader.inputs["Metallic"].default_value)
    made.base_color_texture = _pixels(_image_behind(colour))
    made.normal_texture = _pixels(_image_behind(shader.inputs["Normal"]))
    alpha = shader.inputs["Alpha"]
    if alpha.is_linked and made.base_color_texture is not None:
        hard = _node_behind(alpha, "MATH") is not None or material.blend_method == "CLIP"
        made.alpha_mode = "cutout" if hard else "blend"
    elif not alpha.is_linked and alpha.default_value < 0.999:
        made.alpha_mode, made.alpha = "blend", float(alpha.default_value)
    return made


def _node_behind(socket: Any, kind: str, depth: int = 6) -> Any:
    """The nearest node of ``kind`` upstream of ``socket``, or None."""
    if depth == 0 or not socket.is_linked:
        return None
    node = socket.links[0].from_node
    if node.type == kind:
        return node
    return next((f for s in node.inputs if (f := _node_behind(s, kind, depth - 1))), None)


def _image_behind(socket: Any) -> Any:
    node = _node_behind(socket, "TEX_IMAGE")
    return node.image if node else None


def _pixels(image: Any) -> np.ndarray | None:
    """(h, w, 4) uint8, row 0 at the top; no larger than MAX_TEXTURE_PX. None for an image whose file is missing."""
    if image is None:
        return None
    width, height = image.size
    if not width or not height:
        return None
    if max(width, height) > MAX_TEXTURE_PX:
        scale = MAX_TEXTURE_PX / max(width, height)
        image.scale(max(1, int(width * scale)), max(1, int(height * scale)))
        width, height = image.size
    flat = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(flat)
    return np.rint(np.clip(flat.reshape(height, width, 4)[::-1], 0, 1) * 255).astype(np.uint8)


KINDS = (
    "objects",
    "meshes",
    "armatures",
    "materials",
    "images",
    "actions",
    "collections",
    "cameras",
    "lights",
    "node_groups",
)

IMPORTERS: dict[str, Any] = {
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path, forward_axis="Y", up_axis="Z"),
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".gltf": lambda path: bpy.ops.import_scene.gltf(filepath=path),
}
