"""Decisions on photographs -> the funnel, with examples of each reason to refuse and of what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import view
from manifests.errors import PhotoError, StorageError
from pipeline import near, pictures

TILE_PX = 168
# A report is no place to decode a bomb; larger files are named without their picture.
MAX_BYTES, MAX_PIXELS = 50_000_000, 50_000_000
# Fainter boxes would cover the picture.
SHOWN_SCORE = 0.3


def curate_section(folder: Path, examples: int) -> dict[str, Any] | None:
    """Everything the template's curation part needs, or None without decisions. ``examples``: pictures per reason."""
    table = read_decisions(folder)
    if table is None or not len(table):
        return None
    # Imported here: a run without photographs is reported where the curation extra is not installed.
    from curation.decide import funnel
    from curation.rules import absent
    from curation.stage import RULES
    from manifests.job import load
    from pipeline import curate_tables as tables
    from pipeline.flow import sankey

    n = len(table)
    stage = load(folder.parent / "job.yaml").curate
    passed = funnel(table)
    without = absent(table)
    steps = [
        {
            "rule": rule,
            "in": n_in,
            "out": n_out,
            "share": n_out / n,
            "threshold": _threshold(table, rule),
            "skipped": without.get(rule, ""),
        }
        for rule, n_in, n_out in passed
        if n_in != n_out or rule in without
    ]
    counts = {c["values"]: c["counts"] for c in pc.value_counts(table["first_fail"]).to_pylist()}
    kept = counts.pop(None, 0)
    groups = [("kept", kept), *sorted((k, c) for k, c in counts.items())]
    return {
        "inputs": n,
        "kept": kept,
        "weak": bool(pc.any(table["weak"]).as_py()),
        "calibrated": bool(pc.any(table["calibrated"]).as_py()),
        "detector": table["detector"][0].as_py(),
        "duplicates": pc.count_distinct(table["dup_group"].drop_null()).as_py(),
        "steps": steps,
        "sankey": sankey([(RULES[rule], n_in, n_out) for rule, n_in, n_out in passed]),
        "histograms": near.histograms(table),
        "near": [
            line | {t: [tile(r) for r in line[t]] for t in ("passed", "failed")} for line in near.lines(table, examples)
        ],
        "readings": _readings(table, folder),
        "costs": tables.costs(table),
        "sources": tables.sources(table),
        "biases": tables.biases(table),
        "clusters": tables.clusters(table),
        "thresholds": tables.thresholds(stage) if stage else [],
        "copies": [[tile(r) for r in rows[:8]] for rows in tables.groups(table)],
        "audit": tables.audited(folder),
        "groups": [
            {"reason": name, "count": count, "tiles": [tile(r) for r in _examples(table, name, examples)]}
            for name, count in groups
            if count
        ],
    }


def _threshold(table: pa.Table, rule: str) -> str:
    value = table["checks"].chunk(0).field(rule).field("threshold")[0].as_py() if table["checks"].num_chunks else None
    return "" if value is None else f"{value:g}"


def _examples(table: pa.Table, reason: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a reason, in order of uri."""
    mask = table["kept"] if reason == "kept" else pc.equal(table["first_fail"], reason)
    rows: list[dict[str, Any]] = table.filter(pc.fill_null(mask, False)).slice(0, count).to_pylist()
    return rows


def _readings(table: pa.Table, folder: Path) -> list[dict[str, Any]]:
    """How many inputs pass under each reading of the box rule, by calibrated and by raw score; empty where no detector
    gave a score.
    """
    from curation.decide import readings
    from manifests.job import load

    stage = load(folder.parent / "job.yaml").curate
    if stage is None or pc.all(table["weak"]).as_py():
        return []
    found = readings(table, stage)
    return [
        {
            "rule": rule,
            "limit": f"{stage.min_box_px:g}",
            "counts": {kind: counts[rule] for kind, counts in found.items()},
        }
        for rule in next(iter(found.values()))
    ]


def read_decisions(folder: Path) -> pa.Table | None:
    """All decisions of a curate stage, in order of uri; None without them."""
    path = folder / "decisions" / "decisions.parquet"
    return pq.read_table(path).combine_chunks() if path.is_file() else None


def tile(row: dict[str, Any]) -> dict[str, Any]:
    """Name, picture as data URI (None where it cannot be decoded) and what was measured of one decision row."""
    name = row["uri"].rsplit("/", 1)[-1]
    return {"name": name, "picture": _picture(row), "measured": row.get("near") or _measured(row)}


def _picture(row: dict[str, Any]) -> str | None:
    """A thumbnail with the boxes, or None for what cannot be decoded."""
    from curation.reading import read
    from manifests import photo

    try:
        data, _ = read({**row, "meta": None, "meta_offset": 0, "meta_length": 0})
        rgb, _ = photo.decode(data, MAX_PIXELS, MAX_BYTES)
    except (PhotoError, StorageError):
        return None
    small = view.thumbnail(rgb, TILE_PX).copy()
    for box in row.get("boxes") or []:
        if box["score"] is None or box["score"] > SHOWN_SCORE:
            view.draw_box(small, np.asarray(box["xyxy"]) * small.shape[0] / rgb.shape[0], view.CLAY)
    return pictures.data_uri(small)


def _measured(row: dict[str, Any]) -> str:
    """What a person would ask of one photograph: all its reasons, the measured values of the first, and its twin."""
    if row["kept"]:
        best = max((b["score"] for b in row["boxes"] or [] if b["score"] is not None), default=None)
        return "" if best is None else f"score {best:.2f}"
    parts = [", ".join(row["reasons"])]
    if row["dup_of"]:
        bits = f", {row['dup_distance']} bits" if row["dup_distance"] is not None else ""
        parts.append(f"like {row['dup_of'].rsplit('/', 1)[-1]}{bits}")
    failed = next((c for c in row["checks"].values() if c["status"] == "fail" and c["measured"] is not None), None)
    if failed and failed["threshold"] is not None:
        parts.append(f"{failed['measured']:.3g} against {failed['threshold']:g}")
    elif row["error_detail"]:
        parts.append(row["error_detail"])
    return "; ".join(parts)
