"""A prediction -> its folder: exact maps as NPZ, maps to look at as PNG, people as PLY, pictures, and a result.json that comes last.

Legend: (H, W) the picture, P people, C channels of a map.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.detectors import Box
from manifests import view
from manifests.codecs import encode_image
from manifests.errors import StorageError
from manifests.frames import point_map
from manifests.keypoints import SETS
from pipeline import effects, metric
from pipeline.inputs import Input

RESULT = "result.json"
OVERLAY_ROWS = 480
JPEG = 92
# A cloud of more points than this is drawn coarser: 60 MB of PLY.
MOST_POINTS = 1_500_000
# Depth PNG: whole millimetres, 0 = nobody, as viewers expect; the NPZ has every bit.
MILLIMETRES = 1000


@dataclasses.dataclass
class Prediction:
    """What was seen in ``picture`` (H, W, 3) uint8.

    ``person``: (H, W) uint8, number of the box that a person's pixel belongs to, 0 = nobody. ``maps``: task -> (H, W, C)
    float32. ``K``: (3, 3) px, ``camera``: how it is known. ``scales``: of each person, what metres rest on.
    ``poses``: task -> (P, J, 3) px and score of J keypoints.
    """

    picture: np.ndarray
    boxes: list[Box]
    person: np.ndarray
    K: np.ndarray
    camera: str
    maps: dict[str, np.ndarray]
    scales: list[str] = dataclasses.field(default_factory=list)
    poses: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def alpha(self) -> np.ndarray:
        """(H, W) float32 coverage: the matte, or the boxes where there is none."""
        if "foreground" in self.maps:
            return self.maps["foreground"][..., 0]
        return (self.person > 0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Looks:
    """Pictures that are asked for. ``relight``: (3,) direction towards the light, OpenCV camera frame. ``turn_deg``: how far
    the 2.5-D view goes to either side. ``background``: (h, w, 3) uint8 sRGB.
    """

    relight: tuple[float, float, float] | None = None
    turn_deg: float | None = None
    background: np.ndarray | None = None

    def needs(self) -> dict[str, set[str]]:
        """Flag -> tasks without which it cannot be drawn."""
        wanted = {"--relight": self.relight, "--turn": self.turn_deg, "--background": self.background}
        return {k: NEEDS[k] for k, v in wanted.items() if v is not None}


def finished(folder: Path, settings: str, item: Input) -> bool:
    """Whether ``folder`` holds the results of the same models and settings on the same file."""
    try:
        found = json.loads((folder / RESULT).read_text())
        return found["settings"] == settings and found["input"] == item.mark()
    except (OSError, ValueError, KeyError):
        return False


@contextlib.contextmanager
def landing(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of ``folder`` when all is written, and leaves no trace when not. Raises
    StorageError.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; free space, then give the same command again") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write(folder: Path, made: Prediction, looks: Looks, marks: dict[str, str]) -> None:
    """Everything of one photograph; ``marks`` tell a later run that this one is done."""
    write_maps(folder / "maps.npz", made)
    for task, field in made.maps.items():
        _png(folder / f"{task}.png", PNG[task](field, made))
    if "depth" in made.maps:
        write_cloud(folder / "people.ply", made)
    _jpeg(folder / "overlay.jpg", overlay(made.picture, made, [*made.maps, *made.poses]))
    for name, picture in looked(made, looks).items():
        _jpeg(folder / f"{name}.jpg", picture)
    people = [
        {"box": list(b.xyxy), "score": b.score, **({"scale": s} if s else {})}
        for b, s in zip(made.boxes, made.scales or [""] * len(made.boxes))
    ]
    size = {"width": made.picture.shape[1], "height": made.picture.shape[0]}
    write_result(folder, size | {"camera": made.camera, "K": made.K.tolist(), "people": people} | marks)


def looked(made: Prediction, looks: Looks) -> dict[str, np.ndarray]:
    """File name -> the picture that a flag asks for."""
    out = {}
    if looks.relight is not None:
        albedo = np.round(255 * made.maps["albedo"]).astype(np.uint8) if "albedo" in made.maps else None
        out["relit"] = effects.relit(
            made.picture, made.maps["normal"], made.alpha, np.array(looks.relight), albedo=albedo
        )
    if looks.turn_deg is not None:
        depth = made.maps["depth"][..., 0]
        inside = depth > 0
        pivot = point_map(depth, made.K)[inside].mean(axis=0) if inside.any() else np.array([0, 0, 1.0])
        views = [
            effects.from_beside(made.picture, depth, made.alpha * inside, made.K, effects.turned(pivot, yaw))
            for yaw in (-looks.turn_deg, looks.turn_deg)
        ]
        out["beside"] = np.concatenate([views[0], made.picture, views[1]], axis=1)
    if looks.background is not None:
        out["background"] = effects.before(made.picture, made.alpha, looks.background)
    return out


def write_maps(path: Path, made: Prediction) -> None:
    """NPZ: each map (H, W, C) or (H, W) float32, `person`, `boxes` (P, 4), `scores` (P,) NaN = none, `K`."""
    maps = {k: v[..., 0] if v.shape[2] == 1 else v for k, v in made.maps.items()}
    np.savez_compressed(
        path,
        person=made.person,
        boxes=np.array([b.xyxy for b in made.boxes], np.float32),
        scores=np.array([np.nan if b.score is None else b.score for b in made.boxes], np.float32),
        K=made.K,
        **maps,
        **made.poses,
    )


def write_cloud(path: Path, made: Prediction) -> int:
    """PLY of all people, metres, camera frame; returns the count of points."""
    depth = made.maps["depth"][..., 0]
    step = 1 + int((np.count_nonzero(depth) / MOST_POINTS) ** 0.5)
    points = point_map(depth, made.K)[::step, ::step]
    normal = made.maps["normal"][::step, ::step] if "normal" in made.maps else None
    return metric.write_ply(path, points, depth[::step, ::step] > 0, made.picture[::step, ::step], normal)


def write_result(folder: Path, content: dict[str, Any]) -> None:
    """result.json."""
    (folder / RESULT).write_text(json.dumps(content, indent=1))


def overlay(picture: np.ndarray, made: Prediction | None, tasks: Sequence[str]) -> np.ndarray:
    """(rows, columns, 3) uint8: the picture with boxes, then each task's map; black where nobody is. The same size for every
    picture of one size.
    """
    shown = picture.copy()
    if made is not None:
        for box in made.boxes:
            view.draw_box(shown, np.asarray(box.xyxy), view.CLAY)
    strip = [shown]
    for task in tasks:
        if made is None:
            strip.append(np.zeros_like(picture))
        elif task in SETS_OF:
            strip.append(_skeletons(made, task))
        else:
            strip.append(COLOUR[task](made.maps[task], made))
    return np.concatenate([view.thumbnail(p, OVERLAY_ROWS) for p in strip], axis=1)


class Film:
    """Pictures of one size -> an MP4; opened by the first of them."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """(H, W, 3) uint8; an odd last row or column is left out, as the codec takes even sizes alone."""
        height, width = (s // 2 * 2 for s in picture.shape[:2])
        if self._writer is None:
            self._writer = cv2.VideoWriter(
                str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, (width, height)
            )
            if not self._writer.isOpened():
                raise StorageError(
                    f"{self._path}: OpenCV cannot write it; free space, or install an OpenCV with FFmpeg"
                )
        self._writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def _grey(field: np.ndarray, made: Prediction) -> np.ndarray:
    return np.repeat(np.round(255 * np.clip(field, 0, 1)).astype(np.uint8), 3, axis=2)


def _normals(field: np.ndarray, made: Prediction) -> np.ndarray:
    return view.normal_colour(field, made.person)


def _depths(field: np.ndarray, made: Prediction) -> np.ndarray:
    return view.depth_colour(field[..., 0], field[..., 0] > 0)


def _points(field: np.ndarray, made: Prediction) -> np.ndarray:
    return view.depth_colour(field[..., 2], made.person)


def _colours(field: np.ndarray, made: Prediction) -> np.ndarray:
    return np.round(255 * np.clip(field, 0, 1)).astype(np.uint8) * (made.person > 0)[..., None]


def _classes(field: np.ndarray, made: Prediction) -> np.ndarray:
    return view.part_colour(field[..., 0])


def _skeletons(made: Prediction, task: str) -> np.ndarray:
    """The dimmed picture with keypoints that score a tenth or more, and their limbs."""
    out = (made.picture * 0.55).astype(np.uint8)
    radius = max(1, out.shape[0] // 250)
    for person in made.poses[task]:
        sure, px = person[:, 2] > SURE, np.round(person[:, :2]).astype(int)
        for a, b in SETS[SETS_OF[task]].skeleton:
            if sure[a] and sure[b]:
                cv2.line(out, px[a].tolist(), px[b].tolist(), (235, 225, 210), radius, cv2.LINE_AA)
        for x, y in px[sure]:
            cv2.circle(out, (int(x), int(y)), radius, view.CLAY, -1, cv2.LINE_AA)
    return out


def _millimetres(field: np.ndarray, made: Prediction) -> np.ndarray:
    return np.clip(np.round(MILLIMETRES * field[..., 0]), 0, 65535).astype(np.uint16)


def _png(path: Path, picture: np.ndarray) -> None:
    if picture.ndim == 2:
        good, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 4])
        assert good
        path.write_bytes(data.tobytes())
    else:
        path.write_bytes(encode_image(picture, "png"))


def _jpeg(path: Path, picture: np.ndarray) -> None:
    path.write_bytes(encode_image(picture, "jpeg", JPEG))


Drawn = Callable[[np.ndarray, Prediction], np.ndarray]
# Task -> its map (H, W, C) as a picture: in the overlay, and as a PNG file.
COLOUR: dict[str, Drawn] = {
    "foreground": _grey, "normal": _normals, "depth": _depths, "pointmap": _points, "albedo": _colours,
    "parts": _classes, "parts28": _classes,
}  # fmt: skip
PNG: dict[str, Drawn] = COLOUR | {
    "foreground": lambda f, m: _grey(f, m)[..., 0],
    "depth": _millimetres,
    "parts": lambda f, m: f[..., 0],
    "parts28": lambda f, m: f[..., 0],
}
SETS_OF = {"pose17": "coco17", "pose133": "wholebody133", "pose308": "sapiens308"}
SURE = 0.1
NEEDS = {"--relight": {"normal", "foreground"}, "--turn": {"depth", "foreground"}, "--background": {"foreground"}}
