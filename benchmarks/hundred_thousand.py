"""100,000 small samples in 500 shards -> seconds to open, milliseconds to any row, bytes of manifest, memory of a pass.

`python benchmarks/hundred_thousand.py [--samples 100000] [--shards 500] [--work FOLDER]`. Every measure runs in a fresh
process. The last line is our random access over that of `datasets` on the same files, both before decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results.jsonl"
PROBES = 2000


def make(folder: Path, samples: int, shards: int) -> None:
    """Committed rows of one tiny picture under many ids."""
    from manifests import commit
    from manifests.shards import ShardWriter, row_of
    from tests.samples import ball

    if (folder / "manifest").is_dir():
        return
    row = row_of(ball(0, 24, 32))
    per_shard = -(-samples // shards)
    for first in range(0, samples, per_shard):
        task = f"{first:08d}+{per_shard}"
        outcomes = []
        with ShardWriter(folder, task, "rendered") as writer:
            for i in range(first, min(first + per_shard, samples)):
                writer.append({**row, "sample_id": f"tiny-{i:08d}", "index": i})
                outcomes.append(commit.Outcome(f"tiny-{i:08d}", i, "done", "", 0.1, 1))
            written = writer.close()
        commit.write_receipt(folder, commit.Receipt(task, "b" * 64, written, outcomes, {}))
    commit.fold(folder, "rendered", "b" * 64)


def anonymous_mb() -> float:
    """RssAnon of this process: memory that is not the page cache's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))


def measure(what: str, folder: Path) -> dict[str, float]:
    from manifests.dataset import Dataset

    if what == "open":
        start = time.perf_counter()
        rows = len(Dataset(folder))
        return {"open_s": time.perf_counter() - start, "rows": rows, "open_anon_mb": anonymous_mb()}
    rng = np.random.default_rng(0)
    if what == "random":
        dataset = Dataset(folder)
        probes = rng.integers(0, len(dataset), PROBES)
        spent = []
        for i in probes:
            start = time.perf_counter()
            dataset.blob(int(i), "image")
            spent.append(time.perf_counter() - start)
        row = []
        for i in probes:
            start = time.perf_counter()
            dataset[int(i)]
            row.append(time.perf_counter() - start)
        return {
            "blob_ms_median": 1e3 * float(np.median(spent)),
            "blob_ms_mean": 1e3 * float(np.mean(spent)),
            "row_ms_median": 1e3 * float(np.median(row)),
            "row_ms_mean": 1e3 * float(np.mean(row)),
        }
    if what == "datasets":
        import datasets

        rows = datasets.load_from_disk(str(folder / "hf/train"))
        rows = rows.cast_column("image", datasets.Image(decode=False))
        spent = []
        for i in rng.integers(0, len(rows), PROBES):
            start = time.perf_counter()
            rows[int(i)]
            spent.append(time.perf_counter() - start)
        return {"datasets_row_ms_median": 1e3 * float(np.median(spent))}
    from training import loader
    from training.order import Order, Source

    dataset = Dataset(folder)
    order = Order([Source("rows", len(dataset))], 0)
    peak, start = 0.0, time.perf_counter()
    for step, _ in enumerate(loader.batches([dataset], order, loader.Planes(), 64, range(len(dataset) // 64), 2)):
        if step % 50 == 0:
            peak = max(peak, anonymous_mb())
    return {"pass_s": time.perf_counter() - start, "pass_anon_mb": max(peak, anonymous_mb())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks/.work/many")
    parser.add_argument("--measure")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.work)))
        return
    make(given.work, given.samples, given.shards)
    newest = sorted((given.work / "manifest").iterdir())[-1]
    found: dict[str, float] = {"manifest_mb": newest.stat().st_size / 1e6}
    for what in ("open", "random", "datasets", "pass"):
        arguments = [sys.executable, __file__, "--measure", what, "--work", str(given.work)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
        found |= json.loads(done.stdout.splitlines()[-1])
    for name, value in found.items():
        print(f"{name:24} {value:10.3f}")
    ratio = found["datasets_row_ms_median"] / found["row_ms_median"]
    record = {"benchmark": "hundred_thousand", "ratio": round(ratio, 3), **{k: round(v, 4) for k, v in found.items()}}
    with RESULTS.open("a") as file:
        file.write(
            json.dumps({**record, "samples": given.samples, "shards": given.shards, "cores": os.cpu_count()}) + "\n"
        )
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
