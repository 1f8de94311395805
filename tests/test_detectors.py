"""Detectors: boxes in original pixels for every head, one score that means the same, maps tied to their weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from curation import calibration
from curation.boxes import Prepared
from curation.detectors import PersonDetector
from curation.fusion import fused, nms
from curation.graphs import any_size
from curation.layouts import grid
from curation.scoring import iou, judge, wilson
from manifests.curation import Detector
from manifests.errors import InputError
from tests.conftest import ROOT
from tests.onnx import constant_model

# One person in a picture of 832 x 416: xyxy px.
WIDTH, HEIGHT, PERSON = 832, 416, np.array([200.0, 60.0, 440.0, 380.0])
SIDE = 416


def in_input(fit: str) -> np.ndarray:
    """PERSON in the pixels of a 416 x 416 input."""
    if fit == "stretch":
        return PERSON * [SIDE / WIDTH, 1, SIDE / WIDTH, 1]
    return PERSON / 2 + ([0, 104, 0, 104] if fit == "centre" else [0, 0, 0, 0])


def logit(p):
    return np.log(p / (1 - p))


def yolox() -> dict[str, np.ndarray]:
    x0, y0, x1, y1 = in_input("corner")
    cells, strides = grid((SIDE, SIDE), (8, 16, 32))
    out = np.zeros((1, len(cells), 85), np.float32)
    i = 3000
    centre, extent = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), np.array([x1 - x0, y1 - y0])
    out[0, i, :2], out[0, i, 2:4] = centre / strides[i] - cells[i], np.log(extent / strides[i])
    out[0, i, 4:6] = 0.9, 0.8
    return {"out": out}


def gfl(fit: str, strides: tuple[int, ...], sigmoid_bins: int = 8) -> dict[str, np.ndarray]:
    x0, y0, x1, y1 = in_input(fit)
    cells, of = grid((SIDE, SIDE), strides)
    scores = np.zeros((len(cells), 80), np.float32)
    spread = np.full((len(cells), 4, sigmoid_bins), -30, np.float32)
    middle = (cells + 0.5) * of
    away = np.stack([middle[:, 0] - x0, middle[:, 1] - y0, x1 - middle[:, 0], y1 - middle[:, 1]], axis=1) / of
    i = int(np.flatnonzero((away > 0).all(axis=1) & (away < sigmoid_bins - 1).all(axis=1))[0])
    scores[i, 0] = 0.72
    for k in range(4):
        low = int(away[i, k])
        share = away[i, k] - low
        spread[i, k, low], spread[i, k, low + 1] = np.log(max(1 - share, 1e-9)), np.log(max(share, 1e-9))
    counts = [len(grid((SIDE, SIDE), (s,))[0]) for s in strides]
    cuts = np.cumsum(counts)[:-1]
    outputs = {f"s{k}": part[None] for k, part in enumerate(np.split(scores, cuts))}
    return outputs | {f"d{k}": part.reshape(1, -1, 4 * sigmoid_bins) for k, part in enumerate(np.split(spread, cuts))}


def detr(softmax: bool) -> dict[str, np.ndarray]:
    x0, y0, x1, y1 = in_input("stretch") / SIDE
    logits = np.full((1, 10, 81), -12.0, np.float32)
    if softmax:
        logits[..., 80] = 0
        logits[0, 4, 0], logits[0, 4, 80] = np.log(0.72), np.log(0.28)
    else:
        logits[0, 4, 0] = logit(0.72)
    boxes = np.full((1, 10, 4), 0.5, np.float32)
    boxes[0, 4] = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    return {"pred_boxes": boxes, "logits": logits}


def finished() -> dict[str, np.ndarray]:
    boxes = np.zeros((1, 5, 4), np.float32)
    boxes[0, 2] = in_input("stretch")
    scores = np.full((1, 5), 0.9, np.float32)
    scores[0, 2] = 0.72
    labels = np.full((1, 5), 7, np.int64)
    labels[0, 2] = 0
    return {"labels": labels, "boxes": boxes, "scores": scores}


def fastest() -> dict[str, np.ndarray]:
    x0, y0, x1, y1 = in_input("stretch")
    out = np.zeros((1, 85, 26, 26), np.float32)
    cx, cy = (x0 + x1) / 2 / 16, (y0 + y1) / 2 / 16
    j, i = int(cy), int(cx)
    out[0, 1, j, i], out[0, 2, j, i] = np.arctanh(cx - i), np.arctanh(cy - j)
    out[0, 3:5] = -20
    out[0, 3, j, i], out[0, 4, j, i] = logit((x1 - x0) / SIDE), logit((y1 - y0) / SIDE)
    out[0, 0, j, i] = out[0, 5, j, i] = 0.72
    return {"out": out}


HEADS = {
    "yolox": yolox,
    "picodet": lambda: gfl("stretch", (8, 16, 32, 64)),
    "nanodet": lambda: gfl("centre", (8, 16, 32)),
    "fastestdet": fastest,
    "detr": lambda: detr(False),
    "detr_imagenet": lambda: detr(False),
    "detr_softmax": lambda: detr(True),
    "finished": finished,
}


@pytest.mark.parametrize("layout", sorted(HEADS))
def test_every_head_gives_the_box_in_original_pixels(tmp_path, layout):
    (tmp_path / "head.onnx").write_bytes(constant_model(HEADS[layout]()))
    detector = PersonDetector(Detector(kind="onnx", weights="head.onnx", layout=layout), tmp_path)
    boxes = detector.detect([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3)
    assert [len(b) for b in boxes] == [1, 1, 1]
    assert np.allclose(boxes[0][0].xyxy, PERSON, atol=0.6)
    assert boxes[0][0].raw == pytest.approx(0.72, abs=1e-3)
    assert boxes[0] == boxes[1] == boxes[2]


def test_nms_keeps_the_best_of_overlapping_boxes():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], float)
    assert nms(boxes, np.array([0.5, 0.9, 0.3])) == [1, 2]


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(tmp_path):
    (tmp_path / "head.onnx").write_bytes(constant_model(yolox()))
    detector = PersonDetector(Detector(kind="onnx", weights="head.onnx", batch=8), tmp_path)
    whole, sizes = detector._engine.infer, []

    def small(inputs):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(inputs)

    detector._engine.infer = small
    pictures = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 11
    assert [len(b) for b in detector.detect(pictures)] == [1] * 11
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[3:]) <= 4


def test_people_are_found_and_their_rates_are_as_promised(shared):
    """The bundled map was fitted on these photographs: what others judge is in the report of `maquette calibrate`."""
    detector = PersonDetector(Detector(kind="onnx", weights=str(shared / "weights/yolox_nano.onnx")), ROOT)
    assert detector.calibration is not None
    index = json.loads((shared / "photos/index.json").read_text())
    seen = people = wrong = right = boxes = 0
    for entry in index:
        rgb = np.asarray(Image.open(shared / "photos" / entry["image"]).convert("RGB"))
        found = detector.detect([rgb])[0]
        corners = np.array([b.xyxy for b in found]).reshape(-1, 4)
        assert (corners >= 0).all()
        assert (corners <= np.tile([rgb.shape[1], rgb.shape[0]], 2)).all()
        xywh = np.array(entry["person_boxes_xywh"], float).reshape(-1, 4)
        truth = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        judged = judge(corners, np.array([b.raw for b in found]), truth)
        sure = np.array([b.score > 0.9 for b in found], bool)
        right, boxes = right + int(judged.right[sure].sum()), boxes + int(sure.sum())
        people += entry["has_person"]
        seen += bool(sure.any()) and entry["has_person"]
        wrong += bool(sure.any()) and not entry["has_person"]
    assert seen >= 0.86 * people
    assert wrong == 0
    assert 0.85 <= right / boxes <= 0.95


def test_a_transformers_detector_loads_from_a_folder_and_runs_in_batches(tmp_path):
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[64, 96], patch_size=16,
        num_detection_tokens=5, id2label={0: "person", 1: "cat"}, label2id={"person": 0, "cat": 1},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path)
    detector = PersonDetector(Detector(kind="transformers", weights=str(tmp_path), batch=2), ROOT)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, s, dtype=np.uint8) for s in ((100, 140, 3), (140, 100, 3), (100, 140, 3))]
    together = detector.detect(pictures)
    assert len(detector.weights_sha256) == 64
    for picture, boxes in zip(pictures, together):
        assert all(0 <= b.xyxy[0] <= b.xyxy[2] <= picture.shape[1] for b in boxes)
        alone = detector.detect([picture])[0]
        assert np.allclose([b.xyxy for b in boxes], [b.xyxy for b in alone], atol=0.01)
    # Neither is asked for over the network.
    for name in (str(tmp_path / "absent"), f"./{tmp_path.name}", "a folder"):
        with pytest.raises(InputError, match="no such folder .* and no hub id"):
            PersonDetector(Detector(kind="transformers", weights=name), ROOT)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot load"):
        PersonDetector(Detector(kind="transformers", weights=str(tmp_path)), ROOT)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        PersonDetector(Detector(kind="onnx", weights="absent.onnx"), tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot load"):
        PersonDetector(Detector(kind="onnx", weights="bad.onnx"), tmp_path)
    (tmp_path / "head.onnx").write_bytes(constant_model(yolox()))
    with pytest.raises(InputError, match="expected one of"):
        PersonDetector(Detector(kind="onnx", weights="head.onnx", layout="yolo99"), tmp_path)
    (tmp_path / "head.onnx").write_bytes(constant_model(fastest()))
    for layout in sorted({*HEADS} - {"fastestdet"}):
        with pytest.raises(InputError, match="answers with 1x85x26x26"):
            PersonDetector(Detector(kind="onnx", weights="head.onnx", layout=layout), tmp_path)


def synthetic(pictures: int, seed: int) -> list:
    """Boxes whose chance to be right is their raw score squared, as the quadrature of nothing but this line says."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(pictures):
        raw = rng.uniform(0.05, 1, 6)
        truth = np.array([[100.0 * k, 0, 100 * k + 50, 50] for k in range(6)])
        right = rng.random(6) < raw**2
        corners = np.where(right[:, None], truth, truth + 1000)
        found.append(judge(corners, raw, truth))
    return found


def test_a_map_promises_the_precision_above_its_threshold():
    found = calibration.fit(synthetic(3000, 0), "w", "made")
    # Above raw t the share that is right is the mean of s^2 over t..1, (1 + t + t^2) / 3: 0.9 at t = 0.8964.
    assert found.raw_at(0.9)[0] == pytest.approx(0.8964, abs=0.02)
    unseen = synthetic(3000, 1)
    above = np.concatenate([j.right[found(j.raw) > 0.9] for j in unseen])
    assert above.mean() == pytest.approx(0.9, abs=0.02)
    assert np.all(np.diff(found.score) >= 0)
    low, high = np.interp(0.8964, found.raw, found.low), np.interp(0.8964, found.raw, found.high)
    assert low < 0.9 < high
    assert high - low < 0.06


def test_a_map_of_other_weights_is_refused(tmp_path):
    (tmp_path / "head.onnx").write_bytes(constant_model(yolox()))
    calibration.save(calibration.fit(synthetic(50, 0), "other weights", "made"), tmp_path / "map.json")
    with pytest.raises(InputError, match="made for weights"):
        PersonDetector(Detector(kind="onnx", weights="head.onnx", calibration="map.json"), tmp_path)
    plain = PersonDetector(Detector(kind="onnx", weights="head.onnx"), tmp_path)
    assert plain.calibration is None
    fitted = calibration.fit(synthetic(50, 0), plain.weights_sha256, "made")
    calibration.save(fitted, tmp_path / "head.onnx.calibration.json")
    detector = PersonDetector(Detector(kind="onnx", weights="head.onnx"), tmp_path)
    box = detector.detect([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])[0][0]
    assert box.score == pytest.approx(float(fitted(np.array([0.72]))[0]), abs=1e-3)
    assert box.score != box.raw
    with pytest.raises(InputError, match="at least"):
        calibration.fit(synthetic(3, 0), "w", "made")


def test_rates_and_overlaps_are_what_arithmetic_says():
    a, b = np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 10, 5.0], [20, 20, 30, 30]])
    assert np.allclose(iou(a, b), [[0.5, 0]])
    # Wilson's interval of 9 of 10, from the closed form in Brown, Cai and DasGupta (2001).
    assert np.allclose(wilson(9, 10), (0.9, 0.5958, 0.9821), atol=1e-4)
    judged = judge(np.array([[0, 0, 10, 10.0], [0, 0, 10, 9.0]]), np.array([0.5, 0.9]), a)
    assert judged.right.tolist() == [True, False]
    assert judged.raw.tolist() == [0.9, 0.5]


def test_a_box_of_two_looks_is_their_mean_and_a_lone_one_counts_half():
    one = (np.array([[0, 0, 10, 10], [100, 100, 120, 140.0]]), np.array([0.6, 0.5]))
    two = (np.array([[0, 0, 13, 10.0]]), np.array([0.3]))
    corners, score = fused([one, two])
    assert np.allclose(score, [0.45, 0.25])
    assert np.allclose(corners, [[0, 0, 11, 10], [100, 100, 120, 140]])


def test_a_file_whose_graph_holds_its_size_is_looked_at_once(tmp_path):
    (tmp_path / "head.onnx").write_bytes(constant_model(yolox()))
    detector = PersonDetector(Detector(kind="onnx", weights="head.onnx", looks=2), tmp_path)
    assert detector.looks == 1
    assert "looks" not in detector.name
    with pytest.raises(ValueError, match="not an ONNX"):
        any_size(b"\xff\xff")


def test_the_second_look_sees_the_same_people_where_they_are(shared):
    weights = str(shared / "weights/yolox_nano.onnx")
    both, plain = (PersonDetector(Detector(kind="onnx", weights=weights, looks=n), ROOT) for n in (2, 1))
    assert (both.looks, plain.looks) == (2, 1)
    entry = max(json.loads((shared / "photos/index.json").read_text()), key=_largest)
    rgb = np.asarray(Image.open(shared / "photos" / entry["image"]).convert("RGB"))
    x, y, w, h = max(entry["person_boxes_xywh"], key=lambda b: b[2] * b[3])
    truth = np.array([[x, y, x + w, y + h]])
    engine = both._engine
    for view in engine.prepare(rgb).views:
        seen = engine.infer([Prepared((view,), rgb.shape[:2])])[0]
        assert iou(seen[0][:1], truth)[0, 0] > 0.7
    for detector in (both, plain):
        assert iou(np.array([detector.detect([rgb])[0][0].xyxy]), truth)[0, 0] > 0.7
    with pytest.raises(InputError, match="looks"):
        PersonDetector(
            Detector(kind="onnx", weights=weights, looks=1, calibration="curation/maps/yolox_nano-2.json"), ROOT
        )


def _largest(entry: dict) -> float:
    return max((w * h / entry["width"] / entry["height"] for _, _, w, h in entry["person_boxes_xywh"]), default=0)
