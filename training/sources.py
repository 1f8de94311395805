"""Rows -> batches whose pixels the device makes: coded planes, cut-out pictures and draws travel, the rest is done there.

The same draws and the same functions as on the processor (training/transforms.py), a batch at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifests.dataset import Dataset
from manifests.seeds import generator
from training import decode, transforms
from training.data import Rows, picture
from training.loader import Planes, Spec
from training.settings import Augment

# The planes of the tasks whose pixels a device can make; other tasks' are made on the processor.
CODED = {"depth": ("mask", "depth"), "normal": ("mask", "normal"), "foreground": (), "pointmap": ("mask", "depth")}


class DenseSources:
    """A Maker (training/loader.py) for a dense task. Rows must be of one size and coded as by default (``uniform``)."""

    def __init__(
        self, task: str, size: tuple[int, int], how: Augment, backgrounds: transforms.Backgrounds | None
    ) -> None:
        self._task, self._size, self._how, self._backgrounds = task, size, how, backgrounds
        self._planes = Planes(CODED[task])
        self._room = (2 * size[0] + 8, 2 * size[1] + 8)

    def spec(self, dataset: Dataset, row: int) -> Spec:
        """As Maker."""
        drawn = transforms.row_draws(dataset[row], generator("spec"), self._size, self._how, self._backgrounds)
        made: Spec = {"look": ((3, 3), np.dtype(np.float64)), "pixels": ((*self._room, 4), np.dtype(np.uint8))}
        return {**self._planes.spec(dataset, row), **_spec(drawn), **made}

    def fill(self, dataset: Dataset, row: int, rng: np.random.Generator, out: dict[str, np.ndarray]) -> None:
        """As Maker."""
        data = dataset[row]
        drawn = transforms.row_draws(data, rng, self._size, self._how, self._backgrounds)
        _cut(transforms.rgba(data), drawn, self._size, out)
        self._planes.fill(dataset, row, rng, out)

    def view(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What ``fill`` wrote, as tensors of the device -> ``transforms.dense_view``'s."""
        source: dict[str, Tensor] = {}
        if self._task != "foreground":
            source["mask"] = batch["mask"]
        if "depth" in CODED[self._task]:
            source["depth"] = decode.depth(batch["depth"], batch["depth_z0"], batch["depth_step"])
        elif self._task == "normal":
            source["normal"] = decode.normal(batch["normal"])
        return transforms.dense_view(batch["pixels"].permute(0, 3, 1, 2), source, batch, self._size, self._task)


class PictureSources:
    """A Maker for pictures alone, of any size, rendered or photographed."""

    def __init__(self, size: tuple[int, int], patches: int, how: Augment) -> None:
        self._size, self._patches, self._how = size, patches, how
        self._room = (2 * size[0] + 8, 2 * size[1] + 8)

    def spec(self, dataset: Dataset, row: int) -> Spec:
        """As Maker."""
        drawn = transforms.picture_draws(np.zeros((9, 9, 3), np.uint8), generator("spec"), self._size, self._how)
        made: Spec = {
            "look": ((3, 3), np.dtype(np.float64)),
            "pixels": ((*self._room, 3), np.dtype(np.uint8)),
            "order": ((self._patches,), np.dtype(np.int64)),
        }
        return {**_spec(drawn), **made}

    def fill(self, dataset: Dataset, row: int, rng: np.random.Generator, out: dict[str, np.ndarray]) -> None:
        """As Maker."""
        rgb = picture(dataset.kind, dataset[row])
        drawn = transforms.picture_draws(rgb, rng, self._size, self._how)
        _cut(rgb, drawn, self._size, out)
        out["order"][...] = rng.permutation(self._patches)

    def view(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As DenseSources.view."""
        image = transforms.picture_view(batch["pixels"].permute(0, 3, 1, 2), batch, self._size)
        return {"image": image, "order": batch["order"]}


def uniform(rows: Rows, device: torch.device) -> bool:
    """Whether ``device`` shall make the pixels of rendered ``rows``: a GPU, and rows of one size."""
    sizes = {(label["height"], label["width"]) for ds in rows.sets for label in ds.labels}
    return device.type == "cuda" and len(sizes) == 1


def _spec(drawn: dict[str, np.ndarray]) -> Spec:
    return {k: (v.shape, v.dtype) for k, v in drawn.items()}


def _cut(pixels: np.ndarray, drawn: dict[str, Any], size: tuple[int, int], out: dict[str, np.ndarray]) -> None:
    """Write the cut-out picture in the corner of its room, grey around it as past a border, and the draws."""
    room = out["pixels"].shape[0], out["pixels"].shape[1]
    cut, drawn["look"] = transforms.reduced(pixels, drawn["warp"], size, room)
    out["pixels"][..., :3] = np.round(transforms.MEAN)
    out["pixels"][..., 3:] = 0
    out["pixels"][: cut.shape[0], : cut.shape[1]] = cut
    for name, value in drawn.items():
        out[name][...] = value
