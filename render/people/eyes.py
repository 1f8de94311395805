"""A posed body and eye colours -> eyeballs with a flat iris under a clear, wet cornea.

Each eyeball of the base mesh has 72 vertices; a finer one takes their motion, which is affine. The iris lies on the plane
of its rim; the cornea is a film without body over it, curved like a real one for what it mirrors: geometry sees through
it. Legend: N points, Q quads. Template frame: -y forward, metres, eye's centre at the origin.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from render.people.anchors_face import IRIS_DEG, PUPIL_DEG
from render.people.body import groups
from render.people.outfit import linear
from render.people.piece import Piece
from render.response import developed
from render.scene import Material

ROUND = 40
# Rings of the ball in degrees from its axis; the iris ends at IRIS_DEG, the texture at EDGE_DEG.
RINGS = (22.5, 26.0, 31.0, 38.0, 47.0, 58.0, 72.0, 90.0, 120.0, 150.0, 180.0)
EDGE_DEG, TEXTURE_PX = 84.0, 384
CORNEA = (0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 23.5)
# A cornea's radius of curvature is 7.8 mm (Gullstrand); its film stands this far off the ball.
CORNEA_M, FILM_M = 0.0078, 0.00012
IOR, ROUGH = 1.376, 0.22
# Linear RGB of a grown eye's white, and the share of its light that the upper lashes take next to the lid of an eye that looks
# ahead: it is painted on the ball.
WHITE, LASHED = (0.50, 0.47, 0.445), 0.4
SIDES = ("helper-l-eye", "helper-r-eye")


def eye_pieces(vertices: np.ndarray, template: np.ndarray) -> list[Piece]:
    """ "eyes" and "cornea" of both sides. ``vertices``: (V, 3) posed metres; ``template``: (V, 3)."""
    pieces = []
    for name in SIDES:
        used = np.unique(groups()[name])
        centre = (template[used].min(0) + template[used].max(0)) / 2
        radius = float(np.median(np.linalg.norm(template[used] - centre, axis=1)))
        # Least squares: turn, stretch and shift of the 72 vertices.
        known = np.column_stack([template[used] - centre, np.ones(len(used))])
        motion = np.linalg.lstsq(known, vertices[used], rcond=None)[0]
        for kind in ("eyes", "cornea"):
            unit, quads, uv, normals = _shape(kind)
            points = np.column_stack([unit * radius, np.ones(len(unit))]) @ motion
            turned = normals @ np.linalg.inv(motion[:3]).T
            turned = turned / np.linalg.norm(turned, axis=1, keepdims=True)
            pieces.append(Piece(kind, points, quads, "Face_Neck", uv[quads], turned))
    return pieces


def widened(vertices: np.ndarray, pupil: float) -> np.ndarray:
    """(V, 3) with the pupils' rings of the base mesh moved to ``pupil`` of their radius, so that landmarks follow."""
    from render.people.landmarks import anchors

    out = vertices.copy()
    for name, side in zip(SIDES, "lr"):
        used = np.unique(groups()[name])
        ring = sorted(
            {int(v) for k, a in anchors().items() if k.startswith(f"{side}_border_of_pupil") for v in a["weights"]}
        )
        iris = sorted(
            {int(v) for k, a in anchors().items() if k.startswith(f"{side}_border_of_iris") for v in a["weights"]}
        )
        centre, front = vertices[used].mean(axis=0), vertices[ring].mean(axis=0)
        axis = front - vertices[iris].mean(axis=0)
        axis /= np.linalg.norm(axis)
        radius = np.linalg.norm(vertices[ring] - centre, axis=1, keepdims=True)
        flat = vertices[ring] - front
        flat -= np.outer(flat @ axis, axis)
        moved = front + flat * pupil - centre
        out[ring] = centre + moved / np.linalg.norm(moved, axis=1, keepdims=True) * radius
    return out


def eye_materials(iris: tuple[float, float, float], pupil: float, age_years: float, seed: int) -> dict[str, Material]:
    """ "eyes" and "cornea". ``iris``: linear RGB. ``pupil``: its radius over that of the base mesh's, 2.9 mm."""
    eyes = Material("eyes", WHITE, roughness=ROUGH, subsurface=0.05)
    eyes.base_color_texture = _painted(iris, round(pupil, 3), age_years, seed)
    eyes.roughness_texture = _wet()
    return {
        "eyes": eyes,
        "cornea": Material("cornea", (1.0, 1.0, 1.0), roughness=0.0, alpha_mode="blend", alpha=0.04, ior=IOR),
    }


@functools.cache
def _shape(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """On a ball of radius 1: points (N, 3), quads (Q, 4), uv (N, 2), normals (N, 3)."""
    rings = np.radians(RINGS if kind == "eyes" else CORNEA)
    turn = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    rise, around = np.meshgrid(rings, turn, indexing="ij")
    unit = np.stack([np.sin(rise) * np.cos(around), -np.cos(rise), np.sin(rise) * np.sin(around)], axis=2)
    normals = unit.copy()
    if kind == "eyes":
        # The iris: rings of a disc on the plane of its rim, so that the eye looks hollow behind the cornea.
        share = np.array([0.001, 0.18, 0.36, 0.55, 0.75, 0.92])
        rim = unit[0]
        disc = share[:, None, None] * (rim * [1, 0, 1])[None] + [0, -np.cos(rings[0]), 0]
        unit = np.concatenate([disc, unit])
        flat = np.tile(np.array([0, -1.0, 0]), (*disc.shape[:2], 1))
        normals = np.concatenate([flat, normals])
        normals[len(share)] = (normals[len(share)] + [0, -1, 0]) / 2
        angle = np.concatenate([share * rings[0], rings])
    else:
        lift = 1 + FILM_M / 0.015
        unit = unit * lift
        steep = np.arcsin(np.clip(np.sin(rings) * 0.015 / CORNEA_M, -1, 1))
        normals = np.stack(
            [
                np.sin(steep)[:, None] * np.cos(around),
                np.broadcast_to(-np.cos(steep)[:, None], around.shape),
                np.sin(steep)[:, None] * np.sin(around),
            ],
            axis=2,
        )
        angle = rings
    rows = len(unit)
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(ROUND), indexing="ij")
    k = (j + 1) % ROUND
    quads = np.stack([i * ROUND + j, (i + 1) * ROUND + j, (i + 1) * ROUND + k, i * ROUND + k], axis=2).reshape(-1, 4)
    reach = np.minimum(np.degrees(angle) / EDGE_DEG, 1.0)[:, None] / 2
    uv = np.stack([0.5 + reach * np.cos(turn), 0.5 + reach * np.sin(turn)], axis=2)
    normals = normals.reshape(-1, 3)
    return unit.reshape(-1, 3), quads.astype(np.int32), uv.reshape(-1, 2), normals


@functools.cache
def _wet() -> np.ndarray:
    """(P, P, 4) uint8: the white shines. The iris lies in water as dense as itself and mirrors nothing: a flat, shining one
    hangs a veil over the whole eye wherever a bright wall stands before it.
    """
    px = TEXTURE_PX // 4
    y, x = (np.mgrid[0:px, 0:px] + 0.5) / px * 2 - 1
    far = np.hypot(x, y) * EDGE_DEG
    grey = np.rint(255 * (1 - (1 - ROUGH) * np.clip((far - IRIS_DEG) / 2, 0, 1))).astype(np.uint8)
    return np.dstack([grey, grey, grey, np.full_like(grey, 255)])


@functools.lru_cache(maxsize=16)
def _painted(iris: tuple[float, float, float], pupil: float, age_years: float, seed: int) -> np.ndarray:
    """(P, P, 4) uint8 sRGB: pupil, fibres, the dark ring round the iris, white with veins towards its rim."""
    rng = np.random.default_rng(seed)
    px = TEXTURE_PX
    y, x = (np.mgrid[0:px, 0:px] + 0.5) / px * 2 - 1
    far, turn = np.hypot(x, y) * EDGE_DEG, np.arctan2(-y, x)
    edge, hole = IRIS_DEG, PUPIL_DEG * pupil
    across = np.clip((far - hole) / (edge - hole), 0, 1)
    fibres = sum(
        a * np.sin(n * turn + p + 3 * across * s)
        for n, a, p, s in zip(
            rng.integers(30, 110, 14), rng.uniform(0.3, 1, 14), rng.uniform(0, 6.3, 14), rng.normal(0, 1, 14)
        )
    )
    fibres = np.clip(0.5 + 0.16 * fibres, 0, 1)
    base = np.array(iris)
    light = np.clip(base * 1.9 + 0.01, 0, 0.8)
    warm = np.array(linear("7a4f22")) if base.max() > 0.05 else base * 1.6
    colour = base * 0.55 + (light - base * 0.55) * (fibres * (1 - 0.5 * across))[..., None]
    ring = np.exp(-(((across - 0.22) / 0.16) ** 2))
    colour = colour + (warm * 1.1 - colour) * (0.45 * ring)[..., None]
    colour *= (1 - 0.75 * np.clip((across - 0.72) / 0.28, 0, 1) ** 2)[..., None]
    colour *= np.clip((far - hole) / 0.9, 0.012, 1)[..., None]
    # The white: blue in children, yellow in the old, red towards the corners.
    old = np.clip((age_years - 25) / 60, 0, 1)
    white = np.array(WHITE) * (1 - old * np.array([0.06, 0.12, 0.26]))
    if age_years < 10:
        white = white * [0.97, 1.0, 1.06]
    corner = np.clip((far - 30) / 40, 0, 1) * np.abs(np.cos(turn)) ** 2
    eyeball = white * (1 - corner[..., None] * np.array([0.05, 0.28, 0.30]))
    eyeball *= (1 - np.clip(_veins(rng, px), 0, 1) * np.clip((far - 26) / 25, 0, 1) * (0.35 + 0.4 * old))[
        ..., None
    ] ** np.array([0.15, 0.8, 0.75])
    blend = np.clip((far - edge + 0.9) / 2.2, 0, 1)[..., None]
    rgb = colour * (1 - blend) + eyeball * blend
    rgb *= 1 - LASHED * np.clip((-y * EDGE_DEG - 6) / 14, 0, 1)[..., None]
    return np.dstack([developed(rgb, "srgb"), np.full((px, px), 255, np.uint8)])


def _veins(rng: np.random.Generator, px: int) -> np.ndarray:
    """(P, P) float32: thin crooked lines from the rim inwards."""
    made = np.zeros((px, px), np.float32)
    for _ in range(26):
        turn = rng.choice([0, np.pi]) + rng.normal(0, 0.6)
        at = np.array([np.cos(turn), np.sin(turn)]) * px * 0.47 + px / 2
        line, way = [at], turn + np.pi
        for _ in range(rng.integers(5, 11)):
            way += rng.normal(0, 0.45)
            line.append(line[-1] + np.array([np.cos(way), np.sin(way)]) * px * 0.028)
        cv2.polylines(
            made,
            [np.rint(np.array(line) * 16).astype(np.int32)],
            False,
            (float(rng.uniform(0.3, 1)),),
            1,
            cv2.LINE_AA,
            4,
        )
    return cv2.GaussianBlur(made, (0, 0), 0.8)
