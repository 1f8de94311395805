"""NAME.keypoints.yaml beside a scan -> named points of the scan as posed: joints of its rig, or means of its vertices.

    keypoint_set: coco17
    keypoints:
      left_wrist: {bone: hand_l}                    # where the bone begins; `at: tail` is where it ends
      nose: {vertex: 4711}                          # counted from 0, in the order of the file
      left_eye: {vertices: [12, 13], part: eyes}    # their mean; `part` where the file has several
      left_knee: {point: [0.11, 0.48, 0.02]}        # in the file's own axes and unit: glTF, OBJ and PLY

glTF keeps no tails: there take the head of the next bone. Names that the map leaves out are absent (NaN) in every sample.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from manifests.errors import AssetError
from manifests.frames import Z_UP_FROM_Y_UP
from manifests.keypoints import SETS
from render.scene import Scan

ENDING = ".keypoints.yaml"
MAX_BYTES = 1_000_000
KEYS = {"point": {"point"}, "bone": {"bone", "at"}, "vertex": {"vertex", "part"}, "vertices": {"vertices", "part"}}
ENDS = {"head": 0, "tail": 1}


def file_of(path: Path) -> Path | None:
    """The map that lies beside the scan ``path``, or None."""
    at = path.with_name(path.stem + ENDING)
    return at if at.is_file() else None


def load(asset_id: str, path: Path, scan: Scan) -> tuple[str, np.ndarray] | None:
    """The set's name and its (J, 3) float64 points in the numbers of ``scan.mesh``, NaN where the map names none.

    None without a map, and for a scan whose reader does not tell parts and joints: a preview. Raises AssetError, which
    names the map, the keypoint and the mend.
    """
    at = file_of(path)
    if at is None or not scan.parts:
        return None
    if not at.resolve().is_relative_to(path.parent.resolve()):
        raise AssetError(asset_id, f"{at.name} is a link out of its folder; copy the file there", "keypoints")

    def refuse(what: str, mend: str) -> AssetError:
        return AssetError(asset_id, f"{at.name}: {what}; {mend}", "keypoints")

    tree = _tree(at, refuse)
    if tree["keypoint_set"] not in SETS:
        raise refuse(f"keypoint_set {tree['keypoint_set']!r} is not known", f"set one of {', '.join(SETS)}")
    names = SETS[tree["keypoint_set"]].names
    points = np.full((len(names), 3), np.nan)
    for name, entry in tree["keypoints"].items():
        if name not in names:
            raise refuse(f"{tree['keypoint_set']} has no keypoint {name}", near(str(name), names))
        points[names.index(name)] = _point(name, entry, scan, path.suffix.lower(), refuse)
    return tree["keypoint_set"], points


def near(name: str, known: Iterable[str]) -> str:
    """A mend: the three names nearest to ``name`` among ``known``."""
    known = list(known)
    found = difflib.get_close_matches(name, known, 3, 0.4) or sorted(known)[:3]
    return f"the nearest of {len(known)} are {', '.join(found)}" if known else "it has none"


def _tree(at: Path, refuse: Callable[[str, str], AssetError]) -> dict[str, Any]:
    """The map's `keypoint_set` and `keypoints`."""
    try:
        if at.stat().st_size > MAX_BYTES:
            raise refuse(f"larger than {MAX_BYTES} bytes", "keep keypoints alone in it")
        tree = yaml.safe_load(at.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise refuse(f"cannot be read ({first})", "mend its YAML") from None
    if (
        not isinstance(tree, dict)
        or set(tree) != {"keypoint_set", "keypoints"}
        or not isinstance(tree["keypoints"], dict)
    ):
        raise refuse("it is not `keypoint_set: NAME` and `keypoints: {name: place}`", "write these two, and only these")
    if not isinstance(tree["keypoint_set"], str):
        raise refuse(f"keypoint_set {tree['keypoint_set']!r} is no name", f"set one of {', '.join(SETS)}")
    return tree


def _point(name: str, entry: Any, scan: Scan, suffix: str, refuse: Callable[[str, str], AssetError]) -> np.ndarray:
    """(3,) where one entry of the map of a file called ``suffix`` lies."""
    kind = next((k for k in KEYS if isinstance(entry, dict) and k in entry), None)
    if kind is None or not set(entry) <= KEYS[kind]:
        raise refuse(
            f"{name}: {entry!r} is no place", "give {bone: NAME}, {vertex: ID}, {vertices: [IDS]} or {point: [x, y, z]}"
        )
    if kind == "point":
        return _given(name, entry["point"], suffix, refuse)
    if kind == "bone":
        bone, end = entry["bone"], entry.get("at", "head")
        if bone not in scan.joints:
            raise refuse(f"{name}: no bone {bone}", near(str(bone), scan.joints))
        if end not in ENDS:
            raise refuse(f"{name}: at: {end!r}", "a bone has a head and a tail")
        return np.array(scan.joints[bone][ENDS[end]])
    first, count = _part(name, entry.get("part"), scan, refuse)
    ids = entry["vertices"] if kind == "vertices" else [entry["vertex"]]
    if not isinstance(ids, list) or not ids or any(type(i) is not int for i in ids):
        raise refuse(f"{name}: {kind}: {entry[kind]!r}", "give whole numbers counted from 0")
    wrong = [i for i in ids if not 0 <= i < count]
    if wrong:
        raise refuse(f"{name}: no vertex {wrong[0]}", f"there are {count}, counted from 0")
    return scan.mesh.vertices[first + np.array(ids)].astype(np.float64).mean(axis=0)


def _given(name: str, point: Any, suffix: str, refuse: Callable[[str, str], AssetError]) -> np.ndarray:
    """(3,) a point of the file's own axes in those its importer gives."""
    if suffix not in TURNS:
        raise refuse(f"{name}: {suffix} files change unit and axes on the way in", "name a bone or vertices there")
    numbers = isinstance(point, list) and len(point) == 3 and all(type(v) in (int, float) for v in point)
    if not numbers or not np.isfinite(point).all():
        raise refuse(f"{name}: point: {point!r}", "give three numbers")
    return TURNS[suffix] @ np.array(point, np.float64)


def _part(name: str, part: Any, scan: Scan, refuse: Callable[[str, str], AssetError]) -> tuple[int, int]:
    """(first vertex, count) of the part that an entry's numbers count in."""
    parts = {p: (first, count) for p, first, count in scan.parts}
    if part is None:
        if len(parts) > 1:
            raise refuse(
                f"{name}: the scan has {len(parts)} parts", f"add part: {', '.join(sorted(parts)[:5])} or another"
            )
        return next(iter(parts.values()))
    if part not in parts:
        raise refuse(f"{name}: no part {part}", near(str(part), parts))
    return parts[part]


# Format -> from its axes to those of what is read of it.
TURNS = {".glb": Z_UP_FROM_Y_UP, ".gltf": Z_UP_FROM_Y_UP, ".obj": np.eye(3), ".ply": np.eye(3)}
