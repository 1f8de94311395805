"""Curation: one decision for every input, the right reason, the same answer in any order, through real Ray."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curation import dedup
from curation.decide import decide, funnel, readings, side
from curation.stage import READINGS, RULES
from manifests import commit
from manifests.curation import Policy
from manifests.dataset import Dataset
from manifests.errors import JobError
from manifests.job import check
from manifests.verify import verify
from tests import photos, runs
from tests.photos import measured, settings

NONE = dedup.PAIRS.empty_table()


def decisions(rows: list[dict], policy: Policy | None = None, pairs: pa.Table = NONE, **more) -> list[dict]:
    return decide(photos.table(rows), policy or settings(), pairs, **more).to_pylist()


def decision(row: dict, policy: Policy | None = None) -> dict:
    return decisions([row], policy)[0]


def test_score_and_size_must_hold_for_the_same_box():
    assert decision(measured("a", [((0, 0, 400, 400), 0.95)]))["kept"]
    split = decision(measured("a", [((0, 0, 400, 400), 0.5), ((0, 0, 50, 50), 0.95)]))
    assert split["first_fail"] == "small_box"
    assert decision(measured("a", [((0, 0, 400, 400), 0.5)]))["first_fail"] == "low_score"
    assert decision(measured("a"))["first_fail"] == "no_person"


def test_thresholds_are_strict_and_sapiens2_is_at_least():
    assert decision(measured("a", [((0, 0, 300, 400), 0.95)]))["first_fail"] == "small_box"
    assert decision(measured("a", [((0, 0, 301, 400), 0.9)]))["first_fail"] == "low_score"
    assert decision(measured("a", [((0, 0, 301, 400), 0.901)]))["kept"]
    second = Policy(preset="sapiens2")
    assert decision(measured("a", [((0, 0, 384, 400), 0.95)]), second)["kept"]
    assert decision(measured("a", [((0, 0, 383.9, 400), 0.95)]), second)["first_fail"] == "small_box"
    assert Policy(preset="sapiens2", min_box_px=100).min_box_px == 100


def test_side_rules_read_the_paper_four_ways():
    box = [0.0, 0.0, 200.0, 500.0]
    sizes = [float(side(np.array([box]), r)[0]) for r in READINGS]
    assert sizes == [200.0, 500.0, 500.0, pytest.approx(316.2, abs=0.1)]
    row = measured("a", [(box, 0.95)])
    kept = {r: decision(row, settings(side_rule=r))["kept"] for r in READINGS}
    expected = {"both": False, "height": True, "max_side": True, "sqrt_area": True}
    assert kept == expected
    table = decide(photos.table([row, measured("b", [(box, 0.2)])]), settings(), NONE)
    counted = {r: int(v) for r, v in expected.items()}
    assert readings(table, settings()) == {"calibrated": counted, "raw": counted}


def test_raw_and_calibrated_scores_are_held_apart():
    row = measured("a")
    row["boxes"] = [{"xyxy": [0.0, 0.0, 400.0, 400.0], "raw_score": 0.7, "score": 0.95}]
    assert decision(row)["kept"]
    assert decision(row, Policy(raw=True))["first_fail"] == "low_score"
    table = decide(photos.table([row]), settings(), NONE)
    assert readings(table, settings())["calibrated"]["both"] == 1
    assert readings(table, settings())["raw"]["both"] == 0


def test_a_weak_detector_never_passes_by_score_and_only_when_accepted():
    row = measured("a", [((0, 0, 400, 400), None)], weak=True)
    refused, accepted = decision(row), decision(row, settings(accept_weak=True))
    assert refused["first_fail"] == "low_score"
    assert accepted["kept"]
    assert accepted["checks"]["score"]["threshold"] is None
    table = decide(photos.table([row]), settings(accept_weak=True), NONE)
    assert sum(readings(table, settings(accept_weak=True))["raw"].values()) == 0


def test_a_head_must_lie_in_the_persons_box_where_a_head_detector_looked():
    row = measured("a", [((100, 100, 600, 900), 0.95)])
    policy = Policy(preset="sapiens2")
    assert decision(row, policy)["kept"]

    def head(x, y, score=0.9):
        box = {"xyxy": [x - 20, y - 20, x + 20, y + 20], "raw_score": score, "score": score}
        return decision(row | {"heads": [box]}, policy)["first_fail"]

    assert head(350.0, 150.0) is None
    assert head(50.0, 150.0) == "no_head"
    assert head(350.0, 150.0, 0.4) == "no_head"
    assert decision(row | {"heads": []}, policy)["first_fail"] == "no_head"


@pytest.mark.parametrize(
    ("changes", "policy", "code"),
    [
        ({"blur": 3.0}, {}, "blur"),
        ({"bright": 20.0}, {}, "dark"),
        ({"dark": 250.0}, {}, "overexposed"),
        ({"entropy": 1.0}, {}, "low_info"),
        ({"border": 0.8}, {}, "flat_border"),
        ({"width": 3000, "height": 400}, {}, "aspect"),
        ({"width": 200}, {}, "too_small"),
        ({"optout": "robots: noai"}, {}, "optout"),
        ({"optout": "robots: noai"}, {"optout": False}, None),
        ({"synthetic": "Midjourney"}, {}, "synthetic_tag"),
        ({"licence": "all rights reserved"}, {"licences": ["x"]}, "licence"),
    ],
)
def test_every_rule_has_its_reason(changes, policy, code):
    row = measured("a", [((0, 0, 400, 400), 0.95)], **changes)
    assert decision(row, Policy(**policy))["first_fail"] == code


def test_all_reasons_are_told_and_what_was_not_reached_is_skipped():
    row = decision(measured("a", [((0, 0, 40, 40), 0.95)], blur=1.0, entropy=1.0))
    assert row["reasons"] == ["blur", "low_info", "small_box"]
    assert row["first_fail"] == "blur"
    broken = measured("b", error="corrupt", stopped="decode", blur=None, boxes=None)
    assert decision(broken)["checks"]["decode"]["status"] == "error"
    assert decision(broken)["checks"]["person"]["status"] == "skipped"
    assert decision(broken)["checks"]["min_side"]["status"] == "pass"


def test_a_looser_policy_says_what_it_cannot_know():
    row = measured("a", width=200, stopped="provenance", boxes=None, blur=None)
    assert decision(row)["reasons"] == ["too_small"]
    assert decision(row, Policy(min_side_px=100))["reasons"] == ["not_measured"]


def test_a_tombstone_removes_every_copy_and_no_twin_takes_its_place():
    good = [((0, 0, 400, 400), 0.95)]
    rows = [
        measured("a", good, sha256="s", url="http://x/1"), measured("b", good, sha256="s"), measured("c", good, width=500),
        measured("d", good),
    ]  # fmt: skip
    pairs = pa.table([[0], [2], [3]], schema=dedup.PAIRS)
    for name in ("s", "http://x/1"):
        found = {d["uri"]: d["reasons"] for d in decisions(rows, pairs=pairs, tombstones=frozenset({name}))}
        assert found == {"a": ["tombstone"], "b": ["dup_exact", "tombstone"], "c": ["dup_near"], "d": []}


def test_duplicates_choose_the_same_winner_in_any_order():
    good = [((0, 0, 400, 400), 0.95)]
    rows = [
        measured("m-large", good), measured("b-small", good, width=500, height=500), measured("z-copy", good, sha256="m-large"),
        measured("k-unfit", width=4000, height=4000), measured("other", good),
    ]  # fmt: skip
    # Rows in order of uri: b-small 0, k-unfit 1, m-large 2, other 3, z-copy 4.
    pairs = pa.table([[0, 0, 1], [1, 2, 2], [10, 12, 6]], schema=dedup.PAIRS)
    expected = {
        "m-large": (True, None, None),
        "b-small": (False, "m-large", "dup_near"),
        "k-unfit": (False, "m-large", "no_person"),
        "z-copy": (False, "m-large", "dup_exact"),
        "other": (True, None, None),
    }
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        found = decisions(rows, pairs=pairs)
        assert {d["uri"]: (d["kept"], d["dup_of"], d["first_fail"]) for d in found} == expected
        assert len({d["dup_group"] for d in found if d["uri"] != "other"}) == 1


def test_the_funnel_adds_up_and_every_input_has_a_row():
    rows = [
        measured("a", [((0, 0, 400, 400), 0.95)]), measured("b"), measured("c", error="corrupt", stopped="decode", boxes=None),
        measured("d", width=100, height=90), measured("e", [((0, 0, 40, 40), 0.95)]), measured("f", error="empty", stopped="read"),
    ]  # fmt: skip
    table = decide(photos.table(rows), settings(), NONE)
    steps = funnel(table)
    assert table["first_fail"].to_pylist() == [None, "no_person", "corrupt", "too_small", "small_box", "empty"]
    assert [s[0] for s in steps] == list(RULES)
    assert steps[0][1] == 6
    assert steps[-1][2] == 1
    assert all(a[2] == b[1] for a, b in itertools.pairwise(steps))


def test_a_second_policy_changes_only_the_decision_columns(tmp_path):
    from curation.stage import DECIDED
    from manifests.errors import InputError
    from pipeline.curate_commands import decide as command

    rng = np.random.default_rng(0)
    rows = [measured(f"{i:03d}", [((0, 0, *rng.uniform(100, 600, 2)), float(rng.random()))]) for i in range(200)]
    folder = tmp_path / "curate"
    folder.mkdir()
    with pytest.raises(InputError, match="no complete measurements"):
        command(tmp_path, _policy(tmp_path, "first", {}))
    pq.write_table(photos.table(rows), folder / "measured.parquet")
    pq.write_table(NONE, folder / "pairs.parquet")
    tables = []
    for name, rules in (("first", {"min_score": 0.5}), ("second", {"min_score": 0.2, "side_rule": "height"})):
        command(tmp_path, _policy(tmp_path, name, rules))
        tables.append(pq.read_table(folder / "decisions" / f"{name}.parquet"))
    changed = [n for n in tables[0].column_names if not tables[0][n].equals(tables[1][n])]
    assert changed
    assert set(changed) <= set(DECIDED.names)
    with pytest.raises(JobError, match="unknown rule"):
        command(tmp_path, _policy(tmp_path, "third", {"min_scores": 1}))


def _policy(folder, name: str, rules: dict):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(rules))
    return path


def test_a_preset_without_a_map_is_refused_unless_raw(tmp_path, shared):
    from manifests.job import Job
    from pipeline.curate import _engine
    from tests.onnx import constant_model

    (tmp_path / "own.onnx").write_bytes(constant_model({"out": np.zeros((1, 3549, 85), np.float32)}))
    stage = {"sources": [{"path": "bundled"}], "preset": "sapiens", "detector": {"kind": "onnx", "weights": "own.onnx"}}
    job: Job = check({"name": "x", "curate": stage})
    with pytest.raises(JobError, match="maquette calibrate"):
        _engine(job.curate, tmp_path)
    assert _engine(check({"name": "x", "curate": stage | {"raw": True}}).curate, tmp_path)


@pytest.mark.engine
def test_a_folder_with_broken_files_runs_through_ray_and_resumes_to_the_same_bytes(tmp_path, cluster):
    folder = tmp_path / "photos"
    folder.mkdir()
    made = np.random.default_rng(0).integers(0, 256, (400, 350, 3), dtype=np.uint8)
    data = photos.encoded(made)
    (folder / "noise.jpg").write_bytes(data)
    (folder / "cut.jpg").write_bytes(data[:5000])
    (folder / "page.jpg").write_bytes(b"<html>")
    (folder / "empty.png").touch()
    job = tmp_path / "job.yaml"
    stage = {
        "sources": [{"path": "photos"}, {"path": "bundled"}],
        "accept_weak": True,
        "min_box_px": 100,
        "min_side_px": 200,
        "partition": 4,
    }
    job.write_text(yaml.safe_dump({"name": "c", "runs": str(tmp_path / "runs"), "curate": stage}))
    code, said = runs.maquette("curate", job, "--address", cluster)
    assert code == 0, said
    assert "Traceback" not in said
    out = tmp_path / "runs/c/curate"
    rows = pq.read_table(out / "decisions/decisions.parquet").to_pylist()
    reason = {d["uri"]: d["first_fail"] for d in rows}
    assert reason["photos/cut.jpg"] == "corrupt"
    assert reason["photos/page.jpg"] == "format"
    assert reason["photos/empty.png"] == "empty"
    assert reason["photos/noise.jpg"] == "no_person"
    assert reason["bundled/probes/truncated.jpg"] == "corrupt"
    assert "dup_exact" in (
        reason["bundled/probes/copy_of_grace_hopper.jpg"],
        reason["bundled/matplotlib/grace_hopper.jpg"],
    )
    assert len(reason) == len(rows)
    kept = [d for d in rows if d["kept"]]
    assert len(kept) == len(Dataset(out)) >= 1
    assert verify(out) == []
    before = runs.shards(out)
    measured_at = {p: p.stat().st_mtime_ns for p in (out / "measurements").iterdir()}
    assert len(measured_at) == -(-len(rows) // 4)
    (out / "decisions/decisions.parquet").unlink()
    (out / "measured.parquet").unlink()
    for path in (out / "receipts").iterdir():
        path.unlink()
    code, said = runs.maquette("curate", job, "--address", cluster)
    assert code == 0, said
    assert runs.shards(out) == before
    assert {p: p.stat().st_mtime_ns for p in (out / "measurements").iterdir()} == measured_at
    assert pq.read_table(out / "decisions/decisions.parquet").to_pylist() == rows
    assert commit.newest_manifest(out)["kind"] == "curated"
