"""A rendered dataset folder -> what the report shows: contact sheet, distributions, agreement, outcomes, rights."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2

from manifests import commit, view
from manifests.dataset import Dataset
from manifests.job import RenderStage
from pipeline import diversity, figures, pictures, variety

PANEL_PX = 232
# Distributions of larger sets are read from this many rows, evenly spaced; the page says so.
MAX_ROWS = 2000
MAX_NAMED = 20


def render_section(folder: Path, stage: RenderStage, samples: int) -> dict[str, Any] | None:
    """What the template's render part needs; None without a dataset. ``samples``: contact sheet's length."""
    if commit.newest_manifest(folder) is None:
        return None
    dataset = Dataset(folder)
    if not len(dataset):
        return {"rows": 0, "outcomes": outcomes(folder)}
    step = max(1, -(-len(dataset) // MAX_ROWS))
    rows = [(i, dataset[i]) for i in range(0, len(dataset), step)]
    return {
        "rows": len(dataset),
        "read": len(rows),
        "size": "{width} × {height}".format(**rows[0][1]["camera"]),
        "identities": len({p["asset_id"] for _, r in rows for p in r["people"]}),
        "splits": _splits(r for _, r in rows),
        "sheet": [_card(dataset, i) for i in view.spread(dataset.labels, samples)],
        "charts": _charts([r for _, r in rows], stage),
        "agreement": _agreement([r for _, r in rows]),
        "people": _people([r for _, r in rows]),
        "variety": variety.counts([r for _, r in rows]),
        "alike": _alike(dataset, rows),
        "compared": variety.MOST_PEOPLE,
        "told_of": len(variety.told_of([r for _, r in rows])),
        "environments": len({r["lighting"]["environment"] for _, r in rows}),
        "outcomes": outcomes(folder),
    }


def outcomes(folder: Path) -> dict[str, Any]:
    """Samples by status, seconds per sample, and the first of those that were not written, with their reasons."""
    latest: dict[str, commit.Outcome] = {}
    for receipt in commit.receipts(folder).values():
        for outcome in receipt.outcomes:
            known = latest.get(outcome.sample_id)
            if known is None or outcome.attempt >= known.attempt:
                latest[outcome.sample_id] = outcome
    status = Counter(o.status for o in latest.values())
    times = sorted(o.seconds for o in latest.values() if o.status == "done")
    lost = sorted((o for o in latest.values() if o.status != "done"), key=lambda o: o.index)
    return {
        "status": dict(status),
        "median_s": statistics.median(times) if times else None,
        "p90_s": times[min(len(times) - 1, int(0.9 * len(times)))] if times else None,
        "sum_s": sum(times),
        "chart": figures.histogram(times, "seconds per sample") if len(times) > 1 else None,
        "lost": [{"id": o.sample_id, "status": o.status, "why": o.why or ""} for o in lost[:MAX_NAMED]],
        "unnamed": max(0, len(lost) - MAX_NAMED),
    }


def rights_table(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """One line per (source, licence, consent, redistributable): how many rows carry it, how many ids have it."""
    rows: Counter[tuple[str, str, str, bool]] = Counter()
    ids: dict[tuple[str, str, str, bool], set[str]] = defaultdict(set)
    for folder in folders:
        dataset = Dataset(folder)
        for i in range(0, len(dataset), max(1, -(-len(dataset) // MAX_ROWS))):
            for right in dataset[i]["rights"] or []:
                key = (right["source"], right["licence"], right["consent"], bool(right["redistributable"]))
                if right["id"] not in ids[key]:
                    ids[key].add(right["id"])
                rows[key] += 1
    names = ("source", "licence", "consent", "redistributable")
    return [{**dict(zip(names, key)), "rows": count, "ids": len(ids[key])} for key, count in sorted(rows.items())]


def _card(dataset: Dataset, position: int) -> dict[str, Any]:
    sample, row = dataset.sample(position), dataset[position]
    person = sample.people[0] if sample.people else None
    notes = [sample.framing, sample.split, f"{diversity.focal_mm(row):.0f} mm"]
    if person:
        notes += [person.asset_id, f"{person.visible_fraction:.0%} visible"]
    return {"id": sample.sample_id, "notes": notes, "panels": pictures.sample_panels(sample, PANEL_PX)}


def _splits(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples and identities of each split."""
    samples: Counter[str] = Counter()
    identities: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        samples[row["split"]] += 1
        identities[row["split"]] |= {p["asset_id"] for p in row["people"]}
    return [
        {"name": s, "samples": samples[s], "identities": len(identities[s])}
        for s in ("train", "val", "test")
        if samples[s]
    ]


def _charts(rows: list[dict[str, Any]], stage: RenderStage) -> list[dict[str, Any]]:
    """A chart for each marginal, with the share that differs from what the job asked."""
    charts = [
        {"title": m.title, "svg": figures.marginal(m), "gap": m.gap, "note": m.note}
        for m in diversity.marginals(rows, stage)
    ]
    distances = [diversity.distance_m(r, p) for r in rows for p in r["people"] if p["keypoints_3d"]]
    if distances:
        svg = figures.histogram(distances, "m")
        charts.append({"title": "Distance to a person", "svg": svg, "gap": None, "note": ""})
    return charts


def _agreement(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Shares of pixels on which Embree and Cycles agree, over the written samples: of opaque ones, and under "strand" of
    strands', None where no sample has any.
    """
    opaque, strand = (
        [r["agreement"][kind] for r in rows if r["agreement"] and r["agreement"][kind] is not None]
        for kind in ("opaque", "strand")
    )
    if not opaque:
        return None
    of_strands = _shares(strand, "strands' pixels that differ, per 100", 1e2) if strand else None
    return {**_shares(opaque, "foreground pixels that differ, per 10 000", 1e4), "strand": of_strands}


def _shares(agreed: list[float], of: str, per: float) -> dict[str, Any]:
    missed = [(1 - share) * per for share in agreed]
    return {
        "samples": len(agreed),
        "min": min(agreed),
        "median": statistics.median(agreed),
        "chart": figures.histogram(missed, of) if len(agreed) > 1 else None,
    }


def _alike(dataset: Dataset, rows: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The identities most alike, side by side as they were rendered."""
    found = []
    for pair in variety.nearest([r for _, r in rows]):
        panels = []
        for name, at in zip(pair.ids, pair.rows):
            sample = dataset.sample(rows[at][0])
            scale = PANEL_PX / sample.image.shape[0]
            small = cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            panels.append((name, pictures.data_uri(small)))
        found.append({"distance": pair.distance, "same": ", ".join(pair.same), "panels": panels})
    return found


def _people(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the known phenotypes of the identities spread: one line per trait; traits nobody recorded are left out."""
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        for person in row["people"]:
            if person["phenotype"]:
                known[person["asset_id"]] = json.loads(person["phenotype"])
    lines = []
    for trait in sorted({t for p in known.values() for t in p}):
        values = [p[trait] for p in known.values() if p.get(trait) is not None]
        if values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            spread_text = f"{min(values):.3g} – {max(values):.3g}, median {statistics.median(values):.3g}"
        elif values and all(isinstance(v, str) for v in values):
            spread_text = ", ".join(f"{name} {count}" for name, count in Counter(values).most_common(8))
        else:
            continue
        lines.append({"trait": trait.replace("_", " "), "known": len(values), "spread": spread_text})
    return lines
