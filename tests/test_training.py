"""The trainer: formulas against hand-made cases, exact resume, and a bare machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from manifests import codecs
from manifests import job as jobs
from pipeline.report_train import looks_section, metrics_section
from tests import samples
from tests.conftest import ROOT
from training import data, mae, vit
from training.__main__ import main
from training.heads import DenseModel
from training.schedule import cosine, linear, parameter_groups
from training.settings import Optim, read


def run_folder(folder: Path, steps: int = 12) -> Path:
    """A run with made samples and a job of a few steps at 32x48."""
    samples.dataset(folder / "render", 12, splits=("train", "train", "test"))
    optim = {"steps": steps, "batch": 4, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 3}
    small = {"data": ["render"], "width": 32, "height": 48, "optim": optim}
    job = jobs.check(
        {
            "name": "t",
            "pretrain": small,
            "finetune": [{"name": t, "task": t, "head_width": 16, **small} for t in ("depth", "normal")],
            "evaluate": {"data": ["render"]},
        }
    )
    (folder / "job.yaml").write_text(jobs.dump(job))
    return folder


def finish(run: Path, *arguments: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "training", str(run), *arguments], cwd=ROOT, text=True, capture_output=True, timeout=240,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


def test_the_whole_trainer_runs_resumes_and_reports(tmp_path, caplog):
    run = run_folder(tmp_path / "a")
    finish(run)
    result = json.loads((run / "evaluate/metrics.json").read_text())
    assert set(result) == {"depth", "normal"}
    assert result["depth"]["samples"] == 4
    assert result["normal"]["trivial"].keys() == {"one direction", "mean normal map"}
    assert set(result["depth"]["model"]["per_image"]) == {"absrel", "rmse", "delta1", "delta2", "delta3"}
    assert pq.read_table(run / "evaluate/depth.parquet").num_rows == 4
    assert len(list((run / "evaluate/panels/normal").glob("*.png"))) == 4
    assert len(list((run / "evaluate/worst/normal").glob("*.png"))) == 4
    looks = looks_section(run)
    assert looks["reconstruction"]
    assert [name for name, _ in looks["attention"]] == ["depth", "normal"]
    depth, normal = metrics_section(run)
    assert len(normal["worst"]) == 4
    angles = pq.read_table(run / "evaluate/normal.parquet")["model/mean_deg"].to_pylist()
    worst = data.Rows([run / "render"], "test")[int(np.argmax(angles))][1]
    picture = codecs.decode_image(worst["image"]["bytes"])
    first = cv2.imread(str(run / "evaluate/worst/normal/00.png"))[..., ::-1]
    assert first.shape == (128, 4 * 96, 3)
    assert (first[:, :96] == picture).all()
    assert [r["name"] for r in normal["rows"]] == ["this model", "one direction", "mean normal map"]
    assert "least-squares scale and shift" in depth["alignment"]
    assert normal["alignment"] is None
    shown = normal["rows"][0]["cells"][0]
    assert shown["text"] == f"{result['normal']['model']['per_image']['mean_deg']:.1f}°"
    assert f"pooled {result['normal']['model']['pooled']['mean_deg']:.1f}°" in shown["note"]
    assert {g["trait"] for g in depth["breakdown"]} == {"framing", "occlusion", "truncation"}
    before = (run / "pretrain/model.safetensors").stat().st_mtime_ns
    finish(run, "--stage", "pretrain")
    assert (run / "pretrain/model.safetensors").stat().st_mtime_ns == before
    steps = [json.loads(line)["step"] for line in (run / "pretrain/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    rows = [json.loads(line) for line in (run / "finetune/depth/metrics.jsonl").read_text().splitlines()]
    assert all(0 < r["mfu"] <= 1 for r in rows)
    # Another setting is another training: it stops and names the field.
    tree = yaml.safe_load((run / "job.yaml").read_text())
    tree["pretrain"]["mask_ratio"] = 0.6
    (run / "job.yaml").write_text(yaml.safe_dump(tree))
    assert main([str(run), "--stage", "pretrain"]) == 2
    assert "mask_ratio" in caplog.text


def test_a_step_trains_on_a_bare_gpu_machine(tmp_path):
    run = run_folder(tmp_path, 2)
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"pydantic", "zstandard", "simplejpeg", "ray", "datasets", "transformers", "bpy", "rich"}}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
from training.__main__ import main
sys.exit(main([{str(run)!r}, "--stage", "pretrain"]) or main([{str(run)!r}, "--stage", "finetune:depth"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_mistakes_end_in_a_sentence(tmp_path, caplog):
    run = run_folder(tmp_path / "r")
    for folder, stage, told in (
        (tmp_path, "pretrain", "no job.yaml"),
        (run, "finetune:absent", "finetune:depth"),
        (run, "finetune:depth", "run pretrain first"),
    ):
        assert main([str(folder), "--stage", stage]) == 2
        assert told in caplog.text


def test_settings_match_the_job_models(tmp_path):
    sections = read(run_folder(tmp_path))
    assert sections["pretrain"].optim.steps == 12
    assert [f.name for f in sections["finetune"]] == ["depth", "normal"]


def test_mae_sees_a_quarter_and_scores_the_masked_patches_alone():
    torch.manual_seed(0)
    model = mae.MaskedAutoencoder(vit.SIZES["tiny"], 32, 1, 0.75)
    images = torch.randn(2, 3, 32, 48)
    order = torch.stack([torch.randperm(24), torch.randperm(24)])
    loss, prediction = model(images, order)
    assert prediction.shape == (2, 18, 192)
    patches = torch.stack([vit.patchify(images, 8)[i][order[i, 6:]] for i in range(2)])
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    assert loss.item() == pytest.approx(((prediction - target) ** 2).mean().item(), rel=1e-6)
    # What is masked must not reach the encoder: changing it changes the target, not the prediction.
    changed = vit.patchify(images, 8).clone()
    for i in range(2):
        changed[i, order[i, 6:]] += 1.0
    back = changed.view(2, 4, 6, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 32, 48)
    assert torch.allclose(model(back, order)[1], prediction)


def test_patchify_is_rows_first_and_positions_follow_the_grid():
    image = torch.arange(2 * 16 * 24).float().view(1, 2, 16, 24)
    patches = vit.patchify(image, 8)
    assert patches.shape == (1, 6, 128)
    assert torch.equal(patches[0, 4].view(2, 8, 8), image[0, :, 8:16, 8:16])
    positions = vit.sincos((2, 3), 16)
    assert torch.equal(positions[0, 0, :8], positions[0, 2, :8])
    assert torch.equal(positions[0, 0, 8:], positions[0, 3, 8:])
    assert len({tuple(p.tolist()) for p in positions[0]}) == 6


def test_schedules_and_layer_decay():
    optim = Optim(
        steps=100,
        batch=1,
        lr=1.0,
        warmup_steps=10,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        clip=1.0,
        ema=0.0,
        spike=10.0,
        checkpoint_every=10,
    )
    for shape in (cosine(optim), linear(optim)):
        assert shape(0) == pytest.approx(0.1)
        assert shape(9) == pytest.approx(1.0)
        assert shape(10) == pytest.approx(1.0)
        assert shape(99) < 0.02
    assert linear(optim)(55) == pytest.approx(0.5)
    model = DenseModel(vit.SIZES["tiny"], "depth", 16)
    groups = parameter_groups(model, 0.1, 0.85)
    scales = {round(g["scale"], 6) for g in groups}
    assert {round(0.85**k, 6) for k in range(8)} == scales
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert all(p.ndim == 1 for g in groups if g["weight_decay"] == 0 for p in g["params"])
