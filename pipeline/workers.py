"""Tasks -> shards and receipts, inside Ray actors: each one a long-lived Blender process that a driver may kill."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import ray

from manifests.commit import Outcome, Receipt, write_receipt
from manifests.errors import AssetError, InputError, MaquetteError, RenderError, SampleRejected
from manifests.job import RenderStage
from manifests.plan import SampleSpec, Task
from manifests.sample import RenderedSample
from manifests.shards import Coding, ShardWriter, row_of

# How much of Blender's own log goes into the reason of a failed sample.
LOG_LINES = 3
PROGRESS = re.compile(r"Fra:|Saved:|Time:| Time:")


def start_ray(address: str | None) -> None:
    """Join the cluster at ``address``, or start a local one without dashboard and usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        return
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 512 * 2**20}
    # "local": without it Ray would join whatever cluster left its address on this machine, a dead one included.
    if address and address != "auto" and not _answers(address):
        raise InputError(
            f"--address {address}: no Ray cluster answers there; give HOST:PORT of its head, or leave it out"
        )
    init = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False, **local}
    for again in (True, False):
        try:
            ray.init(**init)
            return
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = (str(error).strip().splitlines() or ["no cluster"])[0]
            raise InputError(f"--address {address or 'local'}: {told}; start one with `ray start --head`") from None
        except Exception as error:
            # Ray waits 30 s for its own processes and then raises a bare Exception, which a busy machine can bring about.
            if type(error) is not Exception:
                raise
            ray.shutdown()
            if not again:
                raise MaquetteError(
                    f"Ray's own processes did not start within 30 s, twice ({str(error).split('. ')[0]}). "
                    f"The machine may be overloaded (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores) or out of "
                    "memory; run the same command again when it is quieter: finished work is kept"
                ) from None


def join(address: str | None, folder: Path) -> None:
    """Have Ray run, as `start_ray` does, on nodes that all see ``folder``. Raises InputError."""
    start_ray(address)
    check_shared(folder)


def _answers(address: str) -> bool:
    """Whether something listens at ``ray://HOST:PORT`` or ``HOST:PORT``: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def check_shared(folder: Path) -> None:
    """Refuse a run folder that some node of the cluster cannot see; raises InputError naming the node."""
    nodes = [n for n in ray.nodes() if n["Alive"]]
    if len(nodes) < 2:
        return
    token = folder / f".visible-{uuid.uuid4().hex}"
    token.touch()
    try:
        for node in nodes:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            sees, name = ray.get(_sees.options(scheduling_strategy=strategy).remote(str(token)))
            if not sees:
                raise InputError(
                    f"run folder {folder}: node {name} cannot see it; put `runs` on storage that all nodes share"
                )
    finally:
        token.unlink(missing_ok=True)


@ray.remote(num_cpus=0)
def _sees(path: str) -> tuple[bool, str]:
    return Path(path).exists(), socket.gethostname()


class RenderWorker:
    """One Blender process. It writes its own shards; only receipts travel back through Ray."""

    def __init__(self, stage: RenderStage, root: str, folder: str, threads: int) -> None:
        self._stage, self._root, self._folder, self._threads = stage, Path(root), Path(folder), threads
        self._renderer: Any = None
        # Before libraries that read it are loaded. As a runtime environment it would cost each worker a process of its own,
        # beside the one that Ray has started ahead.
        os.environ["OMP_NUM_THREADS"] = str(threads)

    def ready(self) -> None:
        """Start Blender and read the stage's inputs. InputError (the stage cannot be set up here) reaches the driver.

        Not done when the actor is made: an error there would only be a dead actor.
        """
        from render.stage import Renderer

        stage = self._stage
        self._coding = Coding(stage.image_format, stage.depth_format == "float32", stage.normal_bits)
        self._renderer = Renderer(stage, self._root, self._threads)
        Watchdog(stage.max_rss_mb).start()

    def run(self, task: Task, skip: dict[str, str], attempt: int) -> dict[str, Any]:
        """Render ``task`` into one shard and a receipt. ``skip``: sample id -> why it must not be tried again.

        Returns counts and the process's resident memory in MB. RenderError and StorageError reach the driver.
        """
        notes = Notes(self._folder, task.task_id)
        self._renderer.log = notes.log
        outcomes: list[Outcome] = []
        with ShardWriter(self._folder, task.task_id, "rendered") as writer:
            for spec in task.samples:
                notes.at(spec.sample_id)
                start = time.perf_counter()
                status, why = "done", ""
                if spec.sample_id in skip:
                    status, why = "failed", skip[spec.sample_id]
                else:
                    try:
                        writer.append(row_of(self.render(spec), self._coding))
                    except SampleRejected as error:
                        status, why = "rejected", error.reason
                    except AssetError as error:
                        status, why = "failed", str(error)
                    except RenderError as error:
                        raise RenderError(task.task_id, f"sample {spec.sample_id}: {error.message}") from error
                outcomes.append(
                    Outcome(spec.sample_id, spec.index, status, why, round(time.perf_counter() - start, 3), attempt)
                )
            shards = writer.close()
        receipt = Receipt(task.task_id, task.stage_digest, shards, outcomes, {"pid": os.getpid()})
        write_receipt(self._folder, receipt)
        notes.clear()
        return {
            "task_id": task.task_id,
            "outcomes": outcomes,
            "rss_mb": psutil.Process().memory_info().rss / 2**20,
        }

    def render(self, spec: SampleSpec) -> RenderedSample:
        """One sample; what tests of failing workers replace."""
        sample: RenderedSample = self._renderer.render(spec)
        return sample


class Watchdog(threading.Thread):
    """Kills its own process once its resident memory passes ``limit_mb``: one scene must not take the node down."""

    def __init__(self, limit_mb: int) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._limit_mb = limit_mb

    def run(self) -> None:
        """Look twice a second; Blender and Embree leave Python free meanwhile."""
        process = psutil.Process()
        while (rss := process.memory_info().rss / 2**20) <= self._limit_mb:
            time.sleep(0.5)
        if Notes.current is not None:
            Notes.current.why(f"its memory grew to {rss:.0f} MB, over render.max_rss_mb {self._limit_mb}")
        os.kill(os.getpid(), signal.SIGKILL)


class Notes:
    """What a task leaves in the dataset's tmp/ while it runs, so that a dead worker's last words are known."""

    current: Notes | None = None

    def __init__(self, folder: Path, task_id: str) -> None:
        self._now, self._why, self.log = (folder / "tmp" / f"{task_id}.{kind}" for kind in ("now", "why", "log"))

    def at(self, sample_id: str) -> None:
        """The task is about to start ``sample_id``."""
        Notes.current = self
        self._now.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._now.with_suffix(f".{os.getpid()}")
        fresh.write_text(sample_id)
        fresh.replace(self._now)
        self.log.unlink(missing_ok=True)

    def why(self, text: str) -> None:
        """Why the worker is about to die."""
        self._why.write_text(text)

    def clear(self) -> None:
        """The task is done."""
        Notes.current = None
        for path in (self._now, self._why, self.log):
            path.unlink(missing_ok=True)

    def last(self) -> tuple[str | None, str]:
        """(sample the task was at or None, what is known of the end), read by the driver, which then clears them."""
        sample = _text(self._now) or None
        said = [line for line in _text(self.log).splitlines() if line.strip() and not PROGRESS.match(line)]
        told = [_text(self._why), *said[-LOG_LINES:]]
        self.clear()
        return sample, "; ".join(t.strip() for t in told if t.strip())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
