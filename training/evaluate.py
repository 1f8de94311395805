"""Fine-tuned models and held-out samples -> measures beside those of the trivial predictors, and panels for the report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import codecs, view
from training import checkpoint, data, predictor, summary, team
from training.finetune import built
from training.heads import DenseModel
from training.metrics import HEADLINE, aligned, alpha_metrics, depth_metrics, normal_angles, normal_metrics
from training.settings import Evaluate, Finetune, folders
from training.trivial import trivial_predictors, truth_of

PANELS = 8
# Bins of a tenth of a degree: the median over all pixels without keeping all pixels.
BINS = np.linspace(0, 180, 1801)


def evaluate(run: Path, settings: Evaluate, finetunes: list[Finetune]) -> Path:
    """Judge every fine-tune on ``settings.split`` at native resolution; writes ``run``/evaluate/NAME.parquet, a row for each
    picture, and returns ``run``/evaluate/metrics.json.
    """
    folder = run / "evaluate"
    (folder / "panels").mkdir(parents=True, exist_ok=True)
    rows = data.Rows(folders(run, settings.data), settings.split)
    result = {f.name: judge(run, f, settings, rows) for f in finetunes}
    path = folder / "metrics.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(result, indent=1))
    os.replace(fresh, path)
    return path


def judge(run: Path, settings: Finetune, how: Evaluate, rows: data.Rows) -> dict[str, Any]:
    """One task: the model's and the trivial predictors' measures, per picture, pooled, with intervals, and by trait."""
    task = settings.task
    model = built(settings)
    checkpoint.load_weights(run / "finetune" / settings.name / "model.safetensors", model)
    model.to(team.device_for(settings.compute)).eval()
    trivial = trivial_predictors(task, data.Rows(folders(run, how.data), "train"))
    found: dict[str, list[dict[str, float]]] = {k: [] for k in ("model", *trivial)}
    angles = {k: np.zeros(len(BINS) - 1) for k in found}
    known: list[dict[str, Any]] = []
    traits = []
    for i in range(len(rows)):
        _, row = rows[i]
        height, width = row["camera"]["height"], row["camera"]["width"]
        truth = truth_of(row, task)
        inside = np.ones((height, width), bool) if task == "foreground" else _foreground(row)
        predicted = predict(model, row, settings)
        for name, guess in {"model": predicted, **{k: f(height, width) for k, f in trivial.items()}}.items():
            found[name].append(measures(task, guess, truth, inside, how.alignment))
            if task == "normal":
                angles[name] += np.histogram(normal_angles(guess[inside], truth[inside]), BINS)[0]
        person = row["people"][0]["asset_id"] if row["people"] else ""
        known.append({"sample_id": row["sample_id"], "asset": person, "pixels": int(inside.sum())})
        traits.append(summary.traits_of(row))
        if i < PANELS:
            draw_panel(run / "evaluate/panels" / settings.name / f"{i:02d}.png", row, truth, predicted, inside, task)
    write_rows(run / "evaluate" / f"{settings.name}.parquet", known, traits, found)
    return report(settings, how, known, traits, found, angles)


def report(
    settings: Finetune,
    how: Evaluate,
    known: list[dict[str, Any]],
    traits: list[dict[str, str]],
    found: dict[str, list[dict[str, float]]],
    angles: dict[str, np.ndarray],
) -> dict[str, Any]:
    """The entry of metrics.json."""
    people, pixels = [k["asset"] for k in known], [k["pixels"] for k in known]
    headline = HEADLINE[settings.task]
    entries: dict[str, dict[str, Any]] = {}
    for name, measured in found.items():
        spans = {
            k: summary.interval(np.array([m[k] for m in measured]), people, how.bootstrap, how.seed)
            for k in measured[0]
        }
        entries[name] = {
            "per_image": summary.means(measured),
            "pooled": summary.pooled(measured, pixels),
            "interval": spans,
        }
        if settings.task == "normal":
            half = np.searchsorted(np.cumsum(angles[name]), angles[name].sum() / 2)
            entries[name]["pooled"]["median_deg"] = float((BINS[half] + BINS[half + 1]) / 2)
    mine = np.array([m[headline] for m in found["model"]])
    others = {k: np.array([m[headline] for m in v]) for k, v in found.items() if k != "model"}
    best = min(others, key=lambda k: others[k].mean())
    return {
        "task": settings.task,
        "headline": headline,
        "alignment": how.alignment if settings.task == "depth" else "none",
        "model": entries.pop("model"),
        "trivial": entries,
        "beats_trivial": bool(mine.mean() < others[best].mean()),
        "best_trivial": best,
        # Paired: the same pictures under both; below 0 the model is better.
        "difference": float((mine - others[best]).mean()),
        "difference_interval": summary.interval(mine - others[best], people, how.bootstrap, how.seed),
        "wins": int((mine < np.min(list(others.values()), axis=0)).sum()),
        "split": how.split,
        "samples": len(known),
        "identities": len(set(people)),
        "breakdown": summary.breakdown(mine, people, traits, how.bootstrap, how.seed),
    }


def measures(task: str, guess: np.ndarray, truth: np.ndarray, inside: np.ndarray, alignment: str) -> dict[str, float]:
    """One picture's measures of ``task``."""
    if task == "foreground":
        return alpha_metrics(guess, truth)
    if task == "depth":
        return depth_metrics(guess[inside], truth[inside], alignment)
    return normal_metrics(guess[inside], truth[inside])


def write_rows(
    path: Path,
    known: list[dict[str, Any]],
    traits: list[dict[str, str]],
    found: dict[str, list[dict[str, float]]],
) -> None:
    """A Parquet table: who and what each picture shows, and each predictor's measures, as `predictor/measure`."""
    rows = []
    for i, one in enumerate(known):
        shown = {k: traits[i].get(k) for k in summary.TRAITS}
        measured = {f"{name}/{k}": v for name, rows_ in found.items() for k, v in rows_[i].items()}
        rows.append({**one, **shown, **measured})
    pq.write_table(pa.Table.from_pylist(rows), path)


def draw_panel(
    path: Path, row: dict[str, Any], truth: np.ndarray, predicted: np.ndarray, inside: np.ndarray, task: str
) -> None:
    """Write picture, truth and prediction side by side as PNG; depth is aligned first, near is bright."""
    shown = [codecs.decode_image(row["image"]["bytes"])]
    if task == "depth":
        fitted = np.zeros_like(truth)
        fitted[inside] = aligned(predicted[inside].astype(float), truth[inside].astype(float), "scale_shift_lsq")
        span = (float(truth[inside].min()), float(truth[inside].max()))
        shown += [view.depth_colour(d, inside, span) for d in (truth, fitted)]
    elif task == "normal":
        shown += [view.normal_colour(n, inside) for n in (truth, predicted)]
    else:
        shown += [np.repeat(np.round(255 * a[..., None]).astype(np.uint8), 3, axis=2) for a in (truth, predicted)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(shown, axis=1)[..., ::-1])


def predict(model: DenseModel, row: dict[str, Any], settings: Finetune) -> np.ndarray:
    """(H, W) relative depth, (H, W, 3) unit normals or (H, W) coverage at the row's own resolution, mean of the picture and
    its mirror.
    """
    image = predictor.prepared(codecs.decode_image(row["image"]["bytes"]), (settings.height, settings.width))
    field = predictor.read(model, image[None], settings)[0]
    full = predictor.stretched(field, (row["camera"]["height"], row["camera"]["width"]), settings.task)
    return full if full.shape[2] > 1 else full[..., 0]


def _foreground(row: dict[str, Any]) -> np.ndarray:
    return codecs.decode_u8(row["mask"], row["camera"]["height"], row["camera"]["width"]) != 0
