"""The job manifest: every mistake is one line that says what, where and what instead."""

from pathlib import Path

import pytest
import yaml

from manifests import job
from manifests.errors import InputError, JobError

MINIMAL = {"name": "x", "render": {"samples": 4}}
READY_MADE = sorted((Path(job.__file__).parent / "jobs").glob("*.yaml"))


def test_ready_made_jobs_are_valid_and_survive_a_round_trip():
    assert READY_MADE
    for path in READY_MADE:
        checked = job.load(path)
        assert job.check(yaml.safe_load(job.dump(checked))) == checked


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"name": "x", "rendr": {}}, "rendr: unknown key; did you mean `render`?"),
        ({"name": "x", "render": {"sampels": 3}}, "render.sampels: unknown key; did you mean `samples`?"),
        (
            {"name": "x", "render": {"engine": {"denoizer": "fast"}}},
            "render.engine.denoizer: unknown key; did you mean `denoiser`?",
        ),
        ({"name": "x", "render": {"assets": [{"source": "anny", "coun": 3}]}}, "did you mean `count`?"),
        ({"name": "x", "render": {"width": "wide"}}, 'render.width: "wide": input should be a valid integer'),
        ({"name": "x", "render": {"splits": {"train": 0.9}}}, "shares must add up to 1, got 1.2"),
        ({"name": "x", "curate": {}}, "curate.sources: missing"),
        (
            {"name": "x", "curate": {"sources": [{"path": "a"}], "detector": {"kind": "onnx"}}},
            "detector onnx needs `weights`",
        ),
        ({"name": "../x"}, "name: "),
        ({"name": "x", "finetune": [{"name": "a", "task": "depth"}] * 2}, "two are named a"),
    ],
)
def test_each_mistake_is_one_line_with_path_and_nearest_name(tree, expected):
    with pytest.raises(JobError) as caught:
        job.check(tree)
    assert len(caught.value.problems) == 1
    assert expected in caught.value.problems[0]


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(JobError) as caught:
        job.check({"name": "x", "render": {"sampels": 3, "width": 2, "framing": {"fase": 1}}})
    assert len(caught.value.problems) == 3


def test_overrides_are_type_checked_and_reach_into_lists(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "finetune": [{"name": "d", "task": "depth"}]}))
    changed = job.load(path, ["render.samples=8", "finetune.0.optim.steps=5", "report={}"])
    assert changed.render.samples == 8
    assert changed.finetune[0].optim.steps == 5
    assert changed.report is not None
    with pytest.raises(JobError, match="valid integer"):
        job.load(path, ["render.samples=many"])
    with pytest.raises(JobError, match="not a position in a list of 1"):
        job.load(path, ["finetune.3.optim.steps=5"])
    with pytest.raises(JobError, match="expected path=value"):
        job.load(path, ["render.samples"])


def test_yaml_mistakes_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        job.load(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nrender: [1,\n")
    with pytest.raises(JobError, match="not valid YAML at line 3"):
        job.load(broken)
    broken.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(JobError, match="not valid YAML"):
        job.load(broken)


def test_a_key_given_twice_and_a_job_within_itself_are_refused(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: x\nrender:\n  samples: 4\n  width: 64\n  samples: 40\n")
    with pytest.raises(JobError, match="line 5, column 3: key 'samples' given twice"):
        job.load(path)
    for text in ("name: x\nrender: &a\n  engine: *a\n", "name: x\nfinetune: &a [*a]\n"):
        path.write_text(text)
        with pytest.raises(JobError, match="recursive"):
            job.load(path)
    # Sections that share another, and change some of it, are no mistake.
    path.write_text("name: x\nfinetune:\n- &a {name: a, task: depth, width: 64, height: 64}\n- {<<: *a, name: b}\n")
    assert [(f.name, f.width) for f in job.load(path).finetune] == [("a", 64), ("b", 64)]


def test_digest_ignores_what_changes_no_byte_and_sees_what_does():
    base = job.RenderStage()
    same = job.RenderStage(workers=7, deadline_s=5, samples=9999, recycle_tasks=3)
    other = job.RenderStage(engine=job.Engine(samples=17))
    assert job.stage_digest(base) == job.stage_digest(same)
    assert job.stage_digest(base) != job.stage_digest(other)
    assert job.stage_digest(base) != job.stage_digest(base, inputs_sha256="1")
    assert job.stage_digest(base) != job.stage_digest(base, upstream=("a",))
