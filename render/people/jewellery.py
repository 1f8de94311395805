"""A head and arms -> earrings at the lobes, a watch round the wrist."""

from __future__ import annotations

import numpy as np

from render.people.accessories import Thing
from render.people.piece import Piece
from render.people.solids import Solid, grid, merged, tube, turned
from render.people.wearing import Wearer

DOWN = np.array([0.0, 0.0, -1.0])
# A wrist under a sleeve shows no watch: the share of its skin that cloth may cover.
COVERED = 0.25


def earrings(thing: Thing, wearer: Wearer) -> list[Piece]:
    """A pair; hoops and drops hang straight down whatever the head does."""
    head, rng = wearer.head, np.random.default_rng(thing.seed)
    scale = head.ipd / 0.062
    size = float(rng.uniform(0, 1))
    made: list[Solid] = []
    for which, sign in ((0, 1), (1, -1)):
        lobe = head.lobes[which]
        at = head.world((lobe + np.array([sign * 0.0008, -0.001, 0.0035]) * scale)[None])[0]
        out = head.turn @ np.array([sign, 0, 0.0])
        ahead = head.turn @ np.array([0, -1.0, 0])
        if thing.kind == "hoop":
            r, thick = (0.006 + 0.012 * size) * scale, (0.0007 + 0.0009 * size) * scale
            across = 0.55 * out + 0.83 * ahead
            across -= DOWN * (across @ DOWN)
            across /= max(float(np.linalg.norm(across)), 1e-6)
            turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
            ring = at + DOWN * r + r * (np.outer(np.sin(turn), across) - np.outer(np.cos(turn), DOWN))
            normal = np.cross(across, DOWN)
            made.append(tube(ring, thick, 8, closed=True, up=normal))
            continue
        made.append(_ball(at + out * 0.001, (0.0016 + 0.0014 * size) * scale))
        if thing.kind == "drop":
            long = (0.012 + 0.02 * size) * scale
            low = at + out * 0.002 + DOWN * long
            made.append(tube(np.stack([at + out * 0.002, low]), 0.0005 * scale, 6, up=ahead))
            made.append(_ball(low, (0.0025 + 0.002 * size) * scale))
    points, quads = merged(*made)
    return [Piece("earring", points, quads)]


def watch(thing: Thing, wearer: Wearer) -> list[Piece] | None:
    """A band round the bare wrist, its case on the back; None where a sleeve covers it."""
    posed, side = wearer.posed, thing.side
    wrist, elbow = posed.bones[f"wrist.{side}"], posed.bones[f"lowerarm02.{side}"]
    axis = wrist - elbow
    axis /= np.linalg.norm(axis)
    centre = wrist - axis * 0.022 * wearer.size
    from render.people.body import groups

    skin = np.unique(groups()["body"])
    sign = 1 if side == "L" else -1
    arm = skin[np.isin(wearer.limb[skin], ("lower_arm", "hand")) & (wearer.body.template[skin, 0] * sign > 0)]
    away = posed.vertices[arm] - centre
    along = away @ axis
    near = np.abs(along) < 0.016 * wearer.size
    if not near.any() or wearer.dressed.covered[arm[near]].mean() > COVERED:
        return None
    back = _back_of_hand(wearer, side, axis)
    beside = np.cross(axis, back)
    flat = away[near] - np.outer(along[near], axis)
    turn = np.arctan2(flat @ beside, flat @ back)
    far = np.linalg.norm(flat, axis=1)
    centre = centre + (back * (far * np.cos(turn)).max() + back * (far * np.cos(turn)).min()) / 2
    flat = posed.vertices[arm[near]] - centre
    flat -= np.outer(flat @ axis, axis)
    turn, far = np.arctan2(flat @ beside, flat @ back), np.linalg.norm(flat, axis=1)
    even = np.linspace(-np.pi, np.pi, 48, endpoint=False)
    gap = np.abs((turn[None] - even[:, None] + np.pi) % (2 * np.pi) - np.pi)
    reach = np.array([far[g < 0.35].max() if (g < 0.35).any() else far.max() for g in gap])
    for _ in range(3):
        reach = np.maximum(reach, (np.roll(reach, 1) + np.roll(reach, -1)) / 2)
    reach += 0.0008
    half, thick = 0.0095 * wearer.size, 0.0022
    way = np.outer(np.cos(even), back) + np.outer(np.sin(even), beside)
    profile = [(0.0, -half), (thick, -half * 0.92), (thick, half * 0.92), (0.0, half)]
    rows = [centre + way * (reach + o)[:, None] + axis * a for o, a in profile]
    rows.append(rows[0])
    band = (np.concatenate(rows), grid(len(rows), 48))
    top = centre + back * (reach[24] + 0.0005)
    r = float(np.random.default_rng(thing.seed).uniform(0.015, 0.020)) * wearer.size
    body = turned([(0.0, 0.0), (r * 0.96, 0.0), (r, 0.001), (r, 0.0075), (r * 0.9, 0.0088), (r * 0.88, 0.0082)])
    face = turned([(r * 0.885, 0.0082), (r * 0.5, 0.0083), (0.0, 0.0083)])
    frame = np.stack([axis, np.cross(back, axis), back], axis=1)
    return [
        Piece("watch_band", *band),
        Piece("watch", body[0] @ frame.T + top, body[1]),
        Piece("watch_face", face[0] @ frame.T + top, face[1]),
    ]


def _back_of_hand(wearer: Wearer, side: str, axis: np.ndarray) -> np.ndarray:
    """(3,) unit, across the forearm."""
    at = wearer.posed.bones
    along = at[f"finger3-1.{side}"] - at[f"wrist.{side}"]
    across = at[f"finger2-1.{side}"] - at[f"finger5-1.{side}"]
    back = np.cross(across, along) if side == "L" else np.cross(along, across)
    back -= axis * (back @ axis)
    return back / np.linalg.norm(back)


def _ball(at: np.ndarray, radius: float) -> Solid:
    turn = np.linspace(-np.pi / 2, np.pi / 2, 9)
    points, quads = turned([(radius * float(np.cos(t)), radius * float(np.sin(t))) for t in turn], 14)
    return points + at, quads
