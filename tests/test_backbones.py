"""Encoders, and the official weights that go in and out of them. Keys, shapes and counts are those of sapiens.md 1.1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from manifests.errors import InputError, JobError
from training import keymaps, official, vit
from training.heads import DenseModel
from training.mae import MaskedAutoencoder

# Width, depth and parameters at 1024x1024 of Sapiens 0.3B, 0.6B, 1B, 2B, and the entries of their state dicts.
TABLE = {
    "large": (1024, 24, 307_295_232, 294),
    "0.6b": (1280, 32, 635_910_400, 390),
    "1b": (1536, 40, 1_140_739_584, 486),
    "2b": (1920, 48, 2_133_912_960, 582),
}


def sapiens_v1(dim, depth, grid, patch=16, cls=True, prefix="", device="cpu", seed=0):
    """A random state dict in the official layout, written down from the table of keys."""
    shapes = {
        "pos_embed": (1, math.prod(grid) + cls, dim),
        "patch_embed.projection.weight": (dim, 3, patch, patch),
        "patch_embed.projection.bias": (dim,),
        "ln1.weight": (dim,),
        "ln1.bias": (dim,),
    }
    if cls:
        shapes["cls_token"] = (1, 1, dim)
    for i in range(depth):
        layer = {
            "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "ffn.layers.0.0": (4 * dim, dim), "ffn.layers.1": (dim, 4 * dim)
        }  # fmt: skip
        for name, shape in layer.items():
            shapes |= {f"layers.{i}.{name}.weight": shape, f"layers.{i}.{name}.bias": shape[:1]}
        for name in ("ln1", "ln2"):
            shapes |= {f"layers.{i}.{name}.weight": (dim,), f"layers.{i}.{name}.bias": (dim,)}
    if device == "meta":
        return {prefix + k: torch.empty(s, device="meta") for k, s in shapes.items()}
    rng = torch.Generator().manual_seed(seed)
    return {prefix + k: 0.05 * torch.randn(s, generator=rng) for k, s in shapes.items()}


@pytest.mark.parametrize("size", TABLE)
def test_official_weights_of_every_size_load_strictly_and_count_to_the_unit(size):
    dim, depth, parameters, entries = TABLE[size]
    tensors = sapiens_v1(dim, depth, (64, 64), device="meta")
    assert len(tensors) == entries
    assert sum(t.numel() for t in tensors.values()) == parameters
    with torch.device("meta"):
        encoder = vit.Encoder(vit.SIZES[size], grid=(64, 64), cls_token=True)
        dense = vit.Encoder(vit.SIZES[size], grid=(64, 48))
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    layout, read = official.recognise(tensors)
    assert layout == keymaps.SAPIENS
    encoder.load_state_dict(official.encoder_state(layout, read, encoder), strict=True, assign=True)
    # As a fine-tune takes them: no class token, 64x48 places.
    dense.load_state_dict(official.encoder_state(layout, read, dense), strict=True, assign=True)
    assert sum(p.numel() for p in dense.parameters()) == parameters - (1 + 1025) * dim


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_prefixes_and_wrappers_are_seen_through(prefix, wrapper, tmp_path):
    tensors = sapiens_v1(192, 6, (4, 4), patch=8, prefix=prefix)
    if prefix:
        tensors["decode_head.conv_seg.weight"] = torch.zeros(1, 8, 1, 1)
    path = tmp_path / "w.pth"
    torch.save({wrapper: tensors} if wrapper else tensors, path)
    model = DenseModel(vit.SIZES["tiny"], "depth", 16, grid=(4, 4))
    official.load_encoder(path, model)
    assert torch.equal(model.encoder.embed.position_tokens, tensors[f"{prefix}pos_embed"][:, 1:])
    assert torch.equal(model.encoder.blocks[5].mlp[2].weight, tensors[f"{prefix}layers.5.ffn.layers.1.weight"])


def test_ours_goes_back_under_official_names_bit_for_bit(tmp_path):
    tensors = sapiens_v1(192, 6, (4, 4), patch=8)
    ours = keymaps.translate(tensors, keymaps.SAPIENS_KEYS)
    encoder = vit.Encoder(vit.SIZES["tiny"], grid=(4, 4), cls_token=True)
    encoder.load_state_dict(ours)
    path = tmp_path / "ours.safetensors"
    save_file({f"model.encoder.{k}": v for k, v in encoder.state_dict().items()}, path)
    back = official.export(path, keymaps.SAPIENS)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)


def test_an_autoencoder_of_ours_exports_the_positions_it_computes(tmp_path):
    torch.manual_seed(0)
    mae = MaskedAutoencoder(vit.SIZES["tiny"], 32, 1, 0.75)
    path = tmp_path / "ours.safetensors"
    save_file({f"model.{k}": v for k, v in mae.state_dict().items()}, path)
    with pytest.raises(InputError, match="give a grid"):
        official.export(path, keymaps.SAPIENS)
    exported = official.export(path, keymaps.SAPIENS, (4, 4))
    other = vit.Encoder(vit.SIZES["tiny"], grid=(4, 4), cls_token=True)
    other.load_state_dict(official.encoder_state(*official.recognise(exported), other))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(images)[-1], mae.encoder(images)[-1])


def test_positions_resize_by_keys_bicubic_of_half_pixel_centres():
    """Against the kernel written out (Keys 1981, a = -0.75 as torch and OpenCV have it, borders repeated)."""
    centres = (np.arange(48) + 0.5) * 64 / 48 - 0.5
    kernel = np.zeros((48, 64))
    for i, centre in enumerate(centres):
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            kernel[i, np.clip(tap, 0, 63)] += near if x <= 1 else far
    positions = np.random.default_rng(0).normal(size=(64, 64, 5))
    expected = np.einsum("ij,rjd->rid", kernel, positions)
    found = vit.resize_positions(torch.from_numpy(positions).float().reshape(1, -1, 5), (64, 64), (64, 48))
    assert np.allclose(found.numpy().reshape(64, 48, 5), expected, atol=5e-5)


def test_padding_samples_what_a_padded_convolution_does():
    torch.manual_seed(0)
    images, size = torch.randn(2, 3, 64, 48), vit.SIZES["small"]
    encoder = vit.Encoder(size, padding=2)
    weight = encoder.embed.projection.weight.unflatten(1, (3, 16, 16))
    for padding in (0, 2):
        expected = F.conv2d(images, weight, stride=16, padding=padding).flatten(2).transpose(1, 2)
        found = F.linear(vit.patchify(images, 16, padding), encoder.embed.projection.weight)
        assert torch.allclose(found, expected, atol=5e-5)
    assert not torch.allclose(encoder(images)[0], vit.Encoder(size)(images)[0])


def test_gathering_before_embedding_changes_neither_features_nor_gradients():
    torch.manual_seed(0)
    encoder = vit.Encoder(vit.SIZES["tiny"], grid=(4, 6), cls_token=True).double()
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    keep = torch.stack([torch.randperm(24)[:6] for _ in range(2)])

    def after(images):
        """Embed all patches, then gather."""
        tokens = encoder.embed.projection(vit.patchify(images, 8)) + encoder.embed.position_tokens[:, 1:]
        tokens = torch.stack([t[k] for t, k in zip(tokens, keep)])
        cls = (encoder.embed.cls_token + encoder.embed.position_tokens[:, :1]).expand(2, -1, -1)
        x = torch.cat([cls, tokens], dim=1)
        for block in encoder.blocks:
            x = block(x)
        return encoder.norm(x)

    outcomes = []
    for run in (lambda x: encoder(x, keep)[-1], after):
        encoder.zero_grad()
        out = run(images)
        (out * torch.linspace(0, 1, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
        outcomes.append([out.detach(), *(p.grad.clone() for p in encoder.parameters())])
    for a, b in zip(*outcomes):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_checkpointing_changes_no_bit_of_a_gradient():
    torch.manual_seed(0)
    models = [DenseModel(vit.SIZES["tiny"], "normal", 16), MaskedAutoencoder(vit.SIZES["tiny"], 32, 2, 0.75)]
    models.append(MaskedAutoencoder(vit.SIZES["tiny"], 32, 2, 0.75, cross=True))
    images = torch.randn(2, 3, 32, 48)
    order = torch.stack([torch.randperm(24) for _ in range(2)])
    for model in models:
        gradients = []
        for on in (False, True):
            vit.set_checkpointing(model, on)
            model.zero_grad()
            loss = model(images, order)[0] if isinstance(model, MaskedAutoencoder) else model(images).square().sum()
            loss.backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_v1s_head_has_the_published_weights():
    # sapiens.md 1.2, of the 1B: depth 16.8 M.
    with torch.device("meta"):
        model = DenseModel(vit.SIZES["1b"], "depth", 0, head="deconv")
    assert sum(p.numel() for p in model.head.parameters()) / 1e6 == pytest.approx(16.8, abs=0.05)
    small = DenseModel(vit.SIZES["small"], "normal", 0, head="deconv")
    out = small(torch.randn(2, 3, 64, 48))
    assert out.shape == (2, 3, 64, 48)
    assert torch.allclose(out.norm(dim=1), torch.tensor(1.0), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("layers.2.ln1.bias"), "layers.2.ln1.bias"),
        (lambda t: t.update({"layers.0.gamma": torch.ones(3)}), "layers.0.gamma"),
        (lambda t: t.update({"ln1.bias": torch.ones(3)}), r"norm.bias is \(3,\)"),
        (lambda t: t.update({"pos_embed": torch.ones(1, 8, 192)}), "neither a square"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, says, tmp_path):
    tensors = sapiens_v1(192, 6, (4, 4), patch=8)
    change(tensors)
    path = tmp_path / "w.pth"
    torch.save(tensors, path)
    with pytest.raises(JobError, match=says):
        official.load_encoder(path, DenseModel(vit.SIZES["tiny"], "depth", 16, grid=(6, 4)))


def test_files_that_hold_no_weights_are_refused_without_running_them(tmp_path):
    model = DenseModel(vit.SIZES["tiny"], "depth", 16)
    for name, content in (("a.pth", b"not weights"), ("b.safetensors", b"\0" * 20), ("c.pth", None)):
        path = tmp_path / name
        if content is None:
            torch.save({"fn": np.random.default_rng}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            official.load_encoder(path, model)
    torch.save({"a": torch.ones(1)}, tmp_path / "d.pth")
    with pytest.raises(InputError, match="nor Sapiens v1's"):
        official.load_encoder(tmp_path / "d.pth", model)


def test_a_fine_tune_begins_from_official_weights(tmp_path):
    """Steps of learning rate 0 leave the official encoder where it was put; its positions have become weights."""
    from manifests import job as jobs
    from tests import samples
    from training.finetune import finetune
    from training.settings import read

    tensors = sapiens_v1(192, 6, (8, 8), patch=8)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in tensors.items()}}, tmp_path / "sapiens.pth")
    run = tmp_path / "run"
    samples.dataset(run / "render", 4)
    optim = {"steps": 1, "batch": 2, "lr": 1e-30, "weight_decay": 0, "warmup_steps": 0}
    stage = {"name": "n", "task": "normal", "init": str(tmp_path / "sapiens.pth"), "patch_padding": 2, "head_width": 16}
    stage |= {"width": 48, "height": 64, "optim": optim, "compute": {"cpus": 1}}
    (run / "job.yaml").write_text(jobs.dump(jobs.check({"name": "t", "finetune": [stage]})))
    made = official.read(finetune(run, read(run)["finetune"][0]))[1]
    assert torch.equal(made["encoder.blocks.3.attention.qkv.weight"], tensors["layers.3.attn.qkv.weight"])
    expected = vit.resize_positions(tensors["pos_embed"][:, 1:], (8, 8), (8, 6))
    assert torch.equal(made["encoder.embed.position_tokens"], expected)


def test_the_command_writes_official_names(tmp_path):
    from safetensors import safe_open
    from typer.testing import CliRunner

    from pipeline.cli import app

    encoder = vit.Encoder(vit.SIZES["tiny"], cls_token=True)
    save_file({f"model.encoder.{k}": v for k, v in encoder.state_dict().items()}, tmp_path / "model.safetensors")
    arguments = [
        "weights",
        str(tmp_path / "model.safetensors"),
        "--out",
        str(tmp_path / "out/v1.safetensors"),
        "--grid",
        "16x12",
    ]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    expected = sapiens_v1(192, 6, (16, 12), patch=8)
    with safe_open(tmp_path / "out/v1.safetensors", "pt") as file:
        assert {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()} == {  # noqa: SIM118 - not a dict
            k: tuple(v.shape) for k, v in expected.items()
        }
