"""Encoder features -> a dense map at full input resolution: one light head for every dense task.

Legend: B batch, D width, H rows, W columns.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.vit import Encoder, Size

CHANNELS = {"depth": 1, "normal": 3, "foreground": 1}


class DenseModel(nn.Module):
    """Encoder, then features of three depths fused, upsampled by convolutions, and joined by the picture's own detail.

    Width halves as resolution doubles past a quarter: full-resolution convolutions at full width would cost more than the
    encoder (the deconvolution heads of Sapiens are 38 % of a fine-tune step).
    """

    def __init__(self, size: Size, task: str, width: int) -> None:
        super().__init__()
        self.task = task
        self.encoder = Encoder(size)
        self.taps = (size.depth // 3 - 1, 2 * size.depth // 3 - 1)
        self.fuse = nn.Conv2d(3 * size.dim, 2 * width, 1)
        self.mix = _block(2 * width, width)
        steps = size.patch.bit_length() - 1
        widths = [max(16, width >> max(0, i + 3 - steps)) for i in range(steps + 1)]
        self.up = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))
        # The picture itself at full resolution: patch tokens alone draw blurred borders.
        self.detail = _block(3, 16)
        self.out = nn.Sequential(_block(widths[-1] + 16, 16), nn.Conv2d(16, CHANNELS[task], 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, 1, H, W) relative depth, or (B, 3, H, W) unit normals (OpenCV camera frame)."""
        patch = self.encoder.size.patch
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        tokens = torch.cat(self.encoder(images, taps=self.taps), dim=-1)
        x = self.mix(self.fuse(tokens.transpose(1, 2).reshape(len(images), -1, *grid)))
        for block in self.up:
            x = block(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        y = self.out(torch.cat([x, self.detail(images)], dim=1)).float()
        return F.normalize(y, dim=1, eps=1e-6) if self.task == "normal" else y


def _block(inside: int, outside: int) -> nn.Sequential:
    groups = max(g for g in (1, 2, 4, 8) if outside % g == 0)
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(groups, outside), nn.SiLU())
