"""Hair as geometry and as numbers, without a picture: what a style's parameters do to strands, and who has how much grey."""

from __future__ import annotations

import numpy as np
import pytest

from render.people.hair_look import _grey

pytestmark = pytest.mark.engine


def test_grey_is_as_common_and_as_much_as_was_counted():
    """Panhard et al. 2012, of 4192 people; some grey: more than one hair in a hundred."""
    rng = np.random.default_rng(0)

    def of(low: float, high: float) -> tuple[float, float, float]:
        share = np.array([_grey(rng, rng.uniform(low, high), 1.0) for _ in range(4000)])
        some = share > 0.01
        return some.mean(), share[some].mean(), (share >= 0.5).mean()

    some, much, _ = of(45, 65)
    assert some == pytest.approx(0.74, abs=0.04)
    assert much == pytest.approx(0.27, abs=0.03)
    assert of(56, 60)[0] == pytest.approx(0.86, abs=0.04)
    assert of(61, 65)[1] == pytest.approx(0.40, abs=0.05)
    assert 0.05 < of(50, 50.1)[2] < 0.23
    assert of(20, 30)[0] < 0.08
    some, much, half = of(80, 90)
    assert some > 0.97
    assert min(much, half) > 0.65
    assert _grey(rng, 17.0, 1.0) == 0
    assert _grey(rng, 90.0, 0.0) == 0
