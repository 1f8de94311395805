"""Small real runs for tests: a scan-like figure, a job around it, and the `maquette` command as a process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import yaml

from pipeline import cli
from tests.conftest import ROOT

TOKEN = secrets.token_hex(16)


def figure(path: Path, height: float = 1.7, seed: int = 0) -> Path:
    """Write an OBJ of a standing figure (head, trunk, legs), y up, metres, and return its path."""
    rng = np.random.default_rng(seed)
    width = 0.16 + 0.03 * rng.random()
    head = trimesh.creation.icosphere(3, 0.11).apply_translation([0, height - 0.11, 0])
    trunk = trimesh.creation.capsule(0.45 * height, width).apply_transform(
        trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
    )
    trunk.apply_translation([0, 0.42 * height - trunk.bounds[0][1] - 0.02, 0])
    trunk.vertices[:, 1] = np.clip(trunk.vertices[:, 1], 0, height - 0.2)
    legs = [
        trimesh.creation.cylinder(0.075, 0.5 * height, sections=24)
        .apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        .apply_translation([x, 0.25 * height, 0])
        for x in (-0.09, 0.09)
    ]
    mesh = trimesh.util.concatenate([head, trunk, *legs])
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)
    return path


def job(folder: Path, name: str = "run", **render: Any) -> Path:
    """Write figures and a job that renders them at 96x128, 1 sample, into ``folder``/runs; returns the job's path."""
    for i in range(3):
        path = folder / "scans" / f"figure{i}.obj"
        if not path.exists():
            figure(path, 1.5 + 0.12 * i, i)
    stage = {
        "samples": 12,
        "samples_per_task": 2,
        "width": 96,
        "height": 128,
        "assets": [{"source": "files", "paths": ["scans/*.obj"], "unit": "m", "up": "y"}],
        "splits": {"train": 1.0, "val": 0.0, "test": 0.0},
        "engine": {"samples": 1, "denoiser": "none"},
        # 12,288 pixels in all: one silhouette pixel may be 0.1 % of a small figure.
        "verify_limits": {"opaque_share": 0.98},
        "workers": 2,
    } | render
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "runs": str(folder / "runs"), "render": stage}))
    return path


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`python ARGUMENTS` as a process in its own session."""
    # Ray asks for a token where one process joins the cluster that another started.
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        text=True,
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """`maquette ARGUMENTS`, stderr and stdout together."""
    return python("-m", "pipeline.cli", *map(str, arguments), stderr=subprocess.STDOUT)


def maquette(*arguments: str | Path, timeout: float = 300) -> tuple[int, str]:
    """Run `maquette ARGUMENTS` to its end: exit code and everything it said."""
    process = start(*arguments)
    said, _ = process.communicate(timeout=timeout)
    return process.returncode, said


def here(*arguments: str | Path) -> tuple[int, str]:
    """The same in this process, for commands that start no Ray: most of them take less time than their imports."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.execute([*map(str, arguments)])
    return code, said.getvalue()


def shards(dataset: Path) -> dict[str, str]:
    """file name -> sha256 of every shard of a dataset."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((dataset / "data").glob("*.arrow"))}
