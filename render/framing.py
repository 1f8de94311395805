"""A person, a framing and the camera prior -> a camera; every draw comes from the generator it is given."""

from __future__ import annotations

import numpy as np

from manifests.frames import camera_centre, look_at, to_camera
from manifests.job import CameraPrior
from render.scene import Camera, PersonMesh

FULL_FRAME_MM = 36.0
# A face is looked at from the front more often than a body is: azimuths of the face framing are halved.
FACE_AZIMUTH = 0.5


def subject(person: PersonMesh, framing: str) -> np.ndarray:
    """(M, 3) float64 world metres: the vertices that a framing must show.

    face: above the chin, with a little neck; upper: above the hips; full: everyone's all.
    """
    vertices = person.mesh.vertices.astype(np.float64)
    if framing == "full":
        return vertices
    top, chin, hips = (person.landmarks[k] for k in ("head_top", "chin", "hips"))
    if framing == "upper":
        return vertices[vertices[:, 2] > hips[2]]
    head = top[2] - chin[2]
    near = np.linalg.norm(vertices[:, :2] - ((top + chin) / 2)[:2], axis=1) < 0.9 * head
    return vertices[(vertices[:, 2] > chin[2] - 0.25 * head) & near]


def draw_camera(
    person: PersonMesh, framing: str, prior: CameraPrior, width: int, height: int, rng: np.random.Generator
) -> Camera:
    """A camera that shows ``framing`` of ``person`` (who faces -y): azimuth 0 looks at the face, 90 from the
    person's left.
    """
    azimuth = np.radians(rng.uniform(*prior.azimuth_deg)) * (FACE_AZIMUTH if framing == "face" else 1.0)
    elevation = np.radians(rng.uniform(*prior.elevation_deg))
    roll = np.radians(rng.normal(0, prior.roll_deg))
    focal_px = rng.uniform(*prior.focal_mm) / FULL_FRAME_MM * max(width, height)
    margin = rng.uniform(*prior.margin)
    shift = rng.uniform(-prior.off_centre, prior.off_centre, 2) * (width, height)
    points = subject(person, framing)
    target = (points.min(0) + points.max(0)) / 2
    K = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    direction = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    distance = 3.0
    # The distance at which the subject fills 1 / margin of the frame: a fixed point, since perspective changes with it.
    for _ in range(6):
        pose = look_at(target + direction * distance, target, roll)
        points_cam = to_camera(points, pose)
        reach = np.abs(points_cam[:, :2]) / np.maximum(points_cam[:, 2:], 0.05)
        fill = (reach * focal_px * margin / (width / 2, height / 2)).max()
        distance = max(distance * fill, 0.35 + float(np.abs(points_cam[:, 2] - distance).max()))
    eye = target + direction * distance
    pose = look_at(eye, target, roll)
    offset = np.array([*(shift / focal_px), 0.0]) * distance
    pose[:3, 3] += offset
    assert np.isfinite(camera_centre(pose)).all()
    return Camera(K, pose, width, height, framing)
