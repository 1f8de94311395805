"""Pictures -> features by the transformers of Sapiens2, DINOv2 and DINOv3: one block, and what each of them turns on.

Legend: B batch, N patches, K looked-at patches, T tokens (class token, registers, patches), D width, H heads, C width of a
head, P patch side in px. A grid is (rows, columns) of the patches that blocks see. Sapiens2: sapiens.md 1.2, from its names,
shapes and formulas; DINOv2 Oquab et al. 2023; DINOv3 Siméoni et al. 2025.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import rope
from training.vit import Size, gather, patchify, resize_positions, sincos, through


@dataclasses.dataclass(frozen=True)
class Modern(Size):
    """What is on beside width, depth, heads and patch side; the defaults are Sapiens2's.

    ``hidden``: of the MLP, 0 = 4 D. ``full``: blocks at each end with a key for every query; those between have half as
    many keys (None: none has). ``windows``: layers that each window of 4x4 patches goes through before the blocks see one
    token of it. ``scales``: LayerScale's first values on attention and MLP, None = without. ``rope``: type of the
    stored periods, None = learnt positions in their place. ``positions``: their grid as published;
    ``antialias``: how they are made fewer.
    """

    hidden: int = 0
    full: int | None = 8
    registers: int = 8
    windows: int = 0
    rms: bool = True
    qk_norm: bool = True
    gated: bool = True
    scales: tuple[float | None, float | None] = (1e-4, None)
    rope: torch.dtype | None = torch.bfloat16
    positions: tuple[int, int] | None = None
    antialias: bool = False
    eps: float = 1e-6

    @property
    def stride(self) -> int:
        """Px from one token that blocks see to the next."""
        return self.patch * (WINDOW if self.windows else 1)

    def keys(self, block: int) -> int:
        """Heads of keys and values in ``block``."""
        inner = self.full is not None and self.full <= block < self.depth - self.full
        return self.heads // 2 if inner else self.heads


# Patches along a side of the 4K tokenizer's windows; windows that it takes at a time.
WINDOW, CHUNK = 4, 1024


def _dino2(dim: int, depth: int, heads: int, registers: int = 0, hidden: int = 0) -> Modern:
    return Modern(
        dim, depth, heads, 14, full=None, registers=registers, antialias=registers > 0, rms=False, qk_norm=False,
        gated=hidden > 0, hidden=hidden, scales=(1e-5, 1e-5), rope=None, positions=(37, 37),
    )  # fmt: skip


def _dino3(dim: int, depth: int, heads: int, hidden: int = 0) -> Modern:
    return Modern(
        dim, depth, heads, 16, full=None, registers=4, rms=False, qk_norm=False, gated=hidden > 0, hidden=hidden,
        scales=(1e-5, 1e-5), rope=torch.float32, eps=1e-5,
    )  # fmt: skip


# sapiens2-tiny is for CPUs.
SIZES: dict[str, Modern] = {
    "sapiens2-tiny": Modern(192, 6, 3, 8, full=2, registers=4),
    "sapiens2-0.1b": Modern(768, 12, 12, 16),
    "sapiens2-0.4b": Modern(1024, 24, 16, 16),
    "sapiens2-0.8b": Modern(1280, 32, 16, 16),
    "sapiens2-1b": Modern(1536, 40, 24, 16),
    "sapiens2-1b-4k": Modern(1536, 40, 24, 16, windows=4),
    "sapiens2-5b": Modern(2432, 56, 32, 16),
    "dinov2-s": _dino2(384, 12, 6),
    "dinov2-b": _dino2(768, 12, 12),
    "dinov2-l": _dino2(1024, 24, 16),
    "dinov2-g": _dino2(1536, 40, 24, hidden=4096),
    "dinov2-s-reg": _dino2(384, 12, 6, registers=4),
    "dinov2-b-reg": _dino2(768, 12, 12, registers=4),
    "dinov2-l-reg": _dino2(1024, 24, 16, registers=4),
    "dinov2-g-reg": _dino2(1536, 40, 24, registers=4, hidden=4096),
    "dinov3-s": _dino3(384, 12, 6),
    "dinov3-s-plus": _dino3(384, 12, 6, 1536),
    "dinov3-b": _dino3(768, 12, 12),
    "dinov3-l": _dino3(1024, 24, 16),
    "dinov3-h-plus": _dino3(1280, 32, 20, 5120),
    "dinov3-7b": _dino3(4096, 40, 32, 8192),
}


class GroupedAttention(nn.Module):
    """Self-attention with as many or half as many keys as queries, and normed queries and keys where asked for."""

    def __init__(self, size: Modern, kv_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, width = size.heads, kv_heads, size.dim // size.heads
        self.query = nn.Linear(size.dim, size.dim)
        self.key_value = nn.Linear(size.dim, 2 * kv_heads * width)
        self.query_norm = nn.RMSNorm(width, eps=size.eps) if qk_norm else None
        self.key_norm = nn.RMSNorm(width, eps=size.eps) if qk_norm else None
        self.proj = nn.Linear(size.dim, size.dim)

    def forward(self, x: Tensor, turns: rope.Turns | None) -> Tensor:
        """``x``: (B, T, D)."""
        q, k, v = self.split(x, turns)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, enable_gqa=self.kv_heads != self.heads)
        return self.proj(out.transpose(1, 2).reshape(x.shape))

    def split(self, x: Tensor, turns: rope.Turns | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> queries (B, H, T, C), and keys and values of as many heads as there are of them."""
        b, t, d = x.shape
        q = self.query(x).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(x).view(b, t, 2, self.kv_heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if turns is not None:
            q, k = rope.turned(q, turns), rope.turned(k, turns)
        return q, k, v


class SwiGLU(nn.Module):
    """silu(first half) x second half of one projection, and back."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Mlp(nn.Module):
    """Two linear layers, exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class ModernBlock(nn.Module):
    """Pre-norm block. ``plain``: as in the 4K tokenizer, without norms of queries and keys and without LayerScale."""

    unit = True

    def __init__(self, size: Modern, kv_heads: int, plain: bool = False) -> None:
        super().__init__()
        hidden = size.hidden or 4 * size.dim
        self.norm1, self.norm2 = norm(size), norm(size)
        self.attention = GroupedAttention(size, kv_heads, size.qk_norm and not plain)
        self.mlp = SwiGLU(size.dim, hidden) if size.gated else Mlp(size.dim, hidden)
        first, second = (None, None) if plain else size.scales
        self.scale1 = nn.Parameter(torch.full((size.dim,), first)) if first is not None else None
        self.scale2 = nn.Parameter(torch.full((size.dim,), second)) if second is not None else None

    def forward(self, x: Tensor, turns: rope.Turns | None = None) -> Tensor:
        """``x``: (B, T, D) -> the same."""
        y = self.attention(self.norm1(x), turns)
        x = x + (y if self.scale1 is None else y * self.scale1)
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else y * self.scale2)


class Windows(nn.Module):
    """The 4K tokenizer: each window of 4x4 patches, a token of its own before them, goes through blocks alone; of the
    window that token is kept.
    """

    def __init__(self, size: Modern) -> None:
        super().__init__()
        self.checkpointing = False
        self.window_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.position_tokens = nn.Parameter(torch.zeros(1, 1 + WINDOW**2, size.dim))
        self.blocks = nn.ModuleList(ModernBlock(size, size.heads, plain=True) for _ in range(size.windows))
        for parameter in (self.window_token, self.position_tokens):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, rows x columns, D) patches -> (B, rows / 4 x columns / 4, D)."""
        b, _, d = x.shape
        rows, columns = grid[0] // WINDOW, grid[1] // WINDOW
        windows = x.view(b, rows, WINDOW, columns, WINDOW, d).transpose(2, 3).reshape(-1, WINDOW**2, d)
        # All at once would hold 17 tokens of every block for each of 3,072 windows of a 4K picture.
        parts = [through(self.local, self.checkpointing, part) for part in windows.split(CHUNK)]
        return torch.cat(parts).view(b, rows * columns, d)

    def local(self, windows: Tensor) -> Tensor:
        """(W, 16, D) -> (W, D)."""
        tokens = torch.cat([self.window_token.expand(windows.shape[0], -1, -1), windows], dim=1) + self.position_tokens
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]


class ModernEmbedding(nn.Module):
    """Patches -> tokens. Names that hold `token` are what an optimiser must not decay."""

    def __init__(self, size: Modern, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.projection = nn.Linear(3 * size.patch**2, size.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, size.registers, size.dim)) if size.registers else None
        self.position_tokens = None
        if size.rope is None and grid is not None:
            # Learnt from sin-cos: a slot for the class token, none for registers.
            places = sincos(grid, size.dim, torch.get_default_device())
            self.position_tokens = nn.Parameter(torch.cat([torch.zeros(1, 1, size.dim), places], dim=1))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.register_tokens is not None:
            nn.init.trunc_normal_(self.register_tokens, std=0.02)


class ModernEncoder(nn.Module):
    """Patch embedding, class token and registers, blocks, final norm; on any grid of whole patches (4K: of whole windows).

    ``grid``: of the stored positions, where there are any; resized for pictures of another. ``checkpointing`` (attribute)
    as vit.Encoder's.
    """

    def __init__(self, size: Modern, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.size, self.grid, self.stride = size, grid or size.positions, size.stride
        self.prefix = 1 + size.registers
        self.checkpointing = False
        self.embed = ModernEmbedding(size, self.grid)
        self.windows = Windows(size) if size.windows else None
        self.rope = rope.Periods(size.dim // size.heads, size.rope) if size.rope is not None else None
        self.blocks = nn.ModuleList(ModernBlock(size, size.keys(i)) for i in range(size.depth))
        self.norm = norm(size)
        self.apply(init_modern)

    def forward(
        self,
        images: Tensor,
        keep: Tensor | None = None,
        taps: tuple[int, ...] = (),
        patches: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> list[Tensor]:
        """``images``: (B, 3, H, W) normalised float. ``keep``: (B, K) int64 indices of the tokens to look at, None = all.
        ``patches``: (B, N, 3 P P) as ``patchify`` cuts ``images``, where the caller has them already. ``prompt``: (1, Q, D)
        tokens that all others see and that are not put out.

        Returns the normed output (B, T, D), class token first, then registers, preceded by the outputs of the blocks in
        ``taps``. What is not looked at is gathered out before it is embedded; 4K goes through its windows first.
        """
        if patches is None:
            patches = patchify(images, self.size.patch)
        grid = (images.shape[2] // self.stride, images.shape[3] // self.stride)
        if self.windows is not None:
            fine = (images.shape[2] // self.size.patch, images.shape[3] // self.size.patch)
            x = self.windows(self.embed.projection(patches), fine)
            x = x if keep is None else gather(x, keep)
        else:
            x = self.embed.projection(patches if keep is None else gather(patches, keep))
        cls: Tensor = self.embed.cls_token
        stored = self.embed.position_tokens
        if stored is not None:
            assert self.grid is not None
            places = resize_positions(stored[:, 1:], self.grid, grid, self.size.antialias)
            x = x + (places if keep is None else F.embedding(keep, places[0]))
            cls = cls + stored[:, :1]
        first = [t for t in (prompt, cls, self.embed.register_tokens) if t is not None]
        hidden = 0 if prompt is None else prompt.shape[1]
        x = torch.cat([*(t.expand(x.shape[0], -1, -1).to(x.dtype) for t in first), x], dim=1)
        turns = None if self.rope is None else self.rope(grid, hidden + self.prefix, keep)
        out = []
        for i, block in enumerate(self.blocks):
            x = through(block, self.checkpointing, x, turns)
            if i in taps:
                out.append(x[:, hidden:])
        return [*out, self.norm(x[:, hidden:])]


def norm(size: Modern) -> nn.Module:
    """RMSNorm or LayerNorm over D."""
    return nn.RMSNorm(size.dim, eps=size.eps) if size.rms else nn.LayerNorm(size.dim, eps=size.eps)


def init_modern(module: nn.Module) -> None:
    """Truncated normals of 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
