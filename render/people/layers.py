"""Garments put on one after the other -> cloth in the pose, each lying on what was put on before it.

Legend: C points of the sheet, N points of one cut, V vertices of the base mesh.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from render.people.cloth import Cutout, cut
from render.people.folds import Beneath, Cloth, creases, hang, neighbours, relaxed, slack
from render.people.garments import Garment, Marks, depth_of, tail_of
from render.people.shell import LEG, Sheet, Shell, normals_of

# Cloth keeps this from what it lies on: more than the sag of a 13 mm quad over a limb of 50 mm radius (0.4 mm).
CLEAR_M = 0.0035
# Skin and cloth go on this far under the hem of what covers them; beyond, they are cut away.
UNDER_HEM_M = 0.035
# Of looser cloth than this the folds are worked out; tighter cloth follows the body.
LOOSE = 0.12
# Cloth of the loosest fit is this much longer and wider than the room it has.
SPARE = 0.06
# Creases of the loosest, softest cloth stand out this far where a body bends, of cloth that lies on the body two thirds as far; they are so far
# apart: 10 to 20 mm quads hold no finer ones.
CREASED_M, ROOM_M, APART_M = 0.024, 0.008, 0.05
# (3, 3) maps of a place to the creases' lattice: long down a trunk; round a limb along the last axis, and slanted; between.
DOWN = np.diag([1.0, 1.0, 0.35])
ROUND = np.array([[0.4, 0, 0.3], [0, 0.4, 0.3], [0, 0, 1.0]])
ROUND_LEG = np.array([[0.6, 0, 0.3], [0, 0.6, 0.3], [0, 0, 0.8]])
# Where limbs bend and cloth gathers: share of the arm or leg, how far round it, and how much of the creases is there. What lies
# flat between keeps the share PRESSED of them; both meet over EVENED rounds of averaging.
BENDS_ARM = ((0.08, 0.10, 0.8), (0.53, 0.12, 1.0), (0.95, 0.08, 0.6))
BENDS_LEG = ((0.02, 0.10, 1.0), (0.52, 0.11, 0.9), (0.97, 0.09, 0.9))
PRESSED, EVENED = 0.4, 8


@dataclasses.dataclass
class Worn:
    """One garment, or its skirt, in the pose: ``points`` (N, 3) metres; ``depth`` (C,) inside its hems.

    ``gone``: (Q,) quads that later garments hide whole; ``beneath``: (N,) points that lie under one.
    """

    name: str
    garment: Garment
    cutout: Cutout
    points: np.ndarray
    depth: np.ndarray
    tail: bool
    gone: np.ndarray
    beneath: np.ndarray | None = None


class Layers:
    """The outermost surface so far, on one person."""

    def __init__(self, shell: Shell, sheet: Sheet, marks: Marks) -> None:
        self.shell, self.sheet, self.marks = shell, sheet, marks
        self.outer = sheet.posed.copy()
        self.worn: list[Worn] = []
        limb, side, tights = shell.limb, shell.side, np.arange(len(shell.limb)) < shell.tights
        arm, leg = np.isin(limb, ("upper_arm", "lower_arm", "hand")), np.isin(limb, LEG)
        lap = np.isin(limb, ("pelvis", "upper_leg"))
        self._region = np.full(len(limb), "trunk", dtype="<U6")
        self._region[~tights] = "skirt"
        self._seen = {"trunk": tights & ~arm & (~leg | lap), "skirt": tights & ~arm}
        for name, sign in (("L", 1), ("R", -1)):
            mine = tights & (side == sign)
            self._region[mine & arm] = f"arm.{name}"
            self._region[mine & leg] = f"leg.{name}"
            self._seen[f"arm.{name}"] = mine & (arm | np.isin(limb, ("shoulder", "trunk")) & (marks.arm > -0.3))
            self._seen[f"leg.{name}"] = mine & (leg | np.isin(limb, ("pelvis",)))

    def put_on(self, name: str, garment: Garment, fit: float, stiff: float, rng: np.random.Generator) -> None:
        """Add ``garment``, its skirt first, then trunk, sleeves and legs over it. ``fit``: 0 tight to 1 loose. ``stiff``: 0 a
        thin jersey to 1 leather: fewer, wider folds.
        """
        parts = []
        if garment.tail is not None:
            parts.append((tail_of(garment, self.shell, self.sheet, self.marks), True))
        if garment.sleeve is not None or garment.leg is not None:
            parts.append((depth_of(garment, self.shell, self.sheet, self.marks), False))
        for depth, tail in parts:
            self._add(name, garment, depth, tail, (fit, stiff, rng))

    def register(self, worn: Worn) -> None:
        """Add what was made elsewhere."""
        piece = worn.cutout
        self.outer[piece.i] = np.where((piece.t < 0.5)[:, None], worn.points, self.outer[piece.i])
        self.worn.append(worn)

    def _add(
        self,
        name: str,
        garment: Garment,
        depth: np.ndarray,
        tail: bool,
        how: tuple[float, float, np.random.Generator],
    ) -> None:
        fit, stiff, rng = how
        sheet, size = self.sheet, self.sheet.size
        piece = cut(self.shell, depth)
        low, high = garment.ease_m
        ease = (low + fit * (high - low)) * size * self._snug(piece, garment)
        clear = CLEAR_M + garment.thick_m
        rest, normals = piece.take(sheet.rest), piece.take(sheet.rest_normals)
        pattern = rest + normals * (clear + ease)[:, None]
        held = self._held(piece, garment, tail)
        if not tail:
            pattern = relaxed(pattern, piece.quads, rest, normals, clear + 0.35 * ease, int(4 + 36 * fit))
        frames = sheet.frames[piece.i]
        posed = piece.take(sheet.posed)
        start = posed + np.einsum("nij,nj->ni", frames, pattern - rest)
        # What is worn already may stand out farther than the body did.
        middle = neighbours(piece.quads, len(start))
        lift = np.einsum("nc,nc->n", piece.take(self.outer) - posed, piece.take(sheet.normals))
        for _ in range(6):
            lift = np.maximum(lift, middle @ lift)
        start += piece.take(sheet.normals) * np.maximum(lift, 0)[:, None]
        if tail:
            # Skinning draws a skirt in between the legs; a sheet of cloth spans them.
            for _ in range(40):
                start += (0.8 * (1 - held))[:, None] * (middle @ start - start)
        beneath = self._beneath(piece)
        at, normal = beneath.nearest(start)
        short = clear - np.einsum("nc,nc->n", start - at, normal)
        start = start + normal * np.clip(short, 0, 0.04)[:, None]
        if fit > LOOSE or tail:
            wide = 1 + SPARE * fit
            cloth = Cloth(piece.quads, pattern * wide, squeeze=1.0, bend=0.01 + 0.08 * stiff)
            start = start + normals_of(start, piece.quads) * self._ripples(piece, rng, 0.005 * size)[:, None]
            fall = (0.02 + 0.03 * fit) * size * (1 - 0.5 * stiff)
            points = hang(cloth, start, beneath, np.full(len(start), clear), held, sweeps=48, weight_m=fall)
        else:
            points = start
        rim = np.where(piece.rim, 0.8, 0.15)[:, None]
        for _ in range(3):
            points += rim * (middle @ points - points)
            rim = np.where(piece.rim, 0.8, 0.0)[:, None]
        # Outwards, into the points: the truth has them, and what is put on next lies over them.
        room = np.clip(0.7 + ease / ROOM_M, 0, 1) * min(1.0, garment.ease_m[1] / ROOM_M) * (1 - held)
        room *= np.clip(self._bends(piece, rest) + 4 * slack(pattern, points, piece.quads), 0.2, 1.6)
        crest = CREASED_M * size * min(1.0, 0.3 + 3 * fit) * (1 - 0.4 * stiff) * room
        points = points + normals_of(points, piece.quads) * (crest * creases(self._along(piece, rest), rng))[:, None]
        worn = Worn(name, garment, piece, points, depth, tail, np.zeros(len(piece.quads), bool))
        if tail:
            self._raise(points)
            self.worn.append(worn)
        else:
            self.register(worn)

    def _snug(self, piece: Cutout, garment: Garment) -> np.ndarray:
        """(N,) share of the ease that is left: less at neck, waist and cuffs, over the last 7 cm, and on top of shoulders."""
        marks, (top, end, hem) = self.marks, garment.snug
        size, trunk = self.sheet.size, piece.take(self.marks.trunk)
        tall, legs = marks.waist - marks.crotch, marks.crotch - marks.ankle
        share = np.ones(len(piece.i))
        arm, leg = piece.take(marks.arm), piece.take(marks.leg)

        def near(metres: np.ndarray, at: float, where: np.ndarray) -> None:
            t = np.clip(metres / (0.07 * size), 0, 1)
            value = at + (1 - at) * t * t * (3 - 2 * t)
            share[where] = np.minimum(share, value)[where]

        on_arm = arm > 0.12
        # Cloth lies on the shoulders and hangs from them.
        up = piece.take(self.sheet.rest_normals)[:, 2]
        lies = np.clip((up - 0.1) / 0.5, 0, 1) * np.clip((trunk - 1.2) / 0.2, 0, 1) * (1 - np.clip(arm / 0.12, 0, 1))
        share *= 1 - lies
        if garment.neck is not None:
            near((piece.take(marks.neck) - garment.neck) * marks.neck_m, top, ~on_arm)
        if garment.sleeve is not None:
            near((garment.sleeve - arm) * marks.arm_m, end, on_arm)
        if garment.rise is not None:
            near((garment.rise - trunk) * tall, top, ~on_arm)
        if garment.leg is not None:
            near((garment.leg - leg) * legs, end, ~on_arm)
        if garment.hem is not None:
            near((trunk - garment.hem) * tall, hem, ~on_arm)
        return share

    def _held(self, piece: Cutout, garment: Garment, tail: bool) -> np.ndarray:
        trunk = piece.take(self.marks.trunk)
        held = np.zeros(len(piece.i))
        if tail:
            top = trunk.max() if len(trunk) else 0
            held[trunk > top - 0.06] = 1.0
        elif garment.rise is not None:
            tall = self.marks.waist - self.marks.crotch
            held = np.clip(1 - ((garment.rise - trunk) * tall - 0.02) / 0.03, 0, 1)
        elif garment.neck is not None:
            held = np.where(piece.take(self.marks.neck) < garment.neck + 0.07, 0.9, 0.0)
        return held

    def _beneath(self, piece: Cutout) -> Beneath:
        # The body's own normals: those of the outermost cloth lie flat in the step at a hem.
        return Beneath(self.outer, self.sheet.normals, self._seen, self._region[piece.i])

    def _raise(self, points: np.ndarray) -> None:
        """Lift the outermost surface to a skirt's ``points`` (N, 3), so that a hem can lie over it."""
        mine = np.flatnonzero(self._seen["trunk"])
        _, i = cKDTree(points).query(self.outer[mine])
        gap, normal = points[i] - self.outer[mine], self.sheet.normals[mine]
        up = np.einsum("nc,nc->n", gap, normal)
        aside = np.linalg.norm(gap - normal * up[:, None], axis=1)
        lift = np.where(aside < 0.03 * self.sheet.size, np.clip(up, 0, 0.06), 0)
        self.outer[mine] += normal * lift[:, None]

    def _bends(self, piece: Cutout, rest: np.ndarray) -> np.ndarray:
        """(N,) from PRESSED to 1: how much of worn cloth's creases is there whatever the pose, most where the body bends. ``rest``:
        (N, 3) metres, A-pose.
        """
        arm, leg = piece.take(self.marks.arm), piece.take(self.marks.leg)
        off = np.abs(rest[:, 2] - self.marks.waist) / (0.09 * self.sheet.size)
        near = 0.7 * np.exp(-(off**2))
        # Shares of the leg go on above the crotch, below 0; a skirt's folds are its own.
        for at, wide, much in BENDS_LEG:
            near = np.maximum(near, much * np.exp(-(((leg - at) / wide) ** 2)))
        near = np.where(piece.i >= self.shell.tights, 0.0, near)
        on = np.zeros(len(near))
        for at, wide, much in BENDS_ARM:
            on = np.maximum(on, much * np.exp(-(((arm - at) / wide) ** 2)))
        near = np.where(arm > 0, on, near)
        # Off the arm there is no share of it: what is beside the armhole follows.
        middle = neighbours(piece.quads, len(near))
        for _ in range(EVENED):
            near = 0.4 * near + 0.6 * (middle @ near)
        return PRESSED + (1 - PRESSED) * near

    def _along(self, piece: Cutout, rest: np.ndarray) -> np.ndarray:
        """(N, 3) places among creases, one apart where creases are: they run down the trunk and slantwise round limbs."""
        share, side = piece.take(self.marks.arm), self.shell.side[piece.i]
        at = rest @ DOWN
        for sign in (1, -1):
            mine = self.marks.arm > 0
            mine &= self.shell.side == sign
            # The arm's axis: places on it over their share of it.
            fit = np.stack([np.ones(mine.sum()), self.marks.arm[mine]], axis=1)
            shoulder, axis = np.linalg.lstsq(fit, self.sheet.rest[mine], rcond=None)[0]
            axis /= np.linalg.norm(axis)
            ahead = np.array([0.0, 1.0, 0.0])
            turn = np.stack([ahead, np.cross(axis, ahead), axis], axis=1)
            round_it = turn @ ROUND
            how = np.where(side == sign, np.clip(share / 0.15, 0, 1), 0)[:, None]
            at += how * ((rest - shoulder) @ (round_it - DOWN))
        leg = np.clip(piece.take(self.marks.leg) / 0.2, 0, 1)[:, None]
        crotch = np.array([0.0, 0.0, self.marks.crotch])
        leg[(share > 0) | (piece.i >= self.shell.tights)] = 0
        at += leg * ((rest - crotch) @ (ROUND_LEG - DOWN))
        return at / (APART_M * self.sheet.size)

    def _ripples(self, piece: Cutout, rng: np.random.Generator, height_m: float) -> np.ndarray:
        """(N,) metres: the unevenness from which folds grow, about 6 cm wide."""
        value = rng.normal(0, 1, len(piece.i))
        middle = neighbours(piece.quads, len(value))
        for _ in range(4):
            value = 0.4 * value + 0.6 * (middle @ value)
        return value / max(float(value.std()), 1e-9) * height_m
