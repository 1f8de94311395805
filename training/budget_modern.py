"""Layers of modern encoders, of heads and of Sapiens2's objective -> what each computes and keeps, for training/budget.py.

Encoders by formula, heads by walking their modules on the meta device. Legend: T tokens, D width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from training.heads import HEADS
from training.heads_sapiens2 import scale_branch
from training.modern import WINDOW, Modern
from training.vit import Size


@dataclasses.dataclass(frozen=True)
class Layer:
    """Numbers kept for the backward pass: ``edge`` what enters a block (float32), ``wide`` float32 and ``narrow`` the
    computing type inside it; ``largest`` the largest tensor. ``block``: whether checkpointing drops its inside.
    """

    flops: int
    edge: int = 0
    wide: int = 0
    narrow: int = 0
    largest: int = 0
    block: bool = False


def linear(tokens: int, inside: int, outside: int) -> Layer:
    """A matrix product: its input is kept."""
    return Layer(2 * tokens * inside * outside, narrow=tokens * inside, largest=tokens * max(inside, outside))


def norm(tokens: int, dim: int) -> Layer:
    """A layer norm: its input, mean and deviation."""
    return Layer(0, wide=tokens * (dim + 2), largest=tokens * dim)


def modern_encoder(size: Modern, patches: int, tokens: int) -> list[Layer]:
    """Of one picture: ``patches`` that are embedded, ``tokens`` of them that blocks see, class token and registers aside."""
    seen = tokens + 1 + size.registers
    layers = [linear(patches, 3 * size.patch**2, size.dim)]
    if size.windows:
        windows = patches // WINDOW**2
        inner = dataclasses.replace(size, qk_norm=False, scales=(None, None), rope=None)
        one = modern_block(inner, WINDOW**2 + 1, size.heads)
        layers += [scaled(one, windows)] * size.windows
    layers += [modern_block(size, seen, size.keys(i)) for i in range(size.depth)]
    return [*layers, norm(seen, size.dim)]


def modern_block(size: Modern, tokens: int, kv_heads: int) -> Layer:
    """A block of ``tokens``."""
    d, hidden = size.dim, size.hidden or 4 * size.dim
    kv = d // size.heads * kv_heads
    products = 2 * tokens * (2 * d * d + 2 * d * kv + (3 if size.gated else 2) * d * hidden)
    flops = products + 4 * tokens * tokens * d
    # Kept: normed input, queries, keys and values, attention's output, what goes to the MLP and both sides of its activation.
    narrow = tokens * (3 * d + 2 * kv + d) + tokens * hidden * (4 if size.gated else 2)
    # An RMS norm keeps what it divided as well, all in float32, and so do rotations.
    wide = tokens * ((3 if size.rms else 1) * d + size.heads + 4) + (2 * tokens * (d + kv) if size.qk_norm else 0)
    narrow += tokens * d * sum(s is not None for s in size.scales)
    return Layer(flops, tokens * d, wide, narrow, tokens * (2 if size.gated else 1) * hidden, block=True)


def scaled(layer: Layer, count: int) -> Layer:
    """``count`` of them side by side."""
    fields = {k: v * count for k, v in dataclasses.asdict(layer).items() if k != "block"}
    return Layer(**fields, block=layer.block)


def head(size: Size, task: str, kind: str, width: int, picture: tuple[int, int], grid: tuple[int, int]) -> list[Layer]:
    """A head of ``kind`` for a ``picture`` (H, W), as its modules are called."""
    with torch.device("meta"):
        taps = {"light": 3, "dpt": 8}.get(kind, 1)
        features = torch.empty(1, taps * size.dim, *grid)
        module = HEADS[kind](size, task, width)
        layers = walked(module, features, torch.empty(1, 3, *picture))
        if task == "pointmap":
            branch = scale_branch(size.dim, grid, width)
            layers += walked(branch, features[:, : size.dim])
    return layers


def walked(module: nn.Module, *inputs: Tensor) -> list[Layer]:
    """What convolutions, norms and activations within ``module`` compute and keep on meta ``inputs`` of one picture."""
    layers: list[Layer] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        inside, outside = given[0].numel(), out.numel()
        largest = max(inside, outside)
        if isinstance(layer, nn.ConvTranspose2d):
            taps = layer.weight[0].numel()
            layers.append(Layer(2 * inside * taps, narrow=inside, largest=largest))
        elif isinstance(layer, nn.Conv2d):
            layers.append(Layer(2 * outside * layer.weight[0].numel(), narrow=inside, largest=largest))
        elif isinstance(layer, nn.Linear):
            layers.append(Layer(2 * inside * len(layer.weight), narrow=inside, largest=largest))
        elif isinstance(
            layer, nn.InstanceNorm2d | nn.GroupNorm | nn.BatchNorm2d | nn.RMSNorm | nn.SiLU | nn.GELU | nn.ReLU
        ):
            layers.append(Layer(0, narrow=inside, largest=largest))

    handles = [m.register_forward_hook(note) for m in module.modules()]
    # Norms on meta tensors need no statistics, and dropout none at all.
    module.eval()(*inputs)
    for handle in handles:
        handle.remove()
    return layers
