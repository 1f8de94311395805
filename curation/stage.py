"""Measurements -> one decision row for every input, kept or dropped, with each rule's measured value and threshold. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from curation import dedup
from manifests.job import CurateStage
from manifests.sample import BOX

RULES = ("readable", "dup_exact", "min_side", "dup_near", "person", "score", "box_size")
READINGS = ("both", "height", "max_side", "sqrt_area")
MEASUREMENTS = pa.schema(
    [
        ("uri", pa.string()),
        ("path", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("redistributable", pa.bool_()),
        ("detector", pa.string()),
        ("detector_sha256", pa.string()),
        ("weak", pa.bool_()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int32()),
        ("phash", pa.binary()),
        ("phash_mirrored", pa.binary()),
        ("boxes", pa.list_(BOX)),
        ("error", pa.string()),
        ("error_detail", pa.string()),
        ("ms", pa.float64()),
    ]
)
CHECK = pa.struct(
    [("rule", pa.string()), ("status", pa.string()), ("measured", pa.string()), ("threshold", pa.string())]
)
DECISIONS = pa.schema(
    [
        *[f for f in MEASUREMENTS if f.name not in ("phash_mirrored", "ms")],
        ("kept", pa.bool_()),
        ("first_fail", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("checks", pa.list_(CHECK)),
        ("dup_of", pa.string()),
        ("dup_distance", pa.int32()),
    ]
)


def side(xyxy: list[float], rule: str) -> float:
    """The size of a box in px under one reading of "box > 300 px": both (the shorter side), height, max_side, sqrt_area."""
    w, h = xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]
    return {"both": min(w, h), "height": h, "max_side": max(w, h), "sqrt_area": (w * h) ** 0.5}[rule]


def decide(rows: list[dict[str, Any]], stage: CurateStage) -> list[dict[str, Any]]:
    """A decision for every measurement, in order of uri: the same whatever order they come in.

    Score and size must hold for the same box; thresholds are strict. A weak detector's boxes have no score and pass only
    under ``accept_weak``.
    """
    rows = sorted(rows, key=lambda r: r["uri"])
    copies = dedup.exact(rows)
    large = [min(r["width"], r["height"]) >= stage.min_side_px if r["width"] else False for r in rows]
    candidates = [i for i, r in enumerate(rows) if r["error"] is None and i not in copies and large[i]]
    twins = dedup.near([rows[i] for i in candidates], stage.duplicate_distance)
    near = {candidates[i]: (candidates[best], bits) for i, (best, bits) in twins.items()}
    decided = []
    for i, row in enumerate(rows):
        checks = [_check("readable", row["error"] is None, row["error"] or "yes", row["error_detail"] or "")]
        original = copies.get(i)
        checks.append(
            _check("dup_exact", original is None, rows[original]["uri"] if original is not None else "", "same sha256")
        )
        if row["error"] is None:
            checks.append(
                _check("min_side", large[i], f"{min(row['width'], row['height'])} px", f">= {stage.min_side_px} px")
            )
            twin = near.get(i)
            shown = f"{twin[1]} bits from {rows[twin[0]]['uri']}" if twin else "none near"
            checks.append(_check("dup_near", twin is None, shown, f"<= {stage.duplicate_distance} bits"))
            checks += _person(row, stage)
        failed = [c["rule"] for c in checks if c["status"] == "fail"]
        keeper = original if original is not None else near.get(i, (None,))[0]
        decided.append(
            {k: row[k] for k in DECISIONS.names if k in row}
            | {
                "kept": not failed,
                "first_fail": code(failed[0], row) if failed else None,
                "reasons": [code(f, row) for f in failed],
                "checks": checks,
                "dup_of": rows[keeper]["uri"] if keeper is not None else None,
                "dup_distance": near[i][1] if i in near else None,
            }
        )
    return decided


def code(rule: str, row: dict[str, Any]) -> str:
    """The reason code of a failed rule."""
    names = {
        "readable": row["error"],
        "min_side": "too_small",
        "person": "no_person",
        "score": "low_score",
        "box_size": "small_box",
    }
    return names.get(rule, rule)


def passing(boxes: list[dict[str, Any]], stage: CurateStage, weak: bool) -> list[dict[str, Any]]:
    """The boxes that hold the score rule (or come from an accepted weak detector)."""
    if weak:
        return boxes if stage.accept_weak else []
    return [b for b in boxes if b["score"] is not None and b["score"] > stage.min_score]


def _person(row: dict[str, Any], stage: CurateStage) -> list[dict[str, str]]:
    boxes = row["boxes"]
    checks = [_check("person", bool(boxes), f"{len(boxes)} boxes", ">= 1" + (", weak detector" if row["weak"] else ""))]
    confident = passing(boxes, stage, row["weak"])
    if row["weak"]:
        checks.append(_check("score", bool(confident) or not boxes, "no score (weak detector)", "accept_weak: true"))
    elif boxes:
        best = max(b["score"] for b in boxes)
        checks.append(_check("score", bool(confident), f"{best:.3f} raw", f"> {stage.min_score:g}"))
    if confident:
        size = max(side(b["xyxy"], stage.side_rule) for b in confident)
        checks.append(
            _check(
                "box_size", size > stage.min_box_px, f"{size:.0f} px", f"{stage.side_rule} > {stage.min_box_px:g} px"
            )
        )
    return checks


def _check(rule: str, passed: bool, measured: str, threshold: str) -> dict[str, str]:
    return {"rule": rule, "status": "pass" if passed else "fail", "measured": measured, "threshold": threshold}


def funnel(decisions: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Rule by rule, in order: how many inputs came in and how many went on; a row counts at its first failure."""
    fell = Counter(next((c["rule"] for c in d["checks"] if c["status"] == "fail"), None) for d in decisions)
    left = len(decisions)
    steps: list[tuple[str, int, int]] = []
    for rule in RULES:
        steps.append((rule, left, left - fell[rule]))
        left -= fell[rule]
    return steps


def readings(decisions: list[dict[str, Any]], stage: CurateStage) -> dict[str, int]:
    """How many inputs hold score and size under each reading of the 300 px rule; weak boxes have no score and count in none."""
    found = {}
    for rule in READINGS:
        found[rule] = sum(
            any(
                b["score"] is not None and b["score"] > stage.min_score and side(b["xyxy"], rule) > stage.min_box_px
                for b in d["boxes"]
            )
            for d in decisions
            if d["error"] is None and not d["weak"]
        )
    return found
