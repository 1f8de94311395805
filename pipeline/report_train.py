"""What training and evaluation left in a run folder -> loss curves, predictions beside truth, the table of metrics."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from pipeline import figures, pictures

# Metric -> (what the table calls it, whether larger is better, how to print it).
METRICS = {
    "absrel": ("AbsRel", False, "{:.4f}"),
    "rmse": ("RMSE", False, "{:.4f}"),
    "delta1": ("δ < 1.25", True, "{:.1%}"),
    "delta2": ("δ < 1.25²", True, "{:.1%}"),
    "delta3": ("δ < 1.25³", True, "{:.1%}"),
    "mean_deg": ("mean angle", False, "{:.1f}°"),
    "median_deg": ("median angle", False, "{:.1f}°"),
    "within_11_25": ("within 11.25°", True, "{:.1%}"),
    "within_22_5": ("within 22.5°", True, "{:.1%}"),
    "within_30": ("within 30°", True, "{:.1%}"),
    "sad": ("SAD", False, "{:.2f}"),
    "mse": ("MSE", False, "{:.4f}"),
    "mad": ("MAD", False, "{:.4f}"),
    "conn": ("Conn", False, "{:.2f}"),
    "jaccard": ("1 − IoU", False, "{:.3f}"),
    "miou": ("mIoU", True, "{:.1%}"),
    "macc": ("mAcc", True, "{:.1%}"),
    "aacc": ("aAcc", True, "{:.1%}"),
    "nme": ("error / box", False, "{:.3f}"),
    "oks": ("OKS", True, "{:.3f}"),
    "pck_0_05": ("PCK .05", True, "{:.1%}"),
    "pck_0_2": ("PCK .2", True, "{:.1%}"),
    "l2": ("L2", False, "{:.3f}"),
    "l2_rms": ("RMS L2", False, "{:.3f}"),
    "within_0_05": ("within .05", True, "{:.1%}"),
    "within_0_1": ("within .1", True, "{:.1%}"),
    "within_0_2": ("within .2", True, "{:.1%}"),
    "l2_m": ("L2, m", False, "{:.3f}"),
    "mae": ("MAE", False, "{:.4f}"),
    "psnr": ("PSNR", True, "{:.2f}"),
    "ssim": ("SSIM", True, "{:.3f}"),
    "ap": ("AP", True, "{:.3f}"),
    "ar": ("AR", True, "{:.3f}"),
}
ALIGNMENTS = {
    "none": "as predicted",
    "scale_median": "after a scale by medians, per picture",
    "scale_lsq": "after a least-squares scale, per picture",
    "scale_shift_median": "after scale and shift by medians, per picture",
    "scale_shift_lsq": "after a least-squares scale and shift, per picture",
}
MAX_PANELS = 8
# What the error pictures of training/panels.py mean.
ERRORS = {
    "normal": "bright: 60° or more",
    "depth": "bright: 15 cm or more, after alignment",
    "pointmap": "bright: 30 cm or more",
    "foreground": "bright: all of the coverage",
    "albedo": "bright: 0.3 or more",
    "parts": "coloured: another class",
    "parts28": "coloured: another class",
}


def training_section(run: Path) -> list[dict[str, Any]]:
    """One entry per training that wrote metrics.jsonl: name, chart of the loss, steps, speed, waiting for data."""
    entries = []
    for folder in [run / "pretrain", *sorted((run / "finetune").glob("*"))]:
        rows = read_jsonl(folder / "metrics.jsonl")
        rows = [r for r in rows if _finite(r.get("loss"))]
        if not rows:
            continue
        # A resumed training writes the steps after its checkpoint again; the last writing counts.
        steps = {r["step"]: r for r in rows}
        kept = [steps[s] for s in sorted(steps)]
        name = "pretrain (masked autoencoder)" if folder.name == "pretrain" else f"finetune {folder.name}"
        entries.append(
            {
                "name": name,
                "chart": figures.curves(
                    {"loss": ([r["step"] for r in kept], [r["loss"] for r in kept])}, "step", "loss"
                ),
                "steps": kept[-1]["step"],
                "first": kept[0]["loss"],
                "last": statistics.fmean(r["loss"] for r in kept[-max(1, len(kept) // 20) :]),
                "speed": _median(kept, "images_per_s"),
                "wait": _median(kept, "data_wait_ms"),
                "mfu": _median(kept, "mfu"),
                "memory": max((r["memory_mb"] for r in kept if _finite(r.get("memory_mb"))), default=None),
            }
        )
    return entries


def metrics_section(run: Path) -> list[dict[str, Any]]:
    """One table per finetune: the model and each trivial predictor, the best value of each metric marked."""
    path = run / "evaluate" / "metrics.json"
    if not path.is_file():
        return []
    tables = []
    for name, entry in json.loads(path.read_text()).items():
        if not isinstance(entry, dict) or "model" not in entry:
            continue
        predictors = [entry["model"], *entry["trivial"].values()]
        columns = [k for k in METRICS if any(_finite(_value(r, k)) for r in predictors)]
        names = ["this model", *(k.replace("_", " ") for k in entry["trivial"])]
        tables.append(
            {
                "name": name,
                "task": entry["task"],
                "samples": entry["samples"],
                "identities": entry["identities"],
                "split": entry["split"],
                "alignment": ALIGNMENTS[entry["alignment"]] if entry["task"] == "depth" else None,
                "beats": bool(entry["beats_trivial"]),
                "difference": _difference(entry),
                "columns": [METRICS[c][0] + (" ↑" if METRICS[c][1] else " ↓") for c in columns],
                "rows": _ranked(list(zip(names, predictors)), columns),
                "headline": METRICS[entry["headline"]][0],
                "breakdown": [_group(g, entry["headline"]) for g in entry["breakdown"]],
                "panels": _panels(run / "evaluate", name),
                "panel_title": f"Picture, ground truth, prediction, error ({ERRORS.get(entry['task'], 'lines lead to the prediction')})",
                "worst": _panels(run / "evaluate", name, "worst"),
            }
        )
    return tables


def _difference(entry: dict[str, Any]) -> str:
    """How far the model is from the best trivial predictor on the same pictures, in words."""
    span = entry["difference_interval"]
    told = f"{METRICS[entry['headline']][0]} {_signed(entry, entry['difference'])}"
    interval = (
        f" (95 % interval {_signed(entry, span[0])} to {_signed(entry, span[1])}, over identities)" if span else ""
    )
    return f"{told} against {entry['best_trivial']}{interval}; better on {entry['wins']} of {entry['samples']} pictures"


def _signed(entry: dict[str, Any], value: float) -> str:
    text = METRICS[entry["headline"]][2].format(abs(value))
    return ("+" if value > 0 else "−") + text


def _group(group: dict[str, Any], headline: str) -> dict[str, Any]:
    """A row of the breakdown."""
    form = METRICS[headline][2].format
    span = f"{form(group['interval'][0])} to {form(group['interval'][1])}" if group["interval"] else "–"
    return {**group, "mean": form(group["mean"]), "interval": span}


def _ranked(rows: list[tuple[str, dict[str, Any]]], columns: list[str]) -> list[dict[str, Any]]:
    """Rows with printed values: the mean over pictures, its interval, and over all pixels; the best mean is marked."""
    best = {}
    for column in columns:
        values = [_value(r, column) for _, r in rows if _finite(_value(r, column))]
        best[column] = max(values) if METRICS[column][1] else min(values)
    return [{"name": name, "cells": [_cell(row, c, best[c]) for c in columns]} for name, row in rows]


def _cell(row: dict[str, Any], column: str, best: float) -> dict[str, Any]:
    form = METRICS[column][2].format
    value = _value(row, column)
    if not _finite(value):
        return {"text": "–", "best": False, "note": ""}
    notes = []
    if row["interval"].get(column):
        notes.append(f"{form(row['interval'][column][0])}–{form(row['interval'][column][1])}")
    if column in row["per_image"] and _finite(row["pooled"].get(column)):
        notes.append(f"pooled {form(row['pooled'][column])}")
    return {"text": form(value), "best": value == best, "note": "; ".join(notes)}


def _value(row: dict[str, Any], column: str) -> Any:
    """The mean over pictures; of what only all pictures together have, such as AP, that."""
    return row["per_image"].get(column, row["pooled"].get(column))


def looks_section(run: Path) -> dict[str, Any] | None:
    """What the models look at, and what the autoencoder makes of masked pictures; None where nothing was drawn."""
    folder = run / "evaluate" / "looks"
    whole = folder / "reconstruction.png"
    asked = sorted(folder.glob("attention_*.png"))
    if not asked and not whole.is_file():
        return None
    return {
        "reconstruction": pictures.png_uri(whole.read_bytes()) if whole.is_file() else None,
        "attention": [(p.stem.removeprefix("attention_"), pictures.png_uri(p.read_bytes())) for p in asked],
    }


def _panels(folder: Path, name: str, kind: str = "panels") -> list[str]:
    return [pictures.png_uri(p.read_bytes()) for p in sorted((folder / kind / name).glob("*.png"))[:MAX_PANELS]]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that a kill cut short is left out; an absent file is empty."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _median(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [r[key] for r in rows if _finite(r.get(key))]
    return statistics.median(values) if values else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
