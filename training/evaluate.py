"""Fine-tuned models and held-out samples -> measures beside those of the trivial predictors, and panels for the report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError
from training import checkpoint, data, looks, panels, summary, team
from training.finetune import built
from training.heads import DenseModel, OneTask
from training.judges import KINDS, Pool, foreground, predict
from training.settings import Evaluate, Finetune, folders, read
from training.trivial import trivial_predictors

PANELS = 8
WORST = 4


def evaluate(run: Path, settings: Evaluate, finetunes: list[Finetune]) -> Path:
    """Judge every fine-tune on ``settings.split`` at native resolution; writes ``run``/evaluate/NAME.parquet, a row for each
    picture, and returns ``run``/evaluate/metrics.json.
    """
    folder = run / "evaluate"
    (folder / "panels").mkdir(parents=True, exist_ok=True)
    rows = data.Rows(folders(run, settings.data), settings.split)
    result: dict[str, Any] = {}
    judged = []
    for f in finetunes:
        model = loaded(run, f)
        result |= judge(run, f, model, settings, rows)
        judged.append((f, model))
    looks.draw(run, read(run)["pretrain"], judged, rows)
    path = folder / "metrics.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(result, indent=1))
    os.replace(fresh, path)
    return path


def loaded(run: Path, settings: Finetune) -> DenseModel:
    """The fine-tuned model, ready to be judged."""
    model = built(settings)
    checkpoint.load_weights(run / "finetune" / settings.name / "model.safetensors", model)
    return model.to(team.device_for(settings.compute)).eval()


def judge(run: Path, settings: Finetune, model: DenseModel, how: Evaluate, rows: data.Rows) -> dict[str, Any]:
    """One fine-tune: an entry for its task under its name, and for each further task under NAME-TASK."""
    found = {settings.name: judge_task(run, settings.name, model, settings, how, rows)}
    for task in settings.also:
        name = f"{settings.name}-{task}"
        found[name] = judge_task(run, name, OneTask(model, task).eval(), settings, how, rows)
    return found


def judge_task(
    run: Path, name: str, model: DenseModel | OneTask, settings: Finetune, how: Evaluate, rows: data.Rows
) -> dict[str, Any]:
    """One task: the model's and the trivial predictors' measures, per picture, pooled, with intervals, and by trait.

    Raises InputError when no picture has the task's labels.
    """
    task, kind = model.task, KINDS[model.task]
    trivial = trivial_predictors(task, data.Rows(folders(run, how.data), "train"))
    found: dict[str, list[dict[str, float]]] = {k: [] for k in ("model", *trivial)}
    pools = {k: kind.pool(task) for k in found}
    known: list[dict[str, Any]] = []
    traits, places = [], []
    for i in range(len(rows)):
        _, row = rows[i]
        if not kind.judged(row, task):
            continue
        predicted = predict(model, row, settings)
        for who, guess in {"model": predicted, **{k: f(row) for k, f in trivial.items()}}.items():
            found[who].append(kind.measures(guess, row, task, how.alignment))
            pools[who].add(guess, row)
        person = row["people"][0]["asset_id"] if row["people"] else ""
        height, width = row["camera"]["height"], row["camera"]["width"]
        pixels = height * width if task == "foreground" else int(foreground(row).sum())
        known.append({"sample_id": row["sample_id"], "asset": person, "pixels": pixels})
        places.append(i)
        traits.append(summary.traits_of(row))
        if len(known) <= PANELS:
            panels.draw(run / "evaluate/panels" / name / f"{len(known) - 1:02d}.png", row, predicted, task)
    if not known:
        raise InputError(
            f"evaluate {name}: no picture of split {how.split} has labels for {task}; take it out of the job"
        )
    write_rows(run / "evaluate" / f"{name}.parquet", known, traits, found)
    worst = np.argsort([-m[kind.headline] for m in found["model"]], kind="stable")[:WORST]
    for rank, at in enumerate(worst):
        row = rows[places[at]][1]
        panels.draw(run / "evaluate/worst" / name / f"{rank:02d}.png", row, predict(model, row, settings), task)
    return report(task, how, known, traits, found, pools)


def report(
    task: str,
    how: Evaluate,
    known: list[dict[str, Any]],
    traits: list[dict[str, str]],
    found: dict[str, list[dict[str, float]]],
    pools: dict[str, Pool],
) -> dict[str, Any]:
    """The entry of metrics.json."""
    people, pixels = [k["asset"] for k in known], [k["pixels"] for k in known]
    headline = KINDS[task].headline
    entries: dict[str, dict[str, Any]] = {}
    for name, measured in found.items():
        spans = {
            k: summary.interval(np.array([m[k] for m in measured]), people, how.bootstrap, how.seed)
            for k in measured[0]
        }
        entries[name] = {
            "per_image": summary.means(measured),
            "pooled": summary.pooled(measured, pixels) | pools[name].result(),
            "interval": spans,
        }
    mine = np.array([m[headline] for m in found["model"]])
    others = {k: np.array([m[headline] for m in v]) for k, v in found.items() if k != "model"}
    best = min(others, key=lambda k: others[k].mean())
    return {
        "task": task,
        "headline": headline,
        "alignment": how.alignment if task == "depth" else "none",
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
