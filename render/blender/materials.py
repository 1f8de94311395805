"""render.scene.Material -> a Blender node material: Principled surface, image textures from arrays, cutout, bump."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from render.scene import Material

# The colour attribute that build.build_person writes. Not "color": Cycles has that name for something else, and gives black.
VERTEX_COLORS = "person_color"
# Folds of cloth: crests between broad hollows, bent, so much longer down than across, so steep and so round.
FOLDS, DOWN, WIDE, ROUND = {"Detail": 1.6, "Roughness": 0.45, "Distortion": 0.35}, 0.4, 7.0, 0.25


def build_material(material: Material, aov: str | None = None) -> Any:
    """A Blender material; textures become packed images, row 0 at the bottom as Blender keeps them. ``aov``: a value
    pass that it sets to 1.
    """
    made = bpy.data.materials.new(material.name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    nodes.clear()
    output, shader = nodes.new("ShaderNodeOutputMaterial"), nodes.new("ShaderNodeBsdfPrincipled")
    inputs = shader.inputs
    inputs["Base Color"].default_value = (*material.base_color, 1.0)
    inputs["Roughness"].default_value = material.roughness
    inputs["Metallic"].default_value = material.metallic
    inputs["Specular IOR Level"].default_value = material.specular
    if material.subsurface > 0:
        inputs["Subsurface Weight"].default_value = material.subsurface
        # Mean free paths of skin, red reaching deepest; metres (Jensen et al. 2001, skin 1).
        inputs["Subsurface Radius"].default_value = (0.0037, 0.0014, 0.0007)
        inputs["Subsurface Scale"].default_value = 1.0
    surface = shader.outputs["BSDF"]
    if material.base_color_texture is not None:
        colour = _texture(nodes, f"{material.name} colour", material.base_color_texture, "sRGB")
        links.new(colour.outputs["Color"], inputs["Base Color"])
        texture_alpha = colour.outputs["Alpha"]
    else:
        texture_alpha = None
        if material.vertex_color:
            colours = nodes.new("ShaderNodeVertexColor")
            colours.layer_name = VERTEX_COLORS
            links.new(colours.outputs["Color"], inputs["Base Color"])
    if material.alpha_mode == "blend" and material.ior > 1:
        surface = _film(nodes, links, material)
    elif material.alpha_mode != "opaque":
        surface = _see_through(nodes, links, material, texture_alpha, surface)
    if material.roughness_texture is not None:
        rough = _texture(nodes, f"{material.name} roughness", material.roughness_texture, "Non-Color")
        links.new(rough.outputs["Color"], inputs["Roughness"])
    if material.normal_texture is not None:
        image = _texture(nodes, f"{material.name} normal", material.normal_texture, "Non-Color")
        normal_map = nodes.new("ShaderNodeNormalMap")
        links.new(image.outputs["Color"], normal_map.inputs["Color"])
        links.new(normal_map.outputs["Normal"], inputs["Normal"])
    if material.bump > 0:
        noise, bump = nodes.new("ShaderNodeTexNoise"), nodes.new("ShaderNodeBump")
        coordinates = nodes.new("ShaderNodeTexCoord")
        noise.inputs["Scale"].default_value = material.bump_scale
        bump.inputs["Strength"].default_value = material.bump
        bump.inputs["Distance"].default_value = material.bump_m
        vector = coordinates.outputs["Object"]
        if material.bump_folds:
            for name, value in FOLDS.items():
                noise.inputs[name].default_value = value
            along = nodes.new("ShaderNodeMapping")
            along.inputs["Scale"].default_value = (1.0, 1.0, DOWN)
            links.new(vector, along.inputs["Vector"])
            vector = along.outputs["Vector"]
        links.new(vector, noise.inputs["Vector"])
        height = noise.outputs["Fac"]
        if material.bump_folds:
            height = _crests(nodes, links, height)
        links.new(height, bump.inputs["Height"])
        if material.normal_texture is not None:
            links.new(normal_map.outputs["Normal"], bump.inputs["Normal"])
        links.new(bump.outputs["Normal"], inputs["Normal"])
    links.new(surface, output.inputs["Surface"])
    if aov is not None:
        mark = nodes.new("ShaderNodeOutputAOV")
        mark.aov_name = aov
        mark.inputs["Value"].default_value = 1.0
    return made


def _crests(nodes: Any, links: Any, value: Any) -> Any:
    """-sqrt(n^2 + ROUND^2) of noise round 0: rounded crests where it changes sign. Ridged noise has an edge there, which cloth
    has not.
    """
    for operation, by in (
        ("SUBTRACT", 0.5),
        ("MULTIPLY", WIDE),
        ("POWER", 2),
        ("ADD", ROUND**2),
        ("POWER", 0.5),
        ("MULTIPLY", -1),
    ):
        step = nodes.new("ShaderNodeMath")
        step.operation, step.inputs[1].default_value = operation, by
        links.new(value, step.inputs[0])
        value = step.outputs[0]
    return value


def _see_through(nodes: Any, links: Any, material: Material, alpha: Any, surface: Any) -> Any:
    """Mix with transparency by the texture's alpha; a cutout is cut hard, so that Cycles' data passes stay
    deterministic.
    """
    mix, clear = nodes.new("ShaderNodeMixShader"), nodes.new("ShaderNodeBsdfTransparent")
    if alpha is None:
        mix.inputs["Fac"].default_value = material.alpha
    elif material.alpha_mode == "blend" and material.alpha < 1:
        times = nodes.new("ShaderNodeMath")
        times.operation = "MULTIPLY"
        times.inputs[1].default_value = material.alpha
        links.new(alpha, times.inputs[0])
        alpha = times.outputs[0]
    elif material.alpha_mode == "cutout":
        cut = nodes.new("ShaderNodeMath")
        cut.operation = "GREATER_THAN"
        cut.inputs[1].default_value = material.alpha_threshold
        links.new(alpha, cut.inputs[0])
        alpha = cut.outputs[0]
    if alpha is not None:
        links.new(alpha, mix.inputs["Fac"])
    links.new(clear.outputs["BSDF"], mix.inputs[1])
    links.new(surface, mix.inputs[2])
    return mix.outputs["Shader"]


def _film(nodes: Any, links: Any, material: Material) -> Any:
    """A clear film: what is behind it times its colour, and a mirror's share by Fresnel's law."""
    mix, clear = nodes.new("ShaderNodeMixShader"), nodes.new("ShaderNodeBsdfTransparent")
    mirror, fresnel = nodes.new("ShaderNodeBsdfGlossy"), nodes.new("ShaderNodeFresnel")
    clear.inputs["Color"].default_value = (*material.base_color, 1.0)
    mirror.inputs["Roughness"].default_value = material.roughness
    fresnel.inputs["IOR"].default_value = material.ior
    links.new(fresnel.outputs["Fac"], mix.inputs["Fac"])
    links.new(clear.outputs["BSDF"], mix.inputs[1])
    links.new(mirror.outputs["BSDF"], mix.inputs[2])
    return mix.outputs["Shader"]


def _texture(nodes: Any, name: str, pixels: np.ndarray, colour_space: str) -> Any:
    """An image node holding ``pixels`` (h, w, 4) uint8, row 0 at the top."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new(name, width, height, alpha=True)
    image.colorspace_settings.name = colour_space
    image.alpha_mode = "CHANNEL_PACKED"
    image.pixels.foreach_set((pixels[::-1].astype(np.float32) / 255).ravel())
    image.update()
    node = nodes.new("ShaderNodeTexImage")
    node.image = image
    return node
