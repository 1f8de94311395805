"""A render stage -> a dataset folder: hands tasks to Blender workers, watches them, replaces them, folds their
receipts.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray

from manifests import commit, plan
from manifests.errors import InputError, MaquetteError, RenderError, StorageError
from manifests.job import Job, RenderStage
from pipeline.freeze import freeze
from pipeline.progress import Events, bar, console
from pipeline.workers import Notes, RenderWorker, join

# A sample that has taken two workers down is poison: it is named and left out (design.md section 2).
MAX_DEATHS = 2
MAX_STILLBORN = 3
# How many different reasons of lost samples the terminal names; the report and events.jsonl hold all.
SHOWN_REASONS = 5
# What Ray says of an actor whose machine went: no sample's fault.
NODE_GONE = re.compile(
    r"node (?:was|has been|is) (?:terminated|dead|removed|marked dead)|node has died|NODE_DIED", re.I
)
# A task may take this many times the running median before it counts as hung.
DEADLINE_FACTOR = 5.0
FOLD_EVERY_S = 10.0


class RenderDriver:
    """Runs the tasks of one render stage over a pool of actors; one task in flight per actor."""

    def __init__(
        self, stage: RenderStage, root: Path, folder: Path, events: Events, worker: type = RenderWorker
    ) -> None:
        self._worker = worker
        self.stage, self.root, self.folder, self.events = stage, root, folder, events
        self._finished: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._skip: dict[str, str] = {}
        self._attempts: Counter[str] = Counter()
        self._durations: list[float] = []
        self._served: Counter[Any] = Counter()
        self._stillborn = 0
        have = ray.cluster_resources()
        self._workers = stage.workers or int(have.get("CPU", 1))
        self._threads = stage.threads or max(1, (os.cpu_count() or 1) // self._workers)
        # Several workers share a card; Ray hides all cards from an actor that asks for none.
        share = 0.0 if stage.engine.device == "cpu" else have.get("GPU", 0.0) / self._workers
        self._gpus = int(share) if share > 1 else round(share, 4)

    def run(self, tasks: Iterable[plan.Task], on_outcomes: Any, fold: Any) -> None:
        """Run ``tasks`` to the end; ``on_outcomes(list[Outcome])`` after each, ``fold()`` now and then.

        Raises StorageError; a task that fails is recorded and the run goes on.
        """
        queue = iter(tasks)
        waiting: deque[plan.Task] = deque()

        def wait_at_least(count: int) -> bool:
            while len(waiting) < count and (task := next(queue, None)) is not None:
                waiting.append(task)
            return len(waiting) >= count

        idle: list[Any] = []
        starting: dict[Any, Any] = {}
        flying: dict[Any, tuple[Any, plan.Task, float]] = {}
        folded = time.monotonic()
        try:
            while True:
                while idle and wait_at_least(1):
                    actor, task = idle.pop(), waiting.popleft()
                    self._attempts[task.task_id] += 1
                    ref = actor.run.remote(task, self._skip, self._attempts[task.task_id])
                    flying[ref] = (actor, task, time.monotonic())
                if not flying and not wait_at_least(1):
                    return
                # An actor that no node has room for yet holds no task: a cluster may shrink while it runs. None is started
                # without a task left for it: the start of Blender takes longer than many a task.
                while not idle and len(flying) + len(starting) < self._workers and wait_at_least(len(starting) + 1):
                    actor = self._spawn()
                    starting[actor.ready.remote()] = actor
                ready, _ = ray.wait([*flying, *starting], num_returns=1, timeout=1.0)
                for ref in ready:
                    if ref in starting:
                        actor = starting.pop(ref)
                        if self._started(ref):
                            idle.append(actor)
                        continue
                    actor, task, started = flying.pop(ref)
                    if self._finish(ref, actor, task, started, on_outcomes):
                        idle.append(actor)
                    elif task.task_id not in self._finished:
                        waiting.append(task)
                waiting.extend(self._kill_overdue(flying))
                if time.monotonic() - folded > FOLD_EVERY_S:
                    fold()
                    folded = time.monotonic()
        finally:
            for actor in [*idle, *starting.values(), *(a for a, _, _ in flying.values())]:
                ray.kill(actor, no_restart=True)

    def _started(self, ref: Any) -> bool:
        """Whether a worker came up. Raises InputError when the stage cannot be set up, RenderError when none comes up."""
        try:
            ray.get(ref)
        except ray.exceptions.RayActorError as error:
            self._stillborn += 1
            self.events.emit("worker_lost", task_id="", sample_id="", why=_first_line(error), deaths=self._stillborn)
            if self._stillborn >= MAX_STILLBORN:
                raise RenderError(
                    "", f"{MAX_STILLBORN} workers in a row died before their first task ({_first_line(error)})"
                ) from None
            return False
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if error.cause is not None else error
            raise InputError(f"a worker cannot be set up: {cause}") from None
        self._stillborn = 0
        return True

    def _spawn(self) -> Any:
        remote: Any = ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0, max_task_retries=0)(self._worker)
        return remote.remote(self.stage, str(self.root), str(self.folder), self._threads)

    def _finish(self, ref: Any, actor: Any, task: plan.Task, started: float, on_outcomes: Any) -> bool:
        """Take one result; True when ``actor`` can go on. A lost task goes back unless its receipt was written."""
        try:
            result = ray.get(ref)
        except ray.exceptions.RayActorError as error:
            if NODE_GONE.search(str(error)):
                self.events.emit("worker_lost", task_id=task.task_id, sample_id="", why=_first_line(error), deaths=0)
            else:
                self._lost(task, f"worker died ({_first_line(error)})")
            return False
        except RenderError as error:
            self._lost(task, str(error.message))
            ray.kill(actor, no_restart=True)
            return False
        except StorageError as error:
            # Ray raises a child of both classes whose text is a remote traceback; the cause is ours.
            raise StorageError(str(getattr(error, "cause", error))) from None
        except ray.exceptions.RayTaskError as error:
            self._lost(task, _first_line(error.cause if error.cause is not None else error))
            ray.kill(actor, no_restart=True)
            return False
        self._finished.add(task.task_id)
        self._durations.append(time.monotonic() - started)
        on_outcomes(result["outcomes"])
        self._served[actor] += 1
        if self._served[actor] >= self.stage.recycle_tasks or result["rss_mb"] > self.stage.recycle_rss_mb:
            self.events.emit("worker_recycled", tasks=self._served[actor], rss_mb=round(result["rss_mb"]))
            ray.kill(actor, no_restart=True)
            return False
        return True

    def _lost(self, task: plan.Task, why: str) -> None:
        """Blame the sample the worker was at; after MAX_DEATHS it is skipped and named."""
        sample, told = Notes(self.folder, task.task_id).last()
        sample = sample or task.samples[0].sample_id
        why = "; ".join(w for w in (why, told) if w)
        self._deaths[sample] += 1
        self.events.emit("worker_lost", task_id=task.task_id, sample_id=sample, why=why, deaths=self._deaths[sample])
        if self._deaths[sample] >= MAX_DEATHS:
            spec = next(s for s in task.samples if s.sample_id == sample)
            assets = ", ".join(i.identity_id for i in spec.identities)
            self._skip[sample] = f"lost {MAX_DEATHS} workers on this sample (assets {assets}): {why}"

    def _kill_overdue(self, flying: dict[Any, tuple[Any, plan.Task, float]]) -> list[plan.Task]:
        median = statistics.median(self._durations) if self._durations else 0.0
        deadline = max(self.stage.deadline_s, DEADLINE_FACTOR * median)
        overdue = [r for r, (_, _, started) in flying.items() if time.monotonic() - started > deadline]
        tasks = []
        for ref in overdue:
            actor, task, _ = flying.pop(ref)
            # SIGKILL is the only thing a native call listens to.
            ray.kill(actor, no_restart=True)
            self._lost(task, f"no result after {deadline:.0f} s; killed")
            tasks.append(task)
        return tasks


def render(
    job: Job, run: Path, root: Path, events: Events, retry_failed: bool = False, address: str | None = None
) -> dict[str, Any]:
    """Render what is still missing of ``job.render`` into ``run``/render.

    ``root``: the folder that relative paths of the job start from. ``address``: of a Ray cluster; Ray is started once the inputs
    are found good and something is missing, for it takes seconds. Returns counts by status. Raises JobError, InputError,
    StorageError.
    """
    from render import stage as render_stage

    assert job.render is not None
    stage, folder = job.render, run / "render"
    identities, inputs = render_stage.pool(stage, root)
    plan.check_splits(stage, identities)
    digest = freeze(folder, stage, inputs, engine=render_stage.engine_version())
    commit.collect_orphans(folder)
    tasks, status = todo(folder, stage, digest, identities, retry_failed)
    missing = max(stage.samples - len(status), 0)
    if len(status) > stage.samples:
        console.print(
            f"  {len(status)} samples are settled already and {stage.samples} asked for: none is taken away; "
            "`maquette filter` writes a smaller dataset",
            soft_wrap=True,
        )
    first = next(tasks, None)
    if first is not None:
        join(address, run)
    started = time.monotonic()
    reasons: Counter[str] = Counter()

    def fold() -> None:
        commit.fold(folder, "rendered", digest)

    with bar("render") as progress:
        shown = progress.add_task("", total=missing, note="")

        def on_outcomes(outcomes: list[commit.Outcome]) -> None:
            status.update({o.sample_id: o.status for o in outcomes})
            for outcome in outcomes:
                if outcome.status != "done":
                    reasons[f"{outcome.status}: {outcome.why}"] += 1
                    events.emit("sample_" + outcome.status, sample_id=outcome.sample_id, why=outcome.why)
            progress.update(shown, advance=len(outcomes), note=_note(Counter(status.values())))

        try:
            if first is not None:
                driver = RenderDriver(stage, root, folder, events)
                driver.run(itertools.chain([first], tasks), on_outcomes, fold)
        finally:
            _fold_quietly(fold, events)
    for reason, count in reasons.most_common(SHOWN_REASONS):
        console.print(f"  {count} x {reason}", markup=False, highlight=False, soft_wrap=True)
    done = Counter(status.values())
    result = {
        "done": done["done"],
        "rejected": done["rejected"],
        "failed": done["failed"],
        "seconds": round(time.monotonic() - started, 1),
    }
    events.emit("stage_finished", stage="render", **result)
    return result


def todo(
    folder: Path, stage: RenderStage, digest: str, identities: list[plan.Identity], retry_failed: bool
) -> tuple[Iterator[plan.Task], dict[str, str]]:
    """The tasks that the receipts in ``folder`` leave to do, one by one, and sample id -> status of those they settle.

    ``retry_failed``: failed samples are to do again, and not settled.
    """
    receipts = commit.receipts(folder)
    status = latest_status(receipts.values())
    again: list[plan.Task] = []
    if retry_failed:
        for task_id in newest_tries(receipts):
            failed = [o for o in receipts[task_id].outcomes if o.status == "failed"]
            if failed:
                again.append(plan.retry_task(stage, digest, identities, task_id, [o.index for o in failed]))
                for outcome in failed:
                    status.pop(outcome.sample_id, None)
    fresh = plan.render_tasks(stage, digest, identities, [plan.task_range(t) for t in receipts])
    return itertools.chain(fresh, again), status


def latest_status(receipts: Iterable[commit.Receipt]) -> dict[str, str]:
    """sample id -> status; a retry's outcome stands over the one it retried."""
    ordered = sorted(receipts, key=lambda r: (plan.task_range(r.task_id), len(r.task_id), r.task_id))
    return {o.sample_id: o.status for r in ordered for o in r.outcomes}


def newest_tries(receipts: Iterable[str]) -> list[str]:
    """The last try of each task, in order: ``0+4r2`` rather than ``0+4`` and ``0+4r1``."""
    newest: dict[tuple[int, int], str] = {}
    for task_id in sorted(receipts, key=lambda t: (plan.task_range(t), len(t), t)):
        newest[plan.task_range(task_id)] = task_id
    return list(newest.values())


def _fold_quietly(fold: Any, events: Events) -> None:
    """Fold what is there even while an error is on its way out; a second storage error must not hide the first."""
    try:
        fold()
    except MaquetteError as error:
        events.emit("fold_failed", why=str(error))
        raise


def _note(done: Counter[str]) -> str:
    return ", ".join(f"{done[k]} {k}" for k in ("rejected", "failed") if done[k])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
