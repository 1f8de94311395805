"""Trained weights and pictures -> what the model looks at, and what it makes of masked pictures: files for the report.

Legend: B pictures, N patches, P patch side in px, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from manifests import codecs
from manifests.errors import MaquetteError
from training import checkpoint, data
from training.backbones import SIZES
from training.finetune import seen_by
from training.heads import DenseModel, stride_of
from training.judges import prepared
from training.mae import MaskedAutoencoder, counts
from training.modern import GroupedAttention, ModernEncoder
from training.pretrain import built
from training.settings import Finetune, Pretrain
from training.transforms import MEAN, STD
from training.vit import Attention, Encoder, gather, patchify

RATIOS = (0.75, 0.85, 0.9, 0.95)
PICTURES = 4
ROWS = 160
GREY = 110


def draw(
    run: Path, pretrain: Pretrain | None, finetunes: Sequence[tuple[Finetune, DenseModel]], rows: data.Rows
) -> None:
    """Write ``run``/evaluate/looks/: reconstruction.png of a pre-training in this run, attention_NAME.png of each fine-tune."""
    folder = run / "evaluate" / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    shown = [codecs.decode_image(rows[i][1]["image"]["bytes"]) for i in _spread(len(rows))]
    weights = run / "pretrain/model.safetensors"
    if pretrain is not None and pretrain.objective == "mae" and weights.is_file():
        model = built(pretrain, SIZES[pretrain.model])
        checkpoint.load_weights(weights, model)
        size = (pretrain.height, pretrain.width)
        _write(folder / "reconstruction.png", [reconstructions(model.eval(), p, size, RATIOS) for p in shown])
    for settings, dense in finetunes:
        strips = [attended(dense.encoder, p, seen_by(settings)) for p in shown]
        _write(folder / f"attention_{settings.name}.png", strips)


@torch.no_grad()
def reconstructions(
    model: MaskedAutoencoder, rgb: np.ndarray, size: tuple[int, int], ratios: Sequence[float]
) -> list[np.ndarray]:
    """The picture, then for each share masked what is seen and what is made of it: (h, w, 3) uint8 each.

    What is predicted of a patch is its texture alone: mean and deviation, which the loss divides out, are the true ones. The
    same draw serves all shares, so that each sees a part of what the one before sees.
    """
    image = prepared(rgb, size)[None]
    patch = model.encoder.size.patch
    patches = patchify(image, patch)
    order = torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(0))[None]
    out = [_picture(image[0])]
    kept = model.mask_ratio, model.predict
    for ratio in ratios:
        model.mask_ratio, model.predict = ratio, 1.0
        prediction = model(image, order)[1]
        seen, _ = counts(order.shape[1], ratio, 1.0)
        hidden = order[:, seen:]
        true = gather(patches, hidden)
        made = prediction * (true.var(-1, keepdim=True) + 1e-6).sqrt() + true.mean(-1, keepdim=True)
        grey = torch.from_numpy((GREY - MEAN) / STD).float().repeat_interleave(patch * patch)
        for filling in (grey.expand_as(made), made):
            whole = patches.clone()
            whole[0, hidden[0]] = filling[0]
            out.append(_picture(unpatched(whole, patch, size)[0]))
    model.mask_ratio, model.predict = kept
    return out


def unpatched(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """(B, N, 3 P P) -> (B, 3, H, W): the inverse of ``patchify``."""
    rows, columns = size[0] // patch, size[1] // patch
    grid = patches.view(len(patches), rows, columns, 3, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), 3, *size)


@torch.no_grad()
def attended(encoder: Encoder | ModernEncoder, rgb: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The picture with the patch that asks, then where the first, the middle and the last block look from there."""
    image = prepared(rgb, size)[None].to(next(encoder.parameters()).device)
    patch = stride_of(encoder.size)
    grid = (size[0] // patch, size[1] // patch)
    # A third from the top, in the middle: a face or a chest in most framings.
    asks = (grid[0] // 3, grid[1] // 2)
    blocks = (0, encoder.size.depth // 2, encoder.size.depth - 1)
    first = _picture(image[0].cpu())
    marked = first.copy()
    y, x = (p * patch for p in asks)
    cv2.rectangle(marked, (x, y), (x + patch - 1, y + patch - 1), (201, 100, 66), 1)
    out = [marked]
    cells = grid[0] * grid[1]
    from_end = cells - asks[0] * grid[1] - asks[1]
    for weight in attention(encoder, image, blocks, from_end):
        field = weight[0, :, 0, -cells:].mean(dim=0).reshape(grid).cpu().numpy()
        field = cv2.resize(field / field.max(), size[::-1], interpolation=cv2.INTER_NEAREST)
        heat = cv2.applyColorMap((255 * field).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        out.append((0.35 * first + 0.65 * heat).astype(np.uint8))
    return out


@torch.no_grad()
def attention(
    encoder: Encoder | ModernEncoder, image: Tensor, blocks: Sequence[int], from_end: int | None = None
) -> list[Tensor]:
    """(B, h, T, T) of each of ``blocks``: how much each token takes from each other; rows sum to 1. T: class token and
    registers, if any, then patches. ``from_end``: (B, h, 1, T) of the one token that many places before the end: whole
    maps of a large picture are gigabytes.
    """
    found: dict[int, Tensor] = {}

    def note(place: int) -> Any:
        def hook(module: Attention | GroupedAttention, inputs: tuple[Any, ...]) -> None:
            q, k, _ = module.split(*inputs)
            if from_end is not None:
                q = q[:, :, q.shape[2] - from_end :][:, :, :1]
            # A key that several queries share.
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
            found[place] = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)

        return hook

    handles = [encoder.blocks[i].attention.register_forward_pre_hook(note(i)) for i in blocks]  # type: ignore[union-attr]
    try:
        encoder(image)
    finally:
        for handle in handles:
            handle.remove()
    return [found[i] for i in blocks]


def _spread(count: int) -> list[int]:
    return sorted({i * count // PICTURES for i in range(min(PICTURES, count))})


def _picture(image: Tensor) -> np.ndarray:
    """(3, H, W) normalised -> (H, W, 3) uint8."""
    return np.clip(np.round(image.numpy().transpose(1, 2, 0) * STD + MEAN), 0, 255).astype(np.uint8)


def _write(path: Path, strips: Sequence[Sequence[np.ndarray]]) -> None:
    """A row of the file for each strip, all enlarged to the same height without smoothing."""
    rows = []
    for strip in strips:
        scale = max(1, round(ROWS / strip[0].shape[0]))
        big = [cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for p in strip]
        rows.append(np.concatenate(big, axis=1))
    if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
        raise MaquetteError(f"{path}: not written; free space and run again")
