"""Losses, measures and views of parts, poses, point maps and albedo: answers from hand-made cases, formulas and pycocotools."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manifests import keypoints, parts
from manifests.job_training import Augment as Asked
from manifests.shards import row_of
from tests import samples
from training import heatmaps, judges, losses_points, losses_tasks, metrics_tasks, oks, people, transforms, truth, views
from training.settings import Augment

STILL = Augment(**Asked().model_dump())


def test_the_28_classes_are_the_29_without_eyeglass():
    names = [c for c in parts.CLASSES if c != "Eyeglass"]
    assert [parts.TO28[parts.ID[n]] for n in names] == list(range(28))
    assert parts.TO28[parts.ID["Eyeglass"]] == parts.TO28[255] == 255
    assert len(parts.WEIGHTS) == 29
    assert len(parts.WEIGHTS28) == 28
    for i, other in enumerate(parts.MIRROR28):
        assert names[other] == names[i].replace("Left", "?").replace("Right", "Left").replace("?", "Right")


def test_cross_entropy_and_dice_are_their_formulas():
    logits = torch.zeros(1, 29, 1, 2)
    logits[0, 3, 0, 0] = math.log(28.0)
    classes = torch.tensor([[[[3.0, 255.0]]]])
    mask = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    # Half of the weight is on class 3, whose weight is 3; the other pixel has no label.
    assert losses_tasks.cross_entropy(logits, classes, mask).item() == pytest.approx(3 * math.log(2), rel=1e-5)
    assert losses_tasks.dice(logits, classes, mask).item() == pytest.approx(
        1 - (2 * 0.5 + 1e-3) / (0.25 + 1 + 1e-3), rel=1e-5
    )
    # Background alone has no dice; a class without an id here (28 classes, id 28) is not judged.
    assert losses_tasks.dice(logits, torch.zeros(1, 1, 1, 2), mask).item() == 0
    assert losses_tasks.cross_entropy(logits[:, :28], torch.full((1, 1, 1, 2), 28.0), mask).item() == 0


def test_heatmaps_hold_places_to_a_hundredth_of_a_pixel_and_give_them_back():
    rng = np.random.default_rng(0)
    size = (64, 48)
    places = rng.uniform(0.15, 0.85, (1, 17, 2))
    blobs = heatmaps.drawn(torch.from_numpy(places), size)[0].numpy()
    sigma = 6 * 64 / 256
    x, y = places[0, 0] * [47, 63]
    row, column = int(y), int(x)
    assert blobs[0, row, column] == pytest.approx(
        math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2)), rel=1e-5
    )
    assert blobs[0, 0, 0] == 0
    found = heatmaps.dark(blobs)
    assert np.abs(found[:, :2] - places[0]).max() * 63 < 0.1
    peaks = np.array([np.unravel_index(b.argmax(), b.shape)[::-1] for b in blobs]) / [47, 63]
    # The step is what makes it sub-pixel.
    assert np.abs(peaks - places[0]).mean() > 5 * np.abs(found[:, :2] - places[0]).mean()
    px = rng.uniform(0, 40, (5, 2))
    assert np.allclose(heatmaps.pixels(heatmaps.shares(px, size), size), px)


def test_pose_losses_are_their_formulas():
    places = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.1]]])
    mask = torch.tensor([[[True], [True], [False]]])
    truth_maps = heatmaps.drawn(places, (17, 17))
    guess = truth_maps.clone()
    assert losses_tasks.udp_heatmaps(guess, places, mask).item() == 0
    guess[0, 0] += 1
    guess[0, 2] += 5
    # One of three maps is off by 1 everywhere, the unknown one by 5; weight 10.
    assert losses_tasks.udp_heatmaps(guess, places, mask).item() == pytest.approx(10 / 3)
    # The hardest 2 of 3 (128 / 308, rounded up): 1 and 0.
    assert losses_tasks.hard_heatmaps(guess, places, mask).item() == pytest.approx(10 / 2)
    # Mass on two places, a quarter and three quarters across: the mean is between.
    logits = torch.full((1, 1, 5, 5), -60.0)
    logits[0, 0, 2, 1] = logits[0, 0, 2, 3] = 0
    assert torch.allclose(heatmaps.expected(logits), torch.tensor([[[0.5, 0.5]]]), atol=1e-6)
    target = torch.tensor([[[0.9, 0.4]]])
    loss = losses_tasks.symmetric_integral(logits, target, torch.ones(1, 1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.4 + 0.1, abs=1e-5)


def test_the_integrals_gradient_is_symmetric_about_the_mean():
    logits = torch.zeros(1, 1, 1, 9, requires_grad=True)
    places = torch.linspace(0, 1, 9)
    p = logits.softmax(dim=3)
    p.retain_grad()
    heatmaps._Mean.apply(p.sum(dim=2), places).sum().backward()
    assert torch.equal(p.grad.flatten(), 2.0 * torch.tensor([-1.0] * 4 + [0.0] + [1.0] * 4))


def plane(size=(24, 18), f=20.0):
    """A tilted plane seen by a camera: (1, 6, h, w) target and its normal."""
    h, w = size
    v, u = np.mgrid[0:h, 0:w] + 0.5
    ray = np.stack([(u - w / 2) / f, (v - h / 2) / f, np.ones_like(u)])
    normal = np.array([0.3, -0.2, -1]) / np.linalg.norm([0.3, -0.2, -1])
    z = (normal @ [0, 0, 2.0]) / np.einsum("c,chw->hw", normal, ray)
    scale = w / f
    parts_ = [ray * z * scale, ray[:2], np.full((1, h, w), scale)]
    return torch.from_numpy(np.concatenate(parts_)).float()[None], normal


def test_the_point_maps_loss_is_its_formula():
    target, normal = plane()
    mask = torch.ones(1, 1, 24, 18, dtype=torch.bool)
    mask[..., :3, :] = False
    exact = torch.cat([target[:, :3], target[:, 5:]], dim=1)
    assert losses_points.pointmap(exact, target, mask).item() < 1e-4
    found = losses_points.normals_of(target[:, :3] / target[:, 5:])[0, :, 5:20, 2:15]
    # Steps right x steps down point away from the camera, wherever the plane faces.
    assert torch.allclose(found, torch.from_numpy(-normal).float()[:, None, None].expand_as(found), atol=1e-4)
    # All points farther by a factor: every term but shape has a closed form.
    off = exact.clone()
    off[:, :3] *= 1.5
    points, m = target[0, :3].numpy(), mask[0, 0].numpy()
    depth = points[2][m].mean()
    l1 = np.abs(0.5 * points[:, m]).mean() / depth
    shifted = np.abs(0.5 * (points[:, m] - points[:, m].mean(axis=1, keepdims=True))).mean() / depth
    silog = math.log(1.5) * math.sqrt(0.5)
    fine = losses_points.pointmap(off, target, mask).item()
    rest = fine - 2 * l1 - shifted - silog
    # What is left is the L1 of the doubled map, away from the mask's edge.
    assert rest == pytest.approx(l1, rel=0.08)
    told = exact.clone()
    told[:, 3:] += 0.25
    assert losses_points.pointmap(told, target, mask).item() == pytest.approx(4 * 0.25, abs=2e-4)
    # Every pixel its own factor: the point is still on its ray.
    along = exact.clone()
    along[:, 0] += 0.1
    assert losses_points.pointmap(along, target, mask).item() == pytest.approx(
        2 * 0.1 / 3 / depth + 0.1 / 3 / depth + 0.1, rel=0.02
    )


def test_albedos_loss_is_its_formula():
    truth_, mask = torch.full((1, 3, 8, 8), 0.25), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    assert losses_tasks.albedo(truth_, truth_, mask).item() == 0
    # Twice as bright: no edge, the same chroma.
    assert losses_tasks.albedo(2 * truth_, truth_, mask).item() == pytest.approx(2 * 0.25, rel=1e-4)
    red = truth_.clone()
    red[:, 0] = 0.5
    # Chroma (1/2, 1/4, 1/4) against thirds.
    assert losses_tasks.albedo(red, truth_, mask).item() == pytest.approx(
        2 * 0.25 / 3 + (1 / 6 + 1 / 12 + 1 / 12) / 3, rel=1e-3
    )


def test_class_measures_on_cases_with_known_answers():
    true = np.array([0, 0, 0, 0, 3, 3, 4, 4])
    said = np.array([0, 0, 0, 3, 3, 3, 4, 5])
    counts = metrics_tasks.confusion(said, true, 29)
    assert counts[0, 3] == 1
    assert counts.sum() == 8
    one = metrics_tasks.class_metrics(counts)
    ious = [3 / 4, 2 / 3, 1 / 2, 0]
    assert one["miou"] == pytest.approx(np.mean(ious))
    assert one["jaccard"] == pytest.approx(1 - np.mean(ious))
    assert one["macc"] == pytest.approx(np.mean([3 / 4, 1, 1 / 2]))
    assert one["aacc"] == pytest.approx(6 / 8)
    # Sapiens2 divides by all 29 classes, whether they occur or not.
    pooled = metrics_tasks.pooled_class_metrics(counts)
    assert pooled["miou"] == pytest.approx(np.sum(ious) / 29)
    assert pooled["macc"] == pytest.approx(np.sum([3 / 4, 1, 1 / 2]) / 29)
    assert pooled["miou_present"] == pytest.approx(np.mean(ious))


def test_point_and_albedo_measures_on_cases_with_known_answers():
    true = np.array([[0, 0, 2.0], [1, 1, 4.0]])
    guess = np.concatenate([true, np.full((2, 1), 0.5)], axis=1)
    exact = metrics_tasks.point_metrics(guess, true, 0.5)
    assert exact["l2"] == exact["l2_m"] == exact["scale_error"] == 0
    guess[0, 0] += 0.3
    guess[1, 1] += 0.02
    found = metrics_tasks.point_metrics(guess, true, 0.5)
    # In canonical units half of it.
    assert found["l2"] == pytest.approx((0.15 + 0.01) / 2)
    assert found["l2_m"] == pytest.approx((0.3 + 0.02) / 2)
    assert found["mae_x"] == pytest.approx(0.15 / 2)
    assert (found["within_0_05"], found["within_0_1"], found["within_0_2"]) == (0.5, 0.5, 1.0)
    a, b = np.full((16, 16, 3), 0.5), np.full((16, 16, 3), 0.6)
    inside = np.ones((16, 16), bool)
    measured = metrics_tasks.albedo_metrics(b, a, inside)
    assert measured["mae"] == pytest.approx(0.1)
    assert measured["psnr"] == pytest.approx(20)
    # Without variance only brightness is compared.
    assert measured["ssim"] == pytest.approx((2 * 0.3 + 1e-4) / (0.25 + 0.36 + 1e-4), rel=1e-6)
    assert measured["gradient"] == pytest.approx(0, abs=1e-12)
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 32, 3)), rng.random((40, 32, 3))
    expected = skimage.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2, full=True
    )[1]
    assert np.allclose(metrics_tasks.similarity(a, b)[6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-3)


@pytest.mark.parametrize("name", ["coco17", "sapiens308"])
def test_ap_and_ar_are_pycocotools_own(name, tmp_path):
    """Forty pictures of up to four people, some found twice, some not, some elsewhere; scores with ties."""
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    sigmas = np.array(keypoints.SETS[name].sigmas)
    points, rng = len(sigmas), np.random.default_rng(0)
    pictures, truths, found = [], [], []
    for image in range(40):
        count = int(rng.integers(0, 5))
        true = np.concatenate([rng.uniform(0, 400, (count, points, 2)), rng.integers(0, 3, (count, points, 1))], axis=2)
        true[:, 0, 2] = 2
        areas = rng.uniform(2e3, 6e4, count)
        guesses, scores = [], []
        for t, area in zip(true, areas):
            for _ in range(int(rng.integers(0, 3))):
                off = rng.normal(0, rng.choice([0.3, 1.5, 4]) * np.median(sigmas) * np.sqrt(area), (points, 2))
                guesses.append(np.concatenate([t[:, :2] + off, np.ones((points, 1))], axis=1))
                scores.append(round(float(rng.random()), 1))
        order = np.argsort(-np.array(scores), kind="mergesort") if scores else []
        guesses, scores = [guesses[i] for i in order], [scores[i] for i in order]
        pictures.append(oks.Picture(np.array(guesses).reshape(-1, points, 3), np.array(scores), true, areas))
        for t, area in zip(true, areas):
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": float(area),
                           "bbox": [0, 0, 10, 10], "keypoints": t.flatten().tolist(), "num_keypoints": int((t[:, 2] > 0).sum())})  # fmt: skip
        for g, s in zip(guesses, scores):
            found.append({"image_id": image, "category_id": 1, "score": s, "keypoints": g.flatten().tolist()})
    base = coco.COCO()
    base.dataset = {
        "images": [{"id": i} for i in range(40)],
        "annotations": truths,
        "categories": [{"id": 1}],
        "info": {},
    }
    base.createIndex()
    judge = COCOeval(base, base.loadRes(found), "keypoints")
    judge.params.kpt_oks_sigmas = sigmas
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    expected = dict(zip(("ap", "ap50", "ap75", "ar", "ar50", "ar75"), judge.stats[[0, 1, 2, 5, 6, 7]]))
    mine = oks.average_precision(pictures, sigmas)
    assert mine == pytest.approx(expected, abs=1e-9)
    assert 0.1 < mine["ap"] < 0.9


def test_pose_measures_on_cases_with_known_answers():
    sigmas = np.array([0.05, 0.1, 0.1])
    true = np.array([[10, 10, 2], [20, 20, 1], [30, 30, 0.0]])
    guess = true + np.array([[3, 4, 0], [0, 0, 0], [99, 0, 0]])
    found = oks.person_metrics(guess, true, np.array([0, 0, 50, 100]), 2500.0, sigmas)
    assert found["nme"] == pytest.approx((5 / 100 + 0) / 2)
    assert found["oks"] == pytest.approx((math.exp(-25 / (2 * 2500 * 0.1**2)) + 1) / 2)
    assert found["pck_0_05"] == 0.5
    assert found["pck_0_2"] == 1.0
    assert oks.person_score(np.array([[0, 0, 0.1], [0, 0, 0.5], [0, 0, 0.7]])) == pytest.approx(0.6)


def test_rows_without_labels_have_empty_masks():
    made = samples.labelled(3)
    made.segmentation, made.albedo = None, None
    made.people[0].keypoint_set = None
    others = ("parts", "parts28", "pose17", "pose308", "albedo")
    drawn = transforms.dense_sample(row_of(made), None, (64, 48), "normal", STILL, None, others)
    assert drawn["mask"].any()
    for task in others:
        assert not drawn[f"mask.{task}"].any()
    whole = transforms.dense_sample(row_of(samples.labelled(3)), None, (64, 48), "normal", STILL, None, others)
    assert all(whole[f"mask.{task}"].any() for task in others)


def test_labels_turn_with_the_picture_and_sides_change_in_a_mirror():
    """Class, albedo, keypoint and point of each pixel of a view are those of where the pixel comes from."""
    row = row_of(samples.labelled(5))
    K = np.array(row["camera"]["K"]).reshape(3, 3)
    how = Augment(**Asked(rotate_deg=40, rotate_share=1.0, tilt_deg=8).model_dump())
    mirrors = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        view = views.draw(np.random.default_rng(seed), K, (128, 96), (64, 48), how)
        mirrors.add(view.mirrored)
        made = transforms.dense_sample(row, rng, (64, 48), "parts", how, None, ("pointmap", "pose17"))
        px = view.source_from_view(K) @ np.array([20.5, 30.5, 1])
        u, v = px[:2] / px[2]
        if not (0 <= u < 96 and 0 <= v < 128):
            continue
        there = truth.segmentation(row)[int(v), int(u)]
        assert made["target"][0, 30, 20] == (parts.MIRROR[there] if view.mirrored else there)
        point = made["target.pointmap"][:, 30, 20]
        if made["mask.pointmap"][0, 30, 20]:
            source, _ = truth.canonical(row)
            expected = view.R @ source[int(v), int(u)] * (48 / view.K[0, 0])
            assert np.allclose(point[:3], expected, atol=0.05 * np.linalg.norm(expected))
            # To the bit, a point lies on the ray of its pixel in the view.
            assert np.allclose(point[:2], point[3:5] * point[2], atol=1e-5)
            assert np.allclose(
                point[3:5], [(20.5 - view.K[0, 2]) / view.K[0, 0], (30.5 - view.K[1, 2]) / view.K[1, 1]], atol=1e-5
            )
    assert mirrors == {True, False}


def test_a_pose_model_sees_one_padded_box_and_its_answers_go_back_to_the_picture():
    row = row_of(samples.labelled(2))
    K, size = np.array(row["camera"]["K"]).reshape(3, 3), (64, 48)
    person = row["people"][0]
    view = people.around(K, np.asarray(person["box"]), size)
    x0, y0, x1, y1 = person["box"]
    corners = np.linalg.inv(view.source_from_view(K)) @ np.array([[x0, x1], [y0, y1], [1, 1]])
    side = (corners[:2] / corners[2])[:, 1] - (corners[:2] / corners[2])[:, 0]
    # The tighter side is 1 / 1.25 of the view.
    assert max(side / [48, 64]) == pytest.approx(1 / 1.25, rel=1e-6)
    made = transforms.dense_sample(row, None, size, "pose17", STILL)
    px = heatmaps.pixels(made["target"].astype(float), size)
    back = np.concatenate([px, np.ones((17, 1))], axis=1) @ view.source_from_view(K).T
    assert np.allclose(back[:, :2] / back[:, 2:], truth.points_of(person, "coco17")[:, :2], atol=1e-3)
    # In a mirrored view the left eye is where the right eye's picture is.
    flipped = Augment(**Asked(flip=1.0, box_shift=0.0, box_scale=0.0).model_dump())
    mirrored = transforms.dense_sample(row, np.random.default_rng(0), size, "pose17", flipped)
    swapped = 1 - made["target"][list(keypoints.SETS["coco17"].mirror), 0]
    assert np.allclose(mirrored["target"][:, 0], swapped, atol=1e-5)


def test_a_parts_box_holds_the_part_and_too_few_points_leave_the_whole():
    rng = np.random.default_rng(0)
    names = keypoints.SETS["coco17"].names
    points = np.concatenate([rng.uniform(0, 100, (17, 2)), np.full((17, 1), 2.0)], axis=1)
    lower = [any(w in n for w in people.LOWER) for n in names]
    points[lower, 1] += 500
    box = np.array([0, 0, 100, 600.0])
    boxes = [people.part_box(np.random.default_rng(s), points, "coco17", box) for s in range(30)]
    assert any(b[1] > 450 for b in boxes)
    assert any(b[3] < 150 for b in boxes)
    points[:, 2] = 0
    assert np.array_equal(people.part_box(rng, points, "coco17", box), box)


def test_a_guess_that_is_the_truth_is_judged_perfect():
    row = row_of(samples.labelled(1))
    for task, kind in judges.KINDS.items():
        if task in ("pose133", "pose308"):
            continue
        guess = judges.truth_of(row, task)
        if task == "pointmap":
            points, scale = truth.canonical(row)
            guess = np.concatenate([points, np.full((*points.shape[:2], 1), scale)], axis=2)
        assert kind.measures(guess, row, task, "none")[kind.headline] == pytest.approx(0, abs=0.03), task
        pool = kind.pool(task)
        pool.add(guess, row)
        pooled = pool.result()
        assert pooled.get("ap", 1.0) == pytest.approx(1.0)
        assert pooled.get("miou_present", 1.0) == 1.0
