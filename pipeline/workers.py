"""Tasks -> shards and receipts, inside Ray actors: each one a long-lived Blender process that a driver may kill."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import ray

from manifests.commit import Outcome, Receipt, write_receipt
from manifests.errors import AssetError, InputError, RenderError, SampleRejected
from manifests.job import RenderStage
from manifests.plan import Task
from manifests.shards import Coding, ShardWriter, row_of


def start_ray(address: str | None) -> None:
    """Join the cluster at ``address``, or start a local one without dashboard and usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        return
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 512 * 2**20}
    # "local": without it Ray joins whatever cluster someone else has running on this machine.
    ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)


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
        from render.stage import Renderer

        self._stage, self._folder = stage, Path(folder)
        self._coding = Coding(stage.image_format, stage.depth_format == "float32", stage.normal_bits)
        self._renderer = Renderer(stage, Path(root), threads)

    def run(self, task: Task, skip: dict[str, str], attempt: int) -> dict[str, Any]:
        """Render ``task`` into one shard and a receipt. ``skip``: sample id -> why it must not be tried again.

        Returns counts and the process's resident memory in MB. RenderError and StorageError reach the driver.
        """
        outcomes: list[Outcome] = []
        with ShardWriter(self._folder, task.task_id, "rendered") as writer:
            for spec in task.samples:
                announce(self._folder, task.task_id, spec.sample_id)
                start = time.perf_counter()
                status, why = "done", ""
                if spec.sample_id in skip:
                    status, why = "failed", skip[spec.sample_id]
                else:
                    try:
                        writer.append(row_of(self._renderer.render(spec), self._coding))
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
        announce(self._folder, task.task_id, None)
        return {
            "task_id": task.task_id,
            "outcomes": outcomes,
            "rss_mb": psutil.Process().memory_info().rss / 2**20,
        }


def announce(folder: Path, task_id: str, sample_id: str | None) -> None:
    """Leave a note of the sample that ``task_id`` is about to start, so that a dead worker's last words are known."""
    note = folder / "tmp" / f"{task_id}.now"
    if sample_id is None:
        note.unlink(missing_ok=True)
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(f".{os.getpid()}")
    fresh.write_text(sample_id)
    fresh.replace(note)


def last_announced(folder: Path, task_id: str) -> str | None:
    """The sample a task was at, or None when it had not started."""
    try:
        return (folder / "tmp" / f"{task_id}.now").read_text()
    except FileNotFoundError:
        return None
