"""A seed -> a made person: ellipsoids with folds before a textured wall, with exact depth and normals, 768 x 1024."""

from __future__ import annotations

import cv2
import numpy as np

from manifests.sample import Person, RenderedSample

WIDTH, HEIGHT = 768, 1024
# Centre (x, y) and half axes (x, y, z) in metres of head, trunk, hips, arms, legs.
BODY = (
    ((0.0, -0.72), (0.10, 0.13, 0.11)),
    ((0.0, -0.35), (0.21, 0.30, 0.13)),
    ((0.0, -0.02), (0.18, 0.16, 0.13)),
    ((-0.29, -0.30), (0.06, 0.32, 0.06)),
    ((0.29, -0.30), (0.06, 0.32, 0.06)),
    ((-0.10, 0.45), (0.09, 0.46, 0.09)),
    ((0.10, 0.45), (0.09, 0.46, 0.09)),
)


def noise(rng: np.random.Generator, octaves: int = 6) -> np.ndarray:
    """(H, W) float32 of about -1..1, half the weight at each finer octave."""
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for k in range(octaves):
        grid = rng.normal(0, 1, (6 * 2**k, 4 * 2**k)).astype(np.float32)
        total += cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 0.5 ** (k + 1)
    return total


def person(seed: int) -> RenderedSample:
    """Depth (H, W) float32 metres, normals (H, W, 3) float32 in the camera frame, image (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    f = 1100.0
    away = rng.uniform(2.0, 2.8)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5
    d = np.stack([(u - WIDTH / 2) / f, (v - HEIGHT / 2) / f, np.ones_like(u)], axis=-1)
    depth = np.full((HEIGHT, WIDTH), np.inf, np.float32)
    normal = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for (x, y), axes in BODY:
        c = np.array([x + rng.normal(0, 0.02), y * 0.95, away + rng.normal(0, 0.04)])
        s = 1 / np.array(axes)
        ds, cs = d * s, c * s
        a, b, k = (ds * ds).sum(-1), ds @ cs, cs @ cs - 1
        inside = b * b - a * k
        z = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.inf).astype(np.float32)
        nearer = z < depth
        depth[nearer] = z[nearer]
        n = (d * np.where(nearer, z, 0)[..., None] - c) * s * s
        normal[nearer] = (n / np.linalg.norm(n, axis=-1, keepdims=True))[nearer]
    mask = np.isfinite(depth).astype(np.uint8)
    # Folds of cloth: a few millimetres, and the slopes that go with them.
    folds = 0.004 * noise(rng, 8)
    depth = np.where(mask, depth + folds, 0).astype(np.float32)
    gy, gx = np.gradient(folds, away / f)
    normal = normal - np.stack([gx, gy, np.zeros_like(gx)], axis=-1)
    length = np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    normal = np.where(mask[..., None] > 0, normal / length, 0).astype(np.float32)
    shade = 0.2 + 0.8 * np.clip(-normal @ np.array([0.4, 0.6, 0.7]), 0, 1)
    skin = rng.uniform(80, 230, 3) * (1 + 0.25 * noise(rng))[..., None]
    wall = rng.uniform(60, 180, 3) * (1 + 0.5 * noise(rng, 8))[..., None]
    grain = rng.normal(0, 4.0, (HEIGHT, WIDTH, 3))
    image = np.clip(np.where(mask[..., None] > 0, shade[..., None] * skin, wall) + grain, 0, 255).astype(np.uint8)
    alpha = cv2.GaussianBlur(mask * 255, (3, 3), 0)
    ys, xs = np.nonzero(mask)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    points = np.zeros((308, 2), np.float32)
    return RenderedSample(
        sample_id=f"made-{seed:06d}",
        stage_digest="b" * 64,
        index=seed,
        split="train",
        image=image,
        depth=depth,
        normal=normal,
        alpha=alpha,
        mask=mask,
        people=[Person(f"made/{seed}", box, 1.0, "sapiens308", points, np.zeros((308, 3)), np.zeros(308, np.uint8))],
        K=np.array([[f, 0, WIDTH / 2], [0, f, HEIGHT / 2], [0, 0, 1]]),
        world_to_camera=np.eye(4),
        framing="full",
        lighting={"environment": "made", "yaw_deg": 0.0, "strength": 1.0},
        rights=[{"id": "made", "source": "made", "licence": "CC0-1.0", "consent": "none", "redistributable": True}],
        agreement={"opaque": 1.0, "strand": None},
        engine={"renderer": "made", "version": "1", "samples": 1, "denoiser": "none"},
    )
