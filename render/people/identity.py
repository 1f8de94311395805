"""An identity's generator -> who it is: body, skin, hair and clothes, drawn once and kept for all its samples."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.bodies import BodyPrior
from manifests.clothes import ClothesPrior
from render.people.outfit import Outfit, draw_outfit, linear
from render.people.shape import Shape, draw_shape

# Ten tones from light to dark in the order of the Monk scale (linear RGB of its published sRGB swatches).
MONK_SRGB = ["f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420"]
HAIR_SRGB = ["0c0a09", "1c1411", "33221a", "53361f", "7a5230", "a87b43", "c9a66b", "6e6a66", "b9b4ad", "7a2e14"]
IRIS_SRGB = ["3b2314", "5a3a1e", "6b7a4b", "4f6f8f", "7d8a94"]


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything that stays the same about one person. Colours are linear RGB."""

    shape: Shape
    skin: tuple[float, float, float]
    monk: int
    hair: tuple[float, float, float]
    hair_style: str
    iris: tuple[float, float, float]
    outfit: Outfit

    @property
    def phenotype(self) -> dict[str, float]:
        """anny's labels in [0, 1]; gender 0 is male, 1 female."""
        return self.shape.phenotype


def draw_look(
    rng: np.random.Generator,
    prior: BodyPrior | None = None,
    clothes: ClothesPrior | None = None,
    textures: tuple[str, ...] = (),
) -> Look:
    """A person of ``prior``'s people; without one every age, sex, build and skin tone is equally frequent.

    ``textures``: files of the user's fabrics.
    """
    shape = draw_shape(rng, prior or BodyPrior())
    male, monk = shape.sex == "male", shape.skin_tone - 1
    hair = HAIR_SRGB[rng.choice([7, 8])] if shape.age_years > 66 else HAIR_SRGB[rng.integers(7 if monk < 6 else 3)]
    styles = ("short", "crop") if male else ("long", "long", "short")
    outfit = draw_outfit(rng, shape.age_years, shape.sex, clothes, textures)
    return Look(
        shape=shape,
        skin=linear(MONK_SRGB[monk], 0.9),
        monk=monk + 1,
        hair=linear(hair),
        hair_style=str(rng.choice(styles)),
        iris=linear(str(rng.choice(IRIS_SRGB[: 2 if monk > 5 else 5]))),
        outfit=outfit,
    )
