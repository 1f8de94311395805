"""A model, a picture size and a batch -> weights, work and memory of one training step, by formula and before it runs.

Counted as layers are built: parameters on the meta device, multiply-adds of matrix products, attention and convolutions
(one is two FLOPs), and the bytes that the backward pass finds kept. tests/test_budget.py holds them against torch's own
counter and against the tensors that torch really keeps.
Legend: N patches, T tokens, D width, P patch side.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn

from manifests.errors import JobError
from training.heads import CHANNELS, DECONVS, DenseModel, light_widths
from training.mae import MaskedAutoencoder, counts
from training.vit import SIZES, Encoder, Size

# A backward pass costs twice a forward pass: one product for the inputs' gradient, one for the weights'.
TRAIN_PER_FORWARD = 3
MAE = "mae"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What `budget` may be told beside size, picture, batch and task; the defaults are Sapiens v1's and the light head."""

    mask_ratio: float = 0.75
    decoder_dim: int = 512
    decoder_depth: int = 8
    cross: bool = False
    predict: float = 1.0
    head: str = "light"
    head_width: int = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """One step on one device without sharding. FLOPs count no recomputation; bytes are of the whole batch.

    ``activation_bytes``: what the forward pass keeps for the backward pass. ``transient_bytes``: the most that one layer
    needs on top while its gradient is made. ``cast_bytes``: copies of weights in the computing type.
    """

    parameters: int
    forward_flops_per_image: int
    flops_per_image: int
    weights_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    cast_bytes: int
    input_bytes: int
    activation_bytes: int
    transient_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything together; an allocator's fragmentation and the libraries' own few hundred MB are not in it."""
        fields = dataclasses.asdict(self)
        return sum(v for k, v in fields.items() if k.endswith("_bytes"))


def budget(
    size: str,
    height: int,
    width: int,
    batch: int,
    task: str,
    checkpointing: bool,
    dtype: str = "bfloat16",
    shape: Shape | None = None,
    ema: bool = False,
) -> Budget:
    """``task``: "mae" or a dense task. ``dtype``: what blocks compute in, "float32" or "bfloat16" (weights, gradients and
    AdamW's two moments stay float32). Raises JobError on names that do not exist and pictures that are not whole patches.
    """
    if size not in SIZES or task not in (MAE, *CHANNELS) or dtype not in ("float32", "bfloat16"):
        raise JobError(
            f"{size} / {task} / {dtype}: sizes are {', '.join(SIZES)}; tasks {', '.join((MAE, *CHANNELS))}; "
            "types float32, bfloat16"
        )
    s, shape = SIZES[size], shape or Shape()
    if height % s.patch or width % s.patch:
        raise JobError(f"{width}x{height} is not whole patches of {s.patch} px; use multiples of {s.patch}")
    grid = (height // s.patch, width // s.patch)
    parameters = count_parameters(size, task, shape)
    walk = _walk_mae(s, grid, shape) if task == MAE else _walk_dense(s, grid, task, shape)
    wide, narrow = 4, 2 if dtype == "bfloat16" else 4
    kept, transient = 0, 0
    for layer in walk:
        inside = layer.wide * wide + layer.narrow * narrow
        edge = layer.edge * wide
        kept += edge if checkpointing and layer.block else inside + edge
        # Of a block computed again all is there at once, and about as much again as gradients of what is largest in it.
        transient = max(transient, (inside if checkpointing and layer.block else 0) + layer.largest * (wide + narrow))
    weights = 4 * parameters
    return Budget(
        parameters=parameters,
        forward_flops_per_image=(forward := sum(layer.flops for layer in walk)),
        flops_per_image=TRAIN_PER_FORWARD * forward,
        weights_bytes=weights * (2 if ema else 1),
        gradient_bytes=weights,
        optimiser_bytes=2 * weights,
        cast_bytes=2 * parameters if dtype == "bfloat16" else 0,
        input_bytes=batch * 3 * height * width * 4,
        activation_bytes=batch * kept,
        transient_bytes=batch * transient,
    )


def count_parameters(size: str, task: str, shape: Shape | None = None) -> int:
    """Weights of the model that a job trains, its positions computed and so not among them."""
    shape = shape or Shape()
    with torch.device("meta"):
        model: nn.Module
        if task == MAE:
            model = MaskedAutoencoder(
                SIZES[size], shape.decoder_dim, shape.decoder_depth, shape.mask_ratio, cross=shape.cross
            )
        else:
            model = DenseModel(SIZES[size], task, shape.head_width, head=shape.head)
    return sum(p.numel() for p in model.parameters())


def official_parameters(size: str, grid: tuple[int, int]) -> int:
    """Weights of an encoder as Sapiens v1 publishes it: with a class token and the positions of ``grid``."""
    with torch.device("meta"):
        encoder = Encoder(SIZES[size], grid, cls_token=True)
    return sum(p.numel() for p in encoder.parameters())


@dataclasses.dataclass(frozen=True)
class _Layer:
    """Numbers kept for the backward pass: ``edge`` what enters a block (float32), ``wide`` float32 and ``narrow`` the
    computing type inside it; ``largest`` the largest tensor. ``block``: whether checkpointing drops its inside.
    """

    flops: int
    edge: int = 0
    wide: int = 0
    narrow: int = 0
    largest: int = 0
    block: bool = False


def encoder_flops(size: str, patches: int) -> int:
    """FLOPs of an encoder's forward pass over one picture, dense: what the tables of Sapiens call its work, times two."""
    s = SIZES[size]
    return _linear(patches, 3 * s.patch**2, s.dim).flops + s.depth * _block(patches, s.dim, s.heads).flops


def _walk_mae(s: Size, grid: tuple[int, int], shape: Shape) -> list[_Layer]:
    seen, predicted = counts(grid[0] * grid[1], shape.mask_ratio, shape.predict)
    d, pixels, heads = shape.decoder_dim, 3 * s.patch**2, max(1, shape.decoder_dim // 32)
    layers = [_linear(seen, pixels, s.dim), *[_block(seen + 1, s.dim, s.heads)] * s.depth, _norm(seen + 1, s.dim)]
    layers.append(_linear(seen + 1, s.dim, d))
    if shape.cross:
        # All blocks look at the same seen tokens: they are kept once.
        layers += [
            _Layer(0, narrow=(seen + 1) * d),
            *[_cross_block(predicted, seen + 1, d, heads)] * shape.decoder_depth,
        ]
    else:
        tokens = seen + 1 + predicted
        layers += [_block(tokens, d, heads)] * (shape.decoder_depth - 1) + [_block(tokens, d, heads, seen + 1)]
    # The loss keeps the difference's two sides in float32.
    layers += [_norm(predicted, d), _linear(predicted, d, pixels), _Layer(0, wide=2 * predicted * pixels)]
    return layers


def _walk_dense(s: Size, grid: tuple[int, int], task: str, shape: Shape) -> list[_Layer]:
    n, pixels, channels = grid[0] * grid[1], 3 * s.patch**2, CHANNELS[task]
    layers = [_linear(n, pixels, s.dim), *[_block(n, s.dim, s.heads)] * s.depth, _norm(n, s.dim)]
    if shape.head == "light":
        widths = light_widths(s.patch, shape.head_width)
        layers += [_conv(n, 3 * s.dim, 2 * shape.head_width, 1, False), _conv(n, 2 * shape.head_width, widths[0], 9)]
        area = n
        for a, b in itertools.pairwise(widths):
            area *= 4
            layers.append(_conv(area, a, b, 9))
        layers += [_conv(area, 3, 16, 9), _conv(area, widths[-1] + 16, 16, 9), _conv(area, 16, channels, 1, False)]
    else:
        ups, flats = DECONVS[task][0][: s.patch.bit_length() - 1], DECONVS[task][1]
        area = n
        for a, b in itertools.pairwise((s.dim, *ups)):
            # Stride 2: each input place meets all 16 taps; four times as many places come out.
            layers.append(_conv(area, a, b, 16, out_area=4 * area))
            area *= 4
        layers += [_conv(area, a, b, 1) for a, b in itertools.pairwise((ups[-1], *flats))]
        layers.append(_conv(area, flats[-1], channels, 1, False))
    # The answer in float32, normalised where it is a direction.
    full = n * s.patch**2 * channels
    layers.append(_Layer(0, wide=full * (2 if task == "normal" else 1)))
    return layers


def _linear(tokens: int, inside: int, outside: int) -> _Layer:
    return _Layer(2 * tokens * inside * outside, narrow=tokens * inside, largest=tokens * max(inside, outside))


def _norm(tokens: int, dim: int) -> _Layer:
    return _Layer(0, wide=tokens * (dim + 2), largest=tokens * dim)


def _block(tokens: int, dim: int, heads: int, first: int = 0) -> _Layer:
    """A pre-norm block whose tokens from ``first`` on are carried on."""
    out = tokens - first
    flops = 2 * dim * dim * (3 * tokens + 9 * out) + 4 * dim * tokens * out
    # Kept: the two norms' inputs (the first is the block's own) with mean and deviation, the softmax's sums; qkv's input
    # and output, attention's output, the MLP's input, and both sides of GELU.
    wide = 2 * tokens + out * (dim + 2 + heads)
    return _Layer(flops, tokens * dim, wide, 4 * tokens * dim + 10 * out * dim, 4 * out * dim, block=True)


def _cross_block(queries: int, seen: int, dim: int, heads: int) -> _Layer:
    flops = 2 * dim * dim * (10 * queries + 2 * seen) + 4 * dim * queries * seen
    wide = 2 * queries + queries * (dim + 2 + heads)
    return _Layer(flops, queries * dim, wide, 2 * seen * dim + 12 * queries * dim, 4 * queries * dim, block=True)


def _conv(area: int, inside: int, outside: int, taps: int, activated: bool = True, out_area: int = 0) -> _Layer:
    """Convolution over ``area`` places, then a norm and SiLU where ``activated``: their inputs are kept."""
    out = (out_area or area) * outside
    return _Layer(
        2 * area * inside * outside * taps,
        narrow=area * inside + (2 * out if activated else 0),
        largest=max(area * inside, out),
    )
