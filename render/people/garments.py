"""The name of a garment and a person's sheet -> how deep inside the garment each point lies: 0 at its hems, metres.

Legend: C points of the sheet (render/people/shell.py).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people.body import Posed
from render.people.shell import ARM, LEG, Sheet, Shell

FAR_M = 9.0
# Share of coats that are not buttoned up.
OPEN = 0.65


@dataclasses.dataclass(frozen=True)
class Garment:
    """Where a garment ends, in shares of the body.

    ``sleeve``: of the arm, shoulder to wrist; None = no arms. ``hem``: of the trunk, crotch 0 to waist 1, where the trunk
    part ends below; None = it goes on into legs. ``rise``: the same, where it ends above; None = at ``neck``, from the
    neck's upper joint, of its length. ``leg``: of the leg, crotch to ankle; ``above``: the same, where socks end.
    ``scoop``: how much lower than ``neck`` one of its kind may be cut, of the neck's length.
    ``open_m``: half the width that it is open in front; None = closed. ``opens_m``: the most of it on one of its kind.
    ``tail``: length of a skirt, of the leg; None = no skirt.
    ``ease_m``: room at the tightest and at the loosest fit. ``thick_m``: of its own cloth. ``snug``: share of
    the ease that is left at its upper end (neck or waist), at the ends of sleeves or legs, and at the trunk's lower hem.
    """

    part: str
    sleeve: float | None = None
    hem: float | None = None
    rise: float | None = None
    neck: float | None = None
    scoop: float = 0.0
    leg: float | None = None
    above: float | None = None
    tail: float | None = None
    open_m: float | None = None
    opens_m: float = 0.0
    ease_m: tuple[float, float] = (0.003, 0.022)
    thick_m: float = 0.0025
    snug: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclasses.dataclass
class Marks:
    """Heights and axes of one person in the A-pose, metres. ``arm``, ``neck``: (C,) shares of the arm (-1 off it), and
    how far from the neck's upper joint, of the neck's length, a little farther to the sides; ``leg``: (C,) shares of the leg.
    """

    waist: float
    crotch: float
    ankle: float
    arm: np.ndarray
    arm_m: float
    neck: np.ndarray
    neck_m: float
    leg: np.ndarray
    trunk: np.ndarray


def marks_of(shell: Shell, sheet: Sheet, posed: Posed) -> Marks:
    """Landmarks of a person, from its bones and its sheet."""
    bone, rest = posed.rest_bones, sheet.rest
    middle = (np.abs(rest[:, 0]) < 0.012 * sheet.size) & np.isin(shell.limb, ("upper_leg", "pelvis"))
    crotch = float(rest[middle, 2].min())
    ankle = (bone["foot.L"][2] + bone["foot.R"][2]) / 2
    waist = 0.35 * bone["spine04"][2] + 0.65 * bone["spine03"][2]
    arm, length = np.full(len(rest), -1.0), 1.0
    for side, sign in (("L", 1), ("R", -1)):
        shoulder, elbow, wrist = (bone[f"{b}.{side}"] for b in ("upperarm01", "lowerarm01", "wrist"))
        upper, lower = np.linalg.norm(elbow - shoulder), np.linalg.norm(wrist - elbow)
        length = float(upper + lower)
        on = np.isin(shell.limb, ARM) & (shell.side == sign)
        along = _along(rest, shoulder, elbow)
        beyond = _along(rest, elbow, wrist)
        # The two axes meet where the elbow bends; past its plane the lower arm counts.
        arm[on] = np.where(beyond > 0, upper + beyond, np.minimum(along, upper))[on] / length
    # Down the neck and out over the shoulders this grows all round: a neckline is one closed line, which meets the pit of the
    # throat and the neck's lowest vertebra at about the same value. Radii of the neck do not grow down it, and left holes.
    neck_m = float(np.linalg.norm(bone["head"] - bone["neck01"]))
    neck = np.linalg.norm((rest - bone["head"]) * [1.3, 1, 1], axis=1) / neck_m
    return Marks(
        waist=float(waist),
        crotch=crotch,
        ankle=float(ankle),
        arm=arm,
        arm_m=length,
        neck=neck,
        neck_m=neck_m,
        leg=(crotch - rest[:, 2]) / (crotch - ankle),
        trunk=(rest[:, 2] - crotch) / (waist - crotch),
    )


def depth_of(garment: Garment, shell: Shell, sheet: Sheet, marks: Marks) -> np.ndarray:
    """(C,) metres inside ``garment``, negative outside, along the body to its nearest hem."""
    tall, legs = marks.waist - marks.crotch, marks.crotch - marks.ankle
    on_arm = marks.arm > 0.12
    depth = np.full(len(sheet.rest), FAR_M)
    trunk_part = garment.sleeve is not None
    if trunk_part:
        depth = np.where(on_arm, (garment.sleeve - marks.arm) * marks.arm_m, depth)
    else:
        depth[np.isin(shell.limb, ARM) & (marks.arm > -0.5) & (marks.trunk > 1.6)] = -FAR_M
        depth[on_arm] = -FAR_M
    below = ~on_arm
    if garment.hem is not None:
        depth = np.where(below, np.minimum(depth, (marks.trunk - garment.hem) * tall), depth)
    elif garment.leg is not None:
        depth = np.where(below, np.minimum(depth, (garment.leg - marks.leg) * legs), depth)
    if garment.above is not None:
        depth = np.where(below, np.minimum(depth, (marks.leg - garment.above) * legs), depth)
    if garment.rise is not None:
        depth = np.where(below, np.minimum(depth, (garment.rise - marks.trunk) * tall), depth)
    if garment.neck is not None:
        edge = (marks.neck - garment.neck) * marks.neck_m
        depth = np.where(marks.trunk > 1.2, np.minimum(depth, np.where(on_arm, FAR_M, edge)), depth)
    if garment.open_m is not None:
        front = (sheet.rest_normals[:, 1] < 0.2) & ~on_arm & ~np.isin(shell.limb, LEG)
        depth = np.where(front, np.minimum(depth, np.abs(sheet.rest[:, 0]) - garment.open_m * sheet.size), depth)
    depth[shell.tights :] = -FAR_M
    return depth


def tail_of(garment: Garment, shell: Shell, sheet: Sheet, marks: Marks) -> np.ndarray:
    """(C,) as ``depth_of``, for the skirt part alone."""
    depth = np.full(len(sheet.rest), -FAR_M)
    mine = slice(shell.tights, None)
    depth[mine] = ((garment.tail or 0) - marks.leg[mine]) * (marks.crotch - marks.ankle)
    if garment.open_m is not None:
        front = sheet.rest_normals[:, 1] < 0
        edge = np.abs(sheet.rest[:, 0]) - garment.open_m * sheet.size
        depth = np.where(front, np.minimum(depth, edge), depth)
        depth[: shell.tights] = -FAR_M
    return depth


def _along(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    axis = end - start
    return (points - start) @ axis / np.linalg.norm(axis)


def drawn_cut(garment: Garment, rng: np.random.Generator) -> Garment:
    """``garment`` with a neckline of its own: high, round or wide; or worn open."""
    if garment.opens_m and rng.random() < OPEN:
        garment = dataclasses.replace(garment, open_m=garment.opens_m * float(rng.uniform(0.4, 1.0)))
    if garment.neck is None or not garment.scoop:
        return garment
    return dataclasses.replace(garment, neck=garment.neck + garment.scoop * float(rng.random()))


UPPER, LOWER = "Upper_Clothing", "Lower_Clothing"
GARMENTS = {
    "t_shirt": Garment(UPPER, sleeve=0.42, hem=0.42, neck=1.24, scoop=0.3, ease_m=(0.003, 0.028), snug=(0.1, 0.9, 0.9)),
    "shirt": Garment(
        UPPER, sleeve=1.0, hem=0.36, neck=1.2, ease_m=(0.005, 0.028), thick_m=0.002, snug=(0.0, 0.25, 0.9)
    ),
    "jumper": Garment(
        UPPER, sleeve=1.0, hem=0.45, neck=1.16, scoop=0.25, ease_m=(0.007, 0.034), thick_m=0.005, snug=(0.1, 0.2, 0.3)
    ),
    "hoodie": Garment(
        UPPER, sleeve=1.0, hem=0.40, neck=1.22, ease_m=(0.012, 0.04), thick_m=0.005, snug=(0.1, 0.2, 0.3)
    ),
    "coat": Garment(
        UPPER,
        sleeve=1.0,
        hem=0.6,
        neck=1.25,
        tail=0.45,
        opens_m=0.07,
        ease_m=(0.014, 0.034),
        thick_m=0.006,
        snug=(0.1, 0.9, 0.7),
    ),
    "dress": Garment(
        UPPER, sleeve=0.3, hem=0.75, neck=1.4, scoop=0.2, tail=0.45, ease_m=(0.003, 0.014), snug=(0.1, 0.7, 0.2)
    ),
    "skirt": Garment(LOWER, tail=0.5, ease_m=(0.002, 0.012)),
    "trousers": Garment(LOWER, leg=1.0, rise=0.75, ease_m=(0.004, 0.03), snug=(0.05, 0.9, 0.9)),
    "jeans": Garment(LOWER, leg=1.0, rise=0.72, ease_m=(0.003, 0.018), thick_m=0.003, snug=(0.05, 0.9, 0.9)),
    "shorts": Garment(LOWER, leg=0.42, rise=0.75, ease_m=(0.008, 0.034), snug=(0.05, 1.0, 1.0)),
    "leggings": Garment(LOWER, leg=0.96, rise=0.85, ease_m=(0.001, 0.002), thick_m=0.001),
    "close_shorts": Garment(LOWER, leg=0.2, rise=0.8, ease_m=(0.001, 0.002), thick_m=0.001),
    "socks": Garment("Sock", leg=1.3, above=0.84, ease_m=(0.0005, 0.001), thick_m=0.0015),
    "tights": Garment(LOWER, leg=1.2, rise=0.8, ease_m=(0.0005, 0.001), thick_m=0.001),
}
