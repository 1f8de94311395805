"""What people wear and carry: drawn in the shares asked for, seen alike by both engines, held by the hand, not in the body."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from manifests.accessories import FROM_YEARS, HELD, AccessoriesPrior
from manifests.errors import JobError
from manifests.frames import camera_rays, look_at
from manifests.hair import HairPrior
from manifests.job import Engine, check
from manifests.parts import ID, UNLABELLED
from manifests.priors import LightPrior
from manifests.seeds import generator
from render import lighting
from render.groundtruth import embree
from render.people.accessories import draw_accessories
from render.people.held import DEEPEST_M
from render.scene import Camera, Scene
from tests.dressing import BALD, person, thing

pytestmark = pytest.mark.engine
KINDS = {
    "eyewear": {"glasses", "lens"}, "earrings": {"earring"}, "scarf": {"scarf"}, "bags": {"bag", "strap"},
    "mask": {"mask", "mask_loop"}, "headphones": {"headphones", "pads"}, "watch": {"watch", "watch_band", "watch_face"},
    "held": {"held", "held_second"},
}  # fmt: skip
CLASS = {"eyewear": ID["Eyeglass"], "headphones": UNLABELLED, "held": ID["Background"]}
# Points of a thing that are deeper in skin than these millimetres: how many may be, and how deep the deepest. A scarf's
# lower edge sinks into the slope of the shoulders, where it is not seen.
DEEP_MM, DEEP_SHARE, DEEPEST_MM, SCARF_MM = 2.0, 0.06, 9.0, 20.0
WORN = {
    "eyewear": thing("eyewear", "glasses"), "earrings": thing("earrings", "hoop"), "scarf": thing("scarf", "scarf"),
    "bags": thing("bags", "backpack"), "mask": thing("mask", "mask"), "headphones": thing("headphones", "headphones"),
    "watch": thing("watch", "watch", "L"), "held": thing("held", "cup", "R"),
}  # fmt: skip


def grown(style: str, beard: str) -> HairPrior:
    return HairPrior(female={style: 1}, male={style: 1}, beards={beard: 1})


@functools.cache
def laden(number: int = 3):
    """Someone who wears and holds one of everything."""
    return person(tuple(WORN.values()), number, hair=BALD)


def points_of(someone, kinds: set[str]) -> np.ndarray:
    mesh = someone.mesh
    mine = np.isin(mesh.material_index, [i for i, m in enumerate(mesh.materials) if m.name in kinds])
    return mesh.vertices[np.unique(mesh.faces[mine])].astype(np.float64)


def on(someone, kinds: set[str], width: int = 96) -> Camera:
    """A frame filled by the pieces of ``kinds``, seen from before and aside."""
    points = points_of(someone, kinds)
    middle = (points.min(0) + points.max(0)) / 2
    way = np.array([0.35, -1.0, 0.15]) if "bag" not in kinds else np.array([0.8, 0.9, 0.15])
    eye = middle + 2.0 * way / np.linalg.norm(way)
    reach = np.linalg.norm(points - middle, axis=1).max()
    f = 0.45 * width * 2.0 / reach
    K = np.array([[f, 0, width / 2], [0, f, width / 2], [0, 0, 1]])
    return Camera(K, look_at(eye, middle), width, width, "face")


@pytest.mark.parametrize("slot", KINDS)
def test_things_are_there_with_the_class_that_the_convention_gives_them(slot):
    mesh = laden().mesh
    names = np.array([m.name for m in mesh.materials])[mesh.material_index]
    mine = np.isin(names, list(KINDS[slot]))
    assert set(names[mine]) == KINDS[slot]
    assert set(mesh.part[mine].tolist()) == {CLASS.get(slot, ID["Apparel"])}


@pytest.mark.parametrize("slot", KINDS)
def test_every_closed_part_of_a_thing_winds_outwards(slot):
    mesh = laden().mesh
    faces = mesh.faces[np.isin(mesh.material_index, [i for i, m in enumerate(mesh.materials) if m.name in KINDS[slot]])]
    links = coo_matrix(
        (np.ones(faces.size), (faces.ravel(), np.roll(faces, -1, axis=1).ravel())), (len(mesh.vertices),) * 2
    )
    part = connected_components(links, directed=False)[1][faces[:, 0]]
    for one in np.unique(part):
        corners = mesh.vertices[faces[part == one]].astype(np.float64)
        a, b, c = np.moveaxis(corners - corners.mean(axis=(0, 1)), 1, 0)
        # Six times the volume inside (divergence theorem); open plates, as a watch's glass, enclose about nothing.
        volume = np.einsum("nc,nc->n", a, np.cross(b, c)).sum() / 6
        assert volume > -1e-10, (slot, volume)


def test_both_engines_agree_on_the_pixels_of_things(tmp_path):
    from render.blender.engine import BlenderEngine

    engine = BlenderEngine(Engine(samples=1, denoiser="none"), 1, tmp_path)
    light = lighting.draw_lighting(LightPrior(), lighting.environments(LightPrior(), Path()), generator(1))
    # Under headphones no earring is seen.
    others = {"earrings": person((WORN["earrings"],), 3, hair=BALD)}
    for slot, kinds in KINDS.items():
        # Strands have tests of their own.
        someone = dataclasses.replace(others.get(slot, laden()), strands=[])
        camera = on(someone, kinds)
        frame = engine.render(Scene([someone], camera, light, 1), None)
        caster = embree.Caster([someone], camera.world_to_camera)
        face, z, _ = caster.first_hits(
            camera_rays(camera.K, camera.width, camera.height, (0, 0, 96, 96)).reshape(-1, 3)
        )
        names = np.array([*(m.name for m in someone.mesh.materials), "nothing"])
        index = np.where(face >= 0, someone.mesh.material_index[face], -1)
        mine = np.isin(names[index], list(kinds)) & ~caster.through
        assert mine.sum() > 25, slot
        # A ray that just misses an edge is on the other side of it in the other engine.
        close = np.abs(frame.depth.ravel()[mine] - z[mine]) < 1e-4
        assert close.mean() >= 0.99, (slot, close.mean())


# A thick afro rises on both sides of a band and hides some of it.
@pytest.mark.parametrize(
    ("slot", "style", "beard", "seen"),
    [("headphones", "afro", "none", 0.7), ("headphones", "long", "none", 0.9), ("mask", "crop", "full", 0.95)],
)
def test_hair_lies_under_what_is_worn_over_it(slot, style, beard, seen):
    someone = person((WORN[slot],), 4 if beard == "full" else 3, hair=grown(style, beard))
    assert any(s.name == ("beard" if slot == "mask" else "hair") for s in someone.strands)
    camera = on(someone, KINDS[slot])
    rays = camera_rays(camera.K, camera.width, camera.height, (0, 0, camera.width, camera.height)).reshape(-1, 3)
    bald, haired = (
        embree.Caster([p], camera.world_to_camera).first_hits(rays)[0]
        for p in (dataclasses.replace(someone, strands=[]), someone)
    )
    names = np.array([*(m.name for m in someone.mesh.materials), "nothing"])
    mine = np.isin(names[np.where(bald >= 0, someone.mesh.material_index[bald], -1)], list(KINDS[slot]))
    assert mine.sum() > 500
    assert (haired == bald)[mine].mean() > seen


@pytest.mark.parametrize(("slot", "kind"), [("scarf", "scarf"), ("bags", "bag")])
def test_long_hair_hangs_over_scarfs_and_bags_and_not_through_them(slot, kind):
    someone = person((WORN[slot],), 3, hair=grown("long", "none"))
    (hair,) = (s for s in someone.strands if s.name == "hair")
    mesh = someone.mesh
    faces = mesh.faces[np.isin(mesh.material_index, [i for i, m in enumerate(mesh.materials) if m.name == kind])]
    corners = mesh.vertices[faces].astype(np.float64)
    middle, out = corners.mean(axis=1), np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    points = hair.points.reshape(-1, 3).astype(np.float64)
    far, nearest = cKDTree(middle).query(points, distance_upper_bound=0.03)
    points, nearest = points[far < 0.03], nearest[far < 0.03]
    assert len(points) > 5000
    deep = -np.einsum("nc,nc->n", points - middle[nearest], out[nearest])
    assert (deep > 0.003).mean() < 0.03


def test_lenses_follow_the_jobs_policy():
    someone = laden()
    camera = on(someone, {"lens"})
    clear, solid = (embree.cast([someone], camera, see) for see in (True, False))
    lens = (solid.segmentation == ID["Eyeglass"]) & (clear.segmentation != ID["Eyeglass"])
    assert lens.sum() > 300
    # At its edge one may see past the cheek.
    assert (clear.segmentation[lens] == ID["Face_Neck"]).mean() > 0.85, "behind a lens there is the face"
    # Or nothing, where a rim stands out before the background.
    assert ((clear.depth == 0) | (clear.depth > solid.depth + 0.001))[lens].mean() > 0.99
    assert clear.layered[lens].all()
    dark = person((thing("eyewear", "sunglasses", seed=7),), 3, hair=BALD)
    lens = next(m for m in dark.mesh.materials if m.name == "lens")
    assert lens.alpha_mode == "opaque", "a lens that hides the eye is the surface under either policy"


THINGS = [k for k in HELD if k != "none"]


# The first hand that has room for it, of people whose hands take turns; both of all in the soak.
@pytest.mark.parametrize("enough", [1, pytest.param(2, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", THINGS)
def test_what_is_held_is_in_the_hand(kind, enough):
    held = 0
    for number, side in ((3, "R"), (4, "L"))[:: -1 if THINGS.index(kind) % 2 else 1]:
        if held == enough:
            break
        someone = person((thing("held", kind, side),), number, hair=BALD)
        if "held" in someone.pose["left_out"]:
            continue
        held += 1
        # Within the spacing of vertices on a hand.
        surface = points_of(someone, {"held"})
        skin = points_of(someone, {"skin", "nails"})
        near = cKDTree(skin).query(surface)[0]
        assert near.min() < 0.006, (kind, near.min())
        knuckle = np.array(someone.bones[f"finger3-1.{side}"])
        assert np.linalg.norm(surface.mean(axis=0) - knuckle) < 0.13
    assert held >= 1, "most poses have room for it"


@pytest.mark.parametrize("kind", ["cup", "phone", "ball"])
def test_fingers_close_until_they_touch_and_go_no_deeper(kind, body, rig):
    from render.people.held import grasp

    look_body = {"age": 0.67, "gender": 0.5}
    figure = body.figure(look_body)
    for side in "LR":
        held = grasp(thing("held", kind, side), body, rig, figure, {})
        assert held.touch.min() > -DEEPEST_M
        assert (held.touch < 0.004).sum() >= 3, "three fingers at least"


@pytest.mark.parametrize("slot", ["eyewear", "earrings", "mask", "headphones", "watch", "scarf"])
def test_things_lie_on_the_skin_and_not_in_it(slot):
    for number in (3, 8):
        someone = laden(number)
        mesh = someone.mesh
        mine = np.isin(mesh.material_index, [i for i, m in enumerate(mesh.materials) if m.name in ("head", "skin")])
        corners, normals = mesh.faces[mine].ravel(), mesh.corner_normals[mine].reshape(-1, 3)
        points = mesh.vertices[corners].astype(np.float64)
        for kind in KINDS[slot] - {"pads"}:
            made = points_of(someone, {kind})
            far, at = cKDTree(points).query(made)
            # Behind the tangent plane of the nearest skin, and near enough for that to mean inside.
            deep = -np.einsum("nc,nc->n", made - points[at], normals[at]) * 1e3
            deep[far > 0.015] = 0
            assert (deep > DEEP_MM).mean() <= DEEP_SHARE, (kind, number, (deep > DEEP_MM).mean())
            assert deep.max() <= (SCARF_MM if slot == "scarf" else DEEPEST_MM), (kind, number, deep.max())


def test_a_scarf_leaves_the_nose_free():
    highest = []
    for number in range(6):
        someone = person((WORN["scarf"],), number, hair=BALD)
        eyes, chin = np.array([someone.bones["eye.L"], someone.bones["eye.R"]]), someone.landmarks["chin"]
        left = (eyes[0] - eyes[1]) / np.linalg.norm(eyes[0] - eyes[1])
        up = eyes.mean(axis=0) - chin
        up -= left * (up @ left)
        points = points_of(someone, {"scarf"}) - chin
        before = (np.abs(points @ left) < 0.04) & (points @ np.cross(left, up) > 0)
        # As a share of the way from the chin to the eyes: a scarf may hide a bowed head's mouth, and an end stands before none.
        highest.append(float((points[before] @ up).max(initial=0.0) / (up @ up)))
    assert max(highest) < 0.58, highest


def test_shares_are_those_asked_for():
    prior = AccessoriesPrior()
    n = 3000
    drawn = [draw_accessories(generator("shares", j), prior, 30.0, "female", False) for j in range(n)]
    for slot, shares in (
        ("eyewear", prior.eyewear),
        ("earrings", prior.earrings),
        ("bags", prior.bags),
        ("held", prior.held),
    ):
        got = dict.fromkeys(shares, 0)
        for things in drawn:
            got[next((t.kind for t in things if t.slot == slot), "none")] += 1
        expected = np.array(list(shares.values())) / sum(shares.values()) * n
        assert stats.chisquare(list(got.values()), expected).pvalue > 1e-3, slot
    for slot in ("scarf", "mask", "headphones", "watch"):
        count = sum(any(t.slot == slot for t in things) for things in drawn)
        assert stats.binomtest(count, n, getattr(prior, slot)).pvalue > 1e-3, slot
    right = [t.side for things in drawn for t in things if t.slot == "watch"]
    assert 0.5 < right.count("L") / len(right) < 0.7


def test_infants_carry_nothing_and_hats_leave_no_room_for_headphones():
    every = AccessoriesPrior(
        eyewear={"glasses": 1},
        earrings={"hoop": 1},
        scarf=1,
        bags={"backpack": 1},
        mask=1,
        headphones=1,
        watch=1,
        held={"cup": 1},
    )
    assert draw_accessories(generator(1), every, 1.5, "female", False) == ()
    grown = {t.slot for t in draw_accessories(generator(1), every, 30, "female", False)}
    assert grown == set(FROM_YEARS)
    assert grown - {t.slot for t in draw_accessories(generator(1), every, 30, "female", True)} == {"headphones"}


def test_an_unknown_kind_is_named():
    with pytest.raises(JobError, match="choose among none, glasses, sunglasses"):
        check({"name": "a", "render": {"assets": [{"source": "anny", "accessories": {"eyewear": {"monocle": 1}}}]}})


def test_details_can_be_switched_off():
    plain = person((), 3, detail="simple")
    names = {m.name for m in plain.mesh.materials}
    assert {"iris", "lips", "cap"} <= names
    assert not names & {"cornea", "head", *set().union(*KINDS.values())}
    grey = person((), 3, detail="mannequin")
    assert len({m.base_color for m in grey.mesh.materials}) == 1
    assert all(m.base_color_texture is None and m.normal_texture is None for m in grey.mesh.materials)
    assert "cap" not in {m.name for m in grey.mesh.materials}
    assert grey.keypoints.shape == plain.keypoints.shape
