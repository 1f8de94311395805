"""A hand, an object and a pose -> fingers closed on the object until they touch it, and the object between them.

The object lies against the palm: it is brought nearer until the hand's skin is TOUCH_M deep in it; then each finger closes
as far as that allows. Legend: N vertices of one hand, B bones.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people import joints
from render.people.accessories import Thing
from render.people.body import Body, Figure, Posed, groups
from render.people.hands import CURLED
from render.people.joints import AT, Rig
from render.people.piece import Piece
from render.people.solids import Solid, box, merged, turned

# Skin gives way by this much where it touches, and nowhere is deeper in what it holds.
TOUCH_M, DEEPEST_M = 0.0008, 0.0025
# Nothing else of the person is deeper than this in what it holds, or it holds nothing in this pose.
CLEAR_M = 0.006
STEPS = 9


@dataclasses.dataclass(frozen=True)
class Object:
    """``half``: of a box, or (radius, radius, half height) of a cylinder along z or a ball. ``form``: box, round or ball.

    ``lies``: which of its axes points away from the palm, and which runs across it from little finger to index.
    ``along``: metres from the wrist to its middle over the hand's length.
    """

    form: str
    half: tuple[float, float, float]
    away: int
    across: int
    along: float


OBJECTS = {
    "phone": Object("box", (0.0365, 0.0042, 0.075), 1, 2, 0.86),
    "cup": Object("round", (0.038, 0.038, 0.055), 1, 2, 0.74),
    "book": Object("box", (0.065, 0.011, 0.10), 1, 2, 0.98),
    "ball": Object("ball", (0.034, 0.034, 0.034), 1, 2, 0.80),
    "bottle": Object("round", (0.032, 0.032, 0.10), 1, 2, 0.72),
}
# Children's things are smaller, but not as small as their hands.
LEAST = 0.62


class Hand:
    """One hand of one body, posed alone: its vertices by the bones that move them."""

    def __init__(self, body: Body, figure: Figure, side: str) -> None:
        names = [
            n for n in body.bone_names if n.endswith(f".{side}") and n.startswith(("wrist", "finger", "metacarpal"))
        ]
        skin = np.unique(groups()["body"])
        mine = skin[np.isin(body.vertex_bone[skin], names)]
        self.kept, self._parents, self.names = mine, body.parents, body.bone_names
        self._weights = np.zeros((len(mine), len(body.bone_names)))
        np.add.at(self._weights, (np.arange(len(mine))[:, None], body.weight_bones[mine]), body.weights[mine])
        self._rest, self._turn, self._heads = figure.rest[mine], figure.turn, figure.heads
        bone = body.vertex_bone[mine]
        self.finger = np.array([int(b[6]) if b.startswith("finger") else 0 for b in bone])
        self.side = side
        self._used = np.flatnonzero(self._weights.any(axis=0))

    def skinned(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) vertices and (B, 3) joints for (B, 3, 3) rotations from the reference pose; root's head at 0."""
        at = np.zeros((len(world), 3))
        for i, p in enumerate(self._parents):
            if p >= 0:
                at[i] = at[p] + world[p] @ (self._turn[p] @ (self._heads[i] - self._heads[p]))
        used = self._used
        turn = world[used] @ self._turn[used]
        move = at[used] - np.einsum("bij,bj->bi", turn, self._heads[used])
        weights = self._weights[:, used]
        matrix = (weights @ turn.reshape(-1, 9)).reshape(-1, 3, 3)
        return np.einsum("sij,sj->si", matrix, self._rest) + weights @ move, at

    def frame(self, at: np.ndarray) -> np.ndarray:
        """(3, 3) rows: from the palm outwards, from little finger to index, from wrist to fingers. ``at``: (B, 3)."""
        i = {n: self.names.index(f"{n}.{self.side}") for n in ("wrist", "finger2-1", "finger3-1", "finger5-1")}
        along = at[i["finger3-1"]] - at[i["wrist"]]
        along /= np.linalg.norm(along)
        across = at[i["finger2-1"]] - at[i["finger5-1"]]
        across -= along * (across @ along)
        across /= np.linalg.norm(across)
        out = np.cross(along, across) if self.side == "L" else np.cross(across, along)
        return np.stack([out, across, along])


@dataclasses.dataclass
class Held:
    """``rotations``: bone -> (3, 3) of the fingers, for Body.posed. ``turn``, ``middle``: object's axes (columns) and place
    in the wrist's frame. ``touch``: (5,) metres that each finger's skin, thumb first, is from the object; below 0 in it.
    """

    thing: Thing
    scale: float
    rotations: dict[str, np.ndarray]
    turn: np.ndarray
    middle: np.ndarray
    touch: np.ndarray


def grasp(thing: Thing, body: Body, rig: Rig, figure: Figure, rotations: dict[str, np.ndarray]) -> Held:
    """Fingers round the thing. ``rotations``: bone -> (3, 3) of the whole pose, as Body.posed takes them."""
    hand = Hand(body, figure, thing.side)
    side = thing.side
    shape = OBJECTS[thing.kind]
    length = float(
        np.linalg.norm(
            figure.heads[rig.names.index(f"finger3-1.{side}")] - figure.heads[rig.names.index(f"wrist.{side}")]
        )
    )
    scale = float(np.clip(length / 0.095, LEAST, 1.1))
    world = _world(rig.names, body.parents, rotations)
    fingers = [i for i, n in enumerate(rig.names) if n.startswith(("finger", "metacarpal")) and n.endswith(f".{side}")]
    wrist = rig.names.index(f"wrist.{side}")
    palm = world[wrist].copy()

    def pose(curls: np.ndarray) -> np.ndarray:
        """World rotations with the fingers' curls (5,) 0..1, thumb first."""
        local = rig.local(rig.bones(joints.turns(_angles(side, curls))))
        made = world.copy()
        for i in fingers:
            made[i] = made[body.parents[i]] @ local[rig.names[i]]
        return made

    curls = np.zeros(5)
    points, at = hand.skinned(pose(curls))
    axes = hand.frame(at)
    turn = np.zeros((3, 3))
    turn[:, shape.away], turn[:, shape.across] = axes[0], axes[1]
    rest = 3 - shape.away - shape.across
    turn[:, rest] = np.cross(turn[:, (rest + 1) % 3], turn[:, (rest + 2) % 3])
    half = np.array(shape.half) * scale
    foot = at[wrist] + axes[2] * length * shape.along
    # Nearer and nearer until the palm or a straight finger touches; the thumb is out of the way.
    points = points[hand.finger != 1]
    far, near = 0.12, -0.03
    for _ in range(14):
        middle = (far + near) / 2
        depth = -_distance(shape.form, half, (points - (foot + axes[0] * (middle + half[shape.away]))) @ turn).min()
        far, near = (middle, near) if depth < TOUCH_M else (far, middle)
    centre = foot + axes[0] * (far + half[shape.away])
    low, high = np.zeros(5), np.ones(5)
    for _ in range(STEPS):
        curls = (low + high) / 2
        points, _ = hand.skinned(pose(curls))
        away = _distance(shape.form, half, (points - centre) @ turn)
        for f in range(5):
            deep = -away[hand.finger == f + 1].min()
            low[f], high[f] = (curls[f], high[f]) if deep < TOUCH_M else (low[f], curls[f])
    made = pose(low)
    points, at = hand.skinned(made)
    away = _distance(shape.form, half, (points - centre) @ turn)
    local = {rig.names[i]: made[body.parents[i]].T @ made[i] for i in fingers}
    touch = np.array([away[hand.finger == f + 1].min() for f in range(5)])
    return Held(thing, scale, local, palm.T @ turn, palm.T @ (centre - at[wrist]), touch)


def placed(held: Held, body: Body, posed: Posed, rotations: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) the thing's axes as columns and (3,) its middle, in the posed frame."""
    world = _world(body.bone_names, body.parents, rotations)
    side = held.thing.side
    wrist = world[body.bone_names.index(f"wrist.{side}")]
    return wrist @ held.turn, posed.bones[f"wrist.{side}"] + wrist @ held.middle


def pieces(held: Held, turn: np.ndarray, middle: np.ndarray) -> list[Piece]:
    """ "held" and "held_second", of the class of occluders."""
    half = tuple(float(h) * held.scale for h in OBJECTS[held.thing.kind].half)
    first, second = MESHES[held.thing.kind]((half[0], half[1], half[2]))
    found = []
    for name, (points, quads) in (("held", first), ("held_second", second)):
        found.append(Piece(name, points @ turn.T + middle, quads, "Background"))
    return found


def in_the_way(held: Held, turn: np.ndarray, middle: np.ndarray, worn: list[Piece], body: Body) -> bool:
    """Whether anything but the hand that holds it is inside the thing, or it reaches into the ground."""
    names = [
        n
        for n in body.bone_names
        if n.startswith(("wrist", "finger", "metacarpal")) and n.endswith(f".{held.thing.side}")
    ]
    own = set(np.flatnonzero(np.isin(body.vertex_bone, names)).tolist())
    low = min(float(p.vertices[p.quads.ravel(), 2].min()) for p in worn if len(p.quads))
    mine = pieces(held, turn, middle)
    if min(float(p.vertices[:, 2].min()) for p in mine) < low - 1e-3:
        return True
    base = len(body.template)
    for piece in worn:
        used = np.unique(piece.quads)
        if len(piece.vertices) == base:
            used = np.array([v for v in used.tolist() if v not in own], int)
        if len(used) and deepest(held, turn, middle, piece.vertices[used]) > CLEAR_M:
            return True
    return False


def deepest(held: Held, turn: np.ndarray, middle: np.ndarray, points: np.ndarray) -> float:
    """How deep the deepest of world ``points`` (N, 3) is inside the thing, metres; below 0 when none is."""
    shape = OBJECTS[held.thing.kind]
    half = np.array(shape.half) * held.scale
    return float(-_distance(shape.form, half, (points - middle) @ turn).min())


def _angles(side: str, curls: np.ndarray) -> np.ndarray:
    """(D,) degrees: from an open hand to a fist, each finger by itself; the thumb from beside to across the palm."""
    angles = np.zeros(len(joints.ANGLES))
    open_by = 5.0
    for i, curl in enumerate(curls[1:], start=2):
        for name, most in zip(("finger", "middle", "tip"), CURLED):
            angles[AT[f"{name}{i}.{side}.flex"]] = open_by + (most - open_by) * curl
        angles[AT[f"finger{i}.{side}.spread"]] = (6.0, 1.0, -4.0, -9.0)[i - 2] * (1 - curl)
    t = curls[0]
    for name, a, b in (("thumb.{}.oppose", -30.0, 56.0), ("thumb.{}.flex", -25.0, 30.0), ("thumb.{}.stretch", 28.0, -8.0),
                       ("thumb_middle.{}.flex", 0.0, 36.0), ("thumb_tip.{}.flex", 0.0, 44.0)):  # fmt: skip
        angles[AT[name.format(side)]] = a + (b - a) * t
    return joints.clamped(angles)


def _world(names: list[str], parents: np.ndarray, rotations: dict[str, np.ndarray]) -> np.ndarray:
    """(B, 3, 3) from rotations relative to the parents."""
    world = np.tile(np.eye(3), (len(names), 1, 1))
    for i, p in enumerate(parents):
        own = rotations.get(names[i], np.eye(3))
        world[i] = own if p < 0 else world[p] @ own
    return world


def _distance(form: str, half: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(N,) signed metres from points ``p`` (N, 3) in the object's axes to its surface."""
    if form == "ball":
        return np.linalg.norm(p, axis=1) - half[0]
    if form == "round":
        d = np.stack([np.hypot(p[:, 0], p[:, 1]) - half[0], np.abs(p[:, 2]) - half[2]], 1)
    else:
        d = np.abs(p) - half
    return np.linalg.norm(np.maximum(d, 0), axis=1) + np.minimum(d.max(axis=1), 0)


def _phone(half: tuple[float, float, float]) -> tuple[Solid, Solid]:
    body = box(half, half[1] * 0.6)
    glass = box((half[0] * 0.95, half[1] * 0.06, half[2] * 0.965), half[1] * 0.05)
    # The screen looks away from the palm.
    return body, (glass[0] + [0, half[1] * 0.97, 0], glass[1])


def _cup(half: tuple[float, float, float]) -> tuple[Solid, Solid]:
    r, h = half[0], half[2]
    lid = turned(
        [(r, h * 0.86), (r * 1.05, h * 0.88), (r * 1.05, h * 0.96), (r * 0.9, h), (r * 0.86, h * 0.95), (0, h * 0.95)]
    )
    return turned([(0, -h), (r * 0.80, -h), (r, h * 0.86)]), lid


def _book(half: tuple[float, float, float]) -> tuple[Solid, Solid]:
    x, y, z = half
    covers = merged(*((box((x, 0.0013, z), 0.0006)[0] + [0, s * (y - 0.0013), 0], box((x, 0.0013, z), 0.0006)[1]) for s in (-1, 1)),
                    (box((0.0013, y, z), 0.0006)[0] + [x - 0.0013, 0, 0], box((0.0013, y, z), 0.0006)[1]))  # fmt: skip
    return covers, box((x * 0.97, y - 0.0025, z * 0.975), 0.0008)


def _ball(half: tuple[float, float, float]) -> tuple[Solid, Solid]:
    lat = np.linspace(-np.pi / 2, np.pi / 2, 25)
    r = half[0]
    rings = [(r * float(np.cos(t)), r * float(np.sin(t))) for t in lat]
    return merged(turned(rings[:11]), turned(rings[13:])), turned(rings[10:14])


def _bottle(half: tuple[float, float, float]) -> tuple[Solid, Solid]:
    r, h = half[0], half[2]
    body = turned([(0, -h), (r * 0.9, -h), (r, -h * 0.95), (r, h * 0.55), (r * 0.92, h * 0.68), (r * 0.5, h * 0.8)])
    return body, turned([(r * 0.5, h * 0.79), (r * 0.52, h * 0.8), (r * 0.52, h * 0.99), (r * 0.48, h), (0, h)])


MESHES = {"phone": _phone, "cup": _cup, "book": _book, "ball": _ball, "bottle": _bottle}
