"""Rows of a rendered dataset -> how many different people, outfits, hair styles, accessories and expressions they show, and
which two people are most alike.

Only what a source tells of its people can be counted: what no row tells is left out, and so is a kind with one value.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Two people differ by 1 where a number differs by this much, or where a word differs.
SPANS = {"age_years": 12.0, "height_m": 0.12, "bmi": 4.0, "monk_skin_tone": 2.0, "freckles": 0.5}
FACE_SPAN = 0.25
WORDS = ("sex", "hair", "beard", "outfit", "accessories")
MOST_PEOPLE = 1500


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two identities: ``distance`` in the units above; ``rows``: (2,) a row of each; ``same``: traits that agree."""

    ids: tuple[str, str]
    rows: tuple[int, int]
    distance: float
    same: tuple[str, ...]


def counts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is counted, how many different ones there are, of how many tellings, and the most frequent."""
    people = [told for row in rows for told in _people(row)]
    once = {told["id"]: told for told in people}
    lines = [_line("identities", [p["id"] for p in people], lambda v: v)]
    for title, key in (("outfits", "outfit"), ("accessories", "accessories")):
        lines.append(_line(title, [tuple(p[key]) for p in once.values() if p.get(key) is not None], _joined))
    hair = sorted({k for p in once.values() for k in p if k.startswith("hair") or k in ("beard", "brows")})
    styles = [tuple(str(p.get(k)) for k in hair) for p in once.values() if any(k in p for k in hair)]
    lines.append(_line("hair styles", styles, _joined))
    poses = [p["pose"] for p in people if isinstance(p.get("pose"), dict)]
    for title, key in (("expressions", "expression"), ("base poses", "source")):
        lines.append(_line(title, [str(p[key]) for p in poses if p.get(key)], lambda v: v))
    return [line for line in lines if line["told"]]


def nearest(rows: Sequence[dict[str, Any]], most: int = 3) -> list[Pair]:
    """The pairs of identities most alike, nearest first, no identity twice; empty where fewer than two are told of.

    Distance: root of the mean square over what both tell, each in its own span.
    """
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        for told in _people(row):
            if len(told) > 2:
                first.setdefault(told["id"], (i, told))
    ids = sorted(first)[:MOST_PEOPLE]
    if len(ids) < 2:
        return []
    total, known = np.zeros((len(ids),) * 2), np.zeros((len(ids),) * 2)
    people = [first[name][1] for name in ids]
    for values in _columns(people):
        gap = np.abs(values[:, None] - values[None])
        both = ~np.isnan(gap)
        total[both] += np.minimum(gap[both], 3.0) ** 2
        known += both
    distance = np.sqrt(total / np.maximum(known, 1))
    distance[known == 0] = np.inf
    distance[np.tril_indices(len(ids))] = np.inf
    found: list[Pair] = []
    used: set[int] = set()
    for flat in np.argsort(distance, axis=None):
        i, j = (int(v) for v in np.unravel_index(flat, distance.shape))
        if len(found) == most or not np.isfinite(distance[i, j]):
            break
        if i in used or j in used:
            continue
        used |= {i, j}
        same = tuple(k.replace("_", " ") for k in WORDS if k in people[i] and people[i].get(k) == people[j].get(k))
        found.append(Pair((ids[i], ids[j]), (first[ids[i]][0], first[ids[j]][0]), float(distance[i, j]), same))
    return found


def _people(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": p["asset_id"], **(json.loads(p["phenotype"]) if p["phenotype"] else {})} for p in row["people"]]


def _line(title: str, values: list[Any], name: Callable[[Any], str]) -> dict[str, Any]:
    often = Counter(values)
    return {
        "title": title,
        "told": len(values),
        "different": len(often),
        "most": ", ".join(f"{name(v)} {n}" for v, n in often.most_common(3)),
    }


def _joined(words: Sequence[str]) -> str:
    return " + ".join(words) if words else "none"


def _columns(people: list[dict[str, Any]]) -> list[np.ndarray]:
    """One (N,) float column a trait, in its span; NaN where it is not told."""
    columns = [
        np.array([float(p[k]) if isinstance(p.get(k), int | float) else np.nan for p in people]) / span
        for k, span in SPANS.items()
    ]
    for k in WORDS:
        words = [json.dumps(p[k]) if k in p else None for p in people]
        number = {w: float(i) for i, w in enumerate(dict.fromkeys(words))}
        # Any two words differ by 1: a column for each.
        told = np.array([np.nan if w is None else 0.0 for w in words])
        for word in number:
            if word is not None and 1 < sum(w == word for w in words) < len(words):
                columns.append(told + np.array([w == word for w in words]))
    shapes = sorted({k for p in people for k in (p.get("anny") or {})})
    for k in shapes:
        columns.append(np.array([(p.get("anny") or {}).get(k, np.nan) for p in people], float) / FACE_SPAN)
    return columns
