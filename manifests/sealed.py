"""Dicts <-> JSON files that carry their own sha256, one canonical text for each: no bit can change unnoticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from manifests.errors import ShardError
from manifests.store import Store


def sealed(body: dict[str, Any]) -> bytes:
    """JSON of ``body`` with its sha256 inside; a line for each key and for each item of a list of objects."""
    digest = seal_of(body)
    lines = [f"{json.dumps(key)}: {_value(value)}" for key, value in sorted({**body, "sha256": digest}.items())]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def seal_of(body: dict[str, Any]) -> str:
    """The sha256 that ``sealed`` writes into the file of ``body``."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def unsealed(store: Store, name: str) -> dict[str, Any]:
    """The dict that ``sealed`` wrote, its sha256 kept. Raises MissingError, or ShardError when a byte differs."""
    where = f"{store.url}/{name}"
    text = store.read(name)
    try:
        body = json.loads(text)
        said = body.pop("sha256")
        # The text, not the parsed dict: white space and spelling are bytes, too.
        whole = sealed(body) == text
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ShardError(f"{where}: not readable as JSON with a sha256; run `maquette repair` on its dataset") from None
    if not whole:
        raise ShardError(
            f"{where}: its sha256 does not match; the file was altered. Run `maquette repair` on its dataset"
        )
    return {**body, "sha256": said}


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n " + ",\n ".join(json.dumps(item, sort_keys=True) for item in value) + "\n]"
    return json.dumps(value, sort_keys=True)
