"""Curation: one decision for every input, the right reason, the same answer in any order, through real Ray."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from curation import dedup, stage
from curation.detectors import Box, load, nms
from curation.measure import Measurer, hashes
from curation.sources import Photo, count, listed
from manifests import commit
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.job import CurateStage, Detector, PhotoSource
from manifests.verify import verify
from tests import runs
from tests.conftest import ROOT


def settings(**changes) -> CurateStage:
    return CurateStage(**({"sources": [PhotoSource(path="bundled")]} | changes))


def measured(uri: str, boxes=(), weak=False, **changes) -> dict:
    base = {
        "uri": uri, "path": uri, "licence": "x", "consent": "x", "redistributable": False, "detector": "d",
        "detector_sha256": "0", "weak": weak, "sha256": uri, "bytes": 1000, "format": "JPEG", "width": 1000, "height": 1000,
        "orientation": 1, "phash": None, "phash_mirrored": None, "error": None, "error_detail": None, "ms": 1.0,
        "boxes": [{"xyxy": list(map(float, xyxy)), "raw_score": raw, "score": raw} for xyxy, raw in boxes],
    }  # fmt: skip
    return base | changes


def decision(row: dict, job: CurateStage | None = None) -> dict:
    return stage.decide([row], job or settings())[0]


def test_score_and_size_must_hold_for_the_same_box():
    assert decision(measured("a", [((0, 0, 400, 400), 0.95)]))["kept"]
    split = decision(measured("a", [((0, 0, 400, 400), 0.5), ((0, 0, 50, 50), 0.95)]))
    assert split["first_fail"] == "small_box"
    assert decision(measured("a", [((0, 0, 400, 400), 0.5)]))["first_fail"] == "low_score"
    assert decision(measured("a"))["first_fail"] == "no_person"


def test_thresholds_are_strict():
    assert decision(measured("a", [((0, 0, 300, 400), 0.95)]))["first_fail"] == "small_box"
    assert decision(measured("a", [((0, 0, 301, 400), 0.9)]))["first_fail"] == "low_score"
    assert decision(measured("a", [((0, 0, 301, 400), 0.901)]))["kept"]


def test_side_rules_read_the_paper_four_ways():
    box = [0.0, 0.0, 200.0, 500.0]
    assert [stage.side(box, r) for r in stage.READINGS] == [200.0, 500.0, 500.0, pytest.approx(316.2, abs=0.1)]
    row = measured("a", [(box, 0.95)])
    kept = {r: decision(row, settings(side_rule=r))["kept"] for r in stage.READINGS}
    assert kept == {"both": False, "height": True, "max_side": True, "sqrt_area": True}
    assert stage.readings([decision(row)], settings()) == {"both": 0, "height": 1, "max_side": 1, "sqrt_area": 1}


def test_a_weak_detector_never_passes_by_score_and_only_when_accepted():
    row = measured("a", [((0, 0, 400, 400), None)], weak=True)
    refused, accepted = decision(row), decision(row, settings(accept_weak=True))
    assert refused["first_fail"] == "low_score"
    assert accepted["kept"]
    assert all("0.9" not in c["threshold"] for c in accepted["checks"])
    assert sum(stage.readings([accepted], settings(accept_weak=True)).values()) == 0


def test_duplicates_choose_the_same_winner_in_any_order():
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 6)
    base = cv2.normalize(base, None, 0, 255, cv2.NORM_MINMAX)
    other = cv2.normalize(
        cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8), (0, 0), 6), None, 0, 255, 32
    )
    rows = []
    for name, picture, pixels in (
        ("large", base, 1000), ("small", cv2.resize(base, (128, 128)), 500), ("mirror", base[:, ::-1], 400), ("other", other, 900),
    ):  # fmt: skip
        plain, mirrored = hashes(np.ascontiguousarray(picture))
        rows.append(
            measured(
                name, [((0, 0, 400, 400), 0.95)], phash=plain, phash_mirrored=mirrored, width=pixels, height=pixels
            )
        )
    rows.append(rows[0] | {"uri": "z-copy"})
    expected = {
        "large": (True, None),
        "small": (False, "large"),
        "mirror": (False, "large"),
        "other": (True, None),
        "z-copy": (False, "large"),
    }
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        found = {d["uri"]: (d["kept"], d["dup_of"]) for d in stage.decide(rows, settings())}
        assert found == expected
    exact = next(d for d in stage.decide(rows, settings()) if d["uri"] == "z-copy")
    assert exact["first_fail"] == "dup_exact"


def test_the_funnel_adds_up_and_every_input_has_a_row():
    rows = [
        measured("a", [((0, 0, 400, 400), 0.95)]), measured("b"), measured("c", error="corrupt", error_detail="bad"),
        measured("d", width=100, height=90), measured("e", [((0, 0, 40, 40), 0.95)]),
    ]  # fmt: skip
    decisions = stage.decide(rows, settings())
    steps = stage.funnel(decisions)
    assert [d["first_fail"] for d in decisions] == [None, "no_person", "corrupt", "too_small", "small_box"]
    assert steps[0][1] == 5
    assert steps[-1][2] == 1
    assert all(a[2] == b[1] for a, b in itertools.pairwise(steps))


def test_nms_keeps_the_best_of_overlapping_boxes():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], float)
    assert nms(boxes, np.array([0.5, 0.9, 0.3])) == [1, 2]


def test_yolox_finds_the_people_that_others_marked(shared):
    import json

    detector = load(Detector(kind="onnx", weights=str(shared / "weights/yolox_nano.onnx")), ROOT)
    index = json.loads((shared / "photos/index.json").read_text())
    right = wrong = people = 0
    for entry in index[:24]:
        rgb = np.asarray(Image.open(shared / "photos" / entry["image"]).convert("RGB"))
        boxes: list[Box] = detector(rgb)
        assert all(
            0 <= b.xyxy[0] <= b.xyxy[2] <= rgb.shape[1] and 0 <= b.xyxy[1] <= b.xyxy[3] <= rgb.shape[0] for b in boxes
        )
        seen = any(b.raw > 0.5 for b in boxes)
        people += entry["has_person"]
        right += seen and entry["has_person"]
        wrong += seen and not entry["has_person"]
    assert right >= 0.85 * people
    assert wrong == 0


def test_a_transformers_detector_loads_from_a_folder(tmp_path):
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[64, 96], patch_size=16,
        num_detection_tokens=5, id2label={0: "person", 1: "cat"}, label2id={"person": 0, "cat": 1},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path)
    detector = load(Detector(kind="transformers", weights=str(tmp_path)), ROOT)
    boxes = detector(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
    assert len(detector.weights_sha256) == 64
    assert all(0 <= b.xyxy[0] <= b.xyxy[2] <= 140 for b in boxes)
    with pytest.raises(InputError, match="cannot load"):
        load(Detector(kind="transformers", weights=str(tmp_path / "absent")), ROOT)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(Detector(kind="onnx", weights="absent.onnx"), tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot load"):
        load(Detector(kind="onnx", weights="bad.onnx"), tmp_path)


def test_the_bundled_corpus_is_real_photographs_and_three_made_files(tmp_path):
    photos = listed(settings(), ROOT, tmp_path)
    assert len(photos) >= 8
    assert {p.uri.rsplit("/", 1)[-1] for p in photos} >= {
        "copy_of_grace_hopper.jpg",
        "truncated.jpg",
        "not_an_image.jpg",
    }
    n, size = count(settings(), ROOT)
    assert n == len(photos)
    assert size == sum(Path(p.path).stat().st_size for p in photos)


def test_a_file_that_cannot_be_read_becomes_a_row():
    row = Measurer(settings(), ROOT).measure(Photo("gone", "/nonexistent/x.jpg", "x", "x", False))
    assert row["error"] == "io_error"
    assert decision(row)["first_fail"] == "io_error"


def test_dedup_groups_are_transitive():
    bits = np.zeros((3, 256), np.uint8)
    bits[1, :20] = 1
    bits[2, :40] = 1
    rows = [
        measured(n, phash=np.packbits(b).tobytes(), phash_mirrored=np.packbits(b[::-1]).tobytes(), width=w, height=w)
        for n, b, w in zip("abc", bits, (10, 30, 20))
    ]
    assert dedup.near(rows, 24) == {0: (1, 20), 2: (1, 20)}


@pytest.mark.engine
def test_a_folder_with_broken_files_runs_through_ray_and_resumes_to_the_same_bytes(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    made = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(made).save(out, "JPEG")
    (photos / "noise.jpg").write_bytes(out.getvalue())
    (photos / "cut.jpg").write_bytes(out.getvalue()[:5000])
    (photos / "page.jpg").write_bytes(b"<html>")
    (photos / "empty.png").touch()
    job = tmp_path / "job.yaml"
    stage_ = {
        "sources": [{"path": "photos"}, {"path": "bundled"}],
        "accept_weak": True,
        "min_box_px": 100,
        "min_side_px": 200,
    }
    job.write_text(yaml.safe_dump({"name": "c", "runs": str(tmp_path / "runs"), "curate": stage_}))
    code, said = runs.maquette("curate", job)
    assert code == 0, said
    assert "Traceback" not in said
    folder = tmp_path / "runs/c/curate"
    decisions = pq.read_table(folder / "decisions/decisions.parquet").to_pylist()
    reason = {d["uri"]: d["first_fail"] for d in decisions}
    assert reason["photos/cut.jpg"] == "corrupt"
    assert reason["photos/page.jpg"] == "format"
    assert reason["photos/empty.png"] == "empty"
    assert reason["photos/noise.jpg"] == "no_person"
    assert reason["bundled/probes/truncated.jpg"] == "corrupt"
    assert "dup_exact" in (
        reason["bundled/probes/copy_of_grace_hopper.jpg"],
        reason["bundled/matplotlib/grace_hopper.jpg"],
    )
    assert len(reason) == len(decisions)
    kept = [d for d in decisions if d["kept"]]
    ds = Dataset(folder)
    assert len(kept) == len(ds) >= 1
    assert verify(folder) == []
    before = runs.shards(folder)
    measured_at = {p: p.stat().st_mtime_ns for p in (folder / "measurements").iterdir()}
    (folder / "decisions/decisions.parquet").unlink()
    for path in (folder / "receipts").iterdir():
        path.unlink()
    code, said = runs.maquette("curate", job)
    assert code == 0, said
    assert runs.shards(folder) == before
    assert {p: p.stat().st_mtime_ns for p in (folder / "measurements").iterdir()} == measured_at
    assert pq.read_table(folder / "decisions/decisions.parquet").to_pylist() == decisions
    assert commit.newest_manifest(folder)["kind"] == "curated"
