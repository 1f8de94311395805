"""A scene -> a quick picture through OpenGL (pyrender on EGL): the run's cameras, textures and light, without Blender.

What it leaves out: shadows, gloss, hair, bump. It is for looking at framings and scans, and never written into a
dataset. Legend: H rows, W columns, F triangles, C = 3 F corners.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.errors import InputError
from manifests.frames import opengl_from_opencv, to_camera
from render import lighting, response
from render.scene import UNSEEN_ALPHA, Camera, Material, PersonMesh, Scene
from render.strands import solid

SHADERS = Path(__file__).parent / "shaders"
# Soname -> Debian/Ubuntu package; without the last of them EGL finds no driver on a machine without a GPU.
LIBRARIES = {"libEGL.so.1": "libegl1", "libGL.so.1": "libgl1"}
PACKAGES = "libegl1 libgl1 libgl1-mesa-dri"
# A preview is about 500 px high: finer textures cost more to upload than all the rest of a view.
MAX_TEXTURE_PX = 512
NEAR_M = 0.01

# (C, 3) unit world normals -> (C, 3) linear light, in which a surface of base colour 1 shows as 1.
Light = Callable[[np.ndarray], np.ndarray]


class Raster:
    """Draws views into the process's one off-screen OpenGL context; used from one thread alone.

    Raises InputError when the machine cannot open one: it names what to install.
    """

    def __init__(self) -> None:
        self._gl, self._renderer = _open()
        # Textures of the last person drawn: uploading them again is most of a view's time.
        self._textures: dict[int, tuple[np.ndarray, Any]] = {}

    def picture(self, scene: Scene) -> np.ndarray:
        """(H, W, 3) uint8 sRGB: the people in their light, before what is behind them."""
        light = scene.lighting
        rgba, _ = self.layers(scene.people, scene.camera, lambda normals: lighting.irradiance(light, normals))
        return over(rgba, response.developed(lighting.behind(scene), scene.camera.response))

    def layers(self, people: list[PersonMesh], camera: Camera, light: Light) -> tuple[np.ndarray, np.ndarray]:
        """The people alone: (H, W, 4) uint8 sRGB, premultiplied by coverage, and (H, W) float32 planar depth in metres.

        Depth is 0 where no one is, and that of the nearest layer, blended ones included, at the pixel's centre.
        """
        scene = self._gl.Scene(bg_color=[0.0, 0.0, 0.0, 0.0])
        nearest, farthest = np.inf, NEAR_M
        kept: dict[int, tuple[np.ndarray, Any]] = {}
        for person in map(solid, people):
            # In float64 and in the camera's frame, as Embree gets it: the GPU's float32 then holds tenths of a micron.
            points = to_camera(person.mesh.vertices.astype(np.float64), camera.world_to_camera)
            nearest, farthest = min(nearest, points[:, 2].min()), max(farthest, points[:, 2].max())
            for primitive in self._primitives(person, points, light, kept, camera.world_to_camera):
                scene.add(self._gl.Mesh([primitive]))
        self._textures = kept
        K = camera.K
        lens = self._gl.IntrinsicsCamera(
            *(float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])),
            znear=max(0.9 * float(nearest), NEAR_M),
            zfar=1.1 * float(farthest) + NEAR_M,
        )
        scene.add(lens, pose=np.eye(4))
        self._renderer.viewport_width, self._renderer.viewport_height = camera.width, camera.height
        flags = self._gl.RenderFlags.FLAT | self._gl.RenderFlags.RGBA
        rgba, depth = self._renderer.render(scene, flags)
        return np.ascontiguousarray(rgba), np.ascontiguousarray(depth)

    def _primitives(
        self, person: PersonMesh, points: np.ndarray, light: Light, kept: dict[int, Any], pose: np.ndarray
    ) -> list[Any]:
        """One pyrender primitive per material in use; ``points``: (V, 3) float64 camera frame."""
        mesh = person.mesh
        corners = points[mesh.faces]
        outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        # A face seen from behind is lit on that side, as Cycles does it.
        behind = np.einsum("fc,fc->f", outward, corners[:, 0]) > 0
        normals_cam = mesh.corner_normals.astype(np.float64) @ pose[:3, :3].T
        agrees = np.einsum("fc,fkc->f", outward, normals_cam) >= 0
        normals = np.where((behind == agrees)[:, None, None], -mesh.corner_normals, mesh.corner_normals)
        shade = light(normals.reshape(-1, 3)).reshape(-1, 3, 3)
        primitives = []
        for k in np.unique(mesh.material_index):
            mine, material = mesh.material_index == k, mesh.materials[k]
            seen = shade[mine]
            if material.vertex_color and mesh.corner_colors is not None:
                # Light and colour multiply: a corner carries their product, and its material is then white.
                seen, material = (
                    seen * mesh.corner_colors[mine],
                    dataclasses.replace(material, base_color=(1.0, 1.0, 1.0)),
                )
            textured = material.base_color_texture is not None and mesh.uv is not None
            uv = mesh.uv[mine].reshape(-1, 2) if textured and mesh.uv is not None else None
            primitives.append(
                self._gl.Primitive(
                    positions=opengl_from_opencv(corners[mine].reshape(-1, 3)),
                    texcoord_0=uv,
                    color_0=np.concatenate([seen.reshape(-1, 3), np.ones((3 * mine.sum(), 1))], axis=1),
                    material=self._surface(material, kept),
                )
            )
        return primitives

    def _surface(self, material: Material, kept: dict[int, Any]) -> Any:
        """pyrender's material; see shaders/flat.frag for what its two spare factors carry."""
        pixels = material.base_color_texture
        texture = None
        if pixels is not None:
            if id(pixels) not in kept:
                kept[id(pixels)] = self._textures.get(id(pixels)) or (pixels, self._texture(pixels))
            texture = kept[id(pixels)][1]
        blended = material.alpha_mode == "blend"
        # What is not drawn writes no depth, so that what lies behind a strand card's empty part shows.
        cutoff = {"cutout": material.alpha_threshold, "blend": UNSEEN_ALPHA}.get(material.alpha_mode, 0.0)
        return self._gl.MetallicRoughnessMaterial(
            baseColorFactor=[*material.base_color, material.alpha if blended else 1.0],
            baseColorTexture=texture,
            metallicFactor=float(blended),
            roughnessFactor=cutoff,
            alphaMode="BLEND" if blended else "OPAQUE",
            doubleSided=True,
        )

    def _texture(self, pixels: np.ndarray) -> Any:
        scale = MAX_TEXTURE_PX / max(pixels.shape[:2])
        if scale < 1:
            size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return self._gl.Texture(source=np.ascontiguousarray(pixels), source_channels="RGBA")


def over(rgba: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: premultiplied ``rgba`` (H, W, 4) uint8 over ``behind``, (H, W, 3) or (3,) in 0..255."""
    clear = 1 - rgba[..., 3:].astype(np.float32) / 255
    return np.rint(np.clip(rgba[..., :3] + behind * clear, 0, 255)).astype(np.uint8)


def studio(normals: np.ndarray) -> np.ndarray:
    """A neutral ``Light`` for catalogues: a soft sky and a key from the front left. (C, 3) -> (C, 3)."""
    key = np.array([-0.5, -0.75, 0.45]) / np.linalg.norm([-0.5, -0.75, 0.45])
    level = 0.42 + 0.13 * normals[:, 2] + 0.6 * np.clip(normals @ key, 0, 1)
    return np.repeat(level[:, None], 3, axis=1)


@functools.cache
def _open() -> tuple[Any, Any]:
    """pyrender and an off-screen renderer on EGL, one per process and never closed. Raises InputError.

    pyrender closes the whole EGL display with a renderer, and with it every other context of the process.
    """
    if sys.platform != "linux":
        raise InputError(f"previews draw through EGL, which {sys.platform} lacks; use the cycles engine here")
    for soname, package in LIBRARIES.items():
        try:
            ctypes.CDLL(soname)
        except OSError:
            raise InputError(
                f"previews draw through EGL, and {soname} is missing on this machine ({package}); on Debian or Ubuntu "
                f"run `apt-get install -y {PACKAGES}`, no GPU is needed, then give the same command again"
            ) from None
    # PyOpenGL reads this once, when it is first imported.
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    try:
        import pyrender
        from OpenGL.error import Error
        from pyrender.shader_program import ShaderProgramCache
    except ImportError as error:
        raise InputError(f"previews need pyrender ({error}); install maquette[render]") from None
    try:
        renderer = pyrender.OffscreenRenderer(64, 64)
    except (Error, AssertionError, IndexError, ValueError, RuntimeError) as error:
        why = f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}".strip()
        raise InputError(
            f"previews draw through EGL, which found no driver on this machine ({why}); on Debian or Ubuntu run "
            f"`apt-get install -y {PACKAGES}`, no GPU is needed, then give the same command again"
        ) from None
    renderer._renderer._program_cache = ShaderProgramCache(str(SHADERS))
    return pyrender, renderer
