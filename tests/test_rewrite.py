"""Compacting, withdrawing, merging, splitting, filtering and adding columns keep every row that should stay, to the bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import codecs, columns, commit, rewrite
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.index import row_hash
from manifests.sealed import sealed
from manifests.verify import verify
from tests import samples
from tests.conftest import ROOT

SPLITS = ("train", "train", "val", "test")


def hashes(dataset: Dataset) -> dict[str, str]:
    """sample id -> hash of its row without the number it has in its dataset."""
    return {r["sample_id"]: row_hash({**r, "index": 0}) for r in dataset}


def test_compacting_changes_files_and_no_row(tmp_path):
    folder = samples.dataset(tmp_path, 12, per_task=2, splits=SPLITS)
    before = Dataset(folder)
    rows, files = hashes(before), len(before.manifest["shards"])
    replaced = rewrite.compact(folder)
    after = Dataset(folder)
    assert len(after.manifest["shards"]) == 3 < files
    assert set(replaced) == {s["path"] for s in before.manifest["shards"]}
    assert hashes(after) == rows
    assert [r["index"] for r in after] == list(range(12))
    assert verify(folder) == []
    assert rewrite.compact(folder) == []
    assert hashes(before) == rows, "a reader of the older manifest goes on"
    commit.drop_history(folder)
    commit.collect_orphans(folder, min_age_s=0)
    assert len(list((folder / "data").iterdir())) == 3
    assert verify(folder) == []
    # New tasks go on beside the compacted shards, and a manifest made from the ledger alone says the same.
    commit.write_receipt(folder, samples.task(folder, 12, 2, SPLITS))
    commit.fold(folder, "rendered", "d" * 64)
    assert len(Dataset(folder)) == 14
    rebuilt = commit.fold(folder, "rendered", "d" * 64, rebuild=True)
    assert rebuilt["shards"] == Dataset(folder).manifest["shards"]
    assert verify(folder) == []


def test_two_compactions_at_once_keep_each_row_once(tmp_path):
    folder = samples.dataset(tmp_path, 12, per_task=2)
    # Left as the command itself leaves: libraries' threads may abort while the interpreter shuts down, after the work.
    code = "import os, sys; from manifests import rewrite; rewrite.compact(sys.argv[1], int(sys.argv[2])); os._exit(0)"
    sizes = ("60000", "90000", "1000000", "1000000")
    runs = [subprocess.Popen([sys.executable, "-c", code, str(folder), size], cwd=ROOT) for size in sizes]
    assert [r.wait() for r in runs] == [0] * len(sizes)
    assert sorted(r["sample_id"] for r in Dataset(folder)) == [f"ball-{i:04d}" for i in range(12)]
    assert verify(folder) == []


def test_withdrawn_samples_leave_index_card_views_shards_and_columns(tmp_path):
    folder = samples.dataset(tmp_path, 8, per_task=4, splits=("train",))
    schema = pa.schema([("sample_id", pa.string()), ("embedding", pa.list_(pa.float32(), 4))])
    ids = [r["sample_id"] for r in Dataset(folder).labels]
    columns.add(folder, "clip", ({"sample_id": i, "embedding": [1.0] * 4} for i in ids), schema)
    rows = hashes(Dataset(folder))
    assert rewrite.withdraw(folder, ["ball-0001", "never-was"], "consent withdrawn") == ["ball-0001"]
    after = Dataset(folder)
    assert hashes(after) == {k: v for k, v in rows.items() if k != "ball-0001"}
    assert verify(folder) == []
    assert after.manifest["withdrawn"] == ["ball-0001"]
    assert after.manifest["pending"] == []
    # Its bytes are nowhere: receipts name it, as they name what was done.
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name not in ("receipts", "tombstones", "manifest"):
            assert b"ball-0001" not in path.read_bytes(), path
    import datasets

    opened = datasets.load_from_disk(str(folder / "hf/train"))
    assert sorted(opened["sample_id"]) == sorted(after.labels.table["sample_id"].to_pylist())
    # A fold from the ledger alone does not bring it back.
    assert commit.fold(folder, "rendered", "d" * 64, rebuild=True)["rows"] == 7
    with pytest.raises(InputError, match="holds none"):
        rewrite.withdraw(folder, ["never-was"], "")


def test_while_a_withdrawal_is_pending_its_shard_is_hidden_from_other_readers(tmp_path):
    folder = samples.dataset(tmp_path, 8, per_task=4, splits=("train",))
    (folder / "tombstones").mkdir()
    (folder / "tombstones/half.json").write_bytes(sealed({"ids": ["ball-0001"], "why": "killed before compacting"}))
    manifest = commit.fold(folder, "rendered", "d" * 64)
    touched = manifest["pending"]
    assert len(touched) == 1
    assert touched[0] not in (folder / "README.md").read_text()
    assert touched[0] not in (folder / "hf/train/state.json").read_text()
    assert "ball-0001" not in {r["sample_id"] for r in Dataset(folder)}
    assert verify(folder) == []
    rewrite.compact(folder)
    assert Dataset(folder).manifest["pending"] == []
    assert verify(folder) == []


def test_filters_read_labels_alone_and_slices_are_views(tmp_path):
    folder = samples.dataset(tmp_path, 12, per_task=4, splits=SPLITS)
    ds = Dataset(folder)
    for shard in (folder / "data").iterdir():
        shard.unlink()
    assert len(ds.filter(split="train")) == 6
    assert len(ds.filter(split=["val", "test"], framing="face")) == 2
    assert [r["sample_id"] for r in ds.filter(assets="ball/3").labels] == ["ball-0003"]
    assert len(ds.filter(lambda t: pc.greater(t["index"], 8))) == 3
    assert [r["index"] for r in ds[2:8:2].labels] == [2, 4, 6]
    assert ds[-3:].labels[0]["index"] == 9
    assert ds.labels[-1]["index"] == 11
    with pytest.raises(InputError, match="no label 'sharpness'"):
        ds.filter(sharpness=3)
    with pytest.raises(IndexError):
        ds[12]
    # pandas and DuckDB read the index as it is.
    assert pq.read_table(folder / ds.manifest["index"]).to_pandas()["people"].sum() == 12


def test_added_columns_join_by_id_without_a_rewrite(tmp_path):
    folder = samples.dataset(tmp_path, 6, per_task=3)
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "data").iterdir()}
    plane = np.full((128, 96), 7, np.uint8)
    schema = pa.schema([("sample_id", pa.string()), ("segmentation", pa.binary()), ("caption", pa.string())])
    rows = [
        {"sample_id": f"ball-{i:04d}", "segmentation": codecs.encode_u8(plane), "caption": f"no. {i}"} for i in (4, 1)
    ]
    columns.add(folder, "parts", rows, schema)
    ds = Dataset(folder)
    assert ds[4]["caption"] == "no. 4"
    assert ds[0]["caption"] is None
    assert np.array_equal(ds.sample(1).segmentation, plane)
    assert ds.sample(0).segmentation is None
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "data").iterdir()} == before
    assert verify(folder) == []
    assert "parts" in (folder / "README.md").read_text()
    for bad, message in (
        ([{"sample_id": "nobody"}], "no sample of this dataset"),
        ([{"sample_id": "ball-0001"}] * 2, "stands twice"),
    ):
        with pytest.raises(InputError, match=message):
            columns.add(folder, "other", bad, pa.schema([("sample_id", pa.string()), ("x", pa.int32())]))
    with pytest.raises(InputError, match="has them already"):
        columns.add(folder, "parts", [], schema)
    path = folder / ds.manifest["columns"][0]["path"]
    raw = path.read_bytes()
    path.write_bytes(raw[:-40] + b"X" + raw[-39:])
    assert any(path.name in p for p in verify(folder))


def test_filter_merge_and_split_make_datasets_of_the_same_rows(tmp_path):
    a = samples.dataset(tmp_path / "a", 8, per_task=4, splits=SPLITS)
    rows = hashes(Dataset(a))
    schema = pa.schema([("sample_id", pa.string()), ("caption", pa.string())])
    columns.add(a, "words", [{"sample_id": "ball-0002", "caption": "two"}], schema)
    parts = rewrite.split(Dataset(a), tmp_path / "parts", "split")
    assert parts == {"test": 2, "train": 4, "val": 2}
    assert Dataset(tmp_path / "parts/val")[0]["caption"] == "two"
    merged = tmp_path / "merged"
    assert rewrite.merge([tmp_path / "parts" / v for v in parts], merged) == 8
    back = Dataset(merged)
    assert hashes_without_words(back) == rows
    assert [r["index"] for r in back.labels] == list(range(8))
    assert verify(merged) == []
    assert rewrite.subset(Dataset(a).filter(framing="face"), tmp_path / "faces") == 3
    assert verify(tmp_path / "faces") == []
    with pytest.raises(InputError, match="comes twice"):
        rewrite.merge([a, merged], tmp_path / "twice")
    with pytest.raises(InputError, match="there already"):
        rewrite.merge([a], merged)
    with pytest.raises(InputError, match="no row is left"):
        rewrite.subset(Dataset(a).filter(framing="none"), tmp_path / "none")
    with pytest.raises(InputError, match="no such label"):
        rewrite.split(Dataset(a), tmp_path / "x", "colour")


def hashes_without_words(dataset: Dataset) -> dict[str, str]:
    return {r["sample_id"]: row_hash({k: v for k, v in r.items() if k != "caption"} | {"index": 0}) for r in dataset}
