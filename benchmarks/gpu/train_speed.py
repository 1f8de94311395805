"""What one GPU makes of training: share of its measured matrix rate, images a second, memory, resume.

Needs torch, numpy, pyarrow, cv2 and safetensors.
`python benchmarks/gpu/train_speed.py` from the repository's root. Every row is a real training step: bfloat16 autocast,
blocks compiled, fused AdamW, weights that change. FLOPs are those executed in the forward pass times three; what
checkpointing or flash attention compute again does not count. Without a GPU it runs at toy size, to show that it runs: those figures
say nothing and are not recorded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training import budget, checkpoint, vit  # noqa: E402
from training.backbones import SIZES, encoder  # noqa: E402
from training.guard import Average, Guard  # noqa: E402
from training.heads import DenseModel  # noqa: E402
from training.mae import MaskedAutoencoder  # noqa: E402
from training.modern import Modern  # noqa: E402

RESULTS = Path(__file__).parent / "results.jsonl"
# An H100's or H200's datasheet, dense; what it reaches is measured below.
DATASHEET_TFLOPS = {"NVIDIA H100": 989, "NVIDIA H200": 989, "NVIDIA A100": 312}
# name, size, task, (H, W), batches to try from the largest, shape
GPU_ROWS = [
    ("0.3B MAE", "large", "mae", (1024, 1024), (64, 48, 32, 16, 8), budget.Shape()),
    ("0.3B MAE, cross decoder, quarter", "large", "mae", (1024, 1024), (96, 64, 32, 16), budget.Shape(cross=True, predict=1 / 3)),
    ("0.6B MAE", "0.6b", "mae", (1024, 1024), (48, 32, 16, 8), budget.Shape()),
    ("1B MAE", "1b", "mae", (1024, 1024), (32, 16, 8, 4), budget.Shape()),
    ("2B MAE", "2b", "mae", (1024, 1024), (16, 8, 4), budget.Shape()),
    ("0.3B normals, light head", "large", "normal", (1024, 768), (24, 16, 8, 4), budget.Shape()),
    ("0.3B normals, v1 head", "large", "normal", (1024, 768), (12, 8, 4, 2), budget.Shape(head="deconv")),
    ("0.6B normals, light head", "0.6b", "normal", (1024, 768), (16, 8, 4), budget.Shape()),
    ("1B normals, light head", "1b", "normal", (1024, 768), (12, 8, 4, 2), budget.Shape()),
    ("2B normals, light head", "2b", "normal", (1024, 768), (6, 4, 2, 1), budget.Shape()),
    ("Sapiens2 0.4B normals, its head", "sapiens2-0.4b", "normal", (1024, 768), (16, 12, 8, 4, 2), budget.Shape(head="sapiens2", head_width=0)),
    ("Sapiens2 0.4B normals, light head", "sapiens2-0.4b", "normal", (1024, 768), (24, 16, 8, 4), budget.Shape()),
    ("Sapiens2 1B normals, its head", "sapiens2-1b", "normal", (1024, 768), (8, 6, 4, 2, 1), budget.Shape(head="sapiens2", head_width=0)),
    ("Sapiens2 0.4B MAE", "sapiens2-0.4b", "mae", (1024, 768), (64, 48, 32, 16), budget.Shape()),
]  # fmt: skip
CPU_ROWS = [
    ("tiny MAE", "tiny", "mae", (64, 64), (4,), budget.Shape(decoder_dim=96, decoder_depth=2)),
    ("tiny normals, light head", "tiny", "normal", (64, 48), (2,), budget.Shape(head_width=32)),
    (
        "Sapiens2 tiny normals, its head",
        "sapiens2-tiny",
        "normal",
        (64, 48),
        (2,),
        budget.Shape(head="sapiens2", head_width=32),
    ),
]


def matmul_tflops(device: torch.device) -> float:
    """The best of square bfloat16 products, at the sizes that training meets."""
    best = 0.0
    for n in (4096, 8192, 16384) if device.type == "cuda" else (512,):
        a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
        b = torch.randn(n, n, device=device, dtype=torch.bfloat16)
        seconds = statistics.median(timed(lambda a=a, b=b: a @ b, device, 20))
        best = max(best, 2 * n**3 / seconds / 1e12)
    return best


def timed(run: Any, device: torch.device, count: int) -> list[float]:
    """Seconds of each of ``count`` calls, after three; of the device's own clock where it has one."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        found = []
        for _ in range(count):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks)]


def build(size: str, task: str, shape: budget.Shape) -> torch.nn.Module:
    """The model of a row."""
    s = SIZES[size]
    if task == "mae":
        return MaskedAutoencoder(
            s,
            shape.decoder_dim,
            shape.decoder_depth,
            shape.mask_ratio,
            cross=shape.cross,
            predict=shape.predict,
            inner=encoder(s) if isinstance(s, Modern) else None,
        )
    return DenseModel(s, task, shape.head_width, head=shape.head)


class Trial:
    """A model and its optimiser on fixed made pictures; ``step`` trains."""

    def __init__(self, row: tuple, batch: int, checkpointing: bool, compiled: bool, device: torch.device) -> None:
        _, size, self.task, (height, width), _, shape = row
        torch.manual_seed(0)
        self.device = device
        self.model = build(size, self.task, shape).to(device)
        vit.set_checkpointing(self.model, checkpointing)
        if compiled:
            vit.compile_blocks(self.model)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        rng = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, height, width, generator=rng).to(device)
        patches = height * width // SIZES[size].patch ** 2
        self.order = torch.rand(batch, patches, generator=rng).argsort(dim=1).to(device)
        self.target = torch.nn.functional.normalize(self.images, dim=1)

    def step(self) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            if self.task == "mae":
                loss = self.model(self.images, self.order)[0]
            else:
                loss = (1 - (self.model(self.images) * self.target).sum(dim=1)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def measure(row: tuple, compiled: bool, peak: float, device: torch.device, count: int) -> dict[str, Any]:
    """The row's figures at the largest batch that fits, without checkpointing where one fits without."""
    name, size, task, (height, width), tried, shape = row
    for checkpointing in (False, True):
        for batch in tried:
            found = budget.budget(size, height, width, batch, task, checkpointing, "bfloat16", shape)
            trial = None
            try:
                trial = Trial(row, batch, checkpointing, compiled, device)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds = statistics.median(timed(trial.step, device, count))
            except torch.cuda.OutOfMemoryError:
                trial = None
                free(device)
                continue
            done = found.flops_per_image * batch / seconds / 1e12
            held = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            return {
                "row": name, "batch": batch, "checkpointing": checkpointing, "compiled": compiled, "ms": round(1e3 * seconds, 2),
                "images_per_s": round(batch / seconds, 2), "tflops": round(done, 1), "share": round(done / peak, 4),
                "peak_gb": round(held / 1e9, 2), "budget_gb": round(found.total_bytes / 1e9, 2),
                "parameters": found.parameters,
            }  # fmt: skip
    return {"row": name, "failed": "no batch fits"}


def resumes(device: torch.device) -> dict[str, Any]:
    """Ten steps against five, a checkpoint, a new model, and five: seconds to save and load, and how far weights differ."""
    row = CPU_ROWS[0]
    whole = Trial(row, 4, False, False, device)
    for _ in range(10):
        whole.step()
    first, second = Trial(row, 4, False, False, device), Trial(row, 4, False, False, device)
    for _ in range(5):
        first.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step_00000005.safetensors"
        start = time.perf_counter()
        kept(first).save(path, {"step": 5}, True)
        saved = time.perf_counter()
        kept(second).load(path)
        loaded = time.perf_counter()
    for _ in range(5):
        second.step()
    apart = max(
        float((a - b).detach().abs().max()) for a, b in zip(whole.model.parameters(), second.model.parameters())
    )
    return {
        "row": "resume",
        "save_s": round(saved - start, 3),
        "load_s": round(loaded - saved, 3),
        "weights_apart": apart,
    }


def kept(trial: Trial) -> checkpoint.Kept:
    """What the trainer's own checkpoint holds of a trial."""
    guard = Guard(0.0, trial.device)
    return checkpoint.Kept(trial.model, trial.optimiser, Average(trial.model, 0.0), guard)


def free(device: torch.device) -> None:
    """Give back what a failed attempt held."""
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="rows whose name holds this")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="do not compile blocks")
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name() if cuda else "CPU at toy size: these figures say nothing about training"
    torch.backends.cuda.matmul.allow_tf32 = True
    peak = matmul_tflops(device)
    sheet = next((v for k, v in DATASHEET_TFLOPS.items() if name.startswith(k)), None)
    print(
        f"{name}; torch {torch.__version__}; bfloat16 product {peak:.1f} TFLOP/s measured, datasheet {sheet or 'not known'}"
    )
    rows = [r for r in (GPU_ROWS if cuda else CPU_ROWS) if not given.only or given.only in r[0]]
    found = []
    for row in rows:
        result = measure(row, cuda and not given.eager, peak, device, given.steps if cuda else 3)
        free(device)
        found.append(result)
        if "failed" in result:
            print(f"{row[0]:34} {result['failed']}")
            continue
        sheet_share = f", {result['tflops'] / sheet:.0%} of the datasheet's" if sheet else ""
        print(
            f"{row[0]:34} batch {result['batch']:3}{' checkpointed' if result['checkpointing'] else ''}: {result['images_per_s']:.1f}"
            f" images/s, {result['tflops']:.1f} TFLOP/s = {result['share']:.1%} of the measured rate{sheet_share};"
            f" {result['peak_gb']:.1f} GB (budget {result['budget_gb']:.1f})", flush=True,
        )  # fmt: skip
    back = resumes(device)
    print(
        f"resume: saved in {back['save_s']} s, loaded in {back['load_s']} s, weights differ by {back['weights_apart']:.1e}"
    )
    if cuda:
        record = {
            "benchmark": "train_speed", "device": name, "torch": torch.__version__, "matmul_tflops": round(peak, 1),
            "datasheet_tflops": sheet, "rows": [*found, back], "cores": os.cpu_count(),
        }  # fmt: skip
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    shares = [r["share"] for r in found if "share" in r]
    if shares:
        print(f"ratio {shares[0]:.2f}")


if __name__ == "__main__":
    main()
