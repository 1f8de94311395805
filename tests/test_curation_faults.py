"""Curation that is killed: the same command again gives the same output, and a file that kills its worker is named."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from tests import runs
from tests.photos import cloud, encoded


def corpus(folder: Path, n: int) -> None:
    folder.mkdir()
    for i in range(n):
        data = encoded(cloud(i), quality=90)
        (folder / f"{i:03d}.jpg").write_bytes(data[: len(data) // 2] if i % 7 == 3 else data)


def job(tmp_path: Path, name: str, **changes) -> Path:
    stage = {
        "sources": [{"path": "photos"}, {"path": "bundled"}],
        "accept_weak": True,
        "min_side_px": 100,
        "partition": 3,
    } | changes
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "runs": str(tmp_path / "runs"), "curate": stage}))
    return path


def decisions(folder: Path) -> list[dict]:
    """All rows but what two runs may differ in: milliseconds, and the folder of the run's own copy of bundled pictures."""
    rows = pq.read_table(folder / "decisions/decisions.parquet").to_pylist()
    return [{k: v for k, v in r.items() if k != "ms"} | {"file": r["file"].removeprefix(str(folder))} for r in rows]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """name -> (inode, mtime) of finished partitions."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("measurements/*.parquet")}


@pytest.mark.engine
@pytest.mark.parametrize("kills", [pytest.param(1), pytest.param(20, marks=pytest.mark.soak)])
def test_killed_curation_goes_on_and_ends_with_the_same_output(tmp_path, cluster, kills):
    # At most three of the partitions of three are finished between two kills.
    corpus(tmp_path / "photos", 9 * kills + 6)
    code, said = runs.maquette("curate", job(tmp_path, "whole"), "--address", cluster, timeout=600)
    assert code == 0, said
    chance, done = random.Random(0), {}
    broken = job(tmp_path, "broken")
    folder = tmp_path / "runs/broken/curate"
    for _ in range(kills):
        process = runs.start("curate", broken)
        deadline = time.monotonic() + 120
        wanted = len(done) + chance.randint(1, 3)
        # A moment of its own choosing after so many partitions: in the middle of others.
        while len(state(folder)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.random())
        everything = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        os.killpg(process.pid, signal.SIGKILL)
        for child in everything:
            if child.is_running():
                child.kill()
        process.communicate()
        now = state(folder)
        assert all(now[name] == at for name, at in done.items())
        done = now
    code, said = runs.maquette("curate", broken, "--address", cluster)
    assert code == 0, said
    assert all(state(folder)[name] == at for name, at in done.items())
    assert decisions(folder) == decisions(tmp_path / "runs/whole/curate")
    assert sum(not d["kept"] for d in decisions(folder)) >= 3
    whole = runs.shards(tmp_path / "runs/whole/curate")
    assert whole
    assert {n.split("-")[0] for n in runs.shards(folder)} == {n.split("-")[0] for n in whole}
    assert runs.shards(folder) == whole


@pytest.mark.engine
def test_a_picture_that_kills_its_worker_is_found_and_named(tmp_path, cluster):
    corpus(tmp_path / "photos", 6)
    # 96 megapixels of one shade are 300 kB on disk and 290 MB and more in memory, past the limit of the watchdog.
    (tmp_path / "photos/002-killer.png").write_bytes(encoded(np.full((8000, 12000, 3), 9, np.uint8), "PNG"))
    code, said = runs.maquette(
        "curate",
        job(tmp_path, "k", max_rss_mb=500, workers=1, sources=[{"path": "photos"}]),
        "--address",
        cluster,
        timeout=400,
    )
    assert code == 0, said
    rows = {d["uri"]: d for d in decisions(tmp_path / "runs/k/curate")}
    assert len(rows) == 7
    killer = rows.pop("photos/002-killer.png")
    assert killer["first_fail"] == "kills_worker"
    assert "max_rss_mb" in killer["error_detail"]
    assert all(d["first_fail"] != "kills_worker" for d in rows.values())


@pytest.mark.engine
def test_a_longer_tombstone_list_takes_pictures_out_of_a_finished_dataset(tmp_path, cluster):
    from manifests.dataset import Dataset

    corpus(tmp_path / "photos", 3)
    (tmp_path / "gone.txt").write_text("# none yet\n")
    path = job(tmp_path, "t", tombstones="gone.txt", sources=[{"path": "bundled"}], min_box_px=50)
    code, said = runs.maquette("curate", path, "--address", cluster)
    assert code == 0, said
    folder = tmp_path / "runs/t/curate"
    kept = [d for d in decisions(folder) if d["kept"]]
    assert len(Dataset(folder)) == len(kept) >= 1
    (tmp_path / "gone.txt").write_text(f"{kept[0]['sha256']}\n")
    code, said = runs.here("curate", path)
    assert code == 0, said
    assert kept[0]["sha256"] not in Dataset(folder).labels.table["sample_id"].to_pylist()
    assert len(Dataset(folder)) == len(kept) - 1
    assert next(d for d in decisions(folder) if d["uri"] == kept[0]["uri"])["first_fail"] == "tombstone"
