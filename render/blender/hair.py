"""render.scene.Strands -> Blender hair curves with a Principled Hair material."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from render.scene import Strands

COLOR = "strand_color"


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
    output, shader = nodes.new("ShaderNodeOutputMaterial"), nodes.new("ShaderNodeBsdfHairPrincipled")
    shader.model = "CHIANG"
    shader.parametrization = "COLOR"
    color = nodes.new("ShaderNodeAttribute")
    color.attribute_name = COLOR
    links.new(color.outputs["Color"], shader.inputs["Color"])
    shader.inputs["Roughness"].default_value = strands.roughness
    links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    if aov is not None:
        mark = nodes.new("ShaderNodeOutputAOV")
        mark.aov_name = aov
        mark.inputs["Value"].default_value = 1.0
    return made
