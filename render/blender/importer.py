"""A scan file (GLB, glTF, OBJ, FBX, PLY, USD) -> triangles and materials as plain arrays, through Blender's own
importers.

Both sides of every triangle count (render.scene.Mesh); materials and alpha are decided in translate.py.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from manifests.errors import AssetError
from manifests.parts import UNLABELLED
from render.blender.engine import captured
from render.blender.pose import clips, joints, strike
from render.blender.translate import Materials
from render.people.glb import ATTRIBUTE, classes
from render.scene import EMPTY, Mesh, Pose, Scan

# What Blender's glTF importer puts here is display help for bones, 2 m wide, and no part of the person.
HELPER_COLLECTION = "glTF_not_exported"
USD = (".usd", ".usda", ".usdc", ".usdz")
TEXT_USD = b"#usda"
BINARY_FBX = b"Kaydara FBX Binary"


def import_file(asset_id: str, path: Path, pose: Pose = Pose()) -> Scan:
    """All visible geometry in the file, modifiers, skin, morphs and ``pose`` applied, as one mesh.

    Axes as Blender imports them: z up for formats that declare theirs, the file's own for OBJ and PLY.
    Scripts and drivers in the file never run; nothing stays in Blender. Raises AssetError.
    """
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
    before = {kind: set(getattr(bpy.data, kind)) for kind in KINDS}
    try:
        with captured() as log:
            try:
                usd_unit = _usd_unit(path) if path.suffix.lower() in USD else None
                IMPORTERS[path.suffix.lower()](str(path))
            except (RuntimeError, LookupError, ValueError, AttributeError, TypeError, OSError, struct.error) as error:
                first = (str(error).strip().splitlines() or ["unknown"])[-1]
                raise AssetError(asset_id, f"{path.name}: Blender cannot read it ({first}); export it again") from None
            printed = log()
            objects = [o for o in bpy.data.objects if o not in before["objects"]]
            strike(asset_id, objects, pose)
            helpers = [o for o in objects if o.type == "MESH" and _helper(o, objects)]
            shown = [o for o in objects if o.type == "MESH" and o not in helpers]
            scan = Scan(EMPTY, unit_m=usd_unit or _declared(path), helpers=sorted(o.name for o in helpers))
            mesh = _merge(shown, Materials(path, scan), scan.parts)
            scan.joints = joints([o for o in objects if o.type == "ARMATURE"])
        if mesh is None:
            hint = next((x for x in printed.splitlines() if "rror" in x), "only points, bones or empties inside")
            raise AssetError(
                asset_id, f"{path.name}: no triangle in it ({hint}); export it again with its mesh", "empty"
            )
        if not np.isfinite(mesh.vertices).all():
            raise AssetError(asset_id, f"{path.name}: vertices that are no numbers; export it again")
        scan.mesh = mesh
        scan.bones = list(scan.joints)
        scan.clips = clips([a for a in bpy.data.actions if a not in before["actions"]])
        keyed = [o.data.shape_keys for o in shown if o.data.shape_keys]
        scan.morphs = sum(len(k.key_blocks) - 1 for k in keyed)
        return scan
    finally:
        for kind in KINDS:
            bpy.data.batch_remove([b for b in getattr(bpy.data, kind) if b not in before[kind]])


def _helper(obj: Any, objects: list[Any]) -> bool:
    """A shape that is there for an animator: a bone's display shape, hidden, or loose and bare beside a rig."""
    if obj.hide_render or any(c.name.startswith(HELPER_COLLECTION) for c in obj.users_collection):
        return True
    rigs = [o for o in objects if o.type == "ARMATURE"]
    if any(bone.custom_shape == obj for rig in rigs for bone in rig.pose.bones):
        return True
    skinned = any(m.type == "ARMATURE" for m in obj.modifiers)
    bare = not any(s.material for s in obj.material_slots)
    return bool(rigs) and bare and not skinned and obj.parent is None and not obj.data.color_attributes


def _merge(objects: list[Any], materials: Materials, told: list[list[Any]]) -> Mesh | None:
    """All evaluated triangles of ``objects`` in world space; ``told`` gets [name, first vertex, vertices] of each."""
    graph = bpy.context.evaluated_depsgraph_get()
    parts: list[tuple[np.ndarray, ...]] = []
    first, any_colours = 0, False
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
        # A normal turns by the inverse transpose: scales need not be uniform. A flat scale has none.
        normals = _read(mesh.corner_normals, "vector", 3)[loops] @ np.linalg.pinv(world[:3, :3])
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
        if np.linalg.det(world[:3, :3]) < 0:
            faces, loops, normals = faces[:, ::-1], loops[:, ::-1], normals[:, ::-1]
        layer = mesh.uv_layers.active
        uv = _read(layer.uv, "vector", 2)[loops] if layer else np.zeros((n, 3, 2))
        colours = _colours(mesh, faces, loops)
        has = colours is not None
        slots = [materials.index(s.material, obj.name, has) for s in obj.material_slots] or [
            materials.index(None, obj.name, has)
        ]
        local = np.clip(_read(mesh.loop_triangles, "material_index", 1, np.int32)[:, 0], 0, len(slots) - 1)
        index = np.array(slots)[local]
        if colours is None:
            colours = np.ones((n, 3, 3))
        else:
            # glTF and PLY multiply a vertex's colour by the material's; grey for a missing one must not dim it.
            factor = np.array([m.base_color if m.name != "missing" else (1.0, 1.0, 1.0) for m in materials.made])
            colours = colours * factor[index][:, None]
            any_colours = True
        parts.append((vertices, faces + first, normals, uv, index, colours, _labels(mesh, faces)))
        told.append([obj.name, first, len(vertices)])
        first += len(vertices)
        evaluated.to_mesh_clear()
    if not parts:
        return None
    vertices, faces, normals, uv, index, colours, labels = (np.concatenate(p) for p in zip(*parts))
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=np.ascontiguousarray(faces, np.int32),
        corner_normals=normals.astype(np.float32),
        material_index=index.astype(np.int32),
        materials=materials.made,
        uv=uv.astype(np.float32),
        corner_colors=colours.astype(np.float32) if any_colours else None,
        part=labels if (labels != UNLABELLED).any() else None,
    )


def _labels(mesh: Any, faces: np.ndarray) -> np.ndarray:
    """(F,) uint8 Sapiens2 class of each triangle, from the point attribute that render/people/glb.py writes."""
    layer = mesh.attributes.get(ATTRIBUTE)
    if layer is None or layer.domain != "POINT" or layer.data_type not in ("FLOAT", "INT"):
        return np.full(len(faces), UNLABELLED, np.uint8)
    return classes(_read(layer.data, "value", 1)[:, 0], faces)


def _colours(mesh: Any, faces: np.ndarray, loops: np.ndarray) -> np.ndarray | None:
    """(F, 3, 3) linear RGB of the active colour attribute, or None where there is none or it is white all over."""
    layer = mesh.color_attributes.active_color or next(iter(mesh.color_attributes), None)
    if layer is None or layer.domain not in ("POINT", "CORNER"):
        return None
    rgb = _read(layer.data, "color", 4)[:, :3]
    return None if rgb.min(initial=1.0) > 0.999 else rgb[faces if layer.domain == "POINT" else loops]


def _read(items: Any, attribute: str, width: int, dtype: Any = np.float32) -> np.ndarray:
    out = np.empty(len(items) * width, dtype)
    items.foreach_get(attribute, out)
    out = out.reshape(-1, width)
    return out.astype(np.float64) if dtype == np.float32 else out


def _declared(path: Path) -> float | None:
    """Metres that an FBX or a glTF calls one unit, which the importer has applied; None for OBJ and PLY, which say
    nothing.
    """
    kind = path.suffix.lower()
    if kind in (".obj", ".ply"):
        return None
    if kind == ".fbx":
        # A double after three string properties: "double", "Number" and an empty one. Centimetres unless told.
        found = re.search(
            rb"UnitScaleFactor(?:S....[^\x00-\x08]*?){1,2}S\x00\x00\x00\x00D(.{8})", path.read_bytes(), re.S
        )
        return 0.01 * struct.unpack("<d", found.group(1))[0] if found else 0.01
    return 1.0


def _fbx(path: str) -> None:
    with Path(path).open("rb") as file:
        binary = file.read(len(BINARY_FBX)) == BINARY_FBX
    # The older reader takes rigs and odd axes better, but binary files alone.
    if binary:
        bpy.ops.import_scene.fbx(filepath=path, use_image_search=False)
    else:
        bpy.ops.wm.fbx_import(filepath=path)


def _usd_unit(path: Path) -> float | None:
    """Metres that a USD calls one unit: centimetres unless told."""
    with path.open("rb") as file:
        if file.read(len(TEXT_USD)) != TEXT_USD:
            return usd_unit_applied(path)
    said = re.search(r"metersPerUnit\s*=\s*([\d.eE+-]+)", path.read_text(errors="replace"))
    return float(said.group(1)) if said else 0.01


def usd_unit_applied(path: Path) -> float | None:
    """Metres per unit by which the importer scales, where it may and where it may not: binary files do not show it.

    What Blender wrote itself comes back as its own metres, 1.0, whatever unit it was told to write. None without a mesh.
    """
    sizes = []
    for applied in (True, False):
        before = {kind: set(getattr(bpy.data, kind)) for kind in KINDS}
        _usd(str(path), apply_unit_conversion_scale=applied)
        # Bounds are stale until the importer's objects have been evaluated once.
        bpy.context.view_layer.update()
        shown = [o for o in bpy.data.objects if o not in before["objects"] and o.type == "MESH"]
        corners = [o.matrix_world @ Vector(c) for o in shown for c in o.bound_box]
        sizes.append(float(np.ptp(np.array(corners), axis=0).max()) if corners else 0.0)
        for kind in KINDS:
            bpy.data.batch_remove([b for b in getattr(bpy.data, kind) if b not in before[kind]])
    return float(f"{sizes[0] / sizes[1]:.5g}") if min(sizes) > 0 else None


def _usd(path: str, **options: Any) -> None:
    bpy.ops.wm.usd_import(
        filepath=path, import_cameras=False, import_lights=False, create_world_material=False, set_frame_range=False,
        import_textures_mode="IMPORT_PACK" if path.lower().endswith("z") else "IMPORT_NONE", **options,
    )  # fmt: skip


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
    "curves",
    "cache_files",
    "node_groups",
)

IMPORTERS: dict[str, Any] = {
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path, forward_axis="Y", up_axis="Z"),
    ".ply": lambda path: bpy.ops.wm.ply_import(filepath=path, forward_axis="Y", up_axis="Z"),
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".gltf": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".fbx": _fbx,
    **dict.fromkeys(USD, _usd),
}
