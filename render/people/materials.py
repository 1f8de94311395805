"""A look -> the surface of each kind of piece: skin, cloth with woven patterns, hair, eyes."""

from __future__ import annotations

import numpy as np

from render.people.identity import Look
from render.scene import Material

TEXTURE_PX = 128


def materials_of(look: Look) -> dict[str, Material]:
    """kind -> Material."""
    skin = np.array(look.skin)
    lips = tuple(float(v) for v in np.clip(skin * (0.82, 0.5, 0.5), 0.01, 1))
    shoes = look.colours["shoes"]
    return {
        "skin": Material("skin", look.skin, roughness=0.5, subsurface=0.12, bump=0.12, bump_scale=350.0),
        "lips": Material("lips", (lips[0], lips[1], lips[2]), roughness=0.35, subsurface=0.1),
        "brows": Material("brows", _mix(look.hair, look.skin, 0.35), roughness=0.8, bump=0.3, bump_scale=700.0),
        "hair": Material("hair", look.hair, roughness=0.45, bump=0.9, bump_scale=260.0),
        "sclera": Material("sclera", (0.72, 0.7, 0.68), roughness=0.12),
        "iris": Material("iris", look.iris, roughness=0.08),
        "pupil": Material("pupil", (0.005, 0.005, 0.005), roughness=0.05),
        "teeth": Material("teeth", (0.72, 0.68, 0.58), roughness=0.25, subsurface=0.1),
        "tongue": Material("tongue", (0.42, 0.12, 0.11), roughness=0.35, subsurface=0.15),
        "lashes": Material("lashes", _mix(look.hair, (0.01, 0.01, 0.01), 0.6), roughness=0.7),
        "top": _cloth("top", look.colours["top"], look.colours["second"], look.patterns["top"]),
        "bottom": _cloth("bottom", look.colours["bottom"], look.colours["second"], look.patterns["bottom"]),
        "shoes": Material("shoes", shoes, roughness=0.4, bump=0.1, bump_scale=90.0),
    }


def _cloth(name: str, colour: tuple[float, float, float], second: tuple[float, float, float], pattern: str) -> Material:
    base = Material(name, colour, roughness=0.85, specular=0.2, bump=0.35, bump_scale=160.0)
    if pattern == "plain":
        return base
    y, x = np.mgrid[0:TEXTURE_PX, 0:TEXTURE_PX] / TEXTURE_PX
    if pattern == "stripes":
        weight = ((y * 8) % 1 < 0.5).astype(float)
    elif pattern == "checks":
        weight = (((y * 5) % 1 < 0.4).astype(float) + ((x * 5) % 1 < 0.4)) / 2
    else:
        # Denim: blue warp, lighter weft on a fine diagonal.
        colour, second = (0.03, 0.06, 0.16), (0.10, 0.16, 0.30)
        weight = 0.5 + 0.5 * np.sin(2 * np.pi * 32 * (x + y))
    linear = np.array(colour) * (1 - weight[..., None]) + np.array(second) * weight[..., None]
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(np.maximum(linear, 1e-8), 1 / 2.4) - 0.055)
    rgba = np.concatenate([srgb, np.ones((TEXTURE_PX, TEXTURE_PX, 1))], axis=2)
    base.base_color_texture = np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8)
    return base


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], t: float) -> tuple[float, float, float]:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t
