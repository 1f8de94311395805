"""A skin and the body's chart -> the colour of trunk and limbs: palms, joints, freckles, moles, spots of age.

Legend: S texels of a side, N spots.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from render.people.body import groups
from render.people.chart import Chart
from render.people.pigment import clouds, coloured, spots, tint
from render.people.skin import Skin

# Lentigines of the sun come with age and with sun (Bastiaens et al. 2004, Pigment Cell Research 17): none before the first of
# these years, all from the second; how many, on both hands and forearms, by eye.
SPOTTED, SPOTS = (48.0, 85.0), 110
# Freckles on arms and shoulders of the most freckled, and moles below the neck for each on the head.
FRECKLES, MOLES = 2600, 6


@dataclasses.dataclass
class Where:
    """Texels by how often a spot lies there: ``at`` (M,) flat places and ``share`` (M,) their running sum, 1 at the last."""

    at: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, weight: np.ndarray) -> Where:
        """``weight``: (S, S)."""
        at = np.flatnonzero(weight > 0.01)
        total = np.cumsum(weight.ravel()[at], dtype=np.float64)
        return cls(at.astype(np.int32), (total / total[-1]).astype(np.float32))


class BodySkin:
    """What lies where on the body's chart, made once."""

    def __init__(self, chart: Chart, template: np.ndarray, clear: np.ndarray) -> None:
        """``clear``: (S, S), 0 at the neck, where nothing may differ from the head's border."""
        self._chart, self._clear = chart, clear
        # Its edges are soft: a quarter of the texels tells where they are.
        self._joints = cv2.resize(_reddened(chart.place[::2, ::2], template), (chart.side,) * 2)
        self.palms, self.backs, self.arms, self.shoulders = _regions(chart, template)
        real = _covered(chart) * clear * (1 - np.clip(2 * self.palms, 0, 1))
        self._sunned = Where.of(real * np.maximum(self.backs, 0.45 * self.arms))
        self._freckled = Where.of(real * np.maximum(np.maximum(self.shoulders, self.arms), 0.5 * self.backs))
        self._anywhere = Where.of(real)

    def texture(self, skin: Skin, ratio: np.ndarray | None) -> np.ndarray:
        """(S, S, 4) uint8 sRGB. ``ratio``: (S, S, 3), what a photographed skin is to its own cheeks, or None."""
        side, rng = self._chart.side, np.random.default_rng(skin.seed + 1)
        rgb = np.broadcast_to(np.array(skin.colour, np.float32), (side, side, 3)).copy()
        dark = float(np.clip((skin.tone - 3) / 6, 0, 1))
        if ratio is not None:
            rgb *= ratio
        # Palms have no melanin to speak of; a photograph's own may be as pale, and PHOTO_RANGE ends below those of dark people.
        pale = np.array([0.52, 0.30, 0.22], np.float32)
        paled = rgb + (pale - rgb) * (self.palms * (0.25 + 0.4 * dark))[..., None]
        if ratio is not None:
            rgb = np.maximum(rgb, paled)
        else:
            rgb = paled
            tint(rgb, self._joints * (0.75 - 0.3 * dark), (0.97, 0.74, 0.70))
            tint(rgb, self._joints * 0.5 * dark, (0.74, 0.70, 0.68))
            tint(rgb, clouds(rng, 24, 3, side) * (0.25 + 0.5 * skin.weather) * self._clear, (0.95, 0.87, 0.84))
        self._spotted(rgb, skin, dark)
        return coloured(rgb)

    def _spotted(self, rgb: np.ndarray, skin: Skin, dark: float) -> None:
        # A stream of their own: more of one kind leaves the others where they are.
        freckles, moles, aged = np.random.default_rng(skin.seed + 5).spawn(3)
        if skin.freckles:
            marks = self._marks(freckles, round(FRECKLES * skin.freckles), (0.5, 1.5), self._freckled)
            tint(rgb, marks * (0.4 + 0.3 * skin.freckles), (0.74, 0.58, 0.48))
        if skin.moles:
            marks = self._marks(moles, MOLES * skin.moles, (0.7, 1.8), self._anywhere)
            tint(rgb, marks * 0.9, (0.36, 0.25, 0.21))
        first, last = SPOTTED
        age = float(np.clip((skin.age_years - first) / (last - first), 0, 1))
        count = round(SPOTS * age * (0.4 + 0.8 * skin.weather) * (1 - 0.75 * dark))
        if count:
            marks = self._marks(aged, count, (1.0, 3.8), self._sunned)
            # A photograph of old skin has some already.
            tint(rgb, marks * (0.7 if skin.photo is None else 0.45), (0.66, 0.50, 0.40))

    def _marks(self, rng: np.random.Generator, count: int, radius_mm: tuple[float, float], where: Where) -> np.ndarray:
        flat = where.at[np.searchsorted(where.share, rng.random(count, np.float32))]
        at = np.stack([flat % self._chart.side, flat // self._chart.side], axis=1) + rng.random((count, 2)) - 0.5
        at = np.clip(at, 0, self._chart.side - 1)
        # Most are small.
        radius = radius_mm[0] + (radius_mm[1] - radius_mm[0]) * rng.beta(1.2, 2.5, count)
        return spots(at, radius * 1e-3, rng.uniform(0.4, 1, count), self._chart.size_m)


def _covered(chart: Chart) -> np.ndarray:
    """(S, S) uint8: 1 well inside the quads. Between them texels have no size of their own."""
    made = np.zeros((chart.side,) * 2, np.uint8)
    corners = np.rint(chart.uv * [1, -1] * chart.side + [-0.5, chart.side - 0.5]).astype(np.int32)
    for quad in corners:
        cv2.fillConvexPoly(made, quad, (1,))
    return cv2.erode(made, np.ones((3, 3), np.uint8)).astype(np.uint8)


def _reddened(place: np.ndarray, template: np.ndarray) -> np.ndarray:
    """(S, S): knuckles, elbows and knees. ``place``: (S, S, 3) of texels on the template."""
    total = np.zeros(place.shape[:2], np.float32)
    for side in "lr":
        spots = [(f"{side}-elbow", 0.03), (f"{side}-knee", 0.045)]
        spots += [(f"{side}-finger-{f}-{k}", 0.008) for f in range(1, 6) for k in (1, 2, 3)]
        for name, reach in spots:
            cube = groups().get(f"joint-{name}")
            if cube is None:
                continue
            d = place - np.float32(template[np.unique(cube)].mean(axis=0))
            total = np.maximum(total, np.exp(-0.5 * np.einsum("ijk,ijk->ij", d, d) / reach**2))
    return total


def _regions(chart: Chart, template: np.ndarray) -> tuple[np.ndarray, ...]:
    """(S, S) each: palms, backs of hands, outer side of arms, tops of shoulders."""
    gu, gv = np.gradient(chart.place, axis=1), np.gradient(chart.place, axis=0)
    normal = np.cross(gu, -gv)
    normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)
    palms, backs, arms, shoulders = (np.zeros((chart.side,) * 2, np.float32) for _ in range(4))
    for side in "lr":
        names = ("shoulder", "elbow", "hand", "finger-3-1", "finger-2-1", "finger-5-1")
        at = {k: template[np.unique(groups()[f"joint-{side}-{k}"])].mean(axis=0) for k in names}
        along = at["finger-3-1"] - at["hand"]
        inward = np.cross(along, at["finger-2-1"] - at["finger-5-1"]) * (1 if side == "l" else -1)
        inward /= np.linalg.norm(inward)
        near = np.linalg.norm(chart.place - np.float32(at["finger-3-1"]), axis=2) < 0.135
        beyond = (chart.place - np.float32(at["hand"])) @ np.float32(along / np.linalg.norm(along)) > -0.004
        facing = normal @ inward.astype(np.float32)
        palms = np.maximum(palms, np.clip(facing * 1.6, 0, 1) * (near & beyond))
        backs = np.maximum(backs, np.clip(-facing * 1.6, 0, 1) * (near & beyond))
        for a, b in (("shoulder", "elbow"), ("elbow", "hand")):
            on = _beside(chart.place, at[a], at[b], 0.075)
            arms = np.maximum(arms, on * np.clip(0.35 - facing, 0, 1) * ~(near & beyond))
        d = chart.place - np.float32(at["shoulder"])
        shoulders = np.maximum(shoulders, np.exp(-0.5 * np.einsum("ijk,ijk->ij", d, d) / 0.085**2))
    blur = 1.5 * chart.side / 512
    return cv2.GaussianBlur(palms, (0, 0), blur), cv2.GaussianBlur(backs, (0, 0), blur), arms, shoulders


def _beside(place: np.ndarray, a: np.ndarray, b: np.ndarray, reach_m: float) -> np.ndarray:
    """(S, S) bool: within ``reach_m`` of the line between two points."""
    way, d = (b - a).astype(np.float32), place - np.float32(a)
    share = np.clip(d @ way / np.dot(way, way), 0, 1)
    near: np.ndarray = np.linalg.norm(d - share[..., None] * way, axis=2) < reach_m
    return near
