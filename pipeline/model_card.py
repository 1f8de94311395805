"""A run folder and a checkpoint of it -> what others must know of the model: rights of its data, measures, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from manifests import commit
from manifests.errors import InputError
from pipeline.report_render import rights_table
from pipeline.report_train import METRICS, read_jsonl

HUB_TASKS = {"depth": "depth-estimation", "foreground": "image-segmentation", "parts": "image-segmentation"}


def run_of(checkpoint: Path) -> Path:
    """The run folder that ``checkpoint`` lies in. Raises InputError: without it the rights of its data are not known."""
    for folder in checkpoint.resolve().parents:
        if (folder / "job.yaml").is_file():
            return folder
    raise InputError(
        f"checkpoint {checkpoint}: no job.yaml in the folders above it, so that nobody knows the rights of its data; give "
        "the checkpoint within its run folder, or --run"
    )


def data_of(run: Path, checkpoint: Path) -> list[Path]:
    """Dataset folders that the model has seen, its pre-training's among them. Raises InputError where one is gone."""
    tree = yaml.safe_load((run / "job.yaml").read_text())
    named = checkpoint.resolve().parent.name
    sections = [s for s in tree.get("finetune") or [] if s["name"] == named]
    pretrained = checkpoint.resolve().parent == (run / "pretrain").resolve()
    if pretrained or any(s["init"] == "pretrain" for s in sections):
        sections.append(tree["pretrain"])
    if not sections:
        raise InputError(
            f"{run / 'job.yaml'}: knows no training called {named}; give the run that {checkpoint} is from"
        )
    found = {str(run / d if d in ("render", "curate") else Path(d)): None for s in sections for d in s["data"]}
    for folder in found:
        if commit.newest_manifest(Path(folder)) is None:
            raise InputError(f"{folder}: a dataset that the model was trained on, gone; its rights cannot be told")
    return [Path(f) for f in found]


def started_from(run: Path, checkpoint: Path) -> str | None:
    """Weights from elsewhere that the training began with, or None."""
    tree = yaml.safe_load((run / "job.yaml").read_text())
    for section in tree.get("finetune") or []:
        if section["name"] == checkpoint.resolve().parent.name and section["init"] not in ("pretrain", "random"):
            return str(section["init"])
    return None


def card(run: Path, checkpoint: Path, about: dict[str, Any]) -> str:
    """The text of README.md. ``about``: `title`, `task`, `input`, `output`, `files` (name -> what it is), `parameters`, and
    `licence`, what its maker says, or None.
    """
    folders = data_of(run, checkpoint)
    rights = rights_table(folders)
    named = checkpoint.resolve().parent.name
    measured = _measured(run, named)
    head = {
        "license": (about["licence"] or "other").lower(),
        "tags": ["human", "maquette", about["task"]],
        **({"pipeline_tag": HUB_TASKS[about["task"]]} if about["task"] in HUB_TASKS else {}),
        **({"model-index": [_index(about, measured)]} if measured else {}),
    }
    start = started_from(run, checkpoint)
    return "\n".join(
        (
            "---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "",
            f"# {about['title']}", "",
            f"{about['parameters']:,} parameters; task: {about['task']}. Trained with Maquette.", "",
            "## Use", "", about["input"], "", about["output"], "",
            *(f"- `{name}`: {what}" for name, what in about["files"].items()), "",
            "## Data and its rights", "",
            f"Trained on {sum(_rows(f) for f in folders):,} rows of {len(folders)} dataset(s). "
            + ("Rows that may not be redistributed are among them: whether a model of them may be passed on is for "
               "whoever passes it on to judge." if any(not r["redistributable"] for r in rights)
               else "Every row may be redistributed."), "",
            *([f"It began from weights of others, `{start}`: their licence holds too.", ""] if start else []),
            "| source | licence | consent | redistributable | ids | rows |", "|---|---|---|---|---|---|",
            *(f"| {_cell(r['source'])} | {_cell(r['licence'])} | {_cell(r['consent'])} | "
              f"{'yes' if r['redistributable'] else 'no'} | {r['ids']} | {r['rows']} |" for r in rights), "",
            *_measures(measured),
            *_training(run, checkpoint),
            "## Limits", "",
            "It has seen the people, clothes and light of the data above and no others. Measures are on held-out people of the "
            "same kind of data; on photographs they will differ. It is not meant for telling who somebody is.", "",
        )
    )  # fmt: skip


def rights_of(run: Path, checkpoint: Path) -> list[dict[str, Any]]:
    """The rows of the card's table, for machines."""
    return rights_table(data_of(run, checkpoint))


def _rows(folder: Path) -> int:
    manifest = commit.newest_manifest(folder)
    assert manifest is not None
    return int(manifest["rows"])


def _measured(run: Path, name: str) -> dict[str, Any] | None:
    path = run / "evaluate" / "metrics.json"
    return json.loads(path.read_text()).get(name) if path.is_file() else None


def _index(about: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The Hub's own form of results."""
    metrics = [
        {"type": k, "name": METRICS[k][0] if k in METRICS else k, "value": float(v), **_span(entry, k)}
        for k, v in entry["model"]["per_image"].items()
    ]
    data = {"name": f"held-out people of the {entry['split']} split", "type": "maquette"}
    return {"name": about["title"], "results": [{"task": {"type": about["task"]}, "dataset": data, "metrics": metrics}]}


def _span(entry: dict[str, Any], metric: str) -> dict[str, Any]:
    span = entry["model"]["interval"].get(metric)
    return {"args": {"interval_95": [float(v) for v in span]}} if span else {}


def _measures(entry: dict[str, Any] | None) -> list[str]:
    if entry is None:
        return ["## Measures", "", "Not evaluated.", ""]
    best = entry["best_trivial"]
    lines = [
        "## Measures", "",
        f"{entry['samples']} pictures of {entry['identities']} held-out people ({entry['split']} split); alignment: "
        f"{entry['alignment']}. Intervals: 95 %, people resampled. Beside it: {best}, which looks at nothing.", "",
        f"| measure | mean over pictures | 95 % interval | over all pixels | {best} |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, value in entry["model"]["per_image"].items():
        label, _, form = METRICS.get(name, (name, False, "{:.4g}"))
        span, pooled = entry["model"]["interval"].get(name), entry["model"]["pooled"].get(name)
        cells = (
            label, form.format(value), f"{form.format(span[0])} to {form.format(span[1])}" if span else "too few people",
            form.format(pooled) if pooled is not None else "", form.format(entry["trivial"][best]["per_image"][name]),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    groups = [g for g in entry["breakdown"] if g["interval"]]
    if groups:
        form = METRICS.get(entry["headline"], ("", False, "{:.4g}"))[2].format
        lines += ["", f"By group ({entry['headline']}):", "", "| trait | group | people | mean | 95 % interval |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {g['trait']} | {g['group']} | {g['identities']} | {form(g['mean'])} | {form(g['interval'][0])} to "
            f"{form(g['interval'][1])} |"
            for g in groups
        ]
    return [*lines, ""]


def _training(run: Path, checkpoint: Path) -> list[str]:
    rows = read_jsonl(checkpoint.resolve().parent / "metrics.jsonl")
    if not rows:
        return []
    steps = {r["step"]: r for r in rows}
    last = steps[max(steps)]
    return ["## Training", "", f"{last['step'] + 1:,} steps, last loss {last['loss']:.4g}. The job that made it is in "
            "`job.yaml`.", ""]  # fmt: skip


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
