"""Parametric people: the same seed makes the same person, always dressed, on the ground, with keypoints where the body
is.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.priors import CameraPrior
from manifests.seeds import generator
from render.assets.anny import AnnyPeople, _studio
from render.framing import draw_camera, subject
from render.people.body import COCO17, groups
from render.people.doll import Doll
from render.people.identity import draw_look
from render.people.joints import rig_of
from render.people.pose import draw_pose
from tests.dressing import BALD

pytestmark = pytest.mark.engine
POOL = AnnyPeople(AnnySource(keypoints="coco17", count=8), 5)
UPRIGHT = AnnyPeople(
    AnnySource(
        keypoints="coco17",
        count=8,
        body=BodyPrior(age_years={"4-90": 1}),
        pose=PosePrior(**dict.fromkeys(FAMILIES, 0.0) | {"standing": 1.0, "walking": 1.0}),
    ),
    5,
)


BARE = AnnyPeople(AnnySource(keypoints="coco17", count=8, hair=BALD), 5)


def person(j: int, pose: int):
    return POOL.load(str(j), generator(1, "pose", pose))


@functools.cache
def bare(j: int):
    return BARE.load(str(j), generator(1, "pose", j))


def test_a_person_depends_on_seed_and_number_alone():
    # Five holds nothing that a pose may have no room for.
    a, b = person(5, 5), person(5, 5)
    assert np.array_equal(a.mesh.vertices, b.mesh.vertices)
    assert len(a.strands) >= 2
    assert all(np.array_equal(x.points, y.points) for x, y in zip(a.strands, b.strands, strict=True))
    assert np.array_equal(a.keypoints, b.keypoints)
    assert a.phenotype == b.phenotype
    # Another pose is the same person; another number is another person.
    moved, other = person(5, 1), person(4, 4)
    assert moved.phenotype == a.phenotype
    assert np.array_equal(moved.mesh.faces, a.mesh.faces)
    assert np.abs(moved.mesh.vertices - a.mesh.vertices).max() > 0.02
    assert other.phenotype != a.phenotype
    # A larger pool keeps whom it had.
    assert AnnyPeople(AnnySource(keypoints="coco17", count=20), 5).identities()[:8] == POOL.identities()


@pytest.mark.parametrize("j", [*range(3), *(pytest.param(j, marks=pytest.mark.soak) for j in range(3, 8))])
def test_everyone_stands_on_the_ground_in_metres_facing_the_front(j):
    one = UPRIGHT.load(str(j), generator(1, "pose", 0))
    low, high = one.mesh.vertices.min(0), one.mesh.vertices.max(0)
    assert abs(low[2]) < 1e-5
    assert 0.75 < high[2] < 2.3
    names = dict(zip(COCO17, one.keypoints))
    assert names["nose"][1] < names["left_ear"][1], "the face looks towards -y"
    assert names["left_shoulder"][0] > names["right_shoulder"][0], "the person's left is +x"
    # Every joint lies inside the body's own box, and head, hips and feet are in order.
    assert ((one.keypoints > low - 0.02) & (one.keypoints < high + 0.02)).all()
    heights = [names[k][2] for k in ("left_ankle", "left_knee", "left_hip", "left_shoulder", "nose")]
    assert heights == sorted(heights)
    top = max([high[2], *(s.points[..., 2].max() for s in one.strands)])
    assert one.landmarks["chin"][2] < names["nose"][2] < one.landmarks["head_top"][2] <= top + 1e-6


def posed_in_sample(body, look, j: int):
    shape = look.shape
    doll = Doll(body, body.figure(shape.phenotype, shape.changes))
    pose = draw_pose(generator(1, "pose", j), PosePrior(), rig_of(body), doll, None, shape.age_years)
    return body.posed(shape.phenotype, pose.rotations, shape.changes, pose.actions)


def test_nobody_is_undressed():
    body, wardrobe = _studio()
    for j in range(7):
        look = draw_look(generator(5, "identity", str(j)), hair=BALD)
        posed = posed_in_sample(body, look, j)
        kinds = {p.kind for p in wardrobe.dress(look, posed)[0] if len(p.quads)}
        assert {"top", "shoes", "skin"} <= kinds, (j, look)
        assert kinds & {"bottom", "legs"}, (j, look)
        # Below the collarbones and above the thighs no skin is left but what lies under a hem.
        dressed = wardrobe.tailor.clothe(look.outfit, posed)
        quads = groups()["body"][dressed.left]
        trunk = np.isin(body.vertex_bone, ("spine02", "spine03", "spine04", "spine05", "root", "pelvis.L", "pelvis.R"))
        assert dressed.covered[quads[trunk[quads].all(axis=1)]].all(), (j, look)


def test_clothes_come_from_shells_that_follow_the_body():
    assert {"body", "helper-tights", "helper-skirt"} <= set(groups())
    one = bare(0)
    lengths = np.linalg.norm(one.mesh.corner_normals, axis=2)
    assert np.abs(lengths - 1).max() < 1e-4
    assert one.mesh.material_index.max() < len(one.mesh.materials)
    assert one.mesh.faces.max() < len(one.mesh.vertices)


def test_nobody_floats_or_loses_their_head_in_any_pose():
    for j in range(6):
        one = bare(j)
        assert abs(one.mesh.vertices[:, 2].min()) < 1e-5
        names = dict(zip(COCO17, one.keypoints))
        top, chin = one.landmarks["head_top"], one.landmarks["chin"]
        assert 0.1 < top[2] - chin[2] < 0.4
        assert chin[2] < names["nose"][2] < top[2]
        assert np.linalg.norm(top[:2] - names["nose"][:2]) < 0.2


@pytest.mark.parametrize("framing", ["face", "upper", "full"])
def test_a_framing_holds_its_subject(framing):
    for j in range(6):
        # As they are posed above: a framing holds whoever sits or kneels, too.
        one = bare(j)
        camera = draw_camera([one], framing, CameraPrior(off_centre=0.0), 384, 512, generator(2, j))
        points = subject(one, framing) @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
        uv = (points @ camera.K.T)[:, :2] / points[:, 2:]
        assert (points[:, 2] > 0).all()
        assert (uv > -1).all()
        assert (uv < np.array([385, 513])).all()
        size = np.ptp(uv, axis=0) / (384, 512)
        assert size.max() > 0.6, "the subject fills the frame"
