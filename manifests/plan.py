"""Job -> ordered tasks with ids, seeds, identities and splits; pure: the same job always gives the same plan."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from manifests.errors import JobError
from manifests.job import RenderStage, SplitShares
from manifests.priors import FramingShares
from manifests.sample import FRAMINGS
from manifests.seeds import generator

BLOCK = 60


@dataclasses.dataclass(frozen=True)
class Identity:
    """One person of the pool. ``asset``: index into the stage's asset list; ``key``: seed (anny) or file path
    (files).
    """

    identity_id: str
    asset: int
    key: str
    split: str


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """One sample to be made; everything it draws comes from generator(stage seed, index)."""

    sample_id: str
    stage_digest: str
    index: int
    split: str
    framing: str
    identities: tuple[Identity, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """A fixed run of samples; writes one shard."""

    task_id: str
    stage_digest: str
    samples: tuple[SampleSpec, ...]


def split_of(identity_id: str, shares: SplitShares, salt: str = "split") -> str:
    """train, val or test, from the identity's hash alone: adding identities never moves one."""
    u = int.from_bytes(hashlib.sha256(f"{salt}/{identity_id}".encode()).digest()[:8], "big") / 2**64
    if u < shares.train:
        return "train"
    return "val" if u < shares.train + shares.val else "test"


def framing_of(index: int, shares: FramingShares, seed: int) -> str:
    """The framing of sample ``index``."""
    return FRAMINGS[dealt(index, (shares.face, shares.upper, shares.full), seed, "framing")]


def dealt(index: int, shares: tuple[float, ...], seed: int, name: str) -> int:
    """Which of ``shares`` falls on ``index``: each block of the smallest whole length holds them exactly, in a seeded
    order.
    """
    counts = _counts(shares)
    block, position = divmod(index, sum(counts))
    return int(_order(counts, seed, name, block)[position])


@functools.lru_cache(maxsize=64)
def _counts(shares: tuple[float, ...]) -> tuple[int, ...]:
    """How often each share occurs in a block."""
    weights = np.array(shares, float)
    exact = weights / weights.sum() * BLOCK
    counts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: BLOCK - counts.sum()]:
        counts[i] += 1
    return tuple(int(c) for c in counts // math.gcd(*counts))


# Plans go through blocks in order: a few are in use at a time.
@functools.lru_cache(maxsize=64)
def _order(counts: tuple[int, ...], seed: int, name: str, block: int) -> np.ndarray:
    return generator(seed, name, block).permutation(np.repeat(np.arange(len(counts)), counts))


@functools.lru_cache(maxsize=64)
def _turns(identities: int, seed: int, block: int) -> np.ndarray:
    return generator(seed, "identity", block).permutation(identities)


class Casting:
    """Who is in each scene of a stage: subjects in turn, each identity once per block, and company of their split."""

    def __init__(self, stage: RenderStage, digest: str, identities: Sequence[Identity]) -> None:
        self._stage, self._digest, self._identities = stage, digest, identities
        self._split: dict[str, list[int]] = {}
        self._place: list[int] = []
        for i, identity in enumerate(identities):
            peers = self._split.setdefault(identity.split, [])
            self._place.append(len(peers))
            peers.append(i)

    def spec(self, index: int) -> SampleSpec:
        """Sample ``index``."""
        stage, identities = self._stage, self._identities
        scene = index // stage.views
        block, position = divmod(scene, len(identities))
        subject = int(_turns(len(identities), stage.seed, block)[position])
        company: list[Identity] = []
        others = dealt(scene, tuple(stage.people.counts), stage.seed, "people")
        if others:
            peers, place = self._split[identities[subject].split], self._place[subject]
            drawn = generator(stage.seed, "company", scene).permutation(len(peers) - 1)[:others]
            # The subject itself is stepped over.
            company = [identities[peers[i + (i >= place)]] for i in drawn.tolist()]
        return SampleSpec(
            sample_id=f"{self._digest[:12]}-{index:08d}",
            stage_digest=self._digest,
            index=index,
            split=identities[subject].split,
            framing=framing_of(index, stage.framing, stage.seed),
            identities=(identities[subject], *company),
        )


def sample_spec(stage: RenderStage, digest: str, identities: Sequence[Identity], index: int) -> SampleSpec:
    """Sample ``index`` of a stage."""
    return Casting(stage, digest, identities).spec(index)


def render_tasks(
    stage: RenderStage, digest: str, identities: list[Identity], done: Iterable[tuple[int, int]] = ()
) -> Iterator[Task]:
    """The tasks still to run, in order. ``done``: (first index, length) of the tasks that have a receipt.

    A block that an earlier, smaller ``samples`` cut short goes on behind what it has: nothing is rendered twice.
    """
    casting = Casting(stage, digest, identities)
    ends: dict[int, int] = {}
    for first, length in done:
        block = first // stage.samples_per_task
        ends[block] = max(ends.get(block, 0), first + length)
    for block in range(math.ceil(stage.samples / stage.samples_per_task)):
        first = ends.get(block, block * stage.samples_per_task)
        stop = min((block + 1) * stage.samples_per_task, stage.samples)
        if first < stop:
            yield Task(
                task_id=f"{first:08d}+{stop - first}",
                stage_digest=digest,
                samples=tuple(map(casting.spec, range(first, stop))),
            )


def retry_task(stage: RenderStage, digest: str, identities: list[Identity], task_id: str, failed: list[int]) -> Task:
    """A second go at the ``failed`` sample indices of ``task_id``; its own id, so that both receipts stay."""
    base, _, number = task_id.partition("r")
    return Task(
        task_id=f"{base}r{int(number or 0) + 1}",
        stage_digest=digest,
        samples=tuple(sample_spec(stage, digest, identities, i) for i in failed),
    )


def task_range(task_id: str) -> tuple[int, int]:
    """(first index, length) of a task id such as ``00000032+4``, or of the task that ``00000032+4r1`` retries."""
    first, _, length = task_id.partition("r")[0].partition("+")
    return int(first), int(length)


def check_splits(stage: RenderStage, identities: list[Identity]) -> None:
    """Raise JobError when a split that was asked for got no identity, or too few for its scenes."""
    have = Counter(i.split for i in identities)
    most = max(n for n, share in enumerate(stage.people.counts, 1) if share > 0)
    for split, count in have.items():
        if count < most:
            raise JobError(
                f"render.people.counts: scenes of {most} need as many identities of one split, and {split} has {count}; "
                "add identities, or shorten the list"
            )
    for split, share in stage.splits.model_dump().items():
        if share > 0 and split not in have:
            raise JobError(
                f"render.splits.{split}: {share:g} of {len(identities)} identities came out as none; "
                "add identities, change people_seed, or take another share, such as `splits: {train: 1, val: 0, test: 0}`"
            )
