"""Encoder features of four depths and the picture itself -> a dense map: DPT (Ranftl et al. 2021) with DAViD's resizer.

The encoder sees a picture of fixed size, so a fixed number of tokens; a convolutional branch, the resizer, sees the whole
resolution and halves it four times (sapiens.md 1.4). Channel widths are not published: all are ``width`` here.
Legend: B batch, D width of the encoder, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = 4


class Residual(nn.Module):
    """Two pre-activated 3x3 convolutions around which the input goes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Fusion(nn.Module):
    """The coarser result, an encoder feature and the resizer's of this resolution -> the result at this resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = Residual(width), Residual(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, coarser: Tensor | None, encoded: Tensor, detail: Tensor) -> Tensor:
        size = detail.shape[2:]
        x = self.enter(resized(encoded, size) + detail)
        if coarser is not None:
            x = x + resized(coarser, size)
        return self.out(self.leave(x))


class DptHead(nn.Module):
    """Reassembles four depths of tokens, each with the class token projected in, and fuses them from coarse to fine."""

    def __init__(self, dim: int, channels: int, width: int) -> None:
        super().__init__()
        # "Project": a patch and the class token side by side, through one linear layer.
        self.readout = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * dim, dim, 1), nn.GELU()) for _ in range(DEPTHS))
        self.reassemble = nn.ModuleList(nn.Conv2d(dim, width, 1) for _ in range(DEPTHS))
        blocks = [nn.Conv2d(3, width, 3, 2, 1), *(nn.Conv2d(width, width, 3, 2, 1) for _ in range(DEPTHS - 1))]
        groups = max(g for g in (1, 2, 4, 8) if width % g == 0)
        self.resizer = nn.ModuleList(nn.Sequential(c, nn.GroupNorm(groups, width), nn.ReLU()) for c in blocks)
        self.fusions = nn.ModuleList(Fusion(width) for _ in range(DEPTHS))
        self.out = nn.Sequential(
            nn.Conv2d(width, max(16, width // 2), 3, padding=1), nn.ReLU(), nn.Conv2d(max(16, width // 2), channels, 1)
        )

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, 4 x 2 D, rows, columns), each depth's patches and then its class token at every place, shallow first, and
        (B, 3, H, W) -> (B, C, H, W).
        """
        details, x = [], images
        for block in self.resizer:
            x = block(x)
            details.append(x)
        result = None
        depths = features.chunk(DEPTHS, dim=1)
        # The deepest tokens meet the coarsest detail.
        for i in reversed(range(DEPTHS)):
            encoded = self.reassemble[i](self.readout[i](depths[i]))
            result = self.fusions[i](result, encoded, details[i])
        assert result is not None
        return self.out(resized(result, images.shape[2:]))


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """Bilinear, to (rows, columns) ``size``."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
