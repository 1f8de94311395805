"""poses.yaml -> base poses as joint angles, by family, each checked against the joints' limits.

Legend: D angles.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from manifests.bodies import FAMILIES
from render.people.joints import ANGLES, AT, HIGH, LOW

FILE = Path(__file__).with_name("poses.yaml")
# Word in the file -> the angles that its list gives, "{}" for the side.
WORDS = {
    "arms": (
        "shoulder.{}.flex",
        "shoulder.{}.abduct",
        "shoulder.{}.twist",
        "elbow.{}.flex",
        "elbow.{}.pronate",
    ),
    "legs": ("hip.{}.flex", "hip.{}.abduct", "hip.{}.twist", "knee.{}.flex"),
    "wrists": ("wrist.{}.flex", "wrist.{}.deviate"),
    "ankles": ("ankle.{}.flex",),
    "toes": ("toes.{}.flex",),
    "clavicles": ("clavicle.{}.raise", "clavicle.{}.forward"),
}
MIDDLE = {"root": ("pitch", "roll"), "spine": ("bend", "side", "turn"), "neck": ("bend", "side", "turn")}


@dataclasses.dataclass(frozen=True)
class BasePose:
    """``angles``: (D,) float64 degrees. ``rest``: as stance.settle takes it. ``hands``: gestures that go with it."""

    name: str
    family: str
    angles: np.ndarray
    rest: str
    hands: tuple[str, ...]


@functools.cache
def library() -> dict[str, tuple[BasePose, ...]]:
    """family -> its base poses. Raises ValueError at an unknown word or an angle past its limit."""
    tree = yaml.safe_load(FILE.read_text())
    return {family: tuple(_pose(family, name, entry) for name, entry in tree[family].items()) for family in FAMILIES}


def _pose(family: str, name: str, entry: dict[str, Any]) -> BasePose:
    angles = np.zeros(len(ANGLES))
    unknown = set(entry) - set(WORDS) - set(MIDDLE) - {"rest", "hands"}
    if unknown:
        raise ValueError(f"poses.yaml: {family}/{name} has no {', '.join(sorted(unknown))}")
    for word, parts in MIDDLE.items():
        for part, value in zip(parts, entry.get(word, ())):
            angles[AT[f"{word}.{part}"]] = value
    for word, parts in WORDS.items():
        given = entry.get(word, {})
        for side, values in given.items() if isinstance(given, dict) else (("L", given), ("R", given)):
            for part, value in zip(parts, values, strict=word != "ankles"):
                angles[AT[part.format(side)]] = value
    over = np.flatnonzero((angles < LOW - 1e-9) | (angles > HIGH + 1e-9))
    if len(over):
        what = ", ".join(f"{ANGLES[i]} {angles[i]:g} outside {LOW[i]:g}..{HIGH[i]:g}" for i in over)
        raise ValueError(f"poses.yaml: {family}/{name}: {what}")
    return BasePose(name, family, angles, entry["rest"], tuple(entry.get("hands", ("relaxed",))))
