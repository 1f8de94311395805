"""A tiny student with and without a small teacher, at equal steps, on held-out identities: 3 seeds, 95 % intervals.

The pictures are those of tasks.py (`--data`, else rendered first). The teacher (`small`) learns normals for TEACHER_STEPS steps;
the student (`tiny`) for STEPS, from truth alone, from truth and the teacher's output and features, and with its knowledge
token besides. Whatever comes out is printed, a loss first. The last line is the error without over that with the
teacher: above 1 the teacher helped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tasks import evaluated, rendered, stage  # noqa: E402
from training.judges import KINDS  # noqa: E402
from training.summary import interval  # noqa: E402

RESULTS = ROOT / "benchmarks/results.jsonl"
TASK = "normal"
TEACHER_STEPS, STEPS, TOKEN_STEPS = 240, 60, 20


def arms(teacher: str) -> dict[str, dict]:
    """Name -> what the student's section has beside the plain one's."""
    lesson = {"teacher": teacher, "output": 1.0, "feature": 0.2}
    return {"alone": {}, "taught": {"distil": lesson}, "token": {"distil": lesson | {"token_steps": TOKEN_STEPS}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a rendered dataset; without it one is rendered")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    started = time.monotonic()
    column = f"model/{KINDS[TASK].headline}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.out or Path(scratch)).resolve()
        data = (given.data or rendered(Path(scratch))).resolve()
        steps, long = max(2, round(STEPS * given.scale)), max(2, round(TEACHER_STEPS * given.scale))
        found = evaluated(folder, "teacher", [stage(TASK, data, long, model="small", name="teacher")], data)
        taught_by = found["teacher"]["model"]["per_image"][KINDS[TASK].headline]
        weights = str(folder / "teacher/finetune/teacher/model.safetensors")
        values: dict[str, list[np.ndarray]] = {k: [] for k in arms("")}
        people: list[str] = []
        for seed in range(given.seeds):
            stages = [stage(TASK, data, steps, name=k, seed=seed, **more) for k, more in arms(weights).items()]
            evaluated(folder, f"seed{seed}", stages, data)
            for name in values:
                table = pq.read_table(folder / f"seed{seed}/evaluate/{name}.parquet")
                values[name].append(table[column].to_numpy())
                people = table["asset"].to_pylist()
    means = {k: np.mean(v, axis=0) for k, v in values.items()}
    rows = []
    for name in ("taught", "token"):
        change = means[name] - means["alone"]
        rows.append(
            [name, float(means[name].mean()), float(change.mean()), *(interval(change, people, 2000, name) or ())]
        )
    print(f"teacher {taught_by:.2f}, student alone {means['alone'].mean():.2f} ({KINDS[TASK].headline})")
    for name, error, change, low, high in sorted(rows, key=lambda r: -r[2]):
        verdict = "LOSES" if low > 0 else "wins" if high < 0 else "undecided"
        seeds = ", ".join(f"{v.mean() - a.mean():+.2f}" for v, a in zip(values[name], values["alone"]))
        print(f"{name:<8}{error:.2f}: {change:+.3f} [{low:+.3f}, {high:+.3f}] against alone, {verdict}; seeds {seeds}")
    ratio = float(means["alone"].mean() / means["taught"].mean())
    record = {
        "benchmark": "distil", "ratio": round(ratio, 3), "task": TASK, "seeds": given.seeds, "teacher": taught_by,
        "alone": float(means["alone"].mean()), "arms": rows, "per_seed": {k: [float(x.mean()) for x in v] for k, v in values.items()},
        "identities": len(set(people)), "pictures": len(people), "seconds": round(time.monotonic() - started),
        "cpu": platform.machine(), "cores": os.cpu_count(), "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    if given.scale == 1:
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
