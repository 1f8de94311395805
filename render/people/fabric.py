"""A fabric, two colours and a seed -> its surface: tiling colour and normal textures, roughness.

Every texture tiles; ``tile_m`` says how many metres of cloth it spans. Legend: P pixels of a tile's side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from manifests.errors import InputError, PhotoError
from manifests.photo import decode, header
from render.people.outfit import Wear
from render.response import developed
from render.scene import Material

PX = 256
# Of a garment's weave, and of the tile that it is sampled from.
WEAVE_PX = 512
GRAPHIC_PX = 512
OWN_PX = 1024
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Fabric:
    """``tile_m``: of its weave. ``relief_m``: depth of the weave. ``mottle``: how uneven the dye is."""

    roughness: float
    specular: float
    tile_m: float
    relief_m: float
    mottle: float
    stiff: float


FABRICS = {
    "jersey": Fabric(0.88, 0.2, 0.08, 0.00006, 0.05, 0.1),
    "woven": Fabric(0.82, 0.25, 0.08, 0.00006, 0.05, 0.35),
    "knit": Fabric(0.95, 0.1, 0.10, 0.0009, 0.10, 0.5),
    "fleece": Fabric(0.95, 0.1, 0.12, 0.0006, 0.06, 0.5),
    "wool": Fabric(0.93, 0.12, 0.12, 0.0007, 0.14, 0.7),
    "denim": Fabric(0.85, 0.2, 0.10, 0.0005, 0.12, 0.65),
    "leather": Fabric(0.38, 0.5, 0.12, 0.0006, 0.10, 0.9),
}


def own_pictures(named: str | None, key: str, root: Path) -> list[tuple[str, str]]:
    """(file, sha256) of every picture in the user's folder ``named`` under ``key`` in the job, sorted; empty without one.
    Raises InputError.
    """
    if named is None:
        return []
    folder = root / named
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise InputError(f"{key}: no .png or .jpg in {named} (looked in {root})")
    for file in files:
        try:
            header(file.read_bytes())
        except PhotoError as error:
            raise InputError(f"{key}: {file.name}: {error}; take it out of the folder") from None
    return [(str(f), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


def tile_m(wear: Wear) -> float:
    """Metres of cloth that a tile of ``wear``'s textures spans."""
    if wear.texture is not None:
        return wear.texture_m
    if graphic(wear):
        return 1.0
    return FABRICS[wear.fabric].tile_m * (4 if wear.pattern in ("checks", "print") else 2)


def graphic(wear: Wear) -> bool:
    """Whether the print is one picture on the chest, not a pattern all over."""
    return wear.pattern == "print" and wear.name in ("t_shirt", "hoodie", "jumper") and wear.seed % 3 > 0


def material(name: str, wear: Wear) -> Material:
    """The surface of one garment."""
    fabric = FABRICS[wear.fabric]
    made = Material(name, wear.colour, roughness=fabric.roughness, specular=fabric.specular)
    # What is finer than the creases in the mesh (folds.creases), less the stiffer the cloth is.
    made.bump, made.bump_scale, made.bump_m, made.bump_folds = 1.0 - 0.6 * fabric.stiff, 16.0, 0.006, True
    made.base_color_texture = _colour(wear, fabric) if wear.texture is None else picture(wear.texture)
    repeats = max(1, round(tile_m(wear) / fabric.tile_m))
    made.normal_texture = weave(wear.fabric, repeats)
    made.roughness_texture = _rough(fabric.roughness) if wear.fabric in ("leather", "denim") else None
    return made


def ribbed(name: str, wear: Wear) -> Material:
    """The same yarn, knitted as a rib: collars, cuffs and hems."""
    shade = 0.8 if wear.pattern == "plain" else 0.95
    colour = tuple(float(c) * shade for c in wear.colour)
    made = Material(name, (colour[0], colour[1], colour[2]), roughness=0.92, specular=0.12)
    made.normal_texture = weave("rib", 1)
    return made


@functools.lru_cache(maxsize=32)
def picture(path: str) -> np.ndarray:
    """(h, w, 4) uint8 of the user's fabric, at most OWN_PX wide or high; PhotoError where it cannot be read."""
    rgb, _ = decode(Path(path).read_bytes())
    scale = OWN_PX / max(rgb.shape[:2])
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


@functools.cache
def weave(fabric: str, repeats: int) -> np.ndarray:
    """(P, P, 4) uint8 tangent-space normals of ``repeats`` by ``repeats`` tiles of a fabric's relief, P at most WEAVE_PX."""
    px = min(PX, WEAVE_PX // repeats)
    depth, tile = (0.0008, 0.08) if fabric == "rib" else (FABRICS[fabric].relief_m, FABRICS[fabric].tile_m)
    y, x = np.mgrid[0:WEAVE_PX, 0:WEAVE_PX] / WEAVE_PX
    height = RELIEFS[fabric](x, y).astype(np.float32)
    # Yarn that the texture is too coarse for is smooth cloth: sampled as it is, it would alias to waves centimetres wide.
    height = gaussian_filter(height, 0.5 * WEAVE_PX / px, mode="wrap")
    at = (np.arange(px) + 0.5) * WEAVE_PX / px - 0.5
    height = depth * map_coordinates(height, np.meshgrid(at, at, indexing="ij"), order=1, mode="grid-wrap")
    step = tile / px
    gx = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / (2 * step)
    gy = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) / (2 * step)
    n = np.dstack([-gx, gy, np.ones_like(gx)])
    n /= np.linalg.norm(n, axis=2, keepdims=True)
    rgb = np.rint((n * 0.5 + 0.5) * 255).astype(np.uint8)
    return np.tile(np.dstack([rgb, np.full((px, px), 255, np.uint8)]), (repeats, repeats, 1))


def _wavy(x: np.ndarray, n: int) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * n * x)


def _stitches(x: np.ndarray, y: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Columns of V-shaped loops."""
    across = (x * columns) % 1
    v = (y * rows + 0.5 * np.abs(across - 0.5) * 2) % 1
    return np.sin(np.pi * v) ** 0.7 * np.sin(np.pi * ((across * 2) % 1)) ** 0.7


def _noise(px: int, cells: int, seed: int = 7, octaves: int = 3) -> np.ndarray:
    """(px, px) in about 0..1, tiling, the coarsest lumps a ``cells``-th of the tile."""
    rng = np.random.default_rng(seed)
    total = np.zeros((px, px), np.float32)
    for k in range(octaves):
        n = min(cells * 2**k, px)
        grid = np.pad(rng.random((n, n)).astype(np.float32), 2, mode="wrap")
        big = cv2.resize(grid, None, fx=px / n, fy=px / n, interpolation=cv2.INTER_CUBIC)
        cut = round(2 * px / n)
        total += big[cut : cut + px, cut : cut + px] * 0.5**k
    return (total - total.min()) / max(float(np.ptp(total)), 1e-9)


RELIEFS = {
    "jersey": lambda x, y: _stitches(x, y, 40, 44),
    "woven": lambda x, y: np.where(((x * 40).astype(int) + (y * 40).astype(int)) % 2 == 0, _wavy(x, 40), _wavy(y, 40)),
    "knit": lambda x, y: _stitches(x, y, 24, 27),
    "fleece": lambda x, y: _noise(WEAVE_PX, 48, 5),
    "wool": lambda x, y: 0.85 * _noise(WEAVE_PX, 56, 9) + 0.15 * _wavy(x + y, 60),
    "denim": lambda x, y: _wavy(x + y, 44) * (0.7 + 0.3 * _wavy(x, 44)),
    "leather": lambda x, y: np.minimum(_noise(WEAVE_PX, 40, 3, 2) * 2.2, 1) ** 0.5,
    "rib": lambda x, y: np.sin(np.pi * ((x * 14) % 1)) ** 0.6,
}


def _colour(wear: Wear, fabric: Fabric) -> np.ndarray:
    rng = np.random.default_rng(wear.seed)
    px = GRAPHIC_PX if wear.pattern == "print" else PX
    y, x = np.mgrid[0:px, 0:px] / px
    weight = PICTURES[wear.pattern](x, y, rng, graphic(wear)) if wear.pattern != "plain" else np.zeros((px, px))
    # An edge is a texel wide: a pixel of a close-up is finer than a texel.
    weight = gaussian_filter(weight.astype(np.float32), 0.7, mode="wrap")
    if wear.fabric == "denim":
        weight = 0.35 * _wavy(x + y, 88 if px == PX else 44)
        second = np.minimum(np.array(wear.colour) * 3 + 0.06, 0.8)
    else:
        second = np.array(wear.second)
    rgb = np.array(wear.colour) * (1 - weight[..., None]) + second * weight[..., None]
    rgb *= (1 + fabric.mottle * (2 * _noise(px, 6, wear.seed % 9973, 5) - 1))[..., None]
    return np.dstack([developed(rgb, "srgb"), np.full((px, px), 255, np.uint8)])


@functools.cache
def _rough(level: float) -> np.ndarray:
    value = np.clip(level + 0.16 * (_noise(128, 8, 21, 4) - 0.5), 0.05, 1)
    grey = np.rint(value * 255).astype(np.uint8)
    return np.dstack([grey, grey, grey, np.full_like(grey, 255)])


def _stripes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, chest: bool) -> np.ndarray:
    n, broad = int(rng.integers(4, 13)), rng.uniform(0.15, 0.6)
    return ((x if rng.random() < 0.35 else y) * n % 1 < broad).astype(float)


def _checks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, chest: bool) -> np.ndarray:
    n, broad = int(rng.integers(3, 12)), rng.uniform(0.2, 0.5)
    a, b = ((x * n % 1) < broad).astype(float), ((y * n % 1) < broad).astype(float)
    fine = ((x * n % 1) > 0.8) & ((x * n % 1) < 0.86) | ((y * n % 1) > 0.8) & ((y * n % 1) < 0.86)
    return np.where(fine, 0.9, (a + b) / 2)


def _print(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, chest: bool) -> np.ndarray:
    if chest:
        return _graphic(x, y, rng)
    weight, px = np.zeros_like(x), len(x)
    many, kind, size = int(rng.integers(120, 420)), int(rng.integers(4)), rng.uniform(0.012, 0.03)
    tones = rng.permutation([1.0, 0.75, 0.5])
    for k in range(many):
        # Small ones between the large ones, in three tones.
        r, turn = size * (1.0, 0.45, 0.7)[k % 3] * rng.uniform(0.8, 1.3), rng.uniform(0, 6.3)
        reach = np.arange(-int(1.3 * r * px) - 1, int(1.3 * r * px) + 2)
        rows, columns = ((rng.integers(px) + reach) % px for _ in range(2))
        dy, dx = np.meshgrid(reach / px, reach / px, indexing="ij")
        far, angle = np.hypot(dx, dy), np.arctan2(dy, dx) + turn
        edge = (
            r
            * (
                np.ones_like(far),
                0.65 + 0.35 * np.cos(5 * angle),
                0.3 + 0.9 * np.abs(np.cos(angle)) ** 3,
                0.75 + 0.35 * np.abs(np.cos(angle)),
            )[kind]
        )
        here = weight[np.ix_(rows, columns)]
        here = np.where(far < edge, tones[k % 3], here)
        weight[np.ix_(rows, columns)] = np.where((far < 0.25 * r) & (kind == 1), 0.15, here)
    return weight


def _graphic(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One picture about 22 cm wide in the middle of a metre: a disc, bars of lettering or a mountain."""
    dx, dy = (x - 0.5) / 0.12, (y - 0.5) / 0.12
    kind = int(rng.integers(4))
    if kind == 0:
        shape = (np.hypot(dx, dy) < 0.9) & ~((np.hypot(dx, dy) < 0.7) & (((dy * 5) % 1) < 0.5))
    elif kind == 1:
        letters = np.sin(dx * rng.uniform(14, 24) + rng.uniform(0, 6)) > -0.3
        shape = (np.abs(dy) < 0.25) & (np.abs(dx) < 1) & letters
    elif kind == 2:
        shape = (dy > np.abs(dx - 0.2) * 1.3 - 0.6) & (dy < 0.6) & (np.abs(dx) < 1)
        shape ^= np.hypot(dx + 0.5, dy + 0.5) < 0.22
    else:
        shape = (np.abs(dx) < 0.95) & (np.abs(dy) < 0.95) & (((dx + dy) * rng.uniform(1.5, 3)) % 1 < 0.5)
    return shape.astype(float)


PICTURES = {"stripes": _stripes, "checks": _checks, "print": _print}
