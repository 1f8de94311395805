"""A teacher's part in a student's loss, its knowledge token, and several tasks on one encoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from manifests import job as jobs
from manifests.errors import InputError, JobError
from tests import samples
from training import distil, official
from training.__main__ import main
from training.evaluate import evaluate
from training.finetune import finetune, loss_of
from training.heads import CHANNELS, DenseModel
from training.settings import read
from training.vit import Size

OPTIM = {"steps": 3, "batch": 4, "lr": 2e-3, "warmup_steps": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "render"
    from manifests import commit
    from manifests.shards import ShardWriter, row_of

    with ShardWriter(folder, "00000000+8", "rendered") as writer:
        outcomes = []
        for i in range(8):
            made = samples.labelled(i, split=("train", "test")[i % 2])
            if i == 2:
                made.segmentation, made.albedo, made.people[0].keypoint_set = None, None, None
            writer.append(row_of(made))
            outcomes.append(commit.Outcome(made.sample_id, i, "done", "", 0.1, 1))
        shards = writer.close()
    commit.write_receipt(folder, commit.Receipt("00000000+8", "d" * 64, shards, outcomes, {}))
    commit.fold(folder, "rendered", "d" * 64)
    return folder


def stage(rows, name, task, **more):
    return {"name": name, "task": task, "data": [str(rows)], "init": "random", "model": "tiny", "width": 32, "height": 48,
            "head_width": 16, "optim": OPTIM, "compute": {"cpus": 1}, **more}  # fmt: skip


def prepared(folder, *stages, **more):
    (folder / "job.yaml").write_text(jobs.dump(jobs.check({"name": "t", "finetune": list(stages), **more})))
    return read(folder)


def test_what_a_teacher_puts_out_is_followed_by_each_tasks_distance():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 29, 4, 4, generator=rng), torch.randn(2, 29, 4, 4, generator=rng)
    p, q = b.double().softmax(1), a.double().softmax(1)
    assert distil.like("parts", a, b).item() == pytest.approx(float(-(p * q.log()).sum(1).mean()), rel=1e-5)
    assert distil.like("depth", a, b).item() == pytest.approx(float((a - b).square().mean()), rel=1e-5)
    both = distil.like("foreground", b, b).item()
    assert distil.like("foreground", a, b).item() > both > 0


def test_a_token_of_another_width_keeps_its_length_through_a_fixed_map():
    token = torch.randn(1, 1, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distil.fixed_map(token, 96, 0), token)
    wide = distil.fixed_map(token, 192, 0)
    assert wide.norm().item() == pytest.approx(token.norm().item(), rel=1e-5)
    assert torch.equal(wide, distil.fixed_map(token, 192, 0))
    assert distil.fixed_map(token, 48, 0).shape == (1, 1, 48)


def test_a_prompt_is_seen_by_all_tokens_and_not_put_out():
    torch.manual_seed(0)
    for size in (Size(48, 3, 4, 8), dataclasses.replace(official_size(), dim=48, depth=3, heads=4)):
        model = DenseModel(size, "depth", 16, grid=(4, 4), prompts=1)
        images = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            before = model(images)
            model.prompt_tokens.add_(torch.randn(1, 1, 48))
            assert model(images).shape == before.shape == (1, 1, 32, 32)
            assert not torch.allclose(model(images), before)


def official_size():
    from training.modern import SIZES

    return SIZES["sapiens2-tiny"]


def test_a_student_learns_from_an_earlier_fine_tune_and_its_result_holds_no_aids(rows, tmp_path):
    lesson = {"teacher": "big", "output": 1.0, "feature": 0.5, "token_steps": 2}
    sections = prepared(
        tmp_path,
        stage(rows, "big", "depth"),
        stage(rows, "small", "depth", model="sapiens2-tiny", distil=lesson),
        stage(rows, "wrong", "normal", distil={"teacher": "big"}),
        stage(rows, "lost", "normal", distil={"teacher": "nobody"}),
        evaluate={"data": [str(rows)], "bootstrap": 0},
    )
    big, small, wrong, lost = sections["finetune"]
    finetune(tmp_path, big)
    made = official.raw(finetune(tmp_path, small))
    assert not [k for k in made if "aid." in k]
    assert made["model.prompt_tokens"].abs().max() > 0
    with pytest.raises(JobError, match="its teacher does depth"):
        finetune(tmp_path, wrong)
    with pytest.raises(InputError, match="no teacher nobody"):
        finetune(tmp_path, lost)
    # The token is the teacher's, told before the first step and never moved after.
    teacher, theirs, known = distil.teacher_of(tmp_path, small)
    assert (theirs.task, theirs.model, len(known)) == ("depth", "tiny", 1)
    assert not any(p.requires_grad for p in teacher.parameters())
    lone = dataclasses.replace(small, optim=dataclasses.replace(small.optim, steps=1, lr=1e-12), name="still")
    again = official.raw(finetune(tmp_path, lone))
    assert torch.equal(again["model.prompt_tokens"], made["model.prompt_tokens"])
    evaluate(tmp_path, sections["evaluate"], [small])


def test_the_lesson_adds_the_distances_by_their_weights():
    torch.manual_seed(0)
    teacher, student = (DenseModel(Size(d, 3, 4, 8), "depth", 16, grid=(4, 4)) for d in (48, 64))
    how = type(
        "How",
        (),
        {
            "distil": distil.sections.Distil(teacher="", output=2.0, feature=3.0, token_steps=0),
            "task": "depth",
            "seed": 0,
        },
    )()
    lesson = distil.Lesson(student, teacher.requires_grad_(False), how)
    batch = {
        "image": torch.randn(2, 3, 32, 32),
        "target": torch.zeros(2, 1, 32, 32),
        "mask": torch.ones(2, 1, 32, 32, dtype=torch.bool),
    }
    with torch.no_grad():
        total = lesson(student, batch, lambda o, t, m: torch.tensor(5.0))
        output, features = student(batch["image"], features=True)
        theirs, their_features = teacher(batch["image"], features=True)
        far = (1 - F.cosine_similarity(features, their_features, dim=1)).mean()
        expected = 5 + 2 * (output - theirs).square().mean() + 3 * far
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert features.shape == their_features.shape == (2, 48, 4, 4)


ALSO = {"depth": 0.5, "foreground": 1.0, "parts": 0.3, "pose17": 2.0, "pointmap": 0.1, "albedo": 0.7}


def test_several_tasks_share_an_encoder_and_are_judged_apart(rows, tmp_path):
    sections = prepared(
        tmp_path, stage(rows, "all", "normal", also=ALSO), evaluate={"data": [str(rows)], "bootstrap": 0}
    )
    assert main([str(tmp_path)]) == 0
    import json

    found = json.loads((tmp_path / "evaluate/metrics.json").read_text())
    assert set(found) == {"all", *(f"all-{t}" for t in ALSO)}
    assert found["all-pose17"]["headline"] == "nme"
    assert 0 <= found["all-pose17"]["model"]["pooled"]["ap"] <= 1
    assert found["all-parts"]["model"]["pooled"]["miou"] <= found["all-parts"]["model"]["pooled"]["miou_present"]
    assert "l2_m" in found["all-pointmap"]["model"]["pooled"]
    assert (tmp_path / "evaluate/panels/all-pose17/00.png").is_file()
    made = official.raw(tmp_path / "finetune/all/model.safetensors")
    assert {k.split(".")[2] for k in made if k.startswith("model.others.")} == set(ALSO)
    # Their losses are those of the tasks alone, weighted.
    from training.finetune import built
    from training.tasks import objective

    settings = sections["finetune"][0]
    model = built(settings)
    batch = {"image": torch.randn(2, 3, 48, 32)}
    from tests.test_dense_tasks import example

    total = 0.0
    with torch.no_grad():
        answers = model(batch["image"], every=True)
        for i, (task, weight) in enumerate({"normal": 1.0, **ALSO}.items()):
            _, truth, mask = example(task, 2)
            if not task.startswith("pose"):
                truth, mask = (F.interpolate(v.float(), size=(48, 32)) for v in (truth, mask))
            after = "" if i == 0 else f".{task}"
            batch |= {f"target{after}": truth, f"mask{after}": mask.bool()}
            goal = objective(task, None)
            total += weight * goal.loss(goal.trained(answers[task]), truth, mask.bool()).item()
        assert loss_of(settings)(model, batch).item() == pytest.approx(total, rel=1e-5)
    assert set(answers) == {"normal", *ALSO} <= set(CHANNELS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"also": {"normal": 1.0}}, "name others"),
        ({"head": "vitpose"}, "pose17, pose133, pose308 alone"),
        ({"loss": "udp"}, "loss udp is not one of normal"),
        ({"init_head": True}, "needs a checkpoint file"),
        ({"also": {"depth": 1.0}, "distil": {"teacher": "big"}}, "teaches one task"),
        ({"model": "sapiens2-9b"}, "sapiens2"),
    ],
)
def test_jobs_that_cannot_be_are_refused_in_words(change, says, tmp_path):
    with pytest.raises(JobError, match=says):
        jobs.check({"name": "t", "finetune": [stage(tmp_path, "n", "normal") | change]})
