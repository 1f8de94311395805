"""Made people: milliseconds per drawn body, seconds from parameters to a Blender scene in a warm worker, per stage.

    python benchmarks/people.py [--people 40]

The peer of a draw is anny's own sampler of bodies (SimpleShapeDistribution.sample), which draws a batch of one; the ratio
is its time over ours. Targets: 5 ms a draw, 4 s to a scene.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from manifests.assets import AnnySource
from manifests.bodies import BodyPrior, PosePrior
from manifests.seeds import generator
from render.assets.anny import AnnyPeople, _parts, _studio, assemble
from render.people import joints, shape
from render.people.doll import Doll
from render.people.identity import draw_look
from render.people.pose import draw_pose

RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=40)
    count = parser.parse_args().people
    prior, poses = BodyPrior(), PosePrior()
    draw_ms, peer_ms = draws(prior)
    stages: dict[str, list[float]] = defaultdict(list)
    tries, relieved, deepest = [], 0, 0.0
    body, wardrobe = _studio()
    rig = joints.rig_of(body)
    for j in range(count + 2):
        clock = Clock()
        look = draw_look(generator(1, "identity", j), prior)
        clock.lap("draw")
        figure = body.figure(look.shape.phenotype, look.shape.changes)
        doll = Doll(body, figure)
        clock.lap("figure")
        pose = draw_pose(generator(1, "pose", j), poses, rig, doll, None, look.shape.age_years)
        clock.lap("pose")
        posed = body.posed(look.shape.phenotype, pose.rotations, look.shape.changes, pose.actions)
        clock.lap("body")
        pieces, _ = wardrobe.dress(look, posed)
        assemble(pieces, look, np.zeros(3), _parts(), pose.actions)
        clock.lap("clothes")
        # The first two warm caches that live as long as a worker does.
        if j >= 2:
            for name, seconds in clock.laps.items():
                stages[name].append(seconds)
            tries.append(pose.tries)
            relieved += pose.relief > 0
            deepest = max(deepest, pose.depth_m)
    stages["blender"] = blender(8)
    total = sum(statistics.median(v) for v in stages.values())
    figures = {
        "ms_per_draw": round(draw_ms, 3),
        "anny_sampler_ms": round(peer_ms, 3),
        "seconds": {k: round(statistics.median(v), 4) for k, v in stages.items()},
        "seconds_worst": {k: round(max(v), 4) for k, v in stages.items()},
        "seconds_to_scene": round(total, 3),
        "people": count,
        "resampled_share": round(float(np.mean(np.array(tries) > 1)), 4),
        "relieved_share": round(relieved / count, 4),
        "deepest_mm": round(deepest * 1e3, 1),
    }
    print(json.dumps(figures, indent=1))
    row = {"benchmark": "people", "ratio": round(peer_ms / draw_ms, 2), "cores": os.cpu_count(), **figures}
    with RESULTS.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(f"ratio {peer_ms / draw_ms:.2f}")


def draws(prior: BodyPrior) -> tuple[float, float]:
    """Median ms of one drawn body, ours and anny's."""
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    body, _ = _studio()
    sampler = SimpleShapeDistribution(body._model)
    torch.manual_seed(0)
    ours, theirs = [], []
    for j in range(500):
        start = time.perf_counter()
        shape.draw_shape(generator(1, "identity", j), prior)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        sampler.sample(1)
        theirs.append(time.perf_counter() - start)
    return statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3


def blender(count: int) -> list[float]:
    """Seconds of building Blender's scene from one person's mesh, in one process."""
    import bpy

    from render.blender.build import build_person

    people = AnnyPeople(AnnySource(count=count), 1)
    found = []
    for j in range(count):
        person = people.load(str(j), generator(1, "pose", j))
        bpy.ops.wm.read_factory_settings(use_empty=True)
        start = time.perf_counter()
        build_person(person)
        bpy.context.view_layer.update()
        found.append(time.perf_counter() - start)
    return found


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


if __name__ == "__main__":
    main()
