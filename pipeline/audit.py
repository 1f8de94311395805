"""Decisions -> a page of seeded samples of each reason to label in a browser, and its labels -> precision of each reason."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from curation.scoring import wilson
from manifests.errors import InputError
from manifests.store import storage

HERE = Path(__file__).parent
SHEET, RESULT = "report/audit.html", "audit.json"
ANSWERS = ("right", "wrong", "unsure")


def sheet(run: Path, decisions: pa.Table, count: int, seed: int) -> Path:
    """Write ``run``/report/audit.html with ``count`` pictures of each reason and of the kept, the same for any order."""
    from pipeline.report_curate import tile

    key = of(decisions)
    groups = []
    for reason, rows in samples(decisions, count, seed).items():
        tiles = [tile(row) | {"id": row["uri"], "reason": reason} for row in rows]
        groups.append({"reason": reason, "count": _count(decisions, reason), "tiles": tiles})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("audit.html").render(
        name=run.name, of=key, groups=groups, css=(HERE / "report.css").read_text()
    )
    path = run / SHEET
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    return path


def samples(decisions: pa.Table, count: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """reason -> rows, `kept` first and then the commonest; drawn by a hash of seed and uri."""
    reasons = pc.value_counts(decisions["first_fail"].drop_null()).to_pylist()
    names = [r["values"] for r in sorted(reasons, key=lambda r: (-r["counts"], r["values"]))]
    found = {}
    for reason in ["kept", *names]:
        rows = decisions.filter(_mask(decisions, reason))
        uris = rows["uri"].to_pylist()
        order = sorted(range(len(uris)), key=lambda i: hashlib.sha256(f"{seed}/{uris[i]}".encode()).digest())[:count]
        if order:
            found[reason] = rows.take(order).to_pylist()
    return found


def read_labels(path: Path, decisions: pa.Table) -> dict[str, Any]:
    """What a page's labels come to: precision of each reason with its 95 % interval. Raises InputError where the file is
    none of this page's, or of other decisions.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        labels = {str(k): str(v) for k, v in tree["labels"].items()}
        key = tree["of"]
    except OSError as error:
        raise InputError(f"labels {path}: {error.strerror}; save them from the audit page") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"labels {path}: not a file that the audit page saved ({error!r})") from None
    if key != of(decisions):
        raise InputError(f"labels {path}: of other decisions ({key}, these are {of(decisions)}); label a new page")
    first = dict(zip(decisions["uri"].to_pylist(), decisions["first_fail"].to_pylist()))
    tally: dict[str, dict[str, int]] = {}
    for uri, answer in labels.items():
        if uri not in first or answer not in ANSWERS:
            raise InputError(f"labels {path}: {uri}: {answer}: no label of this page; save them again")
        tally.setdefault(first[uri] or "kept", dict.fromkeys(ANSWERS, 0))[answer] += 1
    rows = []
    for reason, counts in sorted(tally.items(), key=lambda t: (t[0] != "kept", t[0])):
        n = counts["right"] + counts["wrong"]
        rate, low, high = wilson(counts["right"], n)
        rows.append({"reason": reason, **counts, "precision": rate if n else None, "low": low, "high": high})
    return {"of": key, "labelled": len(labels), "reasons": rows}


def of(decisions: pa.Table) -> str:
    """16 hex digits of who was kept and why: labels belong to these decisions alone."""
    digest = hashlib.sha256()
    for uri, first in zip(decisions["uri"].to_pylist(), decisions["first_fail"].to_pylist()):
        digest.update(f"{uri}\0{first}\n".encode())
    return digest.hexdigest()[:16]


def _mask(decisions: pa.Table, reason: str) -> Any:
    return decisions["kept"] if reason == "kept" else pc.fill_null(pc.equal(decisions["first_fail"], reason), False)


def _count(decisions: pa.Table, reason: str) -> int:
    return int(pc.sum(pc.cast(_mask(decisions, reason), pa.int64())).as_py() or 0)
