"""Rows and draws -> what a model is trained on: pictures of its size with their truth, on whichever device has them.

Two halves. ``truth.planes``, ``reduced`` and ``draws`` (numpy, a sample at a time, in loader threads): decode, cut out, and
every random number, from the sample's own generator. ``dense_view`` and ``picture_view`` (torch, batched): the pixels. On a
CPU the threads run both halves; a GPU runs the second (training/sources.py).
Legend: B batch, (H, W) the stored picture, (h, w) the model's size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from manifests import codecs, photo
from manifests.errors import InputError, PhotoError
from training import masks, people, photometric, truth, views, warp
from training.settings import Augment, Distilled

# ImageNet's, as Sapiens normalises (0..255).
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
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


def rgba(row: dict[str, Any]) -> np.ndarray:
    """(H, W, 4) uint8: a rendered row's picture and its coverage."""
    height, width = row["camera"]["height"], row["camera"]["width"]
    out = np.empty((height, width, 4), np.uint8)
    out[..., :3] = codecs.decode_image(row["image"]["bytes"])
    out[..., 3] = codecs.decode_u8(row["alpha"], height, width)
    return out


def reduced(
    picture: np.ndarray, warp_: np.ndarray, size: tuple[int, int], room: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a view looks at of ``picture`` (H, W, C) uint8: its surroundings cut out and halved as often as detail is not
    needed, and the (3, 3) warp into them.

    ``room``: (rows, columns) that the result must fit; it is halved once more for that.
    """
    (h, w), (height, width) = size, picture.shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1.0]]) @ warp_.T
    ends = corners[:, :2] / np.maximum(corners[:, 2:], 1e-9)
    middle = warp_ @ [w / 2, h / 2, 1]
    # The area of one new pixel: the homography's determinant over the cube of its denominator.
    area = abs(np.linalg.det(warp_)) / max(abs(middle[2]), 1e-9) ** 3
    level = max(0, int(np.log2(max(area, 1e-9)) / 2 + 1e-6))
    while True:
        step = 2**level
        low = np.clip(ends.min(axis=0) - 2 * step, 0, [width - 1, height - 1]).astype(int) // step * step
        high = np.clip(np.ceil(ends.max(axis=0) + 2 * step), low + 1, [width, height]).astype(int)
        shape = -(-(high - low) // step)
        if room is None or (shape <= room[::-1]).all():
            break
        level += 1
    cut = picture[low[1] : high[1], low[0] : high[0]]
    if level:
        over = shape * step - (high - low)
        if over.any():
            cut = cv2.copyMakeBorder(cut, 0, int(over[1]), 0, int(over[0]), cv2.BORDER_REPLICATE)
        cut = cv2.resize(cut, (int(shape[0]), int(shape[1])), interpolation=cv2.INTER_AREA)
    into = np.array([[1 / step, 0, -low[0] / step], [0, 1 / step, -low[1] / step], [0, 0, 1]])
    return cut, into @ warp_


def draws(
    rng: np.random.Generator | None,
    K: np.ndarray,
    source: tuple[int, int],
    size: tuple[int, int],
    how: Augment,
    backgrounds: Backgrounds | None = None,
    view: views.View | None = None,
) -> dict[str, np.ndarray]:
    """Everything random about one sample; ``rng`` None = the whole picture as it is. ``view``: one that is drawn already.

    ``warp``, ``R``, ``K``: (3, 3) float64 (training/views.py), what ``photometric.draw`` gives, and, where there are
    ``backgrounds``, ``background`` (h, w, 3) uint8 and ``paste`` () bool.
    """
    if rng is None:
        seen = view or views.whole(K, source, size)
        return {"warp": seen.source_from_view(K), "R": seen.R, "K": np.asarray(K, np.float64)}
    seen = view or views.draw(rng, K, source, size, how)
    made = {"warp": seen.source_from_view(K), "R": seen.R, "K": np.asarray(K, np.float64)} | photometric.draw(rng, how)
    if backgrounds is not None:
        made["paste"] = np.asarray(rng.random() < how.background_share)
        black = np.zeros((*size, 3), np.uint8)
        made["background"] = backgrounds.draw(rng, size) if made["paste"] else black
    return made


def dense_view(
    pixels: Tensor,
    source: dict[str, Tensor],
    drawn: dict[str, Tensor],
    size: tuple[int, int],
    task: str,
    others: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """{"image": (B, 3, h, w) normalised, "target", "mask"} of what ``reduced``, ``truth.planes`` and ``draws`` made, stacked, and
    ``others``' targets and masks beside (training/truth.py). ``pixels``: (B, 4, rows, columns) uint8; ``drawn`` has
    ``look``, the warp into them.

    Depth in metres, normals unit, both in the axes of the view; alpha 0..1, judged everywhere.
    """
    moved = warp.colour(pixels, drawn["look"], size, torch.tensor([*(MEAN / 255), 0.0]))
    image, alpha = moved[:, :3], moved[:, 3:].clamp(0, 1)
    if "paste" in drawn and bool(drawn["paste"].any()):
        chosen = drawn["paste"]
        background = drawn["background"][chosen].permute(0, 3, 1, 2).float() / 255
        image[chosen] = photometric.pasted(image[chosen], alpha[chosen], background)
    if "colour" in drawn:
        image = photometric.changed(image, drawn)
    return {"image": normalised(image)} | truth.targets(source, drawn, alpha, size, (task, *others))


def picture_view(pixels: Tensor, drawn: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """(B, 3, h, w) normalised, of (B, 3, rows, columns) uint8 pictures alone: pre-training."""
    image = warp.colour(pixels, drawn["look"], size, torch.from_numpy(MEAN / 255))
    return normalised(photometric.changed(image, drawn) if "colour" in drawn else image)


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
    others: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """One rendered row, both halves: ``dense_view``'s arrays without the batch. A pose model sees the box of one person."""
    tasks = (task, *others)
    poses = [t for t in tasks if t in truth.SETS]
    person = people.chosen(row, rng, poses[0]) if poses else None
    drawn = row_draws(row, rng, size, how, backgrounds, task, person)
    cut, drawn["look"] = reduced(rgba(row), drawn["warp"], size)
    source = one(truth.planes(row, tasks, person))
    made = dense_view(one({"p": channels_first(cut)})["p"], source, one(drawn), size, task, others)
    return {k: v[0].numpy() for k, v in made.items()}


def row_draws(
    row: dict[str, Any],
    rng: np.random.Generator | None,
    size: tuple[int, int],
    how: Augment,
    backgrounds: Backgrounds | None,
    task: str = "",
    person: dict[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """``draws`` for a rendered row; of a pose ``task`` around the box of ``person``."""
    camera = row["camera"]
    source = camera["height"], camera["width"]
    K = np.array(camera["K"]).reshape(3, 3)
    view = None
    if task in truth.SETS and person is not None:
        box = np.asarray(person["box"])
        view = people.around(K, box, size) if rng is None else people.drawn(rng, K, person, task, size, how)
    return draws(rng, K, source, size, how, backgrounds, view)


def picture_draws(
    rgb: np.ndarray, rng: np.random.Generator, size: tuple[int, int], how: Augment
) -> dict[str, np.ndarray]:
    """``draws`` for a picture (H, W, 3) of unknown intrinsics."""
    height, width = rgb.shape[:2]
    return draws(rng, views.nominal_intrinsics(width, height), (height, width), size, how)


def pretrain_sample(
    rgb: np.ndarray, rng: np.random.Generator, size: tuple[int, int], patches: int, how: Augment
) -> dict[str, np.ndarray]:
    """{"image": (3, h, w) float32, "order": (N,) int64} of a picture (H, W, 3) uint8: a view, and the order patches are
    masked in.
    """
    drawn = picture_draws(rgb, rng, size, how)
    cut, drawn["look"] = reduced(rgb, drawn["warp"], size)
    image = picture_view(one({"p": channels_first(cut)})["p"], one(drawn), size)
    return {"image": image[0].numpy(), "order": rng.permutation(patches)}


def distilled_sample(
    rgb: np.ndarray,
    rng: np.random.Generator,
    size: tuple[int, int],
    grid: tuple[int, int],
    how: Augment,
    ratio: float,
    views_: Distilled,
) -> dict[str, np.ndarray]:
    """{"image": (2, 3, h, w) large views, "order": (2, N) int64, "small": (S, 3, h', w') small views} of a picture (H, W, 3) uint8.

    Large views keep their colours; small ones are also changed as far as ``how`` says (sapiens.md 2.4).
    """
    colours: dict[str, Any] = dict.fromkeys(
        ("brightness", "contrast", "saturation", "hue_deg", "grey", "blur", "noise", "jpeg"), 0.0
    )
    plain = dataclasses.replace(how, crop=views_.global_scale, **colours)
    changed = dataclasses.replace(how, crop=views_.local_scale)
    large = [pretrain_sample(rgb, rng, size, 1, plain)["image"] for _ in range(2)]
    place = (views_.local_height, views_.local_width)
    small = [pretrain_sample(rgb, rng, place, 1, changed)["image"] for _ in range(views_.locals)]
    return {
        "image": np.stack(large),
        "order": np.stack([masks.order(rng, grid, ratio, views_.block_share) for _ in range(2)]),
        "small": np.stack(small) if small else np.zeros((0, 3, *place), np.float32),
    }


def channels_first(picture: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (C, H, W)."""
    return picture.transpose(2, 0, 1)
