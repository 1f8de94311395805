"""Encoder features -> dense maps by Sapiens2's own heads: pixel shuffle for geometry and colour, deconvolution for classes and
keypoints, and the branch that tells a point map's scale.

Widths, orders and kernels are those of sapiens.md 1.2 and 3. Legend: B batch, D width, H rows, W columns.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """RMS norm over the channels of each place, with a weight: the albedo head's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class PixelShuffleHead(nn.Module):
    """3x3 convolutions, each second one before a pixel shuffle that doubles resolution, up to the picture's own.

    ``ups``, ``flats``: channels after each doubling, and of the convolutions that follow.
    """

    def __init__(
        self, dim: int, channels: int, ups: tuple[int, ...], flats: tuple[int, ...], affine: bool = False
    ) -> None:
        super().__init__()

        def settled(width: int) -> list[nn.Module]:
            return [ChannelNorm(width) if affine else nn.InstanceNorm2d(width), nn.SiLU()]

        self.first = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), *settled(dim))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, 4 * b, 3, padding=1), nn.PixelShuffle(2), *settled(b))
            for a, b in itertools.pairwise((dim, *ups))
        )
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((ups[-1], *flats)):
            layers += [nn.Conv2d(a, b, 3, padding=1), *settled(b)]
        self.convs = nn.Sequential(*layers)
        self.out = nn.Conv2d(flats[-1], channels, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, D, rows, columns) and (B, 3, H, W) -> (B, C, H, W)."""
        x = self.first(features)
        for up in self.ups:
            x = up(x)
        return fitted(self.out(self.convs(x)), images)


class ScaleBranch(nn.Module):
    """Features -> one number a picture: 1x1 convolutions of stride 2, then a perceptron over all that is left.

    ``grid``: of the features; a small one is halved less often, for an instance norm of one place has nothing to norm.
    """

    def __init__(self, dim: int, grid: tuple[int, int], widths: tuple[int, ...], hidden: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = dim
        for width in widths:
            after = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
            if after[0] * after[1] < 2:
                break
            layers += [nn.Conv2d(inside, width, 1, stride=2), nn.InstanceNorm2d(width), nn.SiLU()]
            inside, grid = width, after
        self.convs = nn.Sequential(*layers)
        flat = inside * grid[0] * grid[1]
        self.out = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, hidden[0]), nn.SiLU(), nn.Linear(hidden[0], hidden[1]), nn.SiLU(), nn.Linear(hidden[1], 1)
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, 1)."""
        return self.out(self.convs(features))


def fitted(y: Tensor, images: Tensor) -> Tensor:
    """``y`` stretched to the picture's size where it is not."""
    if y.shape[2:] != images.shape[2:]:
        y = nn.functional.interpolate(y, size=images.shape[2:], mode="bilinear", align_corners=False)
    return y


Widths = tuple[tuple[int, ...], tuple[int, ...]]
# (channels after each doubling, channels of the flat convolutions) of the models up to 1B, and of the 5B.
SHUFFLES: dict[str, tuple[Widths, Widths]] = {
    "pointmap": (((1536, 768, 512, 256), (64, 32, 16)), ((1536, 768, 768, 768), (128, 64, 32))),
    "normal": (((768, 512, 256, 128), (64, 32, 16)), ((1536, 768, 512, 256), (128, 64, 32))),
}
PARTS: Widths = ((512, 256, 128, 64), (64, 64))
# Pose of the 1B, and of the others.
POSE: tuple[Widths, Widths] = (((1536, 1024), (768, 512, 256)), ((1024, 768), (512, 512, 256)))
SCALE = ((1536, 512, 128), (512, 128))


def widths(task: str, dim: int, width: int = 0) -> Widths:
    """The published widths of ``task``'s head on an encoder of ``dim``; ``width``: scaled so that the widest has so many."""
    if task.startswith("parts"):
        found = PARTS
    elif task.startswith("pose"):
        found = POSE[0 if dim == 1536 else 1]
    else:
        found = SHUFFLES["pointmap" if task == "pointmap" else "normal"][1 if dim == 2432 else 0]
    if not width:
        return found
    return scaled(found[0], width, max(found[0])), scaled(found[1], width, max(found[0]))


def scaled(values: tuple[int, ...], width: int, widest: int) -> tuple[int, ...]:
    """``values`` by width / widest, in whole eights, at least 8."""
    return tuple(max(8, round(v * width / widest / 8) * 8) for v in values)


def scale_branch(dim: int, grid: tuple[int, int], width: int = 0) -> ScaleBranch:
    """The published branch, or one whose widest layer has ``width`` channels."""
    convs: tuple[int, ...]
    convs, hidden = SCALE
    if width:
        convs, two = scaled(convs, width, convs[0]), scaled(hidden, width, hidden[0])
        hidden = (two[0], two[1])
    return ScaleBranch(dim, grid, convs, hidden)


def with_scale(y: Tensor, scale: Tensor) -> Tensor:
    """(B, 3, H, W) points and (B, 1) -> (B, 4, H, W), the scale at every pixel: so a task's output stays one tensor."""
    return torch.cat([y, scale[:, :, None, None].expand(-1, -1, *y.shape[2:]).to(y.dtype)], dim=1)
