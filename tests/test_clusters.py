"""Clusters and balance: even draws from uneven mixtures, as good as faiss, the same bits in any order."""

from __future__ import annotations

import numpy as np
import pytest

from curation import balance, clusters
from curation.decide import decide
from curation.stage import CORPUS
from manifests.curation import Clusters, Policy
from pipeline.corpus import ALIKE
from tests import photos
from tests.photos import measured
from tests.test_curation import NONE


@pytest.fixture(scope="module")
def mixture():
    """Ten planted clusters of 20 to 2,000 unit vectors, their truth and a hash for each."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(20, 2000, 10).astype(int)
    middles = rng.normal(size=(10, 32))
    x = np.concatenate([m + 0.25 * rng.normal(size=(n, 32)) for m, n in zip(middles, sizes)]).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.repeat(np.arange(10), sizes), [f"{v:064x}" for v in rng.permutation(len(x))]


def test_balanced_draws_from_a_mixture_of_one_to_a_hundred_are_near_even(mixture):
    x, truth, keys = mixture
    paths = np.array(clusters.tree(x, keys, Clusters(levels=[100, 10])))
    take = balance.chosen(paths, np.array(keys), 200)
    assert take.sum() == 200
    counts = np.bincount(truth[take], minlength=10)
    assert counts.min() >= 10, counts
    assert counts.max() <= 30, counts
    share = np.bincount(truth, balance.weights(paths), minlength=10) / len(x)
    assert share.min() > 0.05, share
    assert share.max() < 0.2, share
    assert balance.weights(paths).mean() == pytest.approx(1)


def test_the_order_of_rows_changes_no_bit(mixture):
    x, _, keys = mixture
    paths = clusters.tree(x, keys, Clusters(levels=[60, 8]))
    order = np.random.default_rng(1).permutation(len(x))
    again = clusters.tree(x[order], [keys[i] for i in order], Clusters(levels=[60, 8]))
    assert [paths[i] for i in order] == again
    kept = balance.chosen(np.array(paths), np.array(keys), 300)[order]
    assert (kept == balance.chosen(np.array(again), np.array(keys)[order], 300)).all()
    np.testing.assert_array_equal(balance.weights(np.array(paths))[order], balance.weights(np.array(again)))


@pytest.mark.parametrize("k", [10, 50])
def test_kmeans_is_as_good_as_faiss(mixture, k):
    import faiss

    x = mixture[0]
    ours = clusters.assigned(x, clusters.kmeans(x, k, 0))[1].sum()
    theirs = faiss.Kmeans(32, k, niter=40, nredo=20, seed=1, min_points_per_centroid=1, max_points_per_centroid=10**6)
    theirs.train(x)
    assert ours <= 1.01 * theirs.index.search(x, 1)[0].sum()


def test_every_cluster_of_as_many_points_is_one_point():
    x = np.eye(6, dtype=np.float32)
    assert len(set(clusters.tree(x, list("abcdef"), Clusters(levels=[6])))) == 6
    assert clusters.tree(np.zeros((0, 4), np.float32), [], Clusters()) == []
    assert clusters.automatic(20) == [1]


def test_water_fills_to_one_level():
    assert balance.quotas(np.array([1, 5, 100]), 16).tolist() == [1, 5, 10]
    assert balance.quotas(np.array([4, 4, 4]), 7).tolist() == [3, 2, 2]
    assert balance.quotas(np.array([2, 3]), 99).tolist() == [2, 3]


def test_pairs_are_those_that_brute_force_finds():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    a, b, distance = clusters.pairs(x, ["0/1"] * 60)
    away = 1 - x @ x.T
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if away[i, j] <= clusters.FARTHEST - 1e-4}
    assert expected <= set(zip(a.tolist(), b.tolist()))
    np.testing.assert_allclose(distance, away[a, b], atol=2e-5)


def test_a_chain_of_small_steps_keeps_its_ends():
    import pyarrow as pa

    good = [((0, 0, 400, 400), 0.95)]
    rows = [measured(n, good, width=1000 - 100 * i) for i, n in enumerate("abcd")]
    table = photos.table(rows)
    for field, value in zip(CORPUS, ("site", None, "0")):
        table = table.append_column(field, pa.array([value] * 4, field.type))
    alike = pa.table([[0, 1, 2], [1, 2, 3], [0.02, 0.02, 0.02]], schema=ALIKE)
    found = decide(table, Policy(semantic_distance=0.05), NONE, alike=alike).to_pylist()
    assert [d["first_fail"] for d in found] == [None, "dup_semantic", None, "dup_semantic"]
    assert found[1]["dup_of"] == "a"
    assert found[0]["sampling_weight"] == pytest.approx(1)
    assert found[1]["sampling_weight"] is None
    off = decide(table, Policy(semantic_distance=0.01), NONE, alike=alike)
    assert off["kept"].to_pylist() == [True] * 4
    one = decide(table, Policy(semantic_distance=0.05, balance=1), NONE, alike=alike).to_pylist()
    assert sorted(d["first_fail"] or "" for d in one) == ["", "balanced_out", "dup_semantic", "dup_semantic"]
