"""Pictures of datasets -> a pre-trained encoder, by masked autoencoding, alone or with self-distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from manifests.errors import JobError
from training import data, loop, schedule, team
from training.backbones import SIZES
from training.budget import MAE, Budget, Shape, budget
from training.fit import fitted
from training.loader import Copied
from training.mae import MaskedAutoencoder
from training.modern import Modern, ModernEncoder
from training.selfdistil import SelfDistilled
from training.settings import Pretrain, digest, folders
from training.sources import PictureSources
from training.team import Team
from training.transforms import distilled_sample, pretrain_sample
from training.vit import Size


def pretrain(run: Path, settings: Pretrain) -> Path:
    """Train to the end, or go on; returns ``run``/pretrain/model.safetensors. Held-out people are not looked at."""
    size = SIZES[settings.model]
    check(settings, size)
    me = team.join(settings.compute)
    shape = (settings.height, settings.width)
    dtype = team.precision(settings.compute, me.device)
    wanted = Shape(
        mask_ratio=settings.mask_ratio, decoder_dim=settings.decoder_dim, decoder_depth=settings.decoder_depth,
        cross=settings.decoder == "cross", predict=settings.predict, twice=settings.objective == "sapiens2",
        locals=settings.distilled.locals, local=(settings.distilled.local_height, settings.distilled.local_width),
    )  # fmt: skip

    def estimate(batch: int, checkpointing: bool) -> Budget:
        return budget(settings.model, *shape, batch, MAE, checkpointing, dtype, wanted, settings.optim.ema > 0)

    compute = fitted(settings.compute, settings.optim.batch, estimate, me)
    rows = data.Rows(folders(run, settings.data), "train", settings.weights, weighted=settings.weighted)
    torch.manual_seed(settings.seed)
    model = built(settings, size)
    grid = (settings.height // size.patch, settings.width // size.patch)
    two = settings.objective == "sapiens2"

    def make(kind: str, row: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        rgb = data.picture(kind, row)
        if two:
            return distilled_sample(rgb, rng, shape, grid, settings.augment, settings.mask_ratio, settings.distilled)
        return pretrain_sample(rgb, rng, shape, grid[0] * grid[1], settings.augment)

    # Views of several sizes are made by the processor.
    on_gpu = me.device.type == "cuda" and not two
    sources = PictureSources(shape, grid[0] * grid[1], settings.augment) if on_gpu else Copied(make)
    order, find = rows.order(settings.seed)
    identity = list(rows.identity)
    if two:
        # KoLeo compares the pictures of one part: how a batch is shared out is part of what is learnt.
        identity.append(f"shared out over {me.world} x {compute.accumulate}")
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
                rows, order, find, sources, settings.optim.batch, steps, compute, who
            ),
            view=sources.view if isinstance(sources, PictureSources) else loop.as_they_are,
            loss_of=lambda module, batch: module(*(batch[k] for k in ("image", "order", "small") if k in batch))[0],
            flops=estimate(max(1, settings.optim.batch // (me.world * compute.accumulate)), False).flops_per_image,
            digest=digest(settings, identity, dtype),
            after=follow if two else None,
        ),
        me,
    )


def built(settings: Pretrain, size: Size) -> MaskedAutoencoder:
    """The model that ``settings`` describe, as yet untrained."""
    shape = (size, settings.decoder_dim, settings.decoder_depth, settings.mask_ratio)
    more: dict[str, Any] = {"cross": settings.decoder == "cross", "predict": settings.predict}
    if settings.objective == "sapiens2":
        return SelfDistilled(*shape, settings.distilled, **more)
    return MaskedAutoencoder(*shape, **more, inner=ModernEncoder(size) if isinstance(size, Modern) else None)


def follow(model: nn.Module, me: Team) -> None:
    """The teacher's part of a step."""
    assert isinstance(model, SelfDistilled)
    model.after_step(me)


def check(settings: Pretrain, size: Size) -> None:
    """Raise JobError for what cannot be pre-trained."""
    check_grid(settings.width, settings.height, size.patch, "pretrain")
    if settings.augment.backgrounds:
        raise JobError("pretrain.augment.backgrounds: photographs have no coverage to paste by; leave it out")
    if isinstance(size, Modern) and (size.windows or size.rope is None):
        raise JobError(f"pretrain.model {settings.model}: only its official weights are of use; pre-train another size")
    if settings.objective == "sapiens2":
        how = settings.distilled
        check_grid(how.local_width, how.local_height, size.patch, "pretrain.distilled")


def check_grid(width: int, height: int, patch: int, where: str) -> None:
    """Raise JobError unless the picture is whole patches."""
    if width % patch or height % patch:
        raise JobError(f"{where}: {width}x{height} is not whole patches of {patch} px; use multiples of {patch}")
