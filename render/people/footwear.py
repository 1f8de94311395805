"""Feet -> shoes: an upper cut from the sheet, smoothed stiff, on a sole that bends at the toes.

Legend: C points of the sheet, N points of a piece, S points round a sole.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people.body import Posed
from render.people.cloth import Cutout, cut
from render.people.folds import relaxed
from render.people.headwear import rigid
from render.people.shell import Sheet, Shell

FAR_M = 9.0
ROUND = 44


@dataclasses.dataclass(frozen=True)
class Shoe:
    """Metres at 1.7 m stature. ``top``: height of the opening over the ground; ``vamp``: how steeply it falls to the
    instep; ``upper``: thickness; ``sole``, ``heel``: thickness under toes and heel; ``edge``: how far the sole stands
    out; ``straps``: places along the foot, heel 0 to toe 1, instead of an upper.
    """

    top: float
    vamp: float = 0.0
    upper: float = 0.006
    sole: float = 0.015
    heel: float = 0.02
    edge: float = 0.004
    straps: tuple[tuple[float, float], ...] = ()


SHOES = {
    "trainers": Shoe(top=0.088, vamp=0.25, upper=0.008, sole=0.022, heel=0.03, edge=0.005),
    "boots": Shoe(top=0.20, upper=0.008, sole=0.018, heel=0.034, edge=0.004),
    "low_shoes": Shoe(top=0.062, vamp=0.42, upper=0.005, sole=0.010, heel=0.022, edge=0.003),
    "sandals": Shoe(top=0.0, upper=0.004, sole=0.016, heel=0.02, edge=0.002, straps=((0.70, 0.025), (0.38, 0.02))),
}


@dataclasses.dataclass
class Feet:
    """Of one person: heel and toe of each foot in the A-pose (y of each, z of the ground), and how they are posed."""

    ground: float
    heel_y: dict[int, float]
    length: dict[int, float]
    turns: dict[int, tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]
    joint_y: dict[int, float]
    foot: np.ndarray


def feet_of(shell: Shell, sheet: Sheet, posed: Posed) -> Feet:
    """Measures of both feet."""
    foot = (shell.limb == "foot") & (np.arange(len(shell.limb)) < shell.tights)
    ground = float(sheet.rest[foot, 2].min())
    heel, length, turns, joints = {}, {}, {}, {}
    for side, name in ((1, "L"), (-1, "R")):
        mine = foot & (shell.side == side)
        y = sheet.rest[mine, 1]
        heel[side], length[side] = float(y.max()), float(np.ptp(y))
        joint = float(np.mean([posed.rest_bones[f"toe{k}-1.{name}"][1] for k in (1, 2, 3)]))
        toes = mine & (sheet.rest[:, 1] < joint)
        rest = mine & (sheet.rest[:, 1] > joint + 0.25 * length[side])
        turns[side] = (rigid(sheet.rest[rest], sheet.posed[rest]), rigid(sheet.rest[toes], sheet.posed[toes]))
        joints[side] = joint
    return Feet(ground, heel, length, turns, joints, foot)


def posed_foot(feet: Feet, side: int, points: np.ndarray) -> np.ndarray:
    """``points`` (N, 3) of a stiff shoe in the A-pose, posed: the foot's turn, and past the ball the toes'."""
    (r0, t0), (r1, t1) = feet.turns[side]
    w = np.clip(0.5 + (feet.joint_y[side] - points[:, 1]) / (0.22 * feet.length[side]), 0, 1)
    w = (w * w * (3 - 2 * w))[:, None]
    return (points @ r0.T + t0) * (1 - w) + (points @ r1.T + t1) * w


def upper_depth(shoe: Shoe, shell: Shell, sheet: Sheet, feet: Feet) -> np.ndarray:
    """(C,) metres inside the upper."""
    depth = np.full(len(sheet.rest), -FAR_M)
    size = sheet.size
    for side in (1, -1):
        mine = (shell.side == side) & np.isin(shell.limb, ("foot", "lower_leg"))
        mine[shell.tights :] = False
        p = sheet.rest[mine]
        along = (feet.heel_y[side] - p[:, 1]) / feet.length[side]
        if shoe.straps:
            value = np.max([w * size - np.abs(along - at) * feet.length[side] for at, w in shoe.straps], axis=0)
            value = np.minimum(value, 0.09 * size - (p[:, 2] - feet.ground))
        else:
            top = shoe.top * size - shoe.vamp * np.clip(0.45 - np.abs(along - 0.45), 0, 0.25) * feet.length[side]
            value = np.where(along > 0.72, FAR_M, top - (p[:, 2] - feet.ground))
        depth[mine] = value
    return depth


def upper(shoe: Shoe, shell: Shell, sheet: Sheet, feet: Feet) -> tuple[Cutout, np.ndarray, np.ndarray]:
    """The cut, its posed points (N, 3) and its depth (C,)."""
    depth = upper_depth(shoe, shell, sheet, feet)
    piece = cut(shell, depth)
    rest, normals = piece.take(sheet.rest), piece.take(sheet.rest_normals)
    ease = np.full(len(rest), shoe.upper * sheet.size)
    shape = relaxed(rest + normals * ease[:, None], piece.quads, rest, normals, ease * 0.8, 3 if shoe.straps else 12)
    shape[:, 2] = np.maximum(shape[:, 2], feet.ground - 0.002)
    points = np.empty_like(shape)
    shaft = np.clip((rest[:, 2] - feet.ground - 0.05 * sheet.size) / (0.05 * sheet.size), 0, 1)[:, None]
    turned = piece.take(sheet.posed) + np.einsum("nij,nj->ni", sheet.frames[piece.i], shape - rest)
    for side in (1, -1):
        mine = shell.side[piece.i] == side
        points[mine] = posed_foot(feet, side, shape[mine])
    return piece, points * (1 - shaft) + turned * shaft, depth


def sole(shoe: Shoe, shell: Shell, sheet: Sheet, feet: Feet, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) posed and quads (Q, 4) of one sole."""
    size = sheet.size
    mine = feet.foot & (shell.side == side) & (sheet.rest[:, 2] < feet.ground + 0.045 * size)
    flat = sheet.rest[mine][:, :2]
    centre = np.array([flat[:, 0].mean(), feet.heel_y[side] - 0.5 * feet.length[side]])
    angle = np.linspace(-np.pi, np.pi, ROUND, endpoint=False)
    ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # Support of the foot in each direction, then the outline that these lines enclose, a little rounder than the foot.
    support = ((flat - centre) @ ray.T).max(axis=0)
    facing = ray @ ray.T
    reach = np.where(facing > 0.3, support[None] / np.maximum(facing, 0.3), np.inf).min(axis=1)
    reach = (np.roll(reach, 1) + np.roll(reach, -1) + 2 * reach) / 4 + (shoe.upper + shoe.edge) * size * 0.7
    outline = centre + ray * reach[:, None]
    along = np.clip((feet.heel_y[side] - outline[:, 1]) / feet.length[side], 0, 1)
    lift = 0.012 * size * np.clip((along - 0.8) / 0.2, 0, 1) ** 2
    thick = size * (shoe.sole + (shoe.heel - shoe.sole) * np.clip((0.45 - along) / 0.1, 0, 1))
    top = feet.ground + (0.008 if not shoe.straps else 0.001) * size
    rows = []
    for grow, z in (
        (0.80, top),
        (0.985, top),
        (1.0, top - 0.003),
        (1.0, feet.ground - thick * 0.9),
        (0.97, feet.ground - thick),
        (0.3, feet.ground - thick),
    ):
        at = centre + (outline - centre) * grow
        rows.append(np.column_stack([at, np.broadcast_to(z, len(at)) + lift]))
    if shoe.straps:
        rows.insert(0, np.column_stack([centre + (outline - centre) * 0.05, np.full(ROUND, top)]))
    rows.append(np.column_stack([centre + (outline - centre) * 0.0, np.full(ROUND, rows[-1][:, 2].mean())]))
    points = np.concatenate(rows)
    i, j = np.meshgrid(np.arange(len(rows) - 1), np.arange(ROUND), indexing="ij")
    k = (j + 1) % ROUND
    quads = np.stack([i * ROUND + j, (i + 1) * ROUND + j, (i + 1) * ROUND + k, i * ROUND + k], axis=2).reshape(-1, 4)
    return posed_foot(feet, side, points), quads
