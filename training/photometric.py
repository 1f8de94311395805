"""Pictures -> pictures under other light, lens, sensor and file format, batched on any device; geometry is not touched.

Pictures are (B, 3, H, W) float32 sRGB in 0..1. Every draw is made beforehand by the sample's own generator (``draw``);
noise comes from a hash of seed and place, so that a GPU gives what a CPU gives.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.jpeg import compressed
from training.settings import Augment

LUMA = np.array([0.299, 0.587, 0.114])
# YIQ's chroma axes: a turn about luma in this plane is a change of hue.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# Coverage from which a pixel's colour is its own.
OPAQUE = 0.98


def draw(rng: np.random.Generator, how: Augment) -> dict[str, np.ndarray]:
    """One sample's draws: ``colour`` (3, 4) float32 affine RGB, ``blur_px``, ``iso``, ``jpeg`` () float32 (0 = none),
    ``seed`` () int64.
    """
    contrast = 1 + how.contrast * rng.uniform(-1, 1)
    saturation = 0.0 if rng.random() < how.grey else 1 + how.saturation * rng.uniform(-1, 1)
    hue = np.radians(how.hue_deg * rng.uniform(-1, 1))
    c, s = saturation * np.cos(hue), saturation * np.sin(hue)
    chroma = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = contrast * np.linalg.inv(YIQ) @ chroma @ YIQ
    offset = 0.5 * (1 - contrast) + how.brightness * rng.uniform(-1, 1)
    made = {
        "colour": np.concatenate([matrix, np.full((3, 1), offset)], axis=1),
        "blur_px": how.blur_px * rng.uniform(0.1, 1) * (rng.random() < how.blur),
        "iso": how.iso * rng.uniform(0.1, 1) * (rng.random() < how.noise),
        "jpeg": rng.integers(how.jpeg_quality[0], how.jpeg_quality[1] + 1) * (rng.random() < how.jpeg),
    }
    return {k: np.asarray(v, np.float32) for k, v in made.items()} | {"seed": np.asarray(rng.integers(2**62))}


def changed(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """``images`` under ``draws`` (those of ``draw``, stacked): colour, blur, sensor noise, JPEG, in the order of a camera."""
    colour_ = draws["colour"]
    mixed = torch.stack([(colour_[:, i, :3, None, None] * images).sum(dim=1) for i in range(3)], dim=1)
    out = (mixed + colour_[:, :, 3, None, None]).clamp(0, 1)
    blurs, isos, qualities = (draws[k] > 0 for k in ("blur_px", "iso", "jpeg"))
    if bool(blurs.any()):
        out[blurs] = blurred(out[blurs], draws["blur_px"][blurs])
    if bool(isos.any()):
        out[isos] = noisy(out[isos], draws["iso"][isos], draws["seed"][isos])
    if bool(qualities.any()):
        out[qualities] = compressed(out[qualities], draws["jpeg"][qualities])
    return out


def blurred(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Each picture under a Gaussian of its own ``sigma_px`` (B,)."""
    b, c, h, w = images.shape
    radius = min(math.ceil(3 * float(sigma_px.max())), h - 1, w - 1)
    at = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma_px[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)[:, None]
    out = F.pad(images.reshape(1, b * c, h, w), (radius,) * 4, mode="reflect")
    out = F.conv2d(out, kernel[..., None, :], groups=b * c)
    return F.conv2d(out, kernel[..., :, None], groups=b * c).reshape(b, c, h, w)


def noisy(images: Tensor, iso: Tensor, seed: Tensor) -> Tensor:
    """Shot and read noise in linear light: deviation ``iso`` (B,) at 18 % grey, growing with the root of the signal."""
    light = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    deviation = iso[:, None, None, None] * ((light + 0.02) / 0.2).sqrt()
    light = (light + deviation * hashed_normal(seed, images.shape[1:])).clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055)


def hashed_normal(seed: Tensor, shape: torch.Size) -> Tensor:
    """(B, *shape) float32 standard normal numbers from ``seed`` (B,) int64 and place alone, alike on every device."""
    n = shape.numel()
    place = torch.arange(n, device=seed.device, dtype=torch.int64)
    words = []
    for stream in (0, 1):
        x = (seed[:, None] & 0xFFFFFFFF) ^ _mix((seed[:, None] >> 32) + 0x9E3779B9 * (2 * place + stream + 1))
        words.append((_mix(x).double() + 0.5) / 2**32)
    return ((-2 * words[0].log()).sqrt() * torch.cos(2 * math.pi * words[1])).float().reshape(-1, *shape)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words in which each bit of the input moves half the output's (the lowbias32 multipliers)."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def pasted(images: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """``images`` with ``background`` (B, 3, H, W) where ``alpha`` (B, 1, H, W), 0..1, lets it through.

    A half-covered pixel holds some of the old background: its own colour is taken from the opaque pixels around it.
    """
    trusted = (alpha >= OPAQUE).to(images.dtype)
    own = images
    for share in (1 / 16, 1 / 64):
        sigma = torch.full((len(images),), share * images.shape[2], device=images.device)
        weight = blurred(trusted, sigma)
        near = blurred(images * trusted, sigma) / weight.clamp_min(1e-6)
        # The narrower ring last: where it has opaque pixels at all, they are the better witness.
        own = torch.where(weight > 1e-3, near, own)
    foreground = torch.where(trusted > 0, images, own)
    return alpha * foreground + (1 - alpha) * background
