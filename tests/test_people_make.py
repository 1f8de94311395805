"""`maquette people make`: the files hold the people that were drawn, dressed and labelled, and our readers take them back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
import yaml
from scipy.spatial import cKDTree

from manifests.assets import AnnySource, FilesSource
from manifests.errors import InputError
from manifests.frames import Z_UP_FROM_Y_UP
from manifests.job import RenderStage
from manifests.keypoints import SETS
from manifests.parts import CLASSES, ID
from manifests.plan import SampleSpec
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.assets.files import ScanFiles
from render.assets.scan import quick
from render.people.make import INDEX, _marked, make
from render.stage import Renderer, pool
from render.strands import solid
from tests import runs

pytestmark = pytest.mark.engine
SEED, COUNT = 9, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    assert [why for _, why in make(AnnySource(count=COUNT), SEED, folder)] == [None] * COUNT
    return folder


@pytest.fixture(scope="module")
def drawn():
    people = AnnyPeople(AnnySource(count=COUNT), SEED)
    # A file holds the surface of the hair's volume.
    return [solid(people.load(str(j), generator(SEED, "pose", j))) for j in range(COUNT)]


def middle(mesh) -> np.ndarray:
    return (mesh.vertices.min(0).astype(np.float64) + mesh.vertices.max(0)) / 2


@pytest.mark.parametrize("reader", [None, quick], ids=["blender", "trimesh"])
def test_files_read_back_are_the_people_that_were_drawn(made, drawn, reader):
    source = ScanFiles(FilesSource(paths=["."]), made, reader)
    for person, (_, key, _) in zip(drawn, source.identities(), strict=True):
        again = source.load(key, generator(0))
        # A scan is set down with the middle of its box over the origin: by this much it stands elsewhere.
        shift = middle(person.mesh) - middle(again.mesh)
        ours = person.mesh.vertices.astype(np.float64)[person.mesh.faces]
        theirs = again.mesh.vertices.astype(np.float64)[again.mesh.faces] + shift
        assert ours.shape == theirs.shape
        _, match = cKDTree(theirs.mean(axis=1)).query(ours.mean(axis=1))
        assert len(np.unique(match)) == len(match), "each triangle has one of its own"
        apart = np.linalg.norm(ours[:, :, None] - theirs[match][:, None], axis=3).min(axis=2)
        assert apart.max() < 1e-5
        assert np.array_equal(person.mesh.part, again.mesh.part[match])
        if reader is not None:
            # A preview tells neither joints nor points.
            assert again.keypoints is None
            continue
        assert again.keypoint_set == "sapiens308"
        known = ~np.isnan(person.keypoints).any(axis=1)
        assert np.array_equal(known, ~np.isnan(again.keypoints).any(axis=1))
        assert np.abs(person.keypoints[known] - again.keypoints[known] - shift).max() < 2e-5


def test_a_coordinate_near_nought_is_read_back_as_a_number():
    told = yaml.safe_load(_marked("coco17", {"nose": [9e-05, 1.28527, -1e-05], "left_eye": None}))
    assert told["keypoints"] == {"nose": {"point": [9e-05, 1.28527, -1e-05]}}


def test_both_engines_agree_on_a_made_person_and_its_picture_is_labelled(made, tmp_path):
    stage = RenderStage(
        samples=1, width=96, height=128, assets=[FilesSource(paths=["."], redistributable=True, licence="CC0-1.0")],
        engine={"samples": 1}, framing={"full": 1, "face": 0, "upper": 0}, splits={"train": 1, "val": 0, "test": 0},
    )  # fmt: skip
    identities, _ = pool(stage, made)
    spec = SampleSpec("s", "d" * 64, 0, "train", "full", (identities[0],))
    sample = Renderer(stage, made, 1).render(spec)
    assert sample.agreement["opaque"] >= 0.999
    assert set(np.unique(sample.segmentation[sample.mask > 0])) >= {ID["Upper_Clothing"], ID["Hair"]}
    assert (sample.segmentation == 255).sum() == 0
    assert (sample.segmentation[sample.mask == 0] == 0).all()


def test_any_gltf_reader_finds_metres_upright_and_the_sidecar_tells_the_same(made, drawn):
    for j, person in enumerate(drawn):
        told = json.loads((made / f"anny_{j:06d}.json").read_text())
        scene = trimesh.load_scene(made / told["file"])
        low, high = scene.bounds
        assert high[1] - low[1] == pytest.approx(np.ptp(person.mesh.vertices[:, 2]), abs=1e-5)
        assert told["height_m"] == pytest.approx(high[1] - low[1], abs=1e-4)
        assert abs(low[1]) < 1e-5, "on the ground"
        # Faces in the order of the file carry the sidecar's runs of classes, and the attribute says the same.
        runs = np.concatenate([np.full(n, c) for c, n in told["parts"]["runs"]])
        found = np.concatenate(
            [g.vertex_attributes["_PART"].reshape(-1)[g.faces[:, 0]] for g in scene.geometry.values()]
        )
        assert np.array_equal(runs, found)
        assert told["parts"]["classes"] == list(CLASSES)
        for name, table in SETS.items():
            points = told["keypoints"][name]
            assert tuple(points) == table.names
        ours = np.array([p or [np.nan] * 3 for p in told["keypoints"]["sapiens308"].values()]) @ Z_UP_FROM_Y_UP.T
        assert np.nanmax(np.abs(ours - person.keypoints)) < 1e-5
        assert told["rights"]["licence"] == "CC0-1.0"
        assert told["rights"]["redistributable"] is True


def test_no_skin_of_the_trunk_or_thighs_leaves_in_a_file(made):
    for path in sorted(made.glob("*.json")):
        told = json.loads(path.read_text())
        counts = dict.fromkeys(range(29), 0)
        for label, n in told["parts"]["runs"]:
            counts[label] += n
        # A dress is one garment, and Sapiens's upper one.
        assert counts[ID["Upper_Clothing"]] > 500
        assert counts[ID["Upper_Clothing"]] + counts[ID["Lower_Clothing"]] > 1000
        # Of the trunk's 1,580 body quads only those round the collar may be there.
        assert counts[ID["Torso"]] < 0.2 * 2 * 1580, told["id"]


def test_the_same_command_goes_on_and_another_seed_is_refused(made, tmp_path):
    copy = tmp_path / "out"
    copy.mkdir()
    for file in made.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    kept, lost = copy / "anny_000000.glb", copy / "anny_000001.glb"
    stamp, whole = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.write_bytes(whole[:1000])
    list(make(AnnySource(count=COUNT), SEED, copy))
    assert kept.stat().st_mtime_ns == stamp, "what was there stayed"
    assert lost.read_bytes() == whole, "what was damaged is the same again"
    assert [json.loads(line)["id"] for line in (copy / INDEX).read_text().splitlines()] == [
        "anny/000000",
        "anny/000001",
    ]
    with pytest.raises(InputError, match="another seed"):
        list(make(AnnySource(count=COUNT), SEED + 1, copy))


def test_the_command_writes_people_and_says_so(tmp_path):
    code, said = runs.here(
        "people", "make", "--count", "1", "--out", tmp_path / "out", "--seed", str(SEED), "--no-sheet"
    )
    assert code == 0, said
    assert "1 of 1 people" in said
    assert (tmp_path / "out" / "anny_000000.glb").stat().st_size > 100_000
    code, said = runs.here("people", "make", "--count", "0", "--out", tmp_path / "out")
    assert code == 2
    assert "Traceback" not in said
