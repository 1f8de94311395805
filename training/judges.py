"""A task -> how it is judged: what is predicted and true of a row, one picture's measures, and those over all pictures.

A guess is an array of the task's kind at the row's own resolution: (H, W) depth, coverage or class ids, (H, W, 3) normals or
albedo, (H, W, 4) points in metres and the canonical scale, (P, K, 3) keypoints in px with scores, of people in the order of
``people.people_of``. Legend: (H, W) a row's picture, P people, K keypoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from manifests import codecs, keypoints, parts
from training import heatmaps, metrics, metrics_tasks, oks, people, truth, views
from training.heads import CHANNELS, DenseModel, OneTask
from training.settings import Finetune
from training.tasks import objective
from training.transforms import MEAN, STD, channels_first, one, picture_view, reduced

# Bins of a tenth of a degree: the median over all pixels without keeping all pixels.
BINS = np.linspace(0, 180, 1801)


class Pool(Protocol):
    """Measures over all pixels or people of all pictures that their means do not give."""

    def add(self, guess: np.ndarray, row: dict[str, Any]) -> None:
        """Take in one picture."""

    def result(self) -> dict[str, float]:
        """The measures."""


class Nothing:
    """Means say it all."""

    def add(self, guess: np.ndarray, row: dict[str, Any]) -> None:
        """As Pool."""

    def result(self) -> dict[str, float]:
        """As Pool."""
        return {}


class Angles:
    """The median angle over all pixels."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(BINS) - 1)

    def add(self, guess: np.ndarray, row: dict[str, Any]) -> None:
        """As Pool."""
        inside, true = foreground(row), truth_of(row, "normal")
        self._counts += np.histogram(metrics.normal_angles(guess[inside], true[inside]), BINS)[0]

    def result(self) -> dict[str, float]:
        """As Pool."""
        half = np.searchsorted(np.cumsum(self._counts), self._counts.sum() / 2)
        return {"median_deg": float((BINS[half] + BINS[half + 1]) / 2)}


class Confusions:
    """Classes over all pixels, as Sapiens2 counts them."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._counts = np.zeros((CHANNELS[task], CHANNELS[task]), np.int64)

    def add(self, guess: np.ndarray, row: dict[str, Any]) -> None:
        """As Pool."""
        self._counts += counts_of(guess, truth_of(row, self._task), self._task)

    def result(self) -> dict[str, float]:
        """As Pool."""
        return metrics_tasks.pooled_class_metrics(self._counts)


class People:
    """AP and AR over all people, who are given their true boxes."""

    def __init__(self, task: str) -> None:
        self._task, self._pictures = task, list[oks.Picture]()

    def add(self, guess: np.ndarray, row: dict[str, Any]) -> None:
        """As Pool."""
        if len(guess):
            scores = np.array([oks.person_score(g) for g in guess])
            self._pictures.append(oks.Picture(guess, scores, truth_of(row, self._task), areas_of(row, self._task)))

    def result(self) -> dict[str, float]:
        """As Pool."""
        return oks.average_precision(self._pictures, sigmas_of(self._task))


@dataclasses.dataclass(frozen=True)
class Kind:
    """``headline``: the measure by which a model is said to beat a trivial guess; lower is better. ``judged``: whether the row
    has what it takes.
    """

    headline: str
    measures: Callable[[np.ndarray, dict[str, Any], str, str], dict[str, float]]
    pool: Callable[[str], Pool] = lambda task: Nothing()
    judged: Callable[[dict[str, Any], str], bool] = lambda row, task: True


def truth_of(row: dict[str, Any], task: str) -> np.ndarray:
    """A row's truth as a guess would have it: points (H, W, 3), keypoints (P, K, 3) with visibility, classes with 255."""
    height, width = row["camera"]["height"], row["camera"]["width"]
    if task == "foreground":
        return codecs.decode_u8(row["alpha"], height, width).astype(np.float32) / 255
    if task in truth.SETS:
        found = [truth.points_of(p, truth.SETS[task]) for p in people.people_of(row, task)]
        return np.array(found).reshape(-1, CHANNELS[task], 3)
    if task.startswith("parts"):
        classes = truth.segmentation(row)
        return np.array(parts.TO28, np.uint8)[classes] if task == "parts28" else classes
    if task == "pointmap":
        return truth.canonical(row)[0]
    if task == "albedo":
        found_albedo = truth.albedo(row)
        assert found_albedo is not None
        return found_albedo.astype(np.float32) / 255
    decode = codecs.decode_depth if task == "depth" else codecs.decode_normal
    return decode(row[task], height, width)


def foreground(row: dict[str, Any]) -> np.ndarray:
    """(H, W) bool."""
    return codecs.decode_u8(row["mask"], row["camera"]["height"], row["camera"]["width"]) != 0


def areas_of(row: dict[str, Any], task: str) -> np.ndarray:
    """(P,) px that each person covers, at least one."""
    mask = codecs.decode_u8(row["mask"], row["camera"]["height"], row["camera"]["width"])
    chosen = people.people_of(row, task)
    return np.array([max(1, int((mask == i + 1).sum())) for i, p in enumerate(row["people"]) if p in chosen], float)


def sigmas_of(task: str) -> np.ndarray:
    """(K,) OKS falloffs."""
    return np.array(keypoints.SETS[truth.SETS[task]].sigmas)


def counts_of(guess: np.ndarray, true: np.ndarray, task: str) -> np.ndarray:
    """(C, C) confusion on labelled pixels."""
    known = true != parts.UNLABELLED
    return metrics_tasks.confusion(guess[known], true[known], CHANNELS[task])


@torch.no_grad()
def predict(model: DenseModel | OneTask, row: dict[str, Any], settings: Finetune) -> np.ndarray:
    """A guess for a row, the mean of what the model says of the picture and of its mirror image."""
    task = model.task
    size = (settings.height, settings.width)
    rgb = codecs.decode_image(row["image"]["bytes"])
    if task in truth.SETS:
        return _people(model, row, rgb, settings)
    mean = answered(model, prepared(rgb, size), settings).transpose(1, 2, 0)
    full = cv2.resize(mean, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    if task.startswith("parts"):
        return full.argmax(axis=2)
    if task == "normal":
        return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6)
    return full


def prepared(rgb: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(3, h, w) float32 as models take it, of a picture (H, W, 3) uint8 sRGB stretched to ``size`` (h, w)."""
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    return torch.from_numpy(((small.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1).copy())


def answered(model: DenseModel | OneTask, image: torch.Tensor, settings: Finetune) -> np.ndarray:
    """(C, h, w) float32 as a user takes it, of (3, H, W) normalised: the mean of the picture's and the mirrored picture's."""
    device = next(model.parameters()).device
    return averaged(model(torch.stack([image, image.flip(-1)]).to(device)), model.task, settings)[0]


def averaged(output: torch.Tensor, task: str, settings: Finetune) -> np.ndarray:
    """(B, C, h, w) float32 as a user takes it, of what the head of ``task`` says (2 B, C, h, w) of pictures and then of their
    mirror images: the mean of both.
    """
    read = objective(task, settings.loss if task == settings.task else None).read
    straight, mirrored = np.split(read(output.float()).cpu().numpy(), 2)
    mirrored = mirrored[..., ::-1]
    if task in ("normal", "pointmap"):
        mirrored = mirrored * np.array([-1, *[1] * (mirrored.shape[1] - 1)], np.float32)[:, None, None]
    elif task in truth.SETS:
        mirrored = mirrored[:, list(keypoints.SETS[truth.SETS[task]].mirror)]
    elif task.startswith("parts"):
        mirrored = mirrored[:, list(parts.MIRROR[: CHANNELS[task]] if task == "parts" else parts.MIRROR28)]
    return (straight + mirrored) / 2


def _people(model: DenseModel | OneTask, row: dict[str, Any], rgb: np.ndarray, settings: Finetune) -> np.ndarray:
    """(P, K, 3) px and scores, each person seen in their own box."""
    size, K = (settings.height, settings.width), np.array(row["camera"]["K"]).reshape(3, 3)
    places = objective(model.task, settings.loss if model.task == settings.task else None).places
    assert places is not None
    found = []
    for person in people.people_of(row, model.task):
        view = people.around(K, np.asarray(person["box"]), size)
        image = crop(rgb, view, K, size)
        shares = places(answered(model, image, settings))
        px = heatmaps.pixels(shares[:, :2], size)
        at = np.concatenate([px, np.ones((len(px), 1))], axis=1) @ view.source_from_view(K).T
        found.append(np.concatenate([at[:, :2] / at[:, 2:], shares[:, 2:]], axis=1))
    return np.array(found).reshape(-1, CHANNELS[model.task], 3)


def crop(rgb: np.ndarray, view: views.View, K: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(3, h, w) normalised: what ``view`` sees of (H, W, 3) uint8."""
    warp_ = view.source_from_view(K)
    cut, look = reduced(rgb, warp_, size)
    return picture_view(one({"p": channels_first(cut)})["p"], one({"look": look}), size)[0]


def _depth(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    inside = foreground(row)
    return metrics.depth_metrics(guess[inside], truth_of(row, task)[inside], alignment)


def _normal(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    inside = foreground(row)
    return metrics.normal_metrics(guess[inside], truth_of(row, task)[inside])


def _alpha(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    return metrics.alpha_metrics(guess, truth_of(row, task))


def _parts(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    return metrics_tasks.class_metrics(counts_of(guess, truth_of(row, task), task))


def _points(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    inside = foreground(row)
    true, scale = truth.canonical(row)
    return metrics_tasks.point_metrics(guess[inside], true[inside], scale)


def _albedo(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    return metrics_tasks.albedo_metrics(guess, truth_of(row, task), foreground(row))


def _pose(guess: np.ndarray, row: dict[str, Any], task: str, alignment: str) -> dict[str, float]:
    boxes = [np.asarray(p["box"]) for p in people.people_of(row, task)]
    each = [
        oks.person_metrics(g, t, b, a, sigmas_of(task))
        for g, t, b, a in zip(guess, truth_of(row, task), boxes, areas_of(row, task))
    ]
    return {k: float(np.mean([e[k] for e in each])) for k in each[0]}


_OF_PARTS = Kind("jaccard", _parts, Confusions, lambda row, task: row["segmentation"] is not None)
_OF_POSE = Kind("nme", _pose, People, lambda row, task: bool(people.people_of(row, task)))
KINDS: dict[str, Kind] = {
    "depth": Kind("absrel", _depth),
    "normal": Kind("mean_deg", _normal, lambda task: Angles()),
    "foreground": Kind("mad", _alpha),
    "parts": _OF_PARTS,
    "parts28": _OF_PARTS,
    "pose17": _OF_POSE,
    "pose133": _OF_POSE,
    "pose308": _OF_POSE,
    "pointmap": Kind("l2", _points),
    "albedo": Kind("mae", _albedo, judged=lambda row, task: truth.albedo(row) is not None),
}
