"""Pictures -> patch tokens -> features: a plain pre-norm vision transformer (Dosovitskiy et al. 2021) on torch's own
attention.

Legend: B batch, N tokens, D width, P patch side in px.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
}


class Attention(nn.Module):
    """Multi-head self-attention with fused qkv."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """Pre-norm transformer block, MLP x 4, exact GELU."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Patch embedding, fixed 2-D sin-cos positions, blocks, final norm. Works on any grid of whole patches."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Linear(3 * size.patch**2, size.dim)
        self.blocks = nn.ModuleList(Block(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.apply(init_weights)

    def forward(self, images: Tensor, keep: Tensor | None = None, taps: tuple[int, ...] = ()) -> list[Tensor]:
        """``images``: (B, 3, H, W) normalised float. ``keep``: (B, K) int64 indices of the patches to look at, None
        = all.

        Returns the normed output (B, K or N, D), preceded by the outputs of the blocks in ``taps``. Patches are
        gathered
        before they are embedded: a masked patch costs nothing.
        """
        grid = (images.shape[2] // self.size.patch, images.shape[3] // self.size.patch)
        patches = patchify(images, self.size.patch)
        positions = sincos(grid, self.size.dim, images.device).expand(len(images), -1, -1)
        if keep is not None:
            patches, positions = gather(patches, keep), gather(positions, keep)
        x = self.embed(patches) + positions
        out = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in taps:
                out.append(x)
        return [*out, self.norm(x)]


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C * P * P), rows first, channels slowest inside a patch."""
    b, c, h, w = images.shape
    x = images.view(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) tokens at (B, K) indices -> (B, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def sincos(grid: tuple[int, int], dim: int, device: torch.device | str = "cpu") -> Tensor:
    """(1, N, D) float32 fixed positions: half the width for the row, half for the column (MAE, appendix A.1)."""
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
