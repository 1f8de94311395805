"""Every task against guesses that never look at the picture, on held-out identities, with 95 % intervals over identities.

The pictures are this repository's own renders (`--data`, else rendered first: 1,400 of 350 people at 96x128 with albedo). A tiny
model with a narrow head is trained for each task, for as many steps of 8 pictures as TASKS says: from random weights on pictures
of 48x64, or at 96x128 from BODY, one tiny model of foreground, depth and normals that is trained first on the same pictures
(`--body` gives it). What does not beat the best guess is printed first. The last line is the geometric mean over tasks of the
guess's error over the model's.
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
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from manifests.job import check  # noqa: E402
from pipeline.road import prepare  # noqa: E402

RESULTS = ROOT / "benchmarks/results.jsonl"
BATCH, SEED = 8, 0
SMALL, LARGE = {"width": 48, "height": 64, "head_width": 32}, {"width": 96, "height": 128, "head_width": 48}


class Trained(NamedTuple):
    """How a task is learnt. ``body``: from BODY; distance and pose need to see the whole figure first: from random weights
    neither beats its trivial guess in 900 steps.
    """

    steps: int
    lr: float
    head: str = "light"
    loss: str | None = None
    body: bool = False


TASKS = {
    "depth": Trained(150, 2e-3),
    "normal": Trained(150, 2e-3),
    "foreground": Trained(150, 8e-3),
    "parts": Trained(300, 4e-3, loss="cross_entropy"),
    "pose17": Trained(600, 1e-3, "sapiens2", "integral", body=True),
    "pose308": Trained(1400, 2e-3, "sapiens2", "integral", body=True),
    "pointmap": Trained(600, 1e-3, body=True),
    "albedo": Trained(150, 2e-3),
}
BODY: dict[str, Any] = {"task": "normal", "also": {"foreground": 1.0, "depth": 1.0}, "steps": 1500, "lr": 1.5e-3,
        "augment": {"crop": [0.6, 1.0], "rotate_deg": 10}}  # fmt: skip
MILD = {"crop": [0.8, 1.0], "stretch": 0.05, "box_shift": 0.05, "box_scale": 0.1}


def rendered(scratch: Path) -> Path:
    """The dataset folder of 1,400 pictures of 350 people."""
    stage = {
        "samples": 1400, "samples_per_task": 20, "views": 4, "width": 96, "height": 128, "seed": 7, "people_seed": 7, "extras": ["albedo"],
        "assets": [{"source": "anny", "count": 350}], "splits": {"train": 0.7, "val": 0.0, "test": 0.3},
        "engine": {"samples": 8, "denoiser": "fast"},
        # One silhouette pixel may be 0.1 % of a figure this small.
        "verify_limits": {"opaque_share": 0.97},
    }  # fmt: skip
    job = scratch / "people.yaml"
    job.write_text(yaml.safe_dump({"name": "people", "runs": str(scratch), "render": stage}))
    subprocess.run([sys.executable, "-m", "pipeline.cli", "render", str(job)], cwd=ROOT, check=True)
    return scratch / "people" / "render"


def stage(task: str, data: list[Path], body: Path | None = None, steps: int = 0, **more: Any) -> dict[str, Any]:
    """A fine-tune's section of a job; ``steps``: 0 = the task's own."""
    how = TASKS[task]
    return {"name": task, "task": task, "init": str(body) if how.body else "random", "head": how.head, "loss": how.loss,
            "augment": MILD, "data": [str(d) for d in data], "seed": SEED, "optim": optim(steps or how.steps, how.lr),
            "compute": {"gpu": "no"}, **(LARGE if how.body else SMALL), **more}  # fmt: skip


def optim(steps: int, rate: float) -> dict[str, Any]:
    """An `optim` section whose warm-up is a tenth of its steps."""
    return {"steps": steps, "batch": BATCH, "lr": rate, "warmup_steps": max(1, steps // 10), "weight_decay": 0.1,
            "checkpoint_every": max(1, steps // 2)}  # fmt: skip


def seen_whole(folder: Path, data: list[Path], scale: float) -> Path:
    """Train BODY; its file."""
    asked = {k: v for k, v in BODY.items() if k not in ("steps", "lr")}
    asked |= {"name": "body", "init": "random", "layer_decay": 1.0, "data": [str(d) for d in data], "seed": SEED,
              "optim": {**optim(max(2, round(BODY["steps"] * scale)), BODY["lr"]), "ema": 0.99}, "compute": {"gpu": "no"},
              **LARGE}  # fmt: skip
    run = prepare(check({"name": "body", "runs": str(folder), "finetune": [asked]}), ROOT)
    subprocess.run([sys.executable, "-m", "training", str(run)], cwd=ROOT, check=True)
    return run / "finetune/body/model.safetensors"


def evaluated(folder: Path, name: str, stages: list[dict[str, Any]], data: list[Path]) -> dict[str, Any]:
    """Train and judge; returns metrics.json."""
    asked = {
        "name": name,
        "runs": str(folder),
        "finetune": stages,
        "evaluate": {"data": [str(d) for d in data], "split": "test"},
    }
    run = prepare(check(asked), ROOT)
    subprocess.run([sys.executable, "-m", "training", str(run)], cwd=ROOT, check=True)
    return dict(json.loads((run / "evaluate/metrics.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", help="rendered datasets; without them they are rendered")
    parser.add_argument("--out", type=Path, help="keep the run here")
    parser.add_argument("--body", type=Path, help="BODY's model.safetensors of an earlier run on the same pictures")
    parser.add_argument("--only", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        data = [d.resolve() for d in given.data or rendered(Path(scratch))]
        folder = given.out or Path(scratch)
        body = given.body and given.body.resolve()
        if body is None and any(TASKS[t].body for t in given.only):
            body = seen_whole(folder, data, given.scale)
        stages = [stage(t, data, body, max(2, round(TASKS[t].steps * given.scale))) for t in given.only]
        found = evaluated(folder, "tasks", stages, data)
    rows = []
    for task, entry in found.items():
        headline, best = entry["headline"], entry["best_trivial"]
        mine, theirs = entry["model"]["per_image"][headline], entry["trivial"][best]["per_image"][headline]
        low, high = entry["difference_interval"]
        verdict = "beats" if high < 0 else "DOES NOT BEAT" if entry["difference"] >= 0 else "is not surely better than"
        more = {k: round(v, 4) for k, v in entry["model"]["pooled"].items()}
        rows.append({"task": task, "steps": TASKS[task].steps, "loss": TASKS[task].loss,
                     "body_steps": BODY["steps"] if TASKS[task].body else 0, "measure": headline,
                     "model": mine, "best": best, "trivial": theirs, "verdict": verdict,
                     "difference": [entry["difference"], low, high], "wins": entry["wins"], "pictures": entry["samples"],
                     "identities": entry["identities"], "pooled": more})  # fmt: skip
    for row in sorted(rows, key=lambda r: -r["difference"][2]):
        gain, low, high = row["difference"]
        print(
            f"{row['task']:<11}{row['body_steps']} + {row['steps']} steps {row['measure']:<9}{row['model']:.4f} "
            f"{row['verdict']} {row['best']} ({row['trivial']:.4f}): "
            f"{gain:+.4f} [{low:+.4f}, {high:+.4f}], better on {row['wins']} of {row['pictures']} pictures"
        )
    ratio = float(np.exp(np.mean([np.log(r["trivial"] / r["model"]) for r in rows])))
    record = {
        "benchmark": "tasks", "ratio": round(ratio, 3), "batch": BATCH, "tasks": rows,
        "seconds": round(time.monotonic() - started), "cpu": platform.machine(), "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    if given.scale == 1:
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
