"""A gesture's name and a generator -> joint angles of one hand's fingers.

Each finger is (knuckle, middle, tip, spread) in degrees, index to little; the thumb (oppose, flex, stretch, middle, tip).
The limits are those of joints.SIDED.
"""

from __future__ import annotations

import numpy as np

from render.people.joints import AT

Finger = tuple[float, float, float, float]
STRAIGHT, CURLED = (0.0, 2.0, 2.0, 0.0), (85.0, 98.0, 62.0, 0.0)
LOOSE = ((18.0, 24.0, 12.0, 3.0), (24.0, 28.0, 14.0, 0.0), (28.0, 30.0, 16.0, -2.0), (30.0, 30.0, 16.0, -5.0))
FAN = (12.0, 2.0, -9.0, -22.0)
THUMB_OUT, THUMB_IN = (-5.0, -12.0, 22.0, 0.0, -5.0), (48.0, 28.0, -6.0, 34.0, 40.0)
THUMB_REST = (12.0, 2.0, 2.0, 10.0, 12.0)


def _four(a: Finger, b: Finger, c: Finger, d: Finger) -> tuple[Finger, Finger, Finger, Finger]:
    return a, b, c, d


def _spread(fingers: tuple[Finger, ...], by: float) -> tuple[Finger, Finger, Finger, Finger]:
    a, b, c, d = ((m, p, t, by * fan) for (m, p, t, _), fan in zip(fingers, FAN))
    return a, b, c, d


def draw_hand(rng: np.random.Generator, gesture: str, side: str, jitter: float = 1.0) -> dict[int, float]:
    """Place in (D,) angles -> degrees, of ``gesture`` on ``side`` with every joint a little off."""
    fingers, thumb = GESTURES[gesture]
    # The fingers of one hand tighten together; each a little by itself.
    grip = rng.normal(0, 0.07) * jitter
    found = {}
    for i, (knuckle, middle, tip, spread) in enumerate(fingers, start=2):
        off = rng.normal(0, 1, 4) * (4, 4, 3, 1.5) * jitter
        curl = 1 + grip
        found[AT[f"finger{i}.{side}.flex"]] = knuckle * curl + off[0]
        found[AT[f"middle{i}.{side}.flex"]] = middle * curl + off[1]
        found[AT[f"tip{i}.{side}.flex"]] = tip * curl + off[2]
        found[AT[f"finger{i}.{side}.spread"]] = spread + off[3]
    off = rng.normal(0, 2.5, 5) * jitter
    names = ("thumb.{}.oppose", "thumb.{}.flex", "thumb.{}.stretch", "thumb_middle.{}.flex", "thumb_tip.{}.flex")
    for name, value, each in zip(names, thumb, off):
        found[AT[name.format(side)]] = value + each
    return found


_FIST = _four(CURLED, CURLED, CURLED, CURLED)
_OPEN = _four(STRAIGHT, STRAIGHT, STRAIGHT, STRAIGHT)
GESTURES: dict[str, tuple[tuple[Finger, Finger, Finger, Finger], tuple[float, float, float, float, float]]] = {
    "relaxed": (LOOSE, THUMB_REST),
    "open": (_spread(((6, 8, 4, 0), (6, 8, 4, 0), (8, 10, 5, 0), (8, 10, 5, 0)), 0.5), (2, -8, 14, 2, 2)),
    "flat": (_OPEN, (8, -4, -2, 2, 0)),
    "spread": (_spread(((-6, 2, 0, 0),) * 4, 1.0), THUMB_OUT),
    "fist": (_FIST, THUMB_IN),
    "loose_fist": (_four((58, 72, 40, 0), (62, 76, 42, 0), (64, 76, 42, 0), (64, 74, 40, -4)), (36, 12, 0, 26, 26)),
    "grip": (_four((48, 58, 32, 2), (52, 60, 34, 0), (54, 60, 34, -2), (54, 58, 34, -5)), (42, 6, 8, 18, 20)),
    "point": (_four((0, 4, 2, 0), CURLED, CURLED, CURLED), THUMB_IN),
    "thumbs_up": (_FIST, (-20, -20, -15, -5, -12)),
    "peace": (_four((0, 2, 2, 14), (0, 2, 2, -9), CURLED, CURLED), THUMB_IN),
    "ok": (_four((52, 58, 34, 0), (22, 16, 8, 0), (12, 10, 6, -6), (4, 8, 4, -16)), (44, 12, 8, 20, 34)),
    "pinch": (_four((50, 50, 26, 0), (42, 48, 24, 0), (48, 56, 28, -2), (52, 58, 30, -4)), (46, 12, 6, 14, 26)),
    "count_three": (_four((0, 2, 2, 12), (0, 2, 2, 0), (4, 2, 2, -12), CURLED), THUMB_IN),
    "count_four": (_spread(_OPEN, 0.7), (52, 26, -14, 40, 30)),
    "count_two": (_four((0, 4, 2, 8), CURLED, CURLED, CURLED), THUMB_OUT),
    "horns": (_four((0, 4, 2, 6), CURLED, CURLED, (0, 4, 2, -14)), THUMB_IN),
    "call": (_four(CURLED, CURLED, CURLED, (-4, 4, 2, -18)), (-10, -18, 20, -5, -8)),
    "claw": (_spread(((-8, 62, 44, 0),) * 4, 0.8), (14, -6, 16, 30, 44)),
    "hook": (_four((4, 92, 60, 0), (4, 94, 60, 0), (4, 94, 60, 0), (4, 92, 58, -3)), (10, 0, 0, 10, 12)),
    "cup": (_four((40, 18, 10, -2), (42, 18, 10, 0), (44, 18, 10, 1), (46, 18, 10, 4)), (30, 0, 2, 6, 4)),
    "little_finger": (_four((40, 46, 22, 0), (46, 52, 26, 0), (48, 54, 26, 0), (-4, 4, 2, -16)), (38, 8, 4, 14, 22)),
    "middle_apart": (_four((0, 2, 2, 2), (0, 2, 2, 8), (0, 2, 2, -14), (0, 2, 2, -14)), THUMB_OUT),
    "pen": (_four((48, 36, 14, 0), (54, 46, 20, 0), (62, 66, 34, 0), (66, 70, 36, -2)), (40, 16, 2, 24, 14)),
    "beak": (_four((66, 12, 6, -4), (68, 14, 8, 0), (68, 14, 8, 2), (66, 12, 6, 6)), (50, 14, 0, 10, 6)),
}
