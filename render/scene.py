"""People, camera and light as plain arrays: what both engines, Blender and Embree, are handed. No bpy here.

Legend: V vertices, F triangles, J keypoints. World frame, metres, z up (manifests/frames.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# A blended layer thinner than this shows so little that no engine counts it as a surface.
UNSEEN_ALPHA = 0.04


@dataclasses.dataclass
class Material:
    """A Principled surface. Colours are linear RGB; textures are (h, w, 4) uint8, row 0 at the top, sRGB for colour."""

    name: str
    base_color: tuple[float, float, float] = (0.8, 0.8, 0.8)
    base_color_texture: np.ndarray | None = None
    normal_texture: np.ndarray | None = None
    roughness: float = 0.6
    roughness_texture: np.ndarray | None = None
    metallic: float = 0.0
    subsurface: float = 0.0
    specular: float = 0.5
    # The mesh's corner_colors are the colour, where there is no texture.
    vertex_color: bool = False
    # "opaque"; "cutout": nothing is there where the texture's alpha is at most alpha_threshold; "blend": the picture mixes
    # by alpha, and geometry is there where texture alpha times alpha is above alpha_threshold. A blended surface without
    # a texture is not there for geometry: a cornea, a lens. A job whose `transparent` is "surface" moves both limits for
    # blends to UNSEEN_ALPHA.
    alpha_mode: str = "opaque"
    alpha: float = 1.0
    alpha_threshold: float = 0.5
    # Of a blend without a texture: above 1 it is a clear film of this index of refraction, which colours what is behind it
    # by base_color and mirrors by Fresnel's law; `alpha` is what engines without such films take.
    ior: float = 0.0
    bump: float = 0.0
    bump_scale: float = 200.0
    bump_m: float = 0.002
    # Rounded crests that run down, as the folds of what hangs, instead of round lumps.
    bump_folds: bool = False


@dataclasses.dataclass
class Mesh:
    """Triangles with per-corner attributes.

    ``vertices``: (V, 3) float32 world metres. ``faces``: (F, 3) int32. ``corner_normals``: (F, 3, 3) float32 unit,
    world.
    ``uv``: (F, 3, 2) float32 or None, v up (Blender's). ``material_index``: (F,) int32 into ``materials``.
    ``part``: (F,) uint8 Sapiens2 class per face, or None. ``corner_colors``: (F, 3, 3) float32 linear RGB, or None.

    Every triangle has two sides, whatever its file says of double-sided cloth: both engines see it from behind, and its
    normal is then turned to the camera.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    material_index: np.ndarray
    materials: list[Material]
    uv: np.ndarray | None = None
    part: np.ndarray | None = None
    corner_colors: np.ndarray | None = None


EMPTY = Mesh(
    np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3, 3), np.float32), np.zeros(0, np.int32), []
)


@dataclasses.dataclass(eq=False)
class Strands:
    """A head's hair, a beard or a pair of brows: N centre lines of K points with a radius, which both engines draw as the
    same round Catmull-Rom curves. Strands stand in no order: the first n are a fair sample of all.

    ``points``: (N, K, 3) float32 world metres. ``radius``: (N, K) float32 metres, half a strand's thickness. ``color``:
    (N, 3) float32 linear RGB. ``part``: Sapiens2 class. ``proxy``: a smooth surface
    round the strands' volume, whose normals are theirs (DAViD, A.1); it stands for them where strands cannot be.
    """

    name: str
    points: np.ndarray
    radius: np.ndarray
    color: np.ndarray
    part: int
    proxy: Mesh
    roughness: float = 0.3


@dataclasses.dataclass(frozen=True)
class Pose:
    """How a rigged file is to stand: a frame of a clip, then bones turned by degrees about their own x, y, z axes.

    The empty pose is the file as its importer leaves it, at frame 1.
    """

    clip: str | None = None
    frame: int = 1
    bones: tuple[tuple[str, tuple[float, float, float]], ...] = ()


@dataclasses.dataclass
class Scan:
    """One scan file as imported: triangles of all visible geometry, posed, and what was found on the way.

    ``mesh``: z up and metres where the file declares them, else the file's own axes and numbers. ``unit_m``: metres that
    the file calls one unit, already applied; None where it says nothing of unit or axis. ``helpers``: names of shapes
    left out. ``missing_colour``, ``missing_other``: files named and not to be found: of base colour, of all else.
    ``found``: textures found by file name elsewhere in the asset's folder. ``bare``: parts without a material, drawn
    grey. ``bones``, ``clips``: names. ``morphs``: count. ``joints``: bone -> [head, tail] as posed, each [x, y, z] in the
    mesh's numbers. ``parts``: [name, first vertex, vertices] of every part of the mesh, in its order. The last two are
    empty where the reader does not pose.
    """

    mesh: Mesh
    unit_m: float | None = None
    helpers: list[str] = dataclasses.field(default_factory=list)
    missing_colour: list[str] = dataclasses.field(default_factory=list)
    missing_other: list[str] = dataclasses.field(default_factory=list)
    found: list[str] = dataclasses.field(default_factory=list)
    bare: list[str] = dataclasses.field(default_factory=list)
    bones: list[str] = dataclasses.field(default_factory=list)
    clips: list[str] = dataclasses.field(default_factory=list)
    morphs: int = 0
    joints: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    parts: list[list[Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class PersonMesh:
    """One posed, dressed person standing at its place in the world.

    ``keypoints``: (J, 3) float64 world metres or None; ``keypoint_set`` names them ("coco17").
    ``landmarks``: world metres of named points for framing: "head_top", "chin", "hips", "feet" -> (3,) float64.
    ``rights``: dict with the keys of sample.RIGHTS. ``strands``: hair that is no part of ``mesh``.
    ``phenotype``: who it is, the same in all samples; ``pose``: what it does in this one, where that is known.
    """

    identity_id: str
    mesh: Mesh
    landmarks: dict[str, np.ndarray]
    rights: dict[str, Any]
    keypoints: np.ndarray | None = None
    keypoint_set: str | None = None
    bones: dict[str, Any] | None = None
    phenotype: dict[str, Any] | None = None
    pose: dict[str, Any] | None = None
    strands: list[Strands] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Camera:
    """``K``: (3, 3) float64 px. ``world_to_camera``: (4, 4) float64 (OpenCV). ``framing``: face, upper or full.
    ``response``: of `render.response`.
    """

    K: np.ndarray
    world_to_camera: np.ndarray
    width: int
    height: int
    framing: str
    response: str = "srgb"


@dataclasses.dataclass
class Lamp:
    """``kind``: sun or area. ``position``: (3,) world metres (area only). ``direction``: (3,) unit, the way its light
    goes. ``strength``: W/m2 (sun) or W (area). ``size``: apparent diameter in degrees (sun) or side in metres (area).
    """

    kind: str
    position: np.ndarray
    direction: np.ndarray
    strength: float
    size: float


@dataclasses.dataclass
class Lighting:
    """An equirectangular environment. ``path``: EXR or HDR file. ``yaw_deg`` turns it counter-clockwise about z.

    ``balance``: linear RGB that a camera's white balance multiplies all of its light by, lamps' too; None for none.
    """

    environment: str
    path: str
    yaw_deg: float
    strength: float
    rights: dict[str, Any]
    lamps: list[Lamp] = dataclasses.field(default_factory=list)
    balance: tuple[float, float, float] | None = None

    @property
    def gains(self) -> tuple[float, float, float]:
        """``balance`` as factors."""
        return self.balance or (1.0, 1.0, 1.0)


@dataclasses.dataclass
class Backdrop:
    """A photograph behind the people, at the frame's size. ``picture``: (H, W, 3) uint8 sRGB."""

    name: str
    picture: np.ndarray
    rights: dict[str, Any]


@dataclasses.dataclass
class Scene:
    """Everything a frame shows. ``seed`` (31 bit) is Cycles' sampling seed. ``backdrop`` None = the environment is seen.

    ``shadows``: the ground z = 0 shows the shadows that people cast, and nothing else.
    """

    people: list[PersonMesh]
    camera: Camera
    lighting: Lighting
    seed: int
    backdrop: Backdrop | None = None
    shadows: bool = False
