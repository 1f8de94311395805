"""Encoder features -> heatmaps by ViTPose's heads (Xu et al. 2022; sapiens.md 1.3), four times as fine as the patches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 256


class ClassicHead(nn.Module):
    """Two 4x4 transposed convolutions of stride 2 with batch norm and ReLU, then a 1x1 one."""

    def __init__(self, dim: int, channels: int, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside in (dim, width):
            layers += [nn.ConvTranspose2d(inside, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.deconvs = nn.Sequential(*layers)
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, C, 4 rows, 4 columns)."""
        return self.out(self.deconvs(features))


class SimpleHead(nn.Module):
    """ReLU, four times finer by bilinear interpolation, one 3x3 convolution."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, C, 4 rows, 4 columns)."""
        x = F.interpolate(F.relu(features), scale_factor=4.0, mode="bilinear", align_corners=False)
        return self.out(x)
