"""Measurements and a policy -> one decision row for every input, kept or dropped, without pixels and a column at a time.

Legend: N inputs, in order of uri; B boxes of all of them. A million rows take a few seconds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import dedup
from curation.rules import Rule, alike_rule, balanced_rule, numbers, of_content
from curation.stage import (
    CHECK,
    CORPUS,
    DECIDED,
    DECISIONS,
    ERRORS,
    READINGS,
    RULES,
    STATUS,
    STATUSES,
)
from manifests.curation import Policy
from manifests.errors import InputError

# Rules whose failure is the file's own, not the policy's.
TECHNICAL = {"read", "header", "decode"}
DUPLICATES = ("dup_exact", "dup_near")


def decide(
    table: pa.Table,
    policy: Policy,
    pairs: pa.Table,
    tombstones: frozenset[str] = frozenset(),
    alike: pa.Table | None = None,
) -> pa.Table:
    """DECISIONS of MEASUREMENTS ``table`` (unique uris; any order), by ``policy``, the near-duplicate ``pairs`` and those
    ``alike`` in meaning (by row number of the table sorted by uri). The same rows in any order give the same decisions.
    ``table`` may have the columns of CORPUS as well.

    Score and size must hold for the same box. Of duplicates the first of these stays: passes every other rule, most pixels,
    most bytes per pixel, smallest sha256, smallest uri. An opt-out or tombstone of a picture holds for every file of the
    same bytes, and what a tombstone removes is not replaced by its near-duplicate.
    """
    table = ordered(table)
    for field in CORPUS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    rules = _of_file(table, policy, tombstones) | _of_quality(table, policy) | _of_people(table, policy)
    rules |= of_content(table, policy)
    codes, copies = _identical(table)
    for name in ("tombstone", "optout"):
        somewhere = np.bincount(codes, rules[name].fails) > 0
        rules[name].fails = np.where(copies, somewhere[codes], rules[name].fails)
    passes = ~np.any([r.fails for n, r in rules.items() if n != "tombstone"], axis=0)
    keeper = _exact(codes, copies, passes)
    rules["dup_exact"] = Rule(keeper != np.arange(len(table)), copies)
    near = _near(table, policy, pairs, passes & ~rules["dup_exact"].fails, ~rules["dup_exact"].fails)
    loses = near.keeper != np.arange(len(table))
    has_hash = table["phash"].is_valid().to_numpy()
    rules["dup_near"] = Rule(loses & ~rules["dup_exact"].fails, has_hash, near.distance, policy.duplicate_distance)
    rules["dup_semantic"], stands = alike_rule(table, policy, alike, rules)
    rules["balance"], weight = balanced_rule(table, policy, rules)
    failed = np.any([r.fails for r in rules.values()], axis=0)
    stopped = table["stopped"].is_valid().to_numpy()
    rules["measured"] = Rule(stopped & ~failed, np.ones(len(table), bool))
    keeper = np.where(rules["dup_exact"].fails, keeper, near.keeper)
    keeper = np.where(rules["dup_semantic"].fails, stands, keeper)
    weight = np.where(failed, np.nan, weight)
    return _rows(table, rules, keeper, near, weight)


def ordered(table: pa.Table) -> pa.Table:
    """``table`` in order of uri, untouched where it is so already."""
    uri = table["uri"]
    if len(table) > 1 and not pc.all(pc.greater_equal(uri[1:], uri[:-1])).as_py():
        table = table.sort_by("uri")
    return table.combine_chunks()


def read_tombstones(path: Path | None) -> frozenset[str]:
    """The sha256 and URLs of a list, one a line; `#` opens a comment. Raises InputError."""
    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"curate.tombstones: {path}: {getattr(error, 'strerror', None) or error}") from None
    return frozenset(w for line in lines if (w := line.strip()) and not line.startswith("#"))


def _of_file(table: pa.Table, policy: Policy, tombstones: frozenset[str]) -> dict[str, Rule]:
    n = len(table)
    everywhere = np.ones(n, bool)
    error = table["error"]
    stopped = table["stopped"]
    named = {rule: np.zeros(n, bool) for rule in TECHNICAL}
    for rule in TECHNICAL:
        named[rule] = _in(error, [code for code, of in ERRORS.items() if of == rule])
    read = ~_in(stopped, ["read"])
    header = read & ~_in(stopped, ["header"])
    decoded = header & ~_in(stopped, ["provenance"])
    width, height = (numbers(table[c]) for c in ("width", "height"))
    low, high = np.fmin(width, height), np.fmax(width, height)
    gone = np.zeros(n, bool)
    if tombstones:
        for column in ("sha256", "url", "uri"):
            gone |= _in(table[column], sorted(tombstones))
    licence = np.zeros(n, bool) if policy.licences is None else ~_in(table["licence"], policy.licences)
    optout, synthetic = (table[c].is_valid().to_numpy() for c in ("optout", "synthetic"))
    aspect = high / low
    return {
        "read": Rule(named["read"], everywhere),
        "header": Rule(named["header"], read),
        "min_side": Rule(header & (low < policy.min_side_px), header, low, policy.min_side_px),
        "aspect": Rule(header & (aspect > policy.max_aspect), header, aspect, policy.max_aspect),
        "tombstone": Rule(gone, everywhere),
        "optout": Rule(optout & policy.optout, header),
        "synthetic": Rule(synthetic & policy.synthetic, header),
        "licence": Rule(licence & header, header),
        "decode": Rule(named["decode"], decoded),
    }


def _of_quality(table: pa.Table, policy: Policy) -> dict[str, Rule]:
    rules = {}
    for rule, column, below, limit in (
        ("blur", "blur", True, policy.min_blur),
        ("dark", "bright", True, policy.min_bright),
        ("bright", "dark", False, policy.max_dark),
        ("entropy", "entropy", True, policy.min_entropy),
        ("border", "border", False, policy.max_border),
    ):
        value = numbers(table[column])
        rules[rule] = Rule(value < limit if below else value > limit, ~np.isnan(value), value, limit)
    return rules


@dataclasses.dataclass
class _Boxes:
    """``row``: (B,) the input each box is of. ``xyxy``: (B, 4) px. ``raw``, ``score``: (B,), NaN of a weak detector."""

    row: np.ndarray
    xyxy: np.ndarray
    raw: np.ndarray
    score: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Boxes:
        flat = column.combine_chunks()
        counts = pc.fill_null(pc.list_value_length(flat), 0).to_numpy(zero_copy_only=False)
        row = np.repeat(np.arange(len(flat)), counts)
        boxes = flat.flatten()
        xyxy = boxes.field("xyxy").flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 4)
        raw, score = (numbers(boxes.field(n)) for n in ("raw_score", "score"))
        return cls(row, xyxy, raw, score)

    def side(self, reading: str) -> np.ndarray:
        """(B,) the size of each box in px under one reading of "box > 300 px"."""
        return side(self.xyxy, reading)

    def best(self, value: np.ndarray, n: int) -> np.ndarray:
        """(N,) the largest ``value`` (B,) of each input, NaN where it has no box."""
        found = np.full(n, -np.inf)
        known = ~np.isnan(value)
        np.maximum.at(found, self.row[known], value[known])
        return np.where(np.isinf(found), np.nan, found)


def _of_people(table: pa.Table, policy: Policy) -> dict[str, Rule]:
    n = len(table)
    boxes = _Boxes.of(table["boxes"])
    known = table["boxes"].is_valid().to_numpy()
    weak = pc.fill_null(table["weak"], False).to_numpy(zero_copy_only=False)
    has = np.bincount(boxes.row, minlength=n) > 0
    value = boxes.raw if policy.raw else boxes.score
    confident = np.where(weak[boxes.row], policy.accept_weak, value > policy.min_score)
    sure = np.bincount(boxes.row, confident, minlength=n) > 0
    size = boxes.side(policy.side_rule)
    fits = confident & _large(size, policy)
    large = np.bincount(boxes.row, fits, minlength=n) > 0
    rules = {
        "person": Rule(known & ~has, known, np.bincount(boxes.row, minlength=n).astype(float), 1),
        "score": Rule(has & ~sure, has, boxes.best(value, n), None if policy.accept_weak else policy.min_score),
        "box_size": Rule(sure & ~large, sure, boxes.best(np.where(confident, size, np.nan), n), policy.min_box_px),
    }
    heads = _Boxes.of(table["heads"])
    looked = table["heads"].is_valid().to_numpy() & large
    holds = _holding(boxes, fits, heads, policy, n)
    rules["head"] = Rule(
        looked & ~holds if policy.need_head else np.zeros(n, bool), looked, None, policy.min_head_score
    )
    return rules


def side(xyxy: np.ndarray, reading: str) -> np.ndarray:
    """The size in px of boxes (B, 4) under one reading of "box > 300 px": both (the shorter side), height, max_side,
    sqrt_area.
    """
    w, h = xyxy[:, 2] - xyxy[:, 0], xyxy[:, 3] - xyxy[:, 1]
    return {"both": np.minimum(w, h), "height": h, "max_side": np.maximum(w, h), "sqrt_area": np.sqrt(w * h)}[reading]


def _large(size: np.ndarray, policy: Policy) -> np.ndarray:
    return size >= policy.min_box_px if policy.at_least else size > policy.min_box_px


def _holding(boxes: _Boxes, fits: np.ndarray, heads: _Boxes, policy: Policy, n: int) -> np.ndarray:
    """(N,) whether a box that ``fits`` holds the middle of a head. Every box is laid against every head of its picture."""
    good = np.isnan(heads.score) | (heads.score > policy.min_head_score)
    row, middle = heads.row[good], (heads.xyxy[good, :2] + heads.xyxy[good, 2:]) / 2
    of, xyxy = boxes.row[fits], boxes.xyxy[fits]
    first, last = np.searchsorted(row, of, "left"), np.searchsorted(row, of, "right")
    each = last - first
    box = np.repeat(np.arange(len(of)), each)
    head = np.repeat(first, each) + np.arange(len(box)) - np.repeat(np.cumsum(each) - each, each)
    inside = np.all((middle[head] >= xyxy[box, :2]) & (middle[head] <= xyxy[box, 2:]), axis=1)
    return np.bincount(of[box[inside]], minlength=n) > 0


def _identical(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(N,) number of the bytes of each input, and (N,) whether it has any: files that could not be read are alone."""
    have = table["sha256"].is_valid().to_numpy()
    encoded = table["sha256"].combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(have, codes, len(encoded.dictionary) + np.arange(len(table))), have


def _exact(codes: np.ndarray, have: np.ndarray, passes: np.ndarray) -> np.ndarray:
    return dedup.keepers(codes, np.arange(len(codes)) + np.where(passes, 0, len(codes)))


@dataclasses.dataclass
class _Near:
    """(N,) each: ``keeper`` row, ``distance`` bits to it (NaN of the keeper itself), ``group`` number, ``several`` bool."""

    keeper: np.ndarray
    distance: np.ndarray
    group: np.ndarray
    several: np.ndarray


def _near(table: pa.Table, policy: Policy, pairs: pa.Table, passes: np.ndarray, allowed: np.ndarray) -> _Near:
    n = len(table)
    group = dedup.groups(pairs, n, policy.duplicate_distance, allowed)
    several = np.bincount(group, minlength=n)[group] > 1
    keeper, distance = np.arange(n), np.full(n, np.nan)
    rows = np.flatnonzero(several)
    if len(rows):
        some = table.take(pa.array(rows))
        pixels = numbers(some["width"]) * numbers(some["height"])
        sha = np.unique(some["sha256"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
        best_first = np.lexsort((sha, -numbers(some["bytes"]) / pixels, -pixels, ~passes[rows]))
        order = np.empty(len(rows), np.int64)
        order[best_first] = np.arange(len(rows))
        keeper[rows] = rows[dedup.keepers(group[rows], order)]
        losers = rows[keeper[rows] != rows]
        distance[losers] = dedup.between(table, losers, keeper[losers])
    return _Near(keeper, distance, group, several)


def _rows(table: pa.Table, rules: dict[str, Rule], keeper: np.ndarray, near: _Near, weight: np.ndarray) -> pa.Table:
    n = len(table)
    fails = np.stack([rules[name].fails for name in RULES], axis=1)
    kept = ~fails.any(axis=1)
    codes = pa.array([*RULES.values(), *ERRORS])
    number = {code: i for i, code in enumerate(codes.to_pylist())}
    code = np.tile(np.arange(len(RULES), dtype=np.int8), (n, 1))
    for at, name in enumerate(RULES):
        if name in TECHNICAL and rules[name].fails.any():
            own = pc.index_in(table["error"], value_set=codes).to_numpy(zero_copy_only=False)
            code[:, at] = np.where(rules[name].fails, np.nan_to_num(own, nan=number[RULES[name]]), at)
    offsets = np.concatenate([[0], np.cumsum(fails.sum(axis=1))]).astype(np.int32)
    reasons = pa.ListArray.from_arrays(pa.array(offsets), codes.take(pa.array(code[fails])))
    first = np.take_along_axis(code, fails.argmax(axis=1)[:, None], axis=1)[:, 0]
    moved = keeper != np.arange(n)
    columns = {
        "kept": pa.array(kept),
        "first_fail": codes.take(pa.array(first, mask=kept)),
        "reasons": reasons,
        "checks": _checks(rules),
        "dup_group": _group_names(table, keeper, near),
        "dup_of": table["uri"].combine_chunks().take(pa.array(keeper, mask=~moved)),
        "dup_distance": pa.array(np.nan_to_num(near.distance).astype(np.int32), mask=np.isnan(near.distance)),
        "sampling_weight": pa.array(weight, pa.float32(), mask=np.isnan(weight)),
    }
    measured = [table[name] for name in DECISIONS.names if name not in DECIDED.names]
    return pa.table([*measured, *(columns[name] for name in DECIDED.names)], schema=DECISIONS)


def _checks(rules: dict[str, Rule]) -> pa.StructArray:
    words = pa.array(STATUSES)
    found = []
    for name in RULES:
        rule = rules[name]
        status = np.where(~rule.known, 3, np.where(rule.fails, 2 if name in TECHNICAL else 1, 0)).astype(np.int8)
        n = len(status)
        measured, threshold = pa.nulls(n, pa.float32()), pa.nulls(n, pa.float32())
        if rule.measured is not None:
            measured = pa.array(rule.measured.astype(np.float32), mask=~rule.known | np.isnan(rule.measured))
        if rule.threshold is not None:
            threshold = pa.array(np.full(n, rule.threshold, np.float32))
        statuses = pa.DictionaryArray.from_arrays(pa.array(status), words).cast(STATUS)
        found.append(pa.StructArray.from_arrays([statuses, measured, threshold], fields=list(CHECK)))
    return pa.StructArray.from_arrays(found, fields=list(DECIDED.field("checks").type))


def _group_names(table: pa.Table, keeper: np.ndarray, near: _Near) -> pa.Array:
    """The smallest sha256 of a duplicate group, whatever the policy keeps of it; null where an input is alone."""
    alone = (keeper == np.arange(len(keeper))) & ~near.several
    alone[keeper[~alone]] = False
    # A copy's keeper may itself be a near-duplicate: it belongs to that one's group.
    label = near.group[keeper]
    rows = np.flatnonzero(~alone)
    names = np.full(len(table), None, object)
    if len(rows):
        sha = table["sha256"].take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(str)
        order = np.lexsort((sha, label[rows]))
        first = dedup.keepers(label[rows], np.argsort(order, kind="stable"))
        names[rows] = sha[first]
    return pa.array(names, pa.string())


def funnel(decisions: pa.Table) -> list[tuple[str, int, int]]:
    """Rule by rule, in order of cost: how many inputs came in and how many went on; a row counts at its first failure."""
    fell = dict.fromkeys(RULES, 0)
    of = {code: rule for rule, code in RULES.items()} | ERRORS
    for entry in pc.value_counts(decisions["first_fail"]).to_pylist():
        if entry["values"] is not None:
            fell[of[entry["values"]]] += entry["counts"]
    left, steps = len(decisions), []
    for rule, lost in fell.items():
        steps.append((rule, left, left - lost))
        left -= lost
    return steps


def readings(decisions: pa.Table, policy: Policy) -> dict[str, dict[str, int]]:
    """ "calibrated" and "raw" -> reading of the 300 px rule -> inputs with a box that holds score and size under it.

    Weak boxes have no score and count in none; "calibrated" is there only where a map was.
    """
    boxes = _Boxes.of(decisions["boxes"])
    kinds = {"raw": boxes.raw}
    if pc.any(pc.and_(decisions["calibrated"], pc.invert(decisions["weak"]))).as_py():
        kinds = {"calibrated": boxes.score} | kinds
    return {
        kind: {
            reading: len(np.unique(boxes.row[(value > policy.min_score) & _large(boxes.side(reading), policy)]))
            for reading in READINGS
        }
        for kind, value in kinds.items()
    }


def _in(column: pa.ChunkedArray, values: list[str]) -> np.ndarray:
    return pc.is_in(column, value_set=pa.array(values, pa.string())).to_numpy()
