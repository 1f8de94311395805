"""Decisions -> what lies near each threshold: the histogram of a rule's values with its line, and the pictures on either
side that a slightly other policy would have turned over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curation.stage import RULES
from pipeline import figures

# Rules whose values say nothing by degrees, or are looked at elsewhere.
NOT_SHOWN = {"read", "header", "decode", "dup_exact", "person", "head", "measured", "balance"}
LABELS = {
    "min_side": "shorter side, px", "aspect": "longer side over shorter", "blur": "variance of the Laplacian",
    "dark": "99th percentile of luma", "bright": "1st percentile of luma", "entropy": "bits", "border": "share that is frame",
    "score": "best score", "box_size": "largest sure box, px", "dup_near": "bits to its keeper", "text": "evidence of overlay",
    "drawn": "evidence of drawing", "tiled": "repetition", "watermark_source": "consensus of its site",
    "dup_semantic": "1 - cosine to the nearest", "yaw": "degrees", "pitch": "degrees",
}  # fmt: skip


def histograms(decisions: pa.Table) -> list[dict[str, str]]:
    """For each rule with a threshold and values: its name and a chart."""
    found = []
    for rule, value, _, threshold in _rules(decisions):
        found.append({"rule": rule, "chart": figures.against(value, threshold, LABELS.get(rule, rule))})
    return found


def lines(decisions: pa.Table, count: int) -> list[dict[str, Any]]:
    """For each rule that failed something: the ``count`` rows on either side of its threshold, nearest first."""
    found = []
    for rule, value, status, threshold in _rules(decisions):
        if not (status == "fail").any():
            continue
        away = np.abs(value - threshold)
        sides = {}
        for name, wanted in (("passed", "pass"), ("failed", "fail")):
            own = np.flatnonzero((status == wanted) & ~np.isnan(away))
            order = own[np.lexsort((own, away[own]))][:count]
            sides[name] = decisions.take(pa.array(order)).to_pylist()
            for row, v in zip(sides[name], value[order].tolist()):
                row["near"] = f"{rule} {v:.4g}"
        found.append({"rule": rule, "code": RULES[rule], "threshold": f"{threshold:g}"} | sides)
    return found


def _rules(decisions: pa.Table) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """(rule, measured (N,), status (N,), threshold) of each rule that has all three."""
    checks = decisions["checks"].combine_chunks()
    found = []
    for rule in RULES:
        if rule in NOT_SHOWN:
            continue
        check = checks.field(rule)
        threshold = next((t for t in check.field("threshold")[:1].to_pylist() if t is not None), None)
        value = check.field("measured").to_numpy(zero_copy_only=False).astype(float)
        if threshold is None or np.isnan(value).all():
            continue
        status = np.array(check.field("status").cast(pa.string()).to_pylist())
        found.append((rule, value, status, float(threshold)))
    return found
