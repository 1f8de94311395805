"""render.scene.Strands -> Blender hair curves with a material that takes each strand's own colour."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from render.scene import Strands

COLOR, GLOW = "strand_color", "glow"
# What strands deep in hair see of the light around.
DEEP = 0.45


def light_strands(radiance: float) -> None:
    """Set what strands that other strands see give back, for all that are built: ``radiance`` is the scene's mean one."""
    for material in bpy.data.materials:
        node = material.node_tree.nodes.get(GLOW) if material.node_tree else None
        if node is not None:
            node.inputs["Strength"].default_value = DEEP * radiance


def build_strands(strands: Strands, aov: str | None = None) -> Any:
    """A Blender object of exactly the points and radii of ``strands``. ``aov``: a value pass that it sets to 1."""
    count, k = strands.points.shape[:2]
    curves = bpy.data.hair_curves.new(strands.name)
    curves.add_curves([k] * count)
    curves.attributes["position"].data.foreach_set("vector", np.ascontiguousarray(strands.points, np.float32).ravel())
    radius = curves.attributes.get("radius") or curves.attributes.new("radius", "FLOAT", "POINT")
    radius.data.foreach_set("value", np.ascontiguousarray(strands.radius, np.float32).ravel())
    # Of a curve and not of its points: Cycles then keeps one colour a strand.
    rgba = np.ones((count, 4), np.float32)
    rgba[:, :3] = strands.color
    curves.attributes.new(COLOR, "FLOAT_COLOR", "CURVE").data.foreach_set("color", rgba.ravel())
    curves.materials.append(_material(strands, aov))
    return bpy.data.objects.new(strands.name, curves)


def _material(strands: Strands, aov: str | None) -> Any:
    made = bpy.data.materials.new(strands.name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    nodes.clear()
    # A plain surface on round strands shows hair's streak of light too, at two thirds of the time of the hair shader's paths
    # through translucent strands. A path that goes on to a second strand ends there, in the light that fills the scene:
    # followed further, hair alone took three times as long as all the rest.
    output, shader = nodes.new("ShaderNodeOutputMaterial"), nodes.new("ShaderNodeBsdfPrincipled")
    color = nodes.new("ShaderNodeAttribute")
    color.attribute_name = COLOR
    links.new(color.outputs["Color"], shader.inputs["Base Color"])
    shader.inputs["Roughness"].default_value = strands.roughness
    lit, path, mix = (nodes.new(f"ShaderNode{n}") for n in ("Emission", "LightPath", "MixShader"))
    lit.name = GLOW
    links.new(color.outputs["Color"], lit.inputs["Color"])
    links.new(path.outputs["Is Camera Ray"], mix.inputs["Fac"])
    links.new(lit.outputs["Emission"], mix.inputs[1])
    links.new(shader.outputs["BSDF"], mix.inputs[2])
    links.new(mix.outputs["Shader"], output.inputs["Surface"])
    # Strands are no lamps: nobody aims a ray at them.
    made.cycles.emission_sampling = "NONE"
    if aov is not None:
        mark = nodes.new("ShaderNodeOutputAOV")
        mark.aov_name = aov
        mark.inputs["Value"].default_value = 1.0
    return made
