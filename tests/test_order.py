"""The order of samples is arithmetic on seed and position: exact, elastic, and free of charge at any size."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from manifests.dataset import Dataset
from manifests.errors import InputError, JobError, ShardError
from manifests.seeds import generator
from tests import samples
from tests.conftest import ROOT
from training import loader
from training.data import Rows
from training.order import BLOCK, Order, Permutation, Shuffled, Source


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 256, 257, 65_537])
def test_a_permutation_holds_each_place_once(n):
    seen = Permutation(n, 7, "x")(np.arange(n))
    assert np.array_equal(np.sort(seen), np.arange(n))
    assert np.array_equal(Permutation(n, 7, "x")(np.arange(n)[::-1]), seen[::-1]), "any place by itself"


def test_permutations_of_different_keys_are_as_unlike_as_chance():
    n = 20_000
    a, b = (Permutation(n, 7, "epoch", e)(np.arange(n)) for e in (0, 1))
    # The number of fixed points of a random permutation is Poisson with mean 1.
    assert (a == np.arange(n)).sum() < 8
    assert (a == b).sum() < 8
    # Neighbours go apart: mean distance of two random places is n / 3, with deviation 0.24 n / sqrt(n).
    for step in (1, 2, 64, 128):
        distance = np.abs(np.diff(a[::step])).mean()
        assert abs(distance / (n / 3) - 1) < 0.06
    # Where a place lands says nothing of where it came from: chi-square of a 20 x 20 table, 361 degrees of freedom.
    table = np.histogram2d(np.arange(n), a, bins=20)[0]
    chi2 = ((table - n / 400) ** 2 / (n / 400)).sum()
    assert 250 < chi2 < 490


def test_three_hundred_million_samples_open_in_a_moment_and_little_memory():
    code = """
import resource, time
import numpy as np
from training.order import Order, Source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
order = Order([Source("rows", 300_000_000)], 0)
rows = order(order.batch(1_000_000, 256))[1]
seconds = time.perf_counter() - start
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
assert len(set(rows.tolist())) == 256 and rows.max() < 300_000_000
print(seconds, grown)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, grown = map(float, done.stdout.split())
    assert seconds < 1
    assert grown < 50


def test_windows_visit_each_row_once_and_each_shard_for_a_while():
    rng = np.random.default_rng(0)
    shards = rng.integers(0, 30, 5000)
    order = Shuffled(5000, 3, shards=shards, window=4)
    for epoch in (0, 1):
        rows = order(epoch * 5000 + np.arange(5000))
        assert np.array_equal(np.sort(rows), np.arange(5000))
        visited = shards[rows]
        live = [len(set(visited[i : i + 300].tolist())) for i in range(0, 4700, 300)]
        assert max(live) <= 8, "two windows of four at most"
    assert np.array_equal(order(np.array([4321, 17])), np.array([order(np.array([p]))[0] for p in (4321, 17)]))
    assert (order(np.arange(5000)) != order(5000 + np.arange(5000))).any()


def test_a_mixture_keeps_its_shares_and_each_source_its_epochs():
    order = Order([Source("a", 1000, 3.0), Source("b", 70, 1.0), Source("c", 500, 0.5)], 5)
    which, rows = order(np.arange(40 * BLOCK))
    for source, share in enumerate((3 / 4.5, 1 / 4.5, 0.5 / 4.5)):
        assert abs((which[:BLOCK] == source).sum() - share * BLOCK) <= 1.5
        assert abs((which == source).sum() - share * len(which)) <= 2
        # Whole blocks: a source has gone through whole epochs, and part of one more.
        total = Counter(rows[which == source].tolist())
        assert len(total) == (1000, 70, 500)[source]
        assert max(total.values()) - min(total.values()) <= 1
    at = np.array([0, 3 * BLOCK + 17, 99_999])
    assert np.array_equal(order(at)[1], rows[at])
    with pytest.raises(JobError, match="raise it"):
        Order([Source("a", 10, 1.0), Source("b", 10, 1e-5)], 0)
    with pytest.raises(InputError, match="no rows"):
        Order([Source("a", 0)], 0)


def test_the_state_is_small_and_refuses_another_order():
    order = Order([Source("a", 1000, 3.0), Source("b", 70, 1.0)], 5)
    state = json.loads(json.dumps(order.state(123_456_789)))
    assert len(json.dumps(state)) < 1000
    assert order.resume(state) == 123_456_789
    with pytest.raises(JobError, match="sources"):
        Order([Source("a", 1001, 3.0), Source("b", 70, 1.0)], 5).resume(state)
    with pytest.raises(JobError, match="seed"):
        Order([Source("a", 1000, 3.0), Source("b", 70, 1.0)], 6).resume(state)


class Ids:
    """A Maker that hands out which row it was and what its generator drew."""

    def spec(self, dataset, row):
        return {"row": ((), np.dtype(np.int64)), "draw": ((), np.dtype(np.float64))}

    def fill(self, dataset, row, rng, out):
        time.sleep(rng.random() * 1e-4)
        out["row"][...] = dataset.labels[row]["index"]
        out["draw"][...] = rng.random()


def seen(datasets, order, steps, batch, world, threads) -> np.ndarray:
    """(steps, batch, 2) what all ranks together saw."""
    ranks = []
    for rank in range(world):
        made = loader.batches(datasets, order, Ids(), batch, steps, threads, rank, world)
        ranks.append([np.stack([a["row"], a["draw"]], axis=1) for a, _ in made])
    return np.array([np.concatenate(parts) for parts in zip(*ranks)])


def elastic(folder, rounds: int, seed: int) -> None:
    ds = [Dataset(samples.dataset(folder, 22, per_task=4))]
    order = Order([Source("rows", 22)], 11)
    batch = 12
    steps = -(-3 * 22 // batch)
    truth = seen(ds, order, range(steps), batch, 1, 0)
    flat = truth[..., 0].ravel()
    for epoch in range(3):
        assert sorted(flat[epoch * 22 : (epoch + 1) * 22]) == list(range(22))
    assert len(set(truth[..., 1].ravel().tolist())) == truth[..., 1].size, "every sample draws from a stream of its own"
    chance = random.Random(seed)
    assert np.array_equal(seen(ds, order, range(steps), batch, 2, 3), truth)
    for _ in range(rounds):
        at, parts = 0, []
        while at < steps:
            to = chance.randint(at + 1, steps)
            state = json.loads(json.dumps(order.state(at * batch)))
            begin = order.resume(state) // batch
            parts.append(seen(ds, order, range(begin, to), batch, chance.choice([1, 2, 3, 4, 6]), chance.randrange(4)))
            at = to
        assert np.array_equal(np.concatenate(parts), truth)


def test_ranks_threads_kills_and_resumes_change_nothing_over_three_epochs(tmp_path):
    elastic(tmp_path, 6, seed=0)


@pytest.mark.soak
def test_a_hundred_elastic_resumes(tmp_path):
    elastic(tmp_path, 100, seed=1)


RANK = """
import json, sys
import numpy as np
from manifests.dataset import Dataset
from tests.test_order import Ids
from training import loader
from training.order import Order, Source
folder, state, last, batch, rank, world, threads, out = json.loads(sys.argv[1])
order = Order([Source("rows", 22)], 11)
steps = range(order.resume(state) // batch, last)
with open(out, "w") as file:
    for step, (a, _) in zip(steps, loader.batches([Dataset(folder)], order, Ids(), batch, steps, threads, rank, world)):
        file.write(json.dumps([step, a["row"].tolist(), a["draw"].tolist()]) + "\\n")
        file.flush()
"""


def killed(folder, rounds: int, seed: int) -> None:
    """Ranks as processes of their own, all of them SIGKILLed at a random moment and resumed with another number."""
    ds = [Dataset(samples.dataset(folder / "d", 22, per_task=4))]
    order, batch, steps = Order([Source("rows", 22)], 11), 12, 600
    truth = seen(ds, order, range(steps), batch, 1, 0)
    chance = random.Random(seed)
    kills = 0
    for _ in range(rounds):
        at, found, world = 0, [], 0
        while at < steps:
            world = chance.choice([w for w in (1, 2, 3) if w != world])
            state = json.loads(json.dumps(order.state(at * batch)))
            outs = [folder / f"rank{r}" for r in range(world)]
            ranks = []
            for r, out in enumerate(outs):
                out.write_text("")
                told = [str(folder / "d"), state, steps, batch, r, world, chance.randrange(3), str(out)]
                ranks.append(subprocess.Popen([sys.executable, "-c", RANK, json.dumps(told)], cwd=ROOT))
            # Somewhere after the first steps of all, so that every life gets on.
            moment = chance.randint(1, 400)
            while min(out.read_text().count("\n") for out in outs) < moment and any(r.poll() is None for r in ranks):
                time.sleep(0.01)
            kills += any(r.poll() is None for r in ranks)
            for r in ranks:
                r.kill()
                r.wait()
            lines = [
                [json.loads(x) for x in out.read_text().splitlines(keepends=True) if x[-1] == "\n"] for out in outs
            ]
            # What one rank did beyond the others was never a step of the whole, and is done again.
            for together in zip(*lines):
                assert {t[0] for t in together} == {at}
                rows, draws = (np.concatenate([t[i] for t in together]) for i in (1, 2))
                found.append(np.stack([rows, draws], axis=1))
                at += 1
        assert np.array_equal(np.array(found), truth)
    assert kills >= rounds


def test_ranks_killed_at_random_and_resumed_with_another_number_see_what_one_would(tmp_path):
    killed(tmp_path, 1, seed=2)


@pytest.mark.soak
def test_ten_runs_of_killed_ranks(tmp_path):
    killed(tmp_path, 10, seed=3)


def test_planes_fill_slabs_that_are_used_again(tmp_path):
    from manifests import codecs

    ds = Dataset(samples.dataset(tmp_path, 8, per_task=4))
    order = Order([Source("rows", 8)], 0)
    places = set()
    for threads in (0, 2):
        for step, (arrays, waited) in enumerate(
            loader.batches([ds], order, loader.Planes(), 4, range(6), threads=threads)
        ):
            rows = order(order.batch(step, 4))[1]
            places.add(arrays["image"].ctypes.data)
            for i, row in enumerate(rows):
                sample = ds.sample(int(row))
                assert np.array_equal(arrays["image"][i], sample.image)
                assert np.array_equal(arrays["mask"][i, 0], sample.mask)
                codes = codecs.joined(arrays["depth"][i])
                depth = (codes.astype(np.float64) - 1) * arrays["depth_step"][i] + arrays["depth_z0"][i]
                assert np.array_equal(np.where(codes, depth, 0).astype(np.float32), sample.depth)
            assert waited >= 0
    assert len(places) <= loader.SLABS + 1, "no new memory per batch"


def test_a_damaged_row_stops_the_loader_and_is_named(tmp_path):
    folder = samples.dataset(tmp_path, 4, per_task=4)
    ds = Dataset(folder)
    blob = ds[2]["depth"]
    path = next((folder / "data").iterdir())
    raw = bytearray(path.read_bytes())
    at = raw.index(blob)
    raw[at : at + 4] = b"oops"
    path.write_bytes(raw)
    order = Order([Source("rows", 4)], 0)
    for threads in (0, 2):
        with pytest.raises(ShardError, match="ball-0002.*maquette verify"):
            list(loader.batches([Dataset(folder)], order, loader.Planes(), 4, range(2), threads))


def test_rows_of_several_folders_are_one_order_or_a_mixture(tmp_path):
    a, b = samples.dataset(tmp_path / "a", 9), samples.dataset(tmp_path / "b", 5, splits=("train",))
    rows = Rows([a, b], "train")
    _, find = rows.order(3)
    which, row = find(np.arange(14))
    assert Counter(which.tolist()) == {0: 9, 1: 5}
    assert len({*zip(which.tolist(), row.tolist())}) == 14
    mixed = Rows([a, b], "train", [1.0, 3.0])
    which, _ = mixed.order(3)[1](np.arange(BLOCK))
    assert abs((which == 1).mean() - 0.75) < 0.001
    with pytest.raises(InputError, match="one each"):
        Rows([a, b], "train", [1.0])


def test_a_plain_dataloader_reads_in_forked_and_spawned_workers(tmp_path):
    import torch

    ds = Dataset(samples.dataset(tmp_path, 6, per_task=3))
    truth = [ds.sample(i) for i in range(6)]
    for context in ("fork", "spawn"):
        made = torch.utils.data.DataLoader(
            loader.Samples(ds), batch_size=3, num_workers=2, multiprocessing_context=context
        )
        found = list(made)
        assert [tuple(b["image"].shape) for b in found] == [(3, 3, 128, 96)] * 2
        depth = torch.cat([b["depth"] for b in found])[:, 0].numpy()
        assert np.array_equal(depth, np.stack([s.depth for s in truth]))
    with pytest.raises(IndexError):
        loader.Samples(ds)[6]


def test_generators_of_positions_do_not_meet():
    draws = {tuple(generator(0, "sample", p).integers(0, 2**63, 2).tolist()) for p in range(2000)}
    assert len(draws) == 2000
