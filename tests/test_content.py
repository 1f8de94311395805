"""What pictures show: overlaid text, drawings, a site's marks, heads on vectors, head pose; and that scores alone decide."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from curation import faces, heads, watermark
from curation.decide import decide
from curation.measure import Fetched, Measurer
from curation.overlay import TextOverlay
from curation.rules import absent
from curation.stage import NEEDS
from curation.style import Drawn
from manifests.curation import PRESETS, FaceModel, Head, Policy
from manifests.errors import InputError
from tests import overlays, photos
from tests.onnx import constant_model
from tests.photos import encoded, measured, settings
from tests.test_curation import NONE, decision

GOOD = [((0, 0, 400, 400), 0.95)]


@pytest.fixture(scope="module")
def pictures(shared):
    return [cv2.imread(str(p))[..., ::-1].copy() for p in sorted((shared / "photos/img").glob("*.jpg"))]


def test_banners_are_found_and_photographs_let_through(pictures, shared):
    some = pictures[::4]
    for model in (TextOverlay(), TextOverlay(shared / "weights/ch_PP-OCRv3_det_infer.onnx")):
        clean = [model(p) > 0.5 for p in some]
        laid = [model(overlays.banner(p, 9000 + i)) > 0.5 for i, p in enumerate(some)]
        assert sum(clean) <= 2, model.name
        assert sum(laid) >= 13, model.name


def test_drawings_are_found_and_photographs_let_through(pictures):
    model, some = Drawn(), [p for i, p in enumerate(pictures) if i != 31][::3]
    assert sum(model(p) > 0.5 for p in some) <= 1
    for kind, least in (
        (overlays.pencil, 0.9),
        (overlays.strokes, 0.9),
        (overlays.posterised, 0.5),
        (overlays.shapes, 0.5),
    ):
        found = np.mean([model(kind(p, 9000 + i)) > 0.5 for i, p in enumerate(some)])
        assert found >= least, kind.__name__


@pytest.mark.parametrize(
    ("clean", "layouts", "alphas"),
    [
        pytest.param(1, ("corner",), (0.1,), id="one"),
        pytest.param(
            40,
            ("tiled", "centred", "corner"),
            (0.1, 0.2, 0.35),
            id="all",
            marks=[pytest.mark.soak, pytest.mark.timeout(7200)],
        ),
    ],
)
def test_a_sites_mark_is_found_at_any_size_and_no_clean_site_accused(pictures, clean, layouts, alphas):
    def score(site):
        rng = np.random.default_rng(1)
        return watermark.stamped([watermark.prepare(overlays.jpeg(p, rng, 80)) for p in site]).score

    limit = Policy().max_watermark_source
    worst = max(score(overlays.site(pictures, seed, seed % 2 == 0)) for seed in range(clean))
    assert worst < limit
    site = overlays.site(pictures, 100)
    for layout in layouts:
        for alpha in alphas:
            for relative in (False, True) if clean > 1 else (False,):
                found = score([overlays.mark(p, layout, alpha, relative) for p in site])
                assert found > limit, (layout, alpha, relative)


def test_too_few_pictures_of_a_site_are_not_judged(pictures):
    assert watermark.stamped([watermark.prepare(p) for p in pictures[:5]]).score == 0


def test_a_tiled_mark_repeats_and_noise_does_not():
    noise = np.random.default_rng(0).integers(100, 140, (480, 640, 3), dtype=np.uint8)
    limit = Policy().max_tiled
    assert watermark.tiled(noise) < limit
    assert watermark.tiled(overlays.mark(noise, "tiled", 0.35)) > limit


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (35, 0, 0), (-60, 10, 0), (20, -25, 15)])
def test_pose_of_a_projected_head_comes_back(yaw, pitch, roll):
    a, b, c = np.radians([yaw, pitch, roll])
    turn_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    turn_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    seen = 300 + 1.7 * (turn_z @ turn_y @ turn_x @ faces.POINTS.T).T[:, :2]
    found = faces.pose(seen)
    look = turn_z @ turn_y @ turn_x @ [0, 0, -1]
    assert found[0] == pytest.approx(np.degrees(np.arctan2(look[0], -look[2])), abs=0.1)
    assert found[1] == pytest.approx(np.degrees(np.arcsin(-look[1])), abs=0.1)
    if not (yaw or pitch):
        assert found[2] == pytest.approx(roll, abs=0.1)


def test_a_face_is_decoded_as_opencv_does(tmp_path):
    out = {}
    for stride in (8, 16, 32):
        n = (320 // stride) ** 2
        out |= {f"cls_{stride}": np.zeros((1, n, 1)), f"obj_{stride}": np.zeros((1, n, 1))}
        out |= {f"bbox_{stride}": np.zeros((1, n, 4)), f"kps_{stride}": np.zeros((1, n, 10))}
    cell = 5 * 20 + 7
    out["cls_16"][0, cell], out["obj_16"][0, cell] = 0.9, 0.8
    out["bbox_16"][0, cell] = [0.25, -0.5, 1.2, 1.5]
    out["kps_16"][0, cell] = np.linspace(-1, 1, 10)
    path = tmp_path / "faces.onnx"
    path.write_bytes(constant_model({k: v.astype(np.float32) for k, v in out.items()}, 320))
    face = faces.Faces(FaceModel(weights="faces.onnx"), tmp_path).largest(np.zeros((320, 320, 3), np.uint8))
    assert face is not None
    assert face.score == pytest.approx(0.72**0.5)
    # opencv/modules/objdetect/src/face_detect.cpp: (cell + offset) x stride, exp of the size.
    centre, extent = np.array([(7 + 0.25) * 16, (5 - 0.5) * 16]), np.exp([1.2, 1.5]) * 16
    np.testing.assert_allclose(face.xyxy, [*(centre - extent / 2), *(centre + extent / 2)], atol=1e-3)
    np.testing.assert_allclose(face.points[0], [(7 - 1) * 16, (5 - 1 + 2 / 9) * 16], atol=1e-3)


def test_a_chain_of_layers_is_their_product_and_other_embeddings_are_refused(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    layers = {
        "layers.0.weight": rng.normal(size=(5, 8)),
        "layers.10.weight": rng.normal(size=(1, 5)),
        "layers.10.bias": [2.0],
    }
    save_file({k: np.asarray(v, np.float32) for k, v in layers.items()}, tmp_path / "aesthetic.safetensors")
    head = heads.LinearHead(Head(weights="aesthetic.safetensors"), tmp_path, "any")
    x = rng.normal(size=(3, 8))
    expected = x @ layers["layers.0.weight"].T @ layers["layers.10.weight"].T + 2
    np.testing.assert_allclose(head(x), expected[:, 0], rtol=1e-5)
    with pytest.raises(InputError, match="8 numbers"):
        head(x[:, :4])
    (tmp_path / "own.json").write_text(json.dumps({"weight": [[1.0]], "bias": [0.0], "embedding_sha256": "other"}))
    with pytest.raises(InputError, match="maquette head"):
        heads.LinearHead(Head(weights="own.json"), tmp_path, "this")


def test_a_fitted_head_tells_its_labels_apart_whatever_the_order():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 0.4, (30, 6)) for m in (-1, 1)])
    labels = ["photo"] * 30 + ["painting"] * 30
    found, rates = heads.fit(x, labels)
    assert all(right >= 28 for _, right, _ in rates)
    order = rng.permutation(60)
    again, _ = heads.fit(x[order], [labels[i] for i in order])
    assert found == again
    with pytest.raises(InputError, match="at least 8"):
        heads.fit(x[:32], labels[:32])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models with random weights: SigLIP2's, CLIP's and DINOv2's classes, a classifier, and our own encoder."""
    import torch
    import transformers as tf

    from training import checkpoint
    from training.mae import MaskedAutoencoder
    from training.vit import SIZES

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision, text = size | {"image_size": 32, "patch_size": 8}, size | {"vocab_size": 60, "max_position_embeddings": 8}
    clip = tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    siglip = tf.SiglipConfig(text_config=text, vision_config=vision)
    classes = tf.ViTConfig(**vision, id2label={0: "normal", 1: "nsfw"}, label2id={"normal": 0, "nsfw": 1})
    made = {
        "clip": tf.CLIPModel(clip),
        "siglip": tf.SiglipModel(siglip),
        "dino": tf.Dinov2Model(tf.Dinov2Config(**(size | {"image_size": 32, "patch_size": 8}))),
        "nsfw": tf.ViTForImageClassification(classes),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        square = {"height": 32, "width": 32}
        tf.ViTImageProcessor(size=square).save_pretrained(folder / name)
    encoder = MaskedAutoencoder(SIZES["tiny"], 32, 1, 0.75)
    fields = {"model": "tiny", "width": 32, "height": 48, "mask_ratio": 0.75}
    weights = {f"model.{k}": v.contiguous() for k, v in encoder.state_dict().items()}
    checkpoint.write(folder / "model.safetensors", weights, {"step": 1, "digest": {"fields": fields, "sha256": "0"}})
    return folder


@pytest.mark.parametrize(
    ("embedding", "width"),
    [
        ({"weights": "siglip"}, 16),
        ({"weights": "clip"}, 12),
        ({"weights": "dino"}, 16),
        ({"weights": "model.safetensors", "kind": "encoder"}, 192),
    ],
)
def test_every_kind_of_embedding_feeds_heads_and_decisions(models, embedding, width):
    from curation.embedding import unpacked
    from pipeline.embedders import embedder

    (models / "half.json").write_text(json.dumps({"weight": np.ones((1, width)).tolist(), "bias": [0.25]}))
    given = {
        "aesthetic": {"weights": "half.json"},
        "nsfw": {"weights": "nsfw", "kind": "classifier", "labels": ["nsfw"]},
    }
    stage = settings(embedding=embedding, heads=given, min_side_px=100)
    model = embedder(stage.embedding, models)
    inputs = [Fetched({"uri": f"{i}.jpg"}, encoded(photos.cloud(i)), {}, None, 0.0) for i in range(3)]
    rows = Measurer(stage, models, model).measure(inputs)
    table = photos.table(rows)
    vectors, which = unpacked(table["embedding"])
    assert vectors.shape == (3, width)
    assert which.tolist() == [0, 1, 2]
    alone = Measurer(stage, models, model).measure(inputs[1:2])[0]
    np.testing.assert_allclose(np.frombuffer(alone["embedding"], np.float16), vectors[1], atol=2e-3)
    for row, vector in zip(rows, vectors):
        assert row["aesthetic"] == pytest.approx(vector.sum() + 0.25, abs=1e-2)
        assert 0 < row["nsfw"] < 1
        assert model.weights_sha256 in row["models"]
    skipped = absent(decide(table, Policy(), NONE))
    assert "nsfw" not in skipped
    assert skipped["realism"] == "heads.realism"


def test_without_models_their_rules_are_skipped_and_said_to_be():
    table = decide(photos.table([measured("a", GOOD)]), Policy(preset="sapiens2"), NONE)
    assert table["kept"].to_pylist() == [True]
    assert absent(table) == NEEDS
    checks = table["checks"][0].as_py()
    assert {checks[rule]["status"] for rule in NEEDS} == {"skipped"}


@pytest.mark.parametrize(
    ("column", "value", "policy", "code"),
    [
        ("text", 0.6, {}, "text_overlay"),
        ("text", 0.6, {"max_text": 0.7}, None),
        ("text", 0.6, {"max_text": None}, None),
        ("drawn", 0.9, {}, "drawn"),
        ("tiled", 31.0, {}, "watermark_tiled"),
        ("watermark", 0.6, {}, "watermark"),
        ("artistic", 0.6, {}, "artistic"),
        ("nsfw", 0.6, {}, "nsfw"),
        ("aesthetic", 3.0, {"preset": "sapiens2"}, "low_aesthetic"),
        ("realism", 0.3, {"preset": "sapiens2"}, "unrealistic"),
        ("yaw", -120.0, {"preset": "sapiens2"}, "head_yaw"),
        ("pitch", 70.0, {"preset": "sapiens2"}, "head_pitch"),
    ],
)
def test_scores_alone_decide(column, value, policy, code):
    assert decision(measured("a", GOOD, **{column: value}), Policy(**policy))["first_fail"] == code


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_complete_policy_with_a_source_for_each_threshold(name):
    rules = PRESETS[name]
    own = {"preset", "raw", "accept_weak", "min_head_score", "licences", "tombstones"}
    assert set(rules) == set(Policy.model_fields) - own
    policy = Policy(preset=name)
    for field, rule in rules.items():
        assert getattr(policy, field) == rule.value
        assert len(rule.source) > 10
