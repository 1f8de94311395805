"""Pictures of datasets -> a pre-trained encoder, by masked autoencoding."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from manifests.errors import JobError
from training import data, loop
from training.mae import MaskedAutoencoder
from training.settings import Pretrain, digest, folders
from training.transforms import pretrain_sample
from training.vit import SIZES


def pretrain(run: Path, settings: Pretrain) -> Path:
    """Train to the end, or go on; returns ``run``/pretrain/model.safetensors. Held-out people are not looked at."""
    size = SIZES[settings.model]
    check_grid(settings.width, settings.height, size.patch, "pretrain")
    rows = data.Rows(folders(run, settings.data), "train", settings.weights)
    torch.manual_seed(settings.seed)
    model = MaskedAutoencoder(size, settings.decoder_dim, settings.decoder_depth, settings.mask_ratio)
    patches = (settings.width // size.patch) * (settings.height // size.patch)
    make = functools.partial(
        pretrain_sample, size=(settings.height, settings.width), crop_scale=settings.crop_scale, patches=patches
    )
    return loop.run(
        folder=run / "pretrain",
        model=model,
        groups=loop.parameter_groups(model, settings.optim.weight_decay),
        optim=settings.optim,
        schedule=loop.cosine(settings.optim),
        batches=lambda steps: data.stream(rows, make, settings.seed, settings.optim.batch, steps),
        loss_of=lambda batch: model(batch["image"], batch["order"])[0],
        digest=digest(settings, rows.identity),
        title="pretrain",
    )


def check_grid(width: int, height: int, patch: int, where: str) -> None:
    """Raise JobError unless the picture is whole patches."""
    if width % patch or height % patch:
        raise JobError(f"{where}: {width}x{height} is not whole patches of {patch} px; use multiples of {patch}")
