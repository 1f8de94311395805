"""Radiance to pictures and back, plain and as photographs look."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import frames, plan
from manifests.job import Engine, RenderStage
from manifests.priors import CameraPrior
from render import response
from render.scene import Backdrop, Camera, Lighting, Scene
from render.stage import Geometry, Studio, finish
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
