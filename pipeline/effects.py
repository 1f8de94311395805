"""Predicted maps and a photograph -> the photograph in another light, from beside, or before another background.

Light is added up in linear values, as it falls; pictures come and go as sRGB. Frame: OpenCV camera. Legend: (H, W) the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from manifests.frames import camera_rays

# Windows of the two passes that look for colours around a pixel, as shares of the long side.
NEAR = (0.2, 0.05)
# A pixel is a witness of its layer's colour by this power of its coverage: at 1, as published, soft pixels that hold the other
# layer outvote the few pure ones near hair (of the error on made strands 0.66 is left so, 0.17 at these windows and 4).
TRUST = 4
# No light is divided by less than this share of the mean: what lies in the dark holds no colour to show.
DARKEST = 0.12
AMBIENT = 0.25


def linear(srgb: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 sRGB -> float32 linear 0..1 (IEC 61966-2-1)."""
    value = srgb.astype(np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb(value: np.ndarray) -> np.ndarray:
    """(..., 3) float linear -> uint8 sRGB, clipped."""
    value = np.clip(value, 0, 1)
    coded = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.round(255 * coded).astype(np.uint8)


def harmonics(normal: np.ndarray) -> np.ndarray:
    """(..., 9): the real spherical harmonics up to degree 2 of unit vectors (..., 3), unscaled: nine numbers are as much of a
    distant light as a matt surface shows (Ramamoorthi and Hanrahan 2001).
    """
    x, y, z = np.moveaxis(normal, -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], axis=-1)


def lambert(normal: np.ndarray, direction: np.ndarray, ambient: float = AMBIENT) -> np.ndarray:
    """(H, W) float: a matt surface under one far light from ``direction`` (3,), pointing to the light, and ``ambient``."""
    towards = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    return ambient + (1 - ambient) * np.clip(normal @ towards, 0, None)


def estimated_light(image: np.ndarray, normal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(9,) of the light in a linear picture (H, W, 3): least squares of its brightness on the harmonics of ``normal``.

    Surfaces are taken to differ in colour at random, not with their direction. Outliers (dark hair, white shirts) are
    weighed down by three rounds of reweighting.
    """
    bright, basis = image[inside].mean(axis=1).astype(np.float64), harmonics(normal[inside].astype(np.float64))
    weight = np.ones(len(bright))
    found = np.zeros(9)
    for _ in range(4):
        root = np.sqrt(weight)[:, None]
        found = np.linalg.lstsq(
            np.concatenate([basis * root, 1e-3 * np.eye(9)]), np.append(bright * root[:, 0], np.zeros(9)), rcond=None
        )[0]
        error = np.abs(bright - basis @ found)
        weight = 1 / np.maximum(error, 0.05 * bright.mean() + 1e-9)
        weight /= weight.max()
    return found


def relit(
    picture: np.ndarray,
    normal: np.ndarray,
    alpha: np.ndarray,
    direction: np.ndarray,
    albedo: np.ndarray | None = None,
    ambient: float = AMBIENT,
) -> np.ndarray:
    """(H, W, 3) uint8: the people of ``picture`` lit from ``direction`` (3,), the background as it was.

    ``normal``: (H, W, 3) unit; ``alpha``: (H, W) 0..1; ``albedo``: (H, W, 3) uint8 where known, else the light that is there
    is estimated and divided out. The mean brightness of the people stays.
    """
    inside = alpha > 0.5
    if not inside.any():
        return picture.copy()
    image, new = linear(picture), lambert(normal, direction, ambient)
    if albedo is not None:
        body = linear(albedo) * new[..., None]
    else:
        light = estimated_light(image, normal, inside)
        old = harmonics(normal) @ light
        body = image * (new / np.maximum(old, DARKEST * old[inside].mean()))[..., None]
    body *= image[inside].mean() / max(float(body[inside].mean()), 1e-6)
    return srgb(alpha[..., None] * body + (1 - alpha[..., None]) * image)


def foreground_colour(image: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and background colours (H, W, 3) float32 behind a mixture ``image`` (H, W, 3) float 0..1 of coverage
    ``alpha`` (H, W): weighted means of the surroundings, then what the mixture lacks is given to the foreground.

    Blur fusion, Forte and Pitie 2021 ("Approximate fast foreground colour estimation"), with sharper weights.
    """
    a = alpha[..., None].astype(np.float32)
    front, back = image.astype(np.float32), image.astype(np.float32)
    for share in NEAR:
        radius = 2 * max(1, round(share * max(alpha.shape) / 2)) + 1

        def mean(field: np.ndarray, weight: np.ndarray, radius: int = radius) -> np.ndarray:
            over = cv2.blur(weight, (radius, radius)).reshape(*alpha.shape, 1)
            near = cv2.blur(field * weight, (radius, radius)) / np.maximum(over, 1e-6)
            # Where the window holds no witness, the wider one's answer stays.
            return np.where(over > 1e-3, near, field)

        around, back = mean(front, a**TRUST), mean(back, (1 - a) ** TRUST)
        front = np.clip(around + a * (image - a * around - (1 - a) * back), 0, 1)
    return front, np.where(a < 1e-3, image, back)


def before(picture: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the people of ``picture`` before ``background`` (h, w, 3) uint8, which is cut to fill the frame.

    A half-covered pixel holds some of the old background; its own colour is estimated first.
    """
    front, _ = foreground_colour(linear(picture), alpha)
    behind = linear(filling(background, picture.shape[:2]))
    return srgb(alpha[..., None] * front + (1 - alpha[..., None]) * behind)


def filling(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) of ``size``: the largest middle part of ``picture`` of that shape."""
    h, w = picture.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    full = cv2.resize(
        picture,
        (max(size[1], round(w * scale)), max(size[0], round(h * scale))),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    top, left = (full.shape[0] - size[0]) // 2, (full.shape[1] - size[1]) // 2
    return np.ascontiguousarray(full[top : top + size[0], left : left + size[1]])


def from_beside(
    picture: np.ndarray, depth: np.ndarray, alpha: np.ndarray, K: np.ndarray, world: np.ndarray
) -> np.ndarray:
    """(H, W, 3) uint8: ``picture`` as a camera with axes and place ``world`` (4, 4), points_new = R @ points_cam + t, sees it.

    ``depth``: (H, W) metres where ``alpha`` (H, W) > 0.5. People are points that cover one another by their distance; the
    background is filled in behind them and stands as a plane at twice their distance, which is what makes 2.5 D of it.
    """
    inside = alpha > 0.5
    height, width = inside.shape
    front, _ = foreground_colour(linear(picture), alpha)
    hole = cv2.dilate((alpha > 0.02).astype(np.uint8), np.ones((5, 5)))
    wall = 2 * float(np.median(depth[inside])) if inside.any() else 1.0
    out = _plane(filled(picture, hole), wall, K, world)
    if not inside.any():
        return out
    # Four points for each pixel: turned towards the new camera, a surface shows up to twice its own pixels.
    step = 2
    size = (width * step, height * step)
    z = cv2.resize(np.where(inside, depth, 0).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    colour = cv2.resize(front, size, interpolation=cv2.INTER_LINEAR)
    cover = cv2.resize(alpha.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    keep = z > 0
    fine = np.diag([step, step, 1.0]) @ K
    points = (camera_rays(fine, *size)[keep] * z[keep][:, None]) @ world[:3, :3].T + world[:3, 3]
    ahead = points[:, 2] > 1e-6
    uvw = points[ahead] @ K.T
    uv = np.floor(uvw[:, :2] / uvw[:, 2:]).astype(int)
    seen = (uv >= 0).all(axis=1) & (uv < [width, height]).all(axis=1)
    at = uv[seen, 1] * width + uv[seen, 0]
    near = points[ahead][seen, 2]
    # Farthest first: what is written last stays.
    order = np.argsort(-near, kind="stable")
    chosen = np.full(height * width, -1)
    chosen[at[order]] = order
    hit = chosen >= 0
    layer, share = np.zeros((height * width, 3), np.float32), np.zeros(height * width, np.float32)
    layer[hit] = colour[keep][ahead][seen][chosen[hit]]
    share[hit] = cover[keep][ahead][seen][chosen[hit]]
    layer, share = _closed(layer.reshape(height, width, 3), share.reshape(height, width))
    return srgb(share[..., None] * layer + (1 - share[..., None]) * linear(out))


def filled(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """``picture`` (H, W, 3) uint8 with what ``hole`` (H, W) marks made up from around it, coarse to fine."""
    known = (hole == 0).astype(np.float32)
    out = picture.astype(np.float32) * known[..., None]
    levels = [(out, known)]
    while min(levels[-1][1].shape) > 2 and (levels[-1][1] == 0).any():
        colour, weight = levels[-1]
        size = (max(1, weight.shape[1] // 2), max(1, weight.shape[0] // 2))
        levels.append(tuple(cv2.resize(v, size, interpolation=cv2.INTER_AREA) for v in (colour, weight)))
    made = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)[..., None]
    for colour, weight in reversed(levels[:-1]):
        up = cv2.resize(made, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        made = np.where(weight[..., None] > 1e-3, colour / np.maximum(weight, 1e-6)[..., None], up)
    return np.clip(np.round(made), 0, 255).astype(np.uint8)


def turned(pivot: np.ndarray, yaw_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    """(4, 4) for ``from_beside``: a camera that went round ``pivot`` (3,) camera-frame metres by ``yaw_deg`` to its right and
    ``pitch_deg`` up, looking at it still.
    """
    a, b = np.radians(yaw_deg), np.radians(pitch_deg)
    yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    pitch = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    world = np.eye(4)
    world[:3, :3] = pitch @ yaw
    world[:3, 3] = pivot - world[:3, :3] @ pivot
    return world


def _plane(picture: np.ndarray, distance: float, K: np.ndarray, world: np.ndarray) -> np.ndarray:
    """``picture`` painted on the plane z = ``distance``, seen by the new camera: a homography."""
    across = world[:3, :3].copy()
    across[:, 2] += world[:3, 3] / distance
    move = K @ across @ np.linalg.inv(K)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    # OpenCV counts from pixel centres.
    move = np.linalg.inv(half) @ move @ half
    size = (picture.shape[1], picture.shape[0])
    return cv2.warpPerspective(picture, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _closed(layer: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pinholes of one or two px between points filled from their neighbours."""
    for _ in range(2):
        full = (share > 0).astype(np.float32)
        around = cv2.blur(full, (3, 3))
        hole = (full == 0) & (around > 0.5)
        weight = np.maximum(around, 1e-6)
        near = cv2.blur(layer * full[..., None], (3, 3)) / weight[..., None]
        cover = cv2.blur(share * full, (3, 3)) / weight
        layer[hole], share[hole] = near[hole], cover[hole]
    return layer, share
