"""Rendered rows -> pictures and COCO person-keypoint annotations, which pycocotools, MMPose and Detectron2 read.

H, W: rows and columns of a picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import InputError
from manifests.export_folders import sample_with
from manifests.export_tables import picture_suffix
from manifests.frames import indexed_pixels
from manifests.keypoints import COCO17, SETS, subset
from manifests.sample import Person

# COCO counts keypoints from 1 here, and from 0 nowhere else.
SKELETON = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9)),
    *((8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)),
)
PERSON_CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(COCO17),
    "skeleton": [list(limb) for limb in SKELETON],
}


def coco_keypoints(rows: Iterator[tuple[str, dict[str, Any]]], folder: Path) -> dict[str, str]:
    """images/STEM.jpg (bytes as stored) and annotations/person_keypoints.json; one annotation per person who shows.

    ``keypoints``: 17 x (x, y, v), v 0 absent (x = y = 0), 1 occluded, 2 visible; ``bbox`` x, y, width, height px;
    ``area`` and ``segmentation`` (run lengths) from the instance mask. Raises InputError on a person without COCO's
    points.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    licences: dict[str, int] = {}
    (folder / "images").mkdir()
    for stem, row in rows:
        sample = sample_with(row, "coco-keypoints", "image", "mask", "people")
        data = row["image"]["bytes"]
        name = f"{stem}.{picture_suffix(data)}"
        (folder / "images" / name).write_bytes(data)
        h, w = sample.mask.shape
        licence = " AND ".join(sorted({r["licence"] or "unstated" for r in sample.rights})) or "unstated"
        image_id = len(images) + 1
        images.append(
            {
                "id": image_id,
                "file_name": name,
                "width": w,
                "height": h,
                "license": licences.setdefault(licence, len(licences) + 1),
            }
        )
        for i, person in enumerate(sample.people, start=1):
            shown = sample.mask == i
            if shown.any():
                annotation = _annotation(sample.sample_id, person, shown)
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, **annotation})
    body = {
        "info": {"description": "exported by Maquette", "version": "1.0"},
        "licenses": [{"id": number, "name": name, "url": ""} for name, number in licences.items()],
        "categories": [PERSON_CATEGORY],
        "images": images,
        "annotations": annotations,
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "person_keypoints.json").write_text(json.dumps(body, allow_nan=False))
    return {
        "keypoints": "px; the centre of the first pixel is (0, 0), as in COCO",
        "bbox": "px; x, y, width, height between pixel edges, the picture's corner being (0, 0)",
        "segmentation": "uncompressed run lengths, down the columns",
    }


def _annotation(sample_id: str, person: Person, shown: np.ndarray) -> dict[str, Any]:
    """The annotation of one person; ``shown``: (H, W) bool, the pixels that show the person."""
    chosen = subset(person.keypoint_set, "coco17")
    if chosen is None:
        has = f"{person.keypoint_set} keypoints" if person.keypoint_set else "no keypoints"
        raise InputError(f"sample {sample_id}: {person.asset_id} has {has}; coco-keypoints needs {' or '.join(SETS)}")
    xy = indexed_pixels(np.asarray(person.keypoints, np.float64)[chosen])
    seen = np.where(np.isfinite(xy).all(axis=1), np.asarray(person.visibility)[chosen], 0)
    xy = np.where(seen[:, None] > 0, xy, 0)
    points = [v for (x, y), s in zip(xy.tolist(), seen.tolist()) for v in (round(x, 3), round(y, 3), int(s))]
    x0, y0, x1, y1 = np.asarray(person.box, np.float64).tolist()
    return {
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(shown.sum()),
        "segmentation": {"size": list(shown.shape), "counts": _run_lengths(shown)},
        "keypoints": points,
        "num_keypoints": int((seen > 0).sum()),
    }


def _run_lengths(shown: np.ndarray) -> list[int]:
    """Lengths of the runs of (H, W) bool, down the columns, beginning with background."""
    flat = shown.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *counts] if flat[0] else counts
