"""What a user sees when something is wrong: one clear paragraph, the right exit code, finished work kept."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from manifests import commit
from tests import runs


def test_a_yaml_mistake_ends_in_one_line_per_mistake_and_exit_2(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: x\nrender: {sampels: 3, width: wide}\n")
    code, said = runs.here("run", path)
    assert code == 2
    assert "render.sampels: unknown key; did you mean `samples`?" in said
    assert "render.width" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\ncurate: {sources: [{path: nowhere}]}\n", 'curate.sources.0.path: "nowhere": no such file or folder'),
        ("name: x\npretrain: {data: [nowhere]}\n", 'pretrain.data: "nowhere"'),
        ("name: x\nfinetune: [{name: d, task: depth, data: [render]}]\n", 'finetune.0.data: "render"'),
        ("name: x\n", "no section to run"),
        ("name: x\nrender: {assets: [{source: files, paths: [nowhere/*.glb]}]}\n", "nowhere/*.glb"),
    ],
)
def test_what_a_job_names_must_exist(tmp_path, text, expected):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    code, said = runs.here("run", path, "--set", f"runs={tmp_path}/runs")
    assert code == 2, said
    assert expected in said
    assert "Traceback" not in said


def test_wrong_words_on_the_command_line_exit_2(tmp_path):
    for arguments in (
        ["frobnicate"],
        ["run"],
        ["run", tmp_path / "absent.yaml"],
        ["verify", tmp_path],
        ["report", tmp_path],
    ):
        code, said = runs.here(*arguments)
        assert code == 2, said
        assert "Traceback" not in said


def test_schema_is_json_schema_and_plan_runs_nothing(tmp_path):
    import json

    code, said = runs.maquette("schema")
    assert code == 0
    assert json.loads(said)["properties"]["render"]
    job = runs.job(tmp_path)
    code, said = runs.here("plan", job)
    assert code == 0, said
    assert "12 samples 96x128, 3 identities" in said
    assert not (tmp_path / "runs").exists()


def wait_for_receipt(process: subprocess.Popen[str], dataset: Path) -> None:
    """Block until the run has finished a task."""
    deadline = time.monotonic() + 300
    while not list(dataset.glob("receipts/*.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.engine
def test_ctrl_c_keeps_finished_work_and_exits_130(tmp_path):
    job = runs.job(tmp_path, samples=40)
    process = runs.start("render", job)
    dataset = tmp_path / "runs/run/render"
    wait_for_receipt(process, dataset)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "give the same command again" in said.lower()
    assert "Traceback" not in said
    kept = commit.newest_manifest(dataset)
    assert kept is not None
    assert kept["shards"]


def fill(path: Path) -> None:
    """Write zeros until the disk is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(2**16))
            except OSError:
                return


@pytest.mark.engine
def test_a_full_disk_ends_with_exit_3_and_the_same_command_goes_on(tmp_path, cluster):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        # Enough that the disk is full before the run is done.
        job = runs.job(tmp_path, samples=40)
        process = runs.start("run", job, "--set", f"runs={disk}/runs")
        dataset = disk / "runs/run/render"
        wait_for_receipt(process, dataset)
        filler = disk / "filler"
        fill(filler)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 3, said
        assert "space" in said.lower()
        assert "Traceback" not in said
        filler.unlink()
        code, said = runs.maquette("run", job, "--set", f"runs={disk}/runs", "--address", cluster)
        assert code == 0, said
        assert len(runs.shards(dataset)) == 20
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.engine
def test_a_glb_without_geometry_is_named_and_the_others_are_rendered(tmp_path, cluster):
    import trimesh

    job = runs.job(tmp_path, samples=8, assets=[{"source": "files", "paths": ["scans/*"], "unit": "m", "up": "y"}])
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.PointCloud([[0, 0, 0], [0, 1, 0]]))
    (tmp_path / "scans/empty.glb").write_bytes(trimesh.exchange.gltf.export_glb(scene))
    code, said = runs.maquette("render", job, "--address", cluster)
    assert code == 1, said
    assert "Traceback" not in said
    outcomes = [o for r in commit.receipts(tmp_path / "runs/run/render").values() for o in r.outcomes]
    failed = [o for o in outcomes if o.status == "failed"]
    assert failed
    assert all("files/empty" in o.why for o in failed)
    assert {o.status for o in outcomes} == {"done", "failed"}
