"""The base mesh's two rows of teeth -> where they stand behind the lips, and a picture of single teeth with gums.

Legend: U vertices of the upper row.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial.transform import Rotation
from trimesh import Trimesh

from manifests.seeds import generator
from render.people.body import Posed, groups
from render.scene import Material

# The base mesh keeps its teeth a centimetre and more behind the lips, which real ones all but touch, and so high that a
# smile uncovers a dark slit beneath them. The upper row's front comes down by a share LOW of its width, and forward as far
# as there is room behind lips and skin; molars keep their bite, and the lower row stays, since below the lip the chin is
# hollow. Teeth within TOOTH_M of each other along the row move as one.
LOW, FRONT_M, TOOTH_M = 0.065, 0.015, 0.006
BEHIND_LIPS_M, ROOM_M, MOST_M = 0.002, 0.001, 0.008
# Roots may go so far into the lip before them, which is twice as thick and more.
GUM_M = 0.003
# Widths of teeth along a half row from the middle, mm: Ash and Nelson, Wheeler's Dental Anatomy (8th ed., 2003), tables 1-1 to
# 1-10; the wisdom tooth is left out.
WIDTHS_MM = {"upper": (8.5, 6.5, 7.5, 7.0, 7.0, 10.0, 9.0), "lower": (5.0, 5.5, 7.0, 7.0, 7.0, 11.0, 10.5)}
ROWS = ("lower", "upper")
# Share of the base mesh's height that is crown; the gum goes down between two teeth by PAPILLA more.
CROWN, PAPILLA = 0.56, 0.14
WIDE, HIGH = 1024, 96
# Linear RGB: enamel at twenty and at ninety, and gums; less yellow than shade guides are, since the photographic response adds a fifth
# to every colour.
YOUNG, OLD, GUM = (0.72, 0.68, 0.60), (0.52, 0.44, 0.31), (0.42, 0.13, 0.11)


def brought(posed: Posed, upper: np.ndarray, seam: list[int]) -> np.ndarray:
    """(U, 3) metres, posed: what brings the upper row's vertices (U,) down, and forward to the lips, wherever the face has
    those.
    """
    row, rest = posed.vertices[upper], posed.rest[upper]
    turn, _ = Rotation.align_vectors(row - row.mean(axis=0), rest - rest.mean(axis=0))
    # In the head's own axes: a turned head draws lips and cheeks along.
    points = turn.apply(posed.vertices, inverse=True)
    skin = _skin_near(points, upper)
    at, lips = points[upper], points[seam]
    # What bites decides how far down there is room: roots are behind the lip, or in it where that is raised.
    bites = at[:, 2] < at[:, 2].min() + 0.4 * np.ptp(at[:, 2])
    low = np.clip((_clearance(at[bites], skin, 2) - ROOM_M).min(), 0, LOW * np.ptp(at[:, 0]))
    shift = np.zeros_like(at)
    shift[:, 2] = -low * np.clip(2 - (at[:, 1] - at[:, 1].min()) / FRONT_M, 0, 1)
    at = at + shift
    aside, middle = np.abs(at[:, 0] - lips[0, 0]), np.abs(lips[:, 0] - lips[0, 0])
    behind = at[:, 1] - np.interp(aside, middle, lips[:, 1]) - BEHIND_LIPS_M
    # What is farther back than the front teeth keeps its place behind them.
    most = min(float(behind[aside < 0.5 * middle.max()].min()), MOST_M)
    ahead = _clearance(at, skin, 1) + np.where(bites, -ROOM_M, GUM_M)
    room = np.clip(np.minimum(np.minimum(behind, ahead), most), 0, None)
    # Of all that is near along the row, then smooth along it: never more than each has room for, and no tooth tilts.
    close = np.abs(at[:, :1] - at[:, 0]) < TOOTH_M
    least = np.where(close, room, np.inf).min(axis=1)
    shift[:, 1] = -(close @ least) / close.sum(axis=1)
    return turn.apply(shift)


def _skin_near(points: np.ndarray, these: np.ndarray) -> Trimesh:
    """The body's surface of vertices ``points`` (N, 3) within a hand's breadth of ``these`` (U,)."""
    quads = groups()["body"]
    near = quads[(np.abs(points[quads].mean(axis=1) - points[these].mean(axis=0)) < 0.1).all(axis=1)]
    return Trimesh(points, np.concatenate([near[:, :3], near[:, [0, 2, 3]]]), process=False)


def _clearance(points: np.ndarray, skin: Trimesh, axis: int) -> np.ndarray:
    """(N,) metres from ``points`` (N, 3) against ``axis`` (1 forward, 2 down) to ``skin``; inf where it is open."""
    way = np.tile(-np.eye(3)[axis], (len(points), 1))
    hits, ray, _ = skin.ray.intersects_location(points, way, multiple_hits=False)
    found = np.full(len(points), np.inf)
    found[ray] = points[ray, axis] - hits[:, axis]
    return found


def unrolled(posed: Posed, name: str) -> np.ndarray:
    """(Q, 4, 2) texture coordinates of the quads of group ``name``, a row: along it from the right to the left, and up."""
    quads = groups()[name]
    used = np.unique(quads)
    at = posed.rest[used]
    angle = np.arctan2(at[:, 0] - at[:, 0].mean(), at[:, 1].max() + 1e-3 - at[:, 1])
    # Metres along the front of the row: of all that lie in one direction, what is farthest out.
    order = np.argsort(angle)
    turns = np.linspace(angle.min(), angle.max(), 33)
    near = np.abs(angle - turns[:, None]) < 0.6 * (turns[1] - turns[0])
    reach = np.where(near, np.hypot(at[:, 0], at[:, 1].max() - at[:, 1]), 0).max(axis=1)
    known = reach > 0
    turns, reach = turns[known], reach[known]
    outline = np.stack([reach * np.sin(turns), reach * np.cos(turns)], axis=1)
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1)))
    uv = np.zeros((len(posed.rest), 2))
    uv[used[order], 0] = np.interp(angle[order], turns, along / along[-1])
    uv[used, 1] = (
        (at[:, 2] - at[:, 2].min()) / np.ptp(at[:, 2]) * (HIGH - 2) / HIGH + 1 / HIGH + ROWS.index(name.split("-")[1])
    ) / 2
    return uv[quads]


def enamel(age_years: float, seed: int) -> Material:
    """The material of both rows."""
    made = Material("teeth", (1.0, 1.0, 1.0), roughness=0.22, subsurface=0.1)
    made.base_color_texture = _painted(round(age_years), seed)
    return made


@functools.lru_cache(maxsize=16)
def _painted(age_years: int, seed: int) -> np.ndarray:
    """(2 HIGH, WIDE, 4) uint8 sRGB, the upper row above."""
    rng = generator(seed, "teeth")
    age = np.clip((age_years - 20) / 70, 0, 1) * rng.uniform(0.6, 1.0) + rng.uniform(0, 0.25)
    tooth = (1 - age) * np.array(YOUNG) + age * np.array(OLD)
    halves = [_row(row, tooth, rng) for row in ROWS]
    # Row 0 is at the top: the upper row's roots, and last the lower row's.
    rgb = np.concatenate([halves[1][::-1], halves[0]])
    srgb = np.rint(255 * np.clip(rgb, 0, 1) ** (1 / 2.2))
    return np.dstack([srgb, np.full(rgb.shape[:2], 255)]).astype(np.uint8)


def _row(row: str, tooth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(HIGH, WIDE, 3) linear RGB, from the edges that bite to the roots."""
    ends = np.append(0, np.cumsum(WIDTHS_MM[row]))
    x = np.linspace(-1, 1, WIDE) * ends[-1]
    which = np.clip(np.searchsorted(ends, np.abs(x), side="right") - 1, 0, len(WIDTHS_MM[row]) - 1)
    low, high = ends[which], ends[which + 1]
    # Millimetres to the nearest gap, and -1 to 1 across the tooth.
    to_gap = np.minimum(np.abs(x) - low, high - np.abs(x))
    across = 2 * (np.abs(x) - low) / (high - low) - 1
    rise = (np.arange(HIGH)[:, None] + 0.5) / HIGH
    shade = np.exp(rng.normal(0, 0.05, (2, len(WIDTHS_MM[row]))))[(x > 0).astype(int), which]
    # Teeth touch half-way up: towards the edge their corners are round, towards the gum they narrow.
    gape = 0.22 + 0.9 * np.clip(1 - rise / 0.12, 0, 1) ** 2 + 0.5 * np.clip(rise / CROWN - 0.6, 0, 1)
    dark = np.exp(-((to_gap / gape) ** 2))
    # Edges let light through; necks are yellower.
    light = shade * (1 - 0.16 * across**4) * (0.86 + 0.14 * np.clip(rise / 0.1, 0, 1))
    neck = np.clip(rise / CROWN, 0, 1)[..., None] ** 2
    rgb = light[..., None] * tooth * (1 - neck * [0.06, 0.14, 0.30]) * (1 - 0.72 * dark[..., None])
    gum = 1 / (1 + np.exp(-(rise - CROWN + PAPILLA * across**2) / 0.012))
    return rgb * (1 - gum[..., None]) + np.array(GUM) * gum[..., None]
