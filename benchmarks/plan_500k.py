"""Seconds and memory of the driver for a plan of 500,000 samples, fresh and resumed from half of its receipts."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from manifests import commit, plan
from manifests.job import RenderStage
from manifests.priors import PeoplePrior
from pipeline.render import todo

SAMPLES, IDENTITIES = 500_000, 600


def receipts(folder: Path, stage: RenderStage, share: float) -> int:
    """Write the receipts of the first ``share`` of the tasks, without shards."""
    count = int(share * SAMPLES / stage.samples_per_task)
    for block in range(count):
        first = block * stage.samples_per_task
        n = min(stage.samples_per_task, SAMPLES - first)
        outcomes = [commit.Outcome(f"{'d' * 12}-{i:08d}", i, "done", "", 1.0, 1) for i in range(first, first + n)]
        commit.write_receipt(folder, commit.Receipt(f"{first:08d}+{n}", "d" * 64, [], outcomes, {}))
    return count


def main() -> None:
    stage = RenderStage(samples=SAMPLES, people=PeoplePrior(counts=[0.4, 0.3, 0.2, 0.1]))
    pool = [plan.Identity(f"files/{i:04d}", 0, f"scans/{i:04d}.obj", "train") for i in range(IDENTITIES)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("fresh", "resumed"):
            if name == "resumed":
                print(f"(writing {receipts(folder, stage, 0.5)} receipts, not timed)", flush=True)
            started = time.perf_counter()
            tasks, status = todo(folder, stage, "d" * 64, pool, False)
            samples = sum(len(task.samples) for task in tasks)
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            print(f"{name}: {samples} samples to do, {len(status)} done, {seconds:.1f} s, peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
