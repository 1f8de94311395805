"""World keypoints + a frame's truth -> 2D keypoints with visibility 0 (absent), 1 (occluded), 2 (visible), by shadow
rays.

Legend: J keypoints.
"""

from __future__ import annotations

import numpy as np

from manifests.frames import project
from render.groundtruth.embree import Caster
from render.scene import Camera, PersonMesh

# How deep a joint may lie behind the skin that shows it, metres: half the limb's thickness and clothes. COCO-17 order:
# nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles. Anything nearer to the camera is something else.
DEPTH_BEHIND_SKIN_M = {
    "coco17": np.array(
        [0.05, 0.05, 0.05, 0.06, 0.06, *[0.14] * 2, *[0.09] * 2, *[0.08] * 2, *[0.20] * 2, *[0.13] * 2, *[0.11] * 2]
    )
}
DEFAULT_DEPTH_M = 0.12


def seen(person: PersonMesh, index: int, caster: Caster, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(J, 2) float64 px and (J,) uint8 visibility of one person's keypoints.

    ``index``: the person's position in the caster. 2 when the first surface on the ray to the keypoint is the
    person's own
    and no further in front of it than a limb is thick; 1 when something else comes first; 0 outside the picture.
    """
    assert person.keypoints is not None
    uv, z = project(person.keypoints, camera.K, camera.world_to_camera)
    limits = DEPTH_BEHIND_SKIN_M.get(person.keypoint_set or "", np.full(len(uv), DEFAULT_DEPTH_M))
    inside = (z > 0.01) & (uv >= 0).all(axis=1) & (uv[:, 0] < camera.width) & (uv[:, 1] < camera.height)
    visibility = np.zeros(len(uv), np.uint8)
    rays = np.concatenate([uv, np.ones((len(uv), 1))], axis=1) @ np.linalg.inv(camera.K).T
    face, hit_z, _ = caster.first_hits(rays[inside])
    own = (face >= 0) & (caster.person[np.maximum(face, 0)] == index)
    length = np.linalg.norm(rays[inside], axis=1)
    near = (z[inside] - hit_z) * length <= limits[inside]
    visibility[inside] = np.where((face < 0) | (own & near), 2, 1)
    return uv, visibility
