"""Hair's price: seconds of a haired face close-up over those of the same person bald, and the worker's memory.

    python benchmarks/hair_cost.py [--width 768] [--samples 16] [--styles long,crop]

Frames of both go through everything that makes a sample: Embree, Cycles with the denoiser, the check, alpha. Every style,
men's with a full beard; bald and haired people take turns, and the first frame is not counted. The ratio is of the sums;
the dearest style is printed beside, and the most memory that the process held. Targets: 2.5, and 3 GB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.clothes import ClothesPrior
from manifests.hair import HairPrior
from manifests.job import RenderStage
from manifests.plan import SampleSpec
from manifests.priors import CameraPrior
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.framing import draw_camera
from render.lighting import draw_lighting, environments
from render.people.hair_styles import STYLES
from render.scene import Lighting, PersonMesh, Scene
from render.stage import Renderer
from render.strands import merged, merging

RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--styles", default=",".join(STYLES))
    given = parser.parse_args()
    width, height = given.width, given.width * 4 // 3
    stage = RenderStage.model_validate(
        {
            "width": width,
            "height": height,
            "engine": {"samples": given.samples},
            "verify_limits": {"opaque_share": 0.99},
        }
    )
    renderer = Renderer(stage, Path.cwd(), os.cpu_count() or 1)
    light = draw_lighting(stage.lighting, environments(stage.lighting, Path.cwd()), generator(1, "light"))
    names = given.styles.split(",")
    # What comes first pays for warming up.
    shot(renderer, light, names[0], width, height)
    rows: dict[str, dict[str, Any]] = {}
    for style in names:
        rows[style] = shot(renderer, light, style, width, height)
        print(style, json.dumps(rows[style]), flush=True)
    totals = {name: sum(r[name]["seconds"] for r in rows.values()) for name in ("bald", "haired")}
    cpu = {name: sum(r[name]["cpu_seconds"] for r in rows.values()) for name in ("bald", "haired")}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    dearest = max(rows, key=lambda k: rows[k]["ratio"])
    ratio = totals["haired"] / totals["bald"]
    figures = {
        "width": width,
        "height": height,
        "samples": given.samples,
        "peak_gb": round(memory, 2),
        "dearest": dearest,
        "styles": rows,
    }
    row = {"benchmark": "hair_cost", "ratio": round(ratio, 2), "cpu_ratio": round(cpu["haired"] / cpu["bald"], 2)}
    with RESULTS.open("a") as out:
        out.write(json.dumps({**row, "cores": os.cpu_count(), **figures}) + "\n")
    print(
        f"processor time {cpu['haired'] / cpu['bald']:.2f}, memory at most {memory:.2f} GB, dearest {dearest} at {rows[dearest]['ratio']:.2f}"
    )
    print(f"ratio {ratio:.2f}")


def shot(renderer: Renderer, light: Lighting, style: str, width: int, height: int) -> dict[str, Any]:
    """Strands, seconds of the bald and the haired frame, and their ratio."""
    person = someone(style)
    bare = dataclasses.replace(person, strands=[])
    camera = draw_camera([person], "face", CameraPrior(azimuth_deg=(20, 30)), width, height, generator(1, "camera"))
    assert camera is not None
    haired = merged([person], merging([person], camera))[0]
    row: dict[str, Any] = {"strands": sum(len(s.points) for s in haired.strands)}
    for name, one in (("bald", bare), ("haired", haired)):
        spec = SampleSpec(name, "0" * 64, 0, "train", "face", ())
        started, cpu = time.perf_counter(), time.process_time()
        sample = renderer.shoot(spec, Scene([one], camera, light, 1))
        row[name] = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "agreement": sample.agreement,
            "steps": {k: round(v, 2) for k, v in renderer.seconds.items()},
        }
    return row | {"ratio": round(row["haired"]["seconds"] / row["bald"]["seconds"], 2)}


def someone(style: str) -> PersonMesh:
    """A bareheaded adult in ``style``; men have a full beard."""
    sex = "male" if style in HairPrior().male else "female"
    source = AnnySource(
        count=1,
        body=BodyPrior(age_years={"20-40": 1}, sex={sex: 1.0}),
        pose=PosePrior(**dict.fromkeys(FAMILIES, 0.0) | {"standing": 1.0}),
        clothes=ClothesPrior(hats={"none": 1}),
        hair=HairPrior(**{sex: {style: 1}}, balding=0, beards={"full": 1}),
    )
    person = AnnyPeople(source, 3).load("0", generator(1, "pose", 0))
    assert np.isfinite(person.mesh.vertices).all()
    return person


if __name__ == "__main__":
    main()
