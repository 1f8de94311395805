"""The same coded samples in our shards and in five peers' formats -> samples a second into training batches, decode included.

`python benchmarks/shards_vs_peers.py [--samples 192] [--rounds 5] [--work FOLDER]`. 1024x768 pictures with depth, normals,
alpha and mask; page cache warm, 2 cores, batches of 16, shuffled; every contestant runs in a process of its own, in turn,
round after round, and the median counts. All decode the same blobs with the same code to the same uint8 arrays.
The peers lie in a folder of their own: MosaicML's MDS imports torchvision, whose wheel fails beside a CPU torch, so it
gets an empty stand-in of that name. The last line is our 2 threads over the best peer's 2 workers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PEERS = ROOT / "benchmarks/.peers"
RESULTS = ROOT / "benchmarks/results.jsonl"
BATCH, WORKERS = 16, 2
FIELDS = ("image", "depth", "normal", "alpha", "mask")
PER_SHARD = 32


def decode(blobs: dict[str, Any]) -> dict[str, np.ndarray]:
    """What every contestant does with a sample: (H, W, 3) uint8 and the (P, H, W) uint8 planes a GPU dequantises."""
    from benchmarks.made_people import HEIGHT, WIDTH
    from manifests import codecs
    from training.loader import CODED

    made = {"image": codecs.decode_image(blobs["image"])}
    for name in FIELDS[1:]:
        made[name] = codecs.read_planes(blobs[name], CODED[name], HEIGHT, WIDTH)[1]
    return made


def make(work: Path, count: int) -> None:
    """Write ``count`` samples in every format under ``work``, once."""
    from benchmarks.made_people import person
    from manifests import commit
    from manifests.shards import ShardWriter, row_of

    if (work / "done").exists() and (work / "done").read_text() == str(count):
        return
    ours = work / "ours"
    loose = 0
    for first in range(0, count, PER_SHARD):
        with ShardWriter(ours, f"{first:08d}+{PER_SHARD}", "rendered") as writer:
            for i in range(first, min(first + PER_SHARD, count)):
                sample = person(i)
                writer.append(row_of(sample))
                if i < 8:
                    loose += _loose_bytes(sample)
            shards = writer.close()
        commit.write_receipt(ours, commit.Receipt(f"{first:08d}+{PER_SHARD}", "b" * 64, shards, [], {}))
    commit.fold(ours, "rendered", "b" * 64)
    (work / "loose").write_text(str(loose / 8))
    for name in ("webdataset", "mds", "litdata"):
        subprocess.run(
            [sys.executable, __file__, "--write", name, "--work", str(work)], env=_environment(name), check=True
        )
    (work / "done").write_text(str(count))


def _loose_bytes(sample: Any) -> int:
    """Bytes of the sample as Sapiens2's folders keep it: PNG picture and mask, float32 .npy depth and normals."""
    total = 0
    for picture in (sample.image, sample.mask):
        total += len(cv2.imencode(".png", picture)[1])
    for array in (sample.depth, sample.normal):
        sink = io.BytesIO()
        np.save(sink, array)
        total += sink.tell()
    return total


def blobs_of(dataset: Any, i: int) -> dict[str, bytes]:
    """The coded bytes of one row of ours."""
    return {name: bytes(dataset.blob(i, name)) for name in FIELDS}


def write(name: str, work: Path) -> None:
    """Our rows' bytes in a peer's container, at its defaults."""
    from manifests.dataset import Dataset

    dataset = Dataset(work / "ours")
    if name == "webdataset":
        import webdataset

        (work / "webdataset").mkdir(exist_ok=True)
        with webdataset.ShardWriter(f"{work}/webdataset/%06d.tar", maxcount=PER_SHARD, verbose=0) as sink:
            for i in range(len(dataset)):
                blobs = blobs_of(dataset, i)
                sink.write(
                    {"__key__": f"{i:08d}", "jpg": blobs.pop("image"), **{f"{k}.bin": v for k, v in blobs.items()}}
                )
    elif name == "mds":
        import streaming

        columns = dict.fromkeys(FIELDS, "bytes")
        with streaming.MDSWriter(out=str(work / "mds"), columns=columns) as sink:
            for i in range(len(dataset)):
                sink.write(blobs_of(dataset, i))
    else:
        import functools

        import litdata

        litdata.optimize(
            fn=functools.partial(_row, str(work / "ours")), inputs=list(range(len(dataset))), chunk_bytes="64MB",
            output_dir=str(work / "litdata"), num_workers=1, start_method="fork",
        )  # fmt: skip


def _row(folder: str, i: int) -> dict[str, bytes]:
    from manifests.dataset import Dataset

    return blobs_of(Dataset(folder), i)


def ours(work: Path, threads: int) -> Iterable[dict[str, Any]]:
    from manifests.dataset import Dataset
    from training import loader
    from training.order import Order, Source

    dataset = Dataset(work / "ours")
    order = Order([Source("rows", len(dataset))], 0)
    # Positions run on through epochs: there is no end of an epoch to stall at.
    return (a for a, _ in loader.batches([dataset], order, loader.Planes(FIELDS), BATCH, range(10**9), threads))


def torch_over_ours(work: Path) -> Iterable[dict[str, Any]]:
    from manifests.dataset import Dataset

    class Rows:
        def __init__(self) -> None:
            self.dataset = Dataset(work / "ours")

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, i: int) -> dict[str, np.ndarray]:
            return decode({name: self.dataset.blob(i, name) for name in FIELDS})

    return _epochs(_torch(Rows()))


def huggingface(work: Path) -> Iterable[dict[str, Any]]:
    import datasets

    rows = datasets.load_from_disk(str(work / "ours/hf/train")).select_columns(list(FIELDS))
    rows = rows.cast_column("image", datasets.Image(decode=False))

    class Rows:
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> dict[str, np.ndarray]:
            row = rows[i]
            return decode({**row, "image": row["image"]["bytes"]})

    return _epochs(_torch(Rows()))


def webdataset(work: Path) -> Iterable[dict[str, Any]]:
    import webdataset as wds

    urls = [str(p) for p in sorted((work / "webdataset").glob("*.tar"))]

    def opened(sample: dict[str, Any]) -> dict[str, np.ndarray]:
        return decode({"image": sample["jpg"], **{k: sample[f"{k}.bin"] for k in FIELDS[1:]}})

    def tensors(samples: list[dict[str, np.ndarray]]) -> Any:
        import torch

        return torch.utils.data.default_collate(samples)

    rows = wds.WebDataset(urls, shardshuffle=len(urls), seed=0, empty_check=False).shuffle(50).map(opened)
    batched = rows.batched(BATCH, collation_fn=tensors, partial=False)
    return _epochs(wds.WebLoader(batched, batch_size=None, num_workers=WORKERS))


def mds(work: Path) -> Iterable[dict[str, Any]]:
    import streaming

    class Rows(streaming.StreamingDataset):
        def __getitem__(self, i: Any) -> Any:
            return decode(super().__getitem__(i))

    rows = Rows(local=str(work / "mds"), shuffle=True, batch_size=BATCH)
    return _epochs(streaming.StreamingDataLoader(rows, batch_size=BATCH, num_workers=WORKERS, drop_last=True))


def litdata(work: Path) -> Iterable[dict[str, Any]]:
    import litdata as lit

    class Rows(lit.StreamingDataset):
        def __getitem__(self, i: Any) -> Any:
            return decode(super().__getitem__(i))

    rows = Rows(str(work / "litdata"), shuffle=True, drop_last=True)
    return _epochs(lit.StreamingDataLoader(rows, batch_size=BATCH, num_workers=WORKERS, drop_last=True))


def floor(work: Path) -> Iterable[dict[str, Any]]:
    """What no loader can undercut on one thread: JPEG into place, zstd, and one write of every byte of the batch."""
    import pyarrow as pa
    import simplejpeg

    from manifests import codecs
    from manifests.dataset import Dataset
    from training import loader

    loader.tune_allocator()
    dataset = Dataset(work / "ours")
    rows = [{k: bytes(dataset.blob(i, k)) for k in FIELDS} for i in range(min(64, len(dataset)))]
    spec = loader.Planes(FIELDS).spec(dataset, 0)
    slab = {k: np.empty((BATCH, *shape), dtype) for k, (shape, dtype) in spec.items()}
    zstd = pa.Codec("zstd")
    place = 0
    while True:
        for row in rows:
            simplejpeg.decode_jpeg(row["image"], "RGB", buffer=slab["image"][place])
            for name in FIELDS[1:]:
                body = zstd.decompress(memoryview(row[name])[codecs.HEADER.size :], slab[name][place].nbytes)
                np.copyto(slab[name][place].reshape(-1), np.frombuffer(body, np.uint8))
            place = (place + 1) % BATCH
            if place == 0:
                yield slab


def _torch(rows: Any) -> Any:
    import torch

    return torch.utils.data.DataLoader(rows, batch_size=BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)


def _epochs(loader: Iterable[Any]) -> Iterable[Any]:
    while True:
        yield from loader


CONTESTANTS: dict[str, Callable[[Path], Iterable[dict[str, Any]]]] = {
    "ours, 2 threads": lambda work: ours(work, 2),
    "ours, 1 thread": lambda work: ours(work, 0),
    "floor, 1 thread": floor,
    "torch DataLoader over ours": torch_over_ours,
    "HF datasets": huggingface,
    "webdataset": webdataset,
    "mds": mds,
    "litdata": litdata,
}
OURS = ("ours, 2 threads", "ours, 1 thread", "floor, 1 thread")


def run_one(name: str, work: Path, seconds: float) -> float:
    """Samples a second after a warm-up of a fifth of the time."""
    warnings.simplefilter("ignore")
    counted, began = 0, 0.0
    start = time.perf_counter()
    for arrays in CONTESTANTS[name](work):
        assert arrays["image"].shape[0] == BATCH, arrays["image"].shape
        # A step reads its batch: touch every page, as a copy to a device would.
        sum(int(np.asarray(arrays[name]).reshape(-1)[::4096].sum()) for name in FIELDS)
        now = time.perf_counter()
        if not began and now - start > seconds / 5:
            began = now
        elif began:
            counted += BATCH
            if now - began > seconds:
                return counted / (now - began)
    raise AssertionError("contestants never end")


def _environment(name: str) -> dict[str, str]:
    path = [str(ROOT)]
    if name in ("webdataset", "mds", "litdata"):
        path += [str(PEERS), str(PEERS / "stub")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1"}


def install_peers() -> None:
    """The peers, without their dependencies, and a package named torchvision that holds what MDS imports at top level."""
    if (PEERS / "done").exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEERS)]
    subprocess.run([*command, "-r", str(ROOT / "benchmarks/peers.txt")], check=True)
    stub = PEERS / "stub/torchvision"
    (stub / "transforms").mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").write_text("")
    (stub / "transforms/__init__.py").write_text("")
    (stub / "datasets.py").write_text("class VisionDataset: ...\n")
    (stub / "transforms/functional.py").write_text("to_tensor = None\n")
    (PEERS / "done").write_text("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks/.work")
    parser.add_argument("--one", choices=CONTESTANTS)
    parser.add_argument("--write")
    given = parser.parse_args()
    if given.one:
        print(f"rate {run_one(given.one, given.work, given.seconds):.2f}", flush=True)
        # Loaders leave workers and threads that wait on each other at exit.
        os._exit(0)
    if given.write:
        write(given.write, given.work)
        return
    install_peers()
    given.work.mkdir(parents=True, exist_ok=True)
    make(given.work, given.samples)
    rates: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    failed: dict[str, str] = {}
    for _ in range(given.rounds):
        for name in CONTESTANTS:
            arguments = ["--one", name, "--work", str(given.work), "--seconds", str(given.seconds)]
            done = subprocess.run(
                [sys.executable, __file__, *arguments],
                env=_environment(name),
                capture_output=True,
                text=True,
                check=False,
            )
            line = next((li for li in done.stdout.splitlines() if li.startswith("rate ")), None)
            if line is None:
                failed[name] = (done.stderr.strip().splitlines() or ["no output"])[-1]
            else:
                rates[name].append(float(line.split()[1]))
    medians = {name: statistics.median(found) for name, found in rates.items() if found}
    for name, rate in sorted(medians.items(), key=lambda pair: -pair[1]):
        spread = f"{min(rates[name]):.0f}-{max(rates[name]):.0f}"
        print(f"{name:28} {rate:7.1f} samples/s  ({spread}, {len(rates[name])} rounds)")
    for name, why in failed.items():
        print(f"{name:28} did not run: {why}")
    rows = json.loads((given.work / "ours/manifest/00000000.json").read_text())
    size = sum(s["bytes"] for s in rows["shards"]) / rows["rows"]
    loose = float((given.work / "loose").read_text())
    print(f"bytes per sample: {size / 1e6:.2f} MB, Sapiens2's folders {loose / 1e6:.2f} MB: {size / loose:.3f} of them")
    share = medians["ours, 1 thread"] / medians["floor, 1 thread"]
    print(f"floor (JPEG + zstd + memory) on one thread: ours is at {share:.0%} of it")
    peers = {k: v for k, v in medians.items() if k not in OURS}
    ratio = medians["ours, 2 threads"] / max(peers.values())
    versions = {p: importlib.metadata.version(p) for p in ("torch", "pyarrow", "datasets", "numpy", "simplejpeg")}
    record = {
        "benchmark": "shards_vs_peers", "ratio": round(ratio, 3), "rates": {k: round(v, 1) for k, v in medians.items()},
        "failed": failed, "floor_share": round(share, 3), "bytes": round(size), "bytes_share": round(size / loose, 4),
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "versions": versions,
        "peers": [line for line in (ROOT / "benchmarks/peers.txt").read_text().splitlines() if "==" in line],
    }  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(f"best peer: {max(peers, key=lambda k: peers[k])}")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
