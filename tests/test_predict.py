"""`maquette predict`: people found, predicted and pasted back; every bad input one line, and the rest goes on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from curation.detectors import PersonDetector
from manifests.curation import Detector
from manifests.errors import InputError
from manifests.frames import point_map
from pipeline import crops, inputs, lens, metric, predict, predict_commands, predict_write
from tests import models, onnx, photos, runs, samples
from training.predictor import Predictor


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """A run with a foreground model that has seen 24 balls, and untrained ones of depth and normals."""
    run = tmp_path_factory.mktemp("balls")
    samples.dataset(run / "render", 24, per_task=8)
    models.trained(run, "foreground", 60)
    models.random(run, "depth")
    models.random(run, "normal")
    return run


# What typer would fill in.
PLAIN = {
    "also": None, "detector": "none", "layout": "yolox", "score": 0.5, "batch": 8, "height_m": 1.7, "distance_m": None,
    "focal_px": None, "max_pixels": 10**7, "relight": None, "turn": None, "background": None, "device": "cpu",
}  # fmt: skip


def detector(path: Path, boxes: list[tuple[float, float, float, float]], size: tuple[int, int]) -> Path:
    """An ONNX detector that always finds ``boxes``, xyxy px of pictures of ``size`` (H, W), with a score of 0.95."""
    scale = np.array([416 / size[1], 416 / size[0]] * 2, np.float32)
    found = {
        "labels": np.zeros((1, len(boxes)), np.int64),
        "boxes": np.array([boxes], np.float32) * scale,
        "scores": np.full((1, len(boxes)), 0.95, np.float32),
    }
    path.write_bytes(onnx.constant_model(found))
    return path


def scene(seed: int = 900) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float, float]]:
    """A ball nobody trained on, set into a large dark picture away from its middle: picture, coverage, box."""
    ball = samples.ball(seed)
    picture = np.full((300, 420, 3), 30, np.uint8)
    alpha = np.zeros((300, 420), np.float32)
    picture[150:278, 300:396], alpha[150:278, 300:396] = ball.image, ball.alpha / 255
    x0, y0, x1, y1 = ball.people[0].box
    return picture, alpha, (x0 + 300, y0 + 150, x1 + 300, y1 + 150)


def test_a_cut_pasted_back_is_the_picture_itself():
    picture = photos.cloud(1, 200, 120)
    for box in ((30.0, 20.0, 90.0, 110.0), (150.0, 60.0, 220.0, 140.0), (-10.0, -10.0, 12.0, 8.0)):
        crop = crops.around(box, (128, 96))
        assert crop.shape[0] / crop.shape[1] == pytest.approx(128 / 96, abs=0.03)
        part = crops.cut(picture, crop)
        assert part.shape[:2] == crop.shape
        owner = crops.owners([crop], picture.shape[:2])
        back = crops.pasted([part], [crop], owner)
        assert (back[owner == 1] == picture[owner == 1]).all()
        assert (back[owner == 0] == 0).all()
        x0, y0, x1, y1 = (round(v) for v in box)
        assert (owner[max(0, y0) : y1, max(0, x0) : x1] == 1).all()


def test_where_cuts_overlap_each_keeps_its_own_middle():
    left, right = crops.Crop(0, 0, 60, 80), crops.Crop(40, 0, 100, 80)
    owner = crops.owners([left, right], (80, 100))
    assert owner[40, 30] == 1
    assert owner[40, 70] == 2
    assert owner[40, 49] == 1
    assert owner[40, 51] == 2


def test_a_cut_has_the_pictures_camera():
    K = np.array([[500.0, 0, 210], [0, 480, 150], [0, 0, 1]])
    crop = crops.Crop(30, -20, 90, 100)
    point = np.array([0.2, -0.1, 2.0])
    u, v, w = K @ point
    assert (crop.intrinsics(K) @ point / w)[:2] == pytest.approx([u / w - 30, v / w + 20])


def test_the_map_of_a_person_lies_where_the_person_is(balls, tmp_path):
    picture, alpha, box = scene()
    cv2.imwrite(str(tmp_path / "scene.png"), picture[..., ::-1])
    weights = detector(tmp_path / "finds.onnx", [box], picture.shape[:2])
    code, said = runs.here(
        "predict", balls, tmp_path / "scene.png", "--out", tmp_path / "out", "--detector", weights,
        "--layout", "finished", "--background", tmp_path / "scene.png", "--relight=-1,-1,-1", "--turn", "15",
    )  # fmt: skip
    assert code == 0, said
    folder = tmp_path / "out/scene.png"
    maps = np.load(folder / "maps.npz")
    found = maps["foreground"] > 0.5
    overlap = (found & (alpha > 0.5)).sum() / (found | (alpha > 0.5)).sum()
    assert overlap > 0.75
    assert maps["normal"].shape == (300, 420, 3)
    assert np.linalg.norm(maps["normal"][maps["person"] == 1], axis=1) == pytest.approx(1, abs=1e-3)
    assert maps["boxes"][0] == pytest.approx(box, abs=0.5)
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "maps.npz", "foreground.png", "normal.png", "depth.png", "people.ply", "overlay.jpg", "relit.jpg", "beside.jpg",
        "background.jpg", "result.json",
    }  # fmt: skip
    millimetres = cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16
    assert millimetres / 1000 == pytest.approx(maps["depth"], abs=6e-4)
    told = json.loads((folder / "result.json").read_text())
    assert "assumed" in told["camera"]
    assert "height of 1.7 m" in told["people"][0]["scale"]
    # The same command again does nothing; another setting does it again.
    before = (folder / "maps.npz").stat().st_mtime_ns
    arguments = ["predict", balls, tmp_path / "scene.png", "--out", tmp_path / "out", "--detector", weights]
    arguments += ["--layout", "finished", "--background", tmp_path / "scene.png", "--relight=-1,-1,-1", "--turn", "15"]
    code, said = runs.here(*arguments)
    assert code == 0
    assert "1 were done before" in said
    assert (folder / "maps.npz").stat().st_mtime_ns == before
    code, said = runs.here(*arguments, "--height-m", "1.8")
    assert code == 0
    assert (folder / "maps.npz").stat().st_mtime_ns > before


def test_bad_inputs_get_a_line_each_and_the_rest_goes_on(balls, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    picture, _, _ = scene()
    (folder / "b_sound.jpg").write_bytes(photos.encoded(picture))
    (folder / "a_cut_short.jpg").write_bytes(photos.encoded(picture)[:3000])
    Image.new("RGB", (1, 1)).save(folder / "c_dot.png")
    Image.new("1", (10_000, 10_000)).save(folder / "d_huge.png")
    (folder / "e_text.jpg").write_text("not an image")
    (folder / "f_empty.png").touch()
    (folder / "g_not.mp4").write_text("#EXTM3U\nhttp://example.org/x")
    code, said = runs.here("predict", balls, folder, "--out", tmp_path / "out", "--detector", "none")
    assert code == 1, said
    assert "Traceback" not in said
    lines = {line.split(":")[0].strip(): line for line in said.splitlines()}
    assert "corrupt" in lines["a_cut_short.jpg"]
    assert "1x1 pixels" in lines["c_dot.png"]
    assert "10000x10000 pixels, 50000000 allowed" in lines["d_huge.png"]
    assert "format" in lines["e_text.jpg"]
    assert "empty" in lines["f_empty.png"]
    assert "not a video" in lines["g_not.mp4"]
    assert "1 predicted, 6 could not be used" in said
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b_sound.jpg"]


def test_nobody_in_a_picture_is_said(balls, tmp_path):
    weights = detector(tmp_path / "blind.onnx", [(10, 20, 200, 300)], (360, 480))
    finds = PersonDetector(Detector(kind="onnx", weights=str(weights), layout="finished"), tmp_path)
    model = Predictor(balls / "finetune/foreground/model.safetensors", "cpu")
    picture, camera = photos.cloud(3), (np.eye(3), "given")
    assert predict.Eye([model], finds, predict.Wanted(score=0.9)).see([picture], [camera])[0].maps
    (tmp_path / "in").mkdir()
    (tmp_path / "in/clouds.jpg").write_bytes(photos.encoded(picture))
    blind = predict.Eye([model], finds, predict.Wanted(score=0.99))
    assert "nobody found with a score of 0.99" in blind.see([picture], [camera])[0]
    assert predict.predict(tmp_path / "in", tmp_path / "out", blind, "x") == 1
    assert not (tmp_path / "out").exists()


def film(path: Path, frames: int = 6) -> Path:
    """A short video of the scene's ball."""
    picture = scene()[0]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, picture.shape[1::-1])
    for i in range(frames):
        writer.write(np.ascontiguousarray(np.roll(picture, -4 * i, axis=1)[..., ::-1]))
    writer.release()
    return path


def test_a_video_gives_maps_of_each_frame_and_a_film(balls, tmp_path):
    video = film(tmp_path / "walk.mp4")
    checkpoint = balls / "finetune/foreground/model.safetensors"
    code, said = runs.here("predict", checkpoint, video, "--out", tmp_path / "out", "--detector", "none")
    assert code == 0, said
    folder = tmp_path / "out/walk.mp4"
    assert sorted(p.name for p in folder.glob("*.npz")) == [f"{i:06d}.npz" for i in range(6)]
    told = json.loads((folder / "result.json").read_text())
    assert told["frames"] == told["frames_with_people"] == 6
    shown = cv2.VideoCapture(str(folder / "overlay.mp4"))
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert shown.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert np.load(folder / "000000.npz")["foreground"].shape == (300, 420)


def test_an_interrupted_folder_goes_on_where_it_was(balls, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02d}.jpg").write_bytes(photos.encoded(photos.cloud(i, 320, 240)))
    arguments = ["predict", balls, folder, "--out", tmp_path / "out", "--detector", "none"]
    process = runs.start(*arguments)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*/result.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/result.json")}
    assert len(done) < 20
    code, said = runs.here(*arguments)
    assert code == 0, said
    assert f"{len(done)} were done before" in said
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 20
    assert not list((tmp_path / "out").glob(".*.part"))


def test_mistakes_end_in_a_sentence(balls, tmp_path):
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), scene()[0])
    depth = balls / "finetune/depth/model.safetensors"
    code, said = runs.here("predict", tmp_path / "absent.safetensors", picture)
    assert code == 2, said
    assert "no such file" in said
    assert "Traceback" not in said
    cases = [
        ((tmp_path, picture), {}, "no fine-tuned model here"),
        ((balls, tmp_path / "absent"), {"detector": "none"}, "no such file or folder"),
        ((depth, picture), {"relight": "0,-1,0"}, "needs a model of foreground and of normal"),
        ((balls, picture), {"relight": "up"}, "three numbers"),
        ((balls, picture), {"detector": "absent.onnx"}, "absent.onnx"),
        ((balls, picture), {"also": [depth]}, "one of each task"),
        ((balls, picture), {"background": tmp_path / "absent.jpg"}, "--background"),
    ]
    for arguments, flags, expected in cases:
        with pytest.raises(InputError, match=expected):
            predict_commands.predict(*arguments, out=tmp_path / "out", **(PLAIN | flags))


def test_the_lens_is_read_from_exif_given_or_assumed():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    data = photos.encoded(photos.cloud(0, 300, 200), exif=exif.tobytes())
    K, how = lens.intrinsics(data, 300, 200)
    # Equal diagonal angle of view: 50 mm on a film of 43.27 mm diagonal.
    assert K[0, 0] == pytest.approx(50 * np.hypot(300, 200) / np.hypot(36, 24), rel=1e-6)
    assert (K[0, 2], K[1, 2]) == (150, 100)
    assert "50 mm" in how
    assert lens.intrinsics(data, 300, 200, 444.0)[0][0, 0] == 444
    K, how = lens.intrinsics(photos.encoded(photos.cloud(0)), 300, 200)
    assert K[0, 0] == pytest.approx(360)
    assert "assumed" in how


def test_a_ply_opens_in_trimesh_with_the_right_scale(tmp_path):
    ball = samples.ball(4, 192, 256)
    inside = ball.mask > 0
    points = point_map(ball.depth, ball.K)
    count = metric.write_ply(tmp_path / "ball.ply", points, inside, ball.image, ball.normal)
    mesh = trimesh.load(tmp_path / "ball.ply", process=False)
    assert len(mesh.vertices) == count == inside.sum()
    # A sphere: every point less radius times its normal is the same centre.
    a = np.stack([mesh.vertices[:, i] for i in range(3)], axis=1)
    n = np.asarray(mesh.vertex_normals)
    m = np.concatenate([np.tile(np.eye(3), (len(a), 1)), n.reshape(-1, 1)], axis=1)
    *centre, radius = np.linalg.lstsq(m, a.reshape(-1), rcond=None)[0]
    assert 0.3 < radius < 0.55
    assert np.abs(a - centre - radius * n).max() < 1e-3
    assert np.asarray(mesh.visual.vertex_colors)[:, :3] == pytest.approx(ball.image[inside])
    assert mesh.faces.shape[0] > 1.7 * count


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_normals_and_a_height_make_relative_depth_metric(seed):
    ball = samples.ball(seed, 192, 256)
    inside = ball.mask > 0
    relative = np.where(inside, (ball.depth - 7.0) * 3.1, 0)
    x0, y0, x1, y1 = ball.people[0].box
    height = float((y1 - y0) * np.median(ball.depth[inside]) / ball.K[1, 1])
    size = metric.Size(height_m=height)
    made = metric.metres(relative, inside, (x0, y0, x1, y1), (256, 192), ball.K, size, ball.normal)
    assert "height" in made.how
    assert "normals" in made.how
    # Neighbours' differences are the normals of a surface of pixels: a hundredth of the relief is what that leaves.
    assert np.abs(made.depth - ball.depth)[inside].mean() < 0.02
    spread = np.ptp(made.depth[inside]) / np.ptp(ball.depth[inside])
    assert spread == pytest.approx(1, abs=0.12)
    known = metric.metres(
        relative, inside, (x0, y0, x1, y1), (256, 192), ball.K,
        metric.Size(distance_m=float(np.median(ball.depth[inside]))), ball.normal,
    )  # fmt: skip
    assert "as given" in known.how
    assert np.abs(known.depth - ball.depth)[inside].mean() < 0.02


def test_a_checkpoint_says_itself_what_it_is(tmp_path):
    path = models.random(tmp_path, "normal")
    predictor = Predictor(path, "cpu")
    assert predictor.tasks == ("normal",)
    assert predictor.size == (48, 32)
    pictures = [photos.cloud(1, 64, 80), photos.cloud(2, 50, 40)]
    maps = predictor.predict(pictures, 1)["normal"]
    assert [m.shape for m in maps] == [(80, 64, 3), (40, 50, 3)]
    # A mirrored picture has the mirrored normals: the mean over both makes it exact.
    mirrored = predictor.predict([np.ascontiguousarray(pictures[0][:, ::-1])])["normal"][0]
    assert mirrored[:, ::-1] * [-1, 1, 1] == pytest.approx(maps[0], abs=2e-3)


@pytest.mark.parametrize("task", ["parts", "pose17", "pointmap", "albedo"])
def test_every_task_finds_its_way_back(task, tmp_path):
    model = Predictor(models.random(tmp_path / task, task, width=32, height=48), "cpu")
    weights = detector(tmp_path / "two.onnx", [(20, 30, 90, 200), (250, 100, 330, 260)], (300, 420))
    finds = PersonDetector(Detector(kind="onnx", weights=str(weights), layout="finished"), tmp_path)
    picture = scene()[0]
    made = predict.Eye([model], finds, predict.Wanted()).see([picture], [(np.diag([500.0, 500, 1]), "given")])[0]
    predict_write.write(tmp_path, made, predict_write.Looks(), {})
    found = np.load(tmp_path / "maps.npz")
    crop = crops.around((250, 100, 330, 260), (48, 32))
    alone = model.predict([crops.cut(picture, crop)])[task][0]
    shown = cv2.imread(str(tmp_path / "overlay.jpg"))
    if task == "pose17":
        assert found[task].shape == (2, 17, 3)
        assert found[task][1] == pytest.approx(alone + np.array([crop.x0, crop.y0, 0]), abs=1e-3)
        assert shown.shape == (300, 2 * 420, 3)
        return
    mine = found["person"] == 2
    y, x = (int(v) for v in np.argwhere(mine)[len(np.argwhere(mine)) // 2])
    assert found[task][y, x] == pytest.approx(np.squeeze(alone[y - crop.y0, x - crop.x0]), abs=1e-5)
    assert shown.shape == (300, (3 if task == "pointmap" else 2) * 420, 3)
    if task == "pointmap":
        assert found["depth"][mine] == pytest.approx(np.maximum(found["pointmap"][mine][:, 2], 0))
        assert trimesh.load(tmp_path / "people.ply", process=False).vertices.shape[1] == 3
        assert "point map" in json.loads((tmp_path / "result.json").read_text())["people"][0]["scale"]


def test_photographs_and_videos_are_told_apart(tmp_path):
    assert [i.name for i in inputs.find(film(tmp_path / "a.mp4"))] == ["a.mp4"]
    (tmp_path / ".hidden").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.jpg").touch()
    found = inputs.find(tmp_path)
    assert [(i.name, i.video) for i in found] == [("a.mp4", True), ("deep/b.jpg", False)]
