"""A sample's generator, a job's pose prior and a person's body -> how that person holds themselves in this sample.

A pose is a base pose of the library, mirrored or not, blended with a neighbour of its family, jittered and clamped to the
joints' limits; or a frame of a motion file. Then hands, eyes and face. It is settled on the ground; limbs that are inside
the body are moved out of it by a few degrees at a time, and where that does not help the pose is drawn again.
Legend: D angles, B bones.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.bodies import FAMILIES, PosePrior
from render.people import collision, face, joints, stance
from render.people.doll import Doll
from render.people.hands import GESTURES, draw_hand
from render.people.joints import AT, SIDES, Rig
from render.people.library import BasePose, library
from render.people.motions import Motions

# No limb of a drawn person is deeper than this inside another part; hands and forearms inside the cloth over it.
MAX_DEPTH_M = 0.010
# Poses drawn before the body is left in the nearest pose that is free; steps of relief within each.
TRIES, RELIEF_STEPS = 8, 6
# Share of poses that are mirrored, and the farthest way from one base pose to its neighbour.
MIRROR_SHARE, BLEND = 0.5, 0.5
# A free hand does what its pose suggests, or else anything.
FREE_HAND = 0.25
# Share of those who hold something that hold it before them, in which families, and how that arm then is, degrees.
BEFORE_SHARE, BEFORE_FAMILIES = 0.75, ("standing", "walking", "sitting", "gesture", "reaching")
BEFORE = {
    "shoulder.{}.flex": (8, 45),
    "shoulder.{}.abduct": (8, 28),
    "shoulder.{}.twist": (-10, 30),
    "elbow.{}.flex": (70, 120),
    "elbow.{}.pronate": (-34, -8),
    "wrist.{}.flex": (-15, 15),
    "wrist.{}.deviate": (-8, 8),
}
# Jitter of a joint against a large one's.
JITTER = {
    "root": 0.25,
    "spine": 0.5,
    "neck": 1.0,
    "clavicle": 0.5,
    "wrist": 1.2,
    "knee": 0.8,
    "ankle": 0.7,
    "toes": 0.5,
}
# Infants who cannot stand yet sit, or go on all fours.
INFANT_YEARS, INFANT_POSES = 1.0, ("long", "leaning_back", "all_fours", "crawling")


@dataclasses.dataclass
class Pose:
    """``rotations``: bone -> (3, 3), as Body.posed takes them. ``actions``: anny's facial actions in [0, 1].

    ``angles``: (D,) degrees, None where a motion file gave the rotations. ``source``: family/name, or the file's name
    and frame. ``hands``: gestures, left and right. ``tries``: poses drawn; ``relief``: times limbs of the one kept were
    moved out of its body; ``depth_m``: of the deepest limb that is left.
    """

    rotations: dict[str, np.ndarray]
    actions: dict[str, float]
    angles: np.ndarray | None
    source: str
    hands: tuple[str, str]
    expression: str
    tries: int
    relief: int
    depth_m: float


@dataclasses.dataclass
class _Draft:
    angles: np.ndarray
    rest: str
    source: str
    hands: tuple[str, str]
    turns: dict[str, np.ndarray] | None = None
    relief: int = 0


def draw_pose(
    rng: np.random.Generator,
    prior: PosePrior,
    rig: Rig,
    doll: Doll,
    motions: Motions | None = None,
    age_years: float = 30.0,
    holding: str = "",
) -> Pose:
    """A pose that ``doll``'s body can hold: balanced where it stands, its limbs outside its trunk.

    ``holding``: the side, "L" or "R", whose hand holds something: most who stand, walk or sit hold it before them.
    """
    best: tuple[float, _Draft, np.ndarray] | None = None
    tries = 0
    while tries < TRIES and (best is None or best[0] > MAX_DEPTH_M):
        tries += 1
        draft = _draft(rng, prior, motions, age_years, holding)
        found = _relieved(rig, doll, draft)
        if found is None:
            continue
        depth, world = found
        if best is None or depth < best[0]:
            best = depth, draft, world
    if best is None or best[0] > MAX_DEPTH_M:
        best = _safe(rig, doll, best[1] if best else draft)
    depth, draft, world = best
    expression, actions, eyes = face.draw_face(rng, prior.faces, draft.rest == "free")
    if draft.turns is None:
        for k, value in eyes.items():
            draft.angles[k] = value
    _turn_eyes(rig, world, eyes)
    return Pose(
        rig.local(world),
        actions,
        None if draft.turns else draft.angles,
        draft.source,
        draft.hands,
        expression,
        tries,
        draft.relief,
        depth,
    )


def draw_angles(
    rng: np.random.Generator, prior: PosePrior, age_years: float = 30.0
) -> tuple[BasePose, np.ndarray, tuple[str, str]]:
    """(base pose, (D,) degrees within the limits, gestures) of one draw from the library, before any body is asked."""
    shares = np.array([getattr(prior, family) for family in FAMILIES])
    if age_years < INFANT_YEARS:
        choice = [p for family in library().values() for p in family if p.name in INFANT_POSES]
    else:
        choice = list(library()[FAMILIES[rng.choice(len(FAMILIES), p=shares / shares.sum())]])
    base = choice[rng.integers(len(choice))]
    near = [p for p in choice if p.rest == base.rest and p is not base]
    angles = base.angles.copy()
    if near:
        # The nearest of two: neighbours blend into something a person does, opposites into nothing.
        pair = [near[i] for i in rng.choice(len(near), min(2, len(near)), replace=False)]
        other = min(pair, key=lambda p: float(np.abs(p.angles - base.angles).sum()))
        angles += (other.angles - angles) * rng.uniform(0, BLEND)
    angles += rng.standard_normal(len(angles)) * _SPREAD * prior.jitter_deg
    gestures = []
    for side in SIDES:
        own = base.hands if rng.random() > FREE_HAND or base.rest == "rest" else tuple(GESTURES)
        gesture = own[rng.integers(len(own))]
        gestures.append(gesture)
        for k, value in draw_hand(rng, gesture, side).items():
            angles[k] = value
    if rng.random() < MIRROR_SHARE:
        angles, gestures = joints.mirrored(angles), gestures[::-1]
    return base, joints.clamped(angles), (gestures[0], gestures[1])


def _draft(
    rng: np.random.Generator, prior: PosePrior, motions: Motions | None, age_years: float, holding: str
) -> _Draft:
    base, angles, gestures = draw_angles(rng, prior, age_years)
    if holding and base.family in BEFORE_FAMILIES and rng.random() < BEFORE_SHARE:
        for name, (low, high) in BEFORE.items():
            angles[AT[name.format(holding)]] = rng.uniform(low, high)
        angles = joints.clamped(angles)
    if not motions or rng.random() >= prior.motion_share:
        return _Draft(angles, base.rest, f"{base.family}/{base.name}", gestures)
    turns, source = motions.draw(rng)
    hands = {k: angles[k] for side in SIDES for g in gestures[:1] for k in draw_hand(rng, g, side, 0.0)}
    still = np.zeros(len(angles))
    for k, value in hands.items():
        still[k] = value
    # Files of bodies alone leave hands to the library.
    return _Draft(still, "free", source, gestures, joints.turns(still) | turns)


def _relieved(rig: Rig, doll: Doll, draft: _Draft) -> tuple[float, np.ndarray] | None:
    """(depth, bones) of a draft after its limbs were moved out of its body; None where it cannot be held."""
    for step in range(RELIEF_STEPS + 1):
        if draft.turns is not None:
            world = rig.bones(draft.turns)
        else:
            settled = stance.settle(rig, doll, draft.angles, draft.rest)
            if np.isnan(settled.tipped_deg) or settled.lean_m > 0.02:
                return None
            world = settled.world
        met = collision.contacts(doll, *doll.skinned(world))
        depth = max((c[0] for c in met), default=0.0)
        if depth <= MAX_DEPTH_M or draft.turns is not None or step == RELIEF_STEPS:
            return depth, world
        for inside, limb, side, part in met:
            if inside > MAX_DEPTH_M:
                size = min(1.0 + inside / 0.03, 3.0)
                for name, degrees in _way_out(limb, part):
                    draft.angles[AT[name.format(side)]] += degrees * size
        draft.angles = joints.clamped(draft.angles)
        draft.relief += 1
    return None


def _way_out(limb: str, part: str) -> tuple[tuple[str, float], ...]:
    """What moves a limb out of a part: (angle, degrees)."""
    if limb in ("thigh", "shin", "foot"):
        if part.endswith("'"):
            return (("hip.{}.abduct", 2.5),)
        return (("hip.{}.abduct", 2.0), ("hip.{}.flex", -2.5), ("knee.{}.flex", -2.5))
    if part == "head":
        return (("elbow.{}.flex", -4.0), ("shoulder.{}.abduct", 2.0))
    if part in ("hip", "thigh", "shin", "foot"):
        return (("shoulder.{}.abduct", 3.0), ("elbow.{}.flex", 3.0))
    if part.endswith("'"):
        return (("shoulder.{}.twist", -3.0), ("shoulder.{}.abduct", 1.5))
    if part in ("arm", "shoulder"):
        return (("elbow.{}.flex", -5.0),)
    return (("shoulder.{}.abduct", 2.5), ("shoulder.{}.twist", -2.5), ("elbow.{}.flex", -1.0))


def _safe(rig: Rig, doll: Doll, draft: _Draft) -> tuple[float, _Draft, np.ndarray]:
    """The last draft blended towards standing with arms and legs apart, as little as frees its limbs."""
    goal = next(p for p in library()["standing"] if p.name == "wide").angles.copy()
    for side in SIDES:
        goal[AT[f"shoulder.{side}.abduct"]] = 25.0
    for share in (0.25, 0.5, 0.75, 1.0):
        # From halfway on it stands rather than falls.
        rest = draft.rest if share < 0.5 and draft.turns is None else "both"
        angles = draft.angles + (goal - draft.angles) * share
        settled = stance.settle(rig, doll, angles, rest)
        depth = collision.depth(doll, *doll.skinned(settled.world))
        if (depth <= MAX_DEPTH_M and np.isfinite(settled.tipped_deg) and settled.lean_m <= 0.02) or share == 1.0:
            break
    return depth, _Draft(angles, rest, f"{draft.source} (freed)", draft.hands), settled.world


def _turn_eyes(rig: Rig, world: np.ndarray, eyes: dict[int, float]) -> None:
    angles = np.zeros(len(joints.ANGLES))
    for k, value in eyes.items():
        angles[k] = value
    turns = joints.turns(angles)
    for side in SIDES:
        world[rig.names.index(f"eye.{side}")] = world[rig.names.index("head")] @ turns[f"eye.{side}"]


def _spread() -> np.ndarray:
    """(D,) jitter of each angle against a large joint's; none of hands and eyes, which have their own."""
    own = ("finger", "middle", "tip", "thumb", "eye")
    names = [name.split(".")[0] for name in joints.ANGLES]
    return np.array([0.0 if name.startswith(own) else JITTER.get(name, 1.0) for name in names])


_SPREAD = _spread()
