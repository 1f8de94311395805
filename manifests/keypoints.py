"""The keypoint sets by name: their points in order, which point is which in a mirror, the limbs that join them.

The names, mirrors, limbs and OKS sigmas are COCO's, COCO-WholeBody's and Sapiens's published tables (keypoints.json).
Standard library alone: the trainer's augmentation reads this too.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class KeypointSet:
    """``names``: J of them. ``mirror``: J indices, point j of a mirrored picture is point mirror[j] of the person.
    ``skeleton``: pairs of indices. ``sigmas``: J OKS falloffs, as shares of the square root of a person's area.
    """

    name: str
    names: tuple[str, ...]
    mirror: tuple[int, ...]
    skeleton: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]


# The same point of the body under another set's name: COCO-WholeBody's hand roots are wrists, and its first finger
# joints are what Sapiens counts as the third from the tip.
ALIASES = {
    f"{side}_{theirs}": f"{side}_{ours}"
    for side in ("left", "right")
    for theirs, ours in (
        ("hand_root", "wrist"),
        ("thumb1", "thumb_third_joint"),
        *((f"{finger}1", f"{finger}_third_joint") for finger in ("forefinger", "middle_finger", "ring_finger")),
        ("pinky_finger1", "pinky_finger_third_joint"),
    )
}


def index_map(source: str, target: str) -> list[int | None]:
    """For each point of ``target`` its index in ``source``, None where the two have no point in common."""
    at = {ALIASES.get(name, name): i for i, name in reversed(list(enumerate(SETS[source].names)))}
    return [at.get(ALIASES.get(name, name)) for name in SETS[target].names]


def subset(source: str | None, target: str) -> list[int] | None:
    """Indices that make ``target`` out of ``source``; None when ``source`` is unknown or lacks one of its points."""
    if source not in SETS:
        return None
    found = [i for i in index_map(source, target) if i is not None]
    return found if len(found) == len(SETS[target].names) else None


def _read() -> dict[str, KeypointSet]:
    tables = json.loads(Path(__file__).with_name("keypoints.json").read_text())
    return {
        name: KeypointSet(
            name,
            tuple(t["names"]),
            tuple(t["mirror"]),
            tuple((a, b) for a, b in t["skeleton"]),
            tuple(t["sigmas"]),
        )
        for name, t in tables.items()
    }


SETS = _read()
COCO17 = SETS["coco17"].names
