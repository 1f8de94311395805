"""Workers that die, hang, or eat the memory: nothing is lost, who did it is named, the others' samples are written."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from manifests import commit, plan
from manifests.errors import InputError
from manifests.job import RenderStage, load
from manifests.sample import RenderedSample
from manifests.verify import verify
from pipeline.freeze import freeze
from pipeline.progress import Events
from pipeline.render import RenderDriver
from pipeline.workers import RenderWorker, check_shared
from tests import runs

pytestmark = pytest.mark.engine
POISON = {1: "kill", 5: "segv", 9: "hang", 13: "memory"}


class Faulty(RenderWorker):
    """Does something terrible at the samples of POISON, every time."""

    def render(self, spec: plan.SampleSpec) -> RenderedSample:
        fault = POISON.get(spec.index)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "segv":
            ctypes.string_at(0)
        elif fault == "hang":
            # Native and deaf, holding the interpreter, as a hung kernel would.
            ctypes.PyDLL(None).sleep(600)
        elif fault == "memory":
            hoard = []
            while True:
                hoard.append(np.ones(2**24))
                time.sleep(0.05)
        return super().render(spec)


@pytest.fixture
def ray_here():
    import ray

    from pipeline.workers import start_ray

    start_ray(None)
    yield ray
    ray.shutdown()


def drive(folder: Path, stage: RenderStage, root: Path, worker: type = RenderWorker) -> dict[int, commit.Outcome]:
    """Run ``stage`` with ``worker`` in this process's cluster; index -> outcome."""
    from render.stage import pool

    identities, inputs = pool(stage, root)
    folder.mkdir(parents=True)
    digest = freeze(folder, stage, inputs, engine="test")
    driver = RenderDriver(stage, root, folder, Events(folder.parent), worker)
    driver.run(plan.render_tasks(stage, digest, identities), lambda _: None, lambda: None)
    commit.fold(folder, "rendered", digest)
    return {o.index: o for r in commit.receipts(folder).values() for o in r.outcomes}


def test_four_ways_to_die_lose_nothing_but_the_poison(tmp_path, ray_here):
    path = runs.job(tmp_path, samples=16, samples_per_task=4, deadline_s=12, max_rss_mb=1500)
    stage = load(path).render
    assert stage is not None
    folder = tmp_path / "runs" / "run" / "render"
    outcomes = drive(folder, stage, tmp_path, Faulty)
    assert sorted(outcomes) == list(range(16))
    assert {i for i, o in outcomes.items() if o.status != "done"} == set(POISON)
    for index, outcome in outcomes.items():
        if index in POISON:
            assert outcome.status == "failed"
            assert "lost 2 workers on this sample (assets files/figure" in outcome.why
    assert re.search(r"no result after \d+ s; killed", outcomes[9].why)
    assert "over render.max_rss_mb 1500" in outcomes[13].why
    assert verify(folder) == []
    # No task left its notes, nor a dead worker its passes.
    assert not [p for p in (folder / "tmp").glob("*") if p.suffix in (".now", ".why", ".log")]


def test_a_device_that_is_not_here_stops_the_run_and_says_so(tmp_path, cluster):
    job = runs.job(tmp_path, samples=2, engine={"samples": 1, "denoiser": "none", "device": "oneapi"})
    code, said = runs.maquette("render", job, "--address", cluster)
    assert code == 2
    assert "no oneapi device on this machine" in said
    assert "Traceback" not in said


def test_a_node_that_goes_takes_no_sample_with_it(tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        path = runs.job(tmp_path, samples=18, samples_per_task=2, workers=3)
        stage = load(path).render
        assert stage is not None
        folder = tmp_path / "runs" / "run" / "render"
        check_shared(tmp_path)

        def remove() -> None:
            while len(commit.receipts(folder)) < 2:
                time.sleep(0.2)
            cluster.remove_node(nodes[0])

        thread = threading.Thread(target=remove, daemon=True)
        thread.start()
        outcomes = drive(folder, stage, tmp_path)
        thread.join(1)
        assert not thread.is_alive()
        assert sum(n["Alive"] for n in ray.nodes()) == 2
        assert sorted(outcomes) == list(range(18))
        assert {o.status for o in outcomes.values()} == {"done"}
        assert verify(folder) == []
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_run_folder_that_a_node_cannot_see_is_refused(tmp_path):
    import ray

    hidden = tmp_path / "runs"
    hidden.mkdir()
    # A second node in a mount namespace of its own, where another file system lies over the run folder.
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(hidden)], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets no process have mounts of its own (unshare -m)")
    head = ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    address = head.address_info["gcs_address"]
    ray_command = f"{Path(sys.executable).parent / 'ray'} start --address {address} --num-cpus 1 --block"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {hidden} && exec {ray_command}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while sum(n["Alive"] for n in ray.nodes()) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        with pytest.raises(InputError, match="cannot see it; put `runs` on storage that all nodes share"):
            check_shared(hidden)
    finally:
        node.terminate()
        ray.shutdown()
        node.wait(30)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator alone is tuned")
def test_large_arrays_go_back_to_the_system_though_small_ones_stay_between_them():
    script = """
import sys
import numpy as np, psutil
from render.stage import tidied
tidied()
used = lambda: psutil.Process().memory_info().rss / 2**20
# Freed, it would have glibc keep all smaller ones on its heap from now on.
del_me = np.ones(30 << 17); del del_me
before = used()
large, small = zip(*((np.ones(2 << 17), np.ones(1 << 10)) for _ in range(100)))
held = used() - before
del large
print(held, used() - before)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    held, left = (float(x) for x in said.split())
    assert held > 190
    assert left < 20
