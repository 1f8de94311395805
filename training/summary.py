"""Per-picture measures with their identities and traits -> means, pooled figures, bootstrap intervals and breakdowns.

Legend: N pictures, I identities, R resamplings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests.seeds import generator
from training.metrics import POOLED

LEVEL = (2.5, 97.5)
# Fewer pictures or identities than this say nothing by themselves.
SMALLEST_GROUP = 3
# A box this near the picture's edge is cut by it.
EDGE_PX = 1.0


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over pictures."""
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def pooled(rows: Sequence[dict[str, float]], pixels: Sequence[int]) -> dict[str, float]:
    """Each measure over all pixels of all pictures together, where it is a mean over pixels or the root of one."""
    weights = np.asarray(pixels, float) / np.sum(pixels)
    out = {}
    for name in rows[0]:
        values = np.array([r[name] for r in rows])
        if POOLED.get(name) == "mean":
            out[name] = float((weights * values).sum())
        elif POOLED.get(name) == "root":
            out[name] = float(np.sqrt((weights * values**2).sum()))
    return out


def interval(values: np.ndarray, people: Sequence[str], resamplings: int, *key: int | str) -> list[float] | None:
    """95 % interval of the mean of ``values`` (N,), resampling identities: pictures of one person are not independent.

    None with fewer than three people or no resamplings. The draws depend on ``key`` alone.
    """
    names, which = np.unique(np.asarray(people), return_inverse=True)
    if resamplings == 0 or len(names) < SMALLEST_GROUP:
        return None
    sums = np.bincount(which, values, len(names))
    counts = np.bincount(which, minlength=len(names))
    drawn = generator("bootstrap", *key).integers(len(names), size=(resamplings, len(names)))
    return [float(v) for v in np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), LEVEL)]


def breakdown(
    values: np.ndarray, people: Sequence[str], traits: Sequence[dict[str, str]], resamplings: int, *key: int | str
) -> list[dict[str, Any]]:
    """One entry per trait and group: pictures, identities, mean of ``values`` (N,) and its interval; unknown traits are left
    out.
    """
    entries = []
    for trait in TRAITS:
        for group in sorted({t[trait] for t in traits if trait in t}):
            mine = [i for i, t in enumerate(traits) if t.get(trait) == group]
            who = [people[i] for i in mine]
            entries.append(
                {
                    "trait": trait,
                    "group": group.partition(" ")[2] if group[0].isdigit() else group,
                    "pictures": len(mine),
                    "identities": len(set(who)),
                    "mean": float(values[mine].mean()),
                    "interval": interval(values[mine], who, resamplings, *key, trait, group),
                }
            )
    return entries


def traits_of(row: dict[str, Any]) -> dict[str, str]:
    """Trait -> group of a rendered row, by its most visible person; traits nobody recorded are left out.

    A digit before a group's name is its rank in a list.
    """
    found = {"framing": row["camera"]["framing"]}
    if not row["people"]:
        return found
    person = max(row["people"], key=lambda p: (p["box"][2] - p["box"][0]) * (p["box"][3] - p["box"][1]))
    known = json.loads(person["phenotype"]) if person["phenotype"] else {}
    for trait, (name, edges, groups) in PHENOTYPE.items():
        if isinstance(known.get(name), int | float):
            found[trait] = groups[int(np.digitize(known[name], edges))]
    if isinstance(known.get("sex"), str):
        found["sex"] = known["sex"]
    found["occlusion"] = OCCLUSION[int(np.digitize(person["visible_fraction"], (0.6, 0.95)))]
    x0, y0, x1, y1 = person["box"]
    width, height = row["camera"]["width"], row["camera"]["height"]
    cut = sum((x0 < EDGE_PX, y0 < EDGE_PX, x1 > width - EDGE_PX, y1 > height - EDGE_PX))
    found["truncation"] = TRUNCATION[min(cut, 2)]
    return found


TRAITS = ("framing", "age", "sex", "skin tone", "build", "occlusion", "truncation")
OCCLUSION = ("2 most hidden", "1 partly hidden", "0 seen whole")
TRUNCATION = ("0 inside the picture", "1 cut at one side", "2 cut at several")
# Trait -> the phenotype's number, the edges between groups, the groups. Anny's age: 0 newborn, 1/3 child, 2/3 adult, 1 old.
PHENOTYPE: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "age": ("age", (0.5, 0.85), ("0 child", "1 adult", "2 old")),
    "sex": ("gender", (0.5,), ("female", "male")),
    "skin tone": ("monk_skin_tone", (3.5, 7.5), ("0 Monk 1-3", "1 Monk 4-7", "2 Monk 8-10")),
    "build": ("weight", (0.4, 0.6), ("0 slim", "1 medium", "2 heavy")),
}
