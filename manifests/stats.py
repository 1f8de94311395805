"""A dataset, or two -> numbers: what is in it, what it weighs, how two differ; pixels are read from a few rows only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from manifests import codecs
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.index import BLOBS
from manifests.seeds import generator

SAMPLED_ROWS = 64
LABELS = ("split", "framing", "people", "environment", "redistributable")
NUMBERS = ("visible_fraction", "score", "bytes")


def stats(dataset: Dataset) -> dict[str, Any]:
    """Counts by label, quantiles of numbers, and of a seeded sample of rows: bytes by field, depth range and fill.

    ``depth_m``: 5 % nearest, median and 95 % farthest foreground depth. ``fill``: share of pixels in the mask.
    """
    table = dataset.labels.table
    sizes = pc.binary_join_element_wise(pc.cast(table["width"], "string"), pc.cast(table["height"], "string"), "x")
    columns = {**{name: table[name] for name in LABELS}, "size": sizes, "licence": pc.list_flatten(table["licences"])}
    counts = {
        name: {str(v["values"]): v["counts"] for v in pc.value_counts(column).to_pylist() if v["values"] is not None}
        for name, column in columns.items()
    }
    numbers = {name: _spread(table[name].drop_null().to_numpy()) for name in NUMBERS}
    return {
        "dataset": dataset.url,
        "kind": dataset.kind,
        "rows": len(dataset),
        "people_assets": len(set(pc.list_flatten(table["assets"]).to_pylist())),
        "counts": counts,
        "numbers": {k: v for k, v in numbers.items() if v},
        "sampled": _sampled(dataset),
    }


def diff(a: Dataset, b: Dataset) -> dict[str, list[str]]:
    """Sample ids by what became of them: ``only_a``, ``only_b``, ``changed`` (another content), ``moved`` (another split).

    Reads the two indices and no pixels: they hold a hash of every row. The place of a row in its dataset is no content.
    Raises InputError where the kinds differ.
    """
    if a.kind != b.kind:
        raise InputError(f"{a.url} holds {a.kind} rows, {b.url} {b.kind}: there is nothing to compare row by row")
    first, second = (_by_id(d) for d in (a, b))
    both = sorted(first.keys() & second.keys())
    return {
        "only_a": sorted(first.keys() - second.keys()),
        "only_b": sorted(second.keys() - first.keys()),
        "changed": [i for i in both if first[i]["xxh3"] != second[i]["xxh3"]],
        "moved": [i for i in both if first[i]["split"] != second[i]["split"]],
    }


def _by_id(dataset: Dataset) -> dict[str, dict[str, Any]]:
    return {r["sample_id"]: r for r in dataset.labels.table.select(["sample_id", "xxh3", "split"]).to_pylist()}


def _sampled(dataset: Dataset) -> dict[str, Any]:
    chosen = generator("stats", len(dataset)).permutation(len(dataset))[:SAMPLED_ROWS]
    weights: dict[str, list[int]] = {}
    depths: list[np.ndarray] = []
    fills: list[float] = []
    for i in sorted(int(c) for c in chosen):
        row = dataset[i]
        for name in BLOBS:
            if (value := row.get(name)) is not None:
                weights.setdefault(name, []).append(len(value["bytes"] if isinstance(value, dict) else value))
        if dataset.kind == "rendered":
            h, w = row["camera"]["height"], row["camera"]["width"]
            inside = codecs.decode_u8(row["mask"], h, w) != 0
            depths.append(codecs.decode_depth(row["depth"], h, w)[inside][::97])
            fills.append(float(inside.mean()))
    found: dict[str, Any] = {
        "rows": len(chosen),
        "mean_bytes": {k: round(float(np.mean(v))) for k, v in weights.items()},
    }
    if depths:
        found |= {"depth_m": _spread(np.concatenate(depths)), "fill": _spread(np.array(fills))}
    return found


def _spread(values: np.ndarray) -> list[float]:
    """5 %, median and 95 %; empty for no values."""
    return [round(float(q), 4) for q in np.quantile(values, [0.05, 0.5, 0.95])] if len(values) else []
