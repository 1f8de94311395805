"""Images per second and core of each stage of curation, hash + search against imagededup, the whole run, its memory.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install "numpy<2" pillow scikit-learn tqdm PyWavelets
    /tmp/peer/bin/pip install --no-deps imagededup
    python benchmarks/curation.py --photos ../shared/photos/img --weights ../shared/weights/yolox_nano.onnx \
        --peer-python /tmp/peer/bin/python

The corpus is made of the photographs given: each in ten crops, sizes and qualities. The peer runs in the same minutes, one
process each, in turns. Predicted before the first run: ratio 3 (imagededup publishes 65 images a second and vCPU); 1.75 was
measured, and 2.4 predicted of taking the DCT from one product and looking at borders alone.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder comes first on the path, and this file has the package's name.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import tempfile
import threading
import time

import cv2
import numpy as np
import psutil
import pyarrow as pa
import simplejpeg
import yaml

from curation import dedup, filters
from curation.fingerprint import fingerprint
from curation.measure import Measurer, fetch
from curation.sources import listed
from curation.stage import STEPS
from manifests.curation import CurateStage

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, SOME = 5, 256
PARTS = ("stages", "whole", "hash")


def corpus(photos: Path, folder: Path, copies: int) -> int:
    """``copies`` different crops of every photograph; returns how many files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    n = 0
    for path in sorted(photos.glob("*.jpg")):
        rgb = cv2.imread(str(path))
        for _ in range(copies):
            h, w = (int(s * rng.uniform(0.75, 1)) for s in rgb.shape[:2])
            y, x = int(rng.integers(0, rgb.shape[0] - h + 1)), int(rng.integers(0, rgb.shape[1] - w + 1))
            scale = rng.uniform(0.9, 1.5)
            piece = cv2.resize(rgb[y : y + h, x : x + w], None, fx=scale, fy=scale)
            cv2.imwrite(str(folder / f"{n:06d}.jpg"), piece, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 95))])
            n += 1
    return n


def stages(stage: CurateStage, folder: Path) -> dict[str, float]:
    """Milliseconds of one core for each step, mean over SOME of the corpus."""
    rows = listed(stage, folder, folder / "scratch").to_pylist()[:SOME]
    measurer = Measurer(stage, ROOT)
    measured = []
    for first in range(0, len(rows), 8):
        measured += measurer.measure([fetch(r) for r in rows[first : first + 8]])
    return {s: statistics.mean(m["ms"][s] or 0.0 for m in measured[8:]) for s in STEPS}


def hash_and_search(folder: Path) -> tuple[float, int]:
    """Seconds of the processor, which neighbours on the machine do not stretch, and how many pictures have a twin."""
    start = sum(os.times()[:4])
    rows = []
    for path in sorted(folder.glob("*.jpg")):
        # Hashes alone need luma at a half or a quarter; the decoder still reads, and checks, every bit of the file.
        small = simplejpeg.decode_jpeg(path.read_bytes(), "GRAY", strict=True, min_height=256, min_width=256)[..., 0]
        factor = filters.SIDE_PX / max(small.shape)
        size = (round(small.shape[1] * factor), round(small.shape[0] * factor))
        grey = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
        marks = fingerprint(grey, filters.inside(grey))
        rows.append([marks.plain, marks.mirrored, marks.trimmed, marks.trimmed_mirrored, marks.thumb])
    found = dedup.pairs(pa.table([pa.array(c, pa.binary()) for c in zip(*rows)], names=[*dedup.VARIANTS, "thumb"]))
    members = set(found["a"].to_pylist()) | set(found["b"].to_pylist())
    return sum(os.times()[:4]) - start, len(members)


def whole(job: dict, name: str, scratch: Path) -> dict[str, float]:
    """A run of the command: images a second between the first and the last finished partition, and peak RssAnon."""
    path = scratch / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "runs": str(scratch / "runs"), "curate": job}))
    process = subprocess.Popen([sys.executable, "-m", "pipeline.cli", "curate", str(path)], cwd=ROOT, stdout=2)
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            total = 0.0
            for p in [process.pid, *(c.pid for c in psutil.Process(process.pid).children(recursive=True))]:
                try:
                    lines = Path(f"/proc/{p}/status").read_text().splitlines()
                    total += sum(int(v.split()[1]) for v in lines if v.startswith("RssAnon")) / 1024
                except (OSError, psutil.Error):
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    thread.join()
    assert code == 0, name
    times = sorted(p.stat().st_mtime for p in (scratch / "runs" / name / "curate/measurements").iterdir())
    # Each worker's first partition starts the clock: what it costs to start Ray and to load weights is left out.
    workers = job["workers"]
    rate = (len(times) - workers) * job["partition"] / max(times[-1] - times[workers - 1], 1e-9)
    return {"images_per_s": rate, "peak_anon_mb": peak[0]}


def compare(folder: Path, peer: Path, n: int) -> dict:
    """Ours and imagededup in turns; the ratio is the median of ROUNDS."""
    ratios, rates = [], []
    command = [str(peer), str(ROOT / "benchmarks/peers/imagededup_hash.py"), str(folder)]
    # The peer's own folder must not see ours on its path: both have numpy, of other versions.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # Neither pays for its first import: imagededup's own clock starts after that as well.
    hash_and_search(folder)
    for _ in range(ROUNDS):
        ours, twins = hash_and_search(folder)
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        theirs = json.loads(said.strip().splitlines()[-1])
        ratios.append(theirs["seconds"] / ours)
        rates.append([n / ours, n / theirs["seconds"]])
        print(
            f"hash + search: ours {rates[-1][0]:.0f}/s ({twins} with twins), imagededup {rates[-1][1]:.0f}/s "
            f"({theirs['with_duplicates']})"
        )
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "hash_and_search_per_s": [round(statistics.median(r), 1) for r in zip(*rates)],
    }


def run(args: argparse.Namespace, scratch: Path) -> dict:
    workers = os.cpu_count() or 1
    n = corpus(args.photos, scratch / "large", args.copies)
    line = {"benchmark": "curation", "images": n, "cores": workers, "cpu": platform.machine()}
    detector = {"kind": "onnx", "weights": str(args.weights.resolve())} if args.weights else {"kind": "face"}
    if args.weights:
        detector["looks"] = args.looks
    job = {"sources": [{"path": str(scratch / "large")}], "detector": detector, "workers": workers, "partition": 16}
    if "stages" in args.parts:
        stage = CurateStage.model_validate(job)
        spent = stages(stage, scratch)
        for step, ms in spent.items():
            print(f"{step:<12} {ms:8.3f} ms  {1e3 / ms if ms else float('inf'):10.0f} images/s and core")
        line["ms"] = {k: round(v, 3) for k, v in spent.items()}
        # Cores share caches and memory: what the steps cost while every core is at them is what the run can reach.
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            busy = [sum(s.values()) for s in pool.map(stages, [stage] * workers, [scratch] * workers)]
        line["ms_all_cores_busy"] = round(statistics.mean(busy), 3)
        print(f"all steps    {sum(spent.values()):8.3f} ms, {line['ms_all_cores_busy']:.3f} with {workers} at once")
    if "whole" in args.parts:
        large = whole(job, "large", scratch)
        line["images_per_s"] = round(large["images_per_s"], 2)
        if "stages" in args.parts:
            for name, ms in (("busy", line["ms_all_cores_busy"]), ("alone", sum(spent.values()))):
                limit = workers * 1e3 / ms
                line[f"share_{name}"] = round(large["images_per_s"] / limit, 3)
                print(
                    f"end to end {line['images_per_s']:.1f} images/s, {100 * line[f'share_{name}']:.0f} % of the {limit:.1f} "
                    f"that the steps allow on {workers} cores, measured {name}"
                )
        corpus(args.photos, scratch / "small", max(1, args.copies // 10))
        small = whole(job | {"sources": [{"path": str(scratch / "small")}]}, "small", scratch)
        line["anon_mb"] = [round(r["peak_anon_mb"]) for r in (small, large)]
        print(f"RssAnon of all processes: {line['anon_mb'][0]} MB for {n // 10}, {line['anon_mb'][1]} for {n}")
    if "hash" in args.parts and args.peer_python:
        line |= compare(scratch / "large", args.peer_python, n)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--looks", type=int, default=2)
    parser.add_argument("--peer-python", type=Path, help="a Python with imagededup; how to make one is said above")
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        line = run(args, Path(name))
    with (Path(__file__).parent / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    if "ratio" in line:
        print(f"ratio {line['ratio']:.2f}")


if __name__ == "__main__":
    main()
