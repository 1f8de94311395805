"""A rendered row -> the planes and keypoints that tasks need of it, and those, seen through a view, -> targets and masks.

A task's target and mask go by ``target`` and ``mask``; of further tasks of one run by ``target.TASK`` and ``mask.TASK``. Where a
row has no label the mask is empty. Legend: B batch, K keypoints, (H, W) the stored picture, (h, w) the model's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifests import codecs, keypoints, parts
from training import warp

# The planes of a row that a task's truth is made of; the foreground's is in the picture's fourth channel.
PLANES = {
    "depth": ("depth",),
    "normal": ("normal",),
    "foreground": (),
    "parts": ("segmentation",),
    "parts28": ("segmentation",),
    "pointmap": ("depth",),
    "albedo": ("albedo",),
    "pose17": ("keypoints",),
    "pose133": ("keypoints",),
    "pose308": ("keypoints",),
}
SETS = {"pose17": "coco17", "pose133": "wholebody133", "pose308": "sapiens308"}


def planes(row: dict[str, Any], tasks: tuple[str, ...], person: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """``mask`` (1, H, W) uint8 and of ``depth`` (1, H, W), ``normal`` (3, H, W) float32, ``segmentation`` (1, H, W) uint8, ``albedo``
    (3, H, W) and ``has_albedo`` () uint8, ``keypoints.TASK`` (K, 3) float64 px and visibility of ``person``, what ``tasks`` need.
    """
    height, width = row["camera"]["height"], row["camera"]["width"]
    wanted = {p for t in tasks for p in PLANES[t]}
    made: dict[str, np.ndarray] = {}
    if wanted - {"keypoints"}:
        made["mask"] = codecs.decode_u8(row["mask"], height, width)[None]
    if "depth" in wanted:
        made["depth"] = codecs.decode_depth(row["depth"], height, width)[None]
    if "normal" in wanted:
        made["normal"] = codecs.decode_normal(row["normal"], height, width).transpose(2, 0, 1)
    if "segmentation" in wanted:
        made["segmentation"] = segmentation(row)[None]
    if "albedo" in wanted:
        found = albedo(row)
        made["has_albedo"] = np.asarray(found is not None, np.uint8)
        made["albedo"] = np.zeros((3, height, width), np.uint8) if found is None else found.transpose(2, 0, 1)
    for task in tasks:
        if task in SETS:
            made[f"keypoints.{task}"] = points_of(person, SETS[task])
    return made


def segmentation(row: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8 ids of the 29 classes; 255 everywhere where the row has none."""
    height, width = row["camera"]["height"], row["camera"]["width"]
    if row["segmentation"] is None:
        return np.full((height, width), parts.UNLABELLED, np.uint8)
    return codecs.decode_u8(row["segmentation"], height, width)


def albedo(row: dict[str, Any]) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB, or None."""
    found = row["albedo"]
    return None if found is None or found["bytes"] is None else codecs.decode_image(found["bytes"])


def points_of(person: dict[str, Any] | None, name: str) -> np.ndarray:
    """(K, 3) float64: px and visibility of a person's points in the set ``name``; 0 where there is none."""
    wanted = keypoints.SETS[name]
    out = np.zeros((len(wanted.names), 3))
    if person is None or person["keypoint_set"] not in keypoints.SETS:
        return out
    uv = np.asarray(person["keypoints"], np.float64).reshape(-1, 2)
    seen = np.asarray(person["keypoint_visibility"], np.float64)
    for i, at in enumerate(keypoints.index_map(person["keypoint_set"], name)):
        if at is not None:
            out[i] = *uv[at], seen[at]
    return out


def targets(
    source: dict[str, Tensor], drawn: dict[str, Tensor], alpha: Tensor, size: tuple[int, int], tasks: tuple[str, ...]
) -> dict[str, Tensor]:
    """Targets and masks, (B, C, h, w) float32 and (B, 1, h, w) bool, of what ``planes`` and the draws made, stacked;
    of poses (B, K, 2) shares (heatmaps.py) and (B, K, 1). ``alpha``: (B, 1, h, w) coverage of the view.
    """
    found: dict[str, Tensor] = {}
    geometry = {k: v for k, v in source.items() if k in ("mask", "depth", "normal", "segmentation")}
    if geometry:
        mirror = torch.tensor(parts.MIRROR, dtype=torch.uint8, device=alpha.device)
        found = warp.geometry(geometry, drawn["warp"], drawn["R"], drawn["K"], size, mirror)
    if "albedo" in source:
        found["albedo"] = warp.colour(source["albedo"], drawn["warp"], size, torch.zeros(3))
    out: dict[str, Tensor] = {}
    for i, task in enumerate(tasks):
        target, mask = _target(task, source, found, drawn, alpha, size)
        after = "" if i == 0 else f".{task}"
        out[f"target{after}"], out[f"mask{after}"] = target, mask
    return out


def _target(
    task: str,
    source: dict[str, Tensor],
    found: dict[str, Tensor],
    drawn: dict[str, Tensor],
    alpha: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    if task == "foreground":
        return alpha, torch.ones_like(alpha, dtype=torch.bool)
    if task in SETS:
        return _pose(source[f"keypoints.{task}"], drawn, size, SETS[task])
    if task.startswith("parts"):
        classes = found["segmentation"]
        if task == "parts28":
            classes = torch.tensor(parts.TO28, dtype=torch.uint8, device=classes.device)[classes.long()]
        return classes.float(), classes != parts.UNLABELLED
    inside = found["mask"] != 0
    if task == "pointmap":
        return _points(found["depth"], drawn), inside
    if task == "albedo":
        return found["albedo"], inside & (source["has_albedo"] != 0).view(-1, 1, 1, 1)
    return found[task], inside


def _points(depth: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """(B, 1, h, w) metres -> (B, 6, h, w) canonical points, slopes of rays, scale (losses_points.py)."""
    h, w = depth.shape[2:]
    # The view's own intrinsics, from the warp it was made of: source_from_view = K R^T K_view^-1.
    K = torch.linalg.inv(drawn["warp"]) @ drawn["K"] @ drawn["R"].transpose(1, 2)
    K = K / K[:, 2:, 2:]
    u = torch.arange(w, device=depth.device, dtype=torch.float64) + 0.5
    v = torch.arange(h, device=depth.device, dtype=torch.float64) + 0.5
    x = ((u[None] - K[:, 0, 2:]) / K[:, 0, :1])[:, None, None, :].expand(-1, 1, h, -1)
    y = ((v[None] - K[:, 1, 2:]) / K[:, 1, 1:2])[:, None, :, None].expand(-1, 1, -1, w)
    scale = (w / K[:, 0, 0])[:, None, None, None].expand(-1, 1, h, w)
    z = depth.double() * scale
    return torch.cat([x * z, y * z, z, x, y, scale], dim=1).float()


def _pose(points: Tensor, drawn: dict[str, Tensor], size: tuple[int, int], name: str) -> tuple[Tensor, Tensor]:
    uv = torch.cat([points[..., :2], torch.ones_like(points[..., :1])], dim=-1).double()
    moved = uv @ torch.linalg.inv(drawn["warp"]).transpose(1, 2)
    front = moved[..., 2:] > 1e-9
    px = moved[..., :2] / torch.where(front, moved[..., 2:], 1.0)
    h, w = size
    inside = front & (px >= 0).all(-1, keepdim=True) & (px[..., :1] < w) & (px[..., 1:] < h)
    seen = inside & (points[..., 2:] > 0)
    shares = (px - 0.5) / torch.tensor([w - 1, h - 1], device=px.device, dtype=px.dtype)
    mirrored = (torch.linalg.det(drawn["R"]) < 0)[:, None, None]
    swap = torch.tensor(keypoints.SETS[name].mirror, device=px.device)
    shares = torch.where(mirrored, shares[:, swap], shares)
    seen = torch.where(mirrored, seen[:, swap], seen)
    return torch.where(seen, shares, 0.0).float(), seen


def canonical(row: dict[str, Any]) -> tuple[np.ndarray, float]:
    """(H, W, 3) float32 metres in the camera frame, 0 off the mask, of a row's depth, and its canonical scale."""
    height, width = row["camera"]["height"], row["camera"]["width"]
    K = np.array(row["camera"]["K"]).reshape(3, 3)
    z = codecs.decode_depth(row["depth"], height, width)
    v, u = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=2).astype(
        np.float32
    ), width / K[0, 0]
