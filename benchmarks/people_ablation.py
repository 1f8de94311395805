"""What people to render for training: grey mannequins, plain people, or full ones? The same model, as many pictures and steps
of each, judged on characters that someone else made.

    python benchmarks/people_ablation.py [--out runs/ablation] [--frames 80] [--steps 240] [--seeds 3]

Arms: "mannequin" (grey, close clothes without folds, no hair, no textures), "simple" (skin of one colour, caps of hair,
clothes with folds and fabrics, nothing carried) and "full". Every seed has people, scenes and first weights of its own; arms
of one seed share bodies, clothes and cameras, and light where nobody's hands are full. The test pictures show the three
characters of the shared assets, with exact depth and normals. What is rendered or trained already in `--out` is kept: the
same command goes on. What full people lose is printed first; the last line is the geometric mean over tasks and both rivals
of their error over that of full people.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from manifests.dataset import Dataset  # noqa: E402
from manifests.job import check  # noqa: E402
from manifests.seeds import generator  # noqa: E402
from pipeline.road import prepare  # noqa: E402
from training.judges import KINDS  # noqa: E402

RESULTS = ROOT / "benchmarks/results.jsonl"
ARMS = ("mannequin", "simple", "full")
TASKS = ("depth", "normal")
FIRST_SEED = 31
DRAWS = 2000
# Characters that are told apart by their folders; test data, CC-BY-SA-4.0.
CHARACTERS = ("cristine", "maya", "jay")
SIZE = {"width": 48, "height": 64}
RENDERED = {"width": 96, "height": 128, "samples_per_task": 10, "engine": {"samples": 8, "denoiser": "fast"},
            # One silhouette pixel may be 0.1 % of a figure this small.
            "verify_limits": {"opaque_share": 0.96}}  # fmt: skip


def people(arm: str, frames: int, seed: int) -> dict[str, Any]:
    """A render stage of one arm: every second picture a new person, all for training."""
    source = {"source": "anny", "count": max(2, frames // 2), "detail": arm, "keypoints": "coco17"}
    return {
        "samples": frames,
        "people_seed": seed,
        "seed": seed,
        "assets": [source],
        "splits": {"train": 1, "val": 0, "test": 0},
        **RENDERED,
    }


def characters(assets: Path, frames: int) -> dict[str, Any]:
    """The render stage of the test pictures."""
    files = [str(assets / name / f"{name}.gltf") for name in CHARACTERS]
    source = {"source": "files", "paths": files, "licence": "CC-BY-SA-4.0"}
    return {"samples": frames, "assets": [source], "splits": {"train": 0, "val": 0, "test": 1}, **RENDERED, "seed": 77}


def rendered(folder: Path, name: str, stage: dict[str, Any]) -> Path:
    """The dataset folder of one stage; what is there is not rendered again."""
    job = folder / f"{name}.yaml"
    job.write_text(yaml.safe_dump({"name": name, "runs": str(folder), "render": stage}))
    # Exit code 1: some samples were rejected; main() prints how many pictures each arm has.
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", "render", str(job)], cwd=ROOT, check=False)
    if done.returncode not in (0, 1) or not (folder / name / "render/manifest").is_dir():
        raise SystemExit(f"{name}: rendering ended with code {done.returncode}")
    return folder / name / "render"


def trained(arm: Path, test: Path, folder: Path, seed: int, steps: int) -> Path:
    """One arm of one seed, both tasks; the folder with a row for each test picture."""
    found = folder / f"{arm.parent.name}-{steps}"
    if all((found / "evaluate" / f"{task}.parquet").is_file() for task in TASKS):
        return found / "evaluate"
    optim = {"steps": steps, "batch": 8, "lr": 2e-3, "warmup_steps": max(1, steps // 10), "weight_decay": 0.1,
             "checkpoint_every": steps}  # fmt: skip
    finetunes = [
        {
            "name": task,
            "task": task,
            "init": "random",
            "data": [str(arm)],
            "seed": seed,
            "head_width": 32,
            "optim": optim,
            **SIZE,
        }
        for task in TASKS
    ]
    # Trivial predictors learn from what the arm learns from.
    judged = {"data": [str(test), str(arm)], "split": "test"}
    run = prepare(check({"name": found.name, "runs": str(folder), "finetune": finetunes, "evaluate": judged}), ROOT)
    subprocess.run([sys.executable, "-m", "training", str(run)], cwd=ROOT, check=True)
    return found / "evaluate"


def compared(found: dict[str, list[Path]], task: str) -> dict[str, Any]:
    """All arms of ``task``: their errors, each seed's beside, and what full people's are more than the others'."""
    column = f"model/{KINDS[task].headline}"
    errors: dict[str, np.ndarray] = {}
    ids: list[str] = []
    for arm, folders in found.items():
        tables = [pq.read_table(f / f"{task}.parquet") for f in folders]
        ids = tables[0]["sample_id"].to_pylist()
        assert all(t["sample_id"].to_pylist() == ids for t in tables), "all arms are judged on the same pictures"
        errors[arm] = np.array([t[column].to_numpy() for t in tables])
    rivals = {}
    for arm in ARMS[:-1]:
        change = errors["full"] - errors[arm]
        rivals[arm] = {"difference": float(change.mean()), "interval": interval(change, task, arm)}
    return {
        "task": task, "measure": KINDS[task].headline, "pictures": len(ids),
        "error": {arm: float(v.mean()) for arm, v in errors.items()},
        "error_interval": {arm: interval(v, task, arm, "own") for arm, v in errors.items()},
        "seeds": {arm: [float(x) for x in v.mean(axis=1)] for arm, v in errors.items()},
        "full_against": rivals,
    }  # fmt: skip


def interval(errors: np.ndarray, *key: str) -> list[float]:
    """95 % interval of the mean of ``errors`` (S, P), by seed and picture, resampling both: who was drawn matters as much as
    how they are made. Three characters are too few to resample.
    """
    rng = generator("bootstrap", *key)
    seeds, pictures = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in errors.shape)
    return [float(v) for v in np.percentile(np.einsum("rs,sp,rp->r", seeds, errors, pictures), (2.5, 97.5))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs/ablation", help="renders and models are kept here")
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared/assets/people", help="the test characters")
    parser.add_argument("--frames", type=int, default=80, help="training pictures of each arm")
    parser.add_argument("--test-frames", type=int, default=60)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if not given.assets.is_dir():
        raise SystemExit(f"no characters at {given.assets}; give --assets")
    os.environ["PYTHONPATH"] = str(ROOT)
    folder = given.out.resolve() / f"{given.frames}-{given.test_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    test = rendered(folder, "characters", characters(given.assets.resolve(), given.test_frames))
    found: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    counts: dict[str, list[int]] = {arm: [] for arm in ARMS}
    for seed in range(given.seeds):
        for arm in ARMS:
            data = rendered(folder, f"{arm}-{seed}", people(arm, given.frames, FIRST_SEED + seed))
            counts[arm].append(len(Dataset(data)))
            found[arm].append(trained(data, test, folder, seed, given.steps))
    print("training pictures:", ", ".join(f"{arm} {n}" for arm, n in counts.items()))
    results = [compared(found, task) for task in TASKS]
    # A loss is said first.
    lines = []
    for one in results:
        for arm, against in one["full_against"].items():
            low, high = against["interval"]
            verdict = "LOSES to" if low > 0 else "beats" if high < 0 else "is not surely apart from"
            lines.append(
                (
                    -against["difference"] / one["error"][arm],
                    f"{one['task']:<7}{one['measure']:<9} full {one['error']['full']:.4f} {verdict} {arm} "
                    f"{one['error'][arm]:.4f}: {against['difference']:+.4f} [{low:+.4f}, {high:+.4f}]",
                )
            )
    print("\n".join(line for _, line in sorted(lines)))
    pairs = [np.log(one["error"][arm] / one["error"]["full"]) for one in results for arm in ARMS[:-1]]
    ratio = float(np.exp(np.mean(pairs)))
    row = {
        "benchmark": "people_ablation", "ratio": round(ratio, 3), "frames": given.frames, "steps": given.steps,
        "seeds": given.seeds, "pictures": counts, "tasks": results, "seconds": round(time.monotonic() - started), "cpu": platform.machine(),
        "cores": os.cpu_count(), "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    if given.frames >= 60:
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
