"""Scan libraries for tests, made from a character or from boxes: what their owners' folders look like, and every defect.

Legend: V vertices, F triangles.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import trimesh

from render.scene import Mesh

# THuman's scans have no unit: this many of their numbers are a metre in the made ones.
THUMAN_SCALE = 0.583
# z up -> y up; rows are the new axes.
Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
HEAD = ((0.0, 0.0, 0.8), (0.0, 0.0, 1.6))


def obj(path: Path, mesh: Mesh, scale: float = 1.0, mtl: str | None = None) -> Path:
    """``mesh`` (z up, metres) as an OBJ, y up, times ``scale``; one material from ``mtl``, or none."""
    v = mesh.vertices @ Y_UP.T.astype(np.float32) * scale
    uv = np.zeros((len(mesh.faces), 3, 2)) if mesh.uv is None else mesh.uv
    lines = [f"mtllib {mtl}"] if mtl else []
    lines += [f"v {a:.6f} {b:.6f} {c:.6f}" for a, b, c in v.tolist()]
    lines += [f"vt {a:.5f} {b:.5f}" for a, b in uv.reshape(-1, 2).tolist()]
    lines += ["usemtl skin"] if mtl else []
    for i, (a, b, c) in enumerate((mesh.faces + 1).tolist()):
        lines.append(f"f {a}/{3 * i + 1} {b}/{3 * i + 2} {c}/{3 * i + 3}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def picture(path: Path, mesh: Mesh) -> Path:
    """The colour of the material that covers most of ``mesh``, as a small JPEG."""
    counts = np.bincount(mesh.material_index, minlength=len(mesh.materials))
    order = [i for i in np.argsort(-counts) if mesh.materials[i].base_color_texture is not None]
    pixels = mesh.materials[order[0]].base_color_texture[..., 2::-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA))
    return path


def renderpeople(folder: Path, mesh: Mesh) -> Path:
    """As it comes out of their archive: centimetres, and an MTL that was left behind."""
    home = folder / "rp_carla_posed_004_OBJ"
    picture(home / "tex/rp_carla_posed_004_dif_2k.jpg", mesh)
    return obj(home / "rp_carla_posed_004_100k.obj", mesh, 100.0, "rp_carla_posed_004_100k.mtl")


def thuman(folder: Path, mesh: Mesh) -> Path:
    """NNNN/NNNN.obj with material0, no unit, and the SMPL-X fit that knows its scale, as protocol 2 with arrays."""
    home = folder / "model/0525"
    path = obj(home / "0525.obj", mesh, THUMAN_SCALE, "material0.mtl")
    picture(home / "material0.jpeg", mesh)
    (home / "material0.mtl").write_text("newmtl skin\nmap_Kd material0.jpeg\n")
    fit = folder / "smplx/0525/smplx_param.pkl"
    fit.parent.mkdir(parents=True)
    said = {"scale": np.float32([THUMAN_SCALE]), "betas": np.zeros((1, 10), np.float32)}
    fit.write_bytes(pickle.dumps(said, protocol=2))
    return path


def ply(path: Path, mesh: Mesh) -> Path:
    """Y up, metres; vertex colours run from red feet to blue hair."""
    share = mesh.vertices[:, 2:] / mesh.vertices[:, 2].max()
    rgba = np.hstack([255 * (1 - share), 0 * share + 60, 255 * share, 0 * share + 255]).astype(np.uint8)
    shape = trimesh.Trimesh(mesh.vertices @ Y_UP.T, mesh.faces, vertex_colors=rgba, process=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape.export(path)
    return path


def textured(path: Path, mesh: Mesh) -> Path:
    """An OBJ in metres with an MTL and a picture, to be exported from."""
    picture(path.parent / "skin.jpg", mesh)
    path.with_suffix(".mtl").write_text("newmtl skin\nmap_Kd skin.jpg\n")
    return obj(path, mesh, mtl=path.with_suffix(".mtl").name)


def usd(vertices: np.ndarray, faces: np.ndarray, unit_m: float = 1) -> str:
    """A USD layer of one mesh, z up; (V, 3) ``vertices`` count units of ``unit_m`` metres, ``faces``: (F, 3)."""
    points = ", ".join(f"({x}, {y}, {z})" for x, y, z in vertices)
    return (
        f'#usda 1.0\n( metersPerUnit = {unit_m}\n upAxis = "Z" )\ndef Mesh "box" {{\n'
        f"int[] faceVertexCounts = {[3] * len(faces)}\nint[] faceVertexIndices = {faces.ravel().tolist()}\n"
        f"point3f[] points = [{points}]\n}}\n"
    )


def by_blender(folder: Path, code: str) -> None:
    """Run ``code``, after MAKING, in a Blender of its own with ``folder`` as OUT."""
    done = subprocess.run(
        [sys.executable, "-c", f"OUT = {str(folder)!r}\n{MAKING}\n{code}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# From one OBJ: Blender's FBX says centimetres (UnitScaleFactor 1) or, told so, metres; its USD what it is told.
CONVERTED = """
bpy.ops.wm.obj_import(filepath=OUT + "/source/person.obj")
bpy.ops.export_scene.fbx(filepath=OUT + "/person_fbx.fbx", path_mode="COPY", embed_textures=True)
bpy.ops.export_scene.fbx(filepath=OUT + "/person_fbx_m.fbx", path_mode="COPY", embed_textures=True,
                         apply_scale_options="FBX_SCALE_UNITS")
bpy.ops.wm.usd_export(filepath=OUT + "/person_usd.usdc", export_textures_mode="NEW")
bpy.ops.wm.usd_export(filepath=OUT + "/person_usd_cm.usda", export_textures_mode="NEW",
                      convert_scene_units="CENTIMETERS", convert_orientation=True)
"""

# Two boxes, 0.8 m each, one on the other; three bones; a clip that bows at frame 10; a face key; a loose helper.
RIGGED = """
def box(name, low, bone):
    corners = [(x, y, z + low) for x in (-.15, .15) for y in (-.1, .1) for z in (0, .8)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners, [], quads)
    mesh.materials.append(bpy.data.materials.new("cloth"))
    made = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(made)
    made.vertex_groups.new(name=bone).add(range(8), 1.0, "REPLACE")
    made.parent = rig
    made.modifiers.new("rig", "ARMATURE").object = rig
    return made

rig = bpy.data.objects.new("rig", bpy.data.armatures.new("rig"))
bpy.context.collection.objects.link(rig)
bpy.context.view_layer.objects.active = rig
bpy.ops.object.mode_set(mode="EDIT")
for name, low, parent in (("lower", 0, None), ("upper", .8, "lower"), ("tip", 1.6, "upper")):
    bone = rig.data.edit_bones.new(name)
    bone.head, bone.tail = (0, 0, low), (0, 0, low + .8)
    bone.parent = rig.data.edit_bones[parent] if parent else None
bpy.ops.object.mode_set(mode="OBJECT")
box("legs", 0, "lower")
chest = box("chest", .8, "upper")
chest.shape_key_add(name="Basis")
chest.shape_key_add(name="breath").data[0].co.x -= .05
bpy.ops.mesh.primitive_ico_sphere_add(radius=2)
bpy.context.object.name = "display_helper"
bend = rig.pose.bones["upper"]
bend.rotation_mode = "XYZ"
rig.animation_data_create().action = bpy.data.actions.new("bow")
for frame, degrees in ((1, 0), (10, 90)):
    bend.rotation_euler = (math.radians(degrees), 0, 0)
    bend.keyframe_insert("rotation_euler", frame=frame)
bpy.context.scene.frame_set(1)
bpy.ops.export_scene.gltf(filepath=OUT + "/rigged.glb", export_animation_mode="ACTIONS")
"""

MAKING = """
import math
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
"""
