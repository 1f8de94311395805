"""A person's generator, age, sex and skin -> hair: style, colour, how much of it is left, brows and beard.

Sources: Norwood grades by age (Hamilton 1951), grey by age (Panhard et al. 2012, British Journal of Dermatology 167).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.hair import HairPrior
from manifests.seeds import generator
from render.people.hair_face import Beard
from render.people.hair_gather import ALONG, LOOSE
from render.people.hair_grow import Style
from render.people.hair_styles import BEARDS, STYLES
from render.people.shape import EUROPEAN, Shape

Colour = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class HairLook:
    """``style``: None where the head is bald. ``recede``, ``crown``: 0 to 1, hair lost in front and at the crown.
    ``grey``: share of white hairs. ``brow``: 0 sparse to 1 bushy. Colours are linear RGB; ``own_color`` and ``own_grey``
    are those that grow: brows and shaven scalps go by them.
    """

    name: str
    style: Style | None
    color: Colour
    own_color: Colour
    beard_color: Colour
    grey: float
    own_grey: float
    recede: float
    crown: float
    brow: float
    beard: Beard | None
    beard_name: str
    seed: int


# Linear RGB that a bundle of such hair has.
BLACK, DARK, BROWN = (0.010, 0.008, 0.007), (0.030, 0.018, 0.011), (0.085, 0.047, 0.026)
LIGHT, SANDY, BLOND = (0.19, 0.115, 0.062), (0.32, 0.215, 0.115), (0.52, 0.38, 0.21)
AUBURN, RED, WHITE = (0.13, 0.038, 0.016), (0.30, 0.085, 0.025), (0.46, 0.44, 0.40)
NATURAL = (BLACK, DARK, BROWN, LIGHT, SANDY, BLOND, AUBURN, RED)
SHARES = {
    "fair": (0.04, 0.24, 0.26, 0.16, 0.12, 0.10, 0.05, 0.03),
    "middle": (0.38, 0.42, 0.16, 0.02, 0.0, 0.0, 0.02, 0.0),
    "dark": (0.72, 0.24, 0.04, 0.0, 0.0, 0.0, 0.0, 0.0),
}
DYED = (
    *((0.62, 0.52, 0.36), (0.70, 0.66, 0.60), (0.30, 0.02, 0.03), (0.55, 0.12, 0.28), (0.04, 0.07, 0.30)),
    *((0.03, 0.20, 0.22), (0.14, 0.03, 0.22), (0.04, 0.20, 0.06), (0.50, 0.18, 0.03), (0.28, 0.02, 0.10)),
)
DYED_SHARES = np.array([4.0, 2.0, 2.5, 1.5, 1.0, 0.7, 0.9, 0.5, 0.5, 1.2])
CURLED = ("coils", "afro", "curly_short", "curly_long", "braids", "buzz", "bald")
SHORT = ("bald", "buzz", "crop", "side_part", "swept_back", "coils")
# A person's own density of hair, least and most, and how much of it is gone at 80.
DENSITY, AGE_THINS = (0.78, 1.15), 0.12
# Tied hair that curls, of African shape: turns, how much it shrinks, what is left of its strands, which have more points.
TIED_CURL, TIED_PITCH, TIED_SHRINKS, TIED_FEWER = 0.004, 0.035, 0.6, 0.8
UPRIGHT = ("afro", "coils", "top_bun", "bun")
BEARD_YEARS, DYE_YEARS, FULL_YEARS, GREY_YEARS = 18.0, 14.0, 3.0, 18.0
# Taken off the length of hair round a crown that is all bare.
BALD_SHORTER = 0.6
# Of straight hair's slight waves: the greatest radius of their turns, and points that a turn needs to be one.
WAVE_M, POINTS_A_TURN = 0.006, 5


def draw_hair(rng: np.random.Generator, shape: Shape, hat: bool, prior: HairPrior) -> HairLook:
    """Hair of one person. ``hat``: leaves no room for hair that stands or is tied up."""
    years, male = shape.age_years, shape.sex == "male"
    recede, crown = _loss(rng, years, male, prior.balding)
    name = _style(rng, shape, prior, recede, crown, hat)
    style = _cut(rng, STYLES[name], years, shape.phenotype["african"])
    if style is not None and crown > 0:
        # What is left round a bare crown is worn short, and lies thinner.
        left = 1 - BALD_SHORTER * crown
        less = {name: getattr(style, name) * left for name in ("top", "front", "side", "back", "volume")}
        style = dataclasses.replace(style, **less)
    if hat and style is not None:
        style = dataclasses.replace(style, volume=min(style.volume, 0.008))
    natural = _natural(rng, shape)
    grey = _grey(rng, years, prior.greying)
    color, tip = natural, grey
    if years >= DYE_YEARS and rng.random() < prior.dyed:
        color = _jittered(rng, DYED[rng.choice(len(DYED), p=DYED_SHARES / DYED_SHARES.sum())])
        tip = 0.0
    kinds = [k for k in BEARDS if prior.beards.get(k, 0) > 0]
    weights = np.array([prior.beards[k] for k in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    beard = BEARDS[kind] if male and years >= BEARD_YEARS else None
    redder = (natural[0] * 1.15, natural[1] * 0.95, natural[2] * 0.85)
    seed = int(rng.integers(2**62))
    return HairLook(
        name=name,
        # From a stream of its own: what else is drawn does not depend on it.
        style=style and _dense(generator(seed, "density"), style, years),
        color=color,
        own_color=natural,
        beard_color=redder,
        grey=tip,
        own_grey=grey,
        recede=recede,
        crown=crown,
        # Children's are finer.
        brow=float(np.clip(rng.normal(0.55 if male else 0.3, 0.18), 0.05, 1)) * (0.4 + 0.6 * min(years / 16, 1.0)),
        beard=beard,
        beard_name=kind if beard is not None else "none",
        seed=seed,
    )


def _loss(rng: np.random.Generator, years: float, male: bool, balding: float) -> tuple[float, float]:
    """How far the hairline has moved back, and how far the crown is bare."""
    lead, late = rng.beta(1.3, 1.8), rng.normal(0, 0.08)
    if not male:
        return float(np.clip(0.15 * lead + (years - 50) / 400, 0, 0.25)), 0.0
    # Half of all men show it at 50 (Hamilton 1951).
    grade = balding * lead * float(np.clip((years - 18) / 45, 0, 1.4))
    return float(np.clip(grade * 1.1 + late * (years > 16), 0, 1)), float(np.clip((grade - 0.42) * 1.9, 0, 1))


def _style(rng: np.random.Generator, shape: Shape, prior: HairPrior, recede: float, crown: float, hat: bool) -> str:
    shares = prior.male if shape.sex == "male" else prior.female
    african = shape.phenotype["african"]
    names = [n for n in STYLES if shares.get(n, 0) > 0]
    weights = []
    for name in names:
        weight = shares[name]
        if african > 0.5:
            weight *= 5.0 if name in CURLED else 0.25
        elif name in ("afro", "coils"):
            weight *= 0.05 if african < 0.3 else 0.5
        if name == "bald" and shape.age_years < BEARD_YEARS:
            weight = 0.0
        if name not in SHORT:
            # Past the middle of life it is worn shorter.
            weight *= 1 - 0.75 * float(np.clip((shape.age_years - 40) / 25, 0, 1))
        if crown > 0.25 or recede > 0.75:
            weight *= 1.0 if name in SHORT else 0.02
        if hat and name in UPRIGHT:
            weight *= 0.01
        if shape.age_years < FULL_YEARS:
            weight *= 1.0 if name in ("crop", "messy", "curly_short", "coils", "pixie") else 0.02
        if shape.age_years > 65 and shape.sex == "female":
            weight *= 2.5 if name in ("bob", "pixie", "curly_short", "bun") else 0.6
        weights.append(weight)
    if sum(weights) <= 0:
        return names[int(rng.integers(len(names)))]
    return names[rng.choice(len(names), p=np.array(weights) / sum(weights))]


def _cut(rng: np.random.Generator, style: Style | None, years: float, african: float) -> Style | None:
    """One person's version of a style."""
    size, side = float(np.exp(rng.normal(0, 0.16))), float(rng.choice([-1.0, 1.0]))
    curl, frizz = float(np.exp(rng.normal(0, 0.2))), float(np.exp(rng.normal(0, 0.25)))
    shift, wave, pitch = float(rng.normal(0, 0.06)), float(rng.uniform(0.0, WAVE_M)), float(rng.uniform(0.09, 0.16))
    if style is None:
        return None
    small = 0.45 + 0.55 * min(years / FULL_YEARS, 1.0)
    # Fringes keep to the brows.
    front = style.front * (small * size if style.sweep > -0.9 else 0.9 + 0.1 * size)
    made = dataclasses.replace(
        style,
        top=style.top * size * small,
        side=style.side * size * small,
        back=style.back * size * small,
        front=front,
        part=(style.part + shift) * side,
        curl=style.curl * curl,
        pitch=style.pitch * curl,
        frizz=style.frizz * frizz,
        count=int(style.count * (0.45 + 0.55 * min(years / FULL_YEARS, 1.0))),
    )
    # Hardly any hair is quite straight: locks in step bend a little by themselves.
    if style.curl == 0 and not style.gather and style.top > 0.12:
        points = int(np.ceil(POINTS_A_TURN * max(made.top, made.side, made.back) / pitch)) + 1
        made = dataclasses.replace(made, curl=wave, pitch=pitch, points=max(made.points, points))
    if african > 0.5 and style.gather in LOOSE:
        back = made.back * TIED_SHRINKS
        made = dataclasses.replace(
            made,
            back=back,
            curl=TIED_CURL * curl,
            pitch=TIED_PITCH * curl,
            frizz=2.5 * made.frizz,
            points=ALONG + int(np.ceil(POINTS_A_TURN * back / (TIED_PITCH * curl))),
            count=int(made.count * TIED_FEWER),
        )
    if african > 0.5 and made.curl == 0 and not made.gather and made.top < 0.1:
        made = dataclasses.replace(made, curl=0.0024, pitch=0.009, points=max(made.points, 16), lift=0.8)
    return made


def _dense(rng: np.random.Generator, style: Style, years: float) -> Style:
    """A style with one person's density of hair: a little under the style's own on average, so that it costs no more."""
    own = float(np.clip(rng.normal(0.93, 0.1), *DENSITY))
    # Fewer hairs are thicker ones, as red hair's beside fair hair's; age thins them all, women's too (Robbins et al. 2012).
    aged = 1 - AGE_THINS * float(np.clip((years - 35) / 45, 0, 1))
    return dataclasses.replace(style, count=round(style.count * own * aged), width=style.width / float(np.sqrt(own)))


def _natural(rng: np.random.Generator, shape: Shape) -> Colour:
    fair = shape.skin_tone <= 5 and shape.phenotype["caucasian"] > EUROPEAN
    shares = SHARES["fair" if fair else "middle" if shape.skin_tone <= 6 else "dark"]
    color = NATURAL[rng.choice(len(NATURAL), p=np.array(shares) / sum(shares))]
    if shape.age_years < 10 and fair:
        color = (color[0] * 1.4, color[1] * 1.4, color[2] * 1.35)
    return _jittered(rng, color)


def _jittered(rng: np.random.Generator, color: Colour) -> Colour:
    r, g, b = np.clip(np.array(color) * np.exp(rng.normal(0, 0.18)) * np.exp(rng.normal(0, 0.05, 3)), 0.003, 0.85)
    return float(r), float(g), float(b)


def _grey(rng: np.random.Generator, years: float, greying: float) -> float:
    """Share of white hairs. Between 45 and 65, 74 % of people have some and those 27 % of their hair (Panhard et al. 2012),
    at 56 to 60 86 % and a third, at 61 to 65 91 % and 40 %; at 50, 6 to 23 % have half or more.
    """
    start, pace = max(rng.normal(45, 11), GREY_YEARS), rng.uniform(18, 70)
    # Slow at first: the first white hairs come years before one in ten is white.
    return float(np.clip(greying * max((years - start) / pace, 0.0) ** 1.5, 0, 1))
