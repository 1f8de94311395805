"""Pictures -> what is left of them after JPEG at a quality, without files: the same loss on any device.

Baseline JPEG as ITU-T T.81 and libjpeg have it: YCbCr, chroma halved, 8 x 8 cosine transform, the tables of annex K scaled by
quality. Coding the quantised numbers loses nothing, so it is left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """(B, 3, H, W) float sRGB in 0..1 and ``quality`` (B,) 1..100 -> the same shape, on the 8-bit levels."""
    r, g, b = (images * 255).round().unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    height, width = images.shape[2:]
    # Whole 16 x 16 units, the last row and column repeated.
    pad = (0, -width % 16, 0, -height % 16)
    planes = torch.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], dim=1)
    planes = F.pad(planes, pad, mode="replicate").round()
    luma = _quantised(planes[:, :1], LUMA, quality)
    chroma = _quantised(F.avg_pool2d(planes[:, 1:], 2), CHROMA, quality)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    y, cb, cr = torch.cat([luma, chroma], dim=1)[..., :height, :width].unbind(1)
    cb, cr = cb - 128, cr - 128
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], dim=1)
    return rgb.round().clamp(0, 255) / 255


def _quantised(planes: Tensor, table: tuple[int, ...], quality: Tensor) -> Tensor:
    """(B, C, H, W) in 0..255, sides multiples of 8 -> the same after quantising its cosines."""
    b, c, h, w = planes.shape
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    base = torch.tensor(table, dtype=planes.dtype, device=planes.device)
    steps = ((base * scale[:, None] + 50) / 100).floor().clamp(1, 255).view(b, 1, 1, 1, 8, 8)
    at = torch.arange(8, dtype=planes.dtype, device=planes.device)
    cosine = torch.cos((2 * at + 1) * at[:, None] * math.pi / 16) / 2
    cosine[0] /= math.sqrt(2)
    blocks = (planes - 128).view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    coded = (cosine @ blocks @ cosine.T / steps).round() * steps
    out = cosine.T @ coded @ cosine + 128
    return out.transpose(3, 4).reshape(b, c, h, w).round().clamp(0, 255)
