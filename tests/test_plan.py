"""Plans are pure: exact shares, stable splits, nothing rendered twice."""

from collections import Counter

import pytest

from manifests import plan
from manifests.errors import JobError
from manifests.job import RenderStage, SplitShares
from manifests.priors import FramingShares
from manifests.seeds import generator

POOL = [plan.Identity(f"anny/{j:06d}", 0, str(j), plan.split_of(f"anny/{j:06d}", SplitShares())) for j in range(30)]


def test_framings_hold_their_shares_exactly_in_every_block():
    thirds = Counter(plan.framing_of(i, FramingShares(), 5) for i in range(36))
    assert thirds == {"face": 12, "upper": 12, "full": 12}
    uneven = Counter(plan.framing_of(i, FramingShares(face=1, upper=0, full=3), 5) for i in range(40))
    assert uneven == {"face": 10, "full": 30}


def test_every_identity_is_used_once_per_round_and_keeps_its_split():
    stage = RenderStage(samples=90)
    specs = [s for t in plan.render_tasks(stage, "d" * 64, POOL) for s in t.samples]
    used = Counter(s.identities[0].identity_id for s in specs)
    assert set(used.values()) == {3}
    assert all(s.split == s.identities[0].split for s in specs)


def test_split_depends_on_the_identity_alone():
    shares = SplitShares()
    splits = Counter(plan.split_of(f"id-{i}", shares) for i in range(20_000))
    for split, share in shares.model_dump().items():
        # 5 standard deviations of a binomial count.
        assert abs(splits[split] - 20_000 * share) < 5 * (20_000 * share * (1 - share)) ** 0.5


def test_a_larger_count_appends_and_repeats_no_sample():
    small = RenderStage(samples=10, samples_per_task=4)
    large = RenderStage(samples=21, samples_per_task=4)
    first = list(plan.render_tasks(small, "d" * 64, POOL))
    assert [len(t.samples) for t in first] == [4, 4, 2]
    more = list(plan.render_tasks(large, "d" * 64, POOL, [plan.task_range(t.task_id) for t in first]))
    indices = [s.index for t in [*first, *more] for s in t.samples]
    assert sorted(indices) == list(range(21))
    fresh = [s for t in plan.render_tasks(large, "d" * 64, POOL) for s in t.samples]
    assert {s.index: s for t in [*first, *more] for s in t.samples} == {s.index: s for s in fresh}


def test_a_retry_has_its_own_id_and_only_the_failed_samples():
    stage = RenderStage(samples=8, samples_per_task=4)
    task = next(plan.render_tasks(stage, "d" * 64, POOL))
    again = plan.retry_task(stage, "d" * 64, POOL, task.task_id, [2])
    third = plan.retry_task(stage, "d" * 64, POOL, again.task_id, [2])
    assert [again.task_id, third.task_id] == ["00000000+4r1", "00000000+4r2"]
    assert plan.task_range(third.task_id) == plan.task_range(task.task_id)
    assert again.samples == (task.samples[2],)


def test_generators_are_keyed_and_do_not_overlap():
    assert generator(1, "a", 2).random() == generator(1, "a", 2).random()
    draws = {generator(seed, name, i).random() for seed in range(5) for name in "ab" for i in range(50)}
    assert len(draws) == 500


def test_a_split_without_identities_is_refused():
    stage = RenderStage(splits=SplitShares(train=0.5, val=0.0, test=0.5))
    with pytest.raises(JobError, match="render.splits.test"):
        plan.check_splits(stage, [plan.Identity("a", 0, "0", "train")])
