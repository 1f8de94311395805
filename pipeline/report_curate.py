"""Decisions on photographs -> the funnel, with examples of each reason to refuse and of what was kept."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from manifests import view
from manifests.errors import PhotoError
from pipeline import pictures

TILE_PX = 168
# A report is no place to decode a bomb; larger files are named without their picture.
MAX_BYTES, MAX_PIXELS = 50_000_000, 50_000_000


def curate_section(folder: Path, examples: int) -> dict[str, Any] | None:
    """Everything the template's curation part needs, or None without decisions. ``examples``: pictures per reason."""
    rows = read_decisions(folder)
    if not rows:
        return None
    # Imported here: a run without photographs is reported where the curation extra is not installed.
    from curation.stage import funnel

    reasons: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        reasons["kept" if row["kept"] else row["first_fail"]].append(row)
    steps = [{"rule": rule, "in": n_in, "out": n_out, "share": n_out / len(rows)} for rule, n_in, n_out in funnel(rows)]
    kept = reasons.pop("kept", [])
    return {
        "inputs": len(rows),
        "kept": len(kept),
        "weak": any(r.get("weak") for r in rows),
        "steps": steps,
        "readings": _readings(rows, folder),
        "groups": [
            {"reason": name, "count": len(group), "tiles": [_tile(r) for r in group[:examples]]}
            for name, group in [("kept", kept), *sorted(reasons.items())]
            if group
        ],
    }


def _readings(rows: list[dict[str, Any]], folder: Path) -> list[tuple[str, int]]:
    """How many inputs pass under each reading of the box rule; empty where no detector gave a score."""
    from curation.stage import readings
    from manifests.job import load

    stage = load(folder.parent / "job.yaml").curate
    if stage is None or all(r["weak"] for r in rows):
        return []
    return list(readings(rows, stage).items())


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """All decision rows of a curate stage, in the order of the table; empty without one."""
    tables = sorted((folder / "decisions").glob("*.parquet"))
    return [row for path in tables[-1:] for row in pq.read_table(path).to_pylist()]


def _tile(row: dict[str, Any]) -> dict[str, Any]:
    name = row["uri"].rsplit("/", 1)[-1]
    return {"name": name, "picture": _picture(row), "measured": _measured(row)}


def _picture(row: dict[str, Any]) -> str | None:
    """A thumbnail with the boxes, or None for what cannot be decoded."""
    from manifests import photo

    path = Path(row["path"])
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    try:
        rgb, _ = photo.decode(path.read_bytes())
    except PhotoError:
        return None
    small = view.thumbnail(rgb, TILE_PX).copy()
    for box in row.get("boxes") or []:
        view.draw_box(small, np.asarray(box["xyxy"]) * small.shape[0] / rgb.shape[0], view.CLAY)
    return pictures.data_uri(small)


def _measured(row: dict[str, Any]) -> str:
    return (row.get("reasons") and ", ".join(row["reasons"])) or ""
