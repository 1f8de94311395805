"""An outfit and a posed body -> the pieces of cloth, leather and rubber that a person wears.

Legend: C points of the sheet, V vertices of the base mesh, Q quads of a piece.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from manifests.seeds import generator
from render.people.body import Body, Posed, groups
from render.people.cover import Cover, clear, drawn_in, laid
from render.people.fabric import FABRICS, graphic, tile_m
from render.people.footwear import SHOES, Feet, feet_of, sole, upper
from render.people.garments import GARMENTS, Garment, drawn_cut, marks_of
from render.people.headwear import Hat, hat_on
from render.people.layers import Layers, Worn
from render.people.outfit import Outfit, Wear
from render.people.piece import Piece
from render.people.shell import Shell, normals_of
from render.people.trims import along_it, around, buttons, hemmed, neckline, overlay, throat

UNCOVERED = ("hand", "head")
COLLARS = {"t_shirt": "rib", "jumper": "rib", "dress": "", "shirt": "collar", "coat": "lapel", "hoodie": "hood"}
RIBBED = ("jumper", "hoodie")
RIB_M = 0.05
# How far above a shirt its collar's fall lies, at least and at most: its last four rows, trims.PROFILES.
FALL_M = np.array([(0.0045, 0.009), (0.0045, 0.009), (0.0025, 0.007), (0.0025, 0.007)])
# How far a collar keeps from skin.
FREE_M = 0.0015
# Nothing of a collar is farther from the middle of its ring.
AROUND_M = 0.3


@dataclasses.dataclass
class Dressed:
    """``pieces`` of clothes; ``vertices``: (V, 3) the body drawn in under hems; ``left``: (Q,) its quads still there.
    ``worn``: from the skin outwards, skirts apart; ``covered``: (V,) skin that lies under one of them.
    """

    pieces: list[Piece]
    vertices: np.ndarray
    left: np.ndarray
    hat: Hat | None
    worn: list[Worn]
    covered: np.ndarray


class Tailor:
    """What depends on the template alone, worked out once."""

    def __init__(self, body: Body, limb: np.ndarray) -> None:
        """``limb``: (V,) limb of each base vertex."""
        self.shell = Shell(body)
        self._head = limb == "head"
        skin = np.unique(groups()["body"])
        tights = self.shell.template[: self.shell.tights]
        _, nearest = cKDTree(tights).query(body.template[skin])
        self._under = np.full(len(body.template), -1)
        self._under[skin] = np.where(np.isin(limb[skin], UNCOVERED), -1, nearest)
        self._skin = skin
        self._on_head = self._head & np.isin(np.arange(len(limb)), skin)
        self._neck = np.isin(limb, ("head", "neck")) & np.isin(np.arange(len(limb)), skin)
        self._eye = [np.unique(groups()[f"helper-{s}-eye"]) for s in "lr"]

    def clothe(self, outfit: Outfit, posed: Posed) -> Dressed:
        """Everything that ``outfit`` says, on a posed body."""
        sheet = self.shell.of(posed)
        marks = marks_of(self.shell, sheet, posed)
        layers = Layers(self.shell, sheet, marks)
        feet = feet_of(self.shell, sheet, posed)
        by_name: dict[str, Wear] = {}
        for wear in outfit.wears:
            by_name[wear.name] = wear
            rng = generator(wear.seed, "ripples")
            if wear.slot == "shoes":
                piece, points, depth = upper(SHOES[wear.name], self.shell, sheet, feet)
                made = Garment("Shoe", thick_m=0.003)
                layers.register(Worn(wear.name, made, piece, points, depth, False, np.zeros(len(piece.quads), bool)))
            elif wear.slot != "hat":
                garment = drawn_cut(GARMENTS[wear.name], generator(wear.seed, "cut"))
                layers.put_on(wear.name, garment, wear.fit, FABRICS[wear.fabric].stiff, rng)
        cover = Cover(layers, self._under)
        cover.cloth()
        for k, worn in enumerate(layers.worn):
            worn.beneath = cover.beneath(k)
        body = groups()["body"]
        vertices, left = cover.skin(posed.vertices, body)
        pieces: list[Piece] = []
        for worn in layers.worn:
            pieces += self._pieces(layers, worn, by_name[worn.name], posed, vertices)
        shoes = outfit.of("shoes")
        if shoes is not None:
            pieces += self._soles(layers, feet, shoes)
        hat, on_head = None, outfit.of("hat")
        if on_head is not None:
            eye = np.mean([posed.rest[e].mean(axis=0) for e in self._eye], axis=0)
            hat = hat_on(on_head.name, posed.rest, posed.vertices, self._on_head, eye)
            uv = hat.uv[hat.quads] / tile_m(on_head)
            pieces.append(Piece("hat", hat.points, hat.quads.astype(np.int32), part="Apparel", uv=uv))
            left &= ~(hat.inside[body] > 7).all(axis=1)
        return Dressed(pieces, vertices, left, hat, layers.worn, cover.covered())

    def _pieces(self, layers: Layers, worn: Worn, wear: Wear, posed: Posed, vertices: np.ndarray) -> list[Piece]:
        """``vertices``: (V, 3) of the body, drawn in under hems."""
        cutout, garment = worn.cutout, worn.garment
        quads = cutout.quads
        flat = self._uv(layers, worn, wear)
        points, quads, uv = hemmed(worn.points, quads, flat, garment.thick_m, layers.sheet.size)
        normals = normals_of(points, quads)
        kept = np.ones(len(quads), bool)
        kept[: len(worn.gone)] = ~worn.gone
        # A hem that another garment hides goes with the quads it belongs to.
        gone = np.zeros(len(points), bool)
        n = len(worn.points)
        deep = cutout.quads[worn.gone].ravel()
        still = cutout.quads[~worn.gone].ravel()
        gone[np.setdiff1d(deep, still)] = True
        kept[len(worn.gone) :] = ~gone[quads[len(worn.gone) :, 0] % max(n, 1)] | (quads[len(worn.gone) :, 0] >= n)
        if wear.slot in ("shoes", "socks"):
            return self._paired(worn, wear, points, quads[kept], uv[kept], normals)
        kind = wear.slot
        rib = np.zeros(len(quads), bool)
        if worn.name in RIBBED:
            rib[: len(cutout.quads)] = self._rib(layers, worn)
        made = [
            Piece(kind, points, quads[kept & ~rib], garment.part, uv[kept & ~rib], normals),
            Piece(f"{kind}_rib", points, quads[kept & rib], garment.part, uv[kept & rib], normals),
        ]
        if not worn.tail:
            made += self._trims(layers, worn, wear, posed, vertices)
        return [p for p in made if len(p.quads)]

    def _paired(
        self, worn: Worn, wear: Wear, points: np.ndarray, quads: np.ndarray, uv: np.ndarray, normals: np.ndarray
    ) -> list[Piece]:
        side = np.zeros(len(points))
        n, rim = len(worn.points), np.flatnonzero(worn.cutout.rim)
        side[:n] = self.shell.side[worn.cutout.i]
        side[n:] = np.tile(side[rim], 2)
        name = "Shoe" if wear.slot == "shoes" else "Sock"
        made = []
        for sign, word in ((1, "Left"), (-1, "Right")):
            mine = side[quads[:, 0]] == sign
            made.append(Piece(wear.slot, points, quads[mine], f"{word}_{name}", uv[mine], normals))
        return made

    def _soles(self, layers: Layers, feet: Feet, wear: Wear) -> list[Piece]:
        made = []
        for sign, word in ((1, "Left"), (-1, "Right")):
            points, quads = sole(SHOES[wear.name], self.shell, layers.sheet, feet, sign)
            made.append(Piece("sole", points, quads.astype(np.int32), f"{word}_Shoe"))
        return made

    def _rib(self, layers: Layers, worn: Worn) -> np.ndarray:
        """(Q,) bool: the knitted bands at cuffs and hem."""
        cutout, marks = worn.cutout, layers.marks
        size, garment = layers.sheet.size, worn.garment
        arm, trunk = cutout.take(marks.arm), cutout.take(marks.trunk)
        cuff = (arm > 0.12) & (((garment.sleeve or 1) - arm) * marks.arm_m < RIB_M * size)
        hem = (arm <= 0.12) & ((trunk - (garment.hem or 0)) * (marks.waist - marks.crotch) < RIB_M * size)
        return (cuff | hem)[cutout.quads].all(axis=1)

    def _uv(self, layers: Layers, worn: Worn, wear: Wear) -> np.ndarray:
        """(Q, 4, 2) texture coordinates: metres along the cloth, over the metres of a tile."""
        cutout, shell = worn.cutout, self.shell
        panel = shell.panel[cutout.source]
        fields = np.stack([cutout.take(np.nan_to_num(shell.uv[k])) for k in range(len(shell.uv))])
        uv = fields[panel[:, None], cutout.quads]
        turn = np.take_along_axis(
            shell.period[panel[:, None], cutout.i[cutout.quads]], np.zeros((len(panel), 1), int), 1
        )
        wide = np.ptp(uv[..., 0], axis=1) > 0.5 * turn[:, 0]
        uv[..., 0] = np.where(wide[:, None] & (uv[..., 0] < 0), uv[..., 0] + turn, uv[..., 0])
        uv = uv * self._scale(layers, worn)
        tile = tile_m(wear)
        if graphic(wear):
            uv[panel != 0, :, 0] += 0.5
            uv[..., 0] += 0.5
            uv[..., 1] += 0.5 - 0.06 * layers.sheet.size
        return uv / tile

    def _scale(self, layers: Layers, worn: Worn) -> float:
        """How much longer the person's cloth is than the template's."""
        q, i = worn.cutout.quads, worn.cutout.i
        a, b = i[q[:, 0]], i[q[:, 2]]
        own = np.linalg.norm(layers.sheet.rest[a] - layers.sheet.rest[b], axis=1)
        return float(own.mean() / np.linalg.norm(self.shell.template[a] - self.shell.template[b], axis=1).mean())

    def _trims(self, layers: Layers, worn: Worn, wear: Wear, posed: Posed, vertices: np.ndarray) -> list[Piece]:
        shell, sheet, marks, garment = self.shell, layers.sheet, layers.marks, worn.garment
        made: list[Piece] = []
        kind, size = wear.slot, sheet.size
        collar = COLLARS.get(worn.name, "")
        if collar:
            up = posed.bones["head"] - posed.bones["neck01"]
            ring, azimuth = neckline(sheet, marks, worn.cutout, worn.points)
            up /= np.linalg.norm(up)
            room = throat(ring, up, posed.vertices[self._neck], size)
            points, quads = around(ring, azimuth, up, collar, size, room)
            # A heavy or a bent neck comes through.
            near = self._skin[np.linalg.norm(vertices[self._skin] - ring.mean(axis=0), axis=1) < AROUND_M]
            normals = normals_of(vertices, groups()["body"])[near]
            points = clear(points.reshape(-1, len(ring), 3), vertices[near], normals, FREE_M * size).reshape(-1, 3)
            if collar in ("collar", "lapel"):
                # Its fall's outside and inside, down to the edge, lie on the cloth.
                rows = points.reshape(-1, len(ring), 3)
                rows[4:] = laid(rows[4:], worn, size * FALL_M[:, 0], size * FALL_M[:, 1])
            # A shirt's collar stands inside a coat's; its fall lies under the coat's front.
            falls = (np.arange(len(points)) >= len(points) // 2) & (collar == "collar")
            own = next(k for k, other in enumerate(layers.worn) if other is worn)
            for outer in layers.worn[own + 1 :]:
                if not outer.tail:
                    points = drawn_in(points, falls, outer)
            uv = None
            if collar in ("collar", "lapel"):
                uv = along_it(points.reshape(-1, len(ring), 3), quads) / tile_m(wear)
            name = f"{kind}_rib" if collar == "rib" else kind
            made.append(Piece(name, points, quads.astype(np.int32), garment.part, uv))
        cloth = sheet.posed.copy()
        cloth[worn.cutout.i] = worn.points
        front = (sheet.rest_normals[:, 1] < -0.1) & (marks.arm < 0.05)
        for depth, lift in self._patches(layers, worn, wear, front):
            depth = depth.copy()
            depth[shell.tights :] = -1
            piece, points = overlay(shell, depth, cloth, lift)
            if len(piece.quads) > 2:
                patch = Worn(worn.name, garment, piece, points, depth, False, np.zeros(len(piece.quads), bool))
                flat = self._uv(layers, patch, wear)
                points, quads, uv = hemmed(points, piece.quads, flat, 0.0015, 0.15 * size)
                made.append(Piece(kind, points, quads, garment.part, uv))
        if worn.name in ("shirt", "coat"):
            made += self._buttons(layers, worn, wear, cloth, front)
        return made

    def _patches(self, layers: Layers, worn: Worn, wear: Wear, front: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Where plackets, waistbands and pockets lie: (C,) metres inside each, and how far it stands off."""
        sheet, marks, garment, size = layers.sheet, layers.marks, worn.garment, layers.sheet.size
        x, z, trunk = sheet.rest[:, 0], sheet.rest[:, 2], marks.waist - marks.crotch

        def box(at: tuple[float, float], half: tuple[float, float], where: np.ndarray) -> np.ndarray:
            across = half[0] * size - np.abs(np.abs(x) - at[0] * size)
            along = half[1] * size - np.abs(z - marks.crotch - at[1] * trunk)
            return np.where(where, np.minimum(np.minimum(across, along), worn.depth), -1)

        found = []
        if worn.name in ("shirt", "coat"):
            found.append((box((0.0, 0.0), (0.017, 9.0), front), 0.0012))
        if worn.name in ("trousers", "jeans", "shorts") and garment.rise is not None:
            band = 0.035 * size - (garment.rise - marks.trunk) * trunk
            found.append((np.minimum(worn.depth + 0.002, band), 0.0015))
        if worn.name == "jeans":
            found.append((box((0.075, 0.45), (0.045, 0.05), sheet.rest_normals[:, 1] > 0.1), 0.0015))
        if worn.name == "shirt" and wear.seed % 2:
            found.append((box((0.075, 1.75), (0.045, 0.05), front & (x > 0)), 0.0015))
        if worn.name == "coat":
            found.append((box((0.09, 0.95), (0.045, 0.05), front), 0.0015))
        return found

    def _buttons(self, layers: Layers, worn: Worn, wear: Wear, cloth: np.ndarray, front: np.ndarray) -> list[Piece]:
        sheet = layers.sheet
        line = np.flatnonzero(front & (worn.depth > 0.012) & (np.abs(sheet.rest[:, 0]) < 0.012 * sheet.size))
        if len(line) < 8:
            return []
        z = sheet.rest[line, 2]
        count = 7 if worn.name == "shirt" else 4
        at = [int(line[np.abs(z - h).argmin()]) for h in np.linspace(z.min() + 0.01, z.max() - 0.02, count)]
        normals = normals_of(cloth, self.shell.quads)[at]
        radius = (0.0055 if worn.name == "shirt" else 0.012) * sheet.size
        points, quads = buttons(cloth[at] + normals * 0.0015, normals, radius)
        return [Piece(f"{wear.slot}_rib", points, quads.astype(np.int32), worn.garment.part)]
