"""Radiance to pictures and back, plain and as photographs look."""

import numpy as np
import pytest

from manifests.priors import CameraPrior
from render import response

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
