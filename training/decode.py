"""Byte planes of coded depth and normals -> metres and unit vectors, on the device that holds them.

Decompressing is the processor's part (manifests/codecs.py, ``read_planes``); what is left is a few operations a pixel,
bound by memory, and a copy of 2 or 3 bytes a pixel in place of 4 or 12. B samples, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manifests.codecs import LEVELS, NORMAL_OCT12, NORMAL_OCT16, PLANES


def depth(codes: Tensor, z0: Tensor, step: Tensor) -> Tensor:
    """``codes`` (B, 2, H, W) uint8 planes of DEPTH_U16, ``z0`` and ``step`` (B,) float32 metres -> (B, 1, H, W) float32
    metres, 0 in the background; the bits that the numpy decoder gives.
    """
    q = codes[:, 0].to(torch.int32) | (codes[:, 1].to(torch.int32) << 8)
    # float64 as on the processor: float32 adds up to 0.2 microns at 3 m to a bound of 20.
    metres = (q - 1).double() * step.double()[:, None, None] + z0.double()[:, None, None]
    return torch.where(q == 0, 0.0, metres).float()[:, None]


def depth_float(planes: Tensor) -> Tensor:
    """(B, 4, H, W) uint8 planes of DEPTH_F32 -> (B, 1, H, W) float32 metres."""
    return planes.permute(0, 2, 3, 1).contiguous().view(torch.float32)[..., 0][:, None]


def normal(planes: Tensor) -> Tensor:
    """(B, 3 or 4, H, W) uint8 planes of NORMAL_OCT12 or NORMAL_OCT16 -> (B, 3, H, W) float32 unit vectors, OpenCV camera
    frame, 0 in the background. Raises ValueError on another number of planes.
    """
    codec = {PLANES[c]: c for c in (NORMAL_OCT12, NORMAL_OCT16)}.get(planes.shape[1])
    if codec is None:
        raise ValueError(f"normals have 3 or 4 byte planes, got {planes.shape[1]}")
    wide = planes.to(torch.int32)
    if codec == NORMAL_OCT12:
        u, v = wide[:, 0] | ((wide[:, 2] & 0xF) << 8), wide[:, 1] | ((wide[:, 2] >> 4) << 8)
    else:
        u, v = wide[:, 0] | (wide[:, 2] << 8), wide[:, 1] | (wide[:, 3] << 8)
    scale = 2 / LEVELS[codec]
    x, y = ((c.float() - 1) * scale - 1 for c in (u, v))
    z = 1 - x.abs() - y.abs()
    fold = (-z).clamp_min(0)
    xyz = torch.stack([x - torch.copysign(fold, x), y - torch.copysign(fold, y), z], dim=1)
    xyz = xyz / xyz.norm(dim=1, keepdim=True)
    return torch.where((u == 0)[:, None], 0.0, xyz)
