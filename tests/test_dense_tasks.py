"""Losses, measures and what a model can learn by heart: answers from hand-made cases and the formulas themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifests.job_training import TASK_LOSSES
from manifests.job_training import Augment as Asked
from manifests.shards import row_of
from tests import samples
from training import losses, metrics, metrics_tasks, summary, transforms
from training.heads import CHANNELS, DenseModel
from training.settings import Augment
from training.tasks import OBJECTIVES, objective
from training.vit import Size

STILL = Augment(**Asked().model_dump())


def random(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_job_and_the_trainer_know_the_same_losses():
    assert {t: tuple(v) for t, v in OBJECTIVES.items()} == TASK_LOSSES


def test_affine_depth_ignores_scale_and_shift_where_it_should():
    depth = 2 + random((2, 1, 16, 16))
    mask = random((2, 1, 16, 16), 1) > 0.3
    target = losses.normalised_depth(depth, mask)
    assert losses.affine_depth(target, depth, mask).item() < 1e-5
    assert losses.affine_depth(target, 5 * depth + 3, mask).item() < 1e-5
    scale, shift = losses.align(3 * target - 5, target, mask)
    assert torch.allclose(scale, torch.tensor(1 / 3), atol=1e-4)
    assert torch.allclose(shift, torch.tensor(5 / 3), atol=1e-3)
    outside = torch.where(mask, target, 99.0)
    assert losses.affine_depth(outside, depth, mask).item() < 1e-5


def test_silog_is_its_formula_and_forgives_half_of_a_common_factor():
    depth = torch.tensor([[1.0, 2.0, 3.0, 5.0]]).view(1, 1, 1, 4)
    mask = torch.ones_like(depth, dtype=torch.bool)
    # Scaled to 0..1 the truth is 0, 1/4, 1/2, 1; the first has no logarithm.
    guess = torch.tensor([0.3, 0.5, 0.5, 1.0]).view(1, 1, 1, 4)
    delta = np.log([0.25, 0.5, 1.0]) - np.log([0.5, 0.5, 1.0])
    expected = np.sqrt((delta**2).mean() - 0.5 * delta.mean() ** 2)
    assert losses.silog_depth(guess, depth, mask).item() == pytest.approx(expected, rel=1e-5)
    exact = torch.tensor([1.0, 0.25, 0.5, 1.0]).view(1, 1, 1, 4)
    assert losses.silog_depth(exact, depth, mask).item() < 2e-6
    assert losses.silog_depth(2 * exact, depth, mask).item() == pytest.approx(np.log(2) * np.sqrt(0.5), rel=1e-5)


def test_normal_losses_are_their_formulas():
    truth = torch.zeros(1, 3, 2, 2)
    truth[:, 2] = -1
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    guess = truth.clone()
    guess[0, :, 0, 0] = torch.tensor([1.0, 0, 0])
    # One pixel of four turned by 90 degrees: 1 - cos = 1, L1 = 2.
    assert losses.cosine_normal(guess, truth, mask).item() == pytest.approx((1 + 2) / 4)
    # Its differences to the right and down: channel errors (1, 0, 1), squared mean 2/3, over two pairs each way.
    assert losses.gradient_normal(guess, truth, mask).item() == pytest.approx((10 + 2) / 4 + 10 * (2 / 3 / 2) * 2)
    mask[0, 0, 0, 0] = False
    assert losses.gradient_normal(guess, truth, mask).item() == 0


def test_matting_is_zero_for_the_truth_and_its_laplacian_sees_every_scale():
    alpha = (random((2, 1, 32, 32)) > 0.5).float()
    mask = torch.ones_like(alpha, dtype=torch.bool)
    assert losses.matting((alpha - 0.5) * 60, alpha, mask).item() < 1e-3
    assert losses.matting((0.5 - alpha) * 60, alpha, mask).item() > 2.5
    # A constant difference has no band but the last, whose share of the weights is 8 / 15.
    assert losses.laplacian(alpha + 0.3, alpha).item() == pytest.approx(0.3 * 8 / 15, rel=1e-4)


def example(task: str, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random output, truth and mask of a task; masks of very different sizes, one empty."""
    shares = torch.linspace(0, 1, count)
    if task.startswith("pose"):
        points = CHANNELS[task]
        mask = random((count, points, 1), 2) < shares[:, None, None]
        return random((count, points, 16, 12)), random((count, points, 2), 1), mask
    mask = random((count, 1, 16, 16), 2) < shares[:, None, None, None]
    if task == "pointmap":
        truth = random((count, 6, 16, 16), 1) + 0.5
        truth[:, 5:] = truth[:, 5:, :1, :1]
        return random((count, 4, 16, 16)), truth, mask
    channels = CHANNELS[task]
    truth = random((count, 1 if task.startswith("parts") else channels, 16, 16), 1)
    if task == "normal":
        truth = torch.nn.functional.normalize(truth - 0.5, dim=1)
    if task.startswith("parts"):
        truth = (truth * channels).floor()
    return random((count, channels, 16, 16)), truth, mask


@pytest.mark.parametrize(("task", "name"), [(t, n) for t, found in OBJECTIVES.items() for n in found])
def test_a_loss_does_not_depend_on_how_a_batch_is_shared_out(task, name):
    goal = objective(task, name)
    output, truth, mask = example(task, 8)
    whole = goal.loss(goal.trained(output), truth, mask)
    parts = [goal.loss(goal.trained(o), t, m) for o, t, m in zip(output.split(2), truth.split(2), mask.split(2))]
    assert torch.isfinite(whole)
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(("task", "name"), [(t, n) for t, found in OBJECTIVES.items() for n in found])
def test_what_is_not_labelled_moves_no_weight(task, name):
    goal = objective(task, name)
    output, truth, mask = example(task, 4)
    mask[1] = False
    output.requires_grad_()
    goal.loss(goal.trained(output), truth, mask).backward()
    assert output.grad[1].abs().max() == 0
    assert output.grad[2].abs().max() > 0


def test_depth_measures_on_cases_with_known_answers():
    depth = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.depth_metrics(-2 * depth + 7, depth)["rmse"] < 1e-9
    flat = metrics.depth_metrics(np.zeros(4), depth)
    assert flat["rmse"] == pytest.approx(np.sqrt(1.25))
    assert flat["absrel"] == pytest.approx(np.mean([1.5 / 1, 0.5 / 2, 0.5 / 3, 1.5 / 4]))
    # Ratios of 2.5, 2.5, 1.25, 1.2 and 1.6 against 1.25, 1.5625 and 1.953; the limit itself is outside.
    assert (flat["delta1"], flat["delta2"], flat["delta3"]) == (0.25, 0.5, 0.75)
    as_is = metrics.depth_metrics(2 * depth, depth, "none")
    assert as_is["absrel"] == pytest.approx(1.0)
    for how in ("scale_median", "scale_lsq", "scale_shift_median"):
        assert metrics.depth_metrics(2 * depth, depth, how)["absrel"] < 1e-12
    assert metrics.depth_metrics(2 * depth + 1, depth, "scale_shift_median")["absrel"] < 1e-12
    assert metrics.depth_metrics(2 * depth + 1, depth, "scale_lsq")["absrel"] > 0.01
    # One wild pixel moves a least-squares fit, not one of medians.
    wild = np.append(depth, 5.0), np.append(depth, 500.0)
    assert np.allclose(metrics.aligned(wild[1], wild[0], "scale_median")[:4], depth)
    assert metrics.depth_metrics(-depth, depth, "none")["delta3"] == 0


def test_normal_measures_on_cases_with_known_answers():
    truth = np.array([[0, 0, -1.0]] * 4)
    turned = np.array([[np.sin(a), 0, -np.cos(a)] for a in np.radians([0, 20, 25, 60])])
    found = metrics.normal_metrics(turned, truth)
    assert found["mean_deg"] == pytest.approx(26.25)
    assert found["median_deg"] == pytest.approx(22.5)
    assert (found["within_11_25"], found["within_22_5"], found["within_30"]) == (0.25, 0.5, 0.75)


def test_matting_measures_on_cases_with_known_answers():
    alpha = np.zeros((20, 20))
    alpha[:, :10] = 1
    guess = alpha.copy()
    guess[:, 10] = 0.5
    found = metrics.alpha_metrics(guess, alpha)
    assert found["sad"] == pytest.approx(20 * 0.5 / 1000)
    assert found["mad"] == pytest.approx(20 * 0.5 / 400)
    assert found["mse"] == pytest.approx(20 * 0.25 / 400)
    # Where a matte invents half a column, both fall off at 0: 0.5 above it is unconnected, the truth is not.
    assert found["conn"] == pytest.approx(20 * 0.5 / 1000)
    assert metrics.connectivity(alpha, alpha) == 0
    # An island that both mattes hold is unconnected in both: no error, where a hole in one is.
    island = alpha.copy()
    island[2:4, 15:17] = 1
    assert metrics.connectivity(island, island) == 0
    assert metrics.connectivity(island, alpha) == pytest.approx(4 / 1000)


def test_pooled_figures_are_those_of_all_pixels_together():
    rng = np.random.default_rng(0)
    pictures = [(rng.normal(3, 0.5, n), rng.uniform(2, 4, n)) for n in (10, 200, 35)]
    rows = [metrics.depth_metrics(p, z, "none") for p, z in pictures]
    pooled = summary.pooled(rows, [len(p) for p, _ in pictures])
    whole = metrics.depth_metrics(*(np.concatenate(v) for v in zip(*pictures)), "none")
    assert pooled == pytest.approx(whole)


def test_intervals_cover_resample_people_and_repeat():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        values = rng.normal(5, 1, 40)
        low, high = summary.interval(values, [str(i) for i in range(40)], 300, trial)
        covered += low < 5 < high
    assert 88 <= covered <= 99
    # 40 pictures of 4 people say little more than 4 pictures: the interval must be about sqrt(10) wider.
    people = [str(i % 4) for i in range(40)]
    level = np.array([1.0, 2, 3, 4])[np.arange(40) % 4]
    apart = summary.interval(level, [str(i) for i in range(40)], 2000, 0)
    together = summary.interval(level, people, 2000, 0)
    assert 2.4 < (together[1] - together[0]) / (apart[1] - apart[0]) < 4
    assert together == summary.interval(level, people, 2000, 0)
    fine = rng.normal(size=40)
    assert summary.interval(fine, people, 500, 0) != summary.interval(fine, people, 500, 1)
    assert summary.interval(level, ["a"] * 40, 2000, 0) is None


def test_a_breakdown_groups_by_what_rows_say():
    made = samples.ball(0)
    made.people[0].phenotype = {"age": 0.3, "gender": 0.9, "monk_skin_tone": 9, "weight": 0.2}
    made.people[0].visible_fraction = 0.7
    made.people[0].box = np.array([0, 10, 50, 60], np.float32)
    traits = summary.traits_of(row_of(made))
    assert traits == {
        "framing": "face", "age": "0 child", "sex": "male", "skin tone": "2 Monk 8-10", "build": "0 slim",
        "occlusion": "1 partly hidden", "truncation": "1 cut at one side",
    }  # fmt: skip
    plain = summary.traits_of(row_of(samples.ball(1)))
    assert "age" not in plain
    entries = summary.breakdown(np.array([1.0, 2, 3]), ["a", "b", "c"], [traits, plain, plain], 100, 0)
    framings = {e["group"]: (e["pictures"], e["mean"]) for e in entries if e["trait"] == "framing"}
    assert framings == {"face": (1, 1.0), "upper": (2, 2.5)}
    assert next(e for e in entries if e["trait"] == "age")["group"] == "child"


# (task, loss, head, steps, learning rate, and what the task's headline error must come to, training/judges.py).
LEARNT = [
    ("depth", "affine", "light", 80, 4e-3, 0.004),
    pytest.param("depth", "silog", "light", 80, 4e-3, 0.008, marks=pytest.mark.soak),
    pytest.param("normal", "cosine", "light", 80, 4e-3, 4.0, marks=pytest.mark.soak),
    ("normal", "cosine_gradient", "light", 80, 4e-3, 5.0),
    ("foreground", "matting", "light", 90, 1.5e-2, 0.015),
    ("parts", "cross_entropy_dice", "light", 110, 1e-2, 0.2),
    ("pose17", "udp", "sapiens2", 240, 1e-2, 0.05),
    pytest.param("pose17", "integral", "sapiens2", 120, 6e-3, 0.04, marks=pytest.mark.soak),
    ("pointmap", "sapiens2", "light", 150, 1e-2, 0.12),
    ("albedo", "sapiens2", "light", 120, 1e-2, 0.06),
]


@pytest.mark.parametrize(("task", "loss", "head", "steps", "rate", "limit"), LEARNT)
def test_a_task_learns_eight_samples_by_heart(task, loss, head, steps, rate, limit):
    rows = [row_of(samples.labelled(i)) for i in range(8)]
    size = (64, 48)
    made = [transforms.dense_sample(r, None, size, task, STILL) for r in rows]
    batch = {k: torch.from_numpy(np.stack([m[k] for m in made])) for k in made[0]}
    goal = objective(task, loss)
    torch.manual_seed(0)
    model = DenseModel(Size(96, 3, 3, 8), task, 32, head=head, grid=(8, 6))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps)
        value = goal.loss(goal.trained(model(batch["image"])), batch["target"], batch["mask"])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        found = goal.read(model.eval()(batch["image"])).numpy()
    errors = []
    for guess, truth, mask in zip(found, batch["target"].numpy(), batch["mask"].numpy()):
        errors.append(error_of(task, goal, guess, truth, mask))
    assert np.mean(errors) < limit, (task, loss, np.mean(errors))


def error_of(task, goal, guess, truth, mask):
    """The headline measure of ``task`` at the model's own size."""
    if task == "foreground":
        return metrics.alpha_metrics(guess[0], truth[0])["mad"]
    if task.startswith("pose"):
        found, seen = goal.places(guess), mask[:, 0]
        return np.abs(found[seen, :2] - truth[seen]).mean()
    inside = mask[0]
    if task == "depth":
        return metrics.depth_metrics(guess[0][inside], truth[0][inside])["absrel"]
    if task == "normal":
        return metrics.normal_metrics(guess[:, inside].T, truth[:, inside].T)["mean_deg"]
    if task == "parts":
        counts = metrics_tasks.confusion(guess.argmax(axis=0)[inside], truth[0][inside], 29)
        return metrics_tasks.class_metrics(counts)["jaccard"]
    if task == "pointmap":
        scale = truth[5, 0, 0]
        return metrics_tasks.point_metrics(guess[:, inside].T, truth[:3, inside].T / scale, scale)["l2"]
    return np.abs(guess[:, inside] - truth[:, inside]).mean()
