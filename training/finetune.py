"""Rendered samples and an encoder -> a model of one dense task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests.errors import InputError
from training import data, loop, official
from training.heads import build
from training.losses import LOSSES
from training.pretrain import check_grid
from training.settings import Finetune, digest, folders
from training.transforms import dense_sample
from training.vit import SIZES


def finetune(run: Path, settings: Finetune) -> Path:
    """Train to the end, or go on; returns ``run``/finetune/NAME/model.safetensors."""
    size = SIZES[settings.model]
    check_grid(settings.width, settings.height, size.patch, f"finetune {settings.name}")
    rows = data.Rows(folders(run, settings.data), "train", settings.weights)
    torch.manual_seed(settings.seed)
    model = build(settings)
    source = []
    if settings.init != "random":
        start = run / "pretrain/model.safetensors" if settings.init == "pretrain" else Path(settings.init)
        if not start.is_file():
            raise InputError(
                f"finetune {settings.name}: init {start} does not exist; run pretrain first, or set init: random"
            )
        official.load_encoder(start, model)
        source = [_weights_id(start)]

    def make(kind: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return dense_sample(row, rng, (settings.height, settings.width), settings.task)

    loss = LOSSES[settings.task]
    return loop.run(
        folder=run / "finetune" / settings.name,
        model=model,
        groups=loop.parameter_groups(model, settings.optim.weight_decay, settings.layer_decay),
        optim=settings.optim,
        schedule=loop.linear(settings.optim),
        batches=lambda steps: data.stream(rows, make, settings.seed, settings.optim.batch, steps),
        loss_of=lambda batch: loss(model(batch["image"]), batch["target"], batch["mask"]),
        digest=digest(settings, [*rows.identity, *source]),
        title=settings.name,
    )


def _weights_id(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
