"""Rows and draws -> what a model is trained on: pictures of its size with their truth, on whichever device has them.

Two halves: ``source`` and ``draws`` (numpy, per sample, in loader threads: decode, and every random number from the sample's
own generator) and ``view`` (torch, batched: the pixels). On a CPU the threads run both, on a GPU it runs the second.
Legend: B batch, (H, W) the stored picture, (h, w) the model's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from manifests import codecs, photo
from manifests.errors import InputError, PhotoError
from training import photometric, views, warp
from training.settings import Augment

# ImageNet's, as Sapiens normalises (0..255).
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
# What a row must hold for a task, beside the picture.
FIELDS = {"depth": ("alpha", "mask", "depth"), "normal": ("alpha", "mask", "normal"), "foreground": ("alpha", "mask")}
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Backgrounds:
    """The photographs of a folder, by name in order. Raises InputError when there are none."""

    def __init__(self, folder: str | Path) -> None:
        self.paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in PHOTOGRAPHS)
        if not self.paths:
            raise InputError(f"backgrounds {folder}: no photographs ({', '.join(PHOTOGRAPHS)}) here")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8: a random crop of a random photograph, mirrored half the time."""
        path = self.paths[rng.integers(len(self.paths))]
        try:
            rgb = photo.decode(path.read_bytes())[0]
        except (OSError, PhotoError) as error:
            raise InputError(f"background {path}: {error}; take it out of the folder") from None
        (h, w), (height, width) = size, rgb.shape[:2]
        share = np.sqrt(rng.uniform(0.25, 1)) * min(width / w, height / h)
        cw, ch = max(1, int(w * share)), max(1, int(h * share))
        x, y = rng.integers(width - cw + 1), rng.integers(height - ch + 1)
        flip = -1 if rng.random() < 0.5 else 1
        out = cv2.resize(rgb[y : y + ch, x : x + cw], (w, h), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(out[:, ::flip])


def dense_source(row: dict[str, Any], task: str) -> dict[str, np.ndarray]:
    """``image`` (3, H, W) uint8, ``mask``, ``alpha`` (1, H, W) uint8 and the task's truth, ``depth`` (1, H, W) or
    ``normal`` (3, H, W) float32, of a rendered row.
    """
    height, width = row["camera"]["height"], row["camera"]["width"]
    made = {"image": codecs.decode_image(row["image"]["bytes"]).transpose(2, 0, 1)}
    for name in FIELDS[task]:
        if name == "depth":
            made[name] = codecs.decode_depth(row[name], height, width)[None]
        elif name == "normal":
            made[name] = codecs.decode_normal(row[name], height, width).transpose(2, 0, 1)
        else:
            made[name] = codecs.decode_u8(row[name], height, width)[None]
    return made


def draws(
    rng: np.random.Generator | None,
    K: np.ndarray,
    source: tuple[int, int],
    size: tuple[int, int],
    how: Augment,
    backgrounds: Backgrounds | None = None,
) -> dict[str, np.ndarray]:
    """Everything random about one sample; ``rng`` None = the whole picture as it is.

    ``warp``, ``R``, ``K``: (3, 3) float64 (training/views.py), what ``photometric.draw`` gives, and, where there are
    ``backgrounds``, ``background`` (h, w, 3) uint8 and ``paste`` () bool.
    """
    if rng is None:
        seen = views.whole(K, source, size)
        return {"warp": seen.source_from_view(K), "R": seen.R, "K": np.asarray(K, np.float64)}
    seen = views.draw(rng, K, source, size, how)
    made = {"warp": seen.source_from_view(K), "R": seen.R, "K": np.asarray(K, np.float64)} | photometric.draw(rng, how)
    if backgrounds is not None:
        made["paste"] = np.asarray(rng.random() < how.background_share)
        black = np.zeros((*size, 3), np.uint8)
        made["background"] = backgrounds.draw(rng, size) if made["paste"] else black
    return made


def dense_view(
    source: dict[str, Tensor], drawn: dict[str, Tensor], size: tuple[int, int], task: str
) -> dict[str, Tensor]:
    """{"image": (B, 3, h, w) normalised, "target": (B, C, h, w) float32, "mask": (B, 1, h, w) bool} of ``dense_source`` and
    ``draws``, stacked.

    Depth in metres, normals unit, both in the axes of the view; alpha 0..1, judged everywhere.
    """
    both = torch.cat([source["image"], source["alpha"]], dim=1)
    grey = torch.tensor([*(MEAN / 255), 0.0])
    moved = warp.colour(both, drawn["warp"], size, grey)
    image, alpha = moved[:, :3], moved[:, 3:].clamp(0, 1)
    if "paste" in drawn and bool(drawn["paste"].any()):
        chosen = drawn["paste"]
        background = drawn["background"][chosen].permute(0, 3, 1, 2).float() / 255
        image[chosen] = photometric.pasted(image[chosen], alpha[chosen], background)
    if "colour" in drawn:
        image = photometric.changed(image, drawn)
    if task == "foreground":
        return {"image": normalised(image), "target": alpha, "mask": torch.ones_like(alpha, dtype=torch.bool)}
    fields = {k: source[k] for k in ("mask", task)}
    found = warp.geometry(fields, drawn["warp"], drawn["R"], drawn["K"], size)
    return {"image": normalised(image), "target": found[task], "mask": found["mask"] != 0}


def picture_view(source: dict[str, Tensor], drawn: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """{"image": (B, 3, h, w) normalised} of pictures alone: pre-training."""
    grey = torch.from_numpy(MEAN / 255)
    image = warp.colour(source["image"], drawn["warp"], size, grey)
    return {"image": normalised(photometric.changed(image, drawn) if "colour" in drawn else image)}


def normalised(images: Tensor) -> Tensor:
    """(B, 3, h, w) float 0..1 -> as the model takes them."""
    mean, std = (torch.from_numpy(v).to(images.device)[:, None, None] for v in (MEAN, STD))
    return (images * 255 - mean) / std


def one(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """A batch of one sample."""
    return {k: torch.from_numpy(np.array(v, order="C"))[None] for k, v in arrays.items()}


def dense_sample(
    row: dict[str, Any],
    rng: np.random.Generator | None,
    size: tuple[int, int],
    task: str,
    how: Augment,
    backgrounds: Backgrounds | None = None,
) -> dict[str, np.ndarray]:
    """One rendered row, both halves: ``dense_view``'s arrays without the batch."""
    camera = row["camera"]
    K = np.array(camera["K"]).reshape(3, 3)
    drawn = draws(rng, K, (camera["height"], camera["width"]), size, how, backgrounds)
    made = dense_view(one(dense_source(row, task)), one(drawn), size, task)
    return {k: v[0].numpy() for k, v in made.items()}


def pretrain_sample(
    rgb: np.ndarray, rng: np.random.Generator, size: tuple[int, int], patches: int, how: Augment
) -> dict[str, np.ndarray]:
    """{"image": (3, h, w) float32, "order": (N,) int64} of a picture (H, W, 3) uint8: a view, and the order patches are
    masked in.
    """
    drawn = draws(rng, views.nominal_intrinsics(rgb.shape[1], rgb.shape[0]), rgb.shape[:2], size, how)
    made = picture_view(one({"image": rgb.transpose(2, 0, 1)}), one(drawn), size)
    return {"image": made["image"][0].numpy(), "order": rng.permutation(patches)}
