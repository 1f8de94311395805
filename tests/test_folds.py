"""Creases and folds lie where cloth is slack and limbs bend, follow the pose, and are drawn by the seed."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.seeds import generator
from render.assets.anny import _studio
from render.people import layers
from render.people.folds import creases, slack
from render.people.garments import GARMENTS, marks_of
from render.people.layers import Layers
from tests.test_clothes import posed

pytestmark = pytest.mark.engine


def test_creases_are_ridges_about_one_apart_and_drawn_by_the_seed():
    x = np.linspace(0, 24, 1200)
    rows = np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=1)
    found = np.stack([creases(rows, generator(s, "creases")) for s in range(20)])
    assert found.min() >= 0
    assert found.max() <= 1.2
    crests = (found[:, 1:-1] > found[:, :-2]) & (found[:, 1:-1] >= found[:, 2:]) & (found[:, 1:-1] > 0.3)
    assert 0.3 < crests.sum() / 20 / 24 < 1.5
    np.testing.assert_array_equal(found[3], creases(rows, generator(3, "creases")))


def test_trousers_crease_at_knees_and_ankles_and_hang_smooth_between(monkeypatch):
    near, flat = [], []
    for j in range(6):
        _, body = posed(j, True)
        shell = _studio()[1].tailor.shell
        sheet = shell.of(body)
        marks = marks_of(shell, sheet, body)
        made = []
        for deep in (layers.CREASED_M, 0.0):
            monkeypatch.setattr(layers, "CREASED_M", deep)
            dressed = Layers(shell, sheet, marks)
            dressed.put_on("trousers", GARMENTS["trousers"], 0.8, 0.2, generator(j, "ripples"))
            made.append(dressed.worn[-1])
        monkeypatch.undo()
        creased = np.linalg.norm(made[0].points - made[1].points, axis=1)
        leg = made[0].cutout.take(marks.leg)
        near.append(creased[(np.abs(leg - 0.52) < 0.05) | (np.abs(leg - 0.94) < 0.03)].mean())
        flat.append(creased[(np.abs(leg - 0.28) < 0.05) | (np.abs(leg - 0.75) < 0.05)].mean())
    assert np.mean(near) > 0.003
    assert np.mean(near) > 1.7 * np.mean(flat)


@pytest.mark.parametrize("name", ["trousers", "jumper"])
def test_creases_fade_over_seat_and_armhole(name):
    _, body = posed(4, True)
    shell = _studio()[1].tailor.shell
    sheet = shell.of(body)
    dressed = Layers(shell, sheet, marks_of(shell, sheet, body))
    dressed.put_on(name, GARMENTS[name], 0.8, 0.2, generator(4, "ripples"))
    piece = dressed.worn[-1].cutout
    share = dressed._bends(piece, piece.take(sheet.rest))
    assert share.min() >= layers.PRESSED
    assert share.max() <= 1
    assert np.ptp(share) > 0.3
    assert np.abs(share[piece.quads] - share[np.roll(piece.quads, 1, axis=1)]).max() < 0.15


def test_slack_tells_squeezed_cloth_from_pulled():
    x, z = np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21))
    flat = np.stack([x.ravel(), 0 * x.ravel(), z.ravel()], axis=1)
    at = np.arange(441).reshape(21, 21)
    quads = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], axis=-1).reshape(-1, 4)
    assert np.abs(slack(flat, flat, quads)).max() < 1e-9
    # Half as long everywhere: log 2. Pulled to the left, squeezed to the right.
    np.testing.assert_allclose(slack(flat, flat * 0.5, quads), np.log(2), atol=1e-9)
    moved = flat * [1, 1, 1]
    moved[:, 0] = np.where(flat[:, 0] < 0.5, 1.4 * flat[:, 0], 0.4 + 0.6 * flat[:, 0])
    value = slack(flat, moved, quads).reshape(21, 21)
    assert value[10, 3] < -0.1 < 0.1 < value[10, 17]


def hung(name: str, fit: float, j: int, stands: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points of a garment, and how far each lies off the body."""
    _, body = posed(j, stands)
    shell = _studio()[1].tailor.shell
    sheet = shell.of(body)
    layers = Layers(shell, sheet, marks_of(shell, sheet, body))
    layers.put_on(name, GARMENTS[name], fit, 0.2, generator(1, "ripples"))
    worn = layers.worn[-1]
    off = np.einsum("nc,nc->n", worn.points - worn.cutout.take(sheet.posed), worn.cutout.take(sheet.normals))
    return worn.points, off


def test_fit_goes_from_tight_to_loose():
    room = [float(np.median(hung("jumper", fit, 4, True)[1])) for fit in (0.0, 0.5, 1.0)]
    assert room[0] < room[1] < room[2]
    # The median point hangs or rests on the body; the points that hang are farther out.
    assert room[2] > 1.3 * room[0], "metres"


def test_folds_follow_the_pose_and_tight_clothes_have_none():
    def roughness(fit: float, stands: bool) -> float:
        _, off = hung("t_shirt", fit, 0, stands)
        return float(off.std())

    # Off the body by the same everywhere where tight; in hills and valleys where loose; more where the body is bent.
    assert roughness(0.0, True) < 0.004
    assert roughness(1.0, True) > 1.5 * roughness(0.0, True)
    assert not np.allclose(hung("t_shirt", 1.0, 0, True)[1], hung("t_shirt", 1.0, 0, False)[1], atol=2e-3)


def test_panels_of_the_trunk_lie_flat_without_folds_and_hardly_stretched():
    shell = _studio()[1].tailor.shell
    for panel in (0, 1):
        mine = (shell.panel == panel) & shell.of_tights
        flat, at = shell.uv[panel][shell.quads[mine]], shell.template[shell.quads[mine]]
        corners = flat[:, [[0, 1, 2], [0, 2, 3], [1, 2, 3], [1, 3, 0]]].reshape(-1, 3, 2)
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        turn = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        # Between the legs a panel wraps under, and some triangles fold there.
        assert min((turn < 0).sum(), (turn > 0).sum()) < 0.002 * len(turn)
        sides = [np.linalg.norm(p - np.roll(p, 1, axis=1), axis=2) for p in (flat, at)]
        low, high = np.quantile(sides[0] / sides[1], [0.01, 0.99])
        assert low > 0.8
        assert high < 1.15
