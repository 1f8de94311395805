"""Encoder features -> a dense map at full input resolution: a light head by default, Sapiens v1's for its checkpoints.

Legend: B batch, N patches, D width, H rows, W columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.errors import JobError
from training import heads_sapiens2
from training.backbones import encoder
from training.heads_dpt import DptHead
from training.heads_sapiens2 import fitted
from training.heads_vitpose import WIDTH, ClassicHead, SimpleHead
from training.vit import Size

CHANNELS = {
    "depth": 1, "normal": 3, "foreground": 1, "parts": 29, "parts28": 28, "pose17": 17, "pose133": 133, "pose308": 308,
    "pointmap": 3, "albedo": 3,
}  # fmt: skip
POSES = ("pose17", "pose133", "pose308")
# Widths of Sapiens v1's deconvolutions and 1x1 convolutions; depth predicts at full resolution, normals at half.
DECONVS = {
    "depth": ((384,) * 4, (384, 384)),
    "normal": ((768,) * 3, (768, 768)),
    "foreground": ((768,) * 3, (768, 768)),
    **dict.fromkeys(("parts", "parts28", "pointmap", "albedo"), ((768,) * 3, (768, 768))),
    **dict.fromkeys(POSES, ((768, 768), (768, 768))),
}


class LightHead(nn.Module):
    """Features of three depths fused, upsampled by convolutions, and joined by the picture's own detail.

    Width halves as resolution doubles past a quarter: full-resolution convolutions at full width would cost more than the
    encoder (the deconvolution heads of Sapiens are 38 % of a fine-tune step).
    """

    def __init__(self, size: Size, channels: int, width: int) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(3 * size.dim, 2 * width, 1)
        widths = light_widths(stride_of(size), width)
        self.mix = block(2 * width, widths[0])
        self.up = nn.ModuleList(block(a, b) for a, b in itertools.pairwise(widths))
        # The picture itself at full resolution: patch tokens alone draw blurred borders.
        self.detail = block(3, 16)
        self.out = nn.Sequential(block(widths[-1] + 16, 16), nn.Conv2d(16, channels, 1))

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, 3 D, rows, columns) and (B, 3, H, W) -> (B, C, H, W)."""
        x = self.mix(self.fuse(features))
        for i, step in enumerate(self.up):
            # The last goes to the picture's own size: patches of 14 px are no power of 2.
            last = i == len(self.up) - 1
            size = images.shape[2:] if last else (2 * x.shape[2], 2 * x.shape[3])
            x = step(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        return self.out(torch.cat([x, self.detail(images)], dim=1))


class DeconvHead(nn.Module):
    """Sapiens: 4x4 transposed convolutions of stride 2, then 1x1 ones, each with instance norm and SiLU.

    ``stop``: doublings short of the picture's resolution; what is put out is then not stretched to it.
    """

    def __init__(
        self, size: Size, channels: int, widths: tuple[tuple[int, ...], tuple[int, ...]], stop: int = 0, dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.stop = stop
        # Never past the picture's own resolution: patches of 8 px have room for three.
        ups, flats = widths[0][: max(1, stride_of(size).bit_length() - 1 - stop)], widths[1]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((size.dim, *ups)):
            layers += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False), nn.InstanceNorm2d(b), nn.SiLU()]
        self.deconvs = nn.Sequential(*layers)
        layers = []
        for a, b in itertools.pairwise((ups[-1], *flats)):
            layers += [nn.Conv2d(a, b, 1), nn.InstanceNorm2d(b), nn.SiLU()]
        self.convs = nn.Sequential(*layers)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(flats[-1], channels, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """(B, D, rows, columns) and (B, 3, H, W) -> (B, C, H, W), or so many times coarser as ``stop`` says."""
        y = self.out(self.dropout(self.convs(self.deconvs(features))))
        return y if self.stop else fitted(y, images)


class DenseModel(nn.Module):
    """Encoder and a head for each task: ``task``'s, and those of ``others`` beside it.

    ``head``: one of HEADS, of ``width`` channels where it is widest, 0 = as published (`deconv` always is). ``grid``,
    ``padding``, ``eps``: as vit.Encoder takes them; ``grid`` is what weights with stored positions and point maps need.
    ``seen``: (H, W) px that the encoder sees whatever the picture's size is; None = the picture.
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
        others: tuple[str, ...] = (),
        seen: tuple[int, int] | None = None,
        prompts: int = 0,
    ) -> None:
        super().__init__()
        self.task, self.kind, self.seen = task, head, seen
        self.encoder = encoder(size, grid, cls_token=head == "dpt", padding=padding, eps=eps)
        depth = size.depth
        taps = {
            "light": (depth // 3 - 1, 2 * depth // 3 - 1),
            "dpt": (depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1),
        }
        self.taps = taps.get(head, ())
        self.head = HEADS[head](size, task, width)
        self.others = nn.ModuleDict({t: HEADS[head](size, t, width) for t in others})
        self.scale = None
        if "pointmap" in (task, *others):
            if grid is None:
                raise JobError("a point map's scale is told from a grid of fixed size: give the model one")
            self.scale = heads_sapiens2.scale_branch(size.dim, grid, width)
        # Of training alone (training/distil.py): a map from these features to a teacher's.
        self.aid: nn.Module | None = None
        # Tokens put before all others (training/distil.py).
        self.prompt_tokens = nn.Parameter(torch.zeros(1, prompts, size.dim)) if prompts else None

    def forward(self, images: Tensor, every: bool = False, features: bool = False) -> Any:
        """(B, 3, H, W) normalised -> the task's (B, C, H, W): relative depth, unit normals (OpenCV camera frame), logits of
        the foreground or of classes, sRGB albedo, canonical points and their scale (4 channels), or heatmaps
        (B, K, H / 4, W / 4). ``every``: a dict, task -> that, of all tasks. ``features``: that and the final
        features (B, D, rows, columns), through ``aid`` where there is one.
        """
        seen, last = self.features(images)
        mine = self._finished(self.task, self.head, seen, last, images)
        if features:
            return mine, last if self.aid is None else self.aid(last)
        if not every:
            return mine
        return {self.task: mine} | {t: self._finished(t, h, seen, last, images) for t, h in self.others.items()}

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What heads take, (B, C, rows, columns), and the final features alone (B, D, rows, columns)."""
        if self.seen is not None and tuple(images.shape[2:]) != self.seen:
            images = F.interpolate(images, size=self.seen, mode="bilinear", align_corners=False, antialias=True)
        stride, prefix = self.encoder.stride, self.encoder.prefix
        grid = (images.shape[2] // stride, images.shape[3] // stride)
        if self.prompt_tokens is None:
            tokens = self.encoder(images, taps=self.taps)
        else:
            tokens = self.encoder(images, taps=self.taps, prompt=self.prompt_tokens)
        maps = [t[:, prefix:].transpose(1, 2).reshape(images.shape[0], -1, *grid) for t in tokens]
        last = maps[-1]
        if self.kind == "dpt":
            maps = [torch.cat([m, t[:, 0, :, None, None].expand_as(m)], dim=1) for m, t in zip(maps, tokens)]
        return (torch.cat(maps, dim=1) if len(maps) > 1 else last), last

    def _finished(self, task: str, head: nn.Module, features: Tensor, last: Tensor, images: Tensor) -> Tensor:
        y = head(features, images).float()
        if task == "pointmap" and self.scale is not None:
            return heads_sapiens2.with_scale(y, self.scale(last).float())
        return F.normalize(y, dim=1, eps=1e-6) if task == "normal" else y


class OneTask(nn.Module):
    """A model of several tasks as one of ``task`` alone."""

    def __init__(self, model: DenseModel, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor) -> Tensor:
        """As DenseModel's."""
        return self.model(images, every=True)[self.task]


def light_widths(patch: int, width: int) -> list[int]:
    """Channels of the light head at each resolution, from the patch grid's up to the picture's."""
    steps = patch.bit_length() - 1
    return [max(16, width >> max(0, i + 3 - steps)) for i in range(steps + 1)]


def block(inside: int, outside: int) -> nn.Sequential:
    """3x3 convolution, group norm, SiLU."""
    groups = max(g for g in (1, 2, 4, 8) if outside % g == 0)
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(groups, outside), nn.SiLU())


def stride_of(size: Size) -> int:
    """Px from one place of an encoder's features to the next."""
    return getattr(size, "stride", size.patch)


def _light(size: Size, task: str, width: int) -> nn.Module:
    return LightHead(size, CHANNELS[task], width or LIGHT)


def _deconv(size: Size, task: str, width: int) -> nn.Module:
    return DeconvHead(size, CHANNELS[task], DECONVS[task], stop=HEATMAP_STOP if task in POSES else 0)


def _sapiens2(size: Size, task: str, width: int) -> nn.Module:
    ups, flats = heads_sapiens2.widths(task, size.dim, width)
    if task in POSES:
        return DeconvHead(size, CHANNELS[task], (ups, flats), stop=HEATMAP_STOP)
    if task.startswith("parts"):
        return DeconvHead(size, CHANNELS[task], (ups, flats), dropout=0.1)
    ups = ups[: stride_of(size).bit_length() - 1]
    return heads_sapiens2.PixelShuffleHead(size.dim, CHANNELS[task], ups, flats, affine=task == "albedo")


def _vitpose(size: Size, task: str, width: int) -> nn.Module:
    return ClassicHead(size.dim, CHANNELS[task], width or WIDTH)


def _vitpose_simple(size: Size, task: str, width: int) -> nn.Module:
    return SimpleHead(size.dim, CHANNELS[task])


def _dpt(size: Size, task: str, width: int) -> nn.Module:
    return DptHead(size.dim, CHANNELS[task], width or LIGHT)


# Channels of the heads whose widths nobody published; doublings that heatmaps stop short of the picture.
LIGHT, HEATMAP_STOP = 256, 2
HEADS: dict[str, Callable[[Size, str, int], nn.Module]] = {
    "light": _light,
    "deconv": _deconv,
    "sapiens2": _sapiens2,
    "vitpose": _vitpose,
    "vitpose_simple": _vitpose_simple,
    "dpt": _dpt,
}
