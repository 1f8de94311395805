"""A stage's settings and inputs -> its digest, frozen in the stage folder at first start; a changed stage stops the
run.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import JobError, StorageError
from manifests.job import Model, digest_fields, stage_digest


def freeze(
    folder: Path, stage: Model, inputs: list[tuple[str, str]], engine: str = "", upstream: tuple[str, ...] = ()
) -> str:
    """The stage's digest. Writes ``inputs.parquet`` and ``stage.json`` at first start and compares later.

    ``inputs``: (id, sha256) rows. ``engine``: name and version of what makes the bytes. Raises JobError naming the
    changed
    fields when ``folder`` holds another stage.
    """
    inputs = sorted(inputs)
    table_sha = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    digest = hashlib.sha256(f"{stage_digest(stage, table_sha, upstream)}/{engine}".encode()).hexdigest()
    now: dict[str, Any] = {
        "digest": digest,
        "engine": engine,
        "inputs": table_sha,
        "upstream": sorted(upstream),
        "fields": digest_fields(stage),
    }
    path = folder / "stage.json"
    try:
        if path.exists():
            was = json.loads(path.read_text())
            if was["digest"] != digest:
                raise JobError(_changes(folder, was, now, inputs))
            return digest
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({"id": [i for i, _ in inputs], "sha256": [s for _, s in inputs]})
        pq.write_table(table, folder / "inputs.parquet")
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps(now, indent=1))
        fresh.replace(path)
    except OSError as error:
        raise StorageError(
            f"stage folder {folder}: {error.strerror}; free space or choose another `runs` folder"
        ) from None
    return digest


def _changes(folder: Path, was: dict[str, Any], now: dict[str, Any], inputs: list[tuple[str, str]]) -> str:
    parts = [f"{path} was {_short(a)}, is {_short(b)}" for path, a, b in _walk("", was["fields"], now["fields"])]
    if was["engine"] != now["engine"]:
        parts.append(f"renderer was {was['engine']}, is {now['engine']}")
    if was["inputs"] != now["inputs"]:
        old = {row["id"]: row["sha256"] for row in pq.read_table(folder / "inputs.parquet").to_pylist()}
        new = dict(inputs)
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        parts.append(f"inputs changed: {', '.join(changed[:5])}{more}")
    if was["upstream"] != now["upstream"]:
        parts.append("the data it reads changed")
    mend = "Give the job a new `name`, or delete the folder."
    return f"{folder} holds another version of this stage: {'; '.join(parts)}. {mend}"


def _walk(path: str, a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [c for k in sorted(a.keys() | b.keys()) for c in _walk(f"{path}.{k}" if path else k, a.get(k), b.get(k))]
    return [] if a == b else [(path, a, b)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."
