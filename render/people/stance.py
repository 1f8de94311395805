"""Joint angles and a way of resting -> a figure that stands, kneels or sits where gravity would leave it.

Planted soles are turned level and legs bent until both touch; then the whole body tips onto that facet of its convex hull
which its centre of mass presses on, as a thing set down does. A figure that would have to tip too far has lost its
balance. Frame: z up, facing -y, metres.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import ConvexHull

from render.people import joints
from render.people.doll import Doll
from render.people.joints import AT, SIDES, Rig

# How far a figure may tip to come to rest: a person standing flat hardly, one in a step or on the ground some more.
TIP_DEG = {"both": 6.0, "step": 0.0, "rest": 35.0, "one": 0.0, "free": 0.0}
# A sole turns level within the ankle's limits (joints.SIDED), past which the heel lifts.
DORSAL_DEG, PLANTAR_DEG = 32.0, 48.0
# Share of the support polygon that the centre of mass is brought into.
INSIDE = 0.6
# A hull's facets flatter than this together are one face.
LEVEL = 1e-3


@dataclasses.dataclass
class Settled:
    """``world``: (B, 3, 3) rotations of the bones. ``tipped_deg``: how far the body tipped; NaN where none holds it.

    ``lean_m``: how far the centre of mass is from the nearest point of the support, 0 inside.
    """

    world: np.ndarray
    tipped_deg: float
    lean_m: float


def settle(rig: Rig, doll: Doll, angles: np.ndarray, rest: str) -> Settled:
    """``angles``: (D,) degrees. ``rest``: both (soles level on the ground), step (toe and heel), one (the lower sole),
    rest (on whatever is lowest) or free (in motion: the lowest point touches).
    """
    turns = joints.turns(angles)
    if rest in ("both", "step"):
        _level(rig, doll, angles, turns, flat=rest == "both")
    elif rest == "one":
        _flatten(turns, _lower(rig, doll, turns))
    world = rig.bones(turns)
    lean = 0.0
    if rest in ("both", "one"):
        soles = SIDES if rest == "both" else (_lower(rig, doll, turns)[0],)
        for _ in range(3):
            lean = _balance(rig, doll, turns, soles)
            world = rig.bones(turns)
            if lean <= 0:
                break
        lean = max(_outside(doll, world, soles)[0], 0.0)
    tipped = 0.0
    if TIP_DEG[rest]:
        tip, tipped = _tip(doll, world)
        if tipped > TIP_DEG[rest]:
            return Settled(world, float("nan"), lean)
        world = tip @ world
    return Settled(world, tipped, lean)


def _flatten(turns: dict[str, np.ndarray], sides: tuple[str, ...]) -> None:
    """Ankles turned so that these soles are level, as far as ankles go."""
    for side in sides:
        shin = turns["root"] @ turns[f"hip.{side}"] @ turns[f"knee.{side}"]
        ahead = shin @ -joints.Y
        if np.hypot(*ahead[:2]) < 0.2:
            continue
        heading = float(np.arctan2(ahead[0], -ahead[1]))
        level = shin.T @ joints.rotation(joints.Z, heading)
        turn = joints.vector(level)
        # Rotation about -x lifts the toes: an ankle stops there before any other way.
        limit = np.radians(DORSAL_DEG if turn[0] < 0 else PLANTAR_DEG)
        turn[0] = np.clip(turn[0], -limit, limit)
        turn[1:] = np.clip(turn[1:], -np.radians(25), np.radians(25))
        turns[f"ankle.{side}"] = joints.rotations(turn[None])[0]


def _soles(rig: Rig, doll: Doll, turns: dict[str, np.ndarray]) -> tuple[float, float]:
    """Lowest z of the left and right foot."""
    points = doll.skinned(rig.bones(turns))[0]
    return tuple(float(points[_foot(doll, side), 2].min()) for side in SIDES)  # type: ignore[return-value]


def _foot(doll: Doll, side: str) -> np.ndarray:
    return (doll.skin.part == "foot") & (doll.skin.side == side)


def _lower(rig: Rig, doll: Doll, turns: dict[str, np.ndarray]) -> tuple[str]:
    left, right = _soles(rig, doll, turns)
    return ("L",) if left <= right else ("R",)


def _level(rig: Rig, doll: Doll, angles: np.ndarray, turns: dict[str, np.ndarray], flat: bool) -> None:
    """Bends the longer leg until both feet's lowest points are level within a millimetre."""
    bent = angles.copy()
    side, low, high = "", 0.0, 60.0
    for _ in range(9):
        if flat:
            _flatten(turns, SIDES)
        left, right = _soles(rig, doll, turns)
        if abs(left - right) < 0.001:
            return
        lower = "L" if left < right else "R"
        if not side:
            side, extra = lower, float(np.degrees(min(np.sqrt(abs(left - right) / (0.12 * doll.height)), 1.0)))
        elif lower == side:
            low, extra = extra, (extra + high) / 2 if high < 60 else min(extra * 1.5, 60.0)
        else:
            high, extra = extra, (low + extra) / 2
        for joint, share in (("hip", 0.5), ("knee", 1.0)):
            k = AT[f"{joint}.{side}.flex"]
            bent[k] = min(angles[k] + extra * share, joints.HIGH[k])
        fresh = joints.turns(bent)
        turns[f"hip.{side}"], turns[f"knee.{side}"] = fresh[f"hip.{side}"], fresh[f"knee.{side}"]


def _balance(rig: Rig, doll: Doll, turns: dict[str, np.ndarray], soles: tuple[str, ...]) -> float:
    """Leans the body over its soles; how far in metres its centre of mass was out of reach of them."""
    out, towards, height = _outside(doll, rig.bones(turns), soles)
    if out <= 0:
        return 0.0
    angle = np.arctan2(out, max(height, 0.2))
    turns["root"] = joints.rotation(np.cross(joints.Z, towards), angle) @ turns["root"]
    _flatten(turns, soles)
    return out


def _outside(doll: Doll, world: np.ndarray, soles: tuple[str, ...]) -> tuple[float, np.ndarray, float]:
    """(metres outside, (3,) level unit vector towards the support, height) of the centre of mass over ``soles``."""
    points = doll.skinned(world)[0]
    feet = np.concatenate([points[_foot(doll, side)] for side in soles])
    sole = feet[feet[:, 2] < feet[:, 2].min() + 0.03][:, :2]
    mass = doll.mass(world)
    middle = (sole.min(0) + sole.max(0)) / 2
    shrunk = middle + (sole - middle) * INSIDE
    hull = ConvexHull(shrunk)
    beyond = hull.equations[:, :2] @ mass[:2] + hull.equations[:, 2]
    worst = int(beyond.argmax())
    towards = np.array([*-hull.equations[worst, :2], 0.0])
    return float(beyond[worst]), towards, float(mass[2] - feet[:, 2].min())


def _tip(doll: Doll, world: np.ndarray) -> tuple[np.ndarray, float]:
    """(3, 3) rotation onto the hull's facet under the centre of mass, and its degrees."""
    points = doll.skinned(world)[0]
    hull = ConvexHull(points)
    normals, offsets = hull.equations[:, :3], hull.equations[:, 3]
    mass = doll.mass(world)
    # The facet that a plumb line from the centre of mass leaves the hull through.
    fall = -normals[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        drop = -(normals @ mass + offsets) / fall
    drop[fall <= 1e-9] = np.inf
    facet = int(drop.argmin())
    normal = normals[facet]
    angle = float(np.degrees(np.arccos(np.clip(-normal[2], -1, 1))))
    if angle < np.degrees(LEVEL):
        return np.eye(3), angle
    return joints.shortest(normal, -joints.Z), angle
