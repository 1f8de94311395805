"""A look and a posed, dressed body -> its strands (hair, beard, brows), and the skin under its hair, tinted.

Hair is grown where the head would be in the A-pose, with the world's gravity turned along, and then set on the posed head;
roots follow the skin, so brows and beards follow the face. Legend: V vertices of the base mesh, C points of the fine skin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from manifests.parts import ID
from manifests.seeds import generator
from render.people.body import Body, Posed, groups
from render.people.hair_face import beard, brows
from render.people.hair_gather import gathered
from render.people.hair_grow import Head, Room, grow, shortened, smooth_noise
from render.people.hair_look import WHITE, HairLook
from render.people.hair_proxy import hull
from render.people.hair_scalp import Scalp, brow, eyes_and_size, hairline
from render.people.headwear import Hat, rigid
from render.people.parts import KINDS
from render.people.piece import Piece
from render.people.shell import normals_of
from render.response import srgb
from render.scene import Material, Mesh, Strands

# Hair is at its full density and length this far inside the hairline, head units: 11 mm on an adult.
FADE = 0.09
# Hair cut shorter than this grows shorter still towards the hairline, down to this share.
SHORT_M, SHORTEST = 0.1, 0.3
# Skin with this share of full hair on it is called hair.
HAIRY = 0.3
# Of full hair's skin, what is seen of the roots' colour, how dark they are at their feet, and how dull it is.
TINT, DEEP, DULL = 0.75, 0.6, 0.95
# Of that, what a shaven head has.
SHAVEN = 0.35
# Seen of the colour on a bushy brow's skin, and how much darker than blond hair brows are; black ones are as the hair.
BROW_TINT, BROW_DEEP, BLOND = 0.5, 0.45, 0.5
TIP = 0.35
# The middle of a head between the ears, head coordinates; of what is worn over hair, points within so many radians of one
# direction are above one another; how steeply hair swells out beside them.
MIDDLE, ASIDE, SWELL = (0.0, 0.75, 0.0), 0.08, 1.5
# How much locks differ in brightness, as a logarithm, and over how many head units.
LOCKS, LOCK_WIDE = 0.5, 0.05
# Hairs that one strand stands for: a scalp has about 100,000 of them, a beard and two brows fewer.
HAIRS = {"hair": 5, "beard": 2, "brows": 2}


class Barber:
    """Grooms of one body topology."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._scalp = Scalp(body.template, groups(), body.skull)

    def groom(
        self, hair: HairLook, posed: Posed, pieces: list[Piece], hat: Hat | None, over: Sequence[Piece] = ()
    ) -> list[Strands]:
        """Strands in the frame of ``posed``. ``pieces``: skin, cloth and bags that hair stays out of. ``over``: headphones,
        which it lies under, and a mask, which beards lie under.
        """
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
        back = lambda p: p @ turn.T + shift  # noqa: E731

        none = np.zeros((0, 3))
        phones = np.concatenate([none, *(local(p.vertices) for p in over if p.kind != "mask")])
        worn = np.concatenate([none, *(local(p.vertices) for p in over)])

        def keep(name: str, grown: np.ndarray, width: float, part: int) -> None:
            strands.append(_strands(name, grown, width * size / 0.12, part, hair, head, back, rng))

        if style is not None:
            density = cover(hair, scalp.at)
            count = style.count
            if hair.crown > 0:
                # A wreath is no denser than the whole was.
                whole = scalp.amount(cover(dataclasses.replace(hair, crown=0.0), scalp.at))
                count = max(1, round(count * scalp.amount(density) / whole))
            roots = scalp.roots(rng, count, density)
            at, n = scalp.on(roots, points), scalp.on(roots, normals)
            grown = gathered(style, head, at, n, rng) if style.gather else grow(style, head, at, n, rng)
            if style.top < SHORT_M:
                grown = shortened(grown, SHORTEST + (1 - SHORTEST) * scalp.on(roots, density[:, None])[:, 0])
            if hat is not None:
                grown = _under_hat(grown, hat, local, posed.vertices[skull], skull)
            grown = _pressed(grown, phones, head)
            if len(grown):
                keep("hair", grown, style.width, ID[KINDS["hair"]])
        grown = brows(scalp, head, points, normals, hair.brow, rng)
        keep("brows", grown, 0.00009, ID[KINDS["brows"]])
        if hair.beard is not None:
            grown = beard(hair.beard, scalp, head, points, normals, rng)
            grown = _pressed(grown, worn, head)
            keep("beard", grown, hair.beard.width, ID[KINDS["beard"]])
        return strands

    def scalp(self, hair: HairLook, skin: np.ndarray, piece: Piece) -> list[Piece]:
        """``piece``, the head's skin with its normals, in fine quads where hair grows, classes told apart by the hairline.

        ``skin``: (Q,) the body's quads that it shows. A layer of its own over the skin had a dark line at its edge.
        """
        if hair.style is None:
            return [piece]
        assert piece.uv is not None
        assert piece.normals is not None
        scalp = self._scalp
        hairy = cover(hair, scalp.at)[scalp.quads].mean(axis=1) > HAIRY
        touched = np.intersect1d(scalp.source[hairy], skin)
        mine = np.isin(scalp.source, touched)
        corners = np.zeros((len(groups()["body"]), 4, 2))
        corners[skin] = piece.uv
        uv = scalp.corners(corners)
        points, normals = scalp.matrix @ piece.vertices, scalp.matrix @ piece.normals
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        rest = ~np.isin(skin, touched)
        made = [Piece("head", piece.vertices, piece.quads[rest], uv=piece.uv[rest], normals=piece.normals)]
        for part, where in (("Hair", mine & hairy), ("Face_Neck", mine & ~hairy)):
            made.append(Piece("head", points, scalp.quads[where].astype(np.int32), part, uv[where], normals))
        return made

    def _room(self, points: np.ndarray, normals: np.ndarray, pieces: list[Piece], local: object, reach: float) -> Room:
        used = self._scalp.used
        low, high = points[used].min(0), points[used].max(0)
        low, high = low - min(reach, 0.14), high + min(reach, 0.14)
        low[2] -= max(reach - 0.14, 0)
        at, away = [points[used]], [normals[used]]
        for piece in pieces:
            if piece.kind in ("hat", "hat_rib"):
                continue
            vertices = local(piece.vertices)  # type: ignore[operator]
            at.append(vertices)
            away.append(normals_of(vertices, piece.quads) if len(piece.quads) else np.zeros_like(vertices))
        return Room(np.concatenate(at), np.concatenate(away), low, high)


def cover(hair: HairLook, at: np.ndarray) -> np.ndarray:
    """(N,) 0 bare to 1: how dense hair grows at head coordinates ``at`` (N, 3)."""
    rng = generator(hair.seed, "hairline")
    ragged = hairline(at, hair.recede) + 0.03 * np.sin(at @ rng.normal(0, 14, (3, 4)) + rng.uniform(0, 6.3, 4)).mean(1)
    t = np.clip(ragged / FADE, 0, 1)
    density = t * t * (3 - 2 * t)
    if hair.crown > 0:
        # Baldness spreads from the crown, forwards more and more, and leaves a wreath.
        middle, reach = [0, 0.75 - 0.3 * hair.crown, 0.95], [1.0, 1.3 + 0.9 * hair.crown, 1.0]
        away = np.linalg.norm((at - middle) / reach, axis=1)
        density *= np.clip((away + 0.15 - 0.9 * hair.crown) / 0.15, 0.02 * (1 - hair.crown), 1)
    return density


def tinted(head: Material, hair: HairLook, at: np.ndarray) -> Material:
    """The head's skin in the colour of the roots where hair grows. ``at``: (s, s, 3) head coordinates of its texels."""
    assert head.base_color_texture is not None
    assert head.roughness_texture is not None
    texture, rough = head.base_color_texture.copy(), head.roughness_texture.copy()
    places = at.reshape(-1, 3)

    def tint(share: np.ndarray, most: float, color: np.ndarray, grey: float) -> None:
        share = share.reshape(at.shape[:2]).astype(np.float32)
        matt = cv2.resize(share, rough.shape[1::-1])[..., None]
        rough[..., :3] = np.rint(rough[..., :3] * (1 - matt) + 255 * DULL * matt)
        share = most * cv2.resize(share, texture.shape[1::-1])[..., None]
        roots = DEEP * (color * (1 - grey) + np.array(WHITE) * grey)
        # Mixed as the eye sees it: in linear light a few dark hairs would hardly show.
        texture[..., :3] = np.rint(texture[..., :3] * (1 - share) + 255 * srgb(roots) * share)

    if hair.style is not None:
        tint(cover(hair, places), TINT, np.array(hair.color), hair.grey)
    else:
        # Shaven or cut to nothing: roots show through where hair would grow.
        tint(SHAVEN * cover(hair, places), TINT, np.array(hair.own_color), hair.own_grey)
    tint(brow(places) * (0.2 + 0.8 * hair.brow), BROW_TINT, brow_color(hair), 0.5 * hair.own_grey)
    return dataclasses.replace(head, base_color_texture=texture, roughness_texture=rough)


def brow_color(hair: HairLook) -> np.ndarray:
    """(3,) linear RGB."""
    return np.array(hair.own_color) * (1 - BROW_DEEP * min(max(hair.own_color) / BLOND, 1.0))


def _strands(name: str, grown: np.ndarray, width: float, part: int, hair: HairLook, head: Head, back, rng) -> Strands:
    n, k = grown.shape[:2]
    t = np.linspace(0, 1, k)
    radius = 0.5 * width * np.clip(rng.normal(1, 0.15, (n, 1)), 0.6, 1.5) * (1 - (1 - TIP) * t**2)
    points, quads, normals = hull(grown, head.room)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    turned = back(normals) - back(np.zeros((1, 3)))
    base, grey = {
        "hair": (hair.color, hair.grey),
        "beard": (hair.beard_color, 1.1 * hair.own_grey),
        "brows": (brow_color(hair), 0.5 * hair.own_grey),
    }[name]
    # Hairs differ a little and locks more: alike, they are a wig.
    lock = np.exp(LOCKS * smooth_noise(rng, head.at(grown[:, 0]), LOCK_WIDE, 1) - LOCKS**2 / 2)
    shade = np.clip(rng.normal(1, 0.14, (n, 1)) * lock, 0.4, 2.0)
    # Grey comes hair by hair, and a strand stands for several.
    white = rng.binomial(HAIRS[name], min(grey, 1.0), (n, 1)) / HAIRS[name]
    color = white * np.array(WHITE) * (0.3 + 0.7 * shade) + (1 - white) * np.array(base) * shade
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


def pressed_m(hair: HairLook) -> float:
    """How thick hair is under a band, metres on an adult."""
    return min(0.25 * hair.style.volume + 0.001, 0.008) if hair.style else 0.0


def _pressed(grown: np.ndarray, over: np.ndarray, head: Head) -> np.ndarray:
    """Strands (N, K, 3) no farther from the head's middle than the inner side of what is ``over`` them, (P, 3) points; beside
    it hair swells out again.
    """
    if not len(over) or not len(grown):
        return grown
    from scipy.spatial import cKDTree

    middle = head.eye + np.array(MIDDLE) * head.size
    away, beyond = grown.reshape(-1, 3) - middle, over - middle
    far, reach = np.linalg.norm(away, axis=1), np.linalg.norm(beyond, axis=1)
    tree = cKDTree(beyond / reach[:, None])
    # A band has an inner and an outer side, a cup a pad.
    inner = np.array([reach[near].min() for near in tree.query_ball_point(tree.data, ASIDE)])
    gap, nearest = tree.query(away / far[:, None])
    limit = inner[nearest] - 0.0015 * head.size / 0.12 + SWELL * np.maximum(gap - ASIDE, 0) * far
    return (middle + away * np.minimum(limit / far, 1)[:, None]).reshape(grown.shape)


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
