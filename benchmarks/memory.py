"""Resident memory of one render worker over 500 frames at 128 px, without recycling; drawn to a picture.

    python benchmarks/memory.py --frames 500 --plot benchmarks/memory-4.5.png

Predicted before the first run: 10 MB of growth from frame 50 to 500 (fragmentation of the heap; every data-block that a
frame makes is removed after it).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure

from manifests import plan
from manifests.assets import AnnySource
from manifests.job import Engine, RenderStage
from manifests.shards import ShardWriter, row_of
from render.stage import Renderer, pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    stage = RenderStage(
        samples=args.frames, width=96, height=128, assets=[AnnySource(count=24)], engine=Engine(samples=1)
    )
    identities, _ = pool(stage, Path.cwd())
    process = psutil.Process()
    used: list[float] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        renderer = Renderer(stage, Path.cwd(), 1)
        for task in plan.render_tasks(stage, "d" * 64, identities):
            with ShardWriter(Path(scratch), task.task_id, "rendered") as writer:
                for spec in task.samples:
                    writer.append(row_of(renderer.render(spec)))
                    used.append(process.memory_info().rss / 2**20)
                writer.close()
    # A line through all frames: a frame's own arrays, and the last few people in the caches, come and go by 25 MB.
    slope, start = np.polyfit(np.arange(50, args.frames), used[50:], 1)
    early, late = start + 50 * slope, start + args.frames * slope
    import bpy

    if args.plot:
        figure = Figure(figsize=(6, 3))
        axes = figure.subplots()
        axes.plot(used, linewidth=0.8)
        axes.set(
            xlabel="frame", ylabel="resident memory, MB", title=f"one worker, bpy {bpy.app.version_string}", ylim=0
        )
        figure.savefig(args.plot, dpi=110, bbox_inches="tight")
    seconds = (time.perf_counter() - started) / args.frames
    print(f"bpy {bpy.app.version_string}: {args.frames} frames, {seconds:.2f} s each")
    print(
        f"{early:.0f} MB at frame 50, {late:.0f} MB at the end, by a line through all between: growth {late - early:.1f} MB"
    )


if __name__ == "__main__":
    main()
