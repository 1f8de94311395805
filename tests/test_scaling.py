"""Scaling studies: the law against made errors, the sweep in real Ray, killed and gone on with."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from manifests.errors import JobError
from manifests.job import check
from manifests.job_training import Power
from pipeline import report, scaling, sweep
from tests import runs, samples
from training import data

SIZES, MODELS, SEEDS = [4, 8, 16], ["sapiens2-tiny", "tiny"], [0, 1, 2]


def made(sizes, scale: float, exponent: float, floor: float = 0.0, noise: float = 0.0, parameters: int = 10**6):
    """Points of three seeds on a known law; persons differ by factors whose mean is one."""
    rng = np.random.default_rng(0)
    factors = 1 + 0.2 * np.linspace(-1, 1, 9)
    points = []
    for n in sizes:
        for seed in range(3):
            error = (floor + scale * n**-exponent) * np.exp(noise * rng.standard_normal())
            people = {str(i): (2 * error * f, 2) for i, f in enumerate(factors)}
            points.append(scaling.Point("a", "tiny", n, seed, parameters, people))
    return points


def test_a_power_law_is_found_where_there_is_one():
    law = scaling.law(made([100, 1000, 10_000], 3.0, 0.4), 200, "t")
    assert law.exponent == pytest.approx(0.4, abs=1e-9)
    assert law.scale == pytest.approx(3.0, rel=1e-9)
    assert law.explained == pytest.approx(1)
    assert law.floor == 0
    assert law.intervals["floor"] is None
    # Everybody's error falls alike: whom one resamples changes the scale and not the exponent.
    low, high = law.intervals["exponent"]
    assert high - low < 1e-6
    low, high = law.intervals["scale"]
    assert low < 2.95
    assert high > 3.05
    assert law.at(np.array([500])) == pytest.approx(3 * 500**-0.4)


def test_noise_between_seeds_widens_the_interval_around_the_truth():
    law = scaling.law(made([100, 1000, 10_000], 3.0, 0.4, noise=0.1), 500, "t")
    low, high = law.intervals["exponent"]
    assert low < 0.4 < high
    assert 0.01 < high - low < 0.2
    assert all(a <= b for _, a, b in law.band)


def test_a_floor_is_fitted_from_four_sizes_on():
    law = scaling.law(made([10, 100, 1000, 10_000, 100_000], 3.0, 0.5, floor=0.05), 0, "t")
    assert law.floor == pytest.approx(0.05, rel=0.05)
    assert law.exponent == pytest.approx(0.5, rel=0.05)
    assert scaling.law(made([100], 3.0, 0.4), 10, "t") is None


def test_size_of_data_and_of_model_are_told_apart():
    points = made([100, 1000], 3.0, 0.4, parameters=10**6) + made([100, 1000], 3.0 * 2**-0.2, 0.4, parameters=2 * 10**6)
    found = scaling.joint(points)
    assert found["exponent"] == pytest.approx(0.4)
    assert found["by_parameters"] == pytest.approx(0.2)
    assert scaling.joint(points[:6]) is None


def test_cost_is_arithmetic():
    usage = [
        {"phase": "train", "cpu_s": 3600.0, "gpu_s": 0.0, "wall_s": 1800.0},
        {"phase": "train", "cpu_s": 3600.0, "gpu_s": 360.0, "wall_s": 1800.0},
        {"phase": "judge", "cpu_s": 1800.0, "gpu_s": 0.0, "wall_s": 1800.0},
    ]
    found = scaling.cost(usage, 4000, Power(cpu_core_w=10, gpu_w=500, overhead=1.5))
    assert found["cpu_h"] == pytest.approx(2.5)
    assert found["gpu_h"] == pytest.approx(0.1)
    assert found["energy_wh"] == pytest.approx((2.5 * 10 + 0.1 * 500) * 1.5)
    assert found["energy_wh_per_thousand"] == pytest.approx((2.0 * 10 + 0.1 * 500) * 1.5 / 4)
    assert found["cpu_s_per_thousand"] == pytest.approx(1800)


def test_a_larger_draw_of_rows_holds_the_smaller(tmp_path):
    samples.dataset(tmp_path / "a", 8)
    draws = {}
    for count in (2, 5, 8):
        rows = data.Rows([tmp_path / "a"], "train", None, (count, 1))
        draws[count] = {rows[i][1]["sample_id"] for i in range(len(rows))}
        assert len(draws[count]) == count
    assert draws[2] < draws[5] < draws[8]
    others = [data.Rows([tmp_path / "a"], "train", None, (2, seed)) for seed in range(6)]
    assert len({tuple(sorted(r[i][1]["sample_id"] for i in range(2))) for r in others}) > 1


def study(folder: Path, steps: int = 6) -> Path:
    """A job of 3 data sizes x 2 model sizes x 3 seeds on balls."""
    samples.dataset(folder / "runs/study/render", 24, per_task=8, splits=("train", "train", "test"))
    optim = {"steps": steps, "batch": 4, "warmup_steps": 1, "checkpoint_every": 2}
    base = {"name": "normals", "task": "normal", "init": "random", "width": 32, "height": 32, "head_width": 16}
    base |= {"optim": optim, "compute": {"gpu": "no"}}
    tree = {
        "name": "study", "runs": str(folder / "runs"), "finetune": [base], "evaluate": {"bootstrap": 20}, "report": {},
        "sweep": {"base": "normals", "samples": SIZES, "models": MODELS, "seeds": SEEDS, "bootstrap": 100},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.soak
@pytest.mark.engine
def test_a_killed_study_goes_on_and_draws_its_law(tmp_path):
    job = study(tmp_path)
    folder = tmp_path / "runs/study/sweep"
    process = runs.start("sweep", job)
    deadline = time.monotonic() + 300
    while len(list(folder.glob("*/result.json"))) < 4:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for child in children:
        if child.is_running():
            child.kill()
    first = {p: p.stat().st_mtime_ns for p in folder.glob("*/result.json")}
    assert len(first) < 18
    code, said = runs.maquette("sweep", job)
    assert code == 0, said
    assert f"18 trainings, {len(first)} done before" in said
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())
    content = json.loads((folder / "sweep.json").read_text())
    assert len(content["points"]) == content["planned"] == 18
    assert {(p["samples"], p["model"], p["seed"]) for p in content["points"]} == {
        (n, m, s) for n in SIZES for m in MODELS for s in SEEDS
    }
    assert [law["model"] for law in content["laws"]] == MODELS
    assert all(law["intervals"]["exponent"] for law in content["laws"])
    assert content["joint"]["data"]["exponent"]
    for point in content["points"]:
        assert point["cpu_h"] > 0
        assert point["energy_wh"] == pytest.approx(point["cpu_h"] * 8 * 1.2)
    page = report.build(tmp_path / "runs/study").read_text()
    assert "Scaling" in page
    assert "W a core" in page
    # All is there: nothing is trained again.
    code, said = runs.maquette("sweep", job)
    assert code == 0
    assert "18 done before" in said


def test_a_study_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(JobError, match="no fine-tune"):
        check({"name": "x", "sweep": {"base": "absent", "samples": [1]}})
    tree = yaml.safe_load(study(tmp_path).read_text())
    with pytest.raises(JobError, match="twice"):
        check(tree | {"sweep": {"base": "normals", "samples": [4, 4]}})
    with pytest.raises(JobError, match="render it first"):
        sweep.planned(check(tree | {"sweep": tree["sweep"] | {"sources": {"other": ["absent"]}}}), tmp_path)
    with pytest.raises(JobError, match="evaluate"):
        sweep.planned(check({k: v for k, v in tree.items() if k != "evaluate"}), tmp_path)
