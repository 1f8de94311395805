"""Rows of a rendered dataset -> how many different people, outfits, hair styles, accessories and expressions they show, and
which two people are most alike.

Only what a source tells of its people can be counted: what no row tells is left out. Legend: N people.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Two people differ by 1 where a number differs by this much, or where a word differs.
SPANS = {"age_years": 12.0, "height_m": 0.12, "bmi": 4.0, "monk_skin_tone": 2.0, "freckles": 0.5}
# The same of anny's own labels.
BODY_SPAN = 0.25
# Two strangers' faces are 0.3 apart, root of the mean square over anny's local changes; a face counts as so many traits.
FACE_SPAN, FACE_TRAITS = 0.3, 4.0
WORDS = ("sex", "hair", "beard", "outfit", "accessories")
# Distances are N x N: at this many, 18 MB each.
MOST_PEOPLE = 1500
# What is counted -> what makes two of them different.
KINDS = {
    "identities": "who it is",
    "outfits": "kinds of garments worn together, whatever their colours; once an identity",
    "accessories": "kinds worn together, in this pose",
    "hair styles": "style, whatever its colour; once an identity",
    "beards": "style; once an identity",
    "expressions": "mix of facial actions, whatever its strength",
    "base poses": "what a pose was drawn from",
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two identities: ``distance`` in the units above; ``rows``: (2,) a row of each; ``same``: traits that agree."""

    ids: tuple[str, str]
    rows: tuple[int, int]
    distance: float
    same: tuple[str, ...]


def counts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is counted, what makes two different, how many different ones there are, of how many tellings, and the most frequent."""
    people = [told for row in rows for told in _people(row)]
    once = {told["id"]: told for told in people}
    lines = [_line("identities", [p["id"] for p in people], lambda v: v)]
    # What is worn goes by the pose; all else of a person by who it is.
    for title, key, them in (("outfits", "outfit", once.values()), ("accessories", "accessories", people)):
        lines.append(_line(title, [tuple(p[key]) for p in them if p.get(key) is not None], _joined))
    for title, key in (("hair styles", "hair"), ("beards", "beard")):
        lines.append(_line(title, [p[key] for p in once.values() if p.get(key)], lambda v: v))
    poses = [p["pose"] for p in people if isinstance(p.get("pose"), dict)]
    for title, key in (("expressions", "expression"), ("base poses", "source")):
        lines.append(_line(title, [str(p[key]) for p in poses if p.get(key)], lambda v: v))
    return [line for line in lines if line["told"]]


def told_of(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Identities of whom enough is told to compare them: the first row of each, and what it tells."""
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        for told in _people(row):
            if len(told) > 2:
                first.setdefault(told["id"], (i, told))
    return first


def nearest(rows: Sequence[dict[str, Any]], most: int = 3) -> list[Pair]:
    """The pairs of identities most alike, nearest first, no identity twice; empty where fewer than two are told of. Of more than
    MOST_PEOPLE, the first by name are compared.

    Distance: root of the mean square over what both tell, each in its own span.
    """
    first = told_of(rows)
    ids = sorted(first)[:MOST_PEOPLE]
    if len(ids) < 2:
        return []
    total, known = np.zeros((len(ids),) * 2), np.zeros((len(ids),) * 2)
    people = [first[name][1] for name in ids]
    for weight, values in _columns(people):
        gap = np.abs(values[:, None] - values[None])
        both = ~np.isnan(gap)
        total[both] += weight * np.minimum(gap[both], 3.0) ** 2
        known += weight * both
    distance = np.sqrt(total / np.where(known == 0, 1, known))
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
    """What a row tells of each; ``accessories`` are those worn in it, where it says so."""
    found = []
    for person in row["people"]:
        told = {"id": person["asset_id"], **(json.loads(person["phenotype"]) if person["phenotype"] else {})}
        pose = told.get("pose")
        if isinstance(pose, dict) and "worn" in pose:
            told["accessories"] = pose["worn"]
        found.append(told)
    return found


def _line(title: str, values: list[Any], name: Callable[[Any], str]) -> dict[str, Any]:
    often = Counter(values)
    return {
        "title": title,
        "kind": KINDS[title],
        "told": len(values),
        "different": len(often),
        "most": ", ".join(f"{name(v)} {n}" for v, n in often.most_common(3)),
    }


def _joined(words: Sequence[str]) -> str:
    return " + ".join(words) if words else "none"


def _columns(people: list[dict[str, Any]]) -> Iterator[tuple[float, np.ndarray]]:
    """(its weight, (N,) float in its span, NaN where it is not told) of every trait."""
    for k, span in SPANS.items():
        yield 1.0, np.array([float(p[k]) if isinstance(p.get(k), int | float) else np.nan for p in people]) / span
    for k in WORDS:
        words = [json.dumps(p[k]) if k in p else None for p in people]
        # Any two words differ by 1: a column for each.
        told = np.array([np.nan if w is None else 0.0 for w in words])
        for word, count in Counter(words).items():
            if word is not None and 1 < count < len(words):
                yield 1.0, told + np.array([w == word for w in words])
    for group, span, traits in (("anny", BODY_SPAN, 0.0), ("face", FACE_SPAN, FACE_TRAITS)):
        labels = sorted({k for p in people for k in (p.get(group) or {})})
        for k in labels:
            values = np.array([(p.get(group) or {}).get(k, np.nan) for p in people], float) / span
            yield traits / len(labels) if traits else 1.0, values
