"""A manifest -> the dataset card and the side folders through which `datasets` opens the shards in place."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from manifests.sample import KINDS, schema

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def write_views(folder: Path, manifest: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write README.md and hf/SPLIT; ``rows``: the manifest's index rows. A shard with several splits gets no hf view.

    `load_from_disk` opens whole files and ignores any filter, so a split's view may only list shards that hold
    nothing else.
    """
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["shard"], set()).add(row["split"])
    for split in sorted({s for found in splits.values() for s in found}):
        shards = sorted(name for name, found in splits.items() if found == {split})
        if shards:
            _view(folder / "hf" / split, shards)
    _replace(folder / "README.md", _card(manifest))


def _view(folder: Path, shards: list[str]) -> None:
    state: dict[str, Any] = {
        "_data_files": [{"filename": f"../../{name}"} for name in shards],
        "_fingerprint": uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(shards)).hex[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "state.json", json.dumps(state, indent=1))
    _replace(folder / "dataset_info.json", json.dumps({"description": "", "citation": ""}))


def _card(manifest: dict[str, Any]) -> str:
    files = "\n".join(f"  - {s['path']}" for s in manifest["shards"]) or "  []"
    arrow_type = schema(manifest["kind"])
    fields = "\n".join(
        f"| `{f.name}` | {arrow_type.field(f.name).type} | {f.meaning} |" for f in KINDS[manifest["kind"]]
    )
    counts = ", ".join(f"{v} {k}" for k, v in sorted(manifest["counts"].items()))
    licences = "\n".join(f"- {k}: {v} rows" for k, v in sorted(manifest["licences"].items())) or "- none stated"
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path:
{files.replace("  - ", "    - ")}
---

# {manifest["kind"].capitalize()} samples

{manifest["rows"]} rows in {len(manifest["shards"])} shards ({counts}); manifest {manifest["number"]}.
By split: {", ".join(f"{v} {k}" for k, v in sorted(manifest["splits"].items()))} (column `split`; people of one split
appear in no other).

## Rights

{licences}

{manifest["redistributable"]} of {manifest["rows"]} rows may be redistributed; the column `rights` says which, asset
by asset.

## Fields

| field | type | meaning |
|---|---|---|
{fields}

Made by Maquette. Stage digest `{manifest["stage_digest"]}`.
"""


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.write_text(text)
    os.replace(fresh, path)
