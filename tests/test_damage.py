"""Damage of any kind to any file is found, and what can be brought back is brought back."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from manifests import commit, rewrite
from manifests.dataset import Dataset
from manifests.errors import MaquetteError, ShardError
from manifests.index import row_hash
from manifests.repair import repair
from manifests.verify import verify
from tests import samples

KINDS = ("data/*", "receipts/*", "manifest/*", "index/*", "rewrites/*", "tombstones/*", "columns/*")


def rich(folder: Path) -> Path:
    """A dataset whose ledger holds one of everything: tasks, a compaction, a tombstone, added columns."""
    import pyarrow as pa

    from manifests import columns

    samples.dataset(folder, 6, per_task=2)
    rewrite.compact(folder, 120_000)
    commit.write_receipt(folder, samples.task(folder, 6, 2))
    commit.fold(folder, "rendered", "d" * 64)
    rewrite.withdraw(folder, ["ball-0003"], "test")
    schema = pa.schema([("sample_id", pa.string()), ("caption", pa.string())])
    columns.add(folder, "words", [{"sample_id": "ball-0002", "caption": "two"}], schema)
    commit.collect_orphans(folder, min_age_s=0)
    return folder


def flip(path: Path, chance: random.Random) -> str:
    raw = path.read_bytes()
    at, bit = chance.randrange(len(raw)), chance.randrange(8)
    path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
    return f"{path.name} byte {at} bit {bit}"


def cut(path: Path, chance: random.Random) -> str:
    raw = path.read_bytes()
    length = chance.randrange(len(raw))
    path.write_bytes(raw[:length])
    return f"{path.name} cut to {length}"


def damaged(folder: Path, harm, count: int, seed: int) -> None:
    files = [p for kind in KINDS for p in sorted(folder.glob(kind))]
    chance = random.Random(seed)
    for trial in range(count):
        path = files[trial % len(files)]
        raw = path.read_bytes()
        what = harm(path, chance)
        assert verify(folder), what
        path.write_bytes(raw)
    assert verify(folder) == []


def test_flipped_bits_and_cuts_in_every_kind_of_file_are_found(tmp_path):
    folder = rich(tmp_path)
    assert verify(folder) == []
    damaged(folder, flip, 100, seed=0)
    damaged(folder, cut, 10, seed=1)


@pytest.mark.soak
def test_a_thousand_flipped_bits_and_a_hundred_cuts_are_found(tmp_path):
    folder = rich(tmp_path)
    damaged(folder, flip, 1000, seed=2)
    damaged(folder, cut, 100, seed=3)


def mended(template: Path, work: Path, count: int, seed: int) -> None:
    """Harm one file of a copy, repair without any renderer: sound rows are back to the bit, the others are named."""
    truth = {r["sample_id"]: row_hash({k: v for k, v in r.items() if k != "caption"}) for r in Dataset(template)}
    files = [p.relative_to(template) for kind in KINDS for p in sorted(template.glob(kind))]
    chance = random.Random(seed)
    for trial in range(count):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work)
        path = work / files[trial % len(files)]
        what = (flip if chance.random() < 0.7 else cut)(path, chance)
        done = repair(work, rerun=False)
        assert done.remaining == [], f"{what}: {done}"
        back = {r["sample_id"]: row_hash({k: v for k, v in r.items() if k != "caption"}) for r in Dataset(work)}
        lost = set(truth) - set(back)
        assert back == {k: v for k, v in truth.items() if k not in lost}, what
        assert lost <= set(done.lost), f"{what}: {done}"
        assert not lost or path.parent.name == "data", what
        assert "ball-0003" not in back, what


def test_repair_brings_back_sound_rows_and_names_the_rest(tmp_path):
    mended(rich(tmp_path / "t"), tmp_path / "w", 40, seed=4)


@pytest.mark.soak
def test_four_hundred_repairs(tmp_path):
    mended(rich(tmp_path / "t"), tmp_path / "w", 400, seed=5)


def test_a_flipped_pixel_costs_one_row_and_a_cut_shard_its_tail(tmp_path):
    folder = samples.dataset(tmp_path / "a", 4, per_task=4)
    path = next((folder / "data").iterdir())
    label = Dataset(folder).labels[1]
    raw = bytearray(path.read_bytes())
    blob = Dataset(folder)[1]["image"]["bytes"]
    raw[raw.index(blob) + 50] ^= 1
    path.write_bytes(raw)
    done = repair(folder, rerun=False)
    assert done.lost == [label["sample_id"]]
    assert done.salvaged == 3
    assert len(Dataset(folder)) == 3
    # The second shard's rows lie in batches of their own: a cut through the last batch leaves the first.
    folder = samples.dataset(tmp_path / "b", 20, per_task=20)
    path = next((folder / "data").iterdir())
    path.write_bytes(path.read_bytes()[:-2000])
    done = repair(folder, rerun=False)
    assert done.lost == [f"ball-{i:04d}" for i in range(16, 20)]
    assert len(Dataset(folder)) == 16
    assert done.remaining == []


def test_a_task_that_can_run_again_is_queued_with_its_shard_put_aside(tmp_path):
    folder = samples.dataset(tmp_path, 4, per_task=2)
    before = {p.name: p.read_bytes() for p in (folder / "data").iterdir()}
    flip(sorted((folder / "data").iterdir())[1], random.Random(0))
    done = repair(folder, rerun=True)
    assert done.requeued == ["task 00000002+2"]
    assert done.lost == []
    assert sorted(commit.receipts(folder)) == ["00000000+2"]
    assert len(list((folder / "quarantine").iterdir())) == 2
    commit.write_receipt(folder, samples.task(folder, 2, 2))
    commit.fold(folder, "rendered", "d" * 64)
    assert {p.name: p.read_bytes() for p in (folder / "data").iterdir()} == before
    assert verify(folder) == []


def test_a_damaged_manifest_is_never_passed_over_in_silence(tmp_path):
    folder = samples.dataset(tmp_path, 4, per_task=2)
    commit.write_receipt(folder, samples.task(folder, 4, 2))
    commit.fold(folder, "rendered", "d" * 64)
    newest = sorted((folder / "manifest").iterdir())[-1]
    newest.write_bytes(newest.read_bytes().replace(b'"rows": 6', b'"rows": 4'))
    for use in (Dataset, lambda f: commit.fold(f, "rendered", "d" * 64)):
        with pytest.raises(ShardError, match="maquette repair"):
            use(folder)
    assert repair(folder, rerun=False).remaining == []
    assert len(Dataset(folder)) == 6


def test_a_dataset_of_which_nothing_can_be_read_says_so(tmp_path):
    folder = samples.dataset(tmp_path, 2)
    for path in [*(folder / "manifest").iterdir(), *(folder / "receipts").iterdir()]:
        path.write_bytes(b"\x00")
    with pytest.raises(MaquetteError, match="nothing is left to build on"):
        repair(folder, rerun=False)
