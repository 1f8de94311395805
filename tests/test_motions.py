"""Motion files, AMASS or BVH -> the same angles in the posed mesh; hostile ones end in one clear line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from manifests.assets import AnnySource
from manifests.bodies import PosePrior
from manifests.errors import InputError
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.people import joints
from render.people.motions import Motions
from tests.test_poses import PLAIN, keypoints, limb, off_deg


def amass(path: Path, width: int, joint: int | None = None, vector=(0, 0, 0), yaw: float = 0.0) -> Path:
    """One upright frame, z up, one joint turned; ``yaw`` radians about the world's z."""
    poses = np.zeros((2, width))
    # SMPL stands y up: a quarter turn about x stands it on a z-up floor, facing -y.
    root = joints.rotation(joints.Z, yaw) @ joints.rotation(joints.X, np.pi / 2)
    poses[:, :3] = joints.vector(root)
    if joint is not None:
        poses[:, 3 * joint : 3 * joint + 3] = vector
    np.savez(path, poses=poses, trans=np.zeros((2, 3)), gender="female", mocap_framerate=120.0)
    return path


@pytest.mark.engine
@pytest.mark.parametrize("width", [66, 72, 156, 165])
def test_an_amass_elbow_of_90_degrees_is_90_degrees_in_the_mesh(tmp_path, body, rig, width):
    # Left arm along x, palm down: -90 degrees about y swings the forearm ahead; +90 about x folds the right knee back.
    file = amass(tmp_path / "a.npz", width, 18, (0, -np.pi / 2, 0), yaw=1.1)
    turns, source = Motions(["*.npz"], tmp_path).draw(generator(1))
    assert source.startswith(file.name)
    points = keypoints(body, rig, turns)
    assert off_deg(limb(points, "left_shoulder", "left_elbow"), (1, 0, 0)) < 12
    assert off_deg(limb(points, "left_elbow", "left_wrist"), (0, -1, 0)) < 8
    assert off_deg(limb(points, "right_shoulder", "right_wrist"), (-1, 0, 0)) < 12
    assert off_deg(limb(points, "left_hip", "left_ankle"), (0, 0, -1)) < 6
    assert points["nose"][1] < points["left_ear"][1]
    amass(file, width, 5, (np.pi / 2, 0, 0))
    points = keypoints(body, rig, Motions(["a.npz"], tmp_path).draw(generator(1))[0])
    assert off_deg(limb(points, "right_knee", "right_ankle"), (0, 1, 0)) < 8
    assert off_deg(limb(points, "left_knee", "left_ankle"), (0, 0, -1)) < 8


@pytest.mark.engine
def test_amass_fingers_curl_towards_the_palm(tmp_path, body, rig):
    # Palm down: the left index's first joint about -z takes its tip down.
    amass(tmp_path / "h.npz", 156, 22, (0, 0, -np.pi / 2))
    turns, _ = Motions(["h.npz"], tmp_path).draw(generator(1))
    posed = body.posed(PLAIN, rig.local(rig.bones(turns))).bones
    way = posed["finger2-2.L"] - posed["finger2-1.L"]
    other = posed["finger3-2.L"] - posed["finger3-1.L"]
    assert off_deg(way / np.linalg.norm(way), (0, 0, -1)) < 15
    assert off_deg(other / np.linalg.norm(other), (1, 0, 0)) < 15


HUMAN = """HIERARCHY
ROOT {p}Hips
{{ OFFSET 0 100 0
CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
JOINT {p}Spine2 {{ OFFSET 0 30 0 CHANNELS 3 Zrotation Xrotation Yrotation
 JOINT {p}Head {{ OFFSET 0 30 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 0 15 0 }} }}
 JOINT {p}LeftArm {{ OFFSET 18 20 0 CHANNELS 3 Zrotation Xrotation Yrotation
  JOINT {p}LeftForeArm {{ OFFSET {arm} CHANNELS 3 Zrotation Xrotation Yrotation
   JOINT {p}LeftHand {{ OFFSET {arm} CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET {arm} }} }} }} }}
 JOINT {p}RightArm {{ OFFSET -18 20 0 CHANNELS 3 Zrotation Xrotation Yrotation
  JOINT {p}RightForeArm {{ OFFSET {other} CHANNELS 3 Zrotation Xrotation Yrotation
   JOINT {p}RightHand {{ OFFSET {other} CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET {other} }} }} }} }} }}
JOINT {p}LeftUpLeg {{ OFFSET 9 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
 JOINT {p}LeftLeg {{ OFFSET 0 -45 0 CHANNELS 3 Zrotation Xrotation Yrotation
  JOINT {p}LeftFoot {{ OFFSET 0 -45 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 0 0 12 }} }} }} }}
JOINT {p}RightUpLeg {{ OFFSET -9 0 0 CHANNELS 3 Zrotation Xrotation Yrotation
 JOINT {p}RightLeg {{ OFFSET 0 -45 0 CHANNELS 3 Zrotation Xrotation Yrotation
  JOINT {p}RightFoot {{ OFFSET 0 -45 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 0 0 12 }} }} }} }}
}}
MOTION
Frames: 1
Frame Time: 0.0333
{values}
"""
# Channels of one frame: root 6, then 3 for each of spine, head, left arm, forearm, hand, right ..., legs.
COLUMNS = 6 + 3 * 14


def bvh(path: Path, joint: int, degrees: tuple[float, float, float], arms_down: bool = False, prefix: str = "") -> Path:
    values = np.zeros(COLUMNS)
    values[6 + 3 * joint : 9 + 3 * joint] = degrees
    arm, other = ("0 -25 0", "0 -25 0") if arms_down else ("25 0 0", "-25 0 0")
    text = HUMAN.format(p=prefix, arm=arm, other=other, values=" ".join(f"{v:g}" for v in values))
    path.write_text(text)
    return path


@pytest.mark.engine
@pytest.mark.parametrize("prefix", ["", "mixamorig:"])
@pytest.mark.parametrize("arms_down", [False, True], ids=["t_pose", "hanging"])
def test_a_bvh_elbow_of_90_degrees_is_90_degrees_in_the_mesh(tmp_path, body, rig, prefix, arms_down):
    # Joint 3 is the left forearm. Outstretched it swings ahead about -y, hanging about -x.
    turn = (0, -90, 0) if arms_down else (0, 0, -90)
    bvh(tmp_path / "m.bvh", 3, turn, arms_down, prefix)
    points = keypoints(body, rig, Motions(["m.bvh"], tmp_path).draw(generator(1))[0])
    upper = (0, 0, -1) if arms_down else (1, 0, 0)
    assert off_deg(limb(points, "left_shoulder", "left_elbow"), upper) < 12
    assert off_deg(limb(points, "left_elbow", "left_wrist"), (0, -1, 0)) < 8
    assert off_deg(limb(points, "right_elbow", "right_wrist"), (-upper[0], 0, upper[2])) < 8
    assert off_deg(limb(points, "left_knee", "left_ankle"), (0, 0, -1)) < 6
    assert points["nose"][1] < points["left_ear"][1]


@pytest.mark.engine
def test_people_take_their_poses_from_the_jobs_motion_files(tmp_path):
    bvh(tmp_path / "m.bvh", 3, (0, 0, -60))
    source = AnnySource(count=2, pose=PosePrior(motions=["*.bvh"], motion_share=1.0))
    one = AnnyPeople(source, 5, tmp_path).load("0", generator(1, "pose", 0))
    assert one.pose["source"] == "m.bvh#0"
    assert abs(one.mesh.vertices[:, 2].min()) < 1e-5
    plain = AnnyPeople(AnnySource(count=2), 5, tmp_path)
    before = AnnyPeople(source, 5, tmp_path).identities()
    bvh(tmp_path / "m.bvh", 3, (0, 0, -50))
    assert (
        len({i[2] for i in (*plain.identities()[:1], before[0], AnnyPeople(source, 5, tmp_path).identities()[0])}) == 3
    )


class Trap:
    def __reduce__(self):
        return (Path("/tmp/maquette_trap").touch, ())


def _pickled(path: Path) -> None:
    np.savez(path, poses=np.array([Trap()], dtype=object), allow_pickle=True)


def _cut(path: Path) -> None:
    whole = amass(path, 72).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _shapeless(path: Path) -> None:
    np.savez(path, poses=np.zeros((4, 70)))


def _poseless(path: Path) -> None:
    np.savez(path, betas=np.zeros(10))


def _nan(path: Path) -> None:
    np.savez(path, poses=np.full((3, 72), np.nan))


def _bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"poses": Trap()}))


def _short_bvh(path: Path) -> None:
    text = bvh(path, 3, (0, 0, 1)).read_text()
    path.write_text(text[:-20])


def _unknown_bvh(path: Path) -> None:
    path.write_text(bvh(path, 3, (0, 0, 1)).read_text().replace("LeftForeArm", "Tentacle"))


def _unclosed_bvh(path: Path) -> None:
    path.write_text(
        bvh(path, 3, (0, 0, 1)).read_text().replace("End Site { OFFSET 0 0 12 }", "End Site { OFFSET 0 0", 1)
    )


@pytest.mark.parametrize(
    ("make", "name", "why"),
    [
        (_pickled, "a.npz", "without pickles"),
        (_bare_pickle, "a.npz", "without pickles"),
        (_cut, "a.npz", "no AMASS file"),
        (_shapeless, "a.npz", r"\(4, 70\)"),
        (_poseless, "a.npz", "no `poses`"),
        (_nan, "a.npz", "finite"),
        (_short_bvh, "a.bvh", "cut short"),
        (_unknown_bvh, "a.bvh", r"no joint that is elbow\.L"),
        (_unclosed_bvh, "a.bvh", "no BVH file"),
        (lambda path: path.write_text("solid"), "a.bvh", "no BVH file"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "a.bvh", "no BVH file"),
        (lambda path: None, "a.npz", "names no .npz or .bvh"),
    ],
)
def test_a_hostile_motion_file_ends_in_one_clear_line(tmp_path, make, name, why):
    make(tmp_path / name)
    with pytest.raises(InputError, match=why) as caught:
        Motions([name], tmp_path).draw(generator(1))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/maquette_trap").exists()
