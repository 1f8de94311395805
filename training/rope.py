"""Places of patches -> rotations of queries and keys: axial rotary positions as DINOv3 and Sapiens2 have them.

Angle = 2 pi place / period, the place of a patch's centre along each axis in -1..1, half the angles for rows, half for
columns (sapiens.md 1.2). Legend: B batch, N patches, K looked-at patches, T tokens, C width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BASE = 100.0
Turns = tuple[Tensor, Tensor]


class Periods(nn.Module):
    """The C / 4 periods, a buffer that checkpoints hold: Sapiens2's are rounded to bfloat16, and its weights grew up with that."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        quarter = width // 4
        exponent = torch.arange(quarter, dtype=torch.float32) / quarter
        self.register_buffer("periods", (BASE**exponent).to(dtype))

    def forward(self, grid: tuple[int, int], prefix: int, keep: Tensor | None = None) -> Turns:
        """Cosines and sines, (1, 1, T, C) float32, of ``prefix`` tokens that do not turn and the patches of ``grid``; with
        ``keep`` (B, K) of those patches alone, (B, 1, T, C).
        """
        periods = self.get_buffer("periods")
        # Where the weights are wider than float32 (float64 tests), so are the angles.
        kind = torch.float64 if periods.dtype == torch.float64 else torch.float32
        axes = [(torch.arange(n, device=periods.device, dtype=kind) + 0.5) / n * 2 - 1 for n in grid]
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        angles = torch.stack([rows, columns], dim=-1).view(-1, 2, 1) * (2 * math.pi / periods.to(kind))
        angles = angles.flatten(1).tile(2)
        turns = []
        for table, still in ((angles.cos(), 1.0), (angles.sin(), 0.0)):
            chosen = table[None] if keep is None else table[keep]
            first = torch.full((chosen.shape[0], prefix, chosen.shape[2]), still, device=table.device, dtype=kind)
            turns.append(torch.cat([first, chosen], dim=1)[:, None])
        return turns[0], turns[1]


def turned(x: Tensor, turns: Turns) -> Tensor:
    """(B, H, T, C) rotated in the planes (c, c + C / 2)."""
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin
