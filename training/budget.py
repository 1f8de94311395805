"""A model, a picture size and a batch -> weights, work and memory of one training step, by formula and before it runs.

Counted as layers are built: parameters on the meta device, multiply-adds of matrix products, attention and convolutions
(one is two FLOPs), and the bytes that the backward pass finds kept. tests/test_budget.py holds them against torch's own
counter and against the tensors that torch really keeps.
Legend: N patches, T tokens, D width, P patch side.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import torch
from torch import nn

from manifests.errors import JobError
from training import budget_modern
from training.backbones import SIZES, encoder
from training.budget_modern import Layer, linear, norm
from training.heads import CHANNELS, DECONVS, POSES, DenseModel, light_widths, stride_of
from training.mae import MaskedAutoencoder, counts
from training.modern import Modern, ModernEncoder
from training.vit import Size

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
    others: tuple[str, ...] = ()
    seen: tuple[int, int] | None = None
    # Of Sapiens2's objective: small views of a picture and their size; two large ones go with them.
    locals: int = 0
    local: tuple[int, int] = (0, 0)
    twice: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """One step on one device without sharding. FLOPs count no recomputation, and of what a batch shares each picture's
    part; bytes are of the whole batch.

    ``activation_bytes``: what the forward pass keeps for the backward pass. ``transient_bytes``: the most that one layer
    needs on top while its gradient is made. ``cast_bytes``: copies of weights in the computing type.
    """

    parameters: int
    forward_flops_per_image: float
    flops_per_image: float
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
    stride = stride_of(s)
    seen = shape.seen or (height, width)
    if seen[0] % stride or seen[1] % stride:
        raise JobError(f"{seen[1]}x{seen[0]} is not whole patches of {stride} px; use multiples of {stride}")
    grid = (seen[0] // stride, seen[1] // stride)
    parameters = count_parameters(size, task, shape, grid)
    walk = _walk_mae(s, grid, shape) if task == MAE else _walk_dense(s, grid, task, shape, (height, width))
    wide, narrow = 4, 2 if dtype == "bfloat16" else 4
    kept, transient = 0, 0
    for layer in walk:
        inside = layer.wide * wide + layer.narrow * narrow
        edge = layer.edge * wide
        kept += edge if checkpointing and layer.block else inside + edge
        # Of a block computed again all is there at once, and about as much again as gradients of what is largest in it.
        transient = max(transient, (inside if checkpointing and layer.block else 0) + layer.largest * (wide + narrow))
    weights = 4 * parameters
    forward = sum(layer.flops for layer in walk) + (_shared_flops(s, grid, shape) / batch if task == MAE else 0)
    # The teacher of self-distillation looks at both large views whole, and takes no gradient.
    taught = 2 * sum(layer.flops for layer in _encoder(s, grid[0] * grid[1], 0)) if shape.twice else 0
    return Budget(
        parameters=parameters,
        forward_flops_per_image=forward + taught,
        flops_per_image=TRAIN_PER_FORWARD * forward + taught,
        weights_bytes=weights * (2 if ema else 1),
        gradient_bytes=weights,
        optimiser_bytes=2 * weights,
        cast_bytes=2 * parameters if dtype == "bfloat16" else 0,
        input_bytes=batch * 3 * height * width * 4,
        activation_bytes=batch * kept,
        transient_bytes=batch * transient,
    )


# A model is built to be counted, which takes half a second, and a step with checkpointing has the weights of one without.
@functools.cache
def count_parameters(size: str, task: str, shape: Shape | None = None, grid: tuple[int, int] = (4, 3)) -> int:
    """Weights of the model that a job trains, its positions computed and so not among them."""
    shape = shape or Shape()
    s = SIZES[size]
    with torch.device("meta"):
        model: nn.Module
        if task == MAE:
            inner = ModernEncoder(s) if isinstance(s, Modern) else None
            model = MaskedAutoencoder(
                s, shape.decoder_dim, shape.decoder_depth, shape.mask_ratio, cross=shape.cross, inner=inner
            )
        else:
            # Point maps alone have weights for a grid of fixed size.
            fixed = grid if "pointmap" in (task, *shape.others) else None
            model = DenseModel(s, task, shape.head_width, head=shape.head, others=shape.others, grid=fixed)
            if fixed and not isinstance(s, Modern):
                del model.encoder.embed.position_tokens
    return sum(p.numel() for p in model.parameters())


def official_parameters(size: str, grid: tuple[int, int]) -> int:
    """Weights of an encoder as it is published: with a class token and, where it has them, the positions of ``grid``."""
    s = SIZES[size]
    with torch.device("meta"):
        made = encoder(s, None if isinstance(s, Modern) else grid, cls_token=True)
    return sum(p.numel() for p in made.parameters())


def encoder_flops(size: str, patches: int) -> int:
    """FLOPs of an encoder's forward pass over one picture, dense: what the tables of Sapiens call its work, times two."""
    return sum(layer.flops for layer in _encoder(SIZES[size], patches, 0))


def _encoder(s: Size, tokens: int, cls: int) -> list[Layer]:
    """Embedding, blocks, norm, of a picture of which blocks see ``tokens`` places; ``cls``: a class token of plain ones."""
    if isinstance(s, Modern):
        return budget_modern.modern_encoder(s, tokens * (stride_of(s) // s.patch) ** 2, tokens)
    blocks = [_block(tokens + cls, s.dim, s.heads)] * s.depth
    return [linear(tokens, 3 * s.patch**2, s.dim), *blocks, norm(tokens + cls, s.dim)]


def _walk_mae(s: Size, grid: tuple[int, int], shape: Shape) -> list[Layer]:
    seen, predicted = counts(grid[0] * grid[1], shape.mask_ratio, shape.predict)
    d, pixels, heads = shape.decoder_dim, 3 * s.patch**2, max(1, shape.decoder_dim // 32)
    first = 1 + (s.registers if isinstance(s, Modern) else 0)
    layers = [*_encoder(s, seen, 1), linear(seen + first, s.dim, d)]
    if shape.cross:
        # All blocks look at the same seen tokens: they are kept once.
        layers += [
            Layer(0, narrow=(seen + first) * d),
            *[_cross_block(predicted, seen + first, d, heads)] * shape.decoder_depth,
        ]
    else:
        tokens = seen + first + predicted
        blocks = [_block(tokens, d, heads)] * (shape.decoder_depth - 1) + [_block(tokens, d, heads, seen + first)]
        # What the first block's attention needs of masked tokens is made for all pictures at once.
        blocks[0] = dataclasses.replace(blocks[0], flops=blocks[0].flops - 6 * predicted * d * d)
        layers += blocks
    # The loss keeps the difference's two sides in float32.
    layers += [norm(predicted, d), linear(predicted, d, pixels), Layer(0, wide=2 * predicted * pixels)]
    if not shape.twice:
        return layers
    small = (shape.local[0] // s.patch) * (shape.local[1] // s.patch)
    return [*layers, *layers, *[budget_modern.scaled(one, shape.locals) for one in _encoder(s, small, 1)]]


def _shared_flops(s: Size, grid: tuple[int, int], shape: Shape) -> int:
    """FLOPs of a pre-training step's forward pass that do not grow with the batch: a table row for each place."""
    return 0 if shape.cross else 6 * grid[0] * grid[1] * shape.decoder_dim**2


def _walk_dense(s: Size, grid: tuple[int, int], task: str, shape: Shape, picture: tuple[int, int]) -> list[Layer]:
    layers = _encoder(s, grid[0] * grid[1], int(shape.head == "dpt"))
    for one in (task, *shape.others):
        layers += _walk_head(s, grid, one, shape, picture)
    return layers


def _walk_head(s: Size, grid: tuple[int, int], task: str, shape: Shape, picture: tuple[int, int]) -> list[Layer]:
    n, channels, stride = grid[0] * grid[1], CHANNELS[task], stride_of(s)
    power = stride & (stride - 1) == 0 and task not in (*POSES, "pointmap")
    layers: list[Layer] = []
    if shape.head == "light" and power:
        widths = light_widths(stride, shape.head_width)
        layers += [_conv(n, 3 * s.dim, 2 * shape.head_width, 1, False), _conv(n, 2 * shape.head_width, widths[0], 9)]
        area = n
        for a, b in itertools.pairwise(widths):
            area *= 4
            layers.append(_conv(area, a, b, 9))
        layers += [_conv(area, 3, 16, 9), _conv(area, widths[-1] + 16, 16, 9), _conv(area, 16, channels, 1, False)]
    elif shape.head == "deconv" and power:
        ups, flats = DECONVS[task][0][: stride.bit_length() - 1], DECONVS[task][1]
        area = n
        for a, b in itertools.pairwise((s.dim, *ups)):
            # Stride 2: each input place meets all 16 taps; four times as many places come out.
            layers.append(_conv(area, a, b, 16, out_area=4 * area))
            area *= 4
        layers += [_conv(area, a, b, 1) for a, b in itertools.pairwise((ups[-1], *flats))]
        layers.append(_conv(area, flats[-1], channels, 1, False))
    else:
        layers += budget_modern.head(s, task, shape.head, shape.head_width, picture, grid)
    if task == "normal":
        # The answer in float32, and its length.
        layers.append(Layer(0, wide=2 * picture[0] * picture[1] * channels))
    return layers


def _block(tokens: int, dim: int, heads: int, first: int = 0) -> Layer:
    """A pre-norm block whose tokens from ``first`` on are carried on."""
    out = tokens - first
    flops = 2 * dim * dim * (3 * tokens + 9 * out) + 4 * dim * tokens * out
    # Kept: the two norms' inputs (the first is the block's own) with mean and deviation, the softmax's sums; qkv's input
    # and output, attention's output, the MLP's input, and both sides of GELU.
    wide = 2 * tokens + out * (dim + 2 + heads)
    return Layer(flops, tokens * dim, wide, 4 * tokens * dim + 10 * out * dim, 4 * out * dim, block=True)


def _cross_block(queries: int, seen: int, dim: int, heads: int) -> Layer:
    flops = 2 * dim * dim * (10 * queries + 2 * seen) + 4 * dim * queries * seen
    wide = 2 * queries + queries * (dim + 2 + heads)
    return Layer(flops, queries * dim, wide, 2 * seen * dim + 12 * queries * dim, 4 * queries * dim, block=True)


def _conv(area: int, inside: int, outside: int, taps: int, activated: bool = True, out_area: int = 0) -> Layer:
    """Convolution over ``area`` places, then a norm and SiLU where ``activated``: their inputs are kept."""
    out = (out_area or area) * outside
    return Layer(
        2 * area * inside * outside * taps,
        narrow=area * inside + (2 * out if activated else 0),
        largest=max(area * inside, out),
    )
