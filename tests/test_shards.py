"""A dataset is what was committed, whole: through crashes, duplicate attempts, two drivers, flipped bits and full disks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import commit, view
from manifests.dataset import Dataset
from manifests.errors import InputError, ShardError, StorageError
from manifests.sealed import sealed
from manifests.shards import ShardWriter, row_of
from manifests.verify import geometry, verify
from tests import samples
from tests.conftest import ROOT


def test_rows_come_back_in_order_and_within_the_codecs_bounds(tmp_path):
    ds = Dataset(samples.dataset(tmp_path, 10, splits=("train", "test")))
    assert len(ds) == 10
    assert [r["sample_id"] for r in ds] == [f"ball-{i:04d}" for i in range(10)]
    truth, back = samples.ball(7), ds.sample(7)
    assert np.array_equal(back.mask, truth.mask)
    assert np.abs(back.depth - truth.depth).max() <= 20e-6
    assert np.array_equal(back.K, truth.K)
    assert back.people[0].asset_id == "ball/7"
    assert len(ds.filter(split="test")) == 5
    assert len(ds.filter(split="test", framing="face")) == 2
    assert verify(tmp_path) == []


def test_the_same_rows_make_the_same_bytes(tmp_path):
    a, b = samples.task(tmp_path / "a", 0, 3), samples.task(tmp_path / "b", 0, 3)
    assert a.shards == b.shards


def test_datasets_opens_a_shard_and_the_folder_with_the_image_decoded(tmp_path):
    import datasets

    folder = samples.dataset(tmp_path / "d", 6, splits=("train",))
    files = [str(p) for p in sorted((folder / "data").glob("*.arrow"))]
    one = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path / "c1"))
    assert one[0]["image"].size == (96, 128)
    card = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "c2"))
    assert len(card) == 6
    in_place = datasets.load_from_disk(str(folder / "hf" / "train"))
    assert in_place[5]["image"].size == (96, 128)
    assert in_place.features["image"].decode


def test_bare_pyarrow_opens_a_shard(tmp_path):
    folder = samples.dataset(tmp_path, 2)
    path = next((folder / "data").glob("*.arrow"))
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    assert table.num_rows == 2
    assert table.schema.field("normal").metadata[b"frame"] == b"opencv_camera"


def test_the_first_receipt_wins_and_the_loser_removes_its_own_shard(tmp_path):
    first = samples.task(tmp_path, 0, 2)
    assert commit.write_receipt(tmp_path, first)
    with ShardWriter(tmp_path, "00000000+2", "rendered") as writer:
        writer.append(row_of(samples.ball(9)))
        others = writer.close()
    late = commit.Receipt("00000000+2", "d" * 64, others, first.outcomes, {})
    assert not commit.write_receipt(tmp_path, late)
    assert [p.name for p in (tmp_path / "data").glob("*")] == [Path(first.shards[0].path).name]
    assert not commit.write_receipt(tmp_path, first)
    assert (tmp_path / first.shards[0].path).exists()


def test_two_drivers_folding_at_once_leave_one_truth(tmp_path):
    for first in range(0, 12, 2):
        commit.write_receipt(tmp_path, samples.task(tmp_path, first, 2))
    # Left as the command itself leaves: libraries' threads may abort while the interpreter shuts down, after the work.
    code = f"import os; from manifests import commit; commit.fold({str(tmp_path)!r}, 'rendered', 'd' * 64); os._exit(0)"
    drivers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(4)]
    assert [d.wait() for d in drivers] == [0, 0, 0, 0]
    assert len(Dataset(tmp_path)) == 12
    assert verify(tmp_path) == []


def test_folding_again_writes_nothing_new(tmp_path):
    samples.dataset(tmp_path, 4)
    before = sorted(p.name for p in (tmp_path / "manifest").iterdir())
    commit.fold(tmp_path, "rendered", "d" * 64)
    assert sorted(p.name for p in (tmp_path / "manifest").iterdir()) == before
    assert commit.fold(tmp_path / "empty", "rendered", "d" * 64) is None


WRITE_FOREVER = """
import resource, signal, sys; from pathlib import Path; from tests import samples; from manifests import commit
from manifests.errors import StorageError
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
first = len(commit.receipts(folder)) * 2
print("up", flush=True)
for i in range(first, 600, 2):
    try:
        commit.write_receipt(folder, samples.task(folder, i, 2)); commit.fold(folder, "rendered", "d" * 64)
    except StorageError:
        assert limit
"""


def killed_writer(folder: Path, kills: int, seed: int) -> None:
    """Two writers of the same tasks at once, one of them on a disk that may refuse, killed at random moments."""
    chance = random.Random(seed)
    for _ in range(kills // 2):
        # From "not even a manifest fits" to "a shard fits, the next one does not".
        limits = ["0", str(chance.choice([0, 500, 3000, 15_000, 40_000, 60_000]))]
        pair = [
            subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(folder), n], cwd=ROOT, stdout=subprocess.PIPE)
            for n in limits
        ]
        for process in pair:
            process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.5))
        for process in pair:
            # Killed, or at the end of its tasks: never gone by an error.
            assert process.poll() in (None, 0)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    commit.collect_orphans(folder, min_age_s=0)
    manifest = commit.fold(folder, "rendered", "d" * 64)
    assert manifest is not None
    assert verify(folder) == []
    ids = [r["sample_id"] for r in Dataset(folder)]
    assert len(ids) == len(set(ids)) == manifest["rows"]
    done = sorted(o.sample_id for r in commit.receipts(folder).values() for o in r.outcomes)
    assert sorted(ids) == done
    assert {f"data/{p.name}" for p in (folder / "data").iterdir()} == {s["path"] for s in manifest["shards"]}
    assert not [p for p in (folder / "tmp").iterdir() if p.is_file()]


def test_a_writer_killed_at_random_moments_loses_and_doubles_nothing(tmp_path):
    killed_writer(tmp_path, 20, seed=0)


@pytest.mark.soak
def test_two_hundred_kills_of_a_writer(tmp_path):
    killed_writer(tmp_path, 200, seed=1)


def test_an_error_while_writing_leaves_no_file(tmp_path):
    def interrupted() -> None:
        with ShardWriter(tmp_path, "00000000+1", "rendered") as writer:
            for i in range(40):
                writer.append(row_of(samples.ball(i)))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_no_rows_make_no_shard(tmp_path):
    with ShardWriter(tmp_path, "00000000+1", "rendered") as writer:
        assert writer.close() == []


def test_every_flipped_bit_is_found(tmp_path):
    folder = samples.dataset(tmp_path, 4, per_task=2)
    files = [p for kind in ("data/*", "receipts/*", "manifest/*", "index/*") for p in sorted(folder.glob(kind))]
    chance = random.Random(3)
    for trial in range(60):
        path = files[trial % len(files)]
        raw = path.read_bytes()
        at, bit = chance.randrange(len(raw)), chance.randrange(8)
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
        found = verify(folder)
        path.write_bytes(raw)
        assert found, f"{path.name} byte {at} bit {bit}"
    assert verify(folder) == []


def test_truncation_and_loss_are_found_and_named(tmp_path):
    folder = samples.dataset(tmp_path, 4, per_task=2)
    path = sorted((folder / "data").glob("*"))[0]
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert path.name in verify(folder)[0]
    with pytest.raises(ShardError, match="maquette verify"):
        list(Dataset(folder))
    path.unlink()
    assert "No such file" in verify(folder)[0]


def test_a_disk_that_refuses_is_a_storage_error_that_says_what_to_do(tmp_path):
    code = """
import resource, signal, sys; from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
from tests import samples; from manifests.errors import StorageError
try: samples.task(Path(sys.argv[1]), 0, 4)
except StorageError as error: print(error); sys.exit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stdout
    assert "free space" in done.stdout
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StorageError):
            samples.task(tmp_path / "locked", 0, 1)


def test_geometry_that_is_not_is_named():
    for change, expected in (
        (lambda s: s.depth.__setitem__((0, 0), 1.0), "outside the mask"),
        (lambda s: s.normal.__imul__(0.9), "not unit"),
        (lambda s: s.K.__setitem__((0, 2), 900.0), "principal point"),
        (lambda s: s.world_to_camera.__setitem__((0, 0), 2.0), "rigid"),
        (lambda s: s.people[0].box.__setitem__(2, 5.0), "box"),
        (lambda s: s.mask.__imul__(7), "not listed"),
    ):
        sample = samples.ball(0)
        assert geometry(sample) == []
        change(sample)
        assert any(expected in p for p in geometry(sample)), expected


def test_a_folder_that_is_no_dataset_says_so(tmp_path):
    with pytest.raises(InputError, match="no dataset here"):
        Dataset(tmp_path)
    assert verify(tmp_path) == [f"{tmp_path}: no manifest"]
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest/00000000.json").write_bytes(sealed({"number": 0, "shards": []}))
    with pytest.raises(InputError, match="older Maquette"):
        Dataset(tmp_path)


def test_summary_and_pictures(tmp_path):
    import cv2

    folder = samples.dataset(tmp_path, 3, splits=("train", "test"))
    assert view.summary(folder)["splits"] == {"train": 2, "test": 1}
    picture = cv2.imdecode(np.frombuffer(view.row_png(Dataset(folder)[0]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (128 + 22, 4 * 96, 3)
