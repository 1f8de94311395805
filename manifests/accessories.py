"""What a job may say about what people wear and carry besides clothes: shares of each, among those whom they suit.

Who is suited: children under 3 wear and carry nothing, and most slots begin later (FROM_YEARS: each slot's own years);
headphones need a head without a hat.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from manifests.model import Model

Share = Annotated[float, Field(ge=0, le=1)]
Shares = dict[str, Annotated[float, Field(ge=0)]]
EYEWEAR = ("none", "glasses", "sunglasses")
EARRINGS = ("none", "stud", "hoop", "drop")
BAGS = ("none", "backpack", "crossbody")
HELD = ("none", "phone", "cup", "book", "ball", "bottle")
KNOWN = {"eyewear": EYEWEAR, "earrings": EARRINGS, "earrings_men": EARRINGS, "bags": BAGS, "held": HELD}
FROM_YEARS = {"eyewear": 3, "earrings": 5, "scarf": 3, "bags": 5, "mask": 5, "headphones": 6, "watch": 8, "held": 3}


class AccessoriesPrior(Model):
    """Shares of people who own each; lists are normalised. What a pose has no room for is left out of that sample."""

    eyewear: Shares = Field(
        {"none": 7, "glasses": 2.4, "sunglasses": 0.6}, description="shares of " + ", ".join(EYEWEAR)
    )
    earrings: Shares = Field(
        {"none": 5, "stud": 2, "hoop": 1.7, "drop": 1.3},
        description="of women and girls: shares of " + ", ".join(EARRINGS),
    )
    earrings_men: Shares = Field({"none": 9, "stud": 0.8, "hoop": 0.2}, description="of men and boys, likewise")
    scarf: Share = 0.1
    bags: Shares = Field({"none": 8, "backpack": 1.1, "crossbody": 0.9}, description="shares of " + ", ".join(BAGS))
    mask: Share = Field(0.06, description="share with a cloth mask over nose and mouth")
    headphones: Share = 0.07
    watch: Share = 0.22
    held: Shares = Field(
        {"none": 7, "phone": 1.2, "cup": 0.6, "book": 0.4, "ball": 0.4, "bottle": 0.4},
        description="in one hand: shares of " + ", ".join(HELD),
    )

    @pydantic.model_validator(mode="after")
    def _known(self) -> AccessoriesPrior:
        for name, known in KNOWN.items():
            shares = getattr(self, name)
            for key in shares:
                if key not in known:
                    raise ValueError(f"{name}: {key!r} is unknown, choose among {', '.join(known)}")
            if sum(shares.values()) <= 0:
                raise ValueError(f"{name}: at least one needs a share above 0")
        return self
