"""`datasets` opens what we write, both ways, split by split; a push is one commit that says only what may be said."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from manifests import commit, rewrite
from manifests.dataset import Dataset
from manifests.shards import ShardWriter
from manifests.verify import verify
from tests import samples
from tests.conftest import ROOT
from tests.hub import Hub

SPLITS = ("train", "train", "val", "test")


@pytest.fixture
def hub():
    started = Hub()
    yield started
    started.stop()


def push(hub: Hub, folder: Path, *options: str) -> tuple[int, str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "200", "NO_COLOR": "1"}  # fmt: skip
    arguments = [sys.executable, "-m", "pipeline.cli", "push", str(folder), "tester/people", *options]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_datasets_opens_every_split_by_card_and_in_place(tmp_path):
    import datasets

    folder = samples.dataset(tmp_path / "d", 12, splits=SPLITS)
    truth = {s: {r["sample_id"] for r in Dataset(folder).filter(split=s).labels} for s in ("train", "val", "test")}
    for ours, theirs in (("train", "train"), ("val", "validation"), ("test", "test")):
        card = datasets.load_dataset(str(folder), split=theirs, cache_dir=str(tmp_path / "cache"))
        assert set(card["sample_id"]) == truth[ours]
        in_place = datasets.load_from_disk(str(folder / "hf" / ours))
        assert set(in_place["sample_id"]) == truth[ours]
        assert in_place[0]["image"].size == card[0]["image"].size == (96, 128)
        # In place: what is mapped is our file, not a copy in a cache.
        assert {Path(f["filename"]).resolve().parent for f in in_place.cache_files} == {folder / "data"}
    streamed = next(iter(datasets.load_dataset(str(folder), split="test", streaming=True)))
    assert streamed["sample_id"] in truth["test"]
    assert streamed["image"].size == (96, 128)


def test_the_card_is_valid_yaml_and_says_what_a_reader_must_know(tmp_path):
    from huggingface_hub import DatasetCard

    folder = samples.dataset(tmp_path, 12, splits=SPLITS)
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert DatasetCard(text).data.license == front["license"] == "cc0-1.0"
    named = {p for d in front["configs"][0]["data_files"] for p in d["path"]}
    assert named == {s["path"] for s in Dataset(folder).manifest["shards"]}
    for heading in ("How it was made", "Rights", "Biases and limits", "Fields", "Reading"):
        assert f"## {heading}" in text
    assert "| framing face | 4 |" in text
    assert "6 train" in text
    assert "12 of 12 rows may be redistributed" in text


def test_a_push_is_one_commit_that_opens_again(hub, tmp_path):
    import datasets

    folder = samples.dataset(tmp_path / "d", 8, splits=SPLITS)
    code, said = push(hub, folder)
    assert code == 0, said
    assert len(hub.commits) == 1
    assert hub.repos["tester/people"]["visibility"] == "private"
    copy = tmp_path / "copy"
    for name, data in hub.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    assert verify(copy) == []
    opened = datasets.load_dataset(str(copy), split="validation", cache_dir=str(tmp_path / "cache"))
    assert opened[0]["image"].size == (96, 128)
    # Pushed again after compacting: the replaced shards leave in the same commit, and a person's own file stays.
    hub.files["NOTES.md"] = b"mine"
    rewrite.compact(folder)
    code, said = push(hub, folder)
    assert code == 0, said
    assert len(hub.commits) == 2
    shards = {n for n in hub.files if n.startswith("data/")}
    assert shards == {s["path"] for s in Dataset(folder).manifest["shards"]}
    assert hub.files["NOTES.md"] == b"mine"


def test_what_may_not_leave_stays(hub, tmp_path):
    folder = samples.dataset(tmp_path / "d", 4)
    rewrite.withdraw(folder, ["ball-0002"], "asked for by the person in it")
    assert push(hub, folder)[0] == 0
    assert not any(b"ball-0002" in data or b"asked for" in data for data in hub.files.values())
    closed = [{**r, "rights": [{**r["rights"][0], "redistributable": False}]} for r in Dataset(folder)]
    rewrite.write(closed, tmp_path / "closed", "rendered", "d" * 64)
    before = len(hub.commits)
    code, said = push(hub, tmp_path / "closed")
    assert code == 2
    assert "forbid redistribution" in said
    assert len(hub.commits) == before
    assert push(hub, tmp_path / "closed", "--allow-restricted")[0] == 0


def test_photographs_leave_without_their_metadata(hub, tmp_path):
    import hashlib

    from PIL import Image

    exif = Image.Exif()
    exif[0x010F] = "SECRETCAMERA"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 120, 60)).save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    rights = {"id": "a", "source": "s", "licence": "CC0-1.0", "consent": "none", "redistributable": True}
    row = {
        "sample_id": "p-0", "stage_digest": "d" * 64, "index": 0, "split": "train",
        "image": {"bytes": data, "path": "p.jpg"}, "width": 64, "height": 48, "orientation": 1,
        "sha256": hashlib.sha256(data).hexdigest(), "phash": None, "boxes": [], "uri": "s/p.jpg", "rights": [rights],
    }  # fmt: skip
    folder = tmp_path / "photos"
    with ShardWriter(folder, "00000000+1", "curated") as writer:
        writer.append(row)
        shards = writer.close()
    commit.write_receipt(folder, commit.Receipt("00000000+1", "d" * 64, shards, [], {}))
    commit.fold(folder, "curated", "d" * 64)
    assert b"SECRETCAMERA" in next((folder / "data").iterdir()).read_bytes()
    code, said = push(hub, folder)
    assert code == 0, said
    assert not any(b"SECRETCAMERA" in d for d in hub.files.values())


def test_a_push_that_the_hub_refuses_or_a_damaged_shard_commits_nothing(hub, tmp_path):
    folder = samples.dataset(tmp_path / "d", 4)
    hub.fail = {"/commit/": 403}
    code, said = push(hub, folder)
    assert code == 2, said
    assert "the Hub refused" in said
    assert "Traceback" not in said
    hub.fail = {}
    path = next((folder / "data").iterdir())
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    code, said = push(hub, folder)
    assert code == 3, said
    assert "not what was written" in said
    assert hub.commits == []
    hub.stop()
    code, said = push(hub, samples.dataset(tmp_path / "e", 2))
    assert code == 3, said
    assert "does not answer" in said
