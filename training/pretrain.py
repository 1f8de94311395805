"""Pictures of datasets -> a pre-trained encoder, by masked autoencoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests.errors import JobError
from training import data, loop, schedule, team
from training.budget import MAE, Budget, Shape, budget
from training.fit import fitted
from training.loader import Copied
from training.mae import MaskedAutoencoder
from training.settings import Pretrain, digest, folders
from training.sources import PictureSources
from training.transforms import pretrain_sample
from training.vit import SIZES


def pretrain(run: Path, settings: Pretrain) -> Path:
    """Train to the end, or go on; returns ``run``/pretrain/model.safetensors. Held-out people are not looked at."""
    size = SIZES[settings.model]
    check_grid(settings.width, settings.height, size.patch, "pretrain")
    if settings.augment.backgrounds:
        raise JobError("pretrain.augment.backgrounds: photographs have no coverage to paste by; leave it out")
    me = team.join(settings.compute)
    shape = (settings.height, settings.width)
    dtype = team.precision(settings.compute, me.device)
    wanted = Shape(
        mask_ratio=settings.mask_ratio, decoder_dim=settings.decoder_dim, decoder_depth=settings.decoder_depth,
        cross=settings.decoder == "cross", predict=settings.predict,
    )  # fmt: skip

    def estimate(batch: int, checkpointing: bool) -> Budget:
        return budget(settings.model, *shape, batch, MAE, checkpointing, dtype, wanted, settings.optim.ema > 0)

    compute = fitted(settings.compute, settings.optim.batch, estimate, me)
    rows = data.Rows(folders(run, settings.data), "train", settings.weights)
    torch.manual_seed(settings.seed)
    model = MaskedAutoencoder(
        size, settings.decoder_dim, settings.decoder_depth, settings.mask_ratio,
        cross=wanted.cross, predict=settings.predict,
    )  # fmt: skip
    patches = (settings.width // size.patch) * (settings.height // size.patch)

    def make(kind: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return pretrain_sample(data.picture(kind, row), rng, shape, patches, settings.augment)

    sources = PictureSources(shape, patches, settings.augment)
    on_gpu = me.device.type == "cuda"
    order, find = rows.order(settings.seed)
    return loop.run(
        loop.Training(
            folder=run / "pretrain",
            title="pretrain",
            model=model,
            groups=lambda m: schedule.parameter_groups(m, settings.optim.weight_decay),
            optim=settings.optim,
            compute=compute,
            schedule=schedule.cosine(settings.optim),
            order=order,
            batches=lambda steps, who: data.stream(
                rows, order, find, sources if on_gpu else Copied(make), settings.optim.batch, steps, compute, who
            ),
            view=sources.view if on_gpu else loop.as_they_are,
            loss_of=lambda module, batch: module(batch["image"], batch["order"])[0],
            flops=estimate(1, False).flops_per_image,
            digest=digest(settings, rows.identity, dtype),
        ),
        me,
    )


def check_grid(width: int, height: int, patch: int, where: str) -> None:
    """Raise JobError unless the picture is whole patches."""
    if width % patch or height % patch:
        raise JobError(f"{where}: {width}x{height} is not whole patches of {patch} px; use multiples of {patch}")
