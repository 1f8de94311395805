"""What a newcomer does wrong ends in one paragraph and the right exit code."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest

from manifests.errors import InputError, MaquetteError, ShardError, StorageError
from manifests.export import export
from manifests.job import Job
from pipeline import data_commands, estimate, report
from pipeline.workers import start_ray
from tests import runs
from tests.samples import dataset


def test_a_job_that_is_not_text(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_bytes("name: été\n".encode("latin-1"))
    code, said = runs.here("plan", job)
    assert code == 2
    assert "not UTF-8 text" in said


def test_an_address_where_no_cluster_is():
    for address in ("127.0.0.1:9", "nonsense", "ray://127.0.0.1:9"):
        with pytest.raises(InputError, match="no Ray cluster answers"):
            start_ray(address)


def test_a_machine_too_busy_for_ray_is_told_so_after_a_second_try(monkeypatch):
    tries = []

    def init(**_):
        tries.append(1)
        raise Exception("The current node timed out during startup. This could happen because the GCS is overloaded.")

    # Ray's own words and class when its processes take longer than 30 s: no test can make a machine that slow at will.
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(
        MaquetteError, match=r"twice \(The current node timed out during startup\)\. .*quieter"
    ) as found:
        start_ray(None)
    assert (len(tries), found.value.exit_code) == (2, 1)


def test_plan_refuses_what_run_refuses(tmp_path):
    job = runs.job(tmp_path, splits={"train": 0.5, "val": 0.0, "test": 0.5}, people={"counts": [0, 0, 0, 0, 1]})
    code, said = runs.here("plan", job)
    assert code == 2
    assert "scenes of 5 need as many identities" in said


def test_pictures_that_are_not_whole_patches_are_refused_before_anything_is_rendered(tmp_path):
    job = runs.job(tmp_path)
    first = "pretrain={data: [render], model: tiny, width: 70, height: 128}"
    then = "finetune=[{name: a, task: depth, data: [render], init: random, width: 64, height: 100}]"
    for command in ("plan", "run"):
        code, said = runs.here(command, job, "--set", first, "--set", then)
        assert code == 2
        assert "pretrain: 70x128 is not whole patches of 8 px" in said
        assert "finetune a: 64x100 is not whole patches of 8 px" in said
    assert not any(tmp_path.rglob("receipts"))


def test_a_share_that_is_not_finite_is_refused_by_name(tmp_path):
    job = runs.job(tmp_path, assets=[{"source": "anny", "count": 2, "hair": {"female": {"bob": float("inf")}}}])
    code, said = runs.here("plan", job)
    assert code == 2
    assert "hair.female.bob" in said
    assert "finite" in said


def test_plan_counts_no_layers_without_torch(monkeypatch):
    job = Job.model_validate({"name": "x", "pretrain": {"data": ["runs/other/render"], "model": "small"}})
    assert estimate.train_s_per_mpx(job.pretrain) > estimate.TINY_S_PER_MPX
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"small is counted with torch.*maquette\[train\]"):
        estimate.train_s_per_mpx(job.pretrain)


def test_weights_that_are_not_there(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("name: x\ncurate: {sources: [{path: bundled}], detector: {kind: onnx, weights: none.onnx}}\n")
    code, said = runs.here("run", job, "--set", f"runs={tmp_path}")
    assert code == 2
    assert 'curate.detector.weights: "none.onnx": no such file' in said
    assert not (tmp_path / "x").exists()


def test_an_export_of_a_damaged_row_stops_and_names_it(tmp_path):
    folder = dataset(tmp_path / "set", 4)
    shard = next((folder / "data").glob("*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="maquette"):
        export(folder, "sapiens-v1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_withdrawing_someone_nobody_has(tmp_path):
    folder = dataset(tmp_path / "set", 4)
    with pytest.raises(InputError, match="no sample shows files/anna"):
        data_commands.withdraw(str(folder), asset=["files/anna"], why="x")


def test_a_picture_that_cannot_be_written(tmp_path):
    folder = dataset(tmp_path / "set", 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"):
        data_commands.inspect(str(folder), sheet=tmp_path / "file" / "sheet.jpg")


def test_a_job_without_a_section_and_a_curation_that_keeps_nothing(tmp_path, cluster):
    job = tmp_path / "job.yaml"
    job.write_text(f"name: x\nruns: {tmp_path}\n")
    code, said = runs.here("plan", job)
    assert code == 2
    assert "no section to run" in said
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((400, 400, 3), 128, np.uint8))
    job.write_text(
        f"name: x\nruns: {tmp_path}\ncurate: {{sources: [{{path: grey.png}}]}}\n"
        "pretrain: {data: [curate], model: tiny, width: 64, height: 64}\n"
    )
    code, said = runs.maquette("run", job, "--address", cluster)
    assert code == 2
    assert "nothing was kept of 1 photographs" in said
    assert "pretrain: reads `curate`, and there nothing was kept" in said
    assert "Traceback" not in said


@pytest.mark.engine
def test_a_run_that_asks_for_fewer_than_it_has_says_that_none_goes(tmp_path, cluster):
    job = runs.job(tmp_path, samples=2)
    assert runs.maquette("run", job, "--address", cluster)[0] == 0
    code, said = runs.here("run", job, "--set", "render.samples=1")
    assert code == 0
    assert "2 samples are settled already and 1 asked for" in said


@pytest.mark.engine
def test_a_run_in_which_every_sample_fails_still_has_a_report_and_says_why(tmp_path, cluster):
    job = runs.job(tmp_path, samples=2, assets=[{"source": "files", "paths": ["scans/*.obj"], "unit": "cm", "up": "y"}])
    job.write_text(job.read_text() + "report: {}\n")
    code, said = runs.maquette("run", job, "--address", cluster)
    assert code == 1
    assert "x failed: asset files/figure" in said
    assert "Traceback" not in said
    assert "failed" in report.build(tmp_path / "runs" / "run").read_text()


def test_a_file_where_a_folder_is_wanted(tmp_path):
    here = tmp_path / "photo.jpg"
    here.write_bytes(b"x")
    for asked in (("verify", here), ("people", "make", "--count", "1", "--out", here)):
        code, said = runs.here(*asked)
        assert code == 2, asked
        assert str(here) in said
        assert "Traceback" not in said


def test_a_run_that_finished_nothing_is_told_from_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="neither a run nor a dataset"):
        data_commands.datasets(str(tmp_path))
    (tmp_path / "job.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="no finished dataset"):
        data_commands.datasets(str(tmp_path))


def test_plan_knows_every_backbone_and_refuses_a_start_that_is_not_there(tmp_path):
    dataset(tmp_path / "data", 4)
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: x\nruns: {tmp_path}\nfinetune: [{{name: a, task: normal, model: sapiens2-tiny, data: [data], width: 48, height: 64}}]\n"
    )
    code, said = runs.here("plan", job)
    assert code == 2
    assert "finetune.0.init" in said
    code, said = runs.here("plan", job, "--set", "finetune.0.init=random")
    assert code == 0, said
    assert "finetune a" in said
