"""A dataset folder -> a summary for people, and rows -> labelled PNG strips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests import codecs
from manifests.dataset import Dataset
from manifests.frames import opengl_from_opencv
from manifests.sample import KINDS, RenderedSample
from manifests.shards import sample_of


def summary(folder: Path) -> dict[str, Any]:
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


def panels(sample: RenderedSample) -> dict[str, np.ndarray]:
    """name -> (H, W, 3) uint8 sRGB pictures of a sample's channels."""
    shown = {
        "image": sample.image,
        "alpha": np.repeat(sample.alpha[..., None], 3, axis=2),
        "depth": depth_colour(sample.depth, sample.mask),
        "normal": normal_colour(sample.normal, sample.mask),
    }
    if sample.segmentation is not None:
        hue = (sample.segmentation.astype(np.int32) * 47 % 180).astype(np.uint8)
        hsv = np.stack(
            [hue, np.full_like(hue, 170), np.where(sample.segmentation == 255, 0, 230).astype(np.uint8)], axis=-1
        )
        shown["parts"] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return shown


def depth_colour(depth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: near is bright; scaled over the mask. ``depth``: (H, W) metres."""
    inside = mask != 0
    out = np.full((*depth.shape, 3), 24, np.uint8)
    if inside.any():
        low, high = np.percentile(depth[inside], [1, 99])
        shade = np.clip((high - depth) / max(high - low, 1e-6), 0, 1)
        colour = cv2.applyColorMap((40 + 215 * shade).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        out[inside] = colour[inside]
    return out


def normal_colour(normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 in the usual colours (OpenGL axes: right red, up green, to the viewer blue)."""
    colour = ((opengl_from_opencv(normal) + 1) * 127.5).astype(np.uint8)
    return np.where((mask != 0)[..., None], colour, np.uint8(24))


def row_png(row: dict[str, Any]) -> bytes:
    """PNG bytes of a row: its panels side by side, named; for a photograph, the picture with its boxes."""
    if "depth" in row:
        shown = panels(sample_of(row))
        title = f"{row['sample_id']}  {row['camera']['framing']}  {row['split']}"
    else:
        picture = codecs.decode_image(row["image"]["bytes"])
        for box in row["boxes"] or []:
            x0, y0, x1, y1 = (round(v) for v in box["xyxy"])
            cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 80, 0), max(1, picture.shape[1] // 300))
        shown, title = {"image": picture}, f"{row['sample_id']}  {row['uri']}"
    strip = np.concatenate([_named(name, picture) for name, picture in shown.items()], axis=1)
    head = np.zeros((22, strip.shape[1], 3), np.uint8)
    cv2.putText(head, title, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return codecs.encode_image(np.concatenate([head, strip]), "png")


def _named(name: str, picture: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return picture
