"""A run folder -> report/index.html: one page that carries its own pictures; what the run lacks is left out."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from manifests import commit
from manifests.errors import InputError, StorageError
from manifests.job import Job, RenderStage, ReportStage, load
from pipeline import figures, progress
from pipeline.report_curate import curate_section
from pipeline.report_render import render_section, rights_table
from pipeline.report_sweep import sweep_section
from pipeline.report_train import looks_section, metrics_section, read_jsonl, training_section

HERE = Path(__file__).parent
SECTIONS = (
    ("renders", "Renders", "render"),
    ("distributions", "Distributions", "render"),
    ("trust", "Ground truth and throughput", "render"),
    ("curation", "Curation", "curate"),
    ("training", "Training", "training"),
    ("evaluation", "Evaluation", "metrics"),
    ("looks", "What it looks at", "looks"),
    ("scaling", "Scaling", "scaling"),
    ("rights", "Rights", "rights"),
    ("biases", "Biases", "biases"),
    ("warnings", "Warnings", "warnings"),
    ("job", "Job", "job"),
)


def build(run: Path) -> Path:
    """Write ``run``/report/index.html from what lies in the run folder and return its path.

    Raises InputError (no job.yaml), ShardError (a receipt or shard is damaged), StorageError (cannot write).
    """
    run = Path(run)
    if not (run / "job.yaml").is_file():
        raise InputError(f"{run}: no job.yaml here; give a run folder, such as runs/quickstart")
    content = gather(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(content)
    path = run / "report" / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise StorageError(f"report {path}: {error.strerror}; free space or check the permissions of {run}") from None
    return path


def gather(run: Path) -> dict[str, Any]:
    """Everything the template prints, by section; a section without data is None or empty."""
    job = load(run / "job.yaml")
    settings = job.report or ReportStage()
    events = read_jsonl(run / "events.jsonl")
    folders = [run / s for s in ("render", "curate") if commit.newest_manifest(run / s) is not None]
    content: dict[str, Any] = {
        "name": job.name,
        "version": importlib.metadata.version("maquette"),
        "css": (HERE / "report.css").read_text(),
        "job": (run / "job.yaml").read_text(),
        "when": _moment(events),
        "stages": _stage_times(events),
        "limit": _limit(job),
        "warnings": sorted({e["message"] for e in events if e.get("event") == "warning"}),
        "render": render_section(run / "render", job.render or RenderStage(), settings.samples),
        "curate": curate_section(run / "curate", settings.rejected),
        "training": training_section(run),
        "metrics": metrics_section(run),
        "scaling": sweep_section(run),
        "looks": looks_section(run),
        "rights": rights_table(folders),
    }
    content["biases"] = _biases(content)
    content["summary"] = _summary(content, events)
    content["contents"] = [(anchor, title) for anchor, title, key in SECTIONS if _shown(anchor, content[key])]
    return content


def _shown(anchor: str, section: Any) -> bool:
    if anchor in ("renders", "distributions"):
        return bool(section and section["rows"])
    return bool(section)


def _moment(events: list[dict[str, Any]]) -> str:
    """The time of the last event, UTC: not the clock's, so that the page can be built twice alike."""
    if not events:
        return ""
    return time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime(events[-1]["time"]))


def _stage_times(events: list[dict[str, Any]]) -> str | None:
    """Chart of the seconds that each stage took, all its resumptions together."""
    total: dict[str, float] = {}
    for event in events:
        if event.get("event") == "stage_finished" and event.get("seconds"):
            total[event["stage"]] = round(total.get(event["stage"], 0.0) + event["seconds"], 1)
    return figures.bars(total, "seconds") if total else None


def _limit(job: Job) -> dict[str, float] | None:
    if job.render is None:
        return None
    limits = job.render.verify_limits
    return {"share": limits.opaque_share, "strand_share": limits.strand_share, "tolerance_m": limits.tolerance_m}


def _summary(content: Mapping[str, Any], events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The row of figures at the top: (value, what it counts)."""
    facts: list[tuple[str, str]] = []
    render, curate = content["render"], content["curate"]
    if render and render["rows"]:
        facts.append((f"{render['rows']:,}", "rendered samples"))
        facts.append((f"{render['identities']:,}", "identities"))
        if render["outcomes"]["median_s"] is not None:
            facts.append((f"{render['outcomes']['median_s']:.1f} s", "per sample, median"))
        if render["agreement"]:
            facts.append(
                (f"{100 * render['agreement']['min']:.3f} %", "lowest agreement of the two engines, strands apart")
            )
    if render:
        status = render["outcomes"]["status"]
        facts.append((str(status.get("rejected", 0) + status.get("failed", 0)), "samples rejected or failed"))
    if curate:
        facts.append((f"{curate['kept']} of {curate['inputs']}", "photographs kept"))
    if content["metrics"]:
        won = sum(m["beats"] for m in content["metrics"])
        facts.append((f"{won} of {len(content['metrics'])}", "models beat the trivial predictors"))
    finished = [e for e in events if e.get("event") == "run_finished"]
    if finished:
        facts.append((progress.seconds(finished[-1]["seconds"]), "the last run of the command"))
    return facts


def _biases(content: Mapping[str, Any]) -> list[str]:
    """What a user of the data should know about who and what is in it; only of parts that this run has."""
    lines = []
    render, curate = content["render"], content["curate"]
    if render and render["rows"]:
        lines.append(
            f"The renders show {render['identities']} identities under {render['environments']} environments: a model "
            "can learn these faces, clothes and rooms by heart. Held-out results are on held-out identities, but not "
            "on held-out environments."
        )
        if any(r["source"].startswith("anny") for r in content["rights"]):
            lines.append(
                "Parametric people's traits, clothes and accessories are drawn from the job's shares, not sampled from a "
                "population. Results on photographs will differ from those on these renders."
            )
    if curate and curate["weak"]:
        lines.append(
            "The weak face cascade finds upright, frontal, well-lit faces best and misses dark skin, profiles and "
            "covered faces more often: the kept photographs lean that way. Use a scored detector beyond a trial."
        )
    if curate and curate["inputs"] < 100:
        lines.append(f"{curate['inputs']} photographs are an exercise of the pipeline, not a corpus.")
    return lines
