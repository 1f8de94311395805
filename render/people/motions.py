"""Motion files by path (AMASS .npz, BVH) -> rotations of a person's joints in one of their frames.

Both kinds know their figure in a T-pose or at rest; what each joint turns from there is carried over to Maquette's zero
pose (upright, arms hanging, thumbs forward). AMASS: SMPL, SMPL-H and SMPL-X poses as axis-angle vectors, world z up
(amass.is.tue.mpg.de); never a pickle. BVH: names of CMU, Mixamo and 3ds Max Biped rigs. Legend: T frames, J joints.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from manifests.errors import InputError
from render.people import joints
from render.people.joints import SIDES, X, Y, Z

MAX_BYTES = 1 << 30
MAX_FRAMES = 1_000_000
# Columns: SMPL's x left, y up, z forward in Maquette's x left, -y forward, z up.
FROM_Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
# joint -> its place in SMPL's order; the spine's and the neck's are the last of several.
SMPL = {
    "spine": 9,
    "neck": 15,
    **{
        f"{name}.{side}": place + i
        for i, side in enumerate(SIDES)
        for name, place in (
            ("hip", 1), ("knee", 4), ("ankle", 7), ("toes", 10), ("clavicle", 13), ("shoulder", 16), ("elbow", 18), ("wrist", 20)
        )
    },
}  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
# Left hand's first joint: fingers in SMPL-H's order, three each; the right hand follows after 15.
FINGER_WORDS = ("finger", "middle", "tip", "thumb")
SMPL_FINGERS = (2, 3, 5, 4)
FIRST_FINGER = {156: 22, 165: 25}
# A BVH joint's name without its prefix, in lower case -> ours.
BVH = {
    "hips": "root", "hip": "root", "pelvis": "root",
    "spine": "spine", "spine2": "spine", "spine1": "spine", "spine3": "spine", "chest": "spine", "chest2": "spine", "thorax": "spine",
    "head": "neck", "neck1": "neck",
    **{
        f"{word}{name}": f"{ours}.{side}"
        for word, side in (("left", "L"), ("right", "R"), ("l", "L"), ("r", "R"))
        for name, ours in (
            ("upleg", "hip"), ("thigh", "hip"), ("leg", "knee"), ("calf", "knee"), ("shin", "knee"),
            ("foot", "ankle"), ("toebase", "toes"), ("toe", "toes"), ("toe0", "toes"),
            ("shoulder", "clavicle"), ("clavicle", "clavicle"), ("collar", "clavicle"),
            ("arm", "shoulder"), ("upperarm", "shoulder"), ("uparm", "shoulder"),
            ("forearm", "elbow"), ("lowarm", "elbow"), ("hand", "wrist"), ("wrist", "wrist"),
        )
    },
}  # fmt: skip
NEEDED = ("root", "hip.L", "hip.R", "knee.L", "knee.R", "shoulder.L", "shoulder.R", "elbow.L", "elbow.R")
AGAINST = {"spine": "root", "neck": "spine", "clavicle": "spine", "shoulder": "spine", "elbow": "shoulder"} | {
    "wrist": "elbow", "hip": "root", "knee": "hip", "ankle": "knee", "toes": "ankle"
}  # fmt: skip


class Motions:
    """The motion files of one job: read at the first draw, each checked whole."""

    def __init__(self, patterns: list[str], root: Path) -> None:
        """Raises InputError where a pattern names no file, or a file is no motion."""
        self.paths: list[Path] = []
        for pattern in patterns:
            found = sorted(Path(p) for p in glob.glob(str(root / pattern), recursive=True))
            found = [p for p in found if p.suffix.lower() in READERS]
            if not found:
                raise InputError(f"motions: {pattern} names no .npz or .bvh file under {root}; mend the path")
            self.paths += [p for p in found if p not in self.paths]
        self._read: dict[Path, Clip] = {}

    def __bool__(self) -> bool:
        return bool(self.paths)

    def sha256(self) -> str:
        """Of all files, in order."""
        total = hashlib.sha256()
        for path in self.paths:
            with path.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], str]:
        """(joint -> (3, 3) rotation, "file#frame") of one frame of one file."""
        path = self.paths[rng.integers(len(self.paths))]
        if path not in self._read:
            self._read[path] = READERS[path.suffix.lower()](path)
        clip = self._read[path]
        frame = int(rng.integers(clip.frames))
        return clip.turns(frame), f"{path.name}#{frame}"


@dataclasses.dataclass
class Clip:
    """``world``: frame -> joint -> (3, 3) rotation from the file's rest, in Maquette's axes, z up.

    ``rest``: joint -> (3, 3) what turns Maquette's zero pose into the file's rest, where that is not upright.
    """

    frames: int
    world: Callable[[int], dict[str, np.ndarray]]
    rest: dict[str, np.ndarray]

    def turns(self, frame: int) -> dict[str, np.ndarray]:
        """joint -> (3, 3) rotation within its parent, facing -y."""
        placed = {name: w @ self.rest.get(name, np.eye(3)) for name, w in self.world(frame).items()}
        ahead = placed["root"] @ -Y
        if np.hypot(*ahead[:2]) < 0.2:
            # On its belly or back: what its head points to counts.
            ahead = placed["root"] @ Z
        yaw = joints.rotation(Z, -float(np.arctan2(ahead[0], -ahead[1])))
        found = {"root": yaw @ placed["root"]}
        for name, at in placed.items():
            if name != "root":
                found[name] = placed[_against(name, placed)].T @ at
        return found


def _against(name: str, known: dict[str, np.ndarray]) -> str:
    """The nearest joint above ``name`` that the file has."""
    stem, _, side = name.partition(".")
    while True:
        stem = AGAINST.get(stem, "root") if not stem.startswith(FINGER_WORDS) else _above_finger(stem)
        above = f"{stem}.{side}" if f"{stem}.{side}" in known else stem
        if above in known or stem == "root":
            return above


def _above_finger(stem: str) -> str:
    number = stem[-1]
    if stem.startswith("tip"):
        return f"middle{number}"
    return f"finger{number}" if stem.startswith("middle") else "wrist"


def read_amass(path: Path) -> Clip:
    """AMASS: poses (T, 66, 72, 156 or 165), or root_orient, pose_body and pose_hand. Raises InputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"motions: {path} is larger than {MAX_BYTES} bytes; cut it")
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise InputError(f"motions: {path} unpacks to more than {MAX_BYTES} bytes; cut it")
        with np.load(path, allow_pickle=False) as data:
            if "poses" in data:
                poses = np.asarray(data["poses"], np.float64)
            elif {"root_orient", "pose_body"} <= set(data):
                parts = [data["root_orient"], data["pose_body"]]
                if "pose_hand" in data:
                    parts += [data["pose_hand"]]
                poses = np.concatenate([np.asarray(p, np.float64) for p in parts], axis=1)
            else:
                raise InputError(f"motions: {path} has no `poses`: it holds {', '.join(sorted(data)[:6])}")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"motions: {path} is no AMASS file ({first}); give an .npz of arrays without pickles"
        ) from None
    sound = poses.ndim == 2 and poses.shape[1] in (66, 72, 156, 165) and 0 < len(poses) <= MAX_FRAMES
    if not sound or not np.isfinite(poses).all():
        raise InputError(
            f"motions: {path}: poses of shape {poses.shape} are not (frames, 66, 72, 156 or 165) finite axis-angles"
        )
    columns = poses.shape[1]
    fingers = [f"{w}{i}" for i in SMPL_FINGERS for w in FINGER_WORDS[:3]] if columns in FIRST_FINGER else []

    def world(frame: int) -> dict[str, np.ndarray]:
        local = joints.rotations(poses[frame].reshape(-1, 3))
        at: list[np.ndarray] = []
        for turn, parent in zip(local, SMPL_PARENTS):
            at.append(turn if parent < 0 else at[parent] @ turn)
        # The file's world is z up; the frame in which its T-pose stands is y up.
        found = {"root": at[0] @ FROM_Y_UP.T}
        found |= {name: at[place] @ FROM_Y_UP.T for name, place in SMPL.items()}
        for side, wrist, more in (("L", 20, 0), ("R", 21, 15)):
            hand = at[wrist]
            for k, name in enumerate(fingers):
                hand = (at[wrist] if k % 3 == 0 else hand) @ local[FIRST_FINGER[columns] + more + k]
                found[f"{name}.{side}"] = hand @ FROM_Y_UP.T
        return found

    names = ["root", *SMPL, *(f"{name}.{side}" for name in fingers for side in SIDES)]
    return Clip(len(poses), world, {name: _t_pose(name) for name in names})


def _t_pose(name: str) -> np.ndarray:
    """Maquette's zero pose -> the T-pose, of one joint's limb."""
    stem, _, side = name.partition(".")
    if not stem.startswith(("shoulder", "elbow", "wrist", *FINGER_WORDS)):
        return np.eye(3)
    return joints.rotation(-Y if side == "L" else Y, np.pi / 2)


def read_bvh(path: Path) -> Clip:
    """A BVH file whose joints have the names of CMU, Mixamo or Biped rigs. Raises InputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"motions: {path} is larger than {MAX_BYTES} bytes; cut it")
        tree, _, motion = path.read_text(encoding="utf-8").partition("MOTION")
        names, parents, offsets, channels = _hierarchy(tree)
        head, _, rows = motion.partition("Frame Time:")
        count = int(re.search(r"Frames:\s*(\d+)", head).group(1))  # type: ignore[union-attr]
        values = np.array(rows.split()[1:], np.float64)
    except (OSError, ValueError, AttributeError, IndexError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"motions: {path} is no BVH file ({first}); export it again") from None
    width = sum(len(c) for c in channels)
    if not 0 < count <= MAX_FRAMES or values.size != count * width or not np.isfinite(values).all():
        raise InputError(
            f"motions: {path} is cut short: {count} frames of {width} numbers were promised, {values.size} are there"
        )
    values = values.reshape(count, width)
    turned = [c for c in (name for names_ in channels for name in names_) if c.endswith("rotation")]
    if any(c[0] not in "xyz" for c in turned):
        raise InputError(f"motions: {path} has rotations about no axis; export it again")
    known = [BVH.get(_plain(name)) for name in names]
    missing = [name for name in NEEDED if name not in known]
    if missing:
        raise InputError(
            f"motions: {path} has no joint that is {', '.join(missing)}; its joints are called "
            f"{', '.join(names[:8])}: rename them as in CMU or Mixamo rigs"
        )
    at: list[np.ndarray] = []
    for offset, parent in zip(offsets, parents):
        at.append(offset if parent < 0 else at[parent] + offset)
    return _bvh_clip(values, channels, parents, known, np.array(at))


def _bvh_clip(
    values: np.ndarray, channels: list[list[str]], parents: list[int], known: list[str | None], at: np.ndarray
) -> Clip:
    """``values``: (T, channels). ``at``: (J, 3) joints of the rest pose in the file's numbers."""
    # Of several bones of one joint the last says where it ends; the root is the first.
    last = {name: i for i, name in enumerate(known) if name}
    last["root"] = known.index("root")
    up = at[last["neck"]] - at[last["root"]] if "neck" in last else at[last["root"]] - at[last["knee.L"]]
    base = joints.frame(at[last["shoulder.L"]] - at[last["shoulder.R"]], up)
    # Columns left, up and forward of the file -> x, z and -y.
    to_ours = np.stack([X, Z, -Y], axis=1) @ base.T

    def world(frame: int) -> dict[str, np.ndarray]:
        turned: list[np.ndarray] = []
        column = 0
        for names, parent in zip(channels, parents):
            turn = np.eye(3) if parent < 0 else turned[parent]
            for name in names:
                if name.endswith("rotation"):
                    axis = np.eye(3)["xyz".index(name[0])]
                    turn = turn @ joints.rotation(axis, np.radians(values[frame, column]))
                column += 1
            turned.append(turn)
        return {name: to_ours @ turned[i] @ to_ours.T for name, i in last.items()}

    rest = {}
    for name, i in last.items():
        child = next((k for k, p in enumerate(parents) if p == i and np.linalg.norm(at[k] - at[i]) > 1e-9), None)
        if name.split(".")[0] in ("shoulder", "elbow", "hip", "knee") and child is not None:
            limb = to_ours @ (at[child] - at[i])
            # The rest's limb, turned from the nearer of hanging and outstretched, so that neither twists it.
            out = _t_pose(name)
            start = out if limb @ out @ -Z > limb @ -Z else np.eye(3)
            rest[name] = joints.shortest(start @ -Z, limb) @ start
    for side in SIDES:
        if f"elbow.{side}" in rest:
            rest[f"wrist.{side}"] = rest[f"elbow.{side}"]
    return Clip(len(values), world, rest)


def _plain(name: str) -> str:
    """A joint's name without rig prefixes and separators: mixamorig:LeftArm, Bip01 L UpperArm -> leftarm, lupperarm."""
    return re.sub(r"^(mixamorig\d*|bip\d*|character\d*)", "", re.sub(r"[\s:_.-]", "", name).lower())


def _hierarchy(text: str) -> tuple[list[str], list[int], list[np.ndarray], list[list[str]]]:
    """(names, parents, (3,) offsets, channels) of the joints, end sites left out."""
    words = text.split()
    if words[:1] != ["HIERARCHY"]:
        raise ValueError("it does not begin with HIERARCHY")
    names: list[str] = []
    parents: list[int] = []
    offsets: list[np.ndarray] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    i = 1
    while i < len(words):
        word = words[i]
        if word in ("ROOT", "JOINT", "End"):
            end = next(k for k in range(i + 1, len(words)) if words[k] == "{")
            ended = word == "End"
            if not ended:
                names.append(" ".join(words[i + 1 : end]))
                parents.append(stack[-1] if stack else -1)
                offsets.append(np.zeros(3))
                channels.append([])
            stack.append(-2 if ended else len(names) - 1)
            i = end + 1
        elif word == "OFFSET":
            if stack[-1] >= 0:
                offsets[stack[-1]] = np.array(words[i + 1 : i + 4], np.float64)
            i += 4
        elif word == "CHANNELS":
            count = int(words[i + 1])
            channels[stack[-1]] = [w.lower() for w in words[i + 2 : i + 2 + count]]
            i += 2 + count
        elif word == "}":
            stack.pop()
            i += 1
        else:
            raise ValueError(f"unknown word {word[:20]!r}")
    if stack or not names:
        raise ValueError("its joints are not closed")
    return names, parents, offsets, channels


READERS = {".npz": read_amass, ".bvh": read_bvh}
