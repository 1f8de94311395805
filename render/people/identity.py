"""An identity's generator -> who it is: body, skin, hair and clothes, drawn once and kept for all its samples."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.clothes import ClothesPrior
from render.people.outfit import Outfit, draw_outfit, linear

# Ten tones from light to dark in the order of the Monk scale (linear RGB of its published sRGB swatches).
MONK_SRGB = ["f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420"]
HAIR_SRGB = ["0c0a09", "1c1411", "33221a", "53361f", "7a5230", "a87b43", "c9a66b", "6e6a66", "b9b4ad", "7a2e14"]
IRIS_SRGB = ["3b2314", "5a3a1e", "6b7a4b", "4f6f8f", "7d8a94"]


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything that stays the same about one person. Colours are linear RGB."""

    phenotype: dict[str, float]
    skin: tuple[float, float, float]
    monk: int
    hair: tuple[float, float, float]
    hair_style: str
    iris: tuple[float, float, float]
    outfit: Outfit
    asymmetry: float


def draw_look(
    rng: np.random.Generator, clothes: ClothesPrior | None = None, textures: tuple[str, ...] = ()
) -> Look:
    """A person; every age from small child to old, both sexes, all builds and tones equally often."""
    # anny's age: 0 newborn, 1/3 child, 2/3 young adult, 1 old.
    age = float(rng.choice([rng.uniform(0.28, 0.5), rng.uniform(0.6, 0.8), rng.uniform(0.6, 1.0)]))
    gender = float(np.clip(rng.choice([0.0, 1.0]) + rng.normal(0, 0.12), 0, 1))
    phenotype = {
        "age": age,
        "gender": gender,
        "muscle": float(rng.beta(3, 3)),
        "weight": float(rng.beta(3, 3)),
        "height": float(rng.beta(4, 4)),
        "proportions": float(rng.beta(4, 4)),
    }
    monk = int(rng.integers(10))
    hair = HAIR_SRGB[rng.choice([7, 8])] if age > 0.9 else HAIR_SRGB[rng.integers(7 if monk < 6 else 3)]
    styles = ("short", "crop") if gender > 0.5 else ("long", "long", "short")
    outfit = draw_outfit(rng, 90 * max(age - 0.2, 0), "male" if gender < 0.5 else "female", clothes, textures)
    return Look(
        phenotype=phenotype,
        skin=linear(MONK_SRGB[monk], 0.9),
        monk=monk + 1,
        hair=linear(hair),
        hair_style=str(rng.choice(styles)),
        iris=linear(str(rng.choice(IRIS_SRGB[: 2 if monk > 5 else 5]))),
        outfit=outfit,
        asymmetry=float(rng.normal(0, 0.02)),
    )
