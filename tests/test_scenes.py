"""A hundred scenes of one to four people: what they hold against what the job asked, and that bodies stay apart."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy import stats

from manifests import frames, plan
from manifests.errors import SampleRejected
from manifests.job import AnnySource, Engine, RenderStage
from manifests.priors import BackgroundPrior, PeoplePrior
from pipeline import diversity
from render import backdrop, lighting, textures
from render.assets import source_of
from render.groundtruth import embree
from render.placement import moved, stand_together
from render.scene import Backdrop, Camera, Lamp, Lighting, PersonMesh, Scene
from render.stage import Studio, describe
from tests import bodies

SCENES = 100
STAGE = RenderStage.model_validate(
    {
        "samples": SCENES,
        "width": 96,
        "height": 128,
        "people": {"counts": [0.25, 0.35, 0.2, 0.2], "gap_m": [0.02, 0.5]},
        "framing": {"face": 1, "upper": 1, "full": 3},
        "camera": {"truncated": 0.25, "occluded": 0.3, "focal_mm": [30, 90], "elevation_deg": [-20, 30]},
        "lighting": {"sun": {"share": 0.4}, "area": {"share": 0.3}},
    }
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[tuple[plan.SampleSpec, Scene]]:
    pool = bodies.Pool().planned()
    studio = Studio(STAGE, Path("/"), tmp_path_factory.mktemp("scratch"), [bodies.Pool()])
    made = []
    for index in range(SCENES):
        spec = plan.sample_spec(STAGE, "d" * 64, pool, index)
        made.append((spec, studio.scene(spec)))
    return made


@pytest.fixture(scope="module")
def rows(scenes) -> list[dict]:
    """What a dataset would keep of each scene, without pixels."""
    made = []
    for spec, scene in scenes:
        mask = embree.cast(scene.people, scene.camera).mask
        made.append(
            {
                "camera": {
                    "K": scene.camera.K.ravel().tolist(),
                    "world_to_camera": scene.camera.world_to_camera.ravel().tolist(),
                    "width": scene.camera.width,
                    "height": scene.camera.height,
                    "framing": spec.framing,
                },
                "people": [dataclasses.asdict(p) for p in describe(scene.people, mask, scene.camera)],
                "lighting": lighting.described(scene.lighting, scene.backdrop),
            }
        )
    return made


def test_every_marginal_is_what_the_job_asked(rows):
    found = {m.title: m for m in diversity.marginals(rows, STAGE)}
    assert set(found) >= {"Framing", "People per sample", "Focal length, 35 mm equivalent", "Elevation of the camera"}
    # Dealt, not drawn: exact to the rounding of a block.
    assert found["Framing"].got.tolist() == [20, 20, 60]
    assert found["People per sample"].got.tolist() == [25, 35, 20, 20]
    for name, m in found.items():
        if m.asked is None or name == "Subject partly hidden":
            continue
        expected = m.asked * m.got.sum()
        # 1 in 1000 for each of about ten: a fixed seed, so this either holds or does not.
        assert stats.chisquare(m.got, expected).pvalue > 1e-3, (name, m.got.tolist(), expected.round(1).tolist())
    hidden = found["Subject partly hidden"]
    assert hidden.got[0] >= 0.3 * hidden.got.sum() - 2 * np.sqrt(0.21 * hidden.got.sum())
    assert found["Identities by how often they are the subject"].names == ["3x", "4x"]


def test_a_job_that_asks_something_else_is_seen_to_be_missed(rows):
    other = STAGE.model_copy(update={"camera": STAGE.camera.model_copy(update={"focal_mm": (30.0, 200.0)})})
    focal = next(m for m in diversity.marginals(rows, other) if m.title.startswith("Focal"))
    assert focal.gap > 0.5


def test_camera_angles_are_read_back_from_the_pose():
    for azimuth, elevation, roll in ((0, 0, 0), (30, 10, 5), (-120, -40, -12), (170, 60, 30)):
        a, e = np.radians([azimuth, elevation])
        eye = 3 * np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
        row = {"camera": {"world_to_camera": frames.look_at(eye, np.zeros(3), np.radians(roll)).ravel().tolist()}}
        assert diversity.azimuth_deg(row) == pytest.approx(azimuth)
        assert diversity.elevation_deg(row) == pytest.approx(elevation)
        assert abs(diversity.roll_deg(row)) == pytest.approx(abs(roll))


def test_nobody_floats_sinks_or_runs_through_another(scenes):
    pairs = 0
    for _, scene in scenes:
        for person in scene.people:
            assert lowest_m(person) == pytest.approx(0, abs=1e-3), person.identity_id
        for one, other in itertools.permutations(scene.people, 2):
            assert not crosses(one, other), (one.identity_id, other.identity_id)
            pairs += 1
    assert pairs > 200


def lowest_m(person: PersonMesh) -> float:
    """Height of the first surface that rays from under the ground meet, on a grid of 2 cm and below each low vertex."""
    v = person.mesh.vertices.astype(np.float64)
    low, high = v[:, :2].min(0), v[:, :2].max(0)
    grid = np.stack(np.meshgrid(*(np.arange(low[i], high[i], 0.02) for i in (0, 1))), axis=-1).reshape(-1, 2)
    near = v[v[:, 2] < v[:, 2].min() + 0.02][:, :2]
    at = np.concatenate([grid, near + 1e-6, near - 1e-6])
    mesh = trimesh.Trimesh(v, person.mesh.faces, process=False)
    origins = np.column_stack([at, np.full(len(at), -1.0)])
    hits, _, _ = mesh.ray.intersects_location(origins, np.tile([0, 0, 1.0], (len(at), 1)), multiple_hits=False)
    return float(hits[:, 2].min())


def crosses(one: PersonMesh, other: PersonMesh) -> bool:
    """Whether an edge of ``one`` passes through a triangle of ``other``, or a vertex of it lies inside."""
    a = trimesh.Trimesh(one.mesh.vertices, one.mesh.faces, process=False)
    b = trimesh.Trimesh(other.mesh.vertices, other.mesh.faces, process=False)
    edges = a.vertices[a.edges_unique]
    along = edges[:, 1] - edges[:, 0]
    length = np.linalg.norm(along, axis=1)
    use = length > 1e-9
    where, ray, _ = b.ray.intersects_location(edges[use, 0], along[use] / length[use, None], multiple_hits=False)
    through = np.linalg.norm(where - edges[use, 0][ray], axis=1) < length[use][ray]
    inside = b.ray.contains_points(a.vertices) if b.is_watertight else np.zeros(1, bool)
    return bool(through.any() or inside.any())


def test_the_check_for_crossing_sees_one():
    rng = np.random.default_rng(0)
    one, two = (bodies.person(n, bodies.egg(rng, rows=12)) for n in "ab")
    assert crosses(one, moved(two, 0.3, np.array([0.1, 0.0])))
    apart = stand_together([one, two], PeoplePrior(gap_m=(0.01, 0.02)), rng)
    assert not crosses(*apart)
    near = np.linalg.norm(apart[0].mesh.vertices[:, None] - apart[1].mesh.vertices[None], axis=-1).min()
    assert 0.01 <= near < 0.2


def test_an_outstretched_arm_does_not_reach_into_the_neighbour():
    def post(width: float, arm: float) -> PersonMesh:
        parts = [trimesh.creation.box((width, width, 1.6)).apply_translation([0, 0, 0.8])]
        parts.append(trimesh.creation.box((arm, 0.08, 0.08)).apply_translation([arm / 2, 0, 1.4]))
        mesh = trimesh.util.concatenate(parts)
        made = bodies.egg(np.random.default_rng(0), rows=4)
        made = dataclasses.replace(
            made,
            vertices=mesh.vertices.astype(np.float32),
            faces=mesh.faces.astype(np.int32),
            corner_normals=np.repeat(mesh.face_normals[:, None], 3, axis=1).astype(np.float32),
            material_index=np.zeros(len(mesh.faces), np.int32),
            uv=np.zeros((len(mesh.faces), 3, 2), np.float32),
        )
        return bodies.person("post", made)

    rng = np.random.default_rng(1)
    for _ in range(40):
        group = stand_together([post(0.3, 0.9), post(0.3, 0.9), post(0.4, 0.2)], PeoplePrior(gap_m=(0.001, 0.01)), rng)
        assert not any(crosses(a, b) for a, b in itertools.permutations(group, 2))


def test_a_camera_that_cannot_be_had_rejects_the_sample(tmp_path):
    stage = STAGE.model_copy(update={"camera": STAGE.camera.model_copy(update={"occluded": 1.0, "min_visible": 1.0})})
    pool = bodies.Pool().planned()
    studio = Studio(stage, Path("/"), tmp_path, [bodies.Pool()])
    specs = (plan.sample_spec(stage, "d" * 64, pool, i) for i in range(40))
    spec = next(s for s in specs if len(s.identities) > 1 and s.framing == "full")
    with pytest.raises(SampleRejected, match="render.camera asks"):
        studio.scene(spec)


def test_a_photograph_lights_from_the_side_it_is_bright_on(tmp_path):
    picture = np.zeros((64, 48, 3), np.uint8)
    picture[:, 24:] = 230
    behind = Backdrop("half", picture, {})
    for eye in ([0.0, -3.0, 1.0], [2.0, 1.0, 1.0]):
        pose = frames.look_at(np.array(eye), np.array([0, 0, 1.0]))
        K = np.array([[50.0, 0, 24], [0, 50.0, 32], [0, 0, 1]])
        light = backdrop.estimated_light(behind, Camera(K, pose, 48, 64, "full"), [], tmp_path)
        right = pose[0, :3]
        lit = lighting.irradiance(light, np.stack([right, -right]))
        assert lit[0].min() > 1.3 * lit[1].max()
    lamp = Lamp("sun", np.zeros(3), np.array([0, 0, -1.0]), 3.0, 0.5)
    up = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    more = lighting.irradiance(dataclasses.replace(light, lamps=[lamp]), up) - lighting.irradiance(light, up)
    assert more[0] == pytest.approx(3.0 / np.pi)
    assert more[1] == pytest.approx(0)


def test_photographs_are_cropped_to_the_frame_and_carry_their_rights(tmp_path):
    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((40 + 30 * i, 90, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    prior = BackgroundPrior(photos=".", share=0.5, licence="CC-BY-4.0")
    files = backdrop.photographs(prior, tmp_path)
    assert [name for name, _, _ in files] == ["0.png", "1.png", "2.png"]
    rng = np.random.default_rng(0)
    drawn = [backdrop.draw_backdrop(prior, files, 64, 80, "s", rng) for _ in range(200)]
    assert 70 < sum(d is not None for d in drawn) < 130
    assert all(d.picture.shape == (80, 64, 3) and d.rights["licence"] == "CC-BY-4.0" for d in drawn if d)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    always = prior.model_copy(update={"share": 1.0})
    with pytest.raises(SampleRejected, match=r"background bad\.png"):
        backdrop.draw_backdrop(always, [("bad.png", tmp_path / "bad.png", "")], 8, 8, "s", rng)


@pytest.mark.engine
def test_a_ground_takes_shadows_and_leaves_coverage_alone(tmp_path):
    import cv2

    from render.blender.engine import BlenderEngine

    cv2.imwrite(str(tmp_path / "sky.hdr"), np.full((16, 32, 3), 0.2, np.float32))
    sun = Lamp("sun", np.zeros(3), np.array([0.6, 0.3, -0.74]), 4.0, 1.0)
    light = Lighting("sky", str(tmp_path / "sky.hdr"), 0.0, 1.0, {}, [sun])
    person = bodies.person("egg", bodies.egg(np.random.default_rng(0)))
    K = np.array([[120.0, 0, 48], [0, 120.0, 64], [0, 0, 1]])
    camera = Camera(K, frames.look_at(np.array([0.5, -3.0, 2.0]), np.array([0.2, 0, 0.5])), 96, 128, "full")
    engine = BlenderEngine(Engine(samples=64, denoiser="none"), 2, tmp_path)
    plain = engine.render(Scene([person], camera, light, 0), None)
    shaded = engine.render(Scene([person], camera, light, 0, shadows=True), None)
    assert np.abs(shaded.coverage - plain.coverage).max() < 0.02
    assert np.array_equal(shaded.index, plain.index)
    apart = plain.coverage == 0
    # Shadow shows as alpha on the ground, in the direction the sun shines.
    shadow = np.where(apart, shaded.rgba[..., 3], 0)
    assert (shadow > 0.4).sum() > 100
    xs = np.nonzero(shadow > 0.4)[1]
    assert xs.mean() > np.nonzero(plain.coverage > 0.5)[1].mean() + 4
    assert plain.rgba[..., 3][apart].max() == 0


@pytest.mark.engine
def test_panes_are_seen_through_or_not_by_the_job(tmp_path):
    mesh = bodies.veiled(np.random.default_rng(0))
    person = bodies.person("veiled", mesh)
    K = np.array([[120.0, 0, 48], [0, 120.0, 64], [0, 0, 1]])
    camera = Camera(K, frames.look_at(np.array([0.0, -2.5, 1.1]), np.array([0, 0, 1.0])), 96, 128, "full")
    through = embree.cast([person], camera, see_through=True)
    stopped = embree.cast([person], camera, see_through=False)
    pane = float(mesh.vertices[-4:, 1].mean())
    on = stopped.depth < through.depth - 1e-3
    assert on.sum() > 100
    # The pane is a plane across the view: its distance is known.
    rays = frames.camera_rays(K, 96, 128)[on] @ camera.world_to_camera[:3, :3]
    eye = frames.camera_centre(camera.world_to_camera)
    assert np.abs(eye[1] + rays[:, 1] * stopped.depth[on] - pane).max() < 1e-5
    assert through.layered[on].all()


def test_views_of_a_scene_share_people_and_light_and_each_has_its_camera(tmp_path):
    stage = STAGE.model_copy(update={"views": 3, "samples": 12})
    pool = bodies.Pool().planned()
    studio = Studio(stage, Path("/"), tmp_path, [bodies.Pool()])
    specs = [plan.sample_spec(stage, "d" * 64, pool, i) for i in range(12)]
    scenes = [studio.scene(s) for s in specs]
    for i in range(0, 12, 3):
        three = scenes[i : i + 3]
        assert all(s.people is three[0].people and s.lighting is three[0].lighting for s in three)
        assert len({s.camera.world_to_camera.tobytes() for s in three}) == 3
        assert len({s.identities for s in specs[i : i + 3]}) == 1
    assert len({s.identities[0] for s in specs}) == 4
    # The middle one alone, as another worker would make it.
    alone = Studio(stage, Path("/"), tmp_path, [bodies.Pool()]).scene(specs[7])
    assert np.array_equal(alone.camera.world_to_camera, scenes[7].camera.world_to_camera)
    assert np.array_equal(alone.people[0].mesh.vertices, scenes[7].people[0].mesh.vertices)
    assert alone.lighting.yaw_deg == scenes[7].lighting.yaw_deg


def test_textures_are_as_fine_as_the_frame_and_cut_outs_stay_whole():
    rng = np.random.default_rng(0)
    egg = bodies.egg(rng)
    egg.materials[0].base_color_texture = np.full((2048, 2048, 4), 255, np.uint8)
    egg.materials[0].normal_texture = bodies.bumps(1024)
    person = bodies.person("egg", egg)
    K = np.array([[150.0, 0, 48], [0, 150.0, 64], [0, 0, 1]])
    far = Camera(K, frames.look_at(np.array([0, -3.0, 1.0]), np.array([0, 0, 0.7])), 96, 128, "full")
    near = Camera(np.diag([8.0, 8.0, 1]) @ K, far.world_to_camera, 768, 1024, "full")
    small, large = textures.fitted([person], far)[0][0], textures.fitted([person], near)[0][0]
    # Eight times the pixels: three halvings less.
    assert small - large == 3
    made = textures.halved([person], ((small,),))[0].mesh.materials[0]
    assert made.base_color_texture.shape[0] == 2048 >> small
    assert made.normal_texture.shape[0] == 1024 >> small
    assert egg.materials[0].base_color_texture.shape[0] == 2048
    # A triangle larger than the frame shows, though no corner of it does.
    for high in (40, 180):
        wall = dataclasses.replace(
            bodies.egg(rng),
            vertices=np.array([[-high, 9, -high], [high, 9, -high], [0, 9, high]], np.float32),
            faces=np.array([[0, 1, 2]], np.int32),
            corner_normals=np.tile(np.float32([0, -1, 0]), (1, 3, 1)),
            uv=np.array([[[0, 0], [1, 0], [0.5, 1]]], np.float32),
            material_index=np.zeros(1, np.int32),
            part=np.zeros(1, np.uint8),
            materials=egg.materials,
        )
        assert textures.fitted([bodies.person("wall", wall)], near)[0][0] == 0
    hair = bodies.person("cards", bodies.cards(rng))
    assert textures.halved([hair], ((3,),))[0].mesh.materials[0].base_color_texture.shape[0] == 64


@pytest.mark.engine
def test_a_view_rendered_after_others_has_the_bytes_of_one_rendered_alone(tmp_path):
    import cv2

    from render.blender.engine import BlenderEngine

    cv2.imwrite(str(tmp_path / "sky.hdr"), np.full((16, 32, 3), 0.4, np.float32))
    light = Lighting("sky", str(tmp_path / "sky.hdr"), 0.0, 1.0, {})
    people = [bodies.person("egg", bodies.egg(np.random.default_rng(0)))]
    K = np.array([[120.0, 0, 48], [0, 120.0, 64], [0, 0, 1]])
    cameras = [
        Camera(K, frames.look_at(np.array([x, -3.0, 1.0]), np.array([0, 0, 0.7])), 96, 128, "full") for x in (0, 1, -1)
    ]
    engine = BlenderEngine(Engine(samples=2), 1, tmp_path)
    after = [engine.render(Scene(people, c, light, i), None) for i, c in enumerate(cameras)]
    alone = BlenderEngine(Engine(samples=2), 1, tmp_path).render(Scene(people, cameras[2], light, 2), None)
    assert np.array_equal(after[2].rgba, alone.rgba)
    assert np.array_equal(after[2].depth, alone.depth)
    assert after[2].seconds["build"] < after[0].seconds["build"]


@pytest.mark.soak
def test_a_hundred_scenes_of_real_people_stand_and_stay_apart(tmp_path):
    stage = STAGE.model_copy(update={"assets": [AnnySource(count=16)]})
    source = source_of(stage.assets[0], 0, Path("/"))
    pool = [plan.Identity(name, 0, key, "train") for name, key, _ in source.identities()]
    studio = Studio(stage, Path("/"), tmp_path, [source])
    rejected = 0
    for index in range(SCENES):
        try:
            scene = studio.scene(plan.sample_spec(stage, "d" * 64, pool, index))
        except SampleRejected:
            rejected += 1
            continue
        for person in scene.people:
            assert lowest_m(person) == pytest.approx(0, abs=2e-3), (index, person.identity_id)
        for one, other in itertools.permutations(scene.people, 2):
            assert not crosses(one, other), (index, one.identity_id, other.identity_id)
    assert rejected <= 3


@pytest.mark.soak
def test_eevee_paints_and_cycles_still_gives_depth(tmp_path):
    import cv2

    from render.blender.engine import BlenderEngine

    cv2.imwrite(str(tmp_path / "sky.hdr"), np.full((16, 32, 3), 0.5, np.float32))
    light = Lighting("sky", str(tmp_path / "sky.hdr"), 0.0, 1.0, {})

    egg = bodies.person("egg", bodies.egg(np.random.default_rng(0)))
    camera = Camera(
        np.array([[75.0, 0, 24], [0, 75.0, 32], [0, 0, 1]]),
        frames.look_at(np.array([0, -2.5, 1.0]), np.array([0, 0, 0.7])),
        48,
        64,
        "full",
    )
    engine = BlenderEngine(Engine(renderer="eevee", samples=4), 2, tmp_path)
    frame = engine.render(Scene([egg], camera, light, 0), None)
    truth = embree.cast([egg], camera)
    both = (truth.mask > 0) & (frame.index > 0)
    assert engine.name == "eevee"
    assert both.sum() > 200
    assert (truth.mask != frame.index).sum() <= 2
    assert np.abs(truth.depth - frame.depth)[both].max() < 1e-4
    # Painted, inside the silhouette and nowhere else.
    assert frame.rgba[..., :3][both].mean() > 0.02
    assert frame.rgba[..., 3][truth.mask == 0].mean() < 0.1
