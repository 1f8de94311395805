"""The masked autoencoder against transformers' ViTMAE (Apache-2.0, an oracle here alone), and the cross decoder."""

from __future__ import annotations

import pytest
import torch

from training import keymaps, official, vit
from training.mae import MaskedAutoencoder, counts

# Patch 8, as tiny's; widths no multiple of each other, so that no axis can be taken for another.
SIZE = vit.Size(48, 3, 4, 8)
GRID = (6, 6)


def peer(seed=0):
    """transformers' model with every weight random, biases and positions too."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, image_size=48, patch_size=8,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2, decoder_intermediate_size=128,
        norm_pix_loss=True,
    )  # fmt: skip
    model = transformers.ViTMAEForPreTraining(config)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            near = 1.0 if "layernorm" in name or "norm.weight" in name else 0.0
            parameter.copy_(near * ("weight" in name) + 0.1 * torch.randn(parameter.shape, generator=rng))
    return model.eval()


def ours():
    return MaskedAutoencoder(SIZE, 32, 2, 0.75, decoder_heads=2, grid=GRID, eps=1e-12)


def close(found, expected):
    """To 1e-5 of the largest number."""
    return (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_encoder_decoder_loss_and_gradients_are_those_of_transformers():
    theirs, mae = peer(), ours()
    layout, tensors = official.recognise(theirs.state_dict())
    assert layout == keymaps.VITMAE
    mae.load_state_dict(official.mae_state(tensors, mae), strict=True)
    rng = torch.Generator().manual_seed(1)
    images, noise = torch.randn(3, 3, 48, 48, generator=rng), torch.rand(3, 36, generator=rng)
    order = noise.argsort(dim=1)
    expected = theirs(images, noise=noise)
    encoded = theirs.vit(images, noise=noise).last_hidden_state
    assert close(mae.encoder(images, order[:, :9])[-1], encoded)
    loss, prediction = mae(images, order)
    # Theirs comes unshuffled, for all patches, with colours last.
    logits = vit.gather(expected.logits, order[:, 9:]).unflatten(2, (8, 8, 3)).movedim(4, 2).flatten(2)
    assert prediction.shape == (3, 27, 192)
    assert close(prediction, logits)
    assert abs(loss - expected.loss) <= 1e-5 * expected.loss
    loss.backward()
    expected.loss.backward()
    gradients = {k: p.grad for k, p in theirs.named_parameters() if p.grad is not None}
    still = official.mae_state(
        official.recognise({k: gradients.get(k, torch.zeros_like(p)) for k, p in theirs.named_parameters()})[1], mae
    )
    for name, parameter in mae.named_parameters():
        if parameter.requires_grad:
            assert close(parameter.grad, still[name]), name


def test_ours_goes_back_into_transformers_bit_for_bit(tmp_path):
    """Through a file, under the Hub's names, which from_pretrained must take without complaint."""
    from safetensors.torch import load_file, save_file

    theirs, mae = peer(), ours()
    mae.load_state_dict(official.mae_state(official.recognise(theirs.state_dict())[1], mae))
    save_file({f"model.{k}": v for k, v in mae.state_dict().items()}, tmp_path / "ours.safetensors")
    exported = official.export(tmp_path / "ours.safetensors", keymaps.VITMAE)
    folder = tmp_path / "hub"
    theirs.config.save_pretrained(folder)
    save_file(exported, folder / "model.safetensors", metadata={"format": "pt"})
    back, said = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    state = back.state_dict()
    assert all(torch.equal(state[k], v) for k, v in theirs.state_dict().items())
    # And what transformers itself writes comes back too.
    theirs.save_pretrained(tmp_path / "saved")
    saved = official.recognise(load_file(tmp_path / "saved/model.safetensors"))[1]
    again = official.mae_state(saved, mae)
    assert all(torch.equal(again[k], v) for k, v in mae.state_dict().items())


def test_a_vitmae_encoder_starts_a_dense_model_of_another_grid():
    from training.heads import DenseModel

    theirs = peer()
    model = DenseModel(SIZE, "depth", 16, grid=(8, 6))
    found = official.encoder_state(*official.recognise(theirs.state_dict()), model.encoder)
    model.encoder.load_state_dict(found, strict=True)
    expected = theirs.vit.embeddings.interpolate_pos_encoding(torch.zeros(1, 49, 48), 64, 48)[:, 1:]
    assert torch.allclose(model.encoder.embed.position_tokens, expected, atol=1e-6)


@pytest.mark.parametrize("cross", [False, True])
def test_a_part_of_the_masked_patches_can_be_predicted(cross):
    torch.manual_seed(0)
    mae = MaskedAutoencoder(vit.SIZES["tiny"], 32, 2, 0.75, cross=cross, predict=1 / 3)
    images, order = torch.randn(2, 3, 32, 48), torch.stack([torch.randperm(24) for _ in range(2)])
    assert counts(24, 0.75, 1 / 3) == (6, 6)
    loss, prediction = mae(images, order)
    assert prediction.shape == (2, 6, 192)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mae.parameters())


def test_cross_decoder_predicts_each_patch_by_itself_and_learns():
    torch.manual_seed(0)
    mae = MaskedAutoencoder(vit.SIZES["tiny"], 48, 2, 0.75, cross=True)
    ramp = torch.linspace(-1, 1, 48)
    images = torch.stack([ramp * a + ramp[:32, None] * b for a, b in ((1, 0.5), (-1, 0.3), (0.2, 1), (0.7, -1))])
    images = images[:, None].expand(-1, 3, -1, -1).contiguous()
    order = torch.stack([torch.randperm(24) for _ in range(4)])
    with torch.no_grad():
        whole = mae(images, order)[1]
        # No masked patch sees another: with fewer of them asked for, the others' answers stay.
        mae.predict = 0.5
        assert torch.allclose(mae(images, order)[1], whole[:, :9], atol=1e-5)
        mae.predict = 1.0
    optimiser = torch.optim.AdamW(mae.parameters(), lr=1e-3)
    for _ in range(60):
        loss, _ = mae(images, order)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # The mean of normalised patches scores 191/192, unbiased deviation.
    assert loss.item() < 0.3


def test_bfloat16_stays_close_and_returns_a_float32_loss():
    torch.manual_seed(0)
    mae = MaskedAutoencoder(vit.SIZES["tiny"], 32, 2, 0.75)
    images, order = torch.randn(2, 3, 32, 48), torch.stack([torch.randperm(24) for _ in range(2)])
    exact = mae(images, order)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = mae(images, order)[0]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("cross", [False, True])
def test_the_whole_model_compiles_as_one_graph(cross):
    torch.manual_seed(0)
    mae = MaskedAutoencoder(vit.SIZES["tiny"], 32, 2, 0.75, cross=cross)
    images, order = torch.randn(2, 3, 32, 48), torch.stack([torch.randperm(24) for _ in range(2)])
    mae(images, order)[0].backward()
    expected = [p.grad.clone() for p in mae.parameters()]
    mae.zero_grad()
    torch.compile(mae, fullgraph=True, backend="aot_eager")(images, order)[0].backward()
    for parameter, gradient in zip(mae.parameters(), expected):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
