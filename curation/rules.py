"""Stored scores, pairs and clusters -> the rules on what a picture shows: text, style, watermarks, heads' scores, pose, what
shows the same, and balance. Numbers alone: another policy needs no pixels.

Legend: N inputs, in order of uri.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import balance
from curation.stage import NEEDS
from manifests.curation import Policy

# rule -> column it is held against, the policy's field, and whether a picture fails below it.
CONTENT = {
    "text": ("text", "max_text", False),
    "drawn": ("drawn", "max_drawn", False),
    "tiled": ("tiled", "max_tiled", False),
    "watermark": ("watermark", "max_watermark", False),
    "artistic": ("artistic", "max_artistic", False),
    "nsfw": ("nsfw", "max_nsfw", False),
    "aesthetic": ("aesthetic", "min_aesthetic", True),
    "realism": ("realism", "min_realism", True),
    "yaw": ("yaw", "max_yaw_deg", False),
    "pitch": ("pitch", "max_pitch_deg", False),
    "watermark_source": ("watermark_source", "max_watermark_source", False),
}


@dataclasses.dataclass
class Rule:
    """``fails``, ``known``: (N,) bool; a rule that is not known was not reached. ``measured``: (N,) float or None."""

    fails: np.ndarray
    known: np.ndarray
    measured: np.ndarray | None = None
    threshold: float | None = None


def of_content(table: pa.Table, policy: Policy) -> dict[str, Rule]:
    rules = {}
    n = len(table)
    for rule, (column, field, below) in CONTENT.items():
        limit = getattr(policy, field)
        if limit is None or table[column].null_count == n:
            # Nobody looked, or nobody asks: cheap for a million rows.
            rules[rule] = Rule(np.zeros(n, bool), np.zeros(n, bool), None, None)
            continue
        value = numbers(table[column])
        size = abs(value) if rule in ("yaw", "pitch") else value
        rules[rule] = Rule(size < limit if below else size > limit, ~np.isnan(value), size, limit)
    return rules


def alike_rule(
    table: pa.Table, policy: Policy, alike: pa.Table | None, rules: dict[str, Rule]
) -> tuple[Rule, np.ndarray]:
    """Of pictures that show the same one stays, by the order of the other duplicates; and who stands for each row."""
    n = len(table)
    own = np.arange(n)
    limit = policy.semantic_distance
    # Where nothing was embedded `cluster_path` is null everywhere.
    embedded = np.zeros(n, bool) if alike is None else table["cluster_path"].is_valid().to_numpy()
    if alike is None or limit is None or not embedded.any():
        return Rule(np.zeros(n, bool), np.zeros(n, bool), None, limit), own
    a, b, distance = (alike[name].to_numpy() for name in ("a", "b", "distance"))
    passes = ~np.any([r.fails for r in rules.values()], axis=0)
    use = (distance <= limit) & passes[a] & passes[b]
    order = np.empty(n, np.int64)
    order[best_first(table)] = own
    stands = balance.removed(a[use], b[use], order)
    away = np.full(n, np.nan)
    away[embedded] = 1.0
    for x, y in ((a, b), (b, a)):
        np.minimum.at(away, x[passes[y]], distance[passes[y]])
    return Rule(stands != own, embedded, away, limit), stands


def balanced_rule(table: pa.Table, policy: Policy, rules: dict[str, Rule]) -> tuple[Rule, np.ndarray]:
    """What a balanced subset leaves out, and (N,) the weights by which a trainer should draw what is kept."""
    n = len(table)
    out, weight = np.zeros(n, bool), np.full(n, np.nan)
    known = table["cluster_path"].is_valid().to_numpy()
    if not known.any():
        return Rule(out, np.zeros(n, bool), None, policy.balance), weight
    stopped = table["stopped"].is_valid().to_numpy()
    rows = np.flatnonzero(known & ~stopped & ~np.any([r.fails for r in rules.values()], axis=0))
    some = table.select(["cluster_path", "sha256"]).take(pa.array(rows))
    paths, keys = (some[c].to_numpy(zero_copy_only=False).astype(str) for c in ("cluster_path", "sha256"))
    if policy.balance is not None:
        out[rows] = ~balance.chosen(paths, keys, policy.balance)
    weight[rows[~out[rows]]] = balance.weights(paths[~out[rows]])
    return Rule(out, known, None, policy.balance), weight


def best_first(table: pa.Table) -> np.ndarray:
    """(N,) rows, the one to keep first: most pixels, most bytes per pixel, smallest sha256, smallest uri."""
    pixels = numbers(table["width"]) * numbers(table["height"])
    sha = pc.fill_null(table["sha256"], "").to_numpy(zero_copy_only=False).astype(str)
    order: np.ndarray = np.lexsort((np.arange(len(table)), sha, -numbers(table["bytes"]) / pixels, -pixels))
    return order


def absent(decisions: pa.Table) -> dict[str, str]:
    """Rules that nothing could be held against, since the job gives no model -> the field that would give one.

    Empty where no picture came far enough to tell.
    """
    seen = decisions.filter(decisions["boxes"].is_valid())
    if not len(seen):
        return {}
    looked = {"head": "heads", "dup_semantic": "cluster_path", "balance": "cluster_path"}
    columns = {rule: looked.get(rule) or CONTENT[rule][0] for rule in NEEDS}
    missing = {rule for rule, name in columns.items() if seen[name].null_count == len(seen)}
    if any('"faces ' in (m or "") for m in seen["models"].unique().to_pylist()):
        # Pictures without a face have no pose, though somebody looked.
        missing -= {"yaw", "pitch"}
    return {rule: field for rule, field in NEEDS.items() if rule in missing}


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """float64, NaN where null."""
    found = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return found.astype(np.float64)
