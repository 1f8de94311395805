"""The commands about models and their weights: words on a command line -> a table of budgets, or a file in another layout."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from manifests.errors import InputError

# The published names of the sizes that Sapiens v1 and 2 have.
SAPIENS_NAMES = {"large": "0.3B", "0.6b": "0.6B", "1b": "1B", "2b": "2B"}
SAPIENS_NAMES |= {f"sapiens2-{n.lower()}": n for n in ("0.1B", "0.4B", "0.8B", "1B", "1B-4K", "5B")}
HEADS = ("light", "deconv", "sapiens2", "dpt")
DENSE_TASK = "normal"


def models(
    pretrain_at: Annotated[str, typer.Option(metavar="HxW", help="picture of pre-training")] = "1024x1024",
    finetune_at: Annotated[str, typer.Option(metavar="HxW", help="picture of fine-tuning")] = "1024x768",
    batch: Annotated[int, typer.Option(min=1, help="pictures a step")] = 1,
    head: Annotated[str, typer.Option(help="light, dpt, or Sapiens's own: deconv (v1), sapiens2")] = "light",
    precision: Annotated[str, typer.Option(help="bfloat16 or float32")] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="exact numbers for programs")] = False,
) -> None:
    """List the backbones: parameters, work and memory of a training step, by formula."""
    if head not in HEADS:
        raise InputError(f"--head {head}: expected {', '.join(HEADS)}")
    places = {"mae": _pair(pretrain_at, "--pretrain-at"), DENSE_TASK: _pair(finetune_at, "--finetune-at")}
    rows = [_row(size, places, batch, head, precision) for size in _sizes()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for name in ("Sapiens", "blocks", "encoder", "MAE\nTFLOP", "GB", "GB ck", "dense\nTFLOP", "GB", "GB ck"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["model"], row["sapiens"] or "", f"{row['dim']}x{row['depth']}"]
        cells.append(f"{row['encoder_parameters'] / 1e6:.1f} M")
        for task in places:
            plain, again = (row[task][k] for k in ("plain", "checkpointed"))
            cells += [
                f"{plain['flops_per_image'] / 1e12:.2f}",
                *(f"{k['total_bytes'] / 1e9:.1f}" for k in (plain, again)),
            ]
        table.add_row(*cells)
    # A pipe has no width of its own: names and numbers shall not be cut there.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"MAE at {pretrain_at}, dense (normals, {head} head) at {finetune_at}. TFLOP: one picture, forward and backward. GB: a step "
        f"of batch {batch} in {precision}, weights, AdamW and activations; ck = with activation checkpointing.",
        highlight=False,
    )


def weights(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="model.safetensors of a run")],
    out: Annotated[Path, typer.Option(help="the file to write, .safetensors")],
    layout: Annotated[
        str, typer.Option(help="sapiens-v1, sapiens2, dinov2, dinov3: the encoder; vitmae: a whole masked autoencoder")
    ] = "sapiens-v1",
    grid: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLUMNS", help="of its positions; default: as trained")
    ] = None,
) -> None:
    """Write a run's weights under the names that Sapiens, DINO or transformers' ViTMAE know."""
    from safetensors.torch import save_file

    from training import official

    if layout not in official.LAYOUTS:
        raise InputError(f"--layout {layout}: expected {', '.join(official.LAYOUTS)}")
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such file; give RUN/pretrain/model.safetensors")
    tensors = official.export(checkpoint, layout, _pair(grid, "--grid") if grid else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata={"format": "pt"})
    typer.echo(
        f"{out}: {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} parameters, layout {layout}"
    )


def _sizes() -> list[str]:
    from training.backbones import SIZES

    return list(SIZES)


def _row(size: str, places: dict[str, tuple[int, int]], batch: int, head: str, precision: str) -> dict[str, Any]:
    from training import budget
    from training.backbones import SIZES
    from training.heads import stride_of

    s, stride = SIZES[size], stride_of(SIZES[size])
    row: dict[str, Any] = {"model": size, "sapiens": SAPIENS_NAMES.get(size), **dataclasses.asdict(s)}
    # A torch type has no place in JSON.
    row.pop("rope", None)
    height, width = places["mae"]
    row["encoder_parameters"] = budget.official_parameters(size, (height // s.patch, width // s.patch))
    for task, pair in places.items():
        # Patches of 14 px: the nearest whole number of them.
        height, width = (max(1, round(side / stride)) * stride for side in pair)
        row[task] = {"height": height, "width": width, "batch": batch}
        for word, checkpointing in (("plain", False), ("checkpointed", True)):
            found = budget.budget(size, height, width, batch, task, checkpointing, precision, budget.Shape(head=head))
            row[task][word] = {**dataclasses.asdict(found), "total_bytes": found.total_bytes}
    return row


def _pair(text: str, option: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise InputError(f"{option} {text}: expected two numbers such as 1024x768")
    return int(match[1]), int(match[2])


COMMANDS = (models, weights)
