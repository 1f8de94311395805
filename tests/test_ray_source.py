"""Ray Data reads the rows that the dataset holds, in their order."""

from __future__ import annotations

import numpy as np
import pytest

from manifests import codecs
from manifests.dataset import Dataset
from manifests.index import row_hash
from tests import samples

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def running():
    import ray

    from pipeline.workers import start_ray

    start_ray(None)
    yield
    ray.shutdown()


def test_ray_data_reads_every_row_once_and_filters_by_label(tmp_path, running):
    from pipeline.ray_source import blocks, read

    folder = samples.dataset(tmp_path, 20, per_task=5, splits=("train", "test"))
    truth = Dataset(folder)
    assert [row_hash(r) for t in blocks(truth) for r in t.to_pylist()] == [row_hash(r) for r in truth]
    rows = read(folder).take_all()
    assert sorted(r["sample_id"] for r in rows) == sorted(r["sample_id"] for r in truth)
    assert {r["sample_id"]: bytes(r["depth"]) for r in rows} == {r["sample_id"]: r["depth"] for r in truth}

    def mean_depth(row):
        camera = row["camera"]
        depth = codecs.decode_depth(row["depth"], camera["height"], camera["width"])
        return {"index": row["index"], "mean": float(depth[depth > 0].mean())}

    means = read(folder, split="test").map(mean_depth).take_all()
    assert sorted(m["index"] for m in means) == list(range(1, 20, 2))
    sample = truth.sample(means[0]["index"])
    assert np.isclose(means[0]["mean"], sample.depth[sample.mask > 0].mean())
