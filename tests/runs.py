"""Small real runs for tests: a scan-like figure, a job around it, and the `maquette` command as a process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import yaml

from tests.conftest import ROOT


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


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """`maquette ARGUMENTS` as a process in its own session, stderr and stdout together."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **options,
    )


def maquette(*arguments: str | Path, timeout: float = 300) -> tuple[int, str]:
    """Run `maquette ARGUMENTS` to its end: exit code and everything it said."""
    process = start(*arguments)
    said, _ = process.communicate(timeout=timeout)
    return process.returncode, said


def shards(dataset: Path) -> dict[str, str]:
    """file name -> sha256 of every shard of a dataset."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((dataset / "data").glob("*.arrow"))}
