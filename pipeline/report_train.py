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
    "mean_deg": ("mean angle", False, "{:.1f}°"),
    "median_deg": ("median angle", False, "{:.1f}°"),
    "within_11_25": ("within 11.25°", True, "{:.1%}"),
    "within_22_5": ("within 22.5°", True, "{:.1%}"),
    "within_30": ("within 30°", True, "{:.1%}"),
}
MAX_PANELS = 8


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
        columns = [
            k for k in METRICS if any(_finite(_flat(r).get(k)) for r in [entry["model"], *entry["trivial"].values()])
        ]
        rows = [("this model", entry["model"]), *((k.replace("_", " "), v) for k, v in entry["trivial"].items())]
        tables.append(
            {
                "name": name,
                "task": entry["task"],
                "samples": entry["samples"],
                "beats": bool(entry["beats_trivial"]),
                "columns": [METRICS[c][0] + (" ↑" if METRICS[c][1] else " ↓") for c in columns],
                "rows": _ranked(rows, columns),
                "panels": _panels(run / "evaluate", name),
                "panel_title": "Picture, ground truth, prediction",
            }
        )
    return tables


def _ranked(rows: list[tuple[str, dict[str, Any]]], columns: list[str]) -> list[dict[str, Any]]:
    """Rows with printed values; a value is marked best when no other row has a better one."""
    best = {}
    for column in columns:
        values = [_flat(r)[column] for _, r in rows if _finite(_flat(r).get(column))]
        best[column] = max(values) if METRICS[column][1] else min(values)
    return [
        {
            "name": name,
            "cells": [
                {
                    "text": METRICS[c][2].format(v) if _finite(v := _flat(row).get(c)) else "–",
                    "best": _finite(v) and v == best[c],
                }
                for c in columns
            ],
        }
        for name, row in rows
    ]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The per-image means of a predictor's metrics."""
    return row.get("per_image", row)


def _panels(folder: Path, name: str) -> list[str]:
    return [pictures.png_uri(p.read_bytes()) for p in sorted((folder / "panels" / name).glob("*.png"))[:MAX_PANELS]]


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
