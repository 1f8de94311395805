"""Encoder features -> a dense map at full input resolution: a light head by default, Sapiens v1's for its checkpoints.

Legend: B batch, N patches, D width, H rows, W columns.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.vit import Encoder, Size

CHANNELS = {"depth": 1, "normal": 3, "foreground": 1}
# Widths of Sapiens v1's deconvolutions and 1x1 convolutions; depth predicts at full resolution, normals at half.
DECONVS = {
    "depth": ((384,) * 4, (384, 384)),
    "normal": ((768,) * 3, (768, 768)),
    "foreground": ((768,) * 3, (768, 768)),
}


class LightHead(nn.Module):
    """Features of three depths fused, upsampled by convolutions, and joined by the picture's own detail.

    Width halves as resolution doubles past a quarter: full-resolution convolutions at full width would cost more than the
    encoder (the deconvolution heads of Sapiens are 38 % of a fine-tune step).
    """

    def __init__(self, size: Size, channels: int, width: int) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(3 * size.dim, 2 * width, 1)
        self.mix = block(2 * width, width)
        widths = light_widths(size.patch, width)
        self.up = nn.ModuleList(block(a, b) for a, b in itertools.pairwise(widths))
        # The picture itself at full resolution: patch tokens alone draw blurred borders.
        self.detail = block(3, 16)
        self.out = nn.Sequential(block(widths[-1] + 16, 16), nn.Conv2d(16, channels, 1))

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, 3 D, rows, columns) and (B, 3, H, W) -> (B, C, H, W)."""
        x = self.mix(self.fuse(features))
        for step in self.up:
            x = step(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        return self.out(torch.cat([x, self.detail(images)], dim=1))


class DeconvHead(nn.Module):
    """Sapiens v1: 4x4 transposed convolutions of stride 2, then 1x1 ones, each with instance norm and SiLU."""

    def __init__(self, size: Size, channels: int, widths: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        super().__init__()
        # Never past the picture's own resolution: patches of 8 px have room for three.
        ups, flats = widths[0][: size.patch.bit_length() - 1], widths[1]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((size.dim, *ups)):
            layers += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False), nn.InstanceNorm2d(b), nn.SiLU()]
        self.deconvs = nn.Sequential(*layers)
        layers = []
        for a, b in itertools.pairwise((ups[-1], *flats)):
            layers += [nn.Conv2d(a, b, 1), nn.InstanceNorm2d(b), nn.SiLU()]
        self.convs = nn.Sequential(*layers)
        self.out = nn.Conv2d(flats[-1], channels, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, D, rows, columns) and (B, 3, H, W) -> (B, C, H, W)."""
        y = self.out(self.convs(self.deconvs(features)))
        if y.shape[2:] != images.shape[2:]:
            y = F.interpolate(y, size=images.shape[2:], mode="bilinear", align_corners=False)
        return y


class DenseModel(nn.Module):
    """Encoder and one task's head.

    ``head``: `light` of ``width``, or `deconv` with Sapiens v1's own widths. ``grid``, ``padding``, ``eps``: as Encoder
    takes them; ``grid`` is what weights with stored positions need.
    """

    def __init__(
        self,
        size: Size,
        task: str,
        width: int,
        *,
        head: str = "light",
        grid: tuple[int, int] | None = None,
        padding: int = 0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.task = task
        self.encoder = Encoder(size, grid, padding=padding, eps=eps)
        self.taps = (size.depth // 3 - 1, 2 * size.depth // 3 - 1) if head == "light" else ()
        self.head: nn.Module
        if head == "light":
            self.head = LightHead(size, CHANNELS[task], width)
        else:
            self.head = DeconvHead(size, CHANNELS[task], DECONVS[task])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, 1, H, W) relative depth, (B, 3, H, W) unit normals (OpenCV camera frame) or
        (B, 1, H, W) logits of the foreground.
        """
        patch = self.encoder.size.patch
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        tokens = torch.cat(self.encoder(images, taps=self.taps), dim=-1)
        y = self.head(tokens.transpose(1, 2).reshape(images.shape[0], -1, *grid), images).float()
        return F.normalize(y, dim=1, eps=1e-6) if self.task == "normal" else y


def light_widths(patch: int, width: int) -> list[int]:
    """Channels of the light head at each resolution, from the patch grid's up to the picture's."""
    steps = patch.bit_length() - 1
    return [max(16, width >> max(0, i + 3 - steps)) for i in range(steps + 1)]


def block(inside: int, outside: int) -> nn.Sequential:
    """3x3 convolution, group norm, SiLU."""
    groups = max(g for g in (1, 2, 4, 8) if outside % g == 0)
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(groups, outside), nn.SiLU())
