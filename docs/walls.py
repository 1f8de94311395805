"""A generator -> what people stand before on docs/faces.py's sheet: bricks, boards, plaster with pictures, shelves, tiles, cloth.

An environment's map is far away and soft; most photographs of people have something near and sharp behind them, on which their
shadow falls. P pixels a metre.
"""

from __future__ import annotations

import cv2
import numpy as np

from render.scene import Material, Mesh, PersonMesh

P, TILE_M, HALF_M = 400, 2.0, 5.0
PAINTS = (
    (0.58, 0.50, 0.38),
    (0.36, 0.38, 0.34),
    (0.40, 0.24, 0.16),
    (0.20, 0.24, 0.28),
    (0.60, 0.57, 0.52),
    (0.44, 0.36, 0.20),
)


def _clouds(rng: np.random.Generator, cells: int, octaves: int = 4) -> np.ndarray:
    """(S, S) float32, mean about 0, deviation 1; it tiles."""
    side = round(P * TILE_M)
    total = np.zeros((side, side), np.float32)
    for k in range(octaves):
        n = min(cells * 2**k, side)
        grid = np.pad(rng.normal(0, 0.6**k, (n, n)).astype(np.float32), 2, mode="wrap")
        large = cv2.resize(grid, None, fx=side / n, fy=side / n, interpolation=cv2.INTER_CUBIC)
        cut = round(2 * side / n)
        total += large[cut : cut + side, cut : cut + side]
    return total / total.std()


def _box(rgb: np.ndarray, x: float, y: float, w: float, h: float, color: np.ndarray) -> None:
    """Fill a rectangle in metres, clipped at the tile's edge."""
    rgb[round(y * P) : round((y + h) * P), round(x * P) : round((x + w) * P)] = color


def _muted(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """(3,) linear RGB, seldom bright and rarely pure, as things about a house are."""
    return np.exp(rng.uniform(np.log(low), np.log(high))) * 3 * rng.dirichlet((14.0, 12.0, 9.0))


def _bricks(rng: np.random.Generator, rgb: np.ndarray) -> None:
    rgb[:] = (0.26, 0.23, 0.20)
    base = np.array([(0.22, 0.10, 0.065), (0.27, 0.17, 0.115), (0.33, 0.29, 0.25)][rng.integers(3)])
    for row in range(25):
        for k in range(-1, 8):
            shade = base * np.exp(rng.normal(0, 0.22)) * rng.normal(1, 0.02, 3)
            x = 0.25 * k + 0.125 * (row % 2)
            _box(rgb, max(x, 0), 0.08 * row, 0.24 + min(x, 0), 0.07, shade)


def _boards(rng: np.random.Generator, rgb: np.ndarray) -> None:
    base, x = np.array([(0.30, 0.17, 0.08), (0.42, 0.40, 0.37), (0.16, 0.09, 0.05)][rng.integers(3)]), 0.0
    grain = cv2.resize(rng.normal(0, 1, (12, 400)).astype(np.float32), rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    rgb[:] = 0.3 * base
    while x < TILE_M:
        wide = rng.uniform(0.10, 0.16)
        _box(rgb, x, 0, wide - 0.006, TILE_M, base * np.exp(rng.normal(0, 0.2)))
        x += wide
    rgb *= rng.uniform(0.3, 0.9) * np.exp(0.16 * grain)[..., None]


def _plaster(rng: np.random.Generator, rgb: np.ndarray) -> None:
    rgb[:] = PAINTS[rng.integers(len(PAINTS))]
    # Frames with pictures, and what hangs or is glued there.
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.uniform(0.15, 0.6, 2)
        x, y = rng.uniform(0, TILE_M - w), rng.uniform(0, TILE_M - h)
        _box(rgb, x, y, w, h, _muted(rng, 0.015, 0.4))
        inner = _muted(rng, 0.03, 0.5)
        _box(rgb, x + 0.02, y + 0.02, w - 0.04, h - 0.04, inner)
        for _ in range(int(rng.integers(0, 9))):
            u, v = rng.uniform(0.03, w - 0.07), rng.uniform(0.03, h - 0.07)
            _box(rgb, x + u, y + v, rng.uniform(0.02, w - u - 0.03), rng.uniform(0.01, 0.12), _muted(rng, 0.02, 0.6))


def _shelves(rng: np.random.Generator, rgb: np.ndarray) -> None:
    rgb[:] = 0.02
    for shelf in range(5):
        x, floor = 0.0, 0.4 * shelf + 0.37
        while x < TILE_M:
            wide, tall = rng.uniform(0.012, 0.05), rng.uniform(0.18, 0.30)
            color = _muted(rng, 0.02, 0.4)
            if rng.random() < 0.93:
                _box(rgb, x, floor - tall, wide - 0.002, tall, color)
                _box(rgb, x + 0.2 * wide, floor - 0.7 * tall, 0.5 * wide, 0.3 * tall, color * rng.uniform(0.5, 1.6))
            x += wide
        _box(rgb, 0, floor, TILE_M, 0.03, np.array([0.28, 0.18, 0.10]))


def _tiles(rng: np.random.Generator, rgb: np.ndarray) -> None:
    rgb[:] = 0.25
    base = np.array([(0.62, 0.62, 0.58), (0.20, 0.34, 0.38), (0.50, 0.42, 0.30)][rng.integers(3)])
    for row in range(16):
        for k in range(16):
            _box(rgb, 0.125 * k, 0.125 * row, 0.121, 0.121, base * np.exp(rng.normal(0, 0.07)))


def _drapes(rng: np.random.Generator, rgb: np.ndarray) -> None:
    rgb[:] = np.array(PAINTS[rng.integers(len(PAINTS))]) * rng.uniform(0.3, 0.9)


KINDS = {
    "bricks": _bricks,
    "boards": _boards,
    "plaster": _plaster,
    "shelves": _shelves,
    "tiles": _tiles,
    "drapes": _drapes,
}


def wall(kind: str, foot: np.ndarray, facing: np.ndarray, rng: np.random.Generator) -> PersonMesh:
    """A wall of one of KINDS through ``foot`` (3,) metres, HALF_M to every side, seen from where ``facing`` (3,), unit and level,
    points to. It stands in a scene as people do.
    """
    rgb = np.empty((round(P * TILE_M),) * 2 + (3,), np.float64)
    KINDS[kind](rng, rgb)
    # Dirt and age, in large and small.
    rgb *= rng.uniform(0.6, 1.3) * np.exp(0.16 * _clouds(rng, 3) + 0.08 * _clouds(rng, 60, 3))[..., None]
    # What stands behind the person is not quite in focus.
    rgb = cv2.GaussianBlur(rgb, (0, 0), 0.006 * P, borderType=cv2.BORDER_REFLECT)
    srgb = np.clip(rgb, 0, 1) ** (1 / 2.2)
    texture = np.dstack([np.rint(srgb * 255), np.full(rgb.shape[:2], 255)]).astype(np.uint8)
    across = np.array([-facing[1], facing[0], 0.0])
    n = 600 if kind == "drapes" else 1
    u = np.linspace(-HALF_M, HALF_M, n + 1)
    deep = 0.05 * np.sin(2 * np.pi * (u / 0.21 + 0.4 * np.sin(u * 2.3 + rng.uniform(0, 6)))) * (n > 1)
    low = foot + u[:, None] * across + deep[:, None] * facing - [0, 0, HALF_M]
    high = np.array([0, 0, 2 * HALF_M])
    vertices = np.concatenate([low, low + high])
    a = np.arange(n)
    faces = np.concatenate([np.stack([a, a + 1, a + n + 2], 1), np.stack([a, a + n + 2, a + n + 1], 1)]).astype(
        np.int32
    )
    normals = np.tile(facing - np.gradient(deep, u)[:, None] * across, (2, 1))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    uv = np.stack([np.tile(u, 2), np.repeat([-HALF_M, HALF_M], n + 1)], axis=1) / TILE_M
    mesh = Mesh(
        vertices.astype(np.float32),
        faces,
        normals[faces].astype(np.float32),
        np.zeros(len(faces), np.int32),
        [Material(kind, base_color_texture=texture, roughness=0.35 if kind == "tiles" else 0.85, specular=0.3)],
        uv=uv[faces].astype(np.float32),
        part=np.zeros(len(faces), np.uint8),
    )
    return PersonMesh(kind, mesh, {}, {})
