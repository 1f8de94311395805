"""What the report shows of a model's inside: masked pictures made whole, attention, error maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import samples
from training import looks, panels
from training.heads import LightHead
from training.mae import MaskedAutoencoder, counts, normalised
from training.modern import Modern, ModernEncoder
from training.vit import SIZES, Encoder, Size, gather, patchify


def test_patches_go_back_to_where_they_were():
    image = torch.randn(2, 3, 32, 48)
    assert torch.equal(looks.unpatched(patchify(image, 8), 8, (32, 48)), image)


def test_a_reconstruction_keeps_what_is_seen_and_each_share_sees_a_part_of_the_one_before():
    torch.manual_seed(0)
    model = MaskedAutoencoder(SIZES["tiny"], 32, 1, 0.6)
    rgb = samples.ball(3, 48, 64).image
    shown = looks.reconstructions(model.eval(), rgb, (64, 48), looks.RATIOS)
    assert len(shown) == 1 + 2 * len(looks.RATIOS)
    assert (model.mask_ratio, model.predict) == (0.6, 1.0)
    assert np.abs(shown[0].astype(int) - rgb).max() <= 1
    before = np.ones((64, 48), bool)
    for ratio, masked, made in zip(looks.RATIOS, shown[1::2], shown[2::2]):
        seen = (masked == shown[0]).all(axis=2) & ~(masked == looks.GREY).all(axis=2)
        patches = seen.reshape(8, 8, 6, 8).swapaxes(1, 2).reshape(48, -1).mean(axis=1) > 0.5
        assert patches.sum() == 48 - int(48 * ratio)
        assert (made[seen] == shown[0][seen]).all()
        assert not (seen & ~before).any()
        before = seen


def test_a_perfect_prediction_is_the_picture_itself():
    class Knows(MaskedAutoencoder):
        def forward(self, images, order):
            seen, predicted = counts(order.shape[1], self.mask_ratio, self.predict)
            hidden = order[:, seen : seen + predicted]
            return torch.zeros(()), normalised(gather(patchify(images, 8), hidden))

    rgb = samples.ball(5, 48, 64).image
    shown = looks.reconstructions(Knows(SIZES["tiny"], 32, 1, 0.75), rgb, (64, 48), (0.75, 0.95))
    for made in shown[2::2]:
        assert np.abs(made.astype(int) - rgb).max() <= 1


def test_attention_is_what_the_block_computes():
    torch.manual_seed(0)
    encoder = Encoder(Size(48, 3, 3, 8), (4, 6))
    image = torch.randn(2, 3, 32, 48)
    weights = looks.attention(encoder, image, (0, 2))
    assert weights[0].shape == (2, 3, 24, 24)
    assert weights[1].sum(dim=-1) == pytest.approx(torch.ones(2, 3, 24).numpy(), abs=1e-5)
    taken: list[tuple[torch.Tensor, torch.Tensor]] = []
    block = encoder.blocks[2].attention
    handle = block.register_forward_hook(lambda m, x, y: taken.append((x[0], y)))
    encoder(image)
    handle.remove()
    x, y = taken[0]
    value = block.qkv(x).view(2, 24, 3, 3, 16)[:, :, 2].transpose(1, 2)
    mixed = (weights[1] @ value).transpose(1, 2).reshape(2, 24, 48)
    assert torch.allclose(block.proj(mixed), y, atol=1e-5)


def test_attention_of_shared_keys_and_turned_queries_is_what_the_block_computes():
    torch.manual_seed(0)
    encoder = ModernEncoder(Modern(48, 4, 4, 8, full=1, registers=2, scales=(None, None)))
    image = torch.randn(2, 3, 32, 48)
    weights = looks.attention(encoder, image, (0, 2))[1]
    assert weights.shape == (2, 4, 27, 27)
    taken: list[tuple[torch.Tensor, torch.Tensor]] = []
    block = encoder.blocks[2].attention
    assert block.kv_heads == 2
    handle = block.register_forward_hook(lambda m, x, y: taken.append((x[0], y)))
    encoder(image)
    handle.remove()
    x, y = taken[0]
    value = block.key_value(x).view(2, 27, 2, 2, 12)[:, :, 1].transpose(1, 2).repeat_interleave(2, dim=1)
    mixed = (weights @ value).transpose(1, 2).reshape(2, 27, 48)
    assert torch.allclose(block.proj(mixed), y, atol=1e-5)


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("width", [8, 24])
def test_a_light_head_of_any_width_draws_at_full_size(stride, width):
    head = LightHead(Size(24, 3, 3, stride), 2, width)
    features = torch.randn(1, 72, 64 // stride, 48 // stride)
    assert head(features, torch.randn(1, 3, 64, 48)).shape == (1, 2, 64, 48)


def test_error_maps_are_dark_where_all_is_right_and_bright_where_not():
    ball = samples.ball(2)
    inside = ball.mask > 0
    turned = ball.normal * [1, -1, 1]
    for task, true, wrong in (
        ("normal", ball.normal, turned),
        ("foreground", ball.alpha / 255, 1 - ball.alpha / 255),
        ("albedo", np.full((*inside.shape, 3), 0.2), np.full((*inside.shape, 3), 0.9)),
    ):
        right = panels.errors(ball.image, inside, true, true, task)
        off = panels.errors(ball.image, inside, true, wrong, task)
        assert right.sum(axis=2).max() < 20, task
        assert off.sum(axis=2)[inside].mean() > 200, task
    # Depth is known up to scale and shift: only what is left after both is an error.
    scaled = panels.errors(ball.image, inside, ball.depth, 3 * ball.depth + 7, "depth")
    assert scaled.sum(axis=2).max() < 20


def test_lines_of_poses_leave_points_out_that_are_not_there(recwarn):
    picture = np.zeros((40, 40, 3), np.uint8)
    true = np.zeros((1, 17, 3))
    true[0, :, :2] = np.nan
    true[0, 3] = 5, 5, 2
    guess = np.full((1, 17, 3), 20.0)
    drawn = panels.errors(picture, np.ones((40, 40), bool), true, guess, "pose17")
    ys, xs = np.nonzero(drawn.any(axis=2))
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (5, 20, 5, 20)
    assert not recwarn.list
