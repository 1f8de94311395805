"""Rigged scans: posed from a clip or by bones, and keypoint maps whose points follow pose, scale and standing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from manifests import frames
from manifests.assets import FilesSource
from manifests.errors import AssetError
from manifests.sample import COCO17
from manifests.seeds import generator
from render.assets import library
from render.assets.files import ScanFiles
from render.groundtruth import embree, keypoints
from render.placement import moved
from render.scene import Camera, Material, Mesh, PersonMesh
from tests import scans

pytestmark = pytest.mark.engine
# The clip's last frame: 10 of Blender's 24 a second, counted from 1.
BOWED = 10
MAP = """
keypoint_set: coco17
keypoints:
  nose: {bone: tip}
  left_hip: {bone: upper}
  right_hip: {bone: upper, at: head}
  left_knee: {vertices: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23], part: legs}
"""


@pytest.fixture(scope="module")
def rigged(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rigged")
    scans.by_blender(folder, scans.RIGGED)
    (folder / "rigged.keypoints.yaml").write_text(MAP)
    return folder


def load(folder: Path, name: str = "rigged.glb", **settings) -> PersonMesh:
    source = ScanFiles(FilesSource(paths=[name], **settings), folder)
    return source.load(source.identities()[0][1], generator(0))


def point(person: PersonMesh, name: str) -> np.ndarray:
    return person.keypoints[COCO17.index(name)]


def test_at_rest_the_helper_does_not_count_and_keypoints_lie_on_bones_and_vertices(rigged):
    person = load(rigged)
    # The icosphere is 4 m wide; bone shapes of the importer 2 m.
    assert np.ptp(person.mesh.vertices, axis=0) == pytest.approx([0.3, 0.2, 1.6], abs=1e-4)
    assert person.keypoint_set == "coco17"
    assert point(person, "nose") == pytest.approx([0, 0, 1.6], abs=1e-4)
    assert point(person, "left_hip") == pytest.approx([0, 0, 0.8], abs=1e-4)
    assert point(person, "right_hip") == pytest.approx([0, 0, 0.8], abs=1e-4)
    assert point(person, "left_knee") == pytest.approx([0, 0, 0.4], abs=1e-4)
    named = {"nose", "left_hip", "right_hip", "left_knee"}
    absent = [i for i, n in enumerate(COCO17) if n not in named]
    assert np.isnan(person.keypoints[absent]).all()
    assert person.bones["upper"] == pytest.approx([0, 0, 0.8], abs=1e-4)


@pytest.mark.parametrize("pose", [{"clip": "bow", "frame": BOWED}, {"bones": {"upper": [90.0, 0.0, 0.0]}}])
def test_a_clip_and_a_bone_dictionary_bow_the_same_way_and_keypoints_follow(rigged, pose):
    person = load(rigged, **pose)
    size = np.ptp(person.mesh.vertices, axis=0)
    # The upper box, 0.8 long and 0.2 thick, lies at 0.8 and reaches 0.8 out; the lower one is 0.2 deep.
    assert size == pytest.approx([0.3, 0.9, 0.9], abs=1e-3)
    hip, nose = point(person, "left_hip"), point(person, "nose")
    assert hip[2] == pytest.approx(0.8, abs=1e-3)
    assert nose[2] == pytest.approx(0.8, abs=1e-3)
    assert np.linalg.norm(nose - hip) == pytest.approx(0.8, abs=1e-3)
    # It bows forwards, -y, and the box's middle stands over the origin.
    assert (nose - hip)[1] == pytest.approx(-0.8, abs=1e-3)
    assert hip[1] == pytest.approx(0.35, abs=1e-3)
    assert point(person, "left_knee")[2] == pytest.approx(0.4, abs=1e-3)


def test_keypoints_follow_unit_axis_and_place(rigged):
    once, tenth = load(rigged), load(rigged, unit="inch", height_gate_m=(0.01, 3.0))
    assert tenth.keypoints[[0, 11]] == pytest.approx(once.keypoints[[0, 11]] * 0.0254, abs=1e-5)
    placed = moved(once, np.pi / 2, np.array([1.0, 2.0]))
    assert placed.keypoints[0] == pytest.approx([1, 2, 1.6], abs=1e-4)
    assert placed.bones["upper"] == pytest.approx([1, 2, 0.8], abs=1e-4)


def test_an_obj_counts_vertices_as_its_file_does(tmp_path):
    mesh = trimesh.creation.icosphere(2, 0.8)
    rows = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in mesh.vertices)
    (tmp_path / "ball.obj").write_text(rows + "".join(f"f {a} {b} {c}\n" for a, b, c in mesh.faces + 1))
    (tmp_path / "ball.keypoints.yaml").write_text("keypoint_set: coco17\nkeypoints: {nose: {vertex: 57}}\n")
    person = load(tmp_path, "ball.obj", unit="m", up="z")
    assert person.keypoints[0] == pytest.approx(mesh.vertices[57] - [0, 0, mesh.vertices[:, 2].min()], abs=1e-4)


def test_the_hash_of_an_asset_covers_its_map(rigged, tmp_path):
    (tmp_path / "rigged.glb").write_bytes((rigged / "rigged.glb").read_bytes())
    source = ScanFiles(FilesSource(paths=["rigged.glb"]), tmp_path)
    before = source.identities()[0][2]
    (tmp_path / "rigged.keypoints.yaml").write_text(MAP)
    assert source.identities()[0][2] != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MAP.replace("tip}", "top}"), "nose: no bone top; the nearest of 3 are tip"),
        (MAP.replace("nose:", "nosse:"), "coco17 has no keypoint nosse; the nearest of 17 are nose"),
        (MAP.replace("[0, 1,", "[0, 99,"), "left_knee: no vertex 99; there are 24, counted from 0"),
        (MAP.replace("[0, 1,", "[0, -1,"), "left_knee: no vertex -1; there are 24"),
        (MAP.replace("[0, 1,", "[0, one,"), "give whole numbers counted from 0"),
        (MAP.replace(", part: legs", ""), "the scan has 2 parts; add part: chest, legs"),
        (MAP.replace("part: legs", "part: leg"), "no part leg; the nearest of 2 are legs"),
        (MAP.replace("at: head", "at: middle"), "a bone has a head and a tail"),
        (MAP.replace("{bone: tip}", "tip"), "nose: 'tip' is no place; give {bone: NAME}"),
        (MAP.replace("coco17", "coco71"), "keypoint_set 'coco71' is not known; set one of coco17"),
        ("keypoints: [", "cannot be read"),
        ("[]", "it is not `keypoint_set: NAME`"),
        ("keypoint_set: !!python/name:os.system\nkeypoints: {}", "cannot be read"),
    ],
)
def test_each_mistake_in_a_map_is_one_sentence_with_the_mend(rigged, tmp_path, text, said):
    (tmp_path / "rigged.glb").write_bytes((rigged / "rigged.glb").read_bytes())
    (tmp_path / "rigged.keypoints.yaml").write_text(text)
    with pytest.raises(AssetError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith("asset files/rigged: rigged.keypoints.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_table_counts_rig_clip_morphs_and_names_the_helper(rigged, tmp_path):
    (row,) = library.scan(rigged, {})
    assert (row["bones"], row["clips"], row["morphs"], row["keypoint_set"]) == (3, ["bow"], 1, "coco17")
    assert "display_helper" in next(p["what"] for p in row["problems"] if p["code"] == "helper_shapes")
    (tmp_path / "rigged.glb").write_bytes((rigged / "rigged.glb").read_bytes())
    (tmp_path / "rigged.keypoints.yaml").write_text("[]")
    (row,) = library.scan(tmp_path, {})
    assert not row["usable"]
    assert "keypoints" in {p["code"] for p in row["problems"]}


@pytest.mark.parametrize(
    ("pose", "said"),
    [
        ({"bones": {"uper": [0, 0, 0]}}, "no bone uper; the nearest of its 3 are upper"),
        ({"clip": "bowl"}, "no clip bowl; it has bow"),
        ({"clip": "bow", "frame": 500}, "has frames .* not 500"),
    ],
)
def test_each_mistake_in_a_pose_is_one_sentence_with_the_mend(rigged, pose, said):
    with pytest.raises(AssetError, match=said):
        load(rigged, **pose)


def solid(mesh: trimesh.Trimesh, points: dict[str, list[float]] | None = None, **material) -> PersonMesh:
    """A person of ``mesh``'s triangles with some of coco17's points."""
    placed = np.full((17, 3), np.nan)
    for name, at in (points or {}).items():
        placed[COCO17.index(name)] = at
    uv = np.zeros((len(mesh.faces), 3, 2), np.float32)
    made = Mesh(
        mesh.vertices.astype(np.float32),
        mesh.faces.astype(np.int32),
        np.repeat(mesh.face_normals[:, None].astype(np.float32), 3, axis=1),
        np.zeros(len(mesh.faces), np.int32),
        [Material("solid", **material)],
        uv,
    )
    return PersonMesh("solid", made, {}, {}, keypoints=placed, keypoint_set="coco17")


def test_visibility_agrees_with_a_scene_whose_answer_is_known_by_construction():
    """A ball of 0.3 m on the axis, seen from -y; a wall before, behind, or with a window where the ball is."""
    camera = Camera(
        np.array([[200.0, 0, 64], [0, 200.0, 64], [0, 0, 1]]),
        frames.look_at(np.array([0.0, -3, 1]), np.array([0.0, 0, 1])),
        128,
        128,
        "full",
    )
    near, far = [0.0, -0.3, 1.0], [0.0, 0.3, 1.0]
    ball = solid(
        trimesh.creation.icosphere(4, 0.3).apply_translation([0, 0, 1]),
        # Shoulder and hip joints lie up to 0.14 and 0.20 m behind the skin; the ball's middle 0.30 m.
        {"nose": near, "left_ear": far, "left_hip": [0, 0, 1], "left_shoulder": [0, -0.2, 1], "right_eye": [9, 0, 1]},
    )
    sheet = trimesh.creation.box((2, 0.02, 2))
    empty = np.zeros((4, 4, 4), np.uint8)
    cases = {
        "alone": ([], [2, 1, 1, 2, 0, 0]),
        "wall behind": ([solid(sheet.copy().apply_translation([0, 1, 1]))], [2, 1, 1, 2, 0, 0]),
        "wall before": ([solid(sheet.copy().apply_translation([0, -1, 1]))], [1, 1, 1, 1, 0, 0]),
        "window before": (
            [solid(sheet.copy().apply_translation([0, -1, 1]), base_color_texture=empty, alpha_mode="cutout")],
            [2, 1, 1, 2, 0, 0],
        ),
        "half a wall before": ([solid(sheet.copy().apply_translation([-1.05, -1, 1]))], [2, 1, 1, 2, 0, 0]),
    }
    names = ("nose", "left_ear", "left_hip", "left_shoulder", "right_eye", "right_ear")
    for case, (walls, expected) in cases.items():
        people = [ball, *walls]
        uv, visibility = keypoints.seen(ball, 0, embree.Caster(people, camera.world_to_camera), camera)
        assert [int(visibility[COCO17.index(n)]) for n in names] == expected, case
        assert np.isnan(uv[COCO17.index("right_ear")]).all()
        # A shadow ray of trimesh's own, from the point to the camera: what is in its way is in the way here.
        if case == "wall before":
            ray = trimesh.Trimesh(walls[0].mesh.vertices, walls[0].mesh.faces).ray
            assert ray.intersects_any([near], [np.array([0.0, -3, 1]) - near]).all()
