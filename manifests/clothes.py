"""What a job may say about clothes: shares of garments, fits and patterns, and the user's own fabrics.

No setting undresses anyone: a top covers the trunk and a bottom the hips of every person, and neither has a "none".
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from manifests.model import Model

Share = Annotated[float, Field(ge=0, le=1)]
Shares = dict[str, Annotated[float, Field(ge=0)]]
TOPS = ("t_shirt", "shirt", "jumper", "hoodie")
BOTTOMS = ("trousers", "jeans", "shorts", "leggings", "skirt")
SHOES = ("trainers", "boots", "low_shoes", "sandals")
HATS = ("none", "cap", "beanie", "brimmed")
PATTERNS = ("plain", "stripes", "checks", "print")
COVERING = {"tops": TOPS, "bottoms": BOTTOMS}
KNOWN = {**COVERING, "shoes": SHOES, "hats": HATS, "patterns": PATTERNS}


class ClothesPrior(Model):
    """Shares of what people wear; each list is normalised. What belongs together is decided after: render/people/outfit.py."""

    tops: Shares = Field(
        {"t_shirt": 3, "shirt": 2.5, "jumper": 2, "hoodie": 1.5}, description="shares of " + ", ".join(TOPS)
    )
    bottoms: Shares = Field(
        {"trousers": 3, "jeans": 3, "shorts": 1.5, "leggings": 1, "skirt": 1.5},
        description="shares of " + ", ".join(BOTTOMS) + "; over bare legs a skirt has close shorts beneath",
    )
    dress: Share = Field(0.2, description="share of those who may wear one that wear a dress instead of top and bottom")
    skirts_for_all: bool = Field(False, description="skirts and dresses for everyone, not for women and girls alone")
    coat: Share = Field(
        0.25, description="share of people in a shirt, T-shirt, jumper or dress that wear a coat over it"
    )
    shoes: Shares = Field(
        {"trainers": 3, "boots": 1.5, "low_shoes": 2, "sandals": 0.7}, description="shares of " + ", ".join(SHOES)
    )
    hats: Shares = Field(
        {"none": 7, "cap": 1.2, "beanie": 1.0, "brimmed": 0.8}, description="shares of " + ", ".join(HATS)
    )
    patterns: Shares = Field(
        {"plain": 5, "stripes": 1.5, "checks": 1.5, "print": 1.5},
        description="shares of " + ", ".join(PATTERNS) + ", for tops, skirts and dresses, and for every fourth hat",
    )
    leather: Share = Field(0.15, description="share of coats and skirts made of leather")
    fit: tuple[Share, Share] = Field((0.1, 1.0), description="tight 0 to loose 1, drawn uniformly")
    textures: str | None = Field(
        None, description="folder of your fabrics (.png, .jpg), tiles of `texture_m`; none = procedural"
    )
    texture_m: float = Field(0.3, gt=0, le=5, description="width of a tile, metres")
    texture_share: Share = Field(1.0, description="share of garments cut from the folder's fabrics, where there is one")
    licence: str = Field("LicenseRef-unknown", description="SPDX id of the folder's fabrics")
    redistributable: bool = False

    @pydantic.model_validator(mode="after")
    def _dressed(self) -> ClothesPrior:
        for name, known in KNOWN.items():
            shares = getattr(self, name)
            for key in shares:
                if key not in known:
                    everyone = "; everyone is dressed, so none is not a choice" if name in COVERING else ""
                    raise ValueError(f"{name}: {key!r} is unknown, choose among {', '.join(known)}{everyone}")
            if sum(shares.values()) <= 0:
                raise ValueError(
                    f"{name}: at least one needs a share above 0{', for everyone is dressed' * (name in COVERING)}"
                )
        if not self.skirts_for_all and sum(v for k, v in self.bottoms.items() if k != "skirt") <= 0:
            raise ValueError("bottoms: with skirts alone men would have none; add another or set skirts_for_all: true")
        if self.fit[0] > self.fit[1]:
            raise ValueError("fit must be a range, tightest first")
        return self
