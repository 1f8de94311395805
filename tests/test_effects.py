"""Other light, other places, other backgrounds: each against an answer in closed form."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from manifests.frames import camera_rays
from pipeline import effects
from tests import photos, samples


def lit(ball, direction, ambient: float, albedo: float = 0.6) -> np.ndarray:
    """The linear picture (H, W, 3) of the ball in one colour under a far light; black where there is no ball."""
    shade = effects.lambert(ball.normal, np.array(direction), ambient)
    return np.repeat((albedo * shade * (ball.mask > 0))[..., None], 3, axis=2)


def test_light_is_added_up_in_linear_values():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=2)
    assert (effects.srgb(effects.linear(values)) == values).all()
    assert effects.linear(np.full((1, 1, 3), 188, np.uint8))[0, 0, 0] == pytest.approx(0.5, abs=0.005)


def test_a_known_colour_is_relit_exactly():
    ball = samples.ball(2, 192, 256)
    alpha = ball.alpha / 255
    before = effects.srgb(lit(ball, (-1, -1, -1), 0.2))
    albedo = effects.srgb(np.full((256, 192, 3), 0.6))
    made = effects.relit(before, ball.normal, alpha, np.array([1.0, 0.3, -1]), albedo, ambient=0.2)
    truth = lit(ball, (1, 0.3, -1), 0.2)
    # The brightness of the people stays: the truth is known up to that.
    truth *= effects.linear(before)[alpha > 0.5].mean() / truth[alpha > 0.5].mean()
    error = np.abs(made.astype(int) - effects.srgb(truth))[alpha > 0.5]
    assert error.max() <= 1


def test_the_light_in_a_picture_is_found_and_divided_out():
    ball = samples.ball(2, 192, 256)
    inside = ball.mask > 0
    truth_light = np.array([0.5, -0.15, -0.2, -0.2, 0.03, 0.02, 0.0, 0.02, 0.01])
    shade = effects.harmonics(ball.normal) @ truth_light
    image = np.repeat((0.6 * shade * inside)[..., None], 3, axis=2)
    found = effects.estimated_light(image, ball.normal, inside)
    assert effects.harmonics(ball.normal[inside]) @ found == pytest.approx(0.6 * shade[inside], abs=2e-3)
    made = effects.relit(effects.srgb(image), ball.normal, inside.astype(float), np.array([1.0, 0, -1]))
    truth = lit(ball, (1, 0, -1), effects.AMBIENT)
    truth *= image[inside].mean() / truth[inside].mean()
    bright = inside & (shade > 0.2)
    error = np.abs(effects.linear(made) - truth)[bright].mean() / truth[bright].mean()
    unchanged = np.abs(image - truth)[bright].mean() / truth[bright].mean()
    assert error < 0.02
    assert unchanged > 0.3


def test_the_background_does_not_change_with_the_light():
    ball = samples.ball(2)
    made = effects.relit(ball.image, ball.normal, ball.alpha / 255, np.array([1.0, 0, -1]))
    assert (made[ball.mask == 0] == ball.image[ball.mask == 0]).all()
    assert (effects.relit(ball.image, ball.normal, np.zeros((128, 96)), np.ones(3)) == ball.image).all()


def hairy(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear colours of a foreground and a background, (H, W, 3), and a coverage of soft strands (H, W)."""
    v, u = np.mgrid[0:160, 0:120]
    ring = np.clip((48 - np.hypot(u - 60, v - 80)) / 14, 0, 1)
    strands = 0.5 + 0.5 * np.sin(np.arctan2(v - 80, u - 60) * 40)
    alpha = np.where(ring < 1, ring * (0.4 + 0.6 * strands), 1.0).astype(np.float32)
    front = np.zeros((160, 120, 3)) + [0.5, 0.25, 0.1] + 0.05 * np.sin(v / 9)[..., None]
    back = effects.linear(photos.cloud(seed, 120, 160)) * 0.5 + [0.0, 0.2, 0.3]
    return front, back, alpha


def test_a_half_covered_pixel_gets_its_own_colour_back():
    front, back, alpha = hairy()
    mixed = alpha[..., None] * front + (1 - alpha[..., None]) * back
    estimated, behind = effects.foreground_colour(mixed, alpha)
    soft = (alpha > 0.1) & (alpha < 0.9)
    plain = np.abs(mixed - front)[soft].mean()
    assert np.abs(estimated - front)[soft].mean() < 0.3 * plain
    assert np.abs(behind - back)[alpha < 0.01].mean() < 0.01


def test_another_background_is_what_was_asked_for():
    front, back, alpha = hairy()
    picture = effects.srgb(alpha[..., None] * front + (1 - alpha[..., None]) * back)
    wall = np.full((40, 60, 3), (250, 250, 245), np.uint8)
    made = effects.before(picture, alpha, wall)
    truth = effects.srgb(alpha[..., None] * front + (1 - alpha[..., None]) * effects.linear(wall[:1, :1]))
    assert (made[alpha == 0] == wall[0, 0]).all()
    naive = effects.srgb(
        alpha[..., None] * effects.linear(picture) + (1 - alpha[..., None]) * effects.linear(wall[:1, :1])
    )
    soft = (alpha > 0.05) & (alpha < 0.95)
    mine, theirs = (np.abs(p.astype(float) - truth)[soft].mean() for p in (made, naive))
    assert mine < 0.4 * theirs


def textured(ball, world=None) -> tuple[np.ndarray, np.ndarray]:
    """The ball with stripes by latitude, seen after ``world``: picture (H, W, 3) uint8 and where it is, from its equation."""
    rays = camera_rays(ball.K, *ball.image.shape[1::-1])
    inside = ball.mask > 0
    points, normal = (rays * ball.depth[..., None])[inside], ball.normal[inside]
    # Every point less the radius times its normal is the centre.
    system = np.concatenate([np.tile(np.eye(3), (len(points), 1)), normal.reshape(-1, 1)], axis=1)
    *centre, radius = np.linalg.lstsq(system, points.reshape(-1), rcond=None)[0]
    centre = np.array(centre)
    at, turn = (centre, np.eye(3)) if world is None else (world[:3, :3] @ centre + world[:3, 3], world[:3, :3])
    a, b, c = (rays**2).sum(-1), rays @ at, at @ at - radius**2
    root = b * b - a * c
    hit = root > 0
    z = (b - np.sqrt(np.maximum(root, 0))) / a
    own = ((rays * z[..., None] - at) @ turn) / radius
    stripes = 0.5 + 0.35 * np.sin(8 * own[..., :1]) + [0, 0.1, -0.1] * own[..., 1:2]
    return effects.srgb(np.where(hit[..., None], stripes, 0.02)), hit


def test_a_view_from_beside_is_what_a_camera_there_sees():
    ball = samples.ball(2, 192, 256)
    picture, inside = textured(ball)
    assert (inside == (ball.mask > 0)).mean() > 0.999
    pivot = np.array([0, 0, float(np.median(ball.depth[ball.mask > 0]))])
    for yaw in (-12, 12):
        world = effects.turned(pivot, yaw, 4)
        assert world[:3, :3] @ pivot + world[:3, 3] == pytest.approx(pivot)
        made = effects.from_beside(picture, ball.depth, inside.astype(np.float32), ball.K, world)
        truth, there = textured(ball, world)
        # What the first camera did not see cannot be shown: the near side of the turn is left out.
        seen = there & (made.astype(int).sum(axis=2) > 60)
        assert seen.sum() > 0.85 * there.sum()
        error = np.abs(made.astype(float) - truth)[seen].mean()
        still = np.abs(picture.astype(float) - truth)[seen].mean()
        assert error < 6
        assert error < 0.25 * still


def test_the_same_place_shows_the_same_picture():
    ball = samples.ball(1, 96, 128)
    made = effects.from_beside(ball.image, ball.depth, ball.alpha / 255, ball.K, np.eye(4))
    inside = ball.mask > 0
    assert np.abs(made.astype(float) - ball.image)[inside].mean() < 3
    away = cv2.dilate(ball.mask, np.ones((7, 7))) == 0
    assert (made[away] == ball.image[away]).all()


def test_what_was_behind_is_made_up_from_around_it():
    picture = np.full((60, 80, 3), (10, 120, 200), np.uint8)
    hole = np.zeros((60, 80), np.uint8)
    hole[10:50, 20:60] = 1
    spoilt = picture.copy()
    spoilt[hole > 0] = 255
    assert np.abs(effects.filled(spoilt, hole).astype(int) - picture).max() <= 1
