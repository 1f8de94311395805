"""The trainer: formulas against hand-made cases, exact resume, and a bare machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from manifests import job as jobs
from tests import samples
from tests.conftest import ROOT
from training import losses, mae, metrics, transforms, vit
from training.heads import DenseModel
from training.loop import cosine, linear, parameter_groups
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


def train(run: Path, stage: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", str(run), "--stage", stage], cwd=ROOT, text=True, stderr=subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def finish(run: Path, stage: str) -> None:
    process = train(run, stage)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def test_the_whole_trainer_runs_resumes_and_reports(tmp_path):
    run = run_folder(tmp_path / "a")
    for stage in ("pretrain", "finetune:depth", "finetune:normal", "evaluate"):
        finish(run, stage)
    result = json.loads((run / "evaluate/metrics.json").read_text())
    assert set(result) == {"depth", "normal"}
    assert result["depth"]["samples"] == 4
    assert result["normal"]["trivial"].keys() == {"one direction", "mean normal map"}
    assert len(list((run / "evaluate/panels/normal").glob("*.png"))) == 4
    before = (run / "pretrain/model.safetensors").stat().st_mtime_ns
    finish(run, "pretrain")
    assert (run / "pretrain/model.safetensors").stat().st_mtime_ns == before
    steps = [json.loads(line)["step"] for line in (run / "pretrain/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    # Another setting is another training: it stops and names the field.
    tree = yaml.safe_load((run / "job.yaml").read_text())
    tree["pretrain"]["mask_ratio"] = 0.6
    (run / "job.yaml").write_text(yaml.safe_dump(tree))
    process = train(run, "pretrain")
    _, said = process.communicate()
    assert process.returncode == 2
    assert "mask_ratio" in said
    assert "Traceback" not in said


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    unbroken, killed = run_folder(tmp_path / "a", 20), run_folder(tmp_path / "b", 20)
    finish(unbroken, "pretrain")
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = train(killed, "pretrain")
        deadline = time.monotonic() + 60
        while not list((killed / "pretrain/checkpoints").glob("*.safetensors")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(killed, "pretrain")
    a, b = ((r / "pretrain/model.safetensors").read_bytes() for r in (unbroken, killed))
    assert a == b


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


def test_mistakes_end_in_a_sentence(tmp_path):
    process = train(tmp_path, "pretrain")
    _, said = process.communicate()
    assert process.returncode == 2
    assert "no job.yaml" in said
    run = run_folder(tmp_path / "r")
    process = train(run, "finetune:absent")
    _, said = process.communicate()
    assert process.returncode == 2
    assert "finetune:depth" in said
    process = train(run, "finetune:depth")
    _, said = process.communicate()
    assert process.returncode == 2
    assert "run pretrain first" in said
    assert "Traceback" not in said


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


def test_depth_loss_ignores_scale_and_shift_where_it_should():
    rng = torch.Generator().manual_seed(0)
    depth = 2 + torch.rand(2, 1, 16, 16, generator=rng)
    mask = torch.rand(2, 1, 16, 16, generator=rng) > 0.3
    target = losses.normalised_depth(depth, mask)
    assert losses.depth_loss(target, depth, mask).item() < 1e-5
    scale, shift = losses.align(3 * target - 5, target, mask)
    assert torch.allclose(scale, torch.tensor(1 / 3), atol=1e-4)
    assert torch.allclose(shift, torch.tensor(5 / 3), atol=1e-3)
    outside = torch.where(mask, target, 99.0)
    assert losses.depth_loss(outside, depth, mask).item() < 1e-5


def test_metrics_on_cases_with_known_answers():
    depth = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.depth_metrics(-2 * depth + 7, depth)["rmse"] < 1e-9
    flat = metrics.depth_metrics(np.zeros(4), depth)
    assert flat["rmse"] == pytest.approx(np.sqrt(1.25))
    assert flat["absrel"] == pytest.approx(np.mean([1.5 / 1, 0.5 / 2, 0.5 / 3, 1.5 / 4]))
    truth = np.array([[0, 0, -1.0]] * 4)
    turned = np.array([[np.sin(a), 0, -np.cos(a)] for a in np.radians([0, 20, 25, 60])])
    found = metrics.normal_metrics(turned, truth)
    assert found["mean_deg"] == pytest.approx(26.25)
    assert found["median_deg"] == pytest.approx(22.5)
    assert (found["within_11_25"], found["within_22_5"], found["within_30"]) == (0.25, 0.5, 0.75)


def test_flip_negates_the_x_of_normals_and_nothing_else():
    from manifests.shards import row_of

    row = row_of(samples.ball(3))

    class Flip:
        """A generator whose every draw is fixed: whole picture, flipped or not, colours as they are."""

        def __init__(self, flip: bool) -> None:
            self.flip = flip

        def uniform(self, low, high, size=None):
            value = 1.0 if (low, high) in ((0.6, 1.0), (0.7, 1.3)) else 0.0
            return value if size is None else np.full(size, value)

        def random(self):
            return 0.0 if self.flip else 1.0

        def integers(self, n):
            return 0

    plain, flipped = (transforms.dense_sample(row, Flip(f), (64, 48), "normal") for f in (False, True))
    expected = plain["target"][..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    assert np.array_equal(flipped["target"], expected)
    assert np.array_equal(flipped["mask"], plain["mask"][..., ::-1])
    assert np.allclose(flipped["image"], plain["image"][..., ::-1])


def test_schedules_and_layer_decay():
    optim = Optim(
        steps=100, batch=1, lr=1.0, warmup_steps=10, weight_decay=0.1, betas=(0.9, 0.95), clip=1.0, checkpoint_every=10
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


@pytest.mark.parametrize("task", ["depth", "normal"])
def test_a_task_overfits_a_few_samples(task):
    from manifests.shards import row_of

    rows = [row_of(samples.ball(i)) for i in range(4)]
    made = [transforms.dense_sample(r, None, (64, 48), task) for r in rows]
    batch = {k: torch.from_numpy(np.stack([m[k] for m in made])) for k in made[0]}
    torch.manual_seed(0)
    model = DenseModel(vit.SIZES["tiny"], task, 24)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(120):
        loss = losses.LOSSES[task](model(batch["image"]), batch["target"], batch["mask"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    constant = torch.zeros_like(batch["target"])
    if task == "normal":
        constant[:, 2] = -1
    trivial = losses.LOSSES[task](constant, batch["target"], batch["mask"])
    assert loss.item() < 0.45 * trivial.item()
