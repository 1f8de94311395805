"""`maquette export-model`: what others open gives the same numbers, and says whose data it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file

from manifests import job as jobs
from tests import models, runs, samples
from training import checkpoint
from training.mae import MaskedAutoencoder
from training.portable import difference
from training.predictor import Predictor
from training.pretrain import pretrain
from training.settings import read
from training.tasks import OBJECTIVES
from training.vit import SIZES


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with a pre-training of two steps, and a made evaluation of its fine-tune."""
    folder = tmp_path_factory.mktemp("run")
    samples.dataset(folder / "render", 8)
    models.random(folder, "normal")
    small = {"data": ["render"], "optim": {"steps": 2, "batch": 4, "warmup_steps": 1}, "compute": {"gpu": "no"}}
    tree = yaml.safe_load((folder / "job.yaml").read_text())
    tree["pretrain"] = small | {"width": 48, "height": 48}
    (folder / "job.yaml").write_text(jobs.dump(jobs.check(tree)))
    torch.set_num_threads(1)
    pretrain(folder, read(folder)["pretrain"])
    (folder / "evaluate").mkdir()
    measured = {"per_image": {"mean_deg": 21.53}, "pooled": {"mean_deg": 20.0}, "interval": {"mean_deg": [20.1, 23.4]}}
    other = {"per_image": {"mean_deg": 40.25}, "pooled": {}, "interval": {"mean_deg": None}}
    group = {"trait": "sex", "group": "female", "pictures": 4, "identities": 4, "mean": 20.5, "interval": [19.0, 22.0]}
    entry = {
        "task": "normal", "headline": "mean_deg", "alignment": "none", "model": measured, "split": "test",
        "trivial": {"one direction": other}, "best_trivial": "one direction", "samples": 8, "identities": 8,
        "breakdown": [group],
    }  # fmt: skip
    (folder / "evaluate/metrics.json").write_text(json.dumps({"normal": entry}))
    return folder


def test_a_model_leaves_with_its_numbers_and_its_datas_rights(run, tmp_path):
    out = tmp_path / "normals"
    code, said = runs.here("export-model", run / "finetune/normal", "--out", out, "--licence", "Apache-2.0")
    assert code == 0, said
    assert "equals torch within" in said
    assert {p.name for p in out.iterdir()} == {
        "model.onnx", "model.safetensors", "config.json", "preprocessor_config.json", "README.md", "rights.json",
        "job.yaml",
    }  # fmt: skip
    front, _, text = (out / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    head = yaml.safe_load(front)
    assert head["license"] == "apache-2.0"
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"], metric["args"]) == ("mean_deg", 21.53, {"interval_95": [20.1, 23.4]})
    assert "| mean angle | 21.5° | 20.1° to 23.4° | 20.0° | 40.2° |" in text
    assert "| sex | female | 4 | 20.5° | 19.0° to 22.0° |" in text
    assert "| test | CC0-1.0 | none | yes | 8 | 8 |" in text
    assert "Every row may be redistributed" in text
    assert json.loads((out / "rights.json").read_text())[0]["licence"] == "CC0-1.0"
    plain = load_file(out / "model.safetensors")
    whole = checkpoint.read(run / "finetune/normal/model.safetensors")[1]
    assert {f"model.{k}" for k in plain} == whole.keys()
    # By itself the file does what the checkpoint does, and normalises pictures on its own.
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 48, 32, 3), np.uint8)
    found = session.run(None, {"image": pictures.transpose(0, 3, 1, 2).astype(np.float32)})[0]
    model = Predictor(run / "finetune/normal/model.safetensors", "cpu")
    mirrored = session.run(None, {"image": pictures[:, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)})[0]
    both = (found + mirrored[..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]) / 2
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    assert np.abs(np.stack(model.predict(list(pictures))["normal"]) - both.transpose(0, 2, 3, 1)).max() < 1e-4


# Every task's head in `make test` once; other losses read the same head's output otherwise, and other heads are other layers.
LIGHT = [
    (t, next(iter(losses)), "light")
    for t, losses in OBJECTIVES.items()
    if t in ("depth", "foreground", "parts", "pose17")
]
ALL = [(t, l, "light") for t, losses in OBJECTIVES.items() for l in losses]
ALL += [("normal", "cosine", h) for h in ("deconv", "sapiens2", "dpt")]
ALL += [("pose17", "udp", h) for h in ("vitpose", "vitpose_simple", "sapiens2")]
SOAK = [pytest.param(*c, marks=pytest.mark.soak) for c in ALL if c not in LIGHT]


@pytest.mark.parametrize(("task", "loss", "head"), [*LIGHT, ("pointmap", "sapiens2", "sapiens2"), *SOAK])
def test_every_head_is_the_same_in_onnx(task, loss, head, tmp_path):
    from training.portable import Whole, write_onnx
    from training.tasks import objective

    path = models.random(tmp_path, task, loss=loss, head=head)
    model = Predictor(path, "cpu")
    reading = objective(task, loss).read
    worst = write_onnx(tmp_path / "m.onnx", model.model, reading, model.size, task)
    assert worst == difference(tmp_path / "m.onnx", Whole(model.model, reading), model.size) < 1e-4
    torch.manual_seed(1)
    other = Predictor(models.random(tmp_path / "o", task, seed=5, loss=loss, head=head), "cpu")
    assert difference(tmp_path / "m.onnx", Whole(other.model, reading), model.size) > 1e-3


def test_transformers_opens_a_pretraining(run, tmp_path):
    from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

    out = tmp_path / "mae"
    code, said = runs.here("export-model", run / "pretrain", "--out", out)
    assert code == 0, said
    mine = MaskedAutoencoder(SIZES["tiny"], 96, 2, 0.75)
    checkpoint.load_weights(run / "pretrain/model.safetensors", mine)
    theirs, info = AutoModel.from_pretrained(out, mask_ratio=0.0, output_loading_info=True)
    assert not info["missing_keys"]
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = mine.encoder(images)[-1]
        found = theirs.eval()(images, noise=torch.arange(36.0).expand(2, -1)).last_hidden_state
    assert (found - wanted).abs().max() < 1e-4
    whole = AutoModelForPreTraining.from_pretrained(out).eval()
    noise = torch.rand(2, 36, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert whole(images, noise=noise).loss.item() == pytest.approx(
            mine(images, noise.argsort(1))[0].item(), rel=1e-4
        )
    processor = AutoImageProcessor.from_pretrained(out)
    assert processor.image_mean == pytest.approx([0.485, 0.456, 0.406])
    assert "## Data and its rights" in (out / "README.md").read_text()


@pytest.mark.parametrize("task", ["normal", "parts", "albedo"])
def test_transformers_opens_sapiens2(task, tmp_path):
    import transformers

    path = models.random(tmp_path / "run", task, model="sapiens2-tiny", head="sapiens2", head_width=16)
    samples.dataset(tmp_path / "run/render", 4)
    code, said = runs.here("export-model", path, "--out", tmp_path / "hub", "--format", "huggingface")
    assert code == 0, said
    ours = Predictor(path, "cpu").model
    # transformers works with periods that are not rounded to bfloat16, as published files have them.
    ours.encoder.rope.periods = 100.0 ** (torch.arange(len(ours.encoder.rope.periods)) / len(ours.encoder.rope.periods))
    images = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    part = tmp_path / "hub" / ("" if task == "albedo" else "encoder")
    encoder, info = transformers.AutoModel.from_pretrained(part, output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        wanted = ours.encoder(images)[-1]
        found = encoder.eval()(images).last_hidden_state
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    config = json.loads((tmp_path / "hub/config.json").read_text())
    if task == "albedo":
        assert config["architectures"] == ["Sapiens2Model"]
        return
    whole = getattr(transformers, config["architectures"][0]).from_pretrained(tmp_path / "hub").eval()
    with torch.no_grad():
        said = whole(images)
        # Theirs leaves making normals unit to its post-processing.
        mine = ours.head(ours.features(images)[0], images)
    theirs = said.normals if task == "normal" else said.logits
    assert (theirs - mine).abs().max() < 1e-4 * mine.abs().max()


def test_a_model_without_its_run_is_not_passed_on(run, tmp_path):
    alone = tmp_path / "elsewhere/model.safetensors"
    alone.parent.mkdir()
    alone.write_bytes((run / "finetune/normal/model.safetensors").read_bytes())
    code, said = runs.here("export-model", alone, "--out", tmp_path / "out")
    assert code == 2
    assert "nobody knows the rights of its data" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
