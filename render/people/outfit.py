"""An identity's generator, age and sex -> what the person wears: garments in the order they are put on, and their fabric."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.clothes import BOTTOMS, HATS, PATTERNS, SHOES, TOPS, ClothesPrior
from render import response

Colour = tuple[float, float, float]
# What photographs show of cloth: dark, muted, light and bright, in the proportions of a street.
NEUTRAL = ("16181d", "2b2d33", "4b4e55", "7d8087", "b9b8b2", "e8e5dd", "1b1c20", "23262b")
EARTH = ("5a4632", "7b5f43", "a58a63", "c9b28a", "6b6a45", "4d5434", "8a4a2b", "3c2a20")
COOL = ("1b2640", "2a3d5e", "476a93", "8aa5bd", "24474d", "3d6f66", "46456a", "9aa7bb")
WARM = ("6b2129", "94352f", "a85f41", "b98d4c", "c9b06a", "9c5a6b", "c7a0a0", "593245")
PALETTES = (NEUTRAL, EARTH, COOL, WARM)
DENIM = ("14213d", "23395b", "3a5a83", "6f8fb3", "1a1c22", "8c9bad")
HIDE = ("1a1512", "2b1d14", "4a2c1a", "6b4226", "0f0f10", "3a3632")
# Light, shade and a camera make colours stronger than their dye is: so much of what is shown is taken back.
GREYER = 0.12
SOLES = ("e9e6df", "f5f3ee", "1d1b1a", "3a2a1e", "b79a6b")


@dataclasses.dataclass(frozen=True)
class Wear:
    """One thing that is worn. ``slot``: legs, socks, shoes, bottom, top, over, hat. ``name``: of the garment. ``fit``: 0
    tight to 1 loose. ``fabric``: of render/people/fabric.py. Colours are linear RGB. ``texture``: file of the
    user's fabric, or None; ``texture_m``: metres that it spans.
    """

    slot: str
    name: str
    fit: float
    fabric: str
    pattern: str
    colour: Colour
    second: Colour
    seed: int
    texture: str | None = None
    texture_m: float = 0.0


@dataclasses.dataclass(frozen=True)
class Outfit:
    """``wears``: from the skin outwards."""

    wears: tuple[Wear, ...]

    def of(self, slot: str) -> Wear | None:
        """What is worn there."""
        return next((w for w in self.wears if w.slot == slot), None)


def draw_outfit(
    rng: np.random.Generator,
    age_years: float,
    sex: str,
    prior: ClothesPrior | None = None,
    textures: tuple[str, ...] = (),
) -> Outfit:
    """What one person wears. ``sex``: "female" or "male". ``textures``: files of the user's fabrics."""
    prior = prior or ClothesPrior()
    skirts = prior.skirts_for_all or sex == "female"
    fit = float(rng.uniform(*prior.fit))
    palette = PALETTES[int(rng.choice(4, p=[0.5, 0.18, 0.24, 0.08]))]
    draw = _Draw(rng, prior, palette, textures)
    top = _one(rng, prior.tops, TOPS)
    bottom = _one(rng, prior.bottoms, BOTTOMS if skirts else BOTTOMS[:-1])
    if skirts and rng.random() < prior.dress:
        top, bottom = "dress", "dress"
    coat = top != "hoodie" and rng.random() < prior.coat
    shoes, hat = _one(rng, prior.shoes, SHOES), _one(rng, prior.hats, HATS)
    wears = []
    if bottom in ("skirt", "dress"):
        warm = coat or hat == "beanie" or rng.random() < 0.4
        wears.append(draw.wear("legs", str(rng.choice(["tights", "leggings"])) if warm else "close_shorts", 0.0))
    if shoes != "sandals" and not any(w.name == "tights" for w in wears):
        low = shoes == "low_shoes" and bottom in ("skirt", "dress", "shorts")
        if not low:
            wears.append(draw.wear("socks", "socks", 0.0))
    wears.append(draw.wear("shoes", shoes, 0.0))
    bottom_fit = float(np.clip(fit + rng.normal(0, 0.12), *prior.fit))
    if bottom not in ("skirt", "dress"):
        wears.append(draw.wear("bottom", bottom, 0.0 if bottom == "leggings" else bottom_fit))
    # Little children's tops are cut wide.
    wears.append(draw.wear("top", top, max(fit, min(0.5, prior.fit[1])) if age_years < 5 else fit, covered=coat))
    if bottom == "skirt":
        wears.append(draw.wear("bottom", bottom, bottom_fit))
    if coat:
        wears.append(draw.wear("over", "coat", fit))
    if hat != "none":
        wears.append(draw.wear("hat", hat, 0.0))
    return Outfit(tuple(wears))


class _Draw:
    """Draws each garment's cloth."""

    def __init__(
        self, rng: np.random.Generator, prior: ClothesPrior, palette: tuple[str, ...], textures: tuple[str, ...]
    ) -> None:
        self._rng, self._prior, self._palette, self._textures = rng, prior, palette, textures

    def wear(self, slot: str, name: str, fit: float, covered: bool = False) -> Wear:
        rng, prior = self._rng, self._prior
        fabrics = FABRICS[name]
        fabric = str(fabrics[int(rng.integers(len(fabrics)))])
        hide = rng.random() < prior.leather
        if name in ("coat", "skirt"):
            fabric = "leather" if hide else fabric
        drawn = _one(rng, prior.patterns, PATTERNS)
        patterned = slot == "hat" or (
            slot in ("top", "bottom") and name in (*TOPS, "dress", "skirt") and fabric != "leather"
        )
        mixed = rng.random() < 0.3
        colours = PALETTES[int(rng.integers(4))] if mixed else self._palette
        colours = {"denim": DENIM, "leather": HIDE}.get(fabric, colours)
        if name in ("tights", "leggings", "close_shorts"):
            colours = NEUTRAL[:4]
        first, *others = (str(c) for c in rng.choice(colours, 4, replace=False))
        # Coats are mostly dark, and lighter what is under them: of two.
        if slot == "over" or covered:
            first, *others = sorted((first, others[0]), key=_shown, reverse=covered) + others[1:]
        # Patterns are woven and printed to be seen.
        second = max(others, key=lambda c: abs(_shown(c) - _shown(first)))
        if name == "socks":
            first = str(rng.choice(NEUTRAL))
        seed = int(rng.integers(2**31))
        own = rng.random() < prior.texture_share and slot in ("top", "bottom", "over")
        texture = str(rng.choice(self._textures)) if self._textures and own else None
        # Three hats of four are plain, whatever is worn with them.
        patterned &= slot != "hat" or seed % 4 == 0
        pattern = drawn if patterned and texture is None else "plain"
        return Wear(slot, name, fit, fabric, pattern, dyed(first), dyed(second), seed, texture, prior.texture_m)


def _shown(hex_srgb: str) -> float:
    """Mean of the three channels."""
    return sum(bytes.fromhex(hex_srgb)) / 3


def dyed(hex_srgb: str) -> Colour:
    """Linear RGB albedo of cloth that photographs show as an "rrggbb" sRGB colour."""
    shown = np.array(linear(hex_srgb))
    r, g, b = (float(v) for v in shown + GREYER * (shown @ response.LUMA - shown))
    return r, g, b


def linear(hex_srgb: str, gain: float = 1.0) -> Colour:
    """Linear RGB of an "rrggbb" sRGB colour."""
    value = response.linear(np.frombuffer(bytes.fromhex(hex_srgb), np.uint8)) * gain
    return float(value[0]), float(value[1]), float(value[2])


def _one(rng: np.random.Generator, shares: dict[str, float], names: tuple[str, ...]) -> str:
    weights = np.array([shares.get(n, 0.0) for n in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


FABRICS = {
    "t_shirt": ("jersey",),
    "shirt": ("woven", "woven", "denim"),
    "jumper": ("knit",),
    "hoodie": ("fleece", "jersey"),
    "coat": ("wool", "wool", "woven"),
    "dress": ("woven", "jersey"),
    "skirt": ("woven", "denim", "wool"),
    "trousers": ("woven", "wool", "woven"),
    "jeans": ("denim",),
    "shorts": ("woven", "jersey", "denim"),
    "leggings": ("jersey",),
    "tights": ("jersey",),
    "close_shorts": ("jersey",),
    "socks": ("jersey",),
    "trainers": ("jersey", "leather"),
    "boots": ("leather",),
    "low_shoes": ("leather",),
    "sandals": ("leather",),
    "cap": ("woven",),
    "beanie": ("knit",),
    "brimmed": ("wool",),
}
