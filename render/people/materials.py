"""A look -> the surface of each kind of piece: skin, cloth with woven patterns, eyes, teeth, a cap of hair, accessories."""

from __future__ import annotations

import numpy as np

from render.people.accessories import materials_of_things
from render.people.complexion import Complexions, moved_lines
from render.people.eyes import WHITE, eye_materials
from render.people.fabric import material, ribbed
from render.people.hair import tinted
from render.people.identity import Look
from render.people.outfit import SOLES, Outfit, linear
from render.people.teeth import enamel
from render.scene import Material

GREY = (0.5, 0.5, 0.5)


def materials_of(look: Look, complexions: Complexions, actions: dict[str, float]) -> dict[str, Material]:
    """kind -> Material. ``actions``: of the face, in [0, 1]."""
    skin = np.array(look.skin)
    lips = tuple(float(v) for v in np.clip(skin * (0.82, 0.5, 0.5), 0.01, 1))
    found = clothes_of(look.outfit) | {
        "skin": Material("skin", look.skin, roughness=0.5, subsurface=0.12, bump=0.12, bump_scale=350.0),
        "lips": Material("lips", (lips[0], lips[1], lips[2]), roughness=0.35, subsurface=0.1),
        "brows": Material("brows", _mix(look.cap.colour, look.skin, 0.35), roughness=0.8, bump=0.3, bump_scale=700.0),
        "cap": Material("cap", look.cap.colour, roughness=0.45, bump=0.9, bump_scale=260.0),
        "sclera": Material("sclera", WHITE, roughness=0.12),
        "iris": Material("iris", look.iris, roughness=0.08),
        "pupil": Material("pupil", (0.005, 0.005, 0.005), roughness=0.05),
        "teeth": Material("teeth", (0.78, 0.73, 0.62), roughness=0.22, subsurface=0.3),
        "tongue": Material("tongue", (0.42, 0.12, 0.11), roughness=0.35, subsurface=0.15),
        "lashes": Material("lashes", _mix(look.hair.own_color, (0.01, 0.01, 0.01), 0.6), roughness=0.7),
    }
    if look.detail == "mannequin":
        return {kind: Material(kind, GREY, roughness=0.6) for kind in found}
    if look.detail == "full":
        found |= complexions.materials(look.complexion, moved_lines(actions))
        found["head"] = tinted(found["head"], look.hair, complexions.at)
        found |= materials_of_things(look.things)
        found["teeth"] = enamel(look.shape.age_years, look.complexion.seed)
        found |= eye_materials(look.iris, look.pupil, round(look.shape.age_years), look.complexion.seed)
    return found


def clothes_of(outfit: Outfit) -> dict[str, Material]:
    """Slot -> Material, with ribs and soles."""
    made = {}
    for wear in outfit.wears:
        made[wear.slot] = material(wear.slot, wear)
        made[f"{wear.slot}_rib"] = ribbed(f"{wear.slot}_rib", wear)
        if wear.slot == "shoes":
            colour = linear(SOLES[wear.seed % len(SOLES)])
            made["sole"] = Material("sole", colour, roughness=0.7, specular=0.3, bump=0.1, bump_scale=90.0)
    return made


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], t: float) -> tuple[float, float, float]:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t
