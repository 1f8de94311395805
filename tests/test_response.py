"""Radiance to pictures and back, plain and as photographs look."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import frames, plan
from manifests.job import Engine, RenderStage
from manifests.priors import BackgroundPrior, CameraPrior
from manifests.shards import row_of, sample_of
from render import lighting, response
from render.scene import Backdrop, Camera, Lamp, Lighting, Scene
from render.stage import Geometry, Renderer, Studio, finish
from tests import bodies

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("kind", ["srgb", "photographic"])
def test_a_photograph_behind_people_stays_as_it_is(kind):
    picture = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    light = response.radiance(picture, kind)
    assert np.isfinite(light).all()
    assert (response.developed(light, kind) == picture).all()
    nobody = np.zeros((64, 96, 4), np.float32)
    assert (response.composite(nobody, light, kind) == picture).all()


def test_photographs_have_deeper_shadows_and_keep_more_of_what_is_bright():
    ramp = np.linspace(0, 4, 400)[:, None, None] * np.ones((1, 1, 3))
    plain, photo = (response.developed(ramp, k)[:, 0, 0].astype(int) for k in ("srgb", "photographic"))
    assert (np.diff(photo) >= 0).all()
    dark = (plain > 20) & (plain < 90)
    assert (photo[dark] < plain[dark]).all()
    # Plain sRGB burns out at 1; twice that is still told apart from it.
    assert plain[100] == 255
    assert photo[100] < photo[200] <= 255


def test_photographs_have_more_colour_and_greys_stay_grey():
    grey = np.full((1, 1, 3), 0.2)
    assert np.ptp(response.developed(grey, "photographic")) == 0
    red = np.array([[[0.3, 0.15, 0.12]]])
    plain, photo = (np.ptp(response.developed(red, k)) for k in ("srgb", "photographic"))
    assert photo > 1.3 * plain


def test_a_job_chooses_the_response():
    assert CameraPrior().response == "srgb"
    assert CameraPrior(response="photographic").response == "photographic"
    with pytest.raises(ValueError, match="photographic"):
        CameraPrior(response="filmic")


@pytest.mark.engine
def test_a_response_changes_how_people_look_and_nothing_else(tmp_path):
    from render.blender.engine import BlenderEngine

    asked = RenderStage(samples=1, width=96, height=128, camera=CameraPrior(response="photographic"))
    pool = bodies.Pool().planned()
    studio = Studio(asked, Path("/"), tmp_path, [bodies.Pool()])
    assert studio.scene(plan.sample_spec(asked, "d" * 64, pool, 0)).camera.response == "photographic"
    cv2.imwrite(str(tmp_path / "sky.hdr"), np.full((16, 32, 3), 0.3, np.float32))
    light = Lighting("sky", str(tmp_path / "sky.hdr"), 0.0, 1.0, {})
    people = [bodies.person("egg", bodies.egg(np.random.default_rng(0)))]
    K = np.array([[120.0, 0, 48], [0, 120.0, 64], [0, 0, 1]])
    camera = Camera(K, frames.look_at(np.array([0, -3.0, 1.0]), np.array([0, 0, 0.7])), 96, 128, "full")
    wall = Backdrop("wall", np.random.default_rng(1).integers(0, 256, (128, 96, 3)).astype(np.uint8), {})
    engine = BlenderEngine(Engine(samples=4), 1, tmp_path)
    made = []
    for kind in ("srgb", "photographic"):
        scene = Scene(people, dataclasses.replace(camera, response=kind), light, 0, wall)
        made.append(finish(engine.render(scene, None), Geometry.of(scene), scene))
    (plain, alpha), (photo, same) = made
    assert np.array_equal(alpha, same)
    assert (plain[alpha == 0] == wall.picture[alpha == 0]).all()
    assert (photo[alpha == 0] == wall.picture[alpha == 0]).all()
    whole = alpha == 255
    assert photo[whole].astype(float).std() > 1.1 * plain[whole].astype(float).std()


def sky(folder: Path, name: str, texels: np.ndarray) -> Lighting:
    """Light by ``texels`` (h, w) of grey radiance."""
    path = folder / f"{name}.hdr"
    cv2.imwrite(str(path), np.repeat(texels[..., None], 3, axis=2).astype(np.float32))
    return Lighting(name, str(path), 0.0, 1.0, {})


def coloured(folder: Path, name: str, rgb: tuple[float, float, float]) -> Lighting:
    """Even light of one colour."""
    path = folder / f"{name}.hdr"
    cv2.imwrite(str(path), np.ones((16, 32, 3), np.float32) * np.float32(rgb[::-1]))
    return Lighting(name, str(path), 0.0, 1.0, {})


def seen_from(azimuth: float, focal: float = 120.0) -> Camera:
    K = np.array([[focal, 0, 48], [0, focal, 64], [0, 0, 1]])
    eye = np.array([3 * np.cos(azimuth), 3 * np.sin(azimuth), 1.5])
    return Camera(K, frames.look_at(eye, np.array([0, 0, 1.5])), 96, 128, "full")


def facing(light: Lighting, camera: Camera) -> float:
    """What matt white towards ``camera`` sends back."""
    return float(lighting.irradiance(light, -camera.world_to_camera[2:3, :3])[0, 1])


def test_a_metering_camera_brings_faces_to_about_one_brightness(tmp_path):
    level = [facing(lighting.metered(sky(tmp_path, f"{v}", np.full((16, 32), v)), seen_from(0)), seen_from(0))
             for v in (0.05, 0.5, 5.0)]  # fmt: skip
    # A hundred times the light is left at 100 ** 0.15.
    assert level == sorted(level)
    assert 1.9 < level[2] / level[0] < 2.1
    assert 0.5 < level[1] < 1.1
    side = np.full((16, 32), 0.1)
    side[:, :16] = 4.0
    low = sky(tmp_path, "side", side)
    low.lamps.append(Lamp("sun", np.zeros(3), np.array([0.0, -1.0, 0.0]), 2.0, 1.0))
    for light in (low, dataclasses.replace(low, lamps=[])):
        views = [seen_from(np.pi / 2), seen_from(-np.pi / 2)]
        before, after = [facing(light, v) for v in views], [facing(lighting.metered(light, v), v) for v in views]
        # Against the light a face stays the darker one.
        assert (max(after) / min(after)) < (max(before) / min(before)) ** 0.5
    bright = lighting.metered(low, seen_from(np.pi / 2))
    assert bright.lamps[0].strength / 2.0 == pytest.approx(bright.strength)
    assert low.strength == 1.0


def test_exposure_by_the_subject_is_a_jobs_to_ask_for(tmp_path):
    stage = RenderStage(samples=1, width=96, height=128, camera=CameraPrior(exposure="subject"))
    plain = stage.model_copy(update={"camera": CameraPrior()})
    spec = plan.sample_spec(stage, "d" * 64, bodies.Pool().planned(), 0)
    made, same = (Studio(s, Path("/"), tmp_path, [bodies.Pool()]).scene(spec) for s in (stage, plain))
    assert np.array_equal(made.camera.K, same.camera.K)
    assert made.lighting == lighting.metered(same.lighting, same.camera)
    assert made.lighting.strength != same.lighting.strength
    # A camera that is set two stops lower: everything else is drawn as before.
    lower = stage.model_copy(update={"camera": CameraPrior(exposure="subject", exposure_ev=(-2.0, -2.0))})
    dim = Studio(lower, Path("/"), tmp_path, [bodies.Pool()]).scene(spec)
    assert dim.lighting.strength == pytest.approx(made.lighting.strength / 4)
    assert np.array_equal(dim.camera.world_to_camera, made.camera.world_to_camera)
    # A photograph was metered when it was taken.
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/wall.png"), np.full((128, 96, 3), 90, np.uint8))
    walled = {"background": BackgroundPrior(photos="photos", estimate_light=False)}
    made, same = (
        Studio(s.model_copy(update=walled), tmp_path, tmp_path, [bodies.Pool()]).scene(spec) for s in (stage, plain)
    )
    assert made.backdrop is not None
    assert made.lighting == same.lighting
    with pytest.raises(ValueError, match="exposure"):
        CameraPrior(exposure="auto")
    for wrong in ({"exposure_ev": (-1, 1)}, {"exposure": "subject", "exposure_ev": (1, -1)}):
        with pytest.raises(ValueError, match="exposure_ev"):
            CameraPrior(**wrong)


def test_white_balance_takes_most_of_the_lights_colour_and_none_of_its_brightness(tmp_path):
    light, camera = coloured(tmp_path, "warm", (1.0, 0.6, 0.3)), seen_from(0.0)
    ahead = -camera.world_to_camera[2:3, :3]
    done = lighting.balanced(light, camera)
    before, after = (lighting.irradiance(x, ahead)[0] for x in (light, done))
    assert before[0] / before[2] == pytest.approx(1 / 0.3, rel=0.02)
    assert after[0] / after[2] == pytest.approx((1 / 0.3) ** 0.25, rel=0.02)
    assert after @ response.LUMA == pytest.approx(before @ response.LUMA, rel=1e-3)
    # Behind people the same camera sees the same colours.
    shown = lighting.background(camera, done)
    assert np.allclose(shown / lighting.background(camera, light), done.balance, rtol=1e-4)
    # All but one colour is hardly there: no gain brings it, and none is dimmed for it.
    blue = coloured(tmp_path, "blue", (1e-3, 1e-3, 1.0))
    made = lighting.irradiance(lighting.balanced(blue, camera), ahead)[0]
    assert made @ response.LUMA == pytest.approx(lighting.irradiance(blue, ahead)[0] @ response.LUMA, rel=1e-3)
    # White light stays as it is; a white lamp leaves less to take away.
    white = sky(tmp_path, "white", np.ones((16, 32)))
    assert np.allclose(lighting.balanced(white, camera).balance, 1.0, atol=1e-3)
    lamp = Lamp("sun", np.zeros(3), np.array([-1.0, 0, 0]), 3.0, 1.0)
    lit = lighting.balanced(dataclasses.replace(light, lamps=[lamp]), camera)
    assert lit.balance[2] < done.balance[2]


@pytest.mark.engine
def test_cycles_and_the_background_show_the_same_balanced_light(tmp_path):
    from render.blender.engine import BlenderEngine

    light = dataclasses.replace(sky(tmp_path, "even", np.full((16, 32), 0.4)), balance=(0.6, 1.0, 1.7))
    people = [bodies.person("egg", bodies.egg(np.random.default_rng(0)))]
    K = np.array([[60.0, 0, 32], [0, 60.0, 32], [0, 0, 1]])
    camera = Camera(K, frames.look_at(np.array([0, -3.0, 1.0]), np.array([0, 0, 0.7])), 64, 64, "full")
    engine = BlenderEngine(Engine(samples=64, denoiser="none"), 1, tmp_path)
    plain = engine.render(Scene(people, camera, dataclasses.replace(light, balance=None), 0), None).rgba
    made = engine.render(Scene(people, camera, light, 0), None).rgba
    on = plain[..., 3] == 1
    assert np.allclose(made[on][:, :3].mean(axis=0) / plain[on][:, :3].mean(axis=0), light.balance, rtol=0.01)
    # Lamps are balanced with the rest.
    lamps = [Lamp("sun", np.zeros(3), np.array([0, 0.8, -0.6]), 3.0, 1.0)]
    dark = dataclasses.replace(light, strength=1e-6, lamps=lamps)
    white = dataclasses.replace(dark, balance=None)
    plain, made = (engine.render(Scene(people, camera, x, 0), None).rgba for x in (white, dark))
    assert np.allclose(made[on][:, :3].mean(axis=0) / plain[on][:, :3].mean(axis=0), light.balance, rtol=0.01)


@pytest.mark.engine
def test_a_rows_white_balance_is_what_its_light_was_multiplied_by(tmp_path):
    small = {"samples": 1, "width": 48, "height": 64, "engine": Engine(samples=1)}
    balanced = {"camera": CameraPrior(white_balance="subject")}
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/wall.png"), np.full((64, 48, 3), 90, np.uint8))
    walled = {"background": BackgroundPrior(photos="photos", estimate_light=False)}
    found = []
    for stage in (RenderStage(**small, **balanced), RenderStage(**small), RenderStage(**small, **balanced, **walled)):
        spec = plan.sample_spec(stage, "d" * 64, bodies.Pool().planned(), 0)
        studio = Studio(stage, tmp_path, tmp_path, [bodies.Pool()])
        renderer = Renderer(stage, tmp_path, 1)
        renderer._studio = studio
        sample = sample_of(row_of(renderer.render(spec)))
        found.append((studio.scene(spec), sample.white_balance))
    (made, gains), (same, none), (_, before_a_wall) = found
    assert made.lighting == lighting.balanced(same.lighting, same.camera)
    assert gains == pytest.approx(made.lighting.balance)
    assert np.ptp(gains) > 0.05
    assert same.lighting.balance is None
    assert none is None
    # A photograph was balanced when it was taken.
    assert before_a_wall is None


def test_texels_of_an_environment_are_out_of_focus_where_they_would_show(tmp_path):
    tiles = np.indices((32, 64)).sum(axis=0) % 2 * 1.0
    light = sky(tmp_path, "tiles", tiles)
    # 8 px a texel.
    near = Scene([], seen_from(0, 80.0), light, 0)
    sharp, soft = lighting.background(near.camera, light), lighting.behind(near)
    assert soft.shape == sharp.shape
    assert soft.std() < 0.2 * sharp.std()
    assert soft.mean() == pytest.approx(sharp.mean(), abs=0.03)
    for row, column in ((14, 2), (17, 61)):
        one = np.zeros((32, 64))
        one[row, column] = 100.0
        spot = dataclasses.replace(near, lighting=sky(tmp_path, f"{row}", one))
        sharp, soft = lighting.background(spot.camera, spot.lighting)[..., 0], lighting.behind(spot)[..., 0]
        assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)
        assert soft.max() < 0.5 * sharp.max()
        middle = [[(i * p).sum() / p.sum() for i in np.indices(p.shape)] for p in (sharp, soft)]
        assert np.allclose(*middle, atol=0.3)
    # 2 px a texel are none too near.
    far = Scene([], seen_from(0, 20.0), light, 0)
    assert np.array_equal(lighting.behind(far), lighting.background(far.camera, light))


@pytest.mark.engine
def test_people_are_lit_by_a_map_no_finer_than_their_frame_shows_and_look_the_same(tmp_path, monkeypatch):
    import render.blender.engine as blender

    rng = np.random.default_rng(6)
    texels = cv2.resize(rng.random((8, 16)).astype(np.float32), (2048, 1024), interpolation=cv2.INTER_CUBIC).clip(0.05)
    # A sun of two texels, which must keep its power.
    texels[300:302, 700:702] = 4e3
    light = dataclasses.replace(sky(tmp_path, "fine", texels), yaw_deg=50.0)
    people = [bodies.person("egg", bodies.egg(np.random.default_rng(0)))]

    def scene(px: int, shadows: bool = False) -> Scene:
        K = np.array([[1.25 * px, 0, px / 2], [0, 1.25 * px, px / 2], [0, 0, 1]])
        camera = Camera(K, frames.look_at(np.array([0, -3.0, 1.0]), np.array([0, 0, 0.7])), px, px, "full")
        return Scene(people, camera, light, 0, shadows=shadows)

    whole = lighting.read_map(light.path)
    widths = [lighting.light_map(scene(px)).shape[1] for px in (128, 256, 512, 1024, 2048, 8192)]
    assert widths[0] == lighting.LEAST_PX
    assert widths[-1] == lighting.MOST_PX
    assert widths == sorted(widths)
    assert 512 in widths
    # On the ground shadows fall farther from what throws them.
    assert lighting.light_map(scene(512, shadows=True)).shape[1] > lighting.light_map(scene(512)).shape[1]
    assert lighting.light_map(scene(128)).mean() == pytest.approx(whole.mean(), rel=1e-4)
    small = dataclasses.replace(scene(64), lighting=sky(tmp_path, "coarse", np.ones((32, 64))))
    assert lighting.light_map(small).shape == (32, 64, 3)
    engine = blender.BlenderEngine(Engine(samples=256, denoiser="none"), 1, tmp_path)
    fitted = engine.render(scene(64), None).rgba
    monkeypatch.setattr(blender, "light_map", lambda shown: lighting.read_map(shown.lighting.path))
    full = engine.render(scene(64), None).rgba
    assert np.array_equal(fitted[..., 3], full[..., 3])
    on = full[..., 3] == 1
    assert fitted[on][:, :3].mean() == pytest.approx(full[on][:, :3].mean(), rel=0.01)
    # Where the sun meets the egg's edge of shadow, half a pixel of penumbra.
    away = np.abs(
        response.composite(fitted, fitted[..., :3] * 0).astype(int) - response.composite(full, full[..., :3] * 0)
    )
    assert np.mean(away) < 1.5
    assert np.percentile(away, 99) < 12
