"""Small made samples with known geometry, for tests of what stores and trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manifests import commit, parts
from manifests.sample import Person, RenderedSample
from manifests.shards import ShardWriter, row_of


def ball(index: int, width: int = 96, height: int = 128, split: str = "train") -> RenderedSample:
    """A lit sphere at a seeded place before a noisy wall; depth and normals in closed form."""
    rng = np.random.default_rng(index)
    f = 1.2 * height
    K = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]])
    c = np.array([rng.uniform(-0.25, 0.25), rng.uniform(-0.3, 0.3), rng.uniform(1.8, 2.6)])
    radius = rng.uniform(0.3, 0.55)
    v, u = np.mgrid[0:height, 0:width] + 0.5
    d = np.stack([(u - width / 2) / f, (v - height / 2) / f, np.ones_like(u)], axis=-1)
    a, b, k = (d * d).sum(-1), d @ c, c @ c - radius**2
    inside = b * b - a * k
    hit = inside > 0
    z = np.where(hit, (b - np.sqrt(np.maximum(inside, 0))) / a, 0)
    n = np.where(hit[..., None], (d * z[..., None] - c) / radius, 0)
    n = np.where(hit[..., None], n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-9), 0)
    light = np.array([-0.5, -0.7, -0.5])
    shade = 0.15 + 0.85 * np.clip(n @ (light / np.linalg.norm(light)), 0, 1)
    colour = rng.uniform(0.4, 1.0, 3)
    wall = rng.uniform(0, 0.5, 3) + rng.normal(0, 0.03, (height, width, 1))
    image = np.where(hit[..., None], shade[..., None] * colour, wall)
    mask = hit.astype(np.uint8)
    ys, xs = np.nonzero(mask)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    rights = {"id": f"ball/{index}", "source": "test", "licence": "CC0-1.0", "consent": "none", "redistributable": True}
    return RenderedSample(
        sample_id=f"ball-{index:04d}",
        stage_digest="d" * 64,
        index=index,
        split=split,
        image=(np.clip(image, 0, 1) * 255).astype(np.uint8),
        depth=z.astype(np.float32),
        normal=n.astype(np.float32),
        alpha=mask * 255,
        mask=mask,
        people=[Person(f"ball/{index}", box, 1.0, None, np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0, np.uint8))],
        K=K,
        world_to_camera=np.eye(4),
        framing=("face", "upper", "full")[index % 3],
        lighting={"environment": "test", "yaw_deg": 0.0, "strength": 1.0},
        rights=[rights],
        agreement={"opaque": 1.0, "strand": None},
        engine={"renderer": "test", "version": "1", "samples": 1, "denoiser": "none"},
    )


def labelled(index: int, split: str = "train") -> RenderedSample:
    """A ball with everything that rows may hold: classes by quarter, albedo, and COCO's keypoints on the side that is seen."""
    made = ball(index, split=split)
    inside, n = made.mask != 0, made.normal
    classes = np.where(n[..., 1] < 0, parts.ID["Hair"], parts.ID["Face_Neck"])
    lower = n[..., 1] > 0.4
    classes = np.where(lower, np.where(n[..., 0] > 0, parts.ID["Left_Shoe"], parts.ID["Right_Shoe"]), classes)
    made.segmentation = np.where(inside, classes, 0).astype(np.uint8)
    colour = np.random.default_rng(1000 + index).uniform(0.2, 0.9, 3)
    albedo = np.where((n[..., 1] < 0)[..., None], colour, 1 - colour)
    made.albedo = np.where(inside[..., None], 255 * albedo, 0).astype(np.uint8)
    shade = made.image[inside].astype(float) / 255
    light = shade.max(axis=1, keepdims=True)
    made.image[inside] = np.clip(255 * light * albedo[inside], 0, 255).astype(np.uint8)
    ys, xs = np.nonzero(inside)
    angle = np.arange(17) * 2.4
    spread = np.sqrt((np.arange(17) + 0.5) / 17) * 0.8
    low, high = np.array([xs.min(), ys.min()]), np.array([xs.max() + 1, ys.max() + 1])
    places = (low + high) / 2 + (high - low) / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) * spread[:, None]
    person = made.people[0]
    person.keypoint_set, person.keypoints = "coco17", places.astype(np.float32)
    person.keypoints_3d = np.zeros((17, 3), np.float32)
    person.visibility = np.full(17, 2, np.uint8)
    return made


def task(folder: Path | str, first: int, count: int, splits: tuple[str, ...] = ("train",)) -> commit.Receipt:
    """Write one task's shard of balls; the receipt is returned, not written."""
    outcomes = []
    with ShardWriter(folder, f"{first:08d}+{count}", "rendered") as writer:
        for i in range(first, first + count):
            made = ball(i, split=splits[i % len(splits)])
            writer.append(row_of(made))
            outcomes.append(commit.Outcome(made.sample_id, i, "done", "", 0.1, 1))
        shards = writer.close()
    return commit.Receipt(f"{first:08d}+{count}", "d" * 64, shards, outcomes, {})


def dataset(folder: Path | str, count: int, per_task: int = 4, splits: tuple[str, ...] = ("train",)) -> Path:
    """A committed dataset of ``count`` balls."""
    for first in range(0, count, per_task):
        commit.write_receipt(folder, task(folder, first, min(per_task, count - first), splits))
    commit.fold(folder, "rendered", "d" * 64)
    return folder
