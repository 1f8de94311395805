"""A run's sweep.json -> the report's section on scaling: the laws drawn, their numbers, and what was paid."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from pipeline import figures
from pipeline.report_train import METRICS


def sweep_section(run: Path) -> dict[str, Any] | None:
    """Charts and tables of ``run``/sweep/sweep.json; None where there is none."""
    path = run / "sweep" / "sweep.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    if not found["points"]:
        return None
    label, _, form = METRICS.get(found["metric"], (found["metric"], False, "{:.4g}"))
    charts = []
    for source in sorted({p["source"] for p in found["points"]}):
        series = {}
        for model in sorted({p["model"] for p in found["points"] if p["source"] == source}):
            mine = [p for p in found["points"] if (p["source"], p["model"]) == (source, model)]
            law = next((w for w in found["laws"] if (w["source"], w["model"]) == (source, model)), None)
            series[model] = ([(p["samples"], p["error"]) for p in mine], law)
        charts.append({"title": source, "svg": figures.laws(series, "training samples", label)})
    return {
        "metric": label,
        "planned": found["planned"],
        "done": len(found["points"]),
        "charts": charts,
        "laws": [_law(w, form) for w in found["laws"]],
        "joint": [
            {"source": s, "n": f"{-w['exponent']:+.3f}", "p": f"{-w['by_parameters']:+.3f}"}
            for s, w in found["joint"].items()
        ],
        "costs": _costs(found["points"], form),
        "power": found["power"],
        "total": {k: sum(p[k] for p in found["points"]) for k in ("cpu_h", "gpu_h", "energy_wh")},
    }


def _law(law: dict[str, Any], form: str) -> dict[str, str]:
    def span(name: str, digits: str) -> str:
        interval = law["intervals"][name]
        return f"{digits.format(interval[0])} to {digits.format(interval[1])}" if interval else "–"

    return {
        "source": law["source"],
        "model": law["model"],
        "parameters": f"{law['parameters'] / 1e6:.1f} M",
        "exponent": f"{law['exponent']:.3f}",
        "exponent_span": span("exponent", "{:.3f}"),
        "scale": f"{law['scale']:.3g}",
        "scale_span": span("scale", "{:.3g}"),
        "floor": form.format(law["floor"]) if law["intervals"]["floor"] or law["floor"] else "not fitted",
        "explained": f"{law['explained']:.2f}",
    }


def _costs(points: list[dict[str, Any]], form: str) -> list[dict[str, str]]:
    """One row for each source, model and size: means over seeds."""
    rows = []
    for key in sorted({(p["source"], p["model"], p["samples"]) for p in points}):
        mine = [p for p in points if (p["source"], p["model"], p["samples"]) == key]

        def mean(name: str, mine: list[dict[str, Any]] = mine) -> float:
            return statistics.fmean(p[name] for p in mine)

        errors = [p["error"] for p in mine]
        rows.append(
            {
                "source": key[0], "model": key[1], "samples": f"{key[2]:,}", "seeds": str(len(mine)),
                "error": form.format(statistics.fmean(errors)),
                "spread": form.format(statistics.stdev(errors)) if len(errors) > 1 else "–",
                "cpu_h": f"{mean('cpu_h'):.3g}", "gpu_h": f"{mean('gpu_h'):.3g}", "energy": f"{mean('energy_wh'):.3g}",
                "cpu_each": f"{mean('cpu_s_per_thousand'):.3g}", "gpu_each": f"{mean('gpu_s_per_thousand'):.3g}",
                "energy_each": f"{mean('energy_wh_per_thousand'):.3g}",
            }
        )  # fmt: skip
    return rows
