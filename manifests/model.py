"""The base of every section of a job manifest, and the YAML that one is read from."""

from __future__ import annotations

from typing import Any

import pydantic
import yaml


class Model(pydantic.BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors, values do not change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def read_yaml(text: str) -> Any:
    """Plain values of one YAML document; raises yaml.YAMLError, also for a key given twice and for what contains itself."""
    return yaml.load(text, _Strict)


class _Strict(yaml.SafeLoader):
    """YAML lets the last of two equal keys win, which drops a setting without a word."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:merge" and key.value.__hash__:
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add((key.tag, key.value))
    # Deep: a mapping within itself is found while it is made, and not by whoever walks it.
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
