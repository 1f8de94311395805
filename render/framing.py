"""People, a framing and the camera prior -> a camera; every draw comes from the generator it is given."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.frames import camera_centre, camera_rays, look_at, to_camera
from manifests.priors import FACE_AZIMUTH, FULL_FRAME_MM, CameraPrior
from render.groundtruth.embree import Caster
from render.scene import Camera, PersonMesh
from render.strands import solid

# Someone who is to stand before the subject does so this far beside the line of sight: half a body's width.
BESIDE_DEG = (8.0, 32.0)
# A head this far above the hips is an upright person's, in metres.
UPRIGHT_M = 0.15
# How much of the subject goes over the edge of a truncated sample, as a share of its size.
CUT = (0.15, 0.45)
# What still counts as occluded when the job asks for it.
OCCLUDED_BELOW = 0.9
ATTEMPTS = 16
NEAREST_M = 0.25
# Visibility while a camera is being looked for is judged on this many pixels of the longer side.
COARSE_PX = 64


def subject(person: PersonMesh, framing: str) -> np.ndarray:
    """(M, 3) float64 world metres: the vertices that a framing must show.

    face: above the chin, with a little neck; upper: above the hips; full: everyone's all.
    """
    vertices = solid(person).mesh.vertices.astype(np.float64)
    if framing == "full":
        return vertices
    top, chin, hips = (person.landmarks[k] for k in ("head_top", "chin", "hips"))
    if framing == "upper" and top[2] - hips[2] > UPRIGHT_M:
        return vertices[vertices[:, 2] > hips[2]]
    if framing == "upper":
        # On all fours or lying, what is above the hips is not the upper body.
        return vertices
    head = top[2] - chin[2]
    near = np.linalg.norm(vertices[:, :2] - ((top + chin) / 2)[:2], axis=1) < 0.9 * head
    # Hands above the head are not part of the face.
    return vertices[(vertices[:, 2] > chin[2] - 0.25 * head) & (vertices[:, 2] < top[2] + 0.1 * head) & near]


def draw_camera(
    people: list[PersonMesh], framing: str, prior: CameraPrior, width: int, height: int, rng: np.random.Generator
) -> Camera | None:
    """A camera that shows ``framing`` of everyone (face: of the first person), azimuth 0 looking at the first one's face
    and 90 from its left. Occlusion is asked of upper and full framings: a face is too near the lens for company.

    Cameras are drawn until the subject is visible as the prior asks and nobody stands in the lens; None when none of
    ATTEMPTS is so.
    """
    truncated = rng.random() < prior.truncated
    occluded = rng.random() < prior.occluded and len(people) > 1 and framing != "face"
    shown = people if framing != "face" and not occluded else people[:1]
    points = np.concatenate([subject(p, framing) for p in shown])
    for _ in range(ATTEMPTS):
        azimuth = np.radians(rng.uniform(*prior.azimuth_deg)) * (FACE_AZIMUTH if framing == "face" else 1.0)
        if occluded:
            beside = np.radians(rng.uniform(*BESIDE_DEG)) * rng.choice([-1.0, 1.0])
            azimuth = _towards(people[0], people[rng.integers(1, len(people))]) + beside
        camera = _aim(points, azimuth, framing, prior, width, height, rng)
        if truncated:
            camera = _cut(camera, subject(people[0], framing), rng)
        if len(people) == 1 and not truncated:
            return camera
        share = visible_share(people, camera)
        if share >= prior.min_visible and (not occluded or share < OCCLUDED_BELOW):
            return camera
    return None


def visible_share(people: list[PersonMesh], camera: Camera) -> float:
    """Share of the first person's pixels inside the frame that nobody hides, on a coarse grid; 0 when the camera stands
    in somebody or the subject is out of frame.
    """
    eye = camera_centre(camera.world_to_camera)
    if any(np.linalg.norm(p.mesh.vertices - eye, axis=1).min() < NEAREST_M for p in people):
        return 0.0
    people = [solid(p) for p in people]
    scale = COARSE_PX / max(camera.width, camera.height)
    size = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    K = np.diag([size[0] / camera.width, size[1] / camera.height, 1.0]) @ camera.K
    rays = camera_rays(K, *size).reshape(-1, 3)
    alone = Caster(people[:1], camera.world_to_camera).first_hits(rays)[0] >= 0
    caster = Caster(people, camera.world_to_camera)
    face = caster.first_hits(rays)[0]
    shown = (face >= 0) & (caster.person[np.maximum(face, 0)] == 0)
    return float(shown.sum() / max(alone.sum(), 1))


def _aim(
    points: np.ndarray,
    azimuth: float,
    framing: str,
    prior: CameraPrior,
    width: int,
    height: int,
    rng: np.random.Generator,
) -> Camera:
    """A camera from ``azimuth`` (radians) that just holds ``points`` (M, 3) with a drawn margin."""
    elevation = np.radians(rng.uniform(*prior.elevation_deg))
    roll = np.radians(rng.normal(0, prior.roll_deg))
    focal_px = rng.uniform(*prior.focal_mm) / FULL_FRAME_MM * max(width, height)
    margin = rng.uniform(*prior.margin)
    shift = rng.uniform(-prior.off_centre, prior.off_centre, 2) * (width, height)
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
    pose = look_at(target + direction * distance, target, roll)
    uv = _pixels(points, pose, K)
    # A drawn shift never pushes the subject out: that is what `truncated` is for.
    room = np.minimum(-uv.min(0), 0), np.maximum((width, height) - uv.max(0), 0)
    shift = np.clip(shift, 0.8 * room[0], 0.8 * room[1])
    return Camera(K, _shifted(pose, shift / focal_px * distance), width, height, framing, prior.response)


def _cut(camera: Camera, points: np.ndarray, rng: np.random.Generator) -> Camera:
    """``camera`` moved sideways until part of ``points`` (M, 3) is beyond one edge; the bottom edge half the time, as in
    photographs.
    """
    depth = float(np.median(to_camera(points, camera.world_to_camera)[:, 2]))
    uv = _pixels(points, camera.world_to_camera, camera.K)
    low, high = uv.min(0), uv.max(0)
    share = rng.uniform(*CUT)
    over = share * (high - low)
    axis, far = ((0, False), (0, True), (1, True), (1, True), (1, False))[rng.integers(5)]
    shift = np.zeros(2)
    edge = (camera.width, camera.height)[axis]
    shift[axis] = edge + over[axis] - high[axis] if far else -over[axis] - low[axis]
    return dataclasses.replace(
        camera, world_to_camera=_shifted(camera.world_to_camera, shift / np.diag(camera.K)[:2] * depth)
    )


def _pixels(points: np.ndarray, pose: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(M, 2) px of world ``points`` (M, 3); what is behind the camera counts as right before it."""
    seen = to_camera(points, pose)
    return seen[:, :2] / np.maximum(seen[:, 2:], 0.05) * np.diag(K)[:2] + K[:2, 2]


def _shifted(pose: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """``pose`` (4, 4) with everything it sees moved by ``offset`` (2,) metres right and down."""
    pose = pose.copy()
    pose[:2, 3] += offset
    return pose


def _towards(one: PersonMesh, other: PersonMesh) -> float:
    """Azimuth (radians) of ``other`` as seen from ``one``: the azimuth of a camera that has it in front."""
    x, y = (other.landmarks["hips"] - one.landmarks["hips"])[:2]
    return float(np.arctan2(x, -y))
