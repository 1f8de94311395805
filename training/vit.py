"""Pictures -> patch tokens -> features: a plain pre-norm vision transformer (Dosovitskiy et al. 2021) on torch's own
attention.

Legend: B batch, N patches, K looked-at patches, T tokens (patches, and a class token where there is one), D width,
P patch side in px. A grid is (rows, columns) in patches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth, heads and patch side of an encoder."""

    dim: int
    depth: int
    heads: int
    patch: int


# large is Sapiens v1's 0.3B; tiny is for CPUs.
SIZES = {
    "tiny": Size(192, 6, 3, 8),
    "small": Size(384, 12, 6, 16),
    "base": Size(768, 12, 12, 16),
    "large": Size(1024, 24, 16, 16),
    "0.6b": Size(1280, 32, 16, 16),
    "1b": Size(1536, 40, 24, 16),
    "2b": Size(1920, 48, 32, 16),
}


class Attention(nn.Module):
    """Multi-head self-attention with fused qkv."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, first: int = 0, ready: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x, first, ready)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def split(self, x: Tensor, first: int = 0, ready: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D), and the product ``ready`` of more tokens -> queries from ``first`` on, keys, values: (B, H, T, C)."""
        qkv: Tensor = self.qkv(x)
        if ready is not None:
            qkv = torch.cat([qkv, ready], dim=1)
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q[:, :, first:], k, v


class Block(nn.Module):
    """Pre-norm transformer block, MLP x 4, exact GELU."""

    unit = True

    def __init__(self, dim: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, first: int = 0, index: Tensor | None = None, table: Tensor | None = None) -> Tensor:
        """``x``: (B, T, D) -> (B, T - first, D): all tokens are attended to, those before ``first`` are not carried on.

        ``index``, ``table``: (B, M) int64 and (N, D) where the last M tokens are rows of one table: what attention needs
        of them is then made once a row, not once a token.
        """
        if index is None or table is None:
            attended = self.attention(self.norm1(x), first)
        else:
            ready = F.embedding(index, self.attention.qkv(self.norm1(table)))
            attended = self.attention(self.norm1(x[:, : x.shape[1] - index.shape[1]]), first, ready)
        x = x[:, first:] + attended
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Queries look at the seen tokens and never at each other (CrossMAE, Fu et al. 2024); MLP x 4, exact GELU."""

    unit = True

    def __init__(self, dim: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """``x``: (B, T, D) queries, ``seen``: (B, K, D) -> (B, T, D)."""
        b, t, d = x.shape
        q = self.query(self.norm1(x)).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(seen).view(b, seen.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class Embedding(nn.Module):
    """Patches -> tokens. Names that hold `token` are what an optimiser must not decay."""

    def __init__(self, size: Size, grid: tuple[int, int] | None, cls_token: bool) -> None:
        super().__init__()
        self.projection = nn.Linear(3 * size.patch**2, size.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim)) if cls_token else None
        self.position_tokens = None
        if grid is not None:
            places = sincos(grid, size.dim, torch.get_default_device())
            self.position_tokens = nn.Parameter(torch.cat([torch.zeros(1, int(cls_token), size.dim), places], dim=1))
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)


class Encoder(nn.Module):
    """Patch embedding, positions, blocks, final norm. Works on any grid of whole patches.

    ``grid``: keep positions as weights of that grid (Sapiens v1, ViTMAE), resized for pictures of another; None = computed
    sin-cos of the picture's own grid. ``padding``: zeros around the picture as some Sapiens v1 checkpoints were trained
    with: the patches sample ``padding`` px up and left. ``checkpointing`` (attribute) trades a second forward pass for the
    memory of what lies inside blocks.
    """

    def __init__(
        self,
        size: Size,
        grid: tuple[int, int] | None = None,
        cls_token: bool = False,
        padding: int = 0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.size, self.grid, self.padding = size, grid, padding
        # Tokens before those of patches, and px from one patch to the next.
        self.prefix, self.stride = int(cls_token), size.patch
        self.checkpointing = False
        self.embed = Embedding(size, grid, cls_token)
        self.blocks = nn.ModuleList(Block(size.dim, size.heads, eps) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=eps)
        self.apply(init_weights)

    def forward(
        self,
        images: Tensor,
        keep: Tensor | None = None,
        taps: tuple[int, ...] = (),
        patches: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> list[Tensor]:
        """``images``: (B, 3, H, W) normalised float. ``keep``: (B, K) int64 indices of the patches to look at, None
        = all. ``patches``: (B, N, 3 P P) as ``patchify`` cuts ``images``, where the caller has them already. ``prompt``:
        (1, Q, D) tokens that all others see and that are not put out.

        Returns the normed output (B, T, D), the class token first, preceded by the outputs of the blocks in ``taps``.
        Patches are gathered before they are embedded: a masked patch costs nothing.
        """
        grid = (images.shape[2] // self.size.patch, images.shape[3] // self.size.patch)
        if patches is None:
            patches = patchify(images, self.size.patch, self.padding)
        cls_place, places = self.places(grid, images.device)
        if keep is None:
            x = self.embed.projection(patches) + places
        else:
            x = self.embed.projection(gather(patches, keep)) + F.embedding(keep, places[0])
        if self.embed.cls_token is not None:
            x = torch.cat([(self.embed.cls_token + cls_place).expand(x.shape[0], -1, -1), x], dim=1)
        hidden = 0
        if prompt is not None:
            x, hidden = torch.cat([prompt.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1), prompt.shape[1]
        out = []
        for i, block in enumerate(self.blocks):
            x = through(block, self.checkpointing, x)
            if i in taps:
                out.append(x[:, hidden:])
        return [*out, self.norm(x[:, hidden:])]

    def places(self, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of the class token (1, 0 or 1, D) and of the patches (1, N, D)."""
        stored = self.embed.position_tokens
        if stored is None or self.grid is None:
            return torch.zeros((), device=device), sincos(grid, self.size.dim, device)
        extra = int(self.embed.cls_token is not None)
        return stored[:, :extra], resize_positions(stored[:, extra:], self.grid, grid)


def through(block: Callable[..., Tensor], checkpointing: bool, *inputs: Any) -> Tensor:
    """``block(*inputs)``, keeping for the backward pass only ``inputs`` where ``checkpointing`` is asked for."""
    if checkpointing and torch.is_grad_enabled():
        # Nothing random happens inside blocks: the state of generators need not be kept.
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return block(*inputs)


def set_checkpointing(model: nn.Module, on: bool) -> None:
    """Turn activation checkpointing of every encoder and decoder within ``model`` on or off."""
    for module in model.modules():
        if hasattr(module, "checkpointing"):
            module.checkpointing = on  # type: ignore[assignment]


def compile_blocks(model: nn.Module) -> None:
    """torch.compile each block in place: one small graph serves the whole depth, and names of weights stay."""
    for module in units(model):
        module.compile()


def units(model: nn.Module) -> list[nn.Module]:
    """The blocks of ``model``: what is compiled, and sharded, one by one."""
    return [m for m in model.modules() if getattr(m, "unit", False)]


def patchify(images: Tensor, patch: int, padding: int = 0) -> Tensor:
    """(B, C, H, W) -> (B, N, C * P * P), rows first, channels slowest inside a patch.

    ``padding``: what a strided convolution with that padding samples: the grid starts so many px before the picture.
    """
    if padding:
        images = F.pad(images, (padding, -padding, padding, -padding))
    b, c, h, w = images.shape
    x = images.view(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) tokens at (B, K) indices -> (B, K, D). Whole rows are copied; an index per number is not made."""
    b, n, d = tokens.shape
    rows = (index + n * torch.arange(b, device=index.device)[:, None]).flatten()
    return tokens.reshape(b * n, d).index_select(0, rows).view(b, index.shape[1], d)


def resize_positions(
    positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int], antialias: bool = False
) -> Tensor:
    """(1, N, D) positions of ``grid`` -> those of ``wanted``, bicubic, half-pixel centres: 64x64 to 64x48 in Sapiens v1."""
    if grid == wanted:
        return positions
    square = positions.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square.float(), size=wanted, mode="bicubic", align_corners=False, antialias=antialias)
    return square.permute(0, 2, 3, 1).reshape(1, wanted[0] * wanted[1], -1).to(positions.dtype)


@torch.compiler.assume_constant_result
def sincos(grid: tuple[int, int], dim: int, device: torch.device | str = "cpu") -> Tensor:
    """(1, N, D) float32 fixed positions: half the width for the row, half for the column (MAE, appendix A.1)."""
    return _sincos(grid, dim, torch.device(device))


@functools.lru_cache(maxsize=32)
def _sincos(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    quarter = dim // 4
    frequency = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64, device=device) / quarter)
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], device=device), torch.arange(grid[1], device=device), indexing="ij"
    )
    parts = []
    for axis in (rows, columns):
        angle = axis.reshape(-1, 1).double() * frequency
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)[None].float()


def init_weights(module: nn.Module) -> None:
    """Xavier for linear layers, zero biases, as MAE."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
