"""Killed, shared out or taken in parts: a training ends where an undisturbed one does."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from manifests.errors import JobError, MaquetteError
from tests import runs
from tests.conftest import ROOT
from tests.test_training import run_folder
from training import checkpoint, fit, loop, schedule
from training.budget import budget
from training.guard import PATIENCE, WARM, Average, Guard
from training.order import Order, Source
from training.settings import Compute, Optim
from training.team import Team

ALONE = Compute(
    workers=1, cpus=0, gpu="no", precision="float32", parallel="ddp", accumulate=1, checkpointing=False, compile=False,
    fit=False, failures=0,
)  # fmt: skip
OPTIM = Optim(
    steps=40, batch=8, lr=1e-2, warmup_steps=2, weight_decay=0.1, betas=(0.9, 0.95), clip=1.0, ema=0.9, spike=10.0,
    checkpoint_every=7,
)  # fmt: skip
ME = Team(0, 1, torch.device("cpu"))


def change(run: Path, stage: str, **values: object) -> Path:
    """Set ``part__field`` of the pretrain section or the first finetune of a run."""
    tree = yaml.safe_load((run / "job.yaml").read_text())
    section = tree["pretrain"] if stage == "pretrain" else tree["finetune"][0]
    for key, value in values.items():
        part, field = key.split("__")
        section[part][field] = value
    (run / "job.yaml").write_text(yaml.safe_dump(tree))
    return run


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(run: Path, stage: str, world: int = 1) -> list[subprocess.Popen[str]]:
    """The workers of one training, as torchrun starts them."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "training", str(run), "--stage", stage], cwd=ROOT, text=True, stderr=subprocess.PIPE,
            env={
                "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            },
        )
        for rank in range(world)
    ]  # fmt: skip


def end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        _, said = worker.communicate(timeout=500)
        assert worker.returncode == 0, said


def folder_of(run: Path, stage: str) -> Path:
    return run / stage.replace(":", "/")


def losses(run: Path, stage: str) -> np.ndarray:
    rows = (folder_of(run, stage) / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(r)["loss"] for r in rows])


def weights(run: Path, stage: str) -> bytes:
    return (folder_of(run, stage) / "model.safetensors").read_bytes()


def kill_at_random(run: Path, stage: str, kills: int, seed: int, world: int = 1) -> None:
    """Start, kill one worker at a seeded moment after something was done, and again; then let it end."""
    rng = np.random.default_rng(seed)
    checkpoints = folder_of(run, stage) / "checkpoints"
    for _ in range(kills):
        before = checkpoint.newest(checkpoints)
        workers = start(run, stage, world)
        deadline = time.monotonic() + 240
        while checkpoint.newest(checkpoints) == before and workers[0].poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        workers[-1].send_signal(signal.SIGKILL)
        for worker in workers:
            if worker is not workers[-1]:
                # The other finds its partner gone; a launcher ends it, too.
                worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=240)
    end(start(run, stage, world))


def settings(run: Path) -> Path:
    return change(run, "pretrain", optim__ema=0.9, optim__steps=30)


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    unbroken, killed = (settings(run_folder(tmp_path / n)) for n in "ab")
    end(start(unbroken, "pretrain"))
    kill_at_random(killed, "pretrain", 2, seed=0)
    assert weights(unbroken, "pretrain") == weights(killed, "pretrain")


@pytest.mark.soak
def test_thirty_kills_change_no_bit(tmp_path):
    unbroken = settings(run_folder(tmp_path / "a"))
    end(start(unbroken, "pretrain"))
    for round_ in range(6):
        killed = settings(run_folder(tmp_path / f"b{round_}"))
        kill_at_random(killed, "pretrain", 5, seed=1 + round_)
        assert weights(unbroken, "pretrain") == weights(killed, "pretrain")


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.soak)])
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(tmp_path, parallel):
    alone, two = (run_folder(tmp_path / n, 20) for n in "ab")
    for run in (alone, two):
        change(run, "finetune", optim__ema=0.9, compute__parallel=parallel)
        tree = yaml.safe_load((run / "job.yaml").read_text())
        tree["finetune"][0]["init"] = "random"
        (run / "job.yaml").write_text(yaml.safe_dump(tree))
    end(start(alone, "finetune:depth"))
    end(start(two, "finetune:depth", 2))
    # Sums in another order: 20 steps of AdamW carry 1e-7 to a few 1e-5.
    assert losses(two, "finetune:depth") == pytest.approx(losses(alone, "finetune:depth"), rel=1e-3)
    a, b = (load_file(folder_of(r, "finetune:depth") / "model.safetensors") for r in (alone, two))
    assert a.keys() == b.keys()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 2e-3


@pytest.mark.soak
@pytest.mark.engine
def test_ray_restarts_two_workers_when_one_is_killed_and_nothing_is_lost(tmp_path):
    """The same weights as two workers without Ray, undisturbed."""
    plain = run_folder(tmp_path / "plain", 40)
    end(start(plain, "pretrain", 2))
    source = run_folder(tmp_path / "source", 40)
    tree = yaml.safe_load((source / "job.yaml").read_text())
    tree |= {"name": "two", "runs": str(tmp_path / "runs"), "finetune": [], "evaluate": None}
    tree["pretrain"] |= {"data": [str(source / "render")]}
    tree["pretrain"]["compute"] |= {"workers": 2, "cpus": 1}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(tree))
    process = runs.start("train", tmp_path / "two.yaml")
    checkpoints = tmp_path / "runs/two/pretrain/checkpoints"
    deadline = time.monotonic() + 240
    while checkpoint.newest(checkpoints) is None and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [
        p for p in psutil.Process(process.pid).children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())
    ]
    assert len(workers) == 2
    workers[1].send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    a, b = (load_file(r / "pretrain/model.safetensors") for r in (plain, tmp_path / "runs/two"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not (tmp_path / "runs/two/.ray_train").exists()


class Line(torch.nn.Module):
    """y = W x, in the shape of an encoder for parameter_groups."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder.blocks[0](x)


def training(folder: Path, poison: dict[int, float], optim: Optim = OPTIM, compute: Compute = ALONE) -> loop.Training:
    """A line to be fitted; at the steps of ``poison`` the data are multiplied by its values."""
    torch.manual_seed(0)
    order = Order([Source("rows", 64)], 0)
    truth = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)

    def batches(steps, me):
        for step in steps:
            rows = order(order.batch(step, optim.batch))[1]
            x = np.stack([np.random.default_rng(int(r)).normal(size=4) for r in rows]).astype(np.float32)
            yield {"x": x * np.float32(poison.get(step, 1.0)), "y": x @ truth}, 0.0

    return loop.Training(
        folder=folder, title="line", model=Line(), groups=lambda m: schedule.parameter_groups(m, 0.1), optim=optim,
        compute=compute, schedule=schedule.linear(optim), order=order, batches=batches, view=loop.as_they_are,
        loss_of=lambda m, b: ((m(b["x"]) - b["y"]) ** 2).mean(), flops=96, digest={"sha256": "x", "fields": {}},
    )  # fmt: skip


def test_bad_steps_leave_weights_and_moments_alone_and_are_told(tmp_path, caplog):
    fine = load_file(loop.run(training(tmp_path / "a", {}), ME))
    poisoned = load_file(loop.run(training(tmp_path / "b", {20: np.nan, 21: 1e4, 30: np.inf}), ME))
    assert all(torch.isfinite(v).all() for v in poisoned.values())
    assert any(not torch.equal(fine[k], poisoned[k]) for k in fine)
    assert "3 steps" in caplog.text or caplog.text.count("did not touch") >= 2
    # Exactly those three were left out: the moments have seen 32 of 35 steps.
    last = checkpoint.newest(tmp_path / "b/checkpoints")
    _, tensors = checkpoint.read(last)
    assert {float(v) for k, v in tensors.items() if k.endswith(".step")} == {32.0}
    assert {
        float(v) for k, v in checkpoint.read(tmp_path / f"a/checkpoints/{last.name}")[1].items() if k.endswith(".step")
    } == {35.0}


def test_a_hopeless_run_stops_and_keeps_the_last_good_state(tmp_path):
    optim = dataclasses.replace(OPTIM, steps=80, checkpoint_every=1000)
    with pytest.raises(MaquetteError, match="no usable step among the last 2.*lower optim.lr"):
        loop.run(training(tmp_path, dict.fromkeys(range(33, 80), np.nan), optim), ME)
    kept = checkpoint.newest(tmp_path / "checkpoints")
    good = load_file(kept)
    assert all(torch.isfinite(v).all() for k, v in good.items() if not k.startswith("guard"))
    assert {float(v) for k, v in good.items() if k.endswith(".step")} == {33.0}
    assert int(good["guard.counts"][1]) >= PATIENCE
    # With good data from there on it goes on by itself.
    loop.run(training(tmp_path, {}, optim), ME)


def test_a_level_that_stays_becomes_the_usual_one():
    guard = Guard(10.0, torch.device("cpu"))
    judged = [float(guard.judge(torch.tensor(v), torch.tensor(1.0))) for v in [1.0] * WARM + [50.0] * 80]
    assert judged[WARM] == 1
    assert judged[-1] == 0
    assert Guard(0.0, torch.device("cpu")).judge(torch.tensor(1e30), torch.tensor(1.0)) == 0


def test_parts_of_a_batch_and_checkpointing_change_only_rounding(tmp_path):
    whole = load_file(loop.run(training(tmp_path / "a", {}), ME))
    parts = load_file(loop.run(training(tmp_path / "b", {}, compute=dataclasses.replace(ALONE, accumulate=4)), ME))
    assert all(torch.allclose(whole[k], parts[k], atol=1e-5) for k in whole)
    with pytest.raises(JobError, match="multiple of 3"):
        loop.run(training(tmp_path / "c", {}, compute=dataclasses.replace(ALONE, accumulate=3)), ME)


def test_the_averaged_weights_are_the_result_and_the_formula(tmp_path):
    model = torch.nn.Linear(2, 1, bias=False)
    average = Average(model, 0.5)
    expected = model.weight.detach().clone()
    for step in range(6):
        with torch.no_grad():
            model.weight += step
        bad = torch.tensor(float(step == 3))
        average.update(model, step, bad)
        if step != 3:
            expected = expected + (1 - min(0.5, (1 + step) / (10 + step))) * (model.weight.detach() - expected)
    assert torch.allclose(average.weights["weight"], expected)
    final = load_file(loop.run(training(tmp_path, {}), ME))
    last = load_file(checkpoint.newest(tmp_path / "checkpoints"))
    assert not torch.equal(last["average.encoder.blocks.0.weight"], last["model.encoder.blocks.0.weight"])
    assert set(final) == {"model.encoder.blocks.0.weight", "model.encoder.blocks.0.bias"}


def test_a_torn_checkpoint_is_named_and_a_whole_one_is_never_replaced_by_half(tmp_path):
    loop.run(training(tmp_path, {}, dataclasses.replace(OPTIM, steps=15)), ME)
    (tmp_path / "model.safetensors").unlink()
    path = checkpoint.newest(tmp_path / "checkpoints")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MaquetteError, match=r"not readable.*delete it"):
        loop.run(training(tmp_path, {}, dataclasses.replace(OPTIM, steps=15)), ME)
    path.unlink()
    loop.run(training(tmp_path, {}, dataclasses.replace(OPTIM, steps=15)), ME)
    assert not list(tmp_path.rglob("*.tmp"))


def test_fit_takes_the_fewest_parts_that_fit_and_says_when_nothing_does():
    def estimate(batch, checkpointing):
        return budget("large", 256, 192, batch, "depth", checkpointing)

    wanted = dataclasses.replace(ALONE, fit=True)

    def choice(gb):
        found = fit.fitted(wanted, 16, estimate, ME, int(gb * 1e9))
        need = estimate(16 // found.accumulate, found.checkpointing).total_bytes
        assert need <= fit.SHARE * gb * 1e9
        return found.accumulate, found.checkpointing

    everything = estimate(16, False).total_bytes / 1e9 / fit.SHARE
    assert choice(everything * 1.01) == (1, False)
    assert choice(everything * 0.99) == (2, False)
    least = estimate(1, True).total_bytes / 1e9 / fit.SHARE
    assert choice(least * 1.001)[1]
    with pytest.raises(JobError, match="one picture at a time needs"):
        choice(least * 0.9)
    assert fit.fitted(ALONE, 16, estimate, ME, 0) == ALONE
    # A 2B fine-tune at 1024 x 768 on one 80 GB GPU: it fits, by the formula.
    big = fit.fitted(wanted, 8, lambda b, c: budget("2b", 1024, 768, b, "depth", c), ME, int(80e9))
    assert big.accumulate <= 8


def test_metrics_say_loss_rate_speed_utilisation_memory_and_waiting(tmp_path):
    loop.run(training(tmp_path, {}), ME)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [9, 19, 29, 39]
    for row in rows:
        assert row.keys() == {
            "step", "loss", "lr", "images_per_s", "mfu", "memory_mb", "data_wait_ms", "data_wait_share", "time",
        }  # fmt: skip
        assert 0 <= row["mfu"] < 1
        assert row["memory_mb"] > 50
    assert rows[0]["loss"] > rows[-1]["loss"]
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert os.path.getsize(tmp_path / "model.safetensors") < 1000
