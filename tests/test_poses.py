"""Poses: joints bend as anatomy says, nobody floats, falls over or passes through themselves; motion files mean what they say."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull, cKDTree

from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.errors import InputError
from manifests.sample import COCO17
from manifests.seeds import generator
from render.assets.anny import AnnyPeople, _studio
from render.people import collision, face, hands, joints, shape, stance
from render.people.body import groups
from render.people.doll import Doll
from render.people.joints import ANGLES, AT, HIGH, LOW
from render.people.library import library
from render.people.motions import Motions
from render.people.pose import MAX_DEPTH_M, draw_angles, draw_pose
from tests.test_bodies import mirror_of

PLAIN = {"age": 0.67, "gender": 0.5}


@pytest.fixture(scope="module")
def body():
    return _studio()[0]


@pytest.fixture(scope="module")
def rig(body):
    return joints.rig_of(body)


def keypoints(body, rig, turns) -> dict[str, np.ndarray]:
    posed = body.posed(PLAIN, rig.local(rig.bones(turns)))
    return dict(zip(COCO17, posed.keypoints))


def limb(points: dict[str, np.ndarray], a: str, b: str) -> np.ndarray:
    way = points[b] - points[a]
    return way / np.linalg.norm(way)


def with_angles(**degrees: float) -> np.ndarray:
    angles = np.zeros(len(ANGLES))
    for name, value in degrees.items():
        angles[AT[name.replace("__", ".")]] = value
    return angles


def off_deg(a: np.ndarray, b: tuple[float, float, float]) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ np.array(b) / np.linalg.norm(b), -1, 1))))


@pytest.mark.engine
def test_joint_angles_mean_what_anatomy_calls_them(body, rig):
    points = keypoints(
        body,
        rig,
        joints.turns(
            with_angles(
                shoulder__L__abduct=90, elbow__L__flex=90, shoulder__R__flex=90, hip__R__flex=90, knee__R__flex=90
            )
        ),
    )
    # Joints of the mesh lie within 6 degrees of the bones' own; the person's left is +x, its front -y.
    assert off_deg(limb(points, "left_shoulder", "left_elbow"), (1, 0, 0)) < 12
    assert off_deg(limb(points, "left_elbow", "left_wrist"), (0, -1, 0)) < 8
    assert off_deg(limb(points, "right_elbow", "right_wrist"), (0, -1, 0)) < 8
    assert off_deg(limb(points, "right_hip", "right_knee"), (0, -1, 0)) < 8
    assert off_deg(limb(points, "right_knee", "right_ankle"), (0, 0, -1)) < 8
    bend = off_deg(limb(points, "left_shoulder", "left_elbow"), tuple(limb(points, "left_elbow", "left_wrist")))
    assert bend == pytest.approx(90, abs=12)


def test_the_library_is_wide_and_within_the_joints_limits():
    poses = [p for family in library().values() for p in family]
    assert set(library()) == set(FAMILIES)
    assert len(poses) >= 40
    assert {p.rest for p in poses} <= set(stance.TIP_DEG)
    assert {h for p in poses for h in p.hands} <= set(hands.GESTURES)
    for pose in poses:
        assert ((pose.angles >= LOW) & (pose.angles <= HIGH)).all(), pose.name


def test_blended_mirrored_and_jittered_poses_keep_to_the_limits():
    shares = dict.fromkeys(FAMILIES, 0.0) | {"dance": 1.0, "sitting": 3.0}
    prior = PosePrior(jitter_deg=15.0, **shares)
    seen = {}
    for j in range(400):
        base, angles, _ = draw_angles(generator(2, "pose", j), prior)
        assert (angles >= LOW).all()
        assert (angles <= HIGH).all()
        seen[base.family] = seen.get(base.family, 0) + 1
    assert set(seen) == {"dance", "sitting"}
    assert 250 < seen["sitting"] < 350


def test_infants_do_not_run():
    for j in range(40):
        base, _, _ = draw_angles(generator(2, "pose", j), PosePrior(), age_years=0.6)
        assert base.rest == "rest", base.name


@pytest.mark.engine
def test_a_mirrored_pose_is_the_mirrored_mesh(body, rig):
    used = np.unique(groups()["body"])
    twin = mirror_of(body.template, used)
    for j in range(4):
        _, angles, _ = draw_angles(generator(4, "pose", j), PosePrior())
        _, _, eyes = face.draw_face(generator(4, "face", j))
        for k, value in eyes.items():
            angles[k] = value
        there, back = (
            body.posed(PLAIN, rig.local(rig.bones(joints.turns(a)))).vertices[used]
            for a in (angles, joints.mirrored(angles))
        )
        assert np.abs(there * (-1, 1, 1) - back[twin]).max() < 0.001
        # And it is another pose: nothing was mirrored into itself.
        assert np.abs(there - back).max() > 0.02


def test_mirroring_twice_is_nothing():
    angles = generator(1, "angles").normal(0, 20, len(ANGLES))
    assert np.array_equal(joints.mirrored(joints.mirrored(angles)), angles)


@pytest.mark.engine
def test_a_raised_left_hand_is_the_left_one(body, rig):
    points = keypoints(body, rig, joints.turns(with_angles(shoulder__L__flex=170)))
    assert points["left_wrist"][2] > points["nose"][2] > points["right_wrist"][2]
    assert points["left_wrist"][0] > 0 > points["right_wrist"][0]


@pytest.mark.engine
def test_the_doll_is_where_the_body_is(body, rig):
    one = shape.draw_shape(generator(5, "identity", 3), BodyPrior())
    doll = Doll(body, body.figure(one.phenotype, one.changes))
    _, angles, _ = draw_angles(generator(5, "pose", 0), PosePrior())
    world = rig.bones(joints.turns(angles))
    posed = body.posed(one.phenotype, rig.local(world), one.changes)
    # anny's own skinning answers for ours.
    assert np.abs(doll.skinned(world)[0] - posed.vertices[doll.skin.kept]).max() < 1e-6


def people(count: int):
    body, _ = _studio()
    rig = joints.rig_of(body)
    for j in range(count):
        one = shape.draw_shape(generator(6, "identity", j), BodyPrior())
        doll = Doll(body, body.figure(one.phenotype, one.changes))
        yield body, one, doll, draw_pose(generator(6, "pose", j), PosePrior(), rig, doll, None, one.age_years)


def sound_people(count: int) -> list[int]:
    """Tries of each of ``count`` people, whose limbs are all outside their bodies in the whole mesh."""
    tries = []
    for body, one, doll, pose in people(count):
        tries.append(pose.tries)
        assert pose.depth_m <= MAX_DEPTH_M, pose.source
        posed = body.posed(one.phenotype, pose.rotations, one.changes)
        # Hands and forearms of the whole mesh against its trunk: the check saw one vertex in four.
        assert deepest(posed.vertices, doll) < MAX_DEPTH_M + 0.004, pose.source
    return tries


def deepest(vertices: np.ndarray, doll: Doll) -> float:
    quads = groups()["body"]
    a, b, c, d = (vertices[quads[:, i]] for i in range(4))
    normals = np.zeros_like(vertices)
    for i in range(4):
        np.add.at(normals, quads[:, i], np.cross(c - a, d - b))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    bone = doll.body.vertex_bone
    used = np.unique(quads)
    starts = lambda *names: used[[str(n).startswith(names) for n in bone[used]]]  # noqa: E731
    limbs, trunk = starts("wrist", "finger", "lowerarm02"), starts("spine", "root", "pelvis")
    distance, found = cKDTree(vertices[trunk]).query(vertices[limbs], k=3)
    behind = np.einsum("nki,nki->nk", vertices[trunk][found] - vertices[limbs][:, None], normals[trunk][found])
    behind[distance > 0.15] = 0
    return float(max(behind.min(axis=1).max(), 0))


@pytest.mark.engine
def test_limbs_do_not_pass_through_the_body():
    tries = sound_people(10)
    assert np.mean(tries) < 2


@pytest.mark.engine
@pytest.mark.soak
def test_limbs_of_two_hundred_people_do_not_pass_through_them():
    tries = sound_people(200)
    assert np.mean(tries) < 1.5


@pytest.mark.engine
def test_a_hand_in_the_belly_is_found_as_deep_as_it_is(body, rig):
    doll = Doll(body, body.figure(PLAIN))
    free = rig.bones(joints.turns(with_angles(shoulder__L__abduct=60, shoulder__R__abduct=60)))
    assert collision.depth(doll, *doll.skinned(free)) == 0
    inside = with_angles(
        shoulder__L__abduct=20, shoulder__L__twist=75, elbow__L__flex=105, shoulder__L__flex=-20, shoulder__R__abduct=60
    )
    found = collision.contacts(doll, *doll.skinned(rig.bones(joints.turns(inside))))
    assert ("L", "trunk") in {(side, part) for d, _, side, part in found if d > 0.03}
    assert not [c for c in found if c[2] == "R"]


@pytest.mark.engine
def test_standing_people_have_both_soles_on_the_ground_and_their_weight_over_them(body, rig):
    figure = body.figure(PLAIN)
    doll = Doll(body, figure)
    prior = PosePrior(**dict.fromkeys(FAMILIES, 0.0) | {"standing": 1.0, "reaching": 1.0})
    for j in range(6):
        _, angles, _ = draw_angles(generator(8, "pose", j), prior)
        settled = stance.settle(rig, doll, angles, "both")
        assert settled.tipped_deg < stance.TIP_DEG["both"]
        vertices = body.posed(PLAIN, rig.local(settled.world)).vertices
        feet = {
            side: np.unique(groups()["body"][np.char.startswith(bone_of(body), "foot." + side).all(axis=1)])
            for side in "LR"
        }
        low = [float(vertices[f, 2].min()) for f in feet.values()]
        assert abs(low[0] - low[1]) < 0.002
        soles = np.concatenate([vertices[f][vertices[f][:, 2] < min(low) + 0.02] for f in feet.values()])
        hull = ConvexHull(soles[:, :2])
        mass = doll.mass(settled.world)
        assert (hull.equations[:, :2] @ mass[:2] + hull.equations[:, 2] < 0.005).all()


def bone_of(body) -> np.ndarray:
    """(Q, 4) the strongest bone at each corner of the body's quads; toes count as feet."""
    names = body.vertex_bone.astype(str)
    toes = np.char.startswith(names, "toe")
    names = np.where(toes, np.char.add("foot.", [n[-1] for n in names]), names)
    return names[groups()["body"]]


@pytest.mark.engine
def test_gestures_differ_by_the_distances_of_their_fingertips(body, rig):
    tips = []
    used = np.unique(groups()["body"])
    for i in range(1, 6):
        mine = used[body.vertex_bone[used] == f"finger{i}-3.L"]
        at = dict(zip(body.bone_names, body.figure(PLAIN).heads))["wrist.L"]
        tips.append(mine[np.linalg.norm(body.figure(PLAIN).rest[mine] - at, axis=1).argmax()])
    spans = {}
    for name in hands.GESTURES:
        angles = np.zeros(len(ANGLES))
        for k, value in hands.draw_hand(generator(0), name, "L", 0.0).items():
            angles[k] = value
        assert ((angles >= LOW) & (angles <= HIGH)).all(), name
        posed = body.posed(PLAIN, rig.local(rig.bones(joints.turns(angles))))
        points = np.concatenate([posed.vertices[tips], posed.bones["wrist.L"][None]])
        spans[name] = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(6, 1)]
    names = list(spans)
    assert len(names) >= 20
    for i, a in enumerate(names):
        for b in names[:i]:
            assert np.abs(spans[a] - spans[b]).max() > 0.012, (a, b)


def test_faces_stay_plausible():
    seen = set()
    for j in range(300):
        name, actions, eyes = face.draw_face(generator(9, "face", j))
        seen.add(name)
        assert all(0 < v <= 1 for v in actions.values())
        for side in ("Left", "Right"):
            # No eye is shut and wide, no mouth smiles and frowns on one side.
            assert actions.get(f"eyeBlink{side}", 0) < 0.6 or actions.get(f"eyeWide{side}", 0) < 0.2
            assert not (actions.get(f"mouthSmile{side}", 0) > 0.2 and actions.get(f"mouthFrown{side}", 0) > 0.2)
        for k, value in eyes.items():
            assert LOW[k] <= value <= HIGH[k]
    assert len(seen) == sum(len(m) for m in face.MIXES.values())


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


@pytest.mark.engine
def test_the_same_sample_is_the_same_pose(body, rig):
    doll = Doll(body, body.figure(PLAIN))
    a, b, c = (draw_pose(generator(3, "pose", k), PosePrior(), rig, doll) for k in (0, 0, 1))
    assert all(np.array_equal(a.rotations[n], b.rotations[n]) for n in a.rotations)
    assert a.actions == b.actions
    assert any(np.abs(a.rotations[n] - c.rotations[n]).max() > 0.05 for n in a.rotations)
