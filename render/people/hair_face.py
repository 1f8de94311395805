"""A face -> roots and strands of brows and beard.

Legend: N strands, K points of each. Frame of the head: x left, y backwards, z up, metres; `at` is in head coordinates.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people.hair_grow import Head
from render.people.hair_scalp import Scalp, across_brow, brow

BROW_POINTS, BEARD_POINTS = 5, 8


@dataclasses.dataclass(frozen=True)
class Beard:
    """``chin``, ``lip``: lengths of beard and moustache in metres, 0 for none. ``cheek``: 0 to 1, how high it grows.
    ``only``: "" for all of the cheeks, "goatee" for chin and mouth alone. ``count``: N.
    """

    chin: float
    lip: float
    cheek: float = 0.5
    only: str = ""
    curl: float = 0.0
    count: int = 5000
    width: float = 0.00014


def brows(
    scalp: Scalp, head: Head, points: np.ndarray, normals: np.ndarray, thick: float, rng: np.random.Generator
) -> np.ndarray:
    """(N, K, 3) metres. ``points``, ``normals``: (C, 3) of the fine skin. ``thick``: 0 sparse to 1 bushy."""
    roots = scalp.roots(rng, int(400 + 720 * thick), brow(scalp.at) ** (1.5 - 0.7 * thick))
    at, n = roots.at, scalp.on(roots, normals)
    x = np.abs(at[:, 0])
    out = np.clip((x - 0.07) / 0.4, 0, 1)
    # Upright at the inner end, then outwards, the lower hairs up and the upper ones down on to the ridge.
    row = 0.8 * across_brow(at)
    comb = np.stack(
        [np.sign(at[:, 0]) * (0.35 + out), np.full(len(x), 0.1), 0.9 * (1 - out) ** 1.5 - 0.45 * row - 0.15 * out],
        axis=1,
    )
    comb += rng.normal(0, 0.16, comb.shape)
    length = (
        head.size / 0.12 * (0.0055 + 0.004 * (1 - np.abs(out - 0.45))) * np.clip(rng.normal(1, 0.2, len(x)), 0.4, 1.5)
    )
    return _laid(head, scalp.on(roots, points), n, comb, length, 0.35, BROW_POINTS, 0.0006)


def beard(
    kind: Beard, scalp: Scalp, head: Head, points: np.ndarray, normals: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(N, K, 3) metres, as ``brows``."""
    chin, lip = scalp.beard(scalp.at, kind.cheek)
    if kind.only == "goatee":
        chin = chin * np.clip((0.30 - np.abs(scalp.at[:, 0])) / 0.06, 0, 1) * (scalp.at[:, 1] < 0.1)
    roots = scalp.roots(rng, kind.count, np.maximum(chin * (kind.chin > 0), lip * (kind.lip > 0)))
    at, n = roots.at, scalp.on(roots, normals)
    above = scalp.beard(at, kind.cheek)[1] > 0.05
    side = np.sign(at[:, 0]) * np.clip(np.abs(at[:, 0]) / 0.06, 0, 1)
    down = np.stack([0.15 * side, np.full(len(at), -0.1), np.full(len(at), -1.0)], axis=1)
    comb = np.where(above[:, None], np.stack([0.9 * side, np.zeros(len(at)), np.full(len(at), -0.55)], axis=1), down)
    comb += rng.normal(0, 0.15 + kind.curl, comb.shape)
    # Shorter on the cheeks than on the chin.
    shape = 0.45 + 0.55 * np.clip((-0.45 - at[:, 2]) / 0.35, 0, 1)
    length = (
        np.where(above, kind.lip, kind.chin * shape) * head.size / 0.12 * np.clip(rng.normal(1, 0.2, len(at)), 0.4, 1.5)
    )
    lift = 0.9 if kind.chin < 0.004 else 0.45
    return _laid(head, scalp.on(roots, points), n, comb, length, lift, BEARD_POINTS, 0.004, kind.curl, rng)


def _laid(
    head: Head,
    roots: np.ndarray,
    normals: np.ndarray,
    comb: np.ndarray,
    length: np.ndarray,
    lift: float,
    points: int,
    thick: float,
    curl: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Strands that leave the skin by ``lift``, then lie along ``comb``, their tips at least a quarter of ``thick`` metres off the skin."""
    flat = comb - np.einsum("nc,nc->n", comb, normals)[:, None] * normals
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    d = lift * normals + (1 - lift) * flat
    p, out = roots, [roots]
    for k in range(1, points):
        t = k / (points - 1)
        toward = (1 - lift * (1 - t)) * flat + 0.5 * t * head.down * (length[:, None] > 0.01)
        if rng is not None and curl > 0:
            toward = toward + rng.normal(0, 1.6 * curl, toward.shape)
        d = d + 0.8 * toward
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        p = head.room.out(p + d * (length / (points - 1))[:, None], 0.0004 + 0.25 * thick * t)
        out.append(p)
    return np.stack(out, axis=1)
