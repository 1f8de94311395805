"""Fine-tuned models and held-out samples -> metrics beside those of the trivial predictors, and panels for the
report.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from manifests import codecs, view
from training import checkpoint, data
from training.heads import DenseModel, build
from training.metrics import HEADLINE, METRICS, normal_angles
from training.settings import Evaluate, Finetune, folders
from training.transforms import dense_sample

PANELS = 8
# The trivial normal map is learnt at this size and stretched to each picture.
MEAN_MAP = (64, 48)


def evaluate(run: Path, settings: Evaluate, finetunes: list[Finetune]) -> Path:
    """Judge every fine-tune on ``settings.split`` at native resolution; writes and returns
    ``run``/evaluate/metrics.json.
    """
    folder = run / "evaluate"
    (folder / "panels").mkdir(parents=True, exist_ok=True)
    rows = data.Rows(folders(run, settings.data), settings.split)
    result = {f.name: judge(run, f, rows, folder / "panels") for f in finetunes}
    path = folder / "metrics.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(result, indent=1))
    os.replace(fresh, path)
    return path


def judge(run: Path, settings: Finetune, rows: data.Rows, panels: Path) -> dict[str, Any]:
    """One task: the model's and the trivial predictors' metrics, per picture and meaned."""
    model = build(settings)
    checkpoint.load(run / "finetune" / settings.name / "model.safetensors", model, None)
    model.eval()
    trivial = trivial_predictors(settings, data.Rows(folders(run, settings.data), "train"))
    per_sample: list[dict[str, Any]] = []
    pooled: dict[str, list[np.ndarray]] = {}
    for i in range(len(rows)):
        _, row = rows[i]
        height, width = row["camera"]["height"], row["camera"]["width"]
        truth = truth_of(row, settings.task)
        inside = codecs.decode_u8(row["mask"], height, width) != 0
        predicted = predict(model, row, settings)
        guesses = {"model": predicted, **{k: f(height, width) for k, f in trivial.items()}}
        measures = {k: METRICS[settings.task](g[inside], truth[inside]) for k, g in guesses.items()}
        if settings.task == "normal":
            for k, g in guesses.items():
                pooled.setdefault(k, []).append(normal_angles(g[inside], truth[inside]))
        person = row["people"][0]["asset_id"] if row["people"] else ""
        per_sample.append(
            {"sample_id": row["sample_id"], "framing": row["camera"]["framing"], "asset": person, **measures}
        )
        if i < PANELS:
            draw_panel(panels / settings.name / f"{i:02d}.png", row, truth, predicted, inside, settings.task)
    means = {k: _mean([s[k] for s in per_sample]) for k in ("model", *trivial)}
    for k, angles in pooled.items():
        means[k]["pooled_mean_deg"] = float(np.concatenate(angles).mean())
    headline = HEADLINE[settings.task]
    best = min(means[k][headline] for k in trivial)
    wins = sum(s["model"][headline] < min(s[k][headline] for k in trivial) for s in per_sample)
    return {
        "task": settings.task,
        "headline": headline,
        "model": means["model"],
        "trivial": {k: means[k] for k in trivial},
        "beats_trivial": means["model"][headline] < best,
        "wins": wins,
        "split": rows.split,
        "samples": len(per_sample),
        "identities": len({s["asset"] for s in per_sample}),
        "per_sample": per_sample,
    }


def draw_panel(
    path: Path, row: dict[str, Any], truth: np.ndarray, predicted: np.ndarray, inside: np.ndarray, task: str
) -> None:
    """Write picture, truth and prediction side by side as PNG; depth is aligned first, near is bright."""
    shown = [codecs.decode_image(row["image"]["bytes"])]
    if task == "depth":
        p, z = predicted[inside], truth[inside]
        slope, offset = np.polyfit(p, z, 1) if p.std() > 1e-6 else (0.0, float(z.mean()))
        span = (float(z.min()), float(z.max()))
        shown += [view.depth_colour(d, inside, span) for d in (truth, predicted * slope + offset)]
    else:
        shown += [view.normal_colour(n, inside) for n in (truth, predicted)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(shown, axis=1)[..., ::-1])


@torch.no_grad()
def predict(model: DenseModel, row: dict[str, Any], settings: Finetune) -> np.ndarray:
    """(H, W) relative depth or (H, W, 3) unit normals at the row's own resolution, mean of the picture and its
    mirror.
    """
    image = torch.from_numpy(dense_sample(row, None, (settings.height, settings.width), settings.task)["image"])
    out = model(torch.stack([image, image.flip(-1)])).numpy()
    mirrored = out[1][..., ::-1]
    if settings.task == "normal":
        mirrored = mirrored * np.array([-1, 1, 1], np.float32)[:, None, None]
    mean = ((out[0] + mirrored) / 2).transpose(1, 2, 0)
    size = (row["camera"]["width"], row["camera"]["height"])
    full = cv2.resize(mean, size, interpolation=cv2.INTER_LINEAR)
    if settings.task == "depth":
        return full
    return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6)


def truth_of(row: dict[str, Any], task: str) -> np.ndarray:
    """(H, W) metres or (H, W, 3) unit normals."""
    decode = codecs.decode_depth if task == "depth" else codecs.decode_normal
    return decode(row[task], row["camera"]["height"], row["camera"]["width"])


def trivial_predictors(settings: Finetune, train: data.Rows) -> dict[str, Any]:
    """name -> (height, width) -> a guess that never looks at the picture.

    Depth: a constant (after alignment the mean depth). Normals: the one direction that suits the training set best,
    and its
    mean normal map.
    """
    if settings.task == "depth":
        return {"constant depth": lambda h, w: np.ones((h, w), np.float32)}
    total = np.zeros((*MEAN_MAP, 3))
    for i in range(len(train)):
        normal = truth_of(train[i][1], "normal")
        total += cv2.resize(normal, MEAN_MAP[::-1], interpolation=cv2.INTER_AREA)
    direction = total.sum(axis=(0, 1))
    direction /= np.linalg.norm(direction)
    length = np.linalg.norm(total, axis=2, keepdims=True)
    mean_map = np.where(length > 1e-9, total / np.maximum(length, 1e-9), direction).astype(np.float32)

    def one_direction(h: int, w: int) -> np.ndarray:
        return np.broadcast_to(direction.astype(np.float32), (h, w, 3))

    def stretched(h: int, w: int) -> np.ndarray:
        full = cv2.resize(mean_map, (w, h), interpolation=cv2.INTER_LINEAR)
        return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6)

    return {"one direction": one_direction, "mean normal map": stretched}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}
