"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With two workers a file's tests go to one, which makes their fixtures once, and all that start Ray go to the same
    one: each such run takes the whole machine for its own, and those that can share a cluster.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if _starts_ray(item.path) else item.path.stem))


@functools.cache
def _starts_ray(path: Path) -> bool:
    """`tests.runs.here` is for commands that need none."""
    text = path.read_text(encoding="utf-8")
    return "runs.maquette(" in text or "start_ray" in text


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background job is started deaf to Ctrl-C, and so is every child that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real assets, photographs and weights kept beside the checkout; tests that need them skip without."""
    folder = Path(os.environ.get("MAQUETTE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared test files at {folder}; set MAQUETTE_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans that tests import are kept apart from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["MAQUETTE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def forgotten(request: pytest.FixtureRequest):
    """What a file's tests keep in their caches goes with the file: people are tens of megabytes each."""
    yield
    for found in vars(request.module).values():
        if hasattr(found, "cache_clear") and found.__module__.startswith("tests."):
            found.cache_clear()


@pytest.fixture(scope="session")
def cluster(cache: Path) -> Iterator[str]:
    """Address of a Ray cluster for `--address`: one started for each small run would take longer than the run."""
    from tests import runs

    script = "from pipeline.workers import start_ray; start_ray(None); import ray; "
    script += "print(ray.get_runtime_context().gcs_address, flush=True); input()"
    head = runs.python("-c", script, stdin=subprocess.PIPE)
    yield head.stdout.readline().strip()
    head.communicate("\n", timeout=60)


@pytest.fixture(scope="session")
def body():
    """The parametric body, made once."""
    from render.assets.anny import _studio

    return _studio()[0]


@pytest.fixture(scope="session")
def charts():
    """Where skin lies on its textures, made once."""
    from render.assets.anny import _studio

    return _studio()[1].complexions


@pytest.fixture(scope="session")
def rig(body):
    """Its anatomical joints."""
    from render.people import joints

    return joints.rig_of(body)
