"""A generator and a body -> one person's skin: freckles, blush, lips, nails, what age and the sun have done to it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

Colour = tuple[float, float, float]
# Share of people with freckles, by the Monk tone's class: light, middle, dark.
FRECKLED = {"light": 0.3, "middle": 0.1, "dark": 0.0}
# Of women and girls from 14 on.
LIPSTICK, POLISH, FROM_YEARS = 0.35, 0.3, 14.0
# Of men from 17 on: shaven skin that still shows the beard's shadow.
SHADOWED, BEARDED_FROM = 0.6, 17.0
AGES, SEXES, TONES = {"young", "middleage", "old"}, {"male", "female"}, {"lightskinned", "darkskinned"}
LIPSTICKS = ("8f2a34", "a8434a", "7a2230", "b5585a", "c06a66", "6e2b3a", "a53a2e")
POLISHES = ("8e1b2c", "c2405a", "e6c3c4", "f1e6e2", "2a2230", "3b5a7a", "7b3f61", "caa27a")


@dataclasses.dataclass(frozen=True)
class Skin:
    """``freckles``, ``blush``, ``shadow`` (of a shaven beard), ``weather`` (blotches of sun and age), ``tired`` (dark under
    the eyes), ``oil``: 0..1. ``wrinkles``: 0 smooth to 1 at ninety. ``lipstick``, ``polish``: sRGB "rrggbb" or None.
    ``photo``: file of a photographed skin on the base mesh's map, or None. ``borrowed``: it is a man's, and the person is none.
    """

    colour: Colour
    tone: int
    age_years: float
    seed: int
    freckles: float
    moles: int
    blush: float
    weather: float
    tired: float
    shadow: float
    wrinkles: float
    oil: float
    lipstick: str | None
    polish: str | None
    photo: str | None = None
    borrowed: bool = False


def draw_skin(rng: np.random.Generator, colour: Colour, tone: int, age_years: float, sex: str) -> Skin:
    """``colour``: linear RGB of the clear skin. ``tone``: Monk's, 1 lightest to 10."""
    adorned = sex == "female" and age_years >= FROM_YEARS
    old = float(np.clip((age_years - 32) / 58, 0, 1))
    freckled = rng.random() < FRECKLED[tone_class(tone)]
    amount = float(rng.uniform(0.25, 1.0))
    lipstick = str(rng.choice(LIPSTICKS)) if adorned and rng.random() < LIPSTICK else None
    polish = str(rng.choice(POLISHES)) if adorned and rng.random() < POLISH else None
    shaven = sex == "male" and age_years >= BEARDED_FROM and rng.random() < SHADOWED
    young = age_years < 12
    return Skin(
        colour=colour,
        tone=tone,
        age_years=age_years,
        seed=int(rng.integers(2**31)),
        freckles=amount if freckled else 0.0,
        moles=0 if age_years < 4 else int(rng.poisson(1.2 + 1.5 * old)),
        blush=float(rng.uniform(0.5, 1.0) if young else rng.uniform(0.3, 1.0)),
        weather=float(np.clip(rng.normal(0.15 + 0.6 * old, 0.12), 0.03, 1)) * (0.4 if young else 1.0),
        tired=float(np.clip(rng.normal(0.25 + 0.3 * old, 0.18), 0, 1)) * (0.4 if young else 1.0),
        shadow=float(rng.uniform(0.25, 0.8)) if shaven else 0.0,
        wrinkles=float(np.clip(old * rng.uniform(0.75, 1.25), 0, 1)),
        oil=float(rng.uniform(0.0, 1.0)),
        lipstick=lipstick,
        polish=polish,
    )


def suited(files: tuple[str, ...], skin: Skin, sex: str) -> str | None:
    """Of the user's skins one whose name suits ``skin`` best, the same for the same person; None without any. What a name does not
    say suits everyone.
    """
    if not files:
        return None
    age = "young" if skin.age_years < 38 else "middleage" if skin.age_years < 60 else "old"
    tone = "darkskinned" if skin.tone >= 6 else "lightskinned"

    def strangeness(file: str) -> float:
        words = _words(file)
        asked = ((AGES, age, 1.0), (SEXES, sex, 2.0), (TONES, tone, 4.0))
        return sum(weight for known, own, weight in asked if words & known and own not in words)

    least = min(map(strangeness, files))
    near = [f for f in files if strangeness(f) == least]
    return near[skin.seed % len(near)]


def photographed(skin: Skin, files: tuple[str, ...], sex: str) -> Skin:
    """``skin`` with what of the user's ``files`` suits it."""
    photo = suited(files, skin, sex)
    grown_man = sex == "male" and skin.age_years >= BEARDED_FROM
    return dataclasses.replace(
        skin, photo=photo, borrowed=photo is not None and "male" in _words(photo) and not grown_man
    )


def _words(file: str) -> set[str]:
    return set(re.split(r"[^a-z]+", Path(file).stem.lower()))


def tone_class(tone: int) -> str:
    """ "light" (Monk 1 to 4), "middle" (5 and 6) or "dark"."""
    return "light" if tone <= 4 else "middle" if tone <= 6 else "dark"
