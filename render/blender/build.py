"""People, cameras, lamps and worlds of plain arrays -> Blender data-blocks of the scene that is open."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from manifests.errors import RenderError
from manifests.frames import BLENDER_SENSOR_MM, blender_intrinsics, blender_matrix_world
from render.blender.materials import VERTEX_COLORS, build_material
from render.scene import Camera, Lamp, Lighting, PersonMesh

# Cycles' sample 0 misses the pixel's centre by this much, right and down: its filter table has an even number of bins.
# Measured by least squares on a sphere (0.00050, -0.00058 px); with the principal point moved by it, depth residuals fall
# thirtyfold.
CENTRE_RAY_PX = (5e-4, -5.5e-4)
GROUND_M = 40.0


def build_person(person: PersonMesh, marked: bool = False) -> Any:
    """A Blender object with exactly the triangles, corner normals and uv of ``person.mesh``; ``marked``: its materials
    set the Person AOV.
    """
    m = person.mesh
    n_faces = len(m.faces)
    mesh = bpy.data.meshes.new(person.identity_id)
    mesh.vertices.add(len(m.vertices))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(m.vertices, np.float32).ravel())
    mesh.loops.add(n_faces * 3)
    mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(m.faces, np.int32).ravel())
    mesh.polygons.add(n_faces)
    mesh.polygons.foreach_set("loop_start", np.arange(0, n_faces * 3, 3, dtype=np.int32))
    mesh.polygons.foreach_set("material_index", np.ascontiguousarray(m.material_index, np.int32))
    if m.uv is not None:
        layer = mesh.uv_layers.new(name="uv")
        layer.uv.foreach_set("vector", np.ascontiguousarray(m.uv, np.float32).ravel())
    if m.corner_colors is not None:
        rgba = np.ones((n_faces * 3, 4), np.float32)
        rgba[:, :3] = m.corner_colors.reshape(-1, 3)
        mesh.color_attributes.new(VERTEX_COLORS, "FLOAT_COLOR", "CORNER").data.foreach_set("color", rgba.ravel())
    for material in m.materials:
        mesh.materials.append(build_material(material, "Person" if marked else None))
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    mesh.normals_split_custom_set(np.ascontiguousarray(m.corner_normals, np.float32).reshape(-1, 3))
    if len(mesh.polygons) != n_faces:
        raise RenderError("", f"{person.identity_id}: Blender kept {len(mesh.polygons)} of {n_faces} faces")
    return bpy.data.objects.new(person.identity_id, mesh)


def build_camera(camera: Camera) -> None:
    """Make ``camera`` the scene's camera: pose, lens, shift, resolution and pixel aspect."""
    blender = bpy.context.scene
    data = bpy.data.cameras.new("camera")
    obj = bpy.data.objects.new("camera", data)
    blender.collection.objects.link(obj)
    blender.camera = obj
    K = camera.K.copy()
    K[:2, 2] += CENTRE_RAY_PX
    intrinsics = blender_intrinsics(K, camera.width, camera.height)
    data.sensor_fit, data.sensor_width = "HORIZONTAL", BLENDER_SENSOR_MM
    data.lens = intrinsics["lens_mm"]
    data.shift_x, data.shift_y = intrinsics["shift_x"], intrinsics["shift_y"]
    data.clip_start, data.clip_end = 0.01, 1000.0
    render = blender.render
    render.resolution_x, render.resolution_y = camera.width, camera.height
    render.pixel_aspect_x, render.pixel_aspect_y = intrinsics["aspect_x"], intrinsics["aspect_y"]
    from mathutils import Matrix

    obj.matrix_world = Matrix(blender_matrix_world(camera.world_to_camera).tolist())


def build_ground() -> None:
    """The plane z = 0, seen only through the shadows that fall on it."""
    mesh = bpy.data.meshes.new("ground")
    s = GROUND_M
    mesh.from_pydata([(-s, -s, 0), (s, -s, 0), (s, s, 0), (-s, s, 0)], [], [(0, 1, 2, 3)])
    obj = bpy.data.objects.new("ground", mesh)
    obj.is_shadow_catcher = True
    bpy.context.scene.collection.objects.link(obj)


def build_lamp(lamp: Lamp, balance: tuple[float, float, float]) -> None:
    """A sun or a square area lamp, of the colour ``balance``."""
    from mathutils import Vector

    data = bpy.data.lights.new(lamp.kind, "SUN" if lamp.kind == "sun" else "AREA")
    data.energy, data.color = lamp.strength, balance
    if lamp.kind == "sun":
        data.angle = np.radians(lamp.size)
    else:
        data.size = lamp.size
    obj = bpy.data.objects.new(lamp.kind, data)
    obj.location = lamp.position.tolist()
    # A Blender lamp shines along its own -z.
    obj.rotation_euler = Vector(lamp.direction.tolist()).to_track_quat("-Z", "Y").to_euler()
    obj.visible_camera = False
    bpy.context.scene.collection.objects.link(obj)


def build_world(lighting: Lighting, picture: np.ndarray) -> None:
    """Light the scene by ``picture`` (h, w, 3) float32, an equirectangular map, turned by its yaw."""
    height, width = picture.shape[:2]
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    # Cells of half a texel: whole ones can miss a small sun between their centres (8 samples against 400 before sunrise.exr:
    # 18.3 dB against 23.0). Left to itself Cycles builds a far finer map, 1.5 s of one core for every frame and no less noise.
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 2 * width
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    nodes.clear()
    coordinates, mapping = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeMapping")
    environment, background = nodes.new("ShaderNodeTexEnvironment"), nodes.new("ShaderNodeBackground")
    output = nodes.new("ShaderNodeOutputWorld")
    image = bpy.data.images.new("environment", width, height, alpha=False, float_buffer=True)
    image.colorspace_settings.name = "Linear Rec.709"
    rgba = np.ones((height, width, 4), np.float32)
    rgba[..., :3] = picture[::-1] * np.asarray(lighting.gains, np.float32)
    image.pixels.foreach_set(rgba.ravel())
    image.update()
    environment.image = image
    # A lookup is turned the other way round so that the map itself turns counter-clockwise.
    mapping.inputs["Rotation"].default_value = (0.0, 0.0, -np.radians(lighting.yaw_deg))
    background.inputs["Strength"].default_value = lighting.strength
    links.new(coordinates.outputs["Generated"], mapping.inputs["Vector"])
    links.new(mapping.outputs["Vector"], environment.inputs["Vector"])
    links.new(environment.outputs["Color"], background.inputs["Color"])
    links.new(background.outputs["Background"], output.inputs["Surface"])
