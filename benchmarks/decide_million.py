"""A million synthetic measurement rows, read from Parquet, decided and written; then once more under another policy.

    nice -n -15 python benchmarks/decide_million.py [--rows 1000000]

Predicted before the first run: 4 s, most of it for reading and writing Parquet.
"""

# ruff: noqa: E402
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
import pyarrow as pa
import pyarrow.parquet as pq

# benchmarks/curation.py would stand in for the package.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
from curation.decide import decide
from curation.dedup import PAIRS
from curation.stage import MEASUREMENTS
from manifests.curation import Policy
from pipeline.measuring import write


def synthetic(n: int, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """``n`` rows in order of uri: 3 % broken, 5 % exact copies, 1.7 boxes each, and n / 50 near-duplicate pairs."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (n, 64), dtype=np.uint8)
    codes[rng.random(n) < 0.05] = codes[0]
    sha = np.frombuffer(b"0123456789abcdef", np.uint8)[codes].tobytes()
    text = pa.Array.from_buffers(
        pa.string(), n, [None, pa.py_buffer(np.arange(0, 64 * n + 1, 64, dtype=np.int32)), pa.py_buffer(sha)]
    )
    counts = rng.poisson(1.7, n)
    total = int(counts.sum())
    corner, size = rng.uniform(0, 500, (total, 2)), rng.uniform(20, 700, (total, 2))
    xyxy = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    score = rng.beta(2, 1, total).astype(np.float32)
    kind = MEASUREMENTS.field("boxes").type.value_type
    box = pa.StructArray.from_arrays(
        [pa.FixedSizeListArray.from_arrays(pa.array(xyxy.ravel()), 4), pa.array(score), pa.array(score**2)],
        fields=list(kind),
    )
    hashes = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), n, [None, pa.py_buffer(rng.bytes(32 * n))]).cast(
        pa.binary()
    )
    broken = rng.random(n) < 0.03
    columns = {
        "uri": pa.array([f"web/{i // 10000:05d}.tar#{i:09d}.jpg" for i in range(n)]),
        "sha256": text,
        "bytes": pa.array(rng.integers(10_000, 900_000, n)),
        "width": pa.array(rng.integers(200, 4000, n), pa.int32()),
        "height": pa.array(rng.integers(200, 4000, n), pa.int32()),
        "blur": pa.array(rng.lognormal(6, 1, n), pa.float32()),
        "dark": pa.array(rng.uniform(0, 60, n), pa.float32()),
        "bright": pa.array(rng.uniform(120, 255, n), pa.float32()),
        "entropy": pa.array(rng.uniform(3, 8, n), pa.float32()),
        "border": pa.array(rng.beta(1, 9, n), pa.float32()),
        "phash": hashes,
        "boxes": pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), box),
        "weak": pa.array(np.zeros(n, bool)),
        "calibrated": pa.array(np.ones(n, bool)),
        "error": pa.array(np.where(broken, "corrupt", None), pa.string()),
        "stopped": pa.array(np.where(broken, "decode", None), pa.string()),
    }
    table = pa.table(
        [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(n, f.type) for f in MEASUREMENTS],
        schema=MEASUREMENTS,
    )
    a = rng.integers(0, n - 2, n // 50)
    pairs = pa.table([a, a + 1, rng.integers(0, 40, len(a)).astype(np.int32)], schema=PAIRS)
    return table, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table, pairs = synthetic(args.rows)
        pq.write_table(table, folder / "measured.parquet", compression="zstd", compression_level=1)
        pq.write_table(pairs, folder / "pairs.parquet")
        del table, pairs
        spent = []
        for policy in (Policy(), Policy(min_score=0.5, side_rule="height", duplicate_distance=20)):
            at = [time.perf_counter()]
            table, pairs = pq.read_table(folder / "measured.parquet"), pq.read_table(folder / "pairs.parquet")
            at.append(time.perf_counter())
            decisions = decide(table, policy, pairs)
            at.append(time.perf_counter())
            write(folder / "decisions.parquet", decisions, synced=False)
            at.append(time.perf_counter())
            read_s, decide_s, write_s = np.diff(at)
            kept = int(np.sum(decisions["kept"].to_numpy()))
            spent.append(at[-1] - at[0])
            print(f"{args.rows} rows: read {read_s:.2f} s, decide {decide_s:.2f} s, write {write_s:.2f} s; {kept} kept")
    line = {"benchmark": "decide_million", "ratio": round(5 / max(spent), 3), "seconds": [round(s, 2) for s in spent]}
    line |= {"rows": args.rows, "cores": os.cpu_count(), "cpu": platform.machine()}
    if args.rows == 1_000_000:
        with (Path(__file__).parent / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(f"ratio {line['ratio']:.2f}")


if __name__ == "__main__":
    main()
