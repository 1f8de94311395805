"""People and a camera -> the same people with textures no finer than the frame can show.

A 2048 px texture costs 0.1 s to hand to Blender, and a scan holds twenty; a full figure in a 1024 px frame shows 512 of it.
Ground truth is cast against the originals. Legend: F triangles.
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from manifests.frames import to_camera
from render.scene import Camera, Material, Mesh, PersonMesh

# Texels that a pixel keeps at least, along a side, where the texture is shown finest.
TEXELS_PER_PX = 1.5
# Of the pixels a material covers, this share may get fewer.
FINEST = 0.05
# Vertices nearer than this are strays of whom the camera stands close to, and decide nothing.
NEAREST_M = 0.05


def fitted(people: list[PersonMesh], camera: Camera) -> tuple[tuple[int, ...], ...]:
    """How often each person's materials, in order, may be halved for ``camera``."""
    return tuple(tuple(_halvings(p.mesh, camera)) for p in people)


def halved(people: list[PersonMesh], times: tuple[tuple[int, ...], ...]) -> list[PersonMesh]:
    """``people`` with each material's textures halved so often; what is cut out by its texture keeps that one whole, so
    that both engines cut alike.
    """
    made = []
    for person, counts in zip(people, times):
        materials = [_smaller(m, n) for m, n in zip(person.mesh.materials, counts)]
        made.append(dataclasses.replace(person, mesh=dataclasses.replace(person.mesh, materials=materials)))
    return made


def _smaller(material: Material, times: int) -> Material:
    if times == 0:
        return material
    keep = material.alpha_mode == "cutout"
    return dataclasses.replace(
        material,
        base_color_texture=material.base_color_texture if keep else _half(material.base_color_texture, times),
        normal_texture=_half(material.normal_texture, times),
        roughness_texture=_half(material.roughness_texture, times),
    )


def _half(texture: np.ndarray | None, times: int) -> np.ndarray | None:
    return None if texture is None else _resized(_Same(texture), times)


class _Same:
    """An array as a key: the same object, not equal numbers."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.array is self.array


# About what four scans hold; the key keeps its array alive, so that an id cannot come back.
@functools.lru_cache(maxsize=64)
def _resized(texture: _Same, times: int) -> np.ndarray:
    height, width = texture.array.shape[:2]
    size = (max(1, width >> times), max(1, height >> times))
    return cv2.resize(texture.array, size, interpolation=cv2.INTER_AREA)


def _halvings(mesh: Mesh, camera: Camera) -> list[int]:
    """Per material, from the pixels and texels that its triangles cover in the frame."""
    if mesh.uv is None:
        return [0] * len(mesh.materials)
    points = to_camera(mesh.vertices.astype(np.float64), camera.world_to_camera)
    px = (points @ camera.K.T)[:, :2] / np.maximum(points[:, 2:], NEAREST_M)
    ahead, corners = points[:, 2] > NEAREST_M, px[mesh.faces]
    # A triangle larger than the frame shows without a corner in it.
    overlaps = (corners.max(axis=1) >= 0) & (corners.min(axis=1) < [camera.width, camera.height])
    shown = ahead[mesh.faces].all(axis=1) & overlaps.all(axis=1)
    # Of one that reaches past the camera it is not known where it shows.
    unsure = ahead[mesh.faces].any(axis=1) & ~ahead[mesh.faces].all(axis=1)
    pixels, share = _area(corners), _area(mesh.uv.astype(np.float64))
    found = []
    for k, material in enumerate(mesh.materials):
        mine = shown & (mesh.material_index == k) & (pixels > 0) & (share > 0)
        textures = [t for t in (material.base_color_texture, material.normal_texture) if t is not None]
        if not mine.any() or not textures:
            found.append(0 if mine.any() or (unsure & (mesh.material_index == k)).any() else 4)
            continue
        # The coarsest of a material's textures decides for all.
        texels = min(t.shape[0] * t.shape[1] for t in textures)
        density = np.sqrt(share[mine] * texels / pixels[mine])
        order = np.argsort(density)
        covered = np.cumsum(pixels[mine][order])
        at = density[order][np.searchsorted(covered, FINEST * covered[-1])]
        found.append(max(0, int(np.log2(max(at / TEXELS_PER_PX, 1)))))
    return found


def _area(triangles: np.ndarray) -> np.ndarray:
    """(F,) of (F, 3, 2)."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
