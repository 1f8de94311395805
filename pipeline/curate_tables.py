"""Decisions -> the tables of the curation report: sources, biases of what is kept, clusters, and what each step cost."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.scoring import wilson
from curation.stage import STEPS
from manifests.curation import PRESETS, Policy

MOST_SOURCES, MOST_CLUSTERS, MOST_GROUPS = 20, 24, 6


def kept_of(decisions: pa.Table) -> np.ndarray:
    """(N,) bool."""
    return np.asarray(decisions["kept"].to_numpy(zero_copy_only=False), bool)


def sources(decisions: pa.Table) -> list[dict[str, Any]]:
    """Each site: inputs, kept with its interval, the commonest reason, and the score of its watermark."""
    sites = np.array([s or u.split("/")[0] for s, u in zip(*(decisions[c].to_pylist() for c in ("site", "uri")))])
    kept, reasons = kept_of(decisions), np.array([r or "" for r in decisions["first_fail"].to_pylist()])
    stamps = decisions["watermark_source"].to_numpy()
    rows = []
    for site, count in Counter(sites.tolist()).most_common(MOST_SOURCES):
        own = sites == site
        why = Counter(r for r in reasons[own].tolist() if r).most_common(1)
        stamp = stamps[own][0]
        rows.append({"name": site, "inputs": count, "why": f"{why[0][0]} {why[0][1]:,}" if why else "",
                     "stamp": "too few" if np.isnan(stamp) else f"{stamp:.2f}"} | _rate(int(kept[own].sum()), count))  # fmt: skip
    return rows


def biases(decisions: pa.Table) -> list[dict[str, Any]]:
    """Kept rate by what a rule could prefer without saying so, over the inputs in which people were looked for."""
    seen = decisions.filter(decisions["boxes"].is_valid())
    if not len(seen):
        return []
    kept = kept_of(seen)
    boxes = [[b for b in row if b["score"] is None or b["score"] > 0.5] for row in seen["boxes"].to_pylist()]
    sides = np.array([max((min(_extent(b)) for b in row), default=0.0) for row in boxes])
    people = np.array([len(row) for row in boxes])
    cut = np.array([_cut(row, w, h) for row, w, h in zip(boxes, seen["width"].to_pylist(), seen["height"].to_pylist())])
    light = (seen["dark"].to_numpy() + seen["bright"].to_numpy()) / 2
    traits = [
        ("largest box, short side", _bands(sides, [1, 100, 200, 300, 500], "px"), people > 0),
        ("largest box", np.where(cut, "cut by the frame", "whole"), people > 0),
        ("people", np.array([str(min(c, 4)) + ("+" if c >= 4 else "") for c in people]), people >= 0),
        ("brightness, middle of luma", _bands(light, [0, 90, 120, 150], ""), ~np.isnan(light)),
    ]
    rows = []
    for trait, groups, use in traits:
        for group in sorted(set(groups[use].tolist()), key=lambda g: (len(g.split()[0]), g)):
            own = use & (groups == group)
            rows.append(
                {"trait": trait, "name": group, "inputs": int(own.sum())} | _rate(int(kept[own].sum()), int(own.sum()))
            )
    return rows


def clusters(decisions: pa.Table) -> dict[str, Any] | None:
    """Sizes of the coarsest clusters before and after, the largest first; None without an embedding."""
    path = decisions["cluster_path"].to_pylist()
    top = [p.split("/")[0] for p in path if p is not None]
    if not top:
        return None
    kept = kept_of(decisions)
    after = Counter(p.split("/")[0] for p, k in zip(path, kept) if p is not None and k)
    weight = Counter()  # type: ignore[var-annotated]
    for p, w in zip(path, decisions["sampling_weight"].to_pylist()):
        if p is not None and w is not None:
            weight[p.split("/")[0]] += w
    total = sum(weight.values()) or 1.0
    before = Counter(top)
    rows = [{"name": n, "before": c, "after": after[n], "share": f"{100 * weight[n] / total:.1f} %"}
            for n, c in before.most_common(MOST_CLUSTERS)]  # fmt: skip
    leaves = len({p for p in path if p is not None})
    return {"rows": rows, "count": len(before), "leaves": leaves, "most": max(before.values())}


def costs(decisions: pa.Table) -> list[dict[str, str]]:
    """Each step: median milliseconds, inputs that got there, and pictures per second of one core at that price."""
    steps, found = decisions["ms"].combine_chunks(), []
    for name in STEPS:
        values = steps.field(name).drop_null()
        if len(values):
            mean = pc.mean(values).as_py()
            found.append({"step": name, "ms": f"{pc.quantile(values, 0.5)[0].as_py():.2f}", "inputs": f"{len(values):,}",
                          "rate": f"{1e3 / mean:,.0f}" if mean else ""})  # fmt: skip
    return found


def thresholds(policy: Policy) -> list[dict[str, str]]:
    """Every threshold of the job's preset with its source, and the job's own value where it differs; empty without one."""
    if policy.preset is None:
        return []
    rows = []
    for name, rule in PRESETS[policy.preset].items():
        value = getattr(policy, name)
        source = rule.source if value == rule.value else f"the job; the preset has {_said(rule.value)}"
        rows.append({"name": name, "value": _said(value), "source": source})
    return rows


def groups(decisions: pa.Table) -> list[list[dict[str, Any]]]:
    """The largest groups of duplicates, each its rows with the one that stays first."""
    names = decisions["dup_group"].to_pylist()
    largest = [n for n, _ in Counter(n for n in names if n).most_common(MOST_GROUPS)]
    found = []
    for name in largest:
        rows = decisions.filter(pc.equal(decisions["dup_group"], name)).to_pylist()
        found.append(sorted(rows, key=lambda r: (r["dup_of"] is not None, r["uri"])))
    return found


def audited(folder: Path) -> list[dict[str, Any]]:
    """Precision of each reason as people labelled it; empty where no labels were read back."""
    import json

    path = folder / "audit.json"
    return json.loads(path.read_text())["reasons"] if path.is_file() else []


def _rate(hits: int, n: int) -> dict[str, Any]:
    rate, low, high = wilson(hits, n)
    return {
        "kept": hits,
        "rate": f"{100 * rate:.1f} %" if n else "",
        "interval": f"{100 * low:.0f} to {100 * high:.0f}",
    }


def _bands(value: np.ndarray, edges: list[float], unit: str) -> np.ndarray:
    names = [f"{int(a)} to {int(b)} {unit}".strip() for a, b in itertools.pairwise(edges)]
    names.append(f"{int(edges[-1])} {unit} and more".replace("  ", " "))
    return np.array([names[max(0, int(np.searchsorted(edges, v, "right")) - 1)] if v == v else "" for v in value])


def _extent(box: dict[str, Any]) -> tuple[float, float]:
    x0, y0, x1, y1 = box["xyxy"]
    return x1 - x0, y1 - y0


def _cut(boxes: list[dict[str, Any]], width: int, height: int) -> bool:
    """Whether the largest box touches the frame to within half a percent."""
    if not boxes:
        return False
    x0, y0, x1, y1 = max(boxes, key=lambda b: min(_extent(b)))["xyxy"]
    edge = 0.005 * max(width, height)
    return x0 <= edge or y0 <= edge or x1 >= width - edge or y1 >= height - edge


def _said(value: Any) -> str:
    return "off" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
