"""Drawing by weight: clusters come evenly, as exactly and elastically as rows do; and weights' road from a curation there."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curation import balance
from curation.decide import decide
from curation.layouts import grid
from manifests import commit, index
from manifests.columns import add
from manifests.curation import Policy
from manifests.dataset import Dataset
from manifests.errors import InputError, JobError
from manifests.repair import repair
from manifests.rewrite import compact, merge, withdraw
from manifests.sample import early, schema
from manifests.shards import ShardWriter
from manifests.verify import verify
from pipeline.curate import buried
from tests import photos, runs, samples
from tests.onnx import constant_model
from tests.test_curation import NONE
from tests.test_order import seen
from training.data import Rows
from training.order import Order, Shuffled, Source
from training.weighted import Weighted

# A policy that keeps whatever can be seen: what a picture shows is not at stake here.
OPEN = {
    "min_side_px": 50,
    "min_box_px": 10,
    "raw": True,
    "min_entropy": 0,
    "max_drawn": None,
    "max_text": None,
    "max_tiled": None,
}


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Ten clusters of 20 to 2,000 rows: the cluster of each, and the weights that curation gives them."""
    truth = np.repeat(np.arange(10), np.geomspace(20, 2000, 10).astype(int))
    truth = np.random.default_rng(0).permutation(truth)
    return truth, balance.weights(np.array([f"{t // 5}/{t}" for t in truth])).astype(np.float32)


def test_clusters_of_one_to_a_hundred_come_evenly_in_every_epoch():
    truth, weights = planted()
    n = len(truth)
    order = Order([Source("rows", n, rates=weights)], 7)
    for epoch in range(3):
        rows = order(epoch * n + np.arange(n))[1]
        counts = np.bincount(truth[rows], minlength=10)
        # A cluster's rows lie apart on the line of weights: each can round by one at most, and they hardly ever do so together.
        assert np.abs(counts / (n / 10) - 1).max() < 0.1, counts
    even = np.bincount(truth[Order([Source("rows", n)], 7)(np.arange(n))[1]], minlength=10)
    assert even.max() == 100 * even.min(), "without weights as often as there are pictures"


@pytest.mark.parametrize("n", [1, 2, 97, 5000])
def test_an_epoch_holds_each_row_as_often_as_its_share_rounded_down_or_up(n):
    rates = np.exp(np.random.default_rng(n).normal(0, 2, n)).astype(np.float32)
    share = n * rates.astype(float) / rates.sum(dtype=float)
    order = Shuffled(n, 3, "x", rates=rates)
    total = np.zeros(n, int)
    for epoch in range(8):
        counts = np.bincount(order(epoch * n + np.arange(n)), minlength=n)
        assert counts.sum() == n
        assert (counts >= np.floor(share - 1e-6)).all()
        assert (counts <= np.ceil(share + 1e-6)).all()
        total += counts
    assert np.abs(total - 8 * share).max() < 3, "what one epoch rounds away another gives back"


def test_a_light_row_is_never_away_for_longer_than_three_times_its_turn():
    rates = np.array([0.01, 0.05, 0.2, 0.5] + [1.0] * 96)
    share = 100 * rates / rates.sum()
    drawn = Weighted(rates, 5)
    shown = np.array([np.bincount(drawn(e, np.arange(100)), minlength=100) for e in range(700)])
    for row in range(4):
        at = np.flatnonzero(shown[:, row])
        assert np.diff(at, prepend=-1, append=700).max() <= 3 / share[row]


def test_equal_weights_are_a_permutation_and_no_weight_is_no_row():
    assert np.array_equal(np.sort(Shuffled(1000, 1, rates=np.full(1000, 0.37))(np.arange(1000))), np.arange(1000))
    rows = Shuffled(6, 1, rates=np.array([0, 1, 0, 3, 2, 0.0]))(np.arange(600))
    assert np.bincount(rows, minlength=6).tolist() == [0, 100, 0, 300, 200, 0]
    for bad in ([], [0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(ValueError, match="finite"):
            Weighted(np.array(bad))
    with pytest.raises(ValueError, match="not both"):
        Shuffled(4, 1, shards=np.arange(4), window=2, rates=np.ones(4))


def test_sums_stay_within_64_bits_and_weights_of_any_scale_draw_alike():
    n = 200_000
    rates = np.ones(n, np.float32)
    rates[:10] = 1e6
    drawn = Weighted(rates, 0)
    assert 0 < drawn._total < 2**62
    # By Python's own integers, which have no width.
    for epoch in (0, 1, 10**9):
        rows = drawn(epoch, np.arange(n))
        assert (np.diff(rows) >= 0).all()
        moved = (drawn._first + epoch * (drawn._total * 0x9E3779B97F4A7C15 >> 64)) % drawn._total
        for place in (0, 1, n // 2, n - 1):
            mark, row = (place * drawn._total + moved) // n, int(rows[place])
            assert (int(drawn._ends[row - 1]) if row else 0) <= mark < int(drawn._ends[row])
    some = np.random.default_rng(0).random(500).astype(np.float32)
    a, b = (Shuffled(500, 1, rates=some * scale)(np.arange(2000)) for scale in (np.float32(1), np.float32(2.0**-90)))
    assert np.array_equal(a, b)


def test_any_position_by_itself_is_what_an_unbroken_epoch_shows():
    truth, weights = planted()
    order = Order([Source("rows", len(truth), rates=weights)], 7)
    whole = order(np.arange(3 * len(truth)))[1]
    at = np.random.default_rng(1).integers(0, len(whole), 50)
    assert np.array_equal(order(at)[1], whole[at])
    state = json.loads(json.dumps(order.state(4321)))
    assert order.resume(state) == 4321
    assert len(json.dumps(state)) < 1000
    for other in (None, weights[::-1]):
        with pytest.raises(JobError, match="sources"):
            Order([Source("rows", len(truth), rates=other)], 7).resume(state)
    assert "sources" in Order([Source("rows", 9)], 7).state(0)


def photograph(i: int, cluster: str | None, weight: float | None, split: str = "train") -> dict:
    data = photos.encoded(photos.cloud(i, 48, 64))
    return {
        "sample_id": f"p-{i:04d}", "stage_digest": "e" * 64, "index": i, "split": split,
        "image": {"bytes": data, "path": f"{i}.jpg"}, "width": 48, "height": 64, "orientation": 1,
        "sha256": hashlib.sha256(data).hexdigest(), "phash": None, "boxes": [], "uri": f"p/{i}.jpg",
        "rights": [{"id": f"{i}", "source": "p", "licence": "CC0-1.0", "consent": "none", "redistributable": True}],
        "cluster_path": cluster, "sampling_weight": weight,
    }  # fmt: skip


def curated(folder, rows: list[dict], before: bool = False, per_task: int = 5):
    """A committed dataset of photographs; ``before``: as written before rows had weights."""
    for at in range(0, len(rows), per_task):
        with ShardWriter(folder, f"{at:08d}+{len(rows[at : at + per_task])}", "curated", before) as writer:
            for row in rows[at : at + per_task]:
                writer.append(row)
            shards = writer.close()
        if before:
            for label in (label for s in shards for label in s.index):
                del label["cluster_path"], label["sampling_weight"]
        done = [commit.Outcome(r["sample_id"], r["index"], "done", "", 0.1, 1) for r in rows[at : at + per_task]]
        commit.write_receipt(folder, commit.Receipt(f"{at:08d}+{per_task}", "e" * 64, shards, done, {}))
    commit.fold(folder, "curated", "e" * 64)
    return folder


def test_ranks_and_resumes_see_what_one_unbroken_run_sees(tmp_path):
    clusters = ["0"] * 16 + ["1"] * 4
    weights = balance.weights(np.array(clusters)).tolist()
    folder = curated(tmp_path, [photograph(i, c, w) for i, (c, w) in enumerate(zip(clusters, weights))])
    rows = Rows([folder], "train", weighted=True)
    order, find = rows.order(11)
    truth = seen(rows.sets, order, range(10), 12, 1, 0)
    for epoch in range(6):
        ids = truth[..., 0].ravel().astype(int)[epoch * 20 : (epoch + 1) * 20]
        assert (ids < 16).sum() == 10, "half of an epoch is the small cluster"
    for cut, world in ((1, 2), (7, 3)):
        begin = order.resume(json.loads(json.dumps(order.state(cut * 12)))) // 12
        parts = [seen(rows.sets, order, range(cut), 12, 1, 2), seen(rows.sets, order, range(begin, 10), 12, world, 1)]
        assert np.array_equal(np.concatenate(parts), truth)
    assert np.array_equal(find(np.arange(5))[1], order(np.arange(5))[1])


def test_renders_count_as_one_beside_photographs_and_a_mixture_keeps_its_shares(tmp_path):
    made = samples.dataset(tmp_path / "render", 10)
    weights = [4.0, 0.5, 0.5, None, 0.25, 0.25, 1.0, 1.0, 0.25, 0.25]
    folder = curated(tmp_path / "curate", [photograph(i, "0", w) for i, w in enumerate(weights)])
    which, row = Rows([made, folder], "train", weighted=True).order(3)[1](np.arange(40 * 19))
    share = np.bincount(row[which == 1], minlength=10)
    expected = 40 * 19 * np.array([4, 0.5, 0.5, 1, 0.25, 0.25, 1, 1, 0.25, 0.25]) / 19
    assert np.abs(share - expected).max() < 3
    assert np.abs(np.bincount(row[which == 0]) - 40).max() < 3
    which, row = Rows([made, folder], "train", [1.0, 3.0], weighted=True).order(3)[1](np.arange(4096))
    assert abs((which == 1).mean() - 0.75) < 0.001
    assert np.bincount(row[which == 1])[0] / (which == 1).sum() == pytest.approx(4 / 9, abs=0.01)


def test_what_has_no_weights_is_refused_with_what_to_do(tmp_path):
    made = samples.dataset(tmp_path / "render", 3)
    plain = curated(tmp_path / "plain", [photograph(i, None, None) for i in range(3)])
    old = curated(tmp_path / "old", [photograph(i, "0", 1.0) for i in range(3)], before=True)
    for folder in (plain, old):
        with pytest.raises(JobError, match=r"no photograph in .* curate.embedding, or leave out weighted"):
            Rows([folder, made], "train", weighted=True)
    with pytest.raises(JobError, match="add photographs"):
        Rows([made], "train", weighted=True)
    assert len(Rows([plain, made], "train")) == 6


def test_datasets_from_before_the_columns_open_verify_and_stay_as_they_are(tmp_path, monkeypatch):
    import datasets

    rows = [photograph(i, "0", 1.0, split=("train", "val")[i % 5 == 4]) for i in range(14)]
    with monkeypatch.context() as then:
        later = ("cluster_path", "sampling_weight")
        then.setattr(index, "SCHEMA", pa.schema([f for f in index.SCHEMA if f.name not in later]))
        folder = curated(tmp_path / "old", rows, before=True)
        stored = pq.read_schema(next((folder / "index").iterdir())).names
    assert not set(later) & set(stored)
    ds = Dataset(folder)
    assert verify(folder) == []
    assert not set(later) & set(ds[0])
    assert ds.labels.table["sampling_weight"].null_count == 14
    hashes = {r["sample_id"]: r["xxh3"] for r in ds.labels}
    withdraw(folder, ["p-0006"], "asked")
    add(folder, "words", [{"sample_id": "p-0001", "caption": "x"}], pa.schema([("sample_id", "string"), ("caption", "string")]))  # fmt: skip
    again = Dataset(folder)
    assert verify(folder) == []
    # One shard was rewritten: `datasets` opens it beside the others only if it has their schema.
    assert len(datasets.load_from_disk(str(folder / "hf/train"))) == 11
    compact(folder)
    assert verify(folder) == []
    assert {r["xxh3"] for r in Dataset(folder).labels} == {hashes[r["sample_id"]] for r in again.labels}
    new = curated(tmp_path / "new", [{**photograph(i, "0", 1.0), "sample_id": f"q-{i}"} for i in range(20, 23)])
    assert merge([folder, new], tmp_path / "both") == 16
    both = Dataset(tmp_path / "both")
    assert both.labels.table["sampling_weight"].null_count == 13
    assert (
        not {r["sample_id"]: r["xxh3"] for r in both.labels}.items()
        ^ (
            {r["sample_id"]: hashes[r["sample_id"]] for r in again.labels}
            | {r["sample_id"]: r["xxh3"] for r in Dataset(new).labels}
        ).items()
    )
    assert len(Rows([tmp_path / "both"], "train", weighted=True)) == 14


@pytest.mark.parametrize("before", [True, False])
def test_sound_rows_of_a_damaged_shard_are_kept_with_or_without_weights(tmp_path, before):
    folder = curated(tmp_path, [photograph(i, "0/1", 0.5) for i in range(20)], before, per_task=20)
    path = next((folder / "data").iterdir())
    data = bytearray(path.read_bytes())
    batch = Dataset(folder).labels.table["batch_offset"].to_numpy()
    at = data.index(Dataset(folder)[19]["image"]["bytes"])
    assert batch[19] <= at
    data[at + 100] ^= 1
    path.write_bytes(data)
    assert repair(folder, rerun=False).salvaged == 19
    kept = Dataset(folder)
    assert verify(folder) == []
    assert len(kept) == 19
    assert early("curated", kept[3]) == before
    assert kept[3].get("sampling_weight") == (None if before else 0.5)
    assert kept.filter(cluster_path="0/1").labels.table.num_rows == (0 if before else 19)
    assert set(schema("curated").names) - set(schema("curated", early=True).names) == {
        "cluster_path",
        "sampling_weight",
    }


def test_another_policys_dataset_needs_the_decisions_that_name_what_was_taken_out(tmp_path):
    good = [((0, 0, 400, 400), 0.95)]
    with pytest.raises(InputError, match="holds no decisions"):
        buried(tmp_path)
    rows = [photos.measured("a", good), photos.measured("b", good), photos.measured("c", good, width=10, height=10)]
    (tmp_path / "decisions").mkdir()
    for dead in (frozenset(), frozenset({"b", "c"})):
        pq.write_table(decide(photos.table(rows), Policy(), NONE, dead), tmp_path / "decisions/decisions.parquet")
        assert buried(tmp_path) == dead
    curated(tmp_path, [{**photograph(i, None, None), "sample_id": f"eeee-{n}"} for i, n in enumerate("ab")])
    withdraw(tmp_path, ["eeee-a"], "asked")
    assert buried(tmp_path) == {"a", "b", "c"}


@pytest.mark.soak
@pytest.mark.engine
def test_the_weights_of_a_curation_reach_the_trainer_and_those_of_another_policy_too(tmp_path, cluster):
    import torch

    from training import checkpoint
    from training.mae import MaskedAutoencoder
    from training.pretrain import pretrain
    from training.settings import read
    from training.vit import SIZES

    folder = tmp_path / "photos"
    folder.mkdir()
    # Eighteen dark pictures and three bright ones; a fourth is withdrawn.
    for i in range(22):
        picture = photos.cloud(i, 128, 128) // 2 + (128 if i >= 18 else 0)
        (folder / f"{i:02d}.png").write_bytes(photos.encoded(picture.astype(np.uint8), "PNG"))
    gone = hashlib.sha256((folder / "21.png").read_bytes()).hexdigest()
    (tmp_path / "gone.txt").write_text(f"{gone}\n")
    out = np.zeros((1, 3549, 85), np.float32)
    cells, strides = grid((416, 416), (8, 16, 32))
    out[0, 3000, :2], out[0, 3000, 2:4] = 208 / strides[3000] - cells[3000], np.log(300 / strides[3000])
    out[0, 3000, 4:6] = 0.99
    (tmp_path / "person.onnx").write_bytes(constant_model({"out": out}))
    torch.manual_seed(0)
    encoder = MaskedAutoencoder(SIZES["tiny"], 32, 1, 0.75)
    fields = {"model": "tiny", "width": 32, "height": 32, "mask_ratio": 0.75}
    weights = {f"model.{k}": v.contiguous() for k, v in encoder.state_dict().items()}
    checkpoint.write(tmp_path / "model.safetensors", weights, {"step": 1, "digest": {"fields": fields, "sha256": "0"}})
    stage = OPEN | {
        "sources": [{"path": "photos"}], "workers": 1, "samples_per_task": 8, "clusters": {"levels": [2]}, "tombstones": "gone.txt",
        "detector": {"kind": "onnx", "weights": "person.onnx", "looks": 1},
        "embedding": {"kind": "encoder", "weights": "model.safetensors"},
    }  # fmt: skip
    job = tmp_path / "job.yaml"
    trained = {"data": ["curate"], "weighted": True, "width": 32, "height": 32, "optim": {"steps": 2, "batch": 4}}
    tree = {"name": "w", "runs": str(tmp_path / "runs"), "curate": stage, "pretrain": trained}
    job.write_text(yaml.safe_dump(tree))
    code, said = runs.maquette("curate", job, "--address", cluster)
    assert code == 0, said
    made = tmp_path / "runs/w/curate"
    bright = [i >= 18 for i in range(21)]
    ds = Dataset(made)
    assert verify(made) == []
    assert [int(r["uri"][-6:-4]) >= 18 for r in ds] == bright
    assert len({(b, p) for b, p in zip(bright, ds.labels.table["cluster_path"].to_pylist())}) == 2
    decided = {d["sha256"]: d for d in pq.read_table(made / "decisions/decisions.parquet").to_pylist()}
    for row, label in zip(ds, ds.labels):
        for name in ("cluster_path", "sampling_weight"):
            assert row[name] == label[name] == decided[row["sha256"]][name]
    _, find = Rows([made], "train", weighted=True).order(0)
    assert np.array(bright)[find(np.arange(20 * 21))[1]].mean() == pytest.approx(0.5, abs=0.02)

    run = tmp_path / "runs/w"
    settings = read(run)["pretrain"]
    pretrain(run, settings)
    with pytest.raises(JobError, match="weighted"):
        pretrain(run, dataclasses.replace(settings, weighted=False))

    # Half of the pictures under another policy, two dark for each bright one; it names no tombstones, and they hold.
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(OPEN | {"balance": 9}))
    fewer = tmp_path / "fewer"
    code, said = runs.maquette("decide", run, "--policy", tmp_path / "fewer.yaml", "--dataset", fewer)
    assert code == 0, said
    assert f"{fewer}: 9 photographs" in said
    few = Dataset(fewer)
    assert verify(fewer) == []
    assert gone not in [r["sha256"] for r in few]
    lit = np.array([int(r["uri"][-6:-4]) >= 18 for r in few])
    assert lit.sum() == 3
    weight = few.labels.table["sampling_weight"].to_numpy()
    np.testing.assert_allclose(weight, np.where(lit, 1.5, 0.75), rtol=1e-6)
    assert few.manifest["stage_digest"] != ds.manifest["stage_digest"]
