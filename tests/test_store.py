"""A dataset in a bucket is the one on a disk: written, read, verified, repaired, through failures of store and network."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

from manifests import cache, commit, rewrite
from manifests.dataset import Dataset
from manifests.errors import MissingError, ShardError, StorageError
from manifests.index import row_hash
from manifests.repair import repair
from manifests.store import LocalStore, open_store
from manifests.verify import verify
from tests import gs, runs, s3, samples
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def server():
    started = s3.Server()
    yield started
    started.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """A fresh prefix of the server's bucket; the cache lies in the test's folder."""
    for key, value in s3.environment(server.endpoint).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    return f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def faulty(server, bucket, monkeypatch):
    """The same bucket, behind a proxy that fails every fifth request."""
    proxy = s3.Faults(server.port, 0.2, seed=0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield bucket, proxy
    proxy.stop()


@pytest.fixture
def google(monkeypatch, tmp_path):
    """A prefix of a bucket of Google's kind."""
    started = gs.Server()
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(started.credentials(tmp_path / "account.json")))
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    yield "gs://maquette-test/prefix"
    started.stop()


@pytest.mark.parametrize("kind", ["disk", "bucket", "google"])
def test_stores_agree_on_what_names_and_bytes_do(kind, tmp_path, request):
    store = open_store(tmp_path / "d" if kind == "disk" else request.getfixturevalue(kind))
    assert store.names("a") == []
    assert store.create("a/x.json", b"one")
    assert not store.create("a/x.json", b"two")
    assert store.read("a/x.json") == b"one"
    store.replace("a/x.json", b"three")
    assert store.read_range("a/x.json", 1, 3) == b"hre"
    assert (store.size("a/x.json"), store.exists("a/x.json"), store.exists("a/y.json")) == (5, True, False)
    assert store.age_s("a/x.json") < 60
    assert store.age_s("a/y.json") == float("inf")
    store.replace("a/b/deep", b"")
    finished = store.scratch() / "finished"
    finished.write_bytes(bytes(3000))
    store.publish(finished, "a/big")
    assert not finished.exists()
    assert store.names("a") == ["a/big", "a/x.json"]
    store.move("a/x.json", "q/x.json")
    assert (store.names("a"), store.names("q")) == (["a/big"], ["q/x.json"])
    store.delete("q/x.json")
    store.delete("q/x.json")
    with pytest.raises(MissingError, match="No such file"):
        store.read("q/x.json")


def test_a_scheme_that_nobody_serves_is_named():
    with pytest.raises(StorageError, match="only local paths"):
        open_store("ftp://host/x")
    assert isinstance(open_store("runs/x/render"), LocalStore)


def test_a_dataset_in_a_bucket_is_the_one_on_disk(bucket, tmp_path):
    here = Dataset(samples.dataset(tmp_path / "d", 10, splits=("train", "test")))
    there = Dataset(samples.dataset(bucket, 10, splits=("train", "test")))
    assert [s["sha256"] for s in there.manifest["shards"]] == [s["sha256"] for s in here.manifest["shards"]]
    assert [row_hash(r) for r in there] == [row_hash(r) for r in here]
    ranged = Dataset(bucket, ranged=True)
    before = len(list((tmp_path / "cache").iterdir()))
    assert [row_hash(ranged[i]) for i in (7, 0, 9)] == [row_hash(here[i]) for i in (7, 0, 9)]
    assert np.array_equal(ranged.sample(3).depth, here.sample(3).depth)
    assert len(list((tmp_path / "cache").iterdir())) == before
    assert verify(bucket) == []
    rewrite.compact(bucket)
    rewrite.withdraw(bucket, ["ball-0003"], "test")
    assert len(Dataset(bucket)) == 9
    assert verify(bucket) == []


def test_a_dataset_in_a_google_bucket_is_the_one_on_disk(google, tmp_path):
    here = Dataset(samples.dataset(tmp_path / "d", 6))
    there = Dataset(samples.dataset(google, 6))
    assert [row_hash(r) for r in there] == [row_hash(r) for r in here]
    assert row_hash(Dataset(google, ranged=True)[4]) == row_hash(here[4])
    first = samples.task(google, 6, 2)
    assert commit.write_receipt(google, first)
    late = commit.Receipt(first.task_id, "d" * 64, [], first.outcomes, {"attempt": 2})
    assert not commit.write_receipt(google, late)
    commit.fold(google, "rendered", "d" * 64)
    rewrite.compact(google)
    assert len(Dataset(google)) == 8
    assert verify(google) == []


def test_every_failure_of_the_network_is_outlasted(faulty, tmp_path):
    bucket, proxy = faulty
    truth = Dataset(samples.dataset(tmp_path / "d", 12, per_task=2))
    samples.dataset(bucket, 12, per_task=2)
    assert verify(bucket) == []
    for _ in range(8):
        for path in (tmp_path / "cache").iterdir():
            path.unlink()
        ds = Dataset(bucket)
        assert [row_hash(r) for r in ds] == [row_hash(r) for r in truth]
        if all(proxy.done[kind] for kind in s3.Faults.KINDS):
            break
    assert all(proxy.done[kind] for kind in s3.Faults.KINDS), proxy.done


def test_a_store_that_never_answers_ends_in_one_sentence(bucket, monkeypatch, server):
    monkeypatch.setattr("manifests.store.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("manifests.store.RETRIES", {"max_retries": 0})
    proxy = s3.Faults(server.port, 1.0, seed=0)
    monkeypatch.setattr(s3.Faults, "KINDS", ("500",))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    with pytest.raises(StorageError, match="run again when the store answers"):
        open_store(bucket).read("manifest/x")
    proxy.stop()


def test_what_arrives_damaged_is_refused_and_not_cached(bucket, tmp_path):
    samples.dataset(bucket, 4, per_task=4)
    store = open_store(bucket)
    shard = Dataset(bucket).manifest["shards"][0]
    raw = bytearray(store.read(shard["path"]))
    raw[len(raw) // 2] ^= 1
    store.replace(shard["path"], bytes(raw))
    with pytest.raises(ShardError, match="what arrived is not what was written"):
        Dataset(bucket)[0]
    assert list((tmp_path / "cache").iterdir()) == []
    done = repair(bucket, rerun=False)
    assert done.remaining == []
    assert len(Dataset(bucket)) + len(done.lost) == 4


def test_the_cache_lets_the_least_recently_used_shard_go(bucket, tmp_path, monkeypatch):
    samples.dataset(bucket, 12, per_task=4)
    ds = Dataset(bucket)
    a, b, c = ds.manifest["shards"]
    monkeypatch.setenv("MAQUETTE_CACHE_GB", str((a["bytes"] + c["bytes"] + 1000) / 1e9))
    store = open_store(bucket)
    for shard, mtime in ((a, 1), (b, 2)):
        os.utime(cache.fetched(store, shard), (mtime, mtime))
    cache.fetched(store, a)
    cache.fetched(store, c)
    assert {p.stem for p in (tmp_path / "cache").iterdir()} == {a["sha256"], c["sha256"]}


WRITE = """
import sys; from tests import samples; from manifests import commit
folder = sys.argv[1]; first = len(commit.receipts(folder)) * 2
print("up", flush=True)
for i in range(first, 400, 2):
    commit.write_receipt(folder, samples.task(folder, i, 2)); commit.fold(folder, "rendered", "d" * 64)
"""


def killed_writer(bucket: str, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(kills):
        # Two writers of the same tasks at once: every commit is contended, too.
        pair = [
            subprocess.Popen([sys.executable, "-c", WRITE, bucket], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)
        ]
        for process in pair:
            process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.6))
        for process in pair:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    assert commit.fold(bucket, "rendered", "d" * 64) is not None
    commit.collect_orphans(bucket, min_age_s=0)
    assert verify(bucket) == []
    ids = [r["sample_id"] for r in Dataset(bucket).labels]
    assert ids == [f"ball-{i:04d}" for i in range(2 * len(commit.receipts(bucket)))]
    named = {s["path"] for s in Dataset(bucket).manifest["shards"]}
    assert set(open_store(bucket).names("data")) == named


def test_writers_to_a_bucket_killed_at_random_moments_lose_and_double_nothing(bucket):
    killed_writer(bucket, 10, seed=0)


@pytest.mark.soak
def test_a_hundred_pairs_of_writers_to_a_bucket_killed(bucket):
    killed_writer(bucket, 100, seed=1)


@pytest.mark.soak
def test_writers_to_a_failing_bucket_killed(faulty):
    killed_writer(faulty[0], 30, seed=2)


def test_a_job_trains_on_a_bucket(bucket, tmp_path):
    samples.dataset(bucket, 8)
    optim = {"steps": 2, "batch": 4, "lr": 1e-3, "warmup_steps": 1, "checkpoint_every": 2}
    stage = {"data": [bucket], "width": 32, "height": 48, "optim": optim}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"name": "b", "runs": str(tmp_path / "runs"), "pretrain": stage}))
    code, said = runs.maquette("run", path)
    assert code == 0, said
    assert (tmp_path / "runs/b/pretrain/model.safetensors").is_file()
    code, said = runs.here("run", path, "--set", f"pretrain.data.0={bucket}/nothing", "--set", "name=c")
    assert code == 2, said
    assert "neither a stage of this run nor a dataset folder" in said
