"""Rows in an order -> batches in reused slabs of memory, decoded ahead of the step by threads.

One thread a core decodes straight into the batch: no worker processes, no collating, no copy between them. Fresh pages
cost more than decoding does: a page fault takes 1 to 2 microseconds, and a 1024x768 sample has 2,000 pages.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from manifests import codecs
from manifests.dataset import Dataset
from manifests.errors import InputError, MaquetteError, ShardError
from manifests.seeds import generator
from training.order import Order

# One slab is with the trainer, one ready, two being filled.
SLABS = 4
CODED = {
    "depth": (codecs.DEPTH_U16,),
    "normal": (codecs.NORMAL_OCT12,),
    "normal_shading": (codecs.NORMAL_OCT12,),
    **dict.fromkeys(("alpha", "mask", "segmentation"), (codecs.PLANE_U8,)),
}
Spec = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Maker(Protocol):
    """What turns row ``row`` of ``dataset`` into the arrays of one place of a batch."""

    def spec(self, dataset: Dataset, row: int) -> Spec:
        """name -> (shape, dtype) of one sample's arrays; the same for every row."""

    def fill(self, dataset: Dataset, row: int, rng: np.random.Generator, out: dict[str, np.ndarray]) -> None:
        """Write the sample into ``out``; all draws come from ``rng``."""


class Copied:
    """A Maker around a plain function (kind, row, rng) -> dict of arrays: they are copied into the batch."""

    def __init__(self, make: Callable[[str, dict[str, Any], np.random.Generator], dict[str, np.ndarray]]) -> None:
        self._make = make

    def spec(self, dataset: Dataset, row: int) -> Spec:
        made = self._make(dataset.kind, dataset[row], generator("spec"))
        return {k: (v.shape, v.dtype) for k, v in made.items()}

    def fill(self, dataset: Dataset, row: int, rng: np.random.Generator, out: dict[str, np.ndarray]) -> None:
        for name, value in self._make(dataset.kind, dataset[row], rng).items():
            if out[name].shape != value.shape:
                raise InputError(f"{name} of row {row} of {dataset.url} is {value.shape}, the batch {out[name].shape}")
            np.copyto(out[name], value, casting="same_kind")


class Planes:
    """A Maker for devices that decode by themselves (training/decode.py): pictures as (H, W, 3) uint8, coded fields as
    their (P, H, W) uint8 byte planes, ``depth_z0`` and ``depth_step`` () float32. Rows must be of one size.
    """

    def __init__(self, fields: tuple[str, ...] = ("image", "depth", "normal", "alpha", "mask")) -> None:
        self._fields = fields

    def spec(self, dataset: Dataset, row: int) -> Spec:
        label = dataset.labels[row]
        h, w = label["height"], label["width"]
        found: Spec = {}
        for name in self._fields:
            if name == "image":
                found[name] = ((h, w, 3), np.dtype(np.uint8))
            else:
                found[name] = ((codecs.PLANES[CODED[name][0]], h, w), np.dtype(np.uint8))
        if "depth" in self._fields:
            found |= {"depth_z0": ((), np.dtype(np.float32)), "depth_step": ((), np.dtype(np.float32))}
        return found

    def fill(self, dataset: Dataset, row: int, rng: np.random.Generator, out: dict[str, np.ndarray]) -> None:
        batch, at = dataset.batch(row)
        for name in self._fields:
            column = batch.column(name)
            value = (column.field("bytes") if name == "image" else column)[at]
            if not value.is_valid:
                raise InputError(f"row {row} of {dataset.url} has no {name}; leave it out of the fields")
            if name == "image":
                codecs.decode_image(memoryview(value.as_buffer()), out[name])
            else:
                data = memoryview(value.as_buffer())
                head, planes = codecs.read_planes(data, CODED[name], *out[name].shape[1:])
                np.copyto(out[name], planes)
                if name == "depth":
                    out["depth_z0"][...], out["depth_step"][...] = head.z0, head.step


def batches(
    datasets: list[Dataset],
    order: Order,
    maker: Maker,
    batch: int,
    steps: range,
    threads: int | None = None,
    rank: int = 0,
    world: int = 1,
    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """Yield (arrays of this rank's part, seconds waited) for each step; name -> (K, ...) arrays.

    The arrays are views of a slab that is filled again once the next batch is asked for: copy what must stay.
    ``find``: positions -> (datasets, rows), the order itself by default. ``threads``: 0 decodes in the caller, None one
    per core that this rank may use, less the trainer's. Raises ShardError, naming the sample, when stored bytes do
    not decode.
    """
    tune_allocator()
    if threads is None:
        threads = max(1, min(16, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 1))
    find = find or order
    first, _ = find(np.array([0]))
    spec = maker.spec(datasets[int(first[0])], 0)
    places = len(order.batch(0, batch, rank, world))
    slabs = [_slab(spec, places) for _ in range(SLABS if threads else 1)]

    def one(slab: dict[str, np.ndarray], place: int, position: int, source: int, row: int) -> None:
        rng = generator(order.seed, "sample", position)
        try:
            maker.fill(datasets[source], row, rng, {k: v[place, ...] for k, v in slab.items()})
        except ShardError as error:
            name = datasets[source].labels[row]["sample_id"]
            raise ShardError(f"sample {name} of {datasets[source].url}: {error}; run `maquette verify`") from None

    def tasks(step: int) -> list[tuple[int, int, int, int]]:
        positions = order.batch(step, batch, rank, world)
        sources, rows = find(positions)
        return [(i, int(p), int(s), int(r)) for i, (p, s, r) in enumerate(zip(positions, sources, rows))]

    if not threads:
        for step in steps:
            start = time.perf_counter()
            for task in tasks(step):
                one(slabs[0], *task)
            yield slabs[0], time.perf_counter() - start
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        free, upcoming = deque(slabs), iter(steps)
        flying: deque[tuple[dict[str, np.ndarray], list[Future[None]]]] = deque()

        def launch() -> None:
            while free and (step := next(upcoming, None)) is not None:
                slab = free.popleft()
                flying.append((slab, [pool.submit(one, slab, *task) for task in tasks(step)]))

        launch()
        while flying:
            slab, futures = flying.popleft()
            start = time.perf_counter()
            for future in futures:
                future.result()
            yield slab, time.perf_counter() - start
            free.append(slab)
            launch()
    finally:
        pool.shutdown(cancel_futures=True)


def on_device(
    made: Iterator[tuple[dict[str, np.ndarray], float]], device: torch.device
) -> Iterator[tuple[dict[str, Tensor], float]]:
    """Batches as tensors of ``device``: one copy per modality, on a stream of its own, while the step before computes."""
    if device.type != "cuda":
        for arrays, waited in made:
            yield {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}, waited
        return
    stream = torch.cuda.Stream(device)
    for arrays, waited in made:
        with torch.cuda.stream(stream):
            tensors = {k: torch.from_numpy(v).to(device, non_blocking=True) for k, v in arrays.items()}
            copied = stream.record_event()
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in tensors.values():
            tensor.record_stream(current)
        yield tensors, waited
        # The slab may be filled again once it has left this memory.
        copied.synchronize()


def tune_allocator() -> bool:
    """Make glibc keep freed memory instead of giving pages back and faulting them in again; False without glibc.

    1.6 times the decoding rate for decoders that return fresh arrays (measured at 1024x768).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD of malloc.h.
    return all([mallopt(-3, 1 << 30), mallopt(-1, 2**31 - 1), mallopt(-2, 64 << 20)])


class Samples(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A plain torch dataset over rendered rows, for any DataLoader: fork and spawn safe, whole floats.

    ``image`` (3, H, W) uint8 sRGB; ``depth`` (1, H, W) float32 metres; ``normal`` (3, H, W) float32, OpenCV camera
    frame; ``alpha``, ``mask`` (1, H, W) uint8; ``K`` (3, 3) float64 px; ``segmentation`` where the row has one.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        try:
            sample = self.dataset.sample(i)
        except MaquetteError as error:
            raise type(error)(f"row {i} of {self.dataset.url}: {error}") from None
        made = {
            "image": torch.from_numpy(sample.image).permute(2, 0, 1),
            "depth": torch.from_numpy(sample.depth)[None],
            "normal": torch.from_numpy(sample.normal).permute(2, 0, 1),
            "K": torch.from_numpy(sample.K),
        }
        for name in ("alpha", "mask", "segmentation"):
            if getattr(sample, name) is not None:
                made[name] = torch.from_numpy(np.array(getattr(sample, name)))[None]
        return made


def _slab(spec: Spec, places: int) -> dict[str, np.ndarray]:
    """Memory for one batch, pinned where there is a GPU to copy it to."""
    pinned = torch.cuda.is_available()
    made = {}
    for name, (shape, dtype) in spec.items():
        if pinned:
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            made[name] = torch.empty((places, *shape), dtype=kind, pin_memory=True).numpy()
        else:
            made[name] = np.empty((places, *shape), dtype)
    return made
