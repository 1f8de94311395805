"""An identity's generator -> what it wears and carries besides clothes, each thing with its make and colours."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.accessories import BAGS, EARRINGS, EYEWEAR, FROM_YEARS, HELD, AccessoriesPrior
from render.people.outfit import dyed
from render.scene import Material

FRAMES = ("14110f", "2a1c12", "54351d", "1c2430", "6b1f27", "8c8f94", "b08a4a", "3a3632")
LUGGAGE = ("16181d", "23262b", "2b2d33", "1b2640", "24474d", "4a2c1a", "3c2a20", "4d5434", "5a4632", "6b2129", "7d8087")
METALS = ("caa04a", "c9c9c9", "b77a5a")
CLOTHS = ("23262b", "7d1f2a", "27406b", "a58a63", "6b6a45", "b9b8b2", "5a4632", "4d4a78", "e8e5dd", "3c2a20")
MASKS = ("9fc4dd", "e9ecee", "1b1c1f", "2f4a6b", "c9b7b0")
BRIGHTS = ("c23b30", "2f6f9f", "e3b23c", "3a7a4a", "e8e5dd", "1c1c1f", "8a4fa0", "e27a3f")
# Tinted this dark a lens hides the eye from geometry too: it is the surface.
DARK = 0.06


@dataclasses.dataclass(frozen=True)
class Thing:
    """One accessory. ``slot``: eyewear, earrings, scarf, bags, mask, headphones, watch or held. ``kind``: within it.

    ``side``: "L" or "R" of a hand or wrist, else "". Colours are linear RGB. ``seed``: of its own small draws.
    """

    slot: str
    kind: str
    colour: tuple[float, float, float]
    second: tuple[float, float, float]
    side: str = ""
    seed: int = 0


def draw_accessories(
    rng: np.random.Generator, prior: AccessoriesPrior, age_years: float, sex: str, hat: bool
) -> tuple[Thing, ...]:
    """Every draw is made for everyone, so that one share does not shift another's."""
    ears = prior.earrings if sex == "female" else prior.earrings_men
    kinds = {
        "eyewear": _one(rng, prior.eyewear, EYEWEAR),
        "earrings": _one(rng, ears, EARRINGS),
        "scarf": "scarf" if rng.random() < prior.scarf else "none",
        "bags": _one(rng, prior.bags, BAGS),
        "mask": "mask" if rng.random() < prior.mask else "none",
        "headphones": "headphones" if rng.random() < prior.headphones else "none",
        "watch": "watch" if rng.random() < prior.watch else "none",
        "held": _one(rng, prior.held, HELD),
    }
    found = []
    for slot, kind in kinds.items():
        palette = PALETTES[slot]
        first, second = (dyed(str(c)) for c in rng.choice(palette, 2, replace=False))
        side, seed = (
            str(rng.choice(["L", "R"], p=[0.6, 0.4] if slot == "watch" else [0.35, 0.65])),
            int(rng.integers(2**31)),
        )
        if kind == "none" or age_years < FROM_YEARS[slot] or (slot == "headphones" and hat):
            continue
        found.append(Thing(slot, kind, first, second, side if slot in ("watch", "held") else "", seed))
    return tuple(found)


def materials_of_things(things: tuple[Thing, ...]) -> dict[str, Material]:
    """Surfaces by the kinds of the things' pieces."""
    made: dict[str, Material] = {}
    for thing in things:
        for material in MAKES[thing.slot](thing):
            made[material.name] = material
    return made


def _one(rng: np.random.Generator, shares: dict[str, float], names: tuple[str, ...]) -> str:
    weights = np.array([shares.get(n, 0.0) for n in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _eyewear(thing: Thing) -> list[Material]:
    metal = thing.seed % 3 == 0
    frame = Material("glasses", thing.colour, roughness=0.25, metallic=1.0 if metal else 0.0)
    if thing.kind == "glasses":
        return [frame, Material("lens", (0.97, 0.98, 0.98), roughness=0.0, alpha_mode="blend", alpha=0.08, ior=1.5)]
    if thing.seed % 2:
        return [frame, Material("lens", (0.012, 0.012, 0.014), roughness=0.03, specular=0.9)]
    tint = ((0.30, 0.24, 0.20), (0.22, 0.26, 0.24), (0.34, 0.22, 0.14))[thing.seed % 3]
    return [frame, Material("lens", tint, roughness=0.0, alpha_mode="blend", alpha=0.7, ior=1.5)]


def _cloth(name: str, thing: Thing) -> Material:
    from render.people.fabric import weave

    made = Material(name, thing.colour, roughness=0.92, specular=0.12)
    made.normal_texture = weave("knit" if name == "scarf" else "woven", 1)
    if name == "scarf":
        # Crumpled as worn cloth is (fabric.py), finer: a scarf is thin and wound.
        made.bump, made.bump_scale, made.bump_m = 0.6, 22.0, 0.006
    return made


def _held(thing: Thing) -> list[Material]:
    first, second = thing.colour, thing.second
    if thing.kind == "phone":
        return [
            Material("held", first, roughness=0.3),
            Material("held_second", (0.01, 0.01, 0.012), roughness=0.06, specular=0.7),
        ]
    if thing.kind == "cup":
        return [Material("held", (0.72, 0.68, 0.6), roughness=0.6), Material("held_second", first, roughness=0.5)]
    if thing.kind == "book":
        return [Material("held", first, roughness=0.5), Material("held_second", (0.7, 0.66, 0.55), roughness=0.85)]
    if thing.kind == "bottle":
        return [Material("held", first, roughness=0.25), Material("held_second", (0.05, 0.05, 0.055), roughness=0.4)]
    return [
        Material("held", first, roughness=0.55, bump=0.2, bump_scale=250.0),
        Material("held_second", second, roughness=0.55),
    ]


def _metal(thing: Thing) -> Material:
    return Material("earring", thing.colour, roughness=0.18, metallic=1.0)


PALETTES = {"eyewear": FRAMES, "earrings": METALS, "scarf": CLOTHS, "bags": LUGGAGE, "mask": MASKS, "headphones": FRAMES,
            "watch": FRAMES, "held": BRIGHTS}  # fmt: skip
MAKES = {
    "eyewear": _eyewear,
    "earrings": lambda t: [_metal(t)],
    "scarf": lambda t: [_cloth("scarf", t)],
    "bags": lambda t: [_cloth("bag", t), Material("strap", tuple(0.6 * c for c in t.colour), roughness=0.8)],
    "mask": lambda t: [_cloth("mask", t), Material("mask_loop", (0.8, 0.8, 0.8), roughness=0.8)],
    "headphones": lambda t: [
        Material("headphones", t.colour, roughness=0.35),
        Material("pads", (0.02, 0.02, 0.022), roughness=0.7),
    ],
    "watch": lambda t: [
        Material("watch", (0.6, 0.6, 0.6), roughness=0.2, metallic=1.0),
        Material("watch_face", (0.02, 0.02, 0.025), roughness=0.05, specular=0.8),
        Material("watch_band", t.colour, roughness=0.6),
    ],
    "held": _held,
}
