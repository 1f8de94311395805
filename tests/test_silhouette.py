"""Alpha at silhouettes against the pixel filter's own integral, and against a thousand samples of Cycles."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import trimesh

from manifests.job import Engine
from render import lighting
from render.groundtruth import embree, silhouette
from render.scene import Camera, Lighting, Scene
from tests.test_groundtruth import CAMERA, person

SIZE = 48
SQUARE = Camera(np.array([[60.0, 0, 24], [0, 60.0, 24], [0, 0, 1]]), np.eye(4), SIZE, SIZE, "full")


def half_plane(turn: float, shift: float) -> trimesh.Trimesh:
    """All of z = 6 m on one side of a line ``shift`` px from the frame's middle, turned by ``turn`` radians."""
    metres = 6 / 60
    along, away = np.array([-np.sin(turn), np.cos(turn), 0]), np.array([np.cos(turn), np.sin(turn), 0])
    edge = away * shift * metres + [0, 0, 6]
    corners = [edge - 20 * along, edge + 20 * along, edge + 20 * along - 20 * away, edge - 20 * along - 20 * away]
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)


def harris(x: np.ndarray) -> np.ndarray:
    """The window of ``FILTER_RADIUS_PX`` = 1.5, by its published coefficients, over (-1.5, 1.5) px."""
    t = 2 * np.pi * (x / 3 + 0.5)
    return 0.35875 - 0.48829 * np.cos(t) + 0.14128 * np.cos(2 * t) - 0.01168 * np.cos(3 * t)


@pytest.mark.parametrize("turn", [0, np.pi / 2, np.pi / 4, 0.23, 1.3, -0.6])
def test_straight_edges_cover_what_the_filter_says(turn):
    at = (np.arange(600) + 0.5) / 200 - 1.5
    weight = np.outer(harris(at), harris(at))
    weight /= weight.sum()
    y, x = np.meshgrid(at, at, indexing="ij")
    centres = np.arange(SIZE) + 0.5 - SIZE / 2
    off = []
    for shift in (0.0, 0.3, 0.62):
        plane = person(half_plane(turn, shift))
        caster = embree.Caster([plane], SQUARE.world_to_camera)
        mask = embree.cast([plane], SQUARE, caster=caster).mask
        alpha = settled((mask > 0).astype(np.float32), mask, caster, SQUARE)
        for row, column in ((20, 20), (24, 24), (23, 25), (28, 26)):
            d = (centres[column] + x) * np.cos(turn) + (centres[row] + y) * np.sin(turn)
            off.append(alpha[row, column] - weight[d < shift].sum())
    assert np.abs(off).max() < 0.08
    assert np.sqrt(np.mean(np.square(off))) < 0.025


def test_silhouettes_agree_with_a_thousand_samples_and_make_the_picture_better(tmp_path):
    from render.blender.engine import BlenderEngine

    ball = trimesh.creation.icosphere(3, 0.35)
    ball.apply_translation([0, 0, 1.1])
    scene = Scene([person(ball)], CAMERA, light(tmp_path), 5)
    border = embree.region(scene.people, CAMERA)
    caster = embree.Caster(scene.people, CAMERA.world_to_camera)
    mask = embree.cast(scene.people, CAMERA, caster=caster).mask

    def shot(samples: int, seed: int, denoiser: str) -> np.ndarray:
        engine = BlenderEngine(Engine(samples=samples, denoiser=denoiser), 2, tmp_path)
        return engine.render(dataclasses.replace(scene, seed=seed), border).rgba

    reference, few = shot(1024, 1, "none"), shot(16, 2, "balanced")
    alpha = settled(few[..., 3], mask, caster, CAMERA)
    edge = (reference[..., 3] > 0.01) & (reference[..., 3] < 0.99)
    assert edge.sum() > 300
    rms = lambda a: np.sqrt(np.mean((a - reference[..., 3])[edge] ** 2))  # noqa: E731
    assert rms(alpha) < 0.015
    assert rms(alpha) < 0.6 * rms(few[..., 3])
    assert np.abs(alpha - reference[..., 3])[~edge].max() < 0.02
    better = silhouette.premultiplied(few, alpha)
    colour = lambda rgba: np.mean((rgba - reference)[edge][:, :3] ** 2)  # noqa: E731
    assert colour(better) < 0.8 * colour(few)


def test_where_something_is_cut_out_cycles_keeps_its_word():
    ball = trimesh.creation.icosphere(2, 0.35)
    ball.apply_translation([0, 0, 1.1])
    glass = trimesh.creation.icosphere(2, 0.2)
    glass.apply_translation([0, -0.05, 1.5])
    people = [person(ball), person(glass, alpha_mode="blend", alpha=0.4)]
    caster = embree.Caster(people, CAMERA.world_to_camera)
    mask = embree.cast(people, CAMERA, caster=caster).mask
    given = np.full(mask.shape, 0.123, np.float32)
    both = settled(given, mask, caster, CAMERA)
    alone = settled(given, mask, embree.Caster(people[:1], CAMERA.world_to_camera), CAMERA)
    ball_there = cv2.dilate(embree.cast(people[:1], CAMERA).mask, np.ones((5, 5), np.uint8)) > 0
    lens = (embree.cast([person(glass)], CAMERA).mask > 0) & ~ball_there
    assert lens.sum() > 100
    assert (both[lens] == given[lens]).all()
    changed = both != given
    assert changed.sum() > 300
    assert np.array_equal(both[changed], alone[changed])


def settled(alpha, mask, caster, camera) -> np.ndarray:
    """``alpha`` (H, W) with the silhouettes of ``mask`` (H, W) counted; no strands."""
    nowhere = np.zeros(mask.shape, bool)
    return silhouette.settled(alpha, silhouette.counted(mask, nowhere, caster, camera), nowhere)


def light(folder) -> Lighting:
    from manifests.job import RenderStage

    name, path, _ = lighting.environments(RenderStage().lighting, folder)[0]
    return Lighting(name, str(path), 0.0, lighting.MEAN_RADIANCE / lighting.mean_radiance(str(path)), {})
