"""Arrays of a sample or a photograph -> small pictures as data URIs, for a page that must carry everything itself.

H, W: rows and columns of the picture as given; h: height of the thumbnail in px.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np

from manifests.frames import opengl_from_opencv
from manifests.sample import RenderedSample

QUALITY = 84
# COCO-17 limbs, as pairs of keypoint indices.
LIMBS = (
    *((5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (5, 11), (6, 12), (11, 12)),
    *((11, 13), (13, 15), (12, 14), (14, 16), (0, 1), (0, 2), (1, 3), (2, 4)),
)
CLAY, SKY, STONE = (201, 100, 66), (64, 140, 190), (150, 143, 135)


def data_uri(rgb: np.ndarray) -> str:
    """``rgb``: (H, W, 3) uint8 sRGB -> JPEG data URI."""
    ok, coded = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()


def png_uri(data: bytes) -> str:
    """PNG bytes -> data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def thumbnail(rgb: np.ndarray, height: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 of that height, never enlarged; area-filtered: thin things stay."""
    scale = min(1.0, height / rgb.shape[0])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def sample_panels(sample: RenderedSample, height: int) -> list[tuple[str, str]]:
    """(caption, data URI) of each channel of a rendered sample, in reading order; absent channels are left out."""
    near, far = depth_range(sample.depth, sample.mask)
    panels = [
        ("image", sample.image),
        ("alpha", np.repeat(sample.alpha[..., None], 3, axis=2)),
        (f"depth {near:.2f}–{far:.2f} m" if far > 0 else "depth", depth_colour(sample.depth, sample.mask)),
        ("normals", normal_colour(sample.normal, sample.mask)),
    ]
    if sample.segmentation is not None:
        panels.append(("parts", part_colour(sample.segmentation)))
    if any(p.keypoint_set == "coco17" for p in sample.people):
        panels.append(("keypoints", draw_people(sample, height)))
    return [(caption, data_uri(thumbnail(picture, height))) for caption, picture in panels]


def depth_range(depth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth of the mask, metres; (0, 0) for an empty mask."""
    inside = depth[mask > 0]
    return (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)


def depth_colour(depth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) float metres -> (H, W, 3) uint8, near is bright, own range per picture; black where the mask is 0."""
    near, far = depth_range(depth, mask)
    scaled = 1 - np.clip((depth - near) / max(far - near, 1e-6), 0, 1)
    # The darkest tenth of the map stays free, so that the far side differs from "nothing".
    coloured = cv2.applyColorMap((25 + 230 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.where(mask[..., None] > 0, coloured, 0).astype(np.uint8)


def normal_colour(normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) float, OpenCV camera frame -> (H, W, 3) uint8 in the customary OpenGL colours (blue faces us)."""
    coloured = np.clip((opengl_from_opencv(normal) * 0.5 + 0.5) * 255 + 0.5, 0, 255)
    return np.where(mask[..., None] > 0, coloured, 0).astype(np.uint8)


def part_colour(labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids -> (H, W, 3) uint8; 0 is black, 255 (not labelled) grey; neighbours differ in hue."""
    ids = np.arange(256)
    hsv = np.stack([ids * 111 % 180, np.full(256, 150), np.full(256, 225)], axis=-1).astype(np.uint8)
    palette = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    palette[0], palette[255] = 0, 110
    return palette[labels]


def draw_people(sample: RenderedSample, height: int) -> np.ndarray:
    """The dimmed image with boxes and COCO-17 keypoints: filled = visible, ring = occluded. (h, w, 3) uint8."""
    small = (thumbnail(sample.image, height) * 0.55).astype(np.uint8)
    scale = small.shape[0] / sample.image.shape[0]
    for person in sample.people:
        draw_box(small, np.asarray(person.box) * scale, STONE)
        if person.keypoint_set != "coco17":
            continue
        points = np.round(np.nan_to_num(np.asarray(person.keypoints, np.float64)) * scale).astype(int)
        seen = np.asarray(person.visibility)
        for a, b in LIMBS:
            if seen[a] and seen[b]:
                cv2.line(small, _xy(points[a]), _xy(points[b]), (235, 225, 210), 1, cv2.LINE_AA)
        for point, visible in zip(points, seen):
            if visible:
                cv2.circle(small, _xy(point), 3, CLAY if visible == 2 else SKY, -1 if visible == 2 else 1, cv2.LINE_AA)
    return small


def draw_box(rgb: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw xyxy ``box`` (px of ``rgb``) in place."""
    x0, y0, x1, y1 = np.round(box).astype(int)
    cv2.rectangle(rgb, _xy((x0, y0)), _xy((x1, y1)), colour, 1, cv2.LINE_AA)


def _xy(point: np.ndarray | tuple[int, int]) -> tuple[int, int]:
    return int(point[0]), int(point[1])
