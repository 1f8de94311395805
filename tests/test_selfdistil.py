"""Sapiens2's pre-training objective: views and masks, its three terms against their formulas, the teacher, exact resume."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from manifests import job as jobs
from manifests.job_training import Augment as Asked
from manifests.job_training import DistilledObjective
from tests import samples
from training import masks, official, selfdistil
from training.backbones import SIZES
from training.modern import Modern
from training.pretrain import pretrain
from training.settings import Augment, Distilled, read
from training.team import Team
from training.transforms import distilled_sample

HOW = Distilled(
    **DistilledObjective(locals=2, prototypes=16, hidden=16, bottleneck=8, local_width=16, local_height=24).model_dump()
)
ALONE = Team(0, 1, torch.device("cpu"))


def model(**how):
    torch.manual_seed(0)
    size = Modern(48, 2, 4, 8, full=None, registers=2)
    return selfdistil.SelfDistilled(size, 32, 1, 0.75, dataclasses.replace(HOW, **how))


def batch(count=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.stack([torch.randperm(24, generator=rng) for _ in range(2)]) for _ in range(count)])
    return torch.randn(count, 2, 3, 48, 32, generator=rng), orders, torch.randn(count, 2, 3, 24, 16, generator=rng)


def test_masks_hide_the_asked_share_and_two_in_five_in_blocks():
    rng = np.random.default_rng(0)
    grid, blocks, neighbours = (16, 12), 0, []
    for _ in range(400):
        order = masks.order(rng, grid, 0.75, 0.4)
        assert sorted(order) == list(range(192))
        hidden = np.ones(192, bool)
        hidden[order[:48]] = False
        hidden = hidden.reshape(grid)
        # Of 48 seen patches drawn singly about a quarter have a seen neighbour to the right; in what blocks leave most do.
        seen = ~hidden
        share = (seen[:, 1:] & seen[:, :-1]).sum() / seen[:, :-1].sum()
        neighbours.append(share)
        blocks += share > 0.5
    assert 0.33 < blocks / 400 < 0.47
    assert np.mean([s for s in neighbours if s <= 0.5]) == pytest.approx(47 / 191, abs=0.03)


def test_views_are_large_ones_with_true_colours_and_small_ones_with_changed():
    grey = np.full((128, 96, 3), 100, np.uint8)
    how = Augment(**Asked(brightness=0.3, contrast=0.3, saturation=0.5, hue_deg=20).model_dump())
    made = distilled_sample(grey, np.random.default_rng(0), (48, 32), (6, 4), how, 0.75, HOW)
    assert made["image"].shape == (2, 3, 48, 32)
    assert made["order"].shape == (2, 24)
    assert made["small"].shape == (2, 3, 24, 16)
    # At the border the mean colour mixes in.
    assert np.ptp(made["image"][..., 2:-2, 2:-2], axis=(0, 2, 3)).max() < 1e-4
    assert np.ptp(made["small"][:, 0]) > 0.01
    again = distilled_sample(grey, np.random.default_rng(0), (48, 32), (6, 4), how, 0.75, HOW)
    assert all(np.array_equal(made[k], again[k]) for k in made)


def test_agreement_is_the_cross_entropy_of_every_pair_but_a_view_with_itself():
    made = model()
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(3, 4, 16, generator=rng), torch.randn(3, 2, 16, generator=rng)
    made.centre.copy_(torch.randn(16, generator=rng))
    made.steps.fill_(500)
    temperature = 0.065 + 0.005 * 0.5
    total, pairs = 0.0, 0
    for b in range(3):
        for g in range(2):
            p = ((teacher[b, g] - made.centre) / temperature).double().exp()
            p = p / p.sum()
            for s in range(4):
                if s != g:
                    q = (student[b, s] / 0.1).double().exp()
                    total -= float((p * (q / q.sum()).log()).sum())
                    pairs += 1
    assert pairs == 3 * 2 * 3
    assert made.agreement(student, teacher).item() == pytest.approx(total / pairs, rel=1e-4)


def test_koleo_is_the_log_distance_to_the_nearest_of_the_same_view():
    angles = torch.tensor([0.0, 0.1, 1.0, 2.5])
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None] * torch.tensor([2.0, 1, 3, 1])[:, None, None]
    chords = [2 * math.sin(a / 2) for a in (0.1, 0.1, 0.9, 1.5)]
    assert selfdistil.koleo(tokens).item() == pytest.approx(-np.mean(np.log(chords)), rel=1e-4)
    # Two views of one picture, however near, are no neighbours.
    assert selfdistil.koleo(tokens.expand(-1, 2, -1)).item() == pytest.approx(-np.mean(np.log(chords)), rel=1e-4)
    assert selfdistil.koleo(tokens[:1]).item() == 0


def test_the_loss_is_the_weighted_sum_and_the_teacher_takes_no_gradient_and_follows():
    made = model(weight=0.4, koleo=0.04)
    loss, terms = made(*batch())
    assert loss.item() == pytest.approx(
        (terms["mae"] + 0.4 * terms["agreement"] + 0.04 * terms["koleo"]).item(), rel=1e-6
    )
    loss.backward()
    before = {k: p.clone() for k, p in made.teacher.named_parameters()}
    assert all(p.grad is None for p in made.teacher.parameters())
    assert all(p.grad is not None for n, p in made.named_parameters() if p.requires_grad), "a weight without a gradient"
    with torch.no_grad():
        for p in made.encoder.parameters():
            p.add_(1.0)
    made.after_step(ALONE)
    for name, parameter in made.teacher.encoder.named_parameters():
        assert torch.allclose(parameter, before[f"encoder.{name}"] + (1 - 0.992), atol=1e-5)
    assert made.steps.item() == 1


def test_the_centre_follows_the_teachers_mean_whatever_the_parts():
    whole, parts = model(), model()
    images, orders, small = batch()
    whole(images, orders, small)
    for i in (0, 2):
        parts(images[i : i + 2], orders[i : i + 2], small[i : i + 2])
    with torch.no_grad():
        answers = whole.teacher["projector"](whole.teacher["encoder"](images.flatten(0, 1))[-1][:, 0]).mean(dim=0)
    for made in (whole, parts):
        made.after_step(ALONE)
        assert torch.allclose(made.centre, 0.1 * answers, atol=1e-6)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return samples.dataset(tmp_path_factory.mktemp("rows") / "render", 12)


def run_of(folder, rows, steps, kill=None, monkeypatch=None):
    optim = {"steps": steps, "batch": 4, "lr": 1e-3, "warmup_steps": 2, "checkpoint_every": 3}
    distilled = {
        "locals": 1,
        "local_width": 16,
        "local_height": 16,
        "prototypes": 16,
        "hidden": 16,
        "bottleneck": 8,
        "warmup_steps": 4,
    }
    section = {"data": [str(rows)], "model": "sapiens2-tiny", "objective": "sapiens2", "distilled": distilled, "width": 32, "height": 32,
               "decoder_dim": 32, "decoder_depth": 1, "optim": optim, "compute": {"cpus": 1}}  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(jobs.dump(jobs.check({"name": "t", "pretrain": section})))
    return pretrain(folder, read(folder)["pretrain"])


def test_a_killed_run_ends_with_the_same_bits(rows, tmp_path):
    unbroken = official.raw(run_of(tmp_path / "a", rows, 5))
    real = selfdistil.SelfDistilled.after_step

    def dies(self, me):
        real(self, me)
        if self.steps.item() == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfdistil.SelfDistilled, "after_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path / "b", rows, 5)
    assert [p.name for p in (tmp_path / "b/pretrain/checkpoints").iterdir()] == ["step_00000003.safetensors"]
    resumed = official.raw(run_of(tmp_path / "b", rows, 5))
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[k], resumed[k]) for k in unbroken)
    assert unbroken["model.steps"].item() == 5
    assert unbroken["model.centre"].abs().max() > 0
    # And its encoder begins a fine-tune.
    from training.heads import DenseModel

    dense = DenseModel(SIZES["sapiens2-tiny"], "depth", 16)
    official.load_encoder(tmp_path / "b/pretrain/model.safetensors", dense)
    assert torch.equal(dense.encoder.norm.weight, unbroken["model.encoder.norm.weight"])
