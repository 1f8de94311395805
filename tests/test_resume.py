"""A run killed at any moment goes on with the same command, to the same bytes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from manifests import commit
from manifests.verify import verify
from tests import runs

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[dict[str, str], float]:
    """Shards of a run that nobody disturbed, by ONE worker, and how long it took."""
    folder = tmp_path_factory.mktemp("unbroken")
    began = time.monotonic()
    code, said = runs.maquette("render", runs.job(folder, workers=1))
    assert code == 0, said
    return runs.shards(folder / "runs/run/render"), time.monotonic() - began


def kill(process, what: str) -> None:
    """SIGKILL one worker, the driver, or everything the run started."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [c for c in children if "RenderWorker" in " ".join(c.cmdline())]
    except psutil.NoSuchProcess:
        return
    targets = {"worker": workers[:1], "driver": [process], "group": [process, *children]}[what]
    for target in targets:
        try:
            target.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue


def disturb(folder: Path, kills: int, seed: int, duration: float) -> str:
    """Run a job, killing it ``kills`` times at seeded random moments, then let it end; returns what was killed."""
    rng = np.random.default_rng(seed)
    job = runs.job(folder)
    log = []
    process = runs.start("render", job)
    for _ in range(kills):
        what = str(rng.choice(["worker", "driver", "group"]))
        time.sleep(rng.uniform(0.2, 0.8) * duration)
        kill(process, what)
        log.append(what)
        if what == "worker" and process.poll() is None:
            continue
        process.communicate(timeout=300)
        process = runs.start("render", job)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{log}\n{said}"
    return " ".join(log)


def check(folder: Path, unbroken: dict[str, str]) -> None:
    dataset = folder / "runs/run/render"
    assert runs.shards(dataset) == unbroken
    outcomes = [o for r in commit.receipts(dataset).values() for o in r.outcomes]
    assert sorted(o.index for o in outcomes) == list(range(12))
    assert {o.status for o in outcomes} == {"done"}
    assert verify(dataset) == []


def test_killed_run_resumes_to_identical_shards(tmp_path, unbroken):
    shards, duration = unbroken
    # Of this seed a group, a worker and a driver.
    disturb(tmp_path, 3, seed=8, duration=duration)
    check(tmp_path, shards)


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(10))
def test_fifty_kills_lose_nothing(tmp_path, unbroken, round_):
    shards, duration = unbroken
    disturb(tmp_path, 5, seed=100 + round_, duration=duration)
    check(tmp_path, shards)


def test_more_samples_append_and_leave_finished_shards_alone(tmp_path, cluster):
    code, said = runs.maquette("render", runs.job(tmp_path, samples=3), "--address", cluster)
    assert code == 0, said
    before = runs.shards(tmp_path / "runs/run/render")
    code, said = runs.maquette("render", runs.job(tmp_path, samples=5), "--address", cluster)
    assert code == 0, said
    after = runs.shards(tmp_path / "runs/run/render")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    code, said = runs.here("render", runs.job(tmp_path, samples=5, engine={"samples": 2, "denoiser": "none"}))
    assert code == 2
    assert "engine.samples was 1, is 2" in said
