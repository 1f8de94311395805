"""Augmentation keeps geometry true: every answer here is a plane's or a sphere's, in closed form, in the turned camera."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.frames import camera_rays
from manifests.job_training import Augment as Asked
from manifests.seeds import generator
from tests import samples
from training import jpeg, loader, photometric, transforms, views, warp
from training.order import Order, Source
from training.settings import Augment
from training.sources import DenseSources

PLAIN = Augment(**Asked().model_dump())
WILD = dataclasses.replace(PLAIN, crop=(0.3, 1.0), rotate_deg=60, rotate_share=1.0, tilt_deg=12)
K = np.array([[210.0, 0, 70], [0, 190, 50], [0, 0, 1]])
SOURCE, SIZE = (110, 140), (96, 72)


def plane(normal: np.ndarray, distance: float, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) planar depth of the plane normal . X = distance."""
    return distance / (camera_rays(K, size[1], size[0]) @ normal)


def sphere(centre: np.ndarray, radius: float, K: np.ndarray, size: tuple[int, int]):
    """(H, W) depth, (H, W, 3) normals, (H, W) hit, and how far inside the silhouette a ray passes (1 = the middle)."""
    d = camera_rays(K, size[1], size[0])
    a, b, c = (d * d).sum(-1), d @ centre, centre @ centre - radius**2
    inside = b * b - a * c
    z = (b - np.sqrt(np.maximum(inside, 0))) / a
    return z, (d * z[..., None] - centre) / radius, inside > 0, inside / (b * b).max() / (radius / centre[2]) ** 2


def moved(fields: dict[str, np.ndarray], view: views.View, size=SIZE, K=K) -> dict[str, np.ndarray]:
    """Geometry of SOURCE through ``view``; arrays without batch, channels last."""
    mask = np.ones(next(iter(fields.values())).shape[:2], np.uint8)
    given = {"mask": mask} | fields
    tensors = {
        k: torch.from_numpy(np.atleast_3d(v).transpose(2, 0, 1).copy()).to(
            torch.uint8 if k == "mask" else torch.float32
        )[None]
        for k, v in given.items()
    }
    w, R, k = (torch.from_numpy(m)[None] for m in (view.source_from_view(K), view.R, K))
    return {k: v[0].permute(1, 2, 0).numpy() for k, v in warp.geometry(tensors, w, R, k, size).items()}


@pytest.mark.parametrize("seed", range(6))
def test_a_plane_in_a_turned_tilted_mirrored_view_is_the_plane_of_that_camera(seed):
    rng = generator("plane", seed)
    normal = np.array([*rng.uniform(-0.5, 0.5, 2), -1.0])
    normal /= np.linalg.norm(normal)
    depth = plane(normal, -2.0, K, SOURCE)
    view = views.draw(rng, K, SOURCE, SIZE, WILD)
    found = moved({"depth": depth, "normal": np.broadcast_to(normal, (*SOURCE, 3))}, view)
    inside = cv2.erode(found["mask"][..., 0], np.ones((5, 5), np.uint8)) > 0
    assert inside.sum() > 500
    turned = view.R @ normal
    truth = plane(turned, -2.0, view.K, SIZE)
    # Through 1 / z the plane is met exactly; float32 storage of depth is all that is lost.
    assert np.abs(found["depth"][..., 0] / truth - 1)[inside].max() < 2e-6
    assert np.abs(found["normal"] - turned)[inside].max() < 2e-6


@pytest.mark.parametrize("seed", range(4))
def test_a_projective_crop_of_a_sphere_is_the_sphere_of_that_camera(seed):
    rng = generator("sphere", seed)
    centre = np.array([*rng.uniform(-0.15, 0.15, 2), 2.5])
    big, camera = (440, 560), np.diag([4, 4, 1.0]) @ K
    z, n, hit, _ = sphere(centre, 0.55, camera, big)
    view = views.draw(rng, camera, big, SIZE, WILD)
    fields = {"mask": hit.astype(np.uint8), "depth": np.where(hit, z, 0), "normal": np.where(hit[..., None], n, 0)}
    found = moved(fields, view, K=camera)
    z, n, hit, inside = sphere(view.R @ centre, 0.55, view.K, SIZE)
    seen = (found["mask"][..., 0] > 0) & hit
    core = seen & (inside > 0.2)
    assert core.sum() > 300
    # Over neighbours h = 3 mm apart a sphere bulges by h^2 / (4 R cos^3) of the slope, 40 microns at the most slanted here.
    assert np.abs(found["depth"][..., 0] - z)[core].max() < 4e-5
    assert np.degrees(np.arccos(np.clip((found["normal"] * n).sum(-1), -1, 1)))[core].max() < 0.05
    assert np.abs(found["depth"][..., 0] - z)[seen].max() < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_the_new_intrinsics_reproject_points_where_the_picture_shows_them(seed):
    rng = generator("points", seed)
    view = views.draw(rng, K, SOURCE, SIZE, WILD)
    points = np.stack([*rng.uniform(-0.6, 0.6, (2, 40)), rng.uniform(2, 3, 40)], axis=1)
    uv = points @ K.T
    uv = uv[:, :2] / uv[:, 2:]
    new = views.move_points(view, points) @ view.K.T
    new = new[:, :2] / new[:, 2:]
    unmirrored, _ = views.move_keypoints(view, K, uv, np.full(40, 2), (10**6, 10**6), np.arange(40))
    assert np.abs(unmirrored - new).max() < 1e-9
    # And a dot painted at a point is found where its new coordinates say.
    at = next(
        p for p, q in zip(uv, new) if 15 < p[0] < 125 and 15 < p[1] < 95 and (q > 12).all() and (q < [60, 84]).all()
    )
    rows, columns = np.mgrid[0 : SOURCE[0], 0 : SOURCE[1]] + 0.5
    dot = 255 * np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / 8)
    image = torch.from_numpy(dot.astype(np.uint8))[None, None]
    out = warp.colour(image, torch.from_numpy(view.source_from_view(K))[None], SIZE, torch.zeros(1))[0, 0].numpy()
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    centroid = np.array([(out * columns).sum(), (out * rows).sum()]) / out.sum()
    h = np.linalg.inv(view.source_from_view(K)) @ [*at, 1]
    assert np.abs(centroid - h[:2] / h[2]).max() < 0.15


def test_a_flip_twice_is_the_picture_itself_and_once_swaps_and_negates():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, *SOURCE), np.uint8)
    depth = rng.uniform(2, 2.01, SOURCE)
    normal = rng.normal(size=(*SOURCE, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    mask = (rng.random(SOURCE) < 0.7).astype(np.uint8) * rng.integers(1, 3, SOURCE, np.uint8)
    normal, depth = normal * (mask > 0)[..., None], depth * (mask > 0)
    flip = views.aimed(np.diag([-1.0, 1, 1]), K, np.array(SOURCE[::-1]) / 2, (K[0, 0], K[1, 1]), SOURCE)
    assert np.allclose(flip.K[0, 2], SOURCE[1] - K[0, 2])
    once = moved({"mask": mask, "depth": depth, "normal": normal}, flip, SOURCE)
    assert np.array_equal(once["mask"][..., 0], mask[:, ::-1])
    assert np.allclose(once["normal"], normal[:, ::-1] * [-1, 1, 1], atol=1e-6)
    back = views.aimed(np.diag([-1.0, 1, 1]), flip.K, np.array(SOURCE[::-1]) / 2, (K[0, 0], K[1, 1]), SOURCE)
    assert np.allclose(back.K, K)
    again = moved({k: once[k] for k in ("mask", "depth", "normal")}, back, SOURCE, flip.K)
    assert np.array_equal(again["mask"][..., 0], mask)
    assert np.allclose(again["depth"][..., 0], depth, atol=1e-6)
    assert np.allclose(again["normal"], normal, atol=1e-6)
    out = torch.from_numpy(image)[None]
    for view, camera in ((flip, K), (back, flip.K)):
        out = (
            (warp.colour(out, torch.from_numpy(view.source_from_view(camera))[None], SOURCE, torch.zeros(3)) * 255)
            .round()
            .byte()
        )
    assert np.array_equal(out[0].numpy(), image)
    # Classes 1 and 2 are each other's mirror image, 3 its own, 255 nobody's.
    table = torch.arange(256, dtype=torch.uint8)
    table[[1, 2]] = table[[2, 1]]
    labels = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), SOURCE)
    fields = {
        "mask": torch.ones(1, 1, *SOURCE, dtype=torch.uint8),
        "segmentation": torch.from_numpy(labels)[None, None],
    }
    w, R, k = (torch.from_numpy(m)[None] for m in (flip.source_from_view(K), flip.R, K))
    found = warp.geometry(fields, w, R, k, SOURCE, table)["segmentation"][0, 0].numpy()
    assert np.array_equal(found, table.numpy()[labels[:, ::-1]])
    pairs = np.array([0, 2, 1])
    uv, seen = views.move_keypoints(
        flip, K, np.array([[70.0, 10], [20, 30], [90, 40]]), np.array([2, 1, 2]), SOURCE, pairs
    )
    assert np.allclose(uv, [[SOURCE[1] - 70, 10], [SOURCE[1] - 90, 40], [SOURCE[1] - 20, 30]])
    assert seen.tolist() == [2, 2, 1]


def test_shrinking_averages_and_never_aliases():
    # Stripes one pixel wide are grey at a fifth of the size, whatever their phase.
    stripes = np.zeros((3, 320, 240), np.uint8)
    stripes[:, :, ::2] = 255
    view = views.whole(K, (320, 240), (64, 48))
    out = warp.colour(
        torch.from_numpy(stripes)[None], torch.from_numpy(view.source_from_view(K))[None], (64, 48), torch.zeros(3)
    )
    assert (out - 0.5).abs().max() < 0.02


def test_the_device_makes_the_same_batch_from_planes_as_the_threads_from_rows(tmp_path):
    how = dataclasses.replace(WILD, blur=1.0, noise=1.0)
    folder = tmp_path / "backgrounds"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    backgrounds = transforms.Backgrounds(folder)
    ds = [Dataset(samples.dataset(tmp_path / "balls", 4))]
    order = Order([Source("rows", 4)], 3)
    for task in ("depth", "normal", "foreground"):

        def make(kind, row, rng, task=task):
            return transforms.dense_sample(row, rng, (64, 48), task, how, backgrounds)

        maker = DenseSources(task, (64, 48), how, backgrounds)
        for threads in (0, 2):
            ones = loader.batches(ds, order, loader.Copied(make), 4, range(2), threads)
            whole = loader.batches(ds, order, maker, 4, range(2), threads)
            for (one, _), (batch, _) in zip(ones, whole):
                made = maker.view({k: torch.from_numpy(v) for k, v in batch.items()})
                for name, value in made.items():
                    apart = np.abs(value.numpy().astype(float) - one[name])
                    # Past the picture's edge the device has 8-bit grey around it.
                    limit = 0.02 if name == "image" else 1e-5
                    assert apart.max() < limit, (task, name)


def test_jpeg_here_is_jpeg():
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 196, (9, 12, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (90, 70), interpolation=cv2.INTER_CUBIC)
    for quality in (25, 60, 92):
        ours = jpeg.compressed(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255, torch.tensor([float(quality)]))
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        theirs = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        error = np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - theirs)
        lost = np.abs(theirs.astype(float) - picture).mean()
        assert error.mean() < 0.4 * lost, (quality, error.mean(), lost)


def test_noise_is_normal_keyed_and_grows_with_light():
    seed = torch.tensor([5, 6, 2**61 + 5])
    x = photometric.hashed_normal(seed, torch.Size((3, 128, 128))).numpy()
    assert np.abs(x.mean(axis=(1, 2, 3))).max() < 0.02
    assert np.abs(x.std(axis=(1, 2, 3)) - 1).max() < 0.02
    assert np.abs(np.corrcoef(x.reshape(3, -1)) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(x[0].reshape(-1)[1:], x[0].reshape(-1)[:-1])[0, 1]) < 0.02
    assert abs((np.abs(x[0]) < 1.96).mean() - 0.95) < 0.01
    light = torch.tensor([0.18, 0.72])
    coded = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    flat = coded[:, None, None, None].expand(2, 3, 64, 64)
    out = photometric.noisy(flat, torch.tensor([0.02, 0.02]), torch.tensor([1, 2]))
    back = ((out + 0.055) / 1.055) ** 2.4
    deviation = back.flatten(1).std(dim=1).numpy()
    assert deviation == pytest.approx([0.02, 0.02 * np.sqrt(0.74 / 0.2)], rel=0.03)


def test_colour_draws_keep_grey_grey_and_blur_keeps_the_mean():
    how = dataclasses.replace(PLAIN, contrast=0.0, brightness=0.0, hue_deg=180.0, saturation=1.0)
    for i in range(5):
        matrix = photometric.draw(generator("c", i), how)["colour"]
        assert np.allclose(matrix @ [0.4, 0.4, 0.4, 1], 0.4, atol=1e-5)
        assert np.allclose(photometric.LUMA @ matrix[:, :3], photometric.LUMA, atol=1e-3)
    grey = photometric.draw(generator("g"), dataclasses.replace(how, grey=1.0))["colour"][:, :3]
    assert np.allclose(grey @ [0.9, 0.2, 0.1], photometric.LUMA @ [0.9, 0.2, 0.1], atol=1e-3)
    dot = torch.zeros(2, 1, 41, 41)
    dot[:, :, 20, 20] = 1
    out = photometric.blurred(dot, torch.tensor([1.0, 2.5]))[:, 0].numpy()
    at = np.arange(41) - 20
    for i, sigma in enumerate((1.0, 2.5)):
        assert out[i].sum() == pytest.approx(1, abs=1e-4)
        assert (out[i].sum(0) * at**2).sum() == pytest.approx(sigma**2, rel=0.03)


def test_a_background_shows_through_by_coverage_and_leaves_no_fringe():
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[..., 24:] = 1
    alpha[..., 20:24] = torch.tensor([0.2, 0.4, 0.6, 0.8])
    own, old, new = (torch.tensor(c)[None, :, None, None] for c in ([0.8, 0.5, 0.2], [0.0, 1.0, 0.0], [0.1, 0.1, 0.9]))
    seen = alpha * own + (1 - alpha) * old
    out = photometric.pasted(seen, alpha, new.expand(1, 3, 64, 64))
    assert (out - (alpha * own + (1 - alpha) * new)).abs().max() < 1e-3


def test_backgrounds_are_drawn_from_the_folder_and_an_empty_one_is_named(tmp_path):
    with pytest.raises(InputError, match="no photographs"):
        transforms.Backgrounds(tmp_path)
    for i, colour in enumerate(((255, 0, 0), (0, 255, 0))):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((50, 60, 3), colour[::-1], np.uint8))
    drawn = [transforms.Backgrounds(tmp_path).draw(generator(i), (32, 24)) for i in range(12)]
    assert {tuple(d[0, 0].tolist()) for d in drawn} == {(255, 0, 0), (0, 255, 0)}
    assert all(d.shape == (32, 24, 3) for d in drawn)
    for name in "01":
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"\.png.*take it out"):
        transforms.Backgrounds(tmp_path).draw(generator(0), (32, 24))
