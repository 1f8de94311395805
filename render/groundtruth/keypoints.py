"""World keypoints + a frame's truth -> 2D keypoints with visibility 0 (absent), 1 (occluded), 2 (visible), by shadow
rays.

Legend: J keypoints.
"""

from __future__ import annotations

import numpy as np

from manifests.frames import project
from manifests.keypoints import SETS
from render.groundtruth.embree import Caster
from render.scene import Camera, PersonMesh

FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
# A point on the skin is seen when nothing lies farther before it than this: a garment or a lock of hair hides it.
SURFACE_M = 0.003
# How deep a joint may lie behind the skin that shows it: half the limb's thickness and clothes. Feet count as joints:
# their points are marked on shoes; so do tips of fingers, seen from the nail's side too. Eyes and ears of COCO are means
# of whole organs. Anything nearer is something else.
DEEP_M = {
    "nose": 0.05,
    "neck": 0.12,
    **{
        f"{side}_{name}": depth
        for side in ("left", "right")
        for name, depth in (
            *(("eye", 0.05), ("ear", 0.06), ("shoulder", 0.14), ("elbow", 0.09), ("wrist", 0.08), ("hip", 0.20)),
            *(("knee", 0.13), ("ankle", 0.11), ("big_toe", 0.05), ("small_toe", 0.05), ("heel", 0.06)),
            *(("hand_root", 0.08), ("thumb1", 0.04), ("thumb_third_joint", 0.04)),
            *((f"{finger}{end}", 0.03) for finger in FINGERS[1:] for end in ("1", "_third_joint")),
            *((f"{finger}{i}", 0.02) for finger in FINGERS for i in (2, 3)),
            *((f"{finger}4", 0.015) for finger in FINGERS),
        )
    },
}
DEFAULT_DEPTH_M = 0.12


def depths(keypoint_set: str | None, count: int) -> np.ndarray:
    """(J,) float64 metres: how far behind the body's own surface each point of a set may lie and still be seen."""
    if keypoint_set not in SETS:
        return np.full(count, DEFAULT_DEPTH_M)
    return np.array([DEEP_M.get(name, SURFACE_M) for name in SETS[keypoint_set].names])


def seen(person: PersonMesh, index: int, caster: Caster, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(J, 2) float64 px and (J,) uint8 visibility of one person's keypoints.

    ``index``: the person's position in the caster. 2 when the first surface on the ray to the keypoint is the person's
    own and no further in front of it than ``depths`` allows; 1 when something else comes first; 0 outside the picture
    and for points that are absent (NaN).
    """
    assert person.keypoints is not None
    uv, z = project(person.keypoints, camera.K, camera.world_to_camera)
    limits = depths(person.keypoint_set, len(uv))
    inside = (z > 0.01) & (uv >= 0).all(axis=1) & (uv[:, 0] < camera.width) & (uv[:, 1] < camera.height)
    visibility = np.zeros(len(uv), np.uint8)
    rays = np.concatenate([uv, np.ones((len(uv), 1))], axis=1) @ np.linalg.inv(camera.K).T
    face, hit_z, _ = caster.first_hits(rays[inside])
    own = (face >= 0) & (caster.person[np.maximum(face, 0)] == index)
    length = np.linalg.norm(rays[inside], axis=1)
    near = (z[inside] - hit_z) * length <= limits[inside]
    visibility[inside] = np.where((face < 0) | (own & near), 2, 1)
    return uv, visibility
