"""A look and a posed, dressed body -> its strands (hair, beard, brows) and the tinted skin that lies under its hair.

Hair is grown where the head would be in the A-pose, with the world's gravity turned along, and then set on the posed head;
roots follow the skin, so brows and beards follow the face. Legend: V vertices of the base mesh, C points of the fine skin.
"""

from __future__ import annotations

import numpy as np

from manifests.parts import ID
from render.lighting import srgb
from render.people.body import Body, Posed, groups
from render.people.hair_face import beard, brows
from render.people.hair_gather import gathered
from render.people.hair_grow import Head, Room, Style, grow
from render.people.hair_look import WHITE, HairLook
from render.people.hair_proxy import hull
from render.people.hair_scalp import Scalp, eyes_and_size
from render.people.headwear import Hat, rigid
from render.people.parts import KINDS
from render.people.piece import Piece
from render.people.shell import normals_of
from render.scene import Material, Mesh, Strands

Parted = tuple[list[Strands], list[Piece]]
# The skin under hair is tinted from this far inside the hairline, head units, and fully by a second such step.
UNDER_FROM, UNDER_STEP, UNDER_M = 0.015, 0.09, 0.0006
TIP = 0.35


class Barber:
    """Grooms of one body topology."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._scalp = Scalp(body.template, groups(), body.skull)

    def groom(self, hair: HairLook, posed: Posed, pieces: list[Piece], hat: Hat | None) -> Parted:
        """Strands and under-layer in the frame of ``posed``. ``pieces``: skin and cloth that hair stays out of."""
        scalp, skull = self._scalp, self._body.skull
        turn, shift = rigid(posed.rest[skull], posed.vertices[skull])
        local = lambda p: (p - shift) @ turn  # noqa: E731
        points = local(scalp.matrix @ posed.vertices)
        normals = normals_of(points, scalp.quads)
        eye, size = eyes_and_size(posed.rest, groups())
        rng = np.random.Generator(np.random.Philox(hair.seed))
        style = hair.style
        reach = (max(style.top, style.side, style.back, style.front) if style else 0.0) + 0.05
        head = Head(eye, size, self._room(points, normals, pieces, local, reach * size / 0.12), turn.T @ [0, 0, -1.0])
        strands: list[Strands] = []
        under: list[Piece] = []
        back = lambda p: p @ turn.T + shift  # noqa: E731

        def keep(name: str, grown: np.ndarray, width: float, part: int) -> None:
            strands.append(_strands(name, grown, width * size / 0.12, part, hair, head, back, rng))

        if style is not None:
            edge = scalp.hairline(scalp.at, hair.recede)
            density = self._density(hair, edge, rng)
            roots = scalp.roots(rng, style.count, density)
            at, n = scalp.on(roots, points), scalp.on(roots, normals)
            grown = gathered(style, head, at, n, rng) if style.gather else grow(style, head, at, n, rng)
            if hat is not None:
                grown = _under_hat(grown, hat, local, posed.vertices[skull], skull)
            if len(grown):
                keep("hair", grown, style.width, ID[KINDS["hair"]])
            under.append(self._under(edge, density, back(points), normals @ turn.T, hat, posed))
        grown, _ = brows(scalp, head, points, normals, hair.brow, rng)
        keep("brows", grown, 0.00011, ID[KINDS["brows"]])
        if hair.beard is not None:
            grown, _ = beard(hair.beard, scalp, head, points, normals, rng)
            keep("beard", grown, hair.beard.width, ID[KINDS["beard"]])
        return strands, under

    def _density(self, hair: HairLook, edge: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(C,) 0 to 1."""
        at = self._scalp.at
        ragged = edge + 0.02 * np.sin(at @ rng.normal(0, 14, (3, 4)) + rng.uniform(0, 6.3, 4)).mean(axis=1)
        density = np.clip(ragged / 0.05, 0, 1)
        if hair.crown > 0:
            # Baldness spreads from the crown, and leaves a wreath.
            away = np.linalg.norm((at - [0, 0.75, 0.95]) / [1.0, 1.3, 1.0], axis=1)
            density *= np.clip((away - 0.75 * hair.crown) / 0.15, 0.02 * (1 - hair.crown), 1)
        return density

    def _under(
        self,
        edge: np.ndarray,
        density: np.ndarray,
        points: np.ndarray,
        normals: np.ndarray,
        hat: Hat | None,
        posed: Posed,
    ) -> Piece:
        scalp = self._scalp
        tint = np.clip((edge - UNDER_FROM) / UNDER_STEP, 0, 1) * density
        quads = scalp.quads[(tint[scalp.quads] > 0.02).all(axis=1)]
        if hat is not None:
            beyond = scalp.matrix @ hat.inside
            quads = quads[~(beyond[quads] > 7).all(axis=1)]
        u = tint[quads]
        return Piece(
            "hair", points + UNDER_M * normals, quads, uv=np.stack([0.02 + 0.96 * u, np.full(u.shape, 0.5)], axis=2)
        )

    def _room(self, points: np.ndarray, normals: np.ndarray, pieces: list[Piece], local: object, reach: float) -> Room:
        used = self._scalp.used
        low, high = points[used].min(0), points[used].max(0)
        low, high = low - min(reach, 0.14), high + min(reach, 0.14)
        low[2] -= max(reach - 0.14, 0)
        at, away = [points[used]], [normals[used]]
        for piece in pieces:
            if piece.kind in ("hat", "hat_rib", "hair"):
                continue
            at.append(local(piece.vertices))  # type: ignore[operator]
            away.append(normals_of(at[-1], piece.quads) if len(piece.quads) else np.zeros_like(at[-1]))
        return Room(np.concatenate(at), np.concatenate(away), low, high)


def tinted(hair: HairLook, skin: tuple[float, float, float]) -> Material:
    """The under-layer's surface: skin at the hairline, in the colour of the roots farther in."""
    t = np.linspace(0, 1, 64)[:, None]
    row = (
        np.array(skin) * (1 - 0.85 * t)
        + 0.85 * t * (np.array(hair.color) * (1 - hair.grey) + np.array(WHITE) * hair.grey) * 0.6
    )
    texture = np.full((4, 64, 4), 255, np.uint8)
    texture[..., :3] = np.rint(srgb(row) * 255)
    return Material("hair", (1.0, 1.0, 1.0), texture, roughness=1.0, specular=0.0)


def _strands(name: str, grown: np.ndarray, width: float, part: int, hair: HairLook, head: Head, back, rng) -> Strands:
    n, k = grown.shape[:2]
    t = np.linspace(0, 1, k)
    radius = 0.5 * width * np.clip(rng.normal(1, 0.15, (n, 1)), 0.6, 1.5) * (1 - (1 - TIP) * t**2)
    points, quads, normals = hull(grown, head.room)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    turned = back(normals) - back(np.zeros((1, 3)))
    base, grey = (
        (hair.color, hair.grey)
        if name == "hair"
        else (hair.own_color, hair.own_grey * (0.5 if name == "brows" else 1.1))
    )
    base = hair.beard_color if name == "beard" else base
    shade = np.clip(rng.normal(1, 0.14, (n, 1)), 0.5, 1.7)
    # Locks differ a little; grey comes hair by hair.
    color = np.where(rng.random((n, 1)) < grey, np.array(WHITE) * (0.75 + 0.25 * shade), np.array(base) * shade)
    mean = tuple(float(c) for c in color.mean(axis=0))
    proxy = Mesh(
        vertices=back(points).astype(np.float32),
        faces=faces,
        corner_normals=turned[faces].astype(np.float32),
        material_index=np.zeros(len(faces), np.int32),
        materials=[Material(f"{name}_volume", (mean[0], mean[1], mean[2]), roughness=0.6, specular=0.3)],
        part=np.full(len(faces), part, np.uint8),
    )
    return Strands(
        name, back(grown).astype(np.float32), radius.astype(np.float32), color.astype(np.float32), part, proxy
    )


def _under_hat(grown: np.ndarray, hat: Hat, local, vertices: np.ndarray, skull: np.ndarray) -> np.ndarray:
    """Strands pressed flat under a hat; those that only the hat could show are left out."""
    from scipy.spatial import cKDTree

    centre, tree = local(hat.centre), cKDTree(local(vertices))
    near = skull[tree.query(grown[:, 0])[1]]
    grown = grown[hat.inside[near] < 7]
    flat = grown.reshape(-1, 3)
    away = flat - centre
    far = np.linalg.norm(away, axis=1)
    at = skull[
        cKDTree((local(vertices) - centre) / np.linalg.norm(local(vertices) - centre, axis=1)[:, None]).query(
            away / far[:, None]
        )[1]
    ]
    limit = np.where(hat.inside[at] > -8, np.minimum(hat.limit[at], far), far)
    return (centre + away * (limit / far)[:, None]).reshape(grown.shape)


__all__ = ["Barber", "Style", "tinted"]
