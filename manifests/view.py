"""Samples and datasets -> what people look at: channel pictures, labelled strips, contact sheets, a summary.

H, W: rows and columns of a picture. All pictures are (H, W, 3) uint8 sRGB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests import codecs
from manifests.dataset import Dataset
from manifests.frames import opengl_from_opencv
from manifests.keypoints import SETS
from manifests.sample import FRAMINGS, KINDS, RenderedSample
from manifests.shards import sample_of

MANY_POINTS = 100
CLAY, SKY, STONE = (201, 100, 66), (64, 140, 190), (150, 143, 135)


def summary(folder: str | Path) -> dict[str, Any]:
    """Counts, splits, framings, sizes, rights and fields of a dataset."""
    ds = Dataset(folder)
    m = ds.manifest
    return {
        "kind": ds.kind,
        "rows": len(ds),
        "shards": len(m["shards"]),
        "bytes": sum(s["bytes"] for s in m["shards"]),
        "outcomes": m["counts"],
        "splits": m["splits"],
        "framings": dict(Counter(r["framing"] for r in ds.labels if r["framing"])),
        "assets": len({a for r in ds.labels for a in r["assets"]}),
        "sizes": dict(Counter(f"{r['width']}x{r['height']}" for r in ds.labels)),
        "licences": m["licences"],
        "redistributable": m["redistributable"],
        "fields": [f.name for f in KINDS[ds.kind]],
        "manifest": m["number"],
    }


def panels(sample: RenderedSample, height: int) -> dict[str, np.ndarray]:
    """name -> picture of each channel, ``height`` rows at most, in reading order; absent channels are left out."""
    shown = {
        "image": sample.image,
        "alpha": np.repeat(sample.alpha[..., None], 3, axis=2),
        "depth": depth_colour(sample.depth, sample.mask),
        "normals": normal_colour(sample.normal, sample.mask),
    }
    if sample.segmentation is not None:
        shown["parts"] = part_colour(sample.segmentation)
    small = {name: thumbnail(picture, height) for name, picture in shown.items()}
    if any(p.keypoint_set in SETS for p in sample.people):
        small["keypoints"] = draw_people(sample, height)
    return small


def depth_range(depth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth of the mask, metres; (0, 0) for an empty mask."""
    inside = depth[mask > 0]
    return (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)


def depth_colour(depth: np.ndarray, mask: np.ndarray, span: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W) float metres -> near is bright, black where ``mask`` is 0; ``span``: near and far, else the mask's own."""
    near, far = span or depth_range(depth, mask)
    scaled = 1 - np.clip((depth - near) / max(far - near, 1e-6), 0, 1)
    # The darkest tenth of the map stays free, so that the far side differs from "nothing".
    coloured = cv2.applyColorMap((25 + 230 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.where(mask[..., None] > 0, coloured, 0).astype(np.uint8)


def normal_colour(normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) float, OpenCV camera frame -> the customary OpenGL colours (blue faces us), black where ``mask`` is 0."""
    coloured = np.clip((opengl_from_opencv(normal) * 0.5 + 0.5) * 255 + 0.5, 0, 255)
    return np.where(mask[..., None] > 0, coloured, 0).astype(np.uint8)


def part_colour(labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids -> neighbours differ in hue; 0 is black, 255 (not labelled) grey."""
    ids = np.arange(256)
    hsv = np.stack([ids * 111 % 180, np.full(256, 150), np.full(256, 225)], axis=-1).astype(np.uint8)
    palette = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    palette[0], palette[255] = 0, 110
    return palette[labels]


def draw_people(sample: RenderedSample, height: int) -> np.ndarray:
    """The dimmed image with boxes, keypoints and their limbs: filled = visible, ring = occluded."""
    small = (thumbnail(sample.image, height) * 0.55).astype(np.uint8)
    scale = small.shape[0] / sample.image.shape[0]
    for person in sample.people:
        draw_box(small, np.asarray(person.box) * scale, STONE)
        if person.keypoint_set not in SETS:
            continue
        points = np.round(np.nan_to_num(np.asarray(person.keypoints, np.float64)) * scale).astype(int)
        seen = np.asarray(person.visibility)
        # A face of 238 points is a blot at this size, unless they are small.
        radius = 3 if len(points) < MANY_POINTS else 1
        for a, b in SETS[person.keypoint_set].skeleton:
            if seen[a] and seen[b]:
                cv2.line(small, _xy(points[a]), _xy(points[b]), (235, 225, 210), 1, cv2.LINE_AA)
        for point, visible in zip(points, seen):
            if visible:
                cv2.circle(
                    small, _xy(point), radius, CLAY if visible == 2 else SKY, -1 if visible == 2 else 1, cv2.LINE_AA
                )
    return small


def draw_box(rgb: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw xyxy ``box`` (px of ``rgb``) in place."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(rgb, (x0, y0), (x1, y1), colour, max(1, rgb.shape[1] // 300), cv2.LINE_AA)


def thumbnail(rgb: np.ndarray, height: int) -> np.ndarray:
    """``rgb`` at most ``height`` rows high, never enlarged; area-filtered: thin things stay."""
    scale = min(1.0, height / rgb.shape[0])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def row_png(row: dict[str, Any]) -> bytes:
    """PNG bytes of a row: its panels side by side, named; for a photograph, the picture with its boxes."""
    if "depth" in row:
        shown = panels(sample_of(row), row["camera"]["height"])
        title = f"{row['sample_id']}  {row['camera']['framing']}  {row['split']}"
    else:
        picture = codecs.decode_image(row["image"]["bytes"])
        for box in row["boxes"] or []:
            draw_box(picture, np.asarray(box["xyxy"]), CLAY)
        shown, title = {"image": picture}, f"{row['sample_id']}  {row['uri']}"
    strip = np.concatenate([_named(name, picture) for name, picture in shown.items()], axis=1)
    head = np.zeros((22, strip.shape[1], 3), np.uint8)
    cv2.putText(head, title, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return codecs.encode_image(np.concatenate([head, strip]), "png")


def spread(labels: Sequence[dict[str, Any]], count: int) -> list[int]:
    """At most ``count`` dataset positions, dealt over framings in turn and, within one, over identities."""
    queues: dict[str, list[int]] = {}
    for framing in FRAMINGS:
        seen: Counter[str] = Counter()
        keyed = []
        for position, label in enumerate(labels):
            if label["framing"] == framing:
                identity = "".join(label["assets"][:1])
                keyed.append((seen[identity], position))
                seen[identity] += 1
        queues[framing] = [position for _, position in sorted(keyed)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return chosen[:count]


def contact_sheet(dataset: Dataset, positions: Sequence[int], height: int = 200, columns: int = 2) -> np.ndarray:
    """Rendered rows as strips of their channels, ``columns`` beside each other, on white."""
    strips = [np.concatenate(list(panels(dataset.sample(i), height).values()), axis=1) for i in positions]
    width, rows = max(s.shape[1] for s in strips), -(-len(strips) // columns)
    gap = 8
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, strip in enumerate(strips):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + strip.shape[0], x : x + strip.shape[1]] = strip
    return sheet


def _named(name: str, picture: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return picture


def _xy(point: np.ndarray) -> tuple[int, int]:
    return int(point[0]), int(point[1])
