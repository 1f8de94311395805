"""A manifest -> the dataset card and the side folders through which `datasets` opens the shards in place."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.sample import KINDS, schema
from manifests.store import Store

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
LARGEST_GROUPS = 8
MADE = {
    "rendered": "Rendered by Maquette: Blender's Cycles draws the picture, Embree gives depth, normals, masks and "
    "keypoints at pixel centres, and a frame on which the two disagree is not written. Columns `agreement` and `engine` "
    "say how well and with what. Camera frame: OpenCV (x right, y down, z forward), metres.",
    "curated": "Kept by Maquette from a folder of photographs: safe decoding, duplicates, a person detector and a size "
    "rule. The original bytes are untouched; boxes carry raw and calibrated scores.",
}
BIASES = {
    "rendered": "Synthetic people stand in for the people of the assets below and no others: their build, age, clothing "
    "and skin follow the assets' makers, light follows the environments, and no pose outside the assets' occurs.",
    "curated": "A detector chose what counts as a person, at the sizes and scores of its rule: small, occluded, "
    "unusually posed or dressed people are missing more often, and so is whatever the corpus had little of.",
}


def views_are_current(store: Store, manifest: dict[str, Any]) -> bool:
    """Whether the card was written from ``manifest``; it is written last."""
    return store.exists("README.md") and _mark(manifest).encode() in store.read("README.md")


def write_views(store: Store, manifest: dict[str, Any], table: pa.Table) -> None:
    """Write hf/SPLIT and README.md; ``table``: the manifest's index.

    `load_from_disk` and `load_dataset` open whole files and know no filter: a shard that still holds withdrawn rows
    is named by neither, until it is compacted.
    """
    shards = advertised(manifest)
    for split in ("train", "val", "test"):
        files = [s["path"] for s in shards if s["split"] == split]
        if files:
            _view(store, split, files)
        else:
            for name in ("state.json", "dataset_info.json"):
                store.delete(f"hf/{split}/{name}")
    store.replace("README.md", card(manifest, table).encode())


def advertised(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's shards that others may open: those without withdrawn rows."""
    return [s for s in manifest["shards"] if s["path"] not in set(manifest["pending"])]


def card(manifest: dict[str, Any], table: pa.Table, file_of: Callable[[str], str] = str) -> str:
    """The text of README.md: front matter for `datasets` and the Hub, then what a person must know before use.

    ``file_of``: from a shard's path to the name under which a reader finds it.
    """
    kind = manifest["kind"]
    shards = advertised(manifest)
    paths: dict[str, list[str]] = {}
    for shard in shards:
        paths.setdefault(shard["split"], []).append(file_of(shard["path"]))
    files = "".join(
        f"  - split: {SPLIT_NAMES[split]}\n    path:\n" + "".join(f'    - "{p}"\n' for p in paths[split])
        for split in SPLIT_NAMES
        if split in paths
    )
    configs = f"configs:\n- config_name: default\n  data_files:\n{files}" if files else ""
    arrow = schema(kind)
    fields = "\n".join(f"| `{f.name}` | {arrow.field(f.name).type} | {f.unit} | {f.meaning} |" for f in KINDS[kind])
    added = "".join(
        f"- `{c['name']}` ({', '.join(c['fields'])}): {c['rows']} rows, `{c['path']}`\n" for c in manifest["columns"]
    )
    counts = ", ".join(f"{v} {k}" for k, v in sorted(manifest["counts"].items()))
    licences = "".join(f"- {k}: {v} rows\n" for k, v in sorted(manifest["licences"].items())) or "- none stated\n"
    free = manifest["redistributable"]
    pending = len(manifest["pending"])
    return f"""---
license: {_licence(manifest)}
size_categories:
- {_size(manifest["rows"])}
tags:
- human
- maquette
{configs}---

# {kind.capitalize()} samples

{manifest["rows"]} rows in {len(manifest["shards"])} shards, {_megabytes(manifest)} MB ({counts}); manifest {manifest["number"]}.
{_splits(manifest)} People of one split appear in no other.
{f"{pending} shards wait to be compacted after a withdrawal and are not listed." if pending else ""}
## How it was made

{MADE[kind]} Stage digest `{manifest["stage_digest"]}`.

## What is in it

{_contents(table)}
## Rights

{licences}
{free} of {manifest["rows"]} rows may be redistributed; the column `rights` says which, asset by asset.
{len(manifest["withdrawn"])} rows were withdrawn.

## Biases and limits

{BIASES[kind]}

## Fields

| field | type | unit | meaning |
|---|---|---|---|
{fields}
{chr(10) + "Columns added later, joined by `sample_id`:" + chr(10) * 2 + added if added else ""}
## Reading

`datasets.load_dataset(FOLDER)` copies into its cache; `datasets.load_from_disk("FOLDER/hf/train")` maps the shards in place.
`depth`, `normal`, `alpha`, `mask` and `segmentation` are coded: `manifests.codecs` decodes them.

{_mark(manifest)}
"""


def _contents(table: pa.Table) -> str:
    """Tables of what the index counts: framings, sizes, people, light, the assets seen most."""
    groups = {
        "framing": table["framing"],
        "people in the picture": table["people"],
        "size": pc.binary_join_element_wise(
            pc.cast(table["width"], pa.string()), pc.cast(table["height"], pa.string()), "x"
        ),
        "environment": table["environment"],
        "person": pc.list_flatten(table["assets"]),
    }
    lines = ["| what | rows |", "|---|---|"]
    for title, values in groups.items():
        found = [(v["values"], v["counts"]) for v in pc.value_counts(values).to_pylist() if v["values"] is not None]
        found.sort(key=lambda pair: (-pair[1], str(pair[0])))
        lines += [f"| {title} {_escaped(value)} | {count} |" for value, count in found[:LARGEST_GROUPS]]
        if len(found) > LARGEST_GROUPS:
            rest = sum(count for _, count in found[LARGEST_GROUPS:])
            lines.append(f"| {title}: {len(found) - LARGEST_GROUPS} others | {rest} |")
    for title, column in (("smallest visible share of a person", "visible_fraction"), ("detector score", "score")):
        numbers = table[column].drop_null().to_numpy()
        if len(numbers):
            low, middle, high = np.quantile(numbers, [0.05, 0.5, 0.95])
            lines.append(f"| {title}: 5 %, median, 95 % | {low:.2f}, {middle:.2f}, {high:.2f} |")
    return "\n".join(lines) + "\n"


def _view(store: Store, split: str, shards: list[str]) -> None:
    state: dict[str, Any] = {
        "_data_files": [{"filename": f"../../{name}"} for name in shards],
        "_fingerprint": uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(shards)).hex[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": SPLIT_NAMES[split],
    }
    store.replace(f"hf/{split}/dataset_info.json", json.dumps({"description": "", "citation": ""}).encode())
    store.replace(f"hf/{split}/state.json", json.dumps(state, indent=1).encode())


def _mark(manifest: dict[str, Any]) -> str:
    return f"<!-- manifest {manifest['number']} {manifest['sha256']} -->"


def _splits(manifest: dict[str, Any]) -> str:
    return "By split: " + (", ".join(f"{v} {k}" for k, v in sorted(manifest["splits"].items())) or "none") + "."


def _megabytes(manifest: dict[str, Any]) -> str:
    return f"{sum(s['bytes'] for s in manifest['shards']) / 1e6:.1f}"


def _licence(manifest: dict[str, Any]) -> str:
    """The Hub's word: one SPDX id in small letters where all rows share it, else `other`; the table has the details."""
    found = list(manifest["licences"])
    return found[0].lower() if len(found) == 1 and not found[0].startswith("LicenseRef") else "other"


def _size(rows: int) -> str:
    for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")):
        if rows < limit:
            return name
    return "n>10M"


def _escaped(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
