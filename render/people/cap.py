"""A posed body -> the hair of people of `detail: simple`: a cap over the scalp; and which of the skin's quads are brows.

It costs no strands, and tells what detail is worth: benchmarks/people_ablation.py trains with either. wardrobe.py makes the brows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people.body import groups
from render.people.headwear import Hat
from render.people.outfit import linear
from render.people.piece import Piece

COLOURS = ("0c0a09", "1c1411", "33221a", "53361f", "7a5230", "a87b43", "c9a66b", "6e6a66", "b9b4ad", "7a2e14")
GREYS = COLOURS[7:9]
DEPTH_M = {"crop": 0.005, "short": 0.016, "long": 0.022}


@dataclasses.dataclass(frozen=True)
class Cap:
    """``style``: of DEPTH_M. ``colour``: linear RGB."""

    style: str
    colour: tuple[float, float, float]


def draw_cap(rng: np.random.Generator, age_years: float, sex: str, tone: int) -> Cap:
    """By age, sex and Monk tone."""
    colours = GREYS if age_years > 66 else COLOURS[: 7 if tone < 7 else 3]
    styles = ("short", "crop") if sex == "male" else ("long", "long", "short")
    return Cap(str(rng.choice(styles)), linear(str(rng.choice(colours))))


class Caps:
    """Where scalp and brows are on the template."""

    def __init__(self, template: np.ndarray, limb: np.ndarray) -> None:
        """``limb``: (V,) names."""
        quads = groups()
        self._limb, self._body = limb, quads["body"]
        body = np.unique(quads["body"])
        eyes = [template[np.unique(quads[k])] for k in ("helper-l-eye", "helper-r-eye")]
        eye = np.mean([v.mean(axis=0) for v in eyes], axis=0)
        x, y, z = (template - eye).T / (template[body, 2].max() - eye[2])
        on_body = np.zeros(len(template), bool)
        on_body[body] = True
        outer = np.abs(np.abs(x) - 0.30)
        self.brows = on_body & (y < 0.05) & (outer < 0.20) & (z > 0.11) & (z < 0.205)
        # From the hairline on the forehead down to the nape behind the ears.
        self._scalp = on_body & (z > 0.60 - 0.78 * (y + 0.05)) & (z > -0.75)
        ears = (np.abs(x) > 0.58) & (z < 0.3) & (y < 0.95)
        behind = (y > 0.7) & (np.abs(x) < 0.5)
        self._mane = on_body & ((z > 0.60 - 0.85 * (y + 0.05)) | behind) & (z > -1.6) & ~ears

    def hair(self, cap: Cap, vertices: np.ndarray, rest: np.ndarray, hat: Hat | None) -> list[Piece]:
        """ "hair". ``vertices``, ``rest``: (V, 3) posed and in the A-pose."""
        from render.people.shell import normals_of

        body = self._body
        where = self._mane if cap.style == "long" else self._scalp
        scalp = body[where[body].all(axis=1)]
        size = np.ptp(rest[self._limb == "head", 2]) / 0.24
        # Thinner at the hairline, so that the cap grows out of the skin instead of floating over it.
        rim = np.setdiff1d(np.unique(scalp), _inner(body, scalp))
        thickness = np.full(len(vertices), DEPTH_M[cap.style] * size)
        thickness[rim] = 0.001
        points = vertices + normals_of(vertices, body) * thickness[:, None]
        if hat is not None:
            # Hair lies flat under a hat and is cut away where only the hat could show it.
            away = points - hat.centre
            far = np.linalg.norm(away, axis=1)
            under = hat.inside > -8
            limit = np.minimum(hat.limit, far)
            points[under] = hat.centre + away[under] * (limit / np.maximum(far, 1e-9))[under, None]
            scalp = scalp[~(hat.inside[scalp] > 7).all(axis=1)]
        return [Piece("cap", points, scalp, "Hair")]


def _inner(all_quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Vertices of ``part`` that no other quad touches."""
    used = np.bincount(all_quads.ravel(), minlength=all_quads.max() + 1)
    mine = np.bincount(part.ravel(), minlength=all_quads.max() + 1)
    return np.flatnonzero((mine > 0) & (mine == used))
