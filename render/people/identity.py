"""An identity's generator -> who it is: body, skin, hair and clothes, drawn once and kept for all its samples."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.bodies import BodyPrior
from render.people.shape import Shape, draw_shape

# Ten tones from light to dark in the order of the Monk scale (linear RGB of its published sRGB swatches).
MONK_SRGB = ["f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420"]
HAIR_SRGB = ["0c0a09", "1c1411", "33221a", "53361f", "7a5230", "a87b43", "c9a66b", "6e6a66", "b9b4ad", "7a2e14"]
CLOTH_SRGB = [
    "1f2a44",
    "7a1f2b",
    "2f5d50",
    "c9b79c",
    "3b3b3f",
    "e4e2dd",
    "8a8f98",
    "b5532a",
    "46618c",
    "d9a441",
    "5a3f6b",
    "9cb3a0",
    "e8c7c8",
    "101114",
    "6b4a2f",
    "2c7da0",
]
IRIS_SRGB = ["3b2314", "5a3a1e", "6b7a4b", "4f6f8f", "7d8a94"]
TOPS, BOTTOMS = ("t_shirt", "long_sleeves", "jumper"), ("trousers", "shorts", "skirt")
PATTERNS = ("plain", "plain", "plain", "stripes", "checks", "denim")


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything that stays the same about one person. Colours are linear RGB."""

    shape: Shape
    skin: tuple[float, float, float]
    monk: int
    hair: tuple[float, float, float]
    hair_style: str
    iris: tuple[float, float, float]
    top: str
    bottom: str
    colours: dict[str, tuple[float, float, float]]
    patterns: dict[str, str]
    fit_m: float

    @property
    def phenotype(self) -> dict[str, float]:
        """anny's labels in [0, 1]; gender 0 is male, 1 female."""
        return self.shape.phenotype


def draw_look(rng: np.random.Generator, prior: BodyPrior | None = None) -> Look:
    """A person of ``prior``'s people; without one every age, sex, build and skin tone is equally frequent."""
    shape = draw_shape(rng, prior or BodyPrior())
    male, monk = shape.sex == "male", shape.skin_tone - 1
    bottom = str(rng.choice(BOTTOMS, p=[0.6, 0.2, 0.2] if male else [0.45, 0.15, 0.4]))
    hair = HAIR_SRGB[rng.choice([7, 8])] if shape.age_years > 66 else HAIR_SRGB[rng.integers(7 if monk < 6 else 3)]
    styles = ("short", "crop") if male else ("long", "long", "short")
    colours = {part: linear(str(rng.choice(CLOTH_SRGB))) for part in ("top", "bottom", "shoes", "second")}
    patterns = {part: str(rng.choice(PATTERNS)) for part in ("top", "bottom")}
    return Look(
        shape=shape,
        skin=linear(MONK_SRGB[monk], 0.9),
        monk=monk + 1,
        hair=linear(hair),
        hair_style=str(rng.choice(styles)),
        iris=linear(str(rng.choice(IRIS_SRGB[: 2 if monk > 5 else 5]))),
        top=str(rng.choice(TOPS)),
        bottom=bottom,
        colours=colours,
        patterns=patterns,
        fit_m=float(rng.uniform(0.006, 0.018)),
    )


def linear(hex_srgb: str, gain: float = 1.0) -> tuple[float, float, float]:
    """Linear RGB of an "rrggbb" sRGB colour."""
    s = np.array([int(hex_srgb[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    value = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) * gain
    return float(value[0]), float(value[1]), float(value[2])
