"""What a job may say about hair: shares of styles, beards and dyed hair; how age thins and greys it."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from manifests.model import Model

Share = Annotated[float, Field(ge=0, le=1)]
Shares = dict[str, Annotated[float, Field(ge=0)]]
STYLES = (
    *("bald", "buzz", "crop", "side_part", "swept_back", "messy", "curly_short", "coils", "afro", "pixie", "bob"),
    *("fringe_bob", "long", "long_fringe", "wavy", "curly_long", "ponytail", "bun", "top_bun", "braids"),
)
BEARDS = ("none", "stubble", "short", "full", "long", "goatee", "moustache")
KNOWN = {"female": STYLES, "male": STYLES, "beards": BEARDS}


class HairPrior(Model):
    """Shares of styles, each list normalised. Whom they suit weighs too, which no share undoes: hair of African shape is curled more
    often; from 40 on it is worn shorter, and women's from 65 on mostly as a bob, pixie, bun or short curls; under hats nothing
    stands or is tied up; bare crowns are worn short; under 3 years hair is short, and nobody under 18 is bald.
    """

    female: Shares = Field(
        {
            **{"long": 2.0, "wavy": 2.0, "long_fringe": 1.0, "curly_long": 1.2, "bob": 1.5, "fringe_bob": 1.0},
            **{"pixie": 0.8, "curly_short": 0.6, "ponytail": 1.6, "bun": 1.0, "top_bun": 0.6, "braids": 0.8},
            **{"afro": 0.5, "coils": 0.4, "side_part": 0.2, "buzz": 0.1, "bald": 0.05},
        },
        description="shares of " + ", ".join(STYLES),
    )
    male: Shares = Field(
        {
            **{"crop": 2.0, "side_part": 1.6, "swept_back": 1.2, "messy": 1.5, "buzz": 1.4, "curly_short": 1.0},
            **{"coils": 0.7, "afro": 0.3, "bald": 0.6, "long": 0.25, "wavy": 0.25, "curly_long": 0.15, "top_bun": 0.15},
        },
        description="the same for men and boys",
    )
    beards: Shares = Field(
        {"none": 5, "stubble": 2.2, "short": 1.6, "full": 1.0, "long": 0.3, "goatee": 0.6, "moustache": 0.4},
        description="shares of " + ", ".join(BEARDS) + " among men from 18 years on; nobody else has any",
    )
    dyed: Share = Field(0.05, description="share from 14 years on whose hair has a colour that does not grow")
    balding: float = Field(1.0, ge=0, le=2, description="how far men's hair recedes with age; 1 as counted")
    greying: float = Field(1.0, ge=0, le=2, description="how grey hair is at an age; 1 as counted")

    @pydantic.model_validator(mode="after")
    def _known(self) -> HairPrior:
        for name, known in KNOWN.items():
            shares = getattr(self, name)
            for key in shares:
                if key not in known:
                    raise ValueError(f"{name}: {key!r} is unknown, choose among {', '.join(known)}")
            if sum(shares.values()) <= 0:
                raise ValueError(f"{name}: at least one needs a share above 0")
        return self
