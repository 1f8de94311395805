"""Images a second of masked-autoencoder training: ours against transformers.ViTMAEForPreTraining, one thread, float32.

Both get the same weights, the same batches from our loader, the same masks and the same fused AdamW, and take turns step by
step in one process; the loss curves are compared. `--shape reference` is small enough that overheads count; `--shape small`
is ViT-S with Sapiens v1's decoder, where matrix products alone decide and both do nearly the same ones.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from manifests import codecs
from tests import samples
from training import data, loader, official, vit
from training.mae import MaskedAutoencoder

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results.jsonl"
PATCH, MASK, RATE, WARM_UP = 16, 0.75, 1.5e-4, 3
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
# encoder width, depth, heads; decoder width, depth, heads; picture side; batch
SHAPES = {"reference": (192, 4, 3, 96, 2, 3, 128, 32), "small": (384, 12, 6, 512, 8, 16, 224, 4)}
# (images, order, order's inverse) -> loss: ours takes the order itself, transformers numbers that sort into it.
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def contestants(shape: str, compiled: bool) -> dict[str, Step]:
    """name -> one training step (images, order) -> loss; all begin with the same weights."""
    import transformers

    dim, depth, heads, decoder_dim, decoder_depth, decoder_heads, side, _ = SHAPES[shape]
    config = transformers.ViTMAEConfig(
        hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim, image_size=side,
        patch_size=PATCH, decoder_hidden_size=decoder_dim, decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=4 * decoder_dim, mask_ratio=MASK,
        norm_pix_loss=True, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    weights = transformers.ViTMAEForPreTraining(config).state_dict()
    grid = (side // PATCH, side // PATCH)

    def theirs(compile: bool) -> Step:
        model = transformers.ViTMAEForPreTraining(config).train()
        model.load_state_dict(weights)
        run = torch.compile(model) if compile else model
        return _step(model, lambda images, order, noise: run(images, noise=noise).loss)

    def ours(compile: bool) -> Step:
        size = vit.Size(dim, depth, heads, PATCH)
        model = MaskedAutoencoder(size, decoder_dim, decoder_depth, MASK, decoder_heads=decoder_heads, grid=grid)
        model.load_state_dict(official.mae_state(official.recognise(weights)[1], model))
        run = torch.compile(model) if compile else model
        return _step(model, lambda images, order, noise: run(images, order)[0])

    made = {"transformers, eager": theirs(False), "ours, eager": ours(False)}
    return made | ({"transformers, compiled": theirs(True), "ours, compiled": ours(True)} if compiled else {})


def _step(model: torch.nn.Module, loss_of: Step) -> Step:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, fused=True)

    def step(images: torch.Tensor, order: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        loss = loss_of(images, order, noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def batches(rows: data.Rows, side: int, batch: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Images (B, 3, side, side), orders (B, N) and the seconds waited for them, from the trainer's loader on one thread."""
    patches = (side // PATCH) ** 2

    def make(_: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        picture = codecs.decode_image(row["image"]["bytes"])
        height, width = picture.shape[:2]
        cut = int(min(height, width) * np.sqrt(rng.uniform(0.2, 1)))
        x, y = int(rng.integers(width - cut + 1)), int(rng.integers(height - cut + 1))
        picture = cv2.resize(picture[y : y + cut, x : x + cut], (side, side), interpolation=cv2.INTER_AREA)
        picture = picture[:, :: -1 if rng.random() < 0.5 else 1]
        return {"image": ((picture - MEAN) / STD).transpose(2, 0, 1), "order": rng.permutation(patches)}

    order, find = rows.order(0)
    for arrays, waited in loader.batches(rows.sets, order, loader.Copied(make), batch, range(steps), 1, find=find):
        yield torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["order"]), waited


def compare(steps: dict[str, Step], rows: data.Rows, side: int, batch: int, count: int) -> tuple[dict, dict, dict]:
    """Per contestant: seconds and processor seconds of each step after the warm-up, and the whole loss curve."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    busy: dict[str, list[float]] = {name: [] for name in steps}
    curves: dict[str, list[float]] = {name: [] for name in steps}
    for i, (images, order, _) in enumerate(batches(rows, side, batch, count + WARM_UP)):
        # Each goes first as often as the others: what runs after a rest of the cache is slower.
        noise = order.argsort(dim=1).float()
        names = list(steps)[i % len(steps) :] + list(steps)[: i % len(steps)]
        for name in names:
            start, began = time.perf_counter(), time.thread_time()
            loss = steps[name](images, order, noise)
            if i >= WARM_UP:
                wall[name].append(time.perf_counter() - start)
                busy[name].append(time.thread_time() - began)
            curves[name].append(float(loss))
    return wall, busy, curves


def data_wait(step: Step, rows: data.Rows, side: int, batch: int, count: int) -> float:
    """Share of a run in which the step waits for its batch, the loader decoding beside it on one thread."""
    waits, start = 0.0, 0.0
    for i, (images, order, waited) in enumerate(batches(rows, side, batch, count + WARM_UP)):
        if i == WARM_UP:
            waits, start = 0.0, time.perf_counter()
        waits += waited if i > WARM_UP else 0.0
        step(images, order, order)
    return waits / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="reference")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--eager-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    # Peers run from what is on this machine alone.
    os.environ["HF_HUB_OFFLINE"] = "1"
    *_, side, batch = SHAPES[given.shape]
    with tempfile.TemporaryDirectory() as folder:
        samples.dataset(Path(folder) / "set", 64)
        rows = data.Rows([Path(folder) / "set"], "train")
        steps = contestants(given.shape, not given.eager_only)
        wall, busy, curves = compare(steps, rows, side, batch, given.steps)
        wait = data_wait(steps["ours, eager"], rows, side, batch, given.steps)
    base = "transformers, eager"
    middle, processor = ({k: statistics.median(v) for k, v in found.items()} for found in (wall, busy))
    for name in steps:
        print(
            f"{name:24} {batch / middle[name]:7.1f} images/s  ({1e3 * middle[name]:.1f} ms a step, {1e3 * processor[name]:.1f} ms"
            f" of processor; best {1e3 * min(wall[name]):.1f})  {middle[base] / middle[name]:.2f} x transformers eager"
        )
    for name, curve in curves.items():
        print(f"loss of {name:24}", " ".join(f"{v:.4f}" for v in curve[:: max(1, len(curve) // 8)]))
    apart = max(abs(a / b - 1) for name in steps for a, b in zip(curves[name], curves[base]))
    print(f"largest difference between the loss curves: {apart:.1e} of the loss, over {len(curves[base])} steps")
    print(f"data wait: {wait:.2%} of a step")
    ratios = {
        "eager": middle[base] / middle["ours, eager"],
        "eager_processor": processor[base] / processor["ours, eager"],
    }
    if not given.eager_only:
        ratios["compiled_to_eager"] = middle[base] / middle["ours, compiled"]
        ratios["compiled"] = middle["transformers, compiled"] / middle["ours, compiled"]
        ratios["compiled_to_eager_processor"] = processor[base] / processor["ours, compiled"]
    for name, value in ratios.items():
        print(f"{name}: {value:.3f}")
    record = {
        "benchmark": "mae_vs_peers", "shape": given.shape, "ratio": round(ratios["eager"], 3),
        "ratios": {k: round(v, 3) for k, v in ratios.items()}, "data_wait": round(wait, 5), "curves_apart": apart,
        "images_per_s": {k: round(batch / v, 1) for k, v in middle.items()}, "steps": given.steps,
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "numpy")},
    }  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(f"ratio {ratios['eager']:.2f}")


if __name__ == "__main__":
    main()
