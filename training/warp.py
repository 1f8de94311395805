"""Pictures and exact geometry of one camera -> those of a view (training/views.py), batched on any device.

Colour and coverage are averaged as a lens would; depth, normals and labels are sampled at the pixel's centre, as they
were rendered. Legend: B batch, C channels, (H, W) the old picture, (h, w) the new one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Neighbours whose depths differ by more than this share lie on two surfaces: a mean of them would be on neither.
SAME_SURFACE = 0.01


def source_px(source_from_view: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w, 2) float64 px of the old picture for each pixel centre of the new one; far outside where it lies behind.

    ``source_from_view``: (B, 3, 3) float64.
    """
    h, w = size
    device = source_from_view.device
    v, u = torch.meshgrid(
        torch.arange(h, device=device, dtype=torch.float64) + 0.5,
        torch.arange(w, device=device, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    # A sum of three products, not a matrix product: the same bits whatever the batch.
    M = source_from_view[:, :, :, None, None]
    x, y, z = (M[:, i, 0] * u + M[:, i, 1] * v + M[:, i, 2] for i in range(3))
    front = z > 1e-9
    safe = torch.where(front, z, 1.0)
    return torch.stack([torch.where(front, x / safe, -1e6), torch.where(front, y / safe, -1e6)], dim=-1)


def colour(images: Tensor, source_from_view: Tensor, size: tuple[int, int], outside: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, C, h, w) float32 in 0..1: each pixel the mean of the area it covers, ``outside`` (C,) past
    the border.

    A picture that shrinks is first halved as often as it goes, then averaged over 2 x 2 places of each new pixel.
    """
    plain = source_px(source_from_view, size)
    halved = torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64, device=images.device))
    out = torch.empty(*images.shape[:2], *size, device=images.device)
    # A picture that does not shrink is looked at once per pixel: at its own size it stays as it is.
    spacing = _spacing(source_from_view, size)
    levels = [-1 if s <= 1 + 1e-6 else max(0, int(math.log2(s / 2) + 1e-6)) for s in spacing]
    fine = source_px(source_from_view @ halved, (2 * size[0], 2 * size[1])) if max(levels) >= 0 else plain
    shift = outside.to(images.device)[None, :, None, None]
    # In place: a stored picture is many times the model's size, and fresh memory costs more than arithmetic.
    shrunk = images.float().div_(255).sub_(shift)
    for level in range(-1, max(levels) + 1):
        chosen = [i for i, l in enumerate(levels) if l == level]
        if chosen and level < 0:
            out[chosen] = _bilinear(shrunk[chosen], plain[chosen])
        elif chosen:
            out[chosen] = F.avg_pool2d(_bilinear(shrunk[chosen], fine[chosen] / 2**level), 2)
        if 0 <= level < max(levels):
            shrunk = F.avg_pool2d(shrunk, 2, ceil_mode=True, count_include_pad=False)
    return out + shift


def geometry(
    fields: dict[str, Tensor],
    source_from_view: Tensor,
    R: Tensor,
    K: Tensor,
    size: tuple[int, int],
    mirror: Tensor | None = None,
) -> dict[str, Tensor]:
    """``mask`` and, where given, ``segmentation`` (B, 1, H, W) uint8, ``depth`` (B, 1, H, W) float32 metres and ``normal``
    (B, 3, H, W) float32 unit -> the same at (h, w), in the view's axes; 0 outside (segmentation 255).

    ``R``: (B, 3, 3) float64, new axes from old; ``K``: (B, 3, 3) float64 px of the old picture. ``mirror``: (256,) uint8, the
    class that each class of ``segmentation`` is in a mirror: left and right change places where R mirrors. Depth and normals are
    interpolated between neighbours of one surface, in 1 / z, which is linear over a plane; else the nearest is taken.
    """
    px = source_px(source_from_view, size)
    height, width = fields["mask"].shape[2:]
    inside = ((px >= 0).all(-1) & (px[..., 0] < width) & (px[..., 1] < height))[:, None]
    near = _flat(px.floor().long(), height, width)
    mask = torch.where(inside, _take(fields["mask"], near), 0)
    out = {"mask": mask}
    if "segmentation" in fields:
        classes = torch.where(inside, _take(fields["segmentation"], near), 255)
        if mirror is not None:
            mirrored = (torch.linalg.det(R) < 0)[:, None, None, None]
            classes = torch.where(mirrored, mirror[classes.long()], classes)
        out["segmentation"] = classes
    if "depth" not in fields and "normal" not in fields:
        return out
    base = (px - 0.5).floor()
    fraction = px - 0.5 - base
    corners = [_flat((base + torch.tensor(o, device=px.device)).long(), height, width) for o in CORNERS]
    fx, fy = fraction[..., 0][:, None], fraction[..., 1][:, None]
    weights = [(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy]
    # A corner of weight 0 has no say: at exact pixel centres nothing but the pixel itself counts.
    smooth = torch.ones_like(mask, dtype=torch.bool)
    low, high = torch.full_like(fx, torch.inf), torch.zeros_like(fx)
    depths = []
    for corner, weight in zip(corners, weights):
        said = weight > 0
        smooth &= ~said | (_take(fields["mask"], corner) == mask)
        if "depth" in fields:
            z = _take(fields["depth"], corner).double()
            depths.append(z)
            low, high = torch.where(said, torch.minimum(low, z), low), torch.where(said, torch.maximum(high, z), high)
    if depths:
        smooth &= high - low <= SAME_SURFACE * low
        smooth &= low > 0
        inverse = sum(w / torch.where(z > 0, z, 1.0) for w, z in zip(weights, depths))
        z = torch.where(smooth, 1 / torch.as_tensor(inverse), _take(fields["depth"], near).double())
        ray = _rays(px, K)
        # Planar depth along the new axis: the third row of R times the old point.
        along = (R[:, 2, :, None, None] * ray).sum(dim=1, keepdim=True)
        out["depth"] = torch.where(mask != 0, z * along, 0.0).float()
    if "normal" in fields:
        mixed = torch.as_tensor(sum(w * _take(fields["normal"], c).double() for w, c in zip(weights, corners)))
        n = torch.where(smooth, mixed, _take(fields["normal"], near).double())
        turned = torch.stack([(R[:, i, :, None, None] * n).sum(dim=1) for i in range(3)], dim=1)
        turned = turned / turned.norm(dim=1, keepdim=True).clamp_min(1e-9)
        out["normal"] = torch.where(mask != 0, turned, 0.0).float()
    return out


CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))


def _rays(px: Tensor, K: Tensor) -> Tensor:
    """(B, 3, h, w): camera-frame directions of z = 1 through ``px``."""
    inverse = torch.linalg.inv(K)[:, :, :, None, None]
    u, v = px[..., 0], px[..., 1]
    return torch.stack([inverse[:, i, 0] * u + inverse[:, i, 1] * v + inverse[:, i, 2] for i in range(3)], dim=1)


def _spacing(source_from_view: Tensor, size: tuple[int, int]) -> list[float]:
    """Old pixels per new one in the middle of each view, along a side: on the processor, so that a GPU is asked once."""
    x, y = size[1] // 2 + 0.5, size[0] // 2 + 0.5
    places = torch.tensor([[x, y, 1.0], [x - 1, y, 1.0], [x, y - 1, 1.0]], dtype=torch.float64)
    found = places @ source_from_view.cpu().transpose(1, 2)
    at = found[..., :2] / found[..., 2:]
    across, down = at[:, 0] - at[:, 1], at[:, 0] - at[:, 2]
    return (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]).abs().sqrt().tolist()


def _bilinear(images: Tensor, px: Tensor) -> Tensor:
    """Zero past the border."""
    h, w = images.shape[2:]
    grid = px * torch.tensor([2.0 / w, 2.0 / h], dtype=px.dtype, device=px.device) - 1
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def _flat(at: Tensor, height: int, width: int) -> Tensor:
    """(B, h, w, 2) int64 places, clamped into the picture -> (B, 1, h, w) places in its rows end to end."""
    return (at[..., 1].clamp(0, height - 1) * width + at[..., 0].clamp(0, width - 1))[:, None]


def _take(field: Tensor, at: Tensor) -> Tensor:
    """(B, C, H, W) at (B, 1, h, w) -> (B, C, h, w)."""
    b, c = field.shape[:2]
    flat = field.reshape(b, c, -1)
    index = at.reshape(b, 1, -1).expand(b, c, -1)
    return flat.gather(2, index).reshape(b, c, *at.shape[2:])
