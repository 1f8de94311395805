"""A person -> a GLB file that any renderer opens: metres, y up, facing +z, one mesh a material, each face's class with it.

The class stands in the vertex attribute `_PART` (Sapiens2's ids; faces share no vertex across a border), which
maquette's own readers take back. Legend: V vertices, F triangles. World frame: z up, facing -y, metres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from manifests.frames import Z_UP_FROM_Y_UP
from manifests.parts import CLASSES, UNLABELLED
from render.scene import Material, Mesh

ATTRIBUTE = "_PART"


def y_up(points: np.ndarray) -> np.ndarray:
    """(..., 3) world points or directions in glTF's axes."""
    return points @ Z_UP_FROM_Y_UP


def classes(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) uint8 class of each face from the attribute (V,) of its vertices; 255 where they differ or name no class."""
    corners = np.asarray(values, np.float64)[faces]
    known = (corners == corners[:, :1]).all(axis=1) & np.isin(corners[:, 0], range(len(CLASSES)))
    return np.where(known, corners[:, 0], UNLABELLED).astype(np.uint8)


def glb(mesh: Mesh, name: str, rights: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """The file's bytes, and (F,) int the faces of ``mesh`` in the order of the file."""
    import trimesh

    scene, order = trimesh.Scene(), []
    labels = mesh.part if mesh.part is not None else np.full(len(mesh.faces), UNLABELLED, np.uint8)
    for k, material in enumerate(mesh.materials):
        faces = np.flatnonzero(mesh.material_index == k)
        if not len(faces):
            continue
        faces = faces[np.argsort(labels[faces], kind="stable")]
        order.append(faces)
        # glTF keeps attributes by vertex: corners that differ in any become vertices of their own.
        corners = np.column_stack(
            [
                mesh.vertices[mesh.faces[faces]].reshape(-1, 3),
                mesh.corner_normals[faces].reshape(-1, 3),
                np.zeros((3 * len(faces), 2)) if mesh.uv is None else mesh.uv[faces].reshape(-1, 2),
                np.repeat(labels[faces], 3),
            ]
        ).astype(np.float32)
        kept, corner = np.unique(corners, axis=0, return_inverse=True)
        piece = trimesh.Trimesh(
            vertices=y_up(kept[:, :3].astype(np.float64)),
            faces=corner.reshape(-1, 3),
            vertex_normals=y_up(kept[:, 3:6].astype(np.float64)),
            vertex_attributes={ATTRIBUTE: kept[:, 8]},
            visual=trimesh.visual.TextureVisuals(uv=kept[:, 6:8], material=_pbr(material)),
            process=False,
        )
        scene.add_geometry(piece, node_name=material.name, geom_name=material.name)
    materials = {m.name: m for m in mesh.materials}

    def finish(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"copyright": f"{rights['licence']}, {rights['source']}", "generator": "maquette people make"}
        tree["scenes"][0]["name"] = name
        for told in tree.get("materials", []):
            surface = materials[told["name"]]
            # trimesh keeps factors in 8 bits, too coarse for dark skin and cloth.
            factor = (1.0, 1.0, 1.0) if surface.base_color_texture is not None else surface.base_color
            told["pbrMetallicRoughness"]["baseColorFactor"] = [float(c) for c in (*factor, surface.alpha)]

    data = trimesh.exchange.gltf.export_glb(scene, include_normals=True, tree_postprocessor=finish)
    return data, np.concatenate(order)


def _pbr(material: Material) -> Any:
    import trimesh

    def picture(pixels: np.ndarray | None, mode: str) -> Any:
        return None if pixels is None else Image.fromarray(pixels).convert(mode)

    cutout = {"opaque": None, "cutout": "MASK", "blend": "BLEND"}[material.alpha_mode]
    return trimesh.visual.material.PBRMaterial(
        name=material.name,
        baseColorFactor=(*material.base_color, material.alpha),
        baseColorTexture=picture(material.base_color_texture, "RGBA" if cutout else "RGB"),
        normalTexture=picture(material.normal_texture, "RGB"),
        # glTF reads roughness from green.
        metallicRoughnessTexture=picture(material.roughness_texture, "RGB"),
        metallicFactor=material.metallic,
        roughnessFactor=material.roughness if material.roughness_texture is None else 1.0,
        alphaMode=cutout,
        alphaCutoff=material.alpha_threshold if cutout == "MASK" else None,
        doubleSided=True,
    )
