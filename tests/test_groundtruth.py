"""Ground truth against closed forms: a tilted plane, a box, a sphere under a rolled, off-centre camera; and against
Cycles.
"""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from manifests import frames
from manifests.errors import SampleRejected
from manifests.job import Verify
from render.groundtruth import embree, keypoints, verify
from render.scene import Camera, Material, Mesh, PersonMesh

W, H = 192, 256
# fx and fy differ, the principal point is far off centre, the camera is rolled by 0.4 rad.
K = np.array([[260.0, 0, 80.0], [0, 250.0, 150.0], [0, 0, 1]])
POSE = frames.look_at(np.array([0.9, -2.6, 1.7]), np.array([0.05, 0.0, 1.0]), 0.4)
CAMERA = Camera(K, POSE, W, H, "full")
R, T = POSE[:3, :3], POSE[:3, 3]


def person(mesh: trimesh.Trimesh, normals: np.ndarray | None = None, **material) -> PersonMesh:
    corner = mesh.vertex_normals[mesh.faces] if normals is None else normals
    made = Mesh(
        vertices=mesh.vertices.astype(np.float32),
        faces=mesh.faces.astype(np.int32),
        corner_normals=np.asarray(corner, np.float32),
        material_index=np.zeros(len(mesh.faces), np.int32),
        materials=[Material("m", **material)],
        uv=np.zeros((len(mesh.faces), 3, 2), np.float32),
    )
    return PersonMesh("test", made, {}, {})


def flat(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.repeat(mesh.face_normals[:, None], 3, axis=1)


def angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1)))


def rays() -> np.ndarray:
    return frames.camera_rays(K, W, H)


def test_tilted_plane_is_exact():
    normal = np.array([0.3, -0.9, 0.4])
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, [0, 0, 1.0])
    across /= np.linalg.norm(across)
    along = np.cross(normal, across)
    centre = np.array([0, 0.2, 1.0])
    corners = [centre + 30 * (a * across + b * along) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    stored = mesh.vertices.astype(np.float32).astype(np.float64)
    n_world = np.cross(stored[1] - stored[0], stored[2] - stored[0])
    n_world /= np.linalg.norm(n_world)
    n = R @ n_world
    n = n if n[2] < 0 else -n
    truth = embree.cast([person(mesh, np.broadcast_to(n_world, (2, 3, 3)))], CAMERA)
    d = rays()
    z = (n @ (R @ stored[0] + T)) / (d @ n)
    seen = (z > 0) & (truth.mask > 0)
    assert (truth.mask[(z > 0.2) & (z < 20)] == 1).all()
    near = seen & (z < 10)
    assert near.sum() > 5000
    assert np.abs(truth.depth - z)[near].max() < 1e-5
    assert angle_deg(truth.normal[near], np.broadcast_to(n, (near.sum(), 3))).max() < 0.01


def test_box_faces_edges_and_normals_are_exact():
    turn = trimesh.transformations.rotation_matrix(0.6, [0.2, 0.3, 1.0])
    mesh = trimesh.creation.box((0.5, 0.4, 0.9))
    mesh.apply_transform(turn)
    mesh.apply_translation([0, 0, 1.0])
    truth = embree.cast([person(mesh, flat(mesh))], CAMERA)
    # Slab method in the box's own frame: an answer that shares nothing with triangles.
    eye = frames.camera_centre(POSE)
    inverse = np.linalg.inv(turn)[:3, :3]
    origin = inverse @ (eye - [0, 0, 1.0])
    direction = rays() @ R @ inverse.T
    half = np.array([0.25, 0.2, 0.45])
    with np.errstate(divide="ignore"):
        low, high = (-half - origin) / direction, (half - origin) / direction
    enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
    hit = enter < leave
    assert (hit != (truth.mask > 0)).sum() <= 2
    both = hit & (truth.mask > 0)
    assert both.sum() > 2000
    assert np.abs(truth.depth - enter)[both].max() < 1e-5
    axis = np.minimum(low, high).argmax(-1)
    local = -np.sign(np.take_along_axis(direction, axis[..., None], -1)) * np.eye(3)[axis]
    expected = local @ np.linalg.inv(inverse).T @ R.T
    # On an edge two faces are right; pixels within one of it are left out.
    edge = embree.silhouette_band((axis + 1).astype(np.uint8)) | embree.silhouette_band(truth.mask)
    assert angle_deg(truth.normal, expected)[both & ~edge].max() < 0.01


def grazing(normal: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(...,) float64 degrees between the view ray and the surface normal, both (..., 3): 90 at the silhouette."""
    d = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.degrees(np.arccos(np.clip(-(normal * d).sum(-1), -1, 1)))


def test_fine_sphere_up_to_80_degrees():
    radius, centre = 0.5, np.array([0.0, 0.0, 1.0])
    mesh = trimesh.creation.icosphere(6, radius).apply_translation(centre)
    exact = (mesh.vertices - centre) / radius
    truth = embree.cast([person(mesh, exact[mesh.faces])], CAMERA)
    d, c = rays(), R @ centre + T
    a, b, k = (d * d).sum(-1), d @ c, c @ c - radius**2
    inside = b * b - a * k
    z = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 0)
    n = (d * z[..., None] - c) / radius
    incidence = grazing(n, d)
    use = (inside > 0) & (incidence < 80) & (truth.mask > 0)
    assert use.sum() > 5000
    # Sagitta of the longest edge: how far a triangle may lie inside the sphere; along a slanted ray it counts 1 / cos.
    edge = mesh.edges_unique_length.max()
    sagitta = radius - np.sqrt(radius**2 - (edge**2) / 3)
    slant = 1 / np.cos(np.radians(incidence[use]))
    assert (np.abs(truth.depth - z)[use] < 1e-5 + sagitta * slant).all()
    # An interpolated normal is that of the chord's point: off by at most the depth error seen from the centre, plus
    # the bend.
    bend = np.degrees(sagitta * np.tan(np.radians(incidence[use])) / radius + (edge / radius) ** 2 / 8)
    assert (angle_deg(truth.normal, n)[use] < 0.01 + bend).all()


def test_projection_and_back_within_a_thousandth_of_a_pixel():
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.5, -0.5, 0.3], [0.5, 0.5, 1.7], (500, 3))
    uv, z = frames.project(points, K, POSE)
    by_hand = (points @ R.T + T) @ K.T
    assert np.abs(uv - by_hand[:, :2] / by_hand[:, 2:]).max() < 1e-3
    back = np.concatenate([uv, np.ones((500, 1))], axis=1) @ np.linalg.inv(K).T * z[:, None]
    assert np.abs((back - T) @ R - points).max() < 1e-9
    depth = np.ones((H, W), np.float32)
    assert np.allclose(frames.point_map(depth, K)[0, 0], [(0.5 - 80) / 260, (0.5 - 150) / 250, 1])


def test_cutout_and_blended_layers_are_seen_through():
    wall = trimesh.creation.box((3, 0.02, 3)).apply_translation([0, 0.5, 1])
    screen = trimesh.creation.box((3, 0.02, 3)).apply_translation([0, 0, 1])
    alone = embree.cast([person(wall)], CAMERA)
    for material in (
        {"alpha_mode": "blend"},
        {"alpha_mode": "cutout", "base_color_texture": np.zeros((4, 4, 4), np.uint8)},
    ):
        both = embree.cast([person(wall), person(screen, **material)], CAMERA)
        assert np.array_equal(both.depth, alone.depth)
        assert both.layered.any() == (material["alpha_mode"] == "blend")
    solid = embree.cast([person(wall), person(screen)], CAMERA)
    assert (solid.mask == 2).sum() > 1000


def test_keypoint_visibility_on_a_scene_whose_answer_is_known():
    ball = person(trimesh.creation.icosphere(4, 0.1).apply_translation([0, 0, 1.0]))
    ball.keypoints = np.array([[0, 0, 1.0], [0, 0.0, 1.05], [9, 9, 1.0], [0, 2.0, 1.0]])
    ball.keypoint_set = "test"
    _, alone = keypoints.seen(ball, 0, embree.Caster([ball], POSE), CAMERA)
    # Inside the ball: visible. Off the picture: absent. Two metres behind it and not hidden by it: visible.
    assert alone.tolist()[:3] == [2, 2, 0]
    wall = person(trimesh.creation.box((4, 0.02, 4)).apply_translation([0, -0.5, 1]))
    _, hidden = keypoints.seen(ball, 0, embree.Caster([ball, wall], POSE), CAMERA)
    assert hidden.tolist()[:2] == [1, 1]


def test_a_frame_on_which_the_engines_disagree_is_rejected():
    ball = person(trimesh.creation.icosphere(4, 0.4).apply_translation([0, 0, 1.0]))
    truth = embree.cast([ball], CAMERA)
    assert verify.check("s", truth.depth, truth.mask, truth.depth, Verify()) == (1.0, None)
    off = truth.depth.copy()
    off[120:128, 80:88] += 2e-4
    with pytest.raises(SampleRejected, match="agree within 0.1 mm on 9"):
        verify.check("s", truth.depth, truth.mask, off, Verify())
    with pytest.raises(SampleRejected, match="nobody"):
        verify.check("s", truth.depth * 0, truth.mask * 0, truth.depth * 0, Verify())
    # Of strands two pixels may differ where there are few, not three.
    hair = np.zeros(truth.mask.shape, bool)
    at = np.argwhere(truth.mask > 0)[:8]
    hair[tuple(at.T)] = True
    for wrong in (1, 2):
        off = truth.depth.copy()
        off[tuple(at[:wrong].T)] += 0.01
        assert verify.check("s", truth.depth, truth.mask, off, Verify(), strand=hair)[1] == pytest.approx(1 - wrong / 8)
    off[tuple(at[:3].T)] = 5.0
    with pytest.raises(SampleRejected, match=r"62\.50% of the strands"):
        verify.check("s", truth.depth, truth.mask, off, Verify(), strand=hair)


def test_visible_fraction_counts_what_frame_and_others_hide():
    ball = person(trimesh.creation.icosphere(4, 0.3).apply_translation([0, 0, 1.0]))
    mask = embree.cast([ball], CAMERA).mask
    assert embree.visible_fraction(ball, 1, mask, CAMERA) == pytest.approx(1.0, abs=0.01)
    half = mask.copy()
    xs = np.nonzero(mask.any(0))[0]
    half[:, : (xs.min() + xs.max()) // 2] = 0
    assert embree.visible_fraction(ball, 1, half, CAMERA) == pytest.approx(half.sum() / mask.sum(), abs=0.03)


@pytest.mark.engine
def test_cycles_and_embree_agree_and_blender_turns_the_environment_as_we_do(tmp_path):
    import cv2

    from manifests.job import Engine
    from render import lighting
    from render.blender.engine import BlenderEngine
    from render.scene import Lighting, Scene

    picture = np.zeros((64, 128, 3), np.float32)
    rng = np.random.default_rng(3)
    picture += cv2.resize(rng.random((8, 16, 3)).astype(np.float32), (128, 64), interpolation=cv2.INTER_CUBIC).clip(
        0.02, 1
    )
    path = tmp_path / "sky.hdr"
    cv2.imwrite(str(path), picture)
    engine = BlenderEngine(Engine(samples=4, denoiser="none"), 1, tmp_path)
    light = Lighting("sky", str(path), 70.0, 0.8, {})
    mesh = trimesh.creation.icosphere(5, 0.4).apply_translation([0, 0, 1.0])
    scene = Scene([person(mesh)], CAMERA, light, 1)
    frame = engine.render(scene, embree.region(scene.people, CAMERA))
    truth = embree.cast(scene.people, CAMERA)
    assert ((frame.depth > 0) != (truth.mask > 0)).sum() <= 4
    # Cycles' centre ray is off by up to 5e-4 px (filter table): past 80 degrees that is more than 0.1 mm of depth here.
    steep = grazing(truth.normal, rays()) > 80
    assert verify.agreement(truth.depth, truth.mask, frame.depth, 1e-4, steep) > 0.999
    assert set(np.unique(frame.index)) == {0, 1}
    # A perfect mirror ball would be an indirect witness; Blender's own visible world is a direct one.
    import bpy

    bpy.context.scene.render.film_transparent = False
    empty = person(trimesh.creation.icosphere(1, 0.001).apply_translation([0, 0, -50.0]))
    seen = engine.render(Scene([empty], CAMERA, light, 1), None).rgba[..., :3]
    ours = lighting.background(CAMERA, light)
    assert np.median(np.abs(seen - ours)) < 0.01
    assert np.corrcoef(seen.ravel(), ours.ravel())[0, 1] > 0.99
