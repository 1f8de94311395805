"""Frames per hour of one render worker with one thread against two with one each, a whole run of the command each.

Counted while every worker has work: from the receipt that ends the last worker's first task to the one after which the
first worker may find nothing left. Starting Blender is left out, and so is the wait for the last task of a small run.
Predicted: 1.9, two processes that share nothing but memory bandwidth.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

SAMPLES, ROUNDS = 40, 2
ROOT = Path(__file__).resolve().parents[1]


def per_hour(workers: int, folder: Path) -> float:
    stage = {
        "samples": SAMPLES,
        "samples_per_task": 2,
        "width": 384,
        "height": 512,
        "seed": 1,
        "assets": [{"source": "anny", "count": 14}],
        "splits": {"train": 1.0, "val": 0.0, "test": 0.0},
        "framing": {"face": 0, "upper": 0, "full": 1},
        "workers": workers,
        "threads": 1,
    }
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({"name": f"w{workers}", "runs": str(folder), "render": stage}))
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "render", str(job)], cwd=ROOT, check=True, capture_output=True
    )
    receipts = sorted((folder / f"w{workers}" / "render" / "receipts").glob("*.json"), key=lambda p: p.stat().st_mtime)
    times = [p.stat().st_mtime for p in receipts]
    busy = times[workers - 1 : len(times) - workers + 1]
    return 2 * (len(busy) - 1) / (busy[-1] - busy[0]) * 3600


def main() -> None:
    ratios = []
    for round_ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as scratch:
            one, two = per_hour(1, Path(scratch)), per_hour(2, Path(scratch))
        ratios.append(two / one)
        print(json.dumps({"round": round_, "one": round(one), "two": round(two)}), flush=True)
    print(f"ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
