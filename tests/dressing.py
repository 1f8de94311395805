"""Drawn people who wear what a test gives them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from manifests.assets import AnnySource
from manifests.bodies import BodyPrior, PosePrior
from manifests.clothes import ClothesPrior
from manifests.hair import HairPrior
from manifests.seeds import generator
from render.assets import anny
from render.people.accessories import Thing
from render.scene import PersonMesh

STILL = PosePrior(walking=0, running=0, sitting=0, crouching=0, kneeling=0, reaching=0, sport=0, dance=0, gesture=0)
# For tests that look at no hair: strands are half of the time that a person takes.
BALD = HairPrior(female={"bald": 1}, male={"bald": 1}, beards={"none": 1})
BROWN, GREY = (0.1, 0.05, 0.03), (0.4, 0.4, 0.4)


def thing(slot: str, kind: str, side: str = "", seed: int = 5) -> Thing:
    """In brown and grey."""
    return Thing(slot, kind, BROWN, GREY, side, seed)


def person(things: tuple[Thing, ...], number: int, years: str = "20-50", **settings: Any) -> PersonMesh:
    """Identity ``number`` of a pool of bare heads in short sleeves, wearing ``things`` alone."""
    clothes = ClothesPrior(hats={"none": 1}, coat=0, dress=0, tops={"t_shirt": 1})
    source = AnnySource(count=100, body=BodyPrior(age_years={years: 1}), pose=STILL, clothes=clothes, **settings)
    drawn = anny.draw_look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anny, "draw_look", lambda *a: dataclasses.replace(drawn(*a), things=things))
        return anny.AnnyPeople(source, 17).load(str(number), generator(17, "pose", number))
