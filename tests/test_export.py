"""What an export holds is what the shards hold, as the projects it is made for read it; what may not leave stays."""

from __future__ import annotations

import os

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV looks once, at the first EXR

import dataclasses
import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import commit
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.export import EXPORTERS, export
from manifests.frames import camera_rays, look_at, project
from manifests.sample import COCO17, Person, RenderedSample
from manifests.shards import ShardWriter, row_of
from tests import runs, samples
from tests.conftest import ROOT

# The codec keeps 20 microns; centimetres and half a metre more of float32 rounding come on top.
DEPTH_BOUND_M = 22e-6
NORMAL_BOUND_DEG = 0.06
OPENGL = np.array([1, -1, -1])


def figure(index: int, split: str = "train", free: bool = True) -> RenderedSample:
    """A ball with a bite of a second instance, COCO keypoints, soft alpha and a camera that stands elsewhere."""
    made = samples.ball(index, split=split)
    rng = np.random.default_rng(100 + index)
    mask = made.mask.copy()
    ys, _ = np.nonzero(mask)
    mask[(mask > 0) & (np.arange(mask.shape[0])[:, None] > np.median(ys))] = 2
    M = look_at(np.array([0.3, -2.5, 1.4]), np.array([0.0, 0.0, 1.0]))
    people = []
    for i in (1, 2):
        world = rng.uniform([-0.4, -0.3, 0.4], [0.4, 0.3, 1.6], (17, 3)).astype(np.float32)
        points, _ = project(world, made.K, M)
        rows, columns = np.nonzero(mask == i)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        seen = rng.integers(0, 3, 17).astype(np.uint8)
        people.append(Person(f"ball/{index}", box, 0.5, "coco17", points.astype(np.float32), world, seen))
    alpha = cv2.GaussianBlur((mask > 0).astype(np.uint8) * 255, (5, 5), 0)
    rights = [{**made.rights[0], "redistributable": free}]
    return dataclasses.replace(made, mask=mask, people=people, world_to_camera=M, alpha=alpha, rights=rights)


def store(folder: Path, made: list[dict], kind: str = "rendered") -> Path:
    """A committed dataset of these rows."""
    with ShardWriter(folder, "00000000", kind) as writer:
        for row in made:
            writer.append(row)
        shards = writer.close()
    outcomes = [commit.Outcome(row["sample_id"], row["index"], "done", "", 0.1, 1) for row in made]
    commit.write_receipt(folder, commit.Receipt("00000000", "d" * 64, shards, outcomes, {}))
    commit.fold(folder, kind, "d" * 64)
    return folder


@pytest.fixture(scope="module")
def truth() -> list[RenderedSample]:
    made = [figure(i) for i in range(3)]
    # Some rows' cameras balanced colours and some did not.
    made[1].white_balance = (0.75, 1.0, 1.5)
    return made


@pytest.fixture(scope="module")
def stored(tmp_path_factory, truth) -> Path:
    return store(tmp_path_factory.mktemp("export") / "d", [row_of(s) for s in truth])


def depth_error_m(depth: np.ndarray, sample: RenderedSample) -> float:
    return float(np.abs(depth.astype(np.float64) - sample.depth)[sample.mask > 0].max())


def normal_error_deg(normal: np.ndarray, sample: RenderedSample) -> float:
    inside = sample.mask > 0
    a, b = normal[inside].astype(np.float64), sample.normal[inside].astype(np.float64)
    return float(np.degrees(2 * np.arcsin(np.linalg.norm(a - b, axis=1) / 2)).max())


def common_stems(root: Path, **suffixes: str) -> list[str]:
    """The samples Sapiens' loaders find: stems that every folder holds."""
    found = [{p.name.removesuffix(end) for p in (root / name).glob(f"*{end}")} for name, end in suffixes.items()]
    return sorted(set.intersection(*found))


def read_rgb_mask(root: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as Sapiens reads them: B, G, R turned to R, G, B; channel 0 of the mask."""
    rgb = cv2.imread(str(root / "rgb" / f"{stem}.png"))[..., ::-1]
    return rgb, cv2.imread(str(root / "mask" / f"{stem}.png"))[:, :, 0]


def test_sapiens_v1_reads_depth_and_normals_from_one_folder(tmp_path, stored, truth):
    assert export(stored, "sapiens-v1", tmp_path / "o", "train") == 3
    root = tmp_path / "o"
    stems = common_stems(root, rgb=".png", mask=".png", depth=".npy")
    assert stems == common_stems(root, rgb=".png", mask=".png", normal=".npy") == [s.sample_id for s in truth]
    for i, (stem, sample) in enumerate(zip(stems, truth)):
        rgb, mask = read_rgb_mask(root, stem)
        assert np.array_equal(rgb, Dataset(stored).sample(i).image)
        assert np.array_equal(mask > 0, sample.mask > 0)
        depth, normal = np.load(root / "depth" / f"{stem}.npy"), np.load(root / "normal" / f"{stem}.npy")
        assert depth.dtype == normal.dtype == np.float32
        assert depth_error_m(depth, sample) < DEPTH_BOUND_M
        assert normal_error_deg(normal * OPENGL, sample) < NORMAL_BOUND_DEG
        # The loader divides every normal again when one of them misses length 1 by more.
        assert np.abs(np.linalg.norm(normal[mask > 0], axis=1) - 1).max() < 1e-6
        # What faces the camera is blue, in everyone's colours.
        assert normal[mask > 0][:, 2].mean() > 0.3


def test_sapiens2_unprojects_the_exported_depth_to_the_surface(tmp_path, stored, truth):
    export(stored, "sapiens2-pointmap", tmp_path / "o", "train")
    root = tmp_path / "o"
    ends = {"camera_intrinsics": ".txt", "camera_extrinsics": ".txt"}
    stems = common_stems(root, rgb=".png", mask=".png", depth=".npy", **ends)
    assert len(stems) == 3
    for stem, sample in zip(stems, truth):
        K, M = (np.loadtxt(root / name / f"{stem}.txt") for name in ends)
        Z = np.load(root / "depth" / f"{stem}.npy")
        _, mask = read_rgb_mask(root, stem)
        assert mask.sum() >= 10
        v, u = np.indices(Z.shape)
        points = np.stack([(u - K[0, 2]) * Z / K[0, 0], (v - K[1, 2]) * Z / K[1, 1], Z], axis=-1)
        surface = camera_rays(sample.K, sample.mask.shape[1], sample.mask.shape[0]) * sample.depth[..., None]
        assert np.abs(points - surface)[mask > 0].max() < DEPTH_BOUND_M
        # The extrinsics take a joint from the world to where the picture shows it, in indices.
        camera = sample.people[0].keypoints_3d @ M[:3, :3].T + M[:3, 3]
        assert (camera[:, 2] > 0).all()
        pixels = (camera @ K.T)[:, :2] / camera[:, 2:]
        assert np.abs(pixels - (sample.people[0].keypoints - 0.5)).max() < 1e-3


def test_sapiens2_reads_normals(tmp_path, stored, truth):
    export(stored, "sapiens2-normal", tmp_path / "o", "train")
    for stem, sample in zip(common_stems(tmp_path / "o", rgb=".png", mask=".png", normal=".npy"), truth, strict=True):
        normal = np.load(tmp_path / "o" / "normal" / f"{stem}.npy")
        assert normal_error_deg(normal * OPENGL, sample) < NORMAL_BOUND_DEG


def test_synthhuman_reads_through_opencv_and_by_channel_name(tmp_path, stored, truth):
    OpenEXR = pytest.importorskip("OpenEXR")
    export(stored, "synthhuman", tmp_path / "o", "train")
    root, flags = tmp_path / "o", cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    assert not [p for p in root.iterdir() if p.is_dir()]
    for i, sample in enumerate(truth):
        rgb = cv2.imread(str(root / f"rgb_{i:07d}.png"))[..., ::-1]
        assert np.array_equal(rgb, Dataset(stored).sample(i).image)
        assert np.array_equal(cv2.imread(str(root / f"alpha_{i:07d}.png"), cv2.IMREAD_GRAYSCALE), sample.alpha)
        depth_cm = cv2.imread(str(root / f"depth_{i:07d}.exr"), flags)
        assert depth_cm.dtype == np.float32
        assert depth_cm.shape == sample.mask.shape
        assert np.array_equal(depth_cm == 65504, sample.mask == 0)
        assert depth_error_m(depth_cm.astype(np.float64) / 100, sample) < DEPTH_BOUND_M
        normal = cv2.imread(str(root / f"normal_{i:07d}.exr"), flags)
        assert normal_error_deg(normal * OPENGL, sample) < NORMAL_BOUND_DEG
        with OpenEXR.File(str(root / f"normal_{i:07d}.exr"), separate_channels=True) as file:
            named = {name: channel.pixels for name, channel in file.channels().items()}
        assert np.array_equal(np.stack([named["B"], named["G"], named["R"]], axis=-1), normal)
        assert np.array_equal(np.loadtxt(root / f"cam_{i:07d}.txt"), sample.K)
    assert not (root / "rgb_0000003.png").exists()


def test_pycocotools_reads_people_masks_and_keypoints(tmp_path, stored, truth):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    export(stored, "coco-keypoints", tmp_path / "o", "train")
    path = tmp_path / "o" / "annotations" / "person_keypoints.json"
    coco = COCO(str(path))
    (category,) = coco.loadCats(coco.getCatIds(catNms=["person"]))
    assert category["keypoints"] == list(COCO17)
    assert {k for limb in category["skeleton"] for k in limb} == set(range(1, 18))
    assert ["left_knee", "left_ankle"] in [
        sorted((COCO17[a - 1], COCO17[b - 1]), reverse=True) for a, b in category["skeleton"]
    ]
    results = []
    for i, sample in enumerate(truth):
        (image,) = coco.loadImgs([coco.getImgIds()[i]])
        data = (tmp_path / "o" / "images" / image["file_name"]).read_bytes()
        assert data == Dataset(stored)[i]["image"]["bytes"]
        assert (image["height"], image["width"]) == sample.mask.shape
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(found) == 2
        for j, (annotation, person) in enumerate(zip(found, sample.people), start=1):
            assert np.array_equal(coco.annToMask(annotation), sample.mask == j)
            assert annotation["area"] == (sample.mask == j).sum()
            x, y, w, h = annotation["bbox"]
            assert [x, y, x + w, y + h] == person.box.tolist()
            points = np.array(annotation["keypoints"]).reshape(17, 3)
            assert np.array_equal(points[:, 2], person.visibility)
            shown = person.visibility > 0
            assert annotation["num_keypoints"] == shown.sum()
            assert np.abs(points[shown, :2] - (person.keypoints[shown] - 0.5)).max() < 1e-3
            assert not points[~shown].any()
            results.append({k: annotation[k] for k in ("image_id", "category_id", "keypoints")} | {"score": 1.0})
    judged = COCOeval(coco, coco.loadRes(results), "keypoints")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == 1.0


def test_tar_members_read_without_our_code(tmp_path, stored, truth):
    import datasets

    export(stored, "webdataset", tmp_path / "o", "train")
    (path,) = (tmp_path / "o").glob("*.tar")
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    assert [n for n in members if n.endswith(".json")] == [f"{s.sample_id}.json" for s in truth]
    for sample in truth:
        key = sample.sample_id
        depth = np.load(io.BytesIO(members[f"{key}.depth.npy"]), allow_pickle=False)
        assert depth_error_m(depth, sample) < DEPTH_BOUND_M
        normal = np.load(io.BytesIO(members[f"{key}.normal.npy"]), allow_pickle=False)
        assert normal_error_deg(normal, sample) < NORMAL_BOUND_DEG
        mask = cv2.imdecode(np.frombuffer(members[f"{key}.mask.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, sample.mask)
        told = json.loads(members[f"{key}.json"])
        assert np.array_equal(np.reshape(told["camera"]["K"], (3, 3)), sample.K)
        assert "opencv_camera" in told["conventions"]["normal"]
        assert f"{key}.segmentation.png" not in members
    export(stored, "webdataset", tmp_path / "again", "train")
    assert next((tmp_path / "again").glob("*.tar")).read_bytes() == path.read_bytes()
    opened = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["__key__"] for row in opened] == [s.sample_id for s in truth]
    assert opened[0]["jpg"].size == (96, 128)


def test_parquet_reads_through_pandas_and_datasets(tmp_path, stored, truth):
    import datasets
    import pandas

    export(stored, "parquet", tmp_path / "o")
    table = pandas.read_parquet(next((tmp_path / "o" / "train").glob("*.parquet")))
    opened = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(table) == len(opened) == 3
    numbers = opened.select_columns(["depth", "normal"]).with_format("numpy")
    for i, sample in enumerate(truth):
        row = table.iloc[i]
        shape = (row["camera"]["height"], row["camera"]["width"])
        assert depth_error_m(row["depth"].reshape(shape), sample) < DEPTH_BOUND_M
        assert normal_error_deg(row["normal"].reshape(*shape, 3), sample) < NORMAL_BOUND_DEG
        assert row["depth"].dtype == numbers[i]["depth"].dtype == np.float32
        assert np.array_equal(numbers[i]["depth"], row["depth"])
        assert np.array_equal(np.asarray(opened[i]["mask"]), sample.mask)
        assert np.array_equal(np.asarray(opened[i]["alpha"]), sample.alpha)
        assert opened[i]["image"].size == (96, 128)
        assert opened[i]["segmentation"] is None
        assert opened[i]["white_balance"] == (None if sample.white_balance is None else list(sample.white_balance))
        assert np.array_equal(opened[i]["people"][1]["keypoints"], sample.people[1].keypoints)


def test_rows_whose_rights_forbid_it_stay_until_they_are_let_go(tmp_path):
    folder = store(tmp_path / "d", [row_of(figure(i, free=i != 1)) for i in range(3)])
    for name in EXPORTERS:
        with pytest.raises(InputError, match=r"1 of 3 rows .*ball-0001\).*--allow-restricted"):
            export(folder, name, tmp_path / "o")
    assert not (tmp_path / "o").exists()
    code, said = runs.here("export", folder, "--format", "sapiens2-normal", "--out", tmp_path / "o")
    assert code == 2
    assert "--allow-restricted" in said
    assert "Traceback" not in said
    flags = ("--split", "train", "--allow-restricted")
    code, said = runs.here("export", folder, "--format", "sapiens2-normal", "--out", tmp_path / "o", *flags)
    assert code == 0, said
    assert len(list((tmp_path / "o" / "normal").glob("*.npy"))) == 3
    assert json.loads((tmp_path / "o" / "export.json").read_text())["redistributable"] == 2


def test_held_out_people_get_their_own_folder(tmp_path):
    folder = store(tmp_path / "d", [row_of(figure(i, split=("train", "test")[i % 2])) for i in range(4)])
    export(folder, "sapiens2-normal", tmp_path / "all")
    assert sorted(p.name for p in tmp_path.glob("all/*/rgb/*")) == [f"ball-{i:04d}.png" for i in range(4)]
    assert sorted(p.name for p in tmp_path.glob("all/test/rgb/*")) == ["ball-0001.png", "ball-0003.png"]
    export(folder, "synthhuman", tmp_path / "test", "test")
    listed = [json.loads(line) for line in (tmp_path / "test" / "samples.jsonl").read_text().splitlines()]
    assert [(r["number"], r["sample_id"]) for r in listed] == [(0, "ball-0001"), (1, "ball-0003")]
    with pytest.raises(InputError, match="split val; it has test, train"):
        export(folder, "synthhuman", tmp_path / "val", "val")
    import datasets

    export(folder, "parquet", tmp_path / "p")
    opened = datasets.load_dataset(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert {name: part["sample_id"] for name, part in opened.items()} == {
        "train": ["ball-0000", "ball-0002"],
        "test": ["ball-0001", "ball-0003"],
    }


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("sapiens-v1", "normal", "ball-0001: has no `normal`"),
        ("sapiens2-pointmap", "depth", "ball-0001: has no `depth`"),
        ("synthhuman", "alpha", "ball-0001: has no `alpha`"),
        ("coco-keypoints", "mask", "ball-0001: has no `mask`"),
    ],
)
def test_a_field_that_a_row_lacks_is_named_and_nothing_is_left(tmp_path, name, field, expected):
    rows = [row_of(figure(i)) for i in range(3)]
    rows[1][field] = None
    folder = store(tmp_path / "d", rows)
    with pytest.raises(InputError, match=expected):
        export(folder, name, tmp_path / "o")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_people_without_cocos_points_are_named(tmp_path):
    folder = samples.dataset(tmp_path / "d", 1)
    with pytest.raises(InputError, match="ball-0000: ball/0 has no keypoints"):
        export(folder, "coco-keypoints", tmp_path / "o")


def test_a_target_that_holds_something_is_refused_and_an_empty_one_taken(tmp_path, stored):
    (tmp_path / "o").mkdir()
    assert export(stored, "sapiens2-normal", tmp_path / "o") == 3
    with pytest.raises(InputError, match="not empty"):
        export(stored, "sapiens2-normal", tmp_path / "o")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(stored, "parquet", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


KILLED = """
import os, signal, sys; from pathlib import Path; from manifests.export import export
export(Path(sys.argv[1]), "sapiens-v1", Path(sys.argv[2]), progress=lambda done, total: done == 2 and os.kill(os.getpid(), 9))
"""
FULL = """
import resource, signal, sys; from pathlib import Path; from manifests.export import export
from manifests.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for name in sys.argv[3:]:
    try: export(Path(sys.argv[1]), name, Path(sys.argv[2])); print("no error")
    except StorageError as error: print(error)
"""


def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path, stored):
    command = [sys.executable, "-c", KILLED, str(stored), str(tmp_path / "o")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert ".partial-" in left.name
    assert not (left / "export.json").exists()
    assert export(stored, "sapiens-v1", tmp_path / "o") == 3


def test_a_disk_that_refuses_is_said_and_leaves_nothing(tmp_path, stored):
    names = ["sapiens-v1", "synthhuman", "webdataset", "parquet"]
    command = [sys.executable, "-c", FULL, str(stored), str(tmp_path / "o"), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [("arge" in line and "free space" in line) for line in done.stdout.splitlines()] == [True] * 4, done.stdout
    assert not list(tmp_path.iterdir())


def test_a_wrong_format_is_met_with_the_nearest_one(tmp_path, stored):
    code, said = runs.here("export", stored, "--format", "sapiens2-normals", "--out", tmp_path / "o")
    assert code == 2
    assert "did you mean sapiens2-normal?" in said


def test_the_readme_names_every_format():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in EXPORTERS if f"`{name}`" not in readme] == []
