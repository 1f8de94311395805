"""Sapiens2's and DINO's encoders, and their official weights. Names, shapes and counts are those of sapiens.md 1.2; numbers
are checked against transformers' implementations, oracles here alone, and a float64 reference written from formulas.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from manifests.errors import JobError
from training import keymaps_modern, modern, official
from training.backbones import SIZES
from training.heads import DenseModel

# Width, depth, heads, GQA blocks, layers of the 4K tokenizer, parameters and entries of a state dict.
TABLE = {
    "sapiens2-0.1b": (768, 12, 12, 0, 0, 113_993_472, 210),
    "sapiens2-0.4b": (1024, 24, 16, 8, 0, 395_450_368, 414),
    "sapiens2-0.8b": (1280, 32, 16, 16, 0, 814_283_520, 550),
    "sapiens2-1b": (1536, 40, 24, 24, 0, 1_455_474_176, 686),
    "sapiens2-1b-4k": (1536, 40, 24, 24, 4, 1_606_588_928, None),
    "sapiens2-5b": (2432, 56, 32, 40, 0, 5_066_902_976, 958),
}


def sapiens2(dim, depth, heads, grouped=0, windows=0, patch=16, registers=8, device="meta", seed=0):
    """A random state dict in the official layout, written down from the table of keys."""
    width, first = dim // heads, (depth - grouped) // 2
    shapes = {
        "cls_token": (1, 1, dim), "storage_tokens": (1, registers, dim), "patch_embed.projection.weight": (dim, 3, patch, patch),
        "patch_embed.projection.bias": (dim,), "rope_embed.periods": (width // 4,), "ln1.weight": (dim,),
    }  # fmt: skip

    def block(at, kv):
        linear = {"attn.wq": (dim, dim), "attn.wk": (kv, dim), "attn.wv": (kv, dim), "attn.proj": (dim, dim)}
        linear |= {"ffn.w12": (8 * dim, dim), "ffn.w3": (dim, 4 * dim)}
        for name, shape in linear.items():
            shapes[f"{at}.{name}.weight"], shapes[f"{at}.{name}.bias"] = shape, shape[:1]
        shapes[f"{at}.ln1.weight"] = shapes[f"{at}.ln2.weight"] = (dim,)

    for i in range(depth):
        block(f"blocks.{i}", dim // 2 if first <= i < first + grouped else dim)
        shapes |= {f"blocks.{i}.attn.q_norm.weight": (width,), f"blocks.{i}.attn.k_norm.weight": (width,)}
        shapes[f"blocks.{i}.attn.gamma.weight"] = (dim,)
    if windows:
        shapes |= {"tokenizer.local_pos_embed": (1, 17, dim), "tokenizer.w_cls": (1, 1, dim)}
        for i in range(windows):
            block(f"tokenizer.blocks.{i}", dim)
    rng = torch.Generator().manual_seed(seed)

    def value(name, shape):
        if device == "meta":
            return torch.empty(shape, device="meta")
        if name == "rope_embed.periods":
            return (100.0 ** (torch.arange(shape[0]) / shape[0])).to(torch.bfloat16)
        near = 1.0 if "norm" in name or ".ln" in name or name.startswith("ln") else 0.0
        return near + torch.randn(shape, generator=rng) * (0.3 if "gamma" in name else 0.1 if near else 0.02)

    return {k: value(k, s) for k, s in shapes.items()}


@pytest.mark.parametrize("size", TABLE)
def test_official_weights_of_every_size_load_strictly_and_count_to_the_unit(size):
    dim, depth, heads, grouped, windows, parameters, entries = TABLE[size]
    tensors = sapiens2(dim, depth, heads, grouped, windows)
    periods = tensors["rope_embed.periods"].numel()
    assert sum(t.numel() for t in tensors.values()) - periods == parameters
    if entries:
        assert len(tensors) == entries
    with torch.device("meta"):
        encoder = modern.ModernEncoder(modern.SIZES[size])
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    layout, read = official.recognise({f"backbone.{k}": v for k, v in tensors.items()})
    assert layout == keymaps_modern.SAPIENS2
    encoder.load_state_dict(official.encoder_state(layout, read, encoder), strict=True, assign=True)
    back = keymaps_modern.official_tensors(layout, encoder.state_dict())
    assert {k: tuple(v.shape) for k, v in back.items()} == {k: tuple(v.shape) for k, v in tensors.items()}


def peer(folder, tensors, **config):
    """transformers' Sapiens2 from a file in the official layout, which it must take without complaint."""
    transformers = pytest.importorskip("transformers")
    made = transformers.Sapiens2Config(**config)
    made.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return made, transformers


def settings_of(dim, depth, heads, full, image, **more):
    return {
        "hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": 4 * dim,
        "image_size": list(image), "num_first_full_attention_layers": full, "num_last_full_attention_layers": full,
        "num_key_value_attention_heads": heads // 2, "num_key_value_heads_per_layer": None, "layerscale_value": 1e-4, **more,
    }  # fmt: skip


def loaded(kind, folder):
    model, said = kind.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"], said["missing_keys"]
    assert set(said["unexpected_keys"]) <= {"rope_embed.periods", "backbone.rope_embed.periods"}, said[
        "unexpected_keys"
    ]
    return model.eval()


def close(found, expected, rel=1e-5):
    """To 1e-5 of the largest number."""
    return (found - expected).abs().max() <= rel * expected.abs().max()


# 0.1B whole, the others at full width with three blocks, of which the middle one has half as many keys.
NUMERICS = {
    "sapiens2-0.1b": (12, 8),
    "sapiens2-0.4b": (3, 1),
    "sapiens2-0.8b": (3, 1),
    "sapiens2-1b": (3, 1),
    "sapiens2-5b": (3, 1),
}


# The largest takes 9 GB of memory.
LARGEST = pytest.param("sapiens2-5b", marks=pytest.mark.soak)


@pytest.mark.parametrize("size", [*list(NUMERICS)[:-1], LARGEST])
def test_features_are_those_of_transformers(size, tmp_path):
    depth, full = NUMERICS[size]
    dim, _, heads, *_ = TABLE[size]
    grouped = max(0, depth - 2 * full)
    cut = dataclasses.replace(modern.SIZES[size], depth=depth, full=full)
    tensors = sapiens2(dim, depth, heads, grouped, device="cpu")
    config, transformers = peer(tmp_path, tensors, **settings_of(dim, depth, heads, full, (64, 48)))
    assert config.num_key_value_heads_per_layer == [cut.keys(i) for i in range(depth)]
    theirs = loaded(transformers.Sapiens2Model, tmp_path)
    encoder = modern.ModernEncoder(cut)
    encoder.load_state_dict(official.encoder_state(*official.recognise(tensors), encoder))
    # transformers computes the periods afresh in float32 and does not read the file's.
    encoder.rope.periods = 100.0 ** (torch.arange(dim // heads // 4) / (dim // heads // 4))
    images = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert close(encoder(images)[-1], theirs(images).last_hidden_state)


def reference(tensors, images, heads, depth, grouped, patch=16, registers=8, windows=0):
    """The encoder in float64, token by token, from the formulas of sapiens.md 1.2 alone."""
    t = {k: v.double() for k, v in tensors.items()}
    dim = t["cls_token"].shape[-1]
    width = dim // heads

    def rms(x, weight):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def attention(x, name, cos=None, sin=None, normed=True):
        q, k, v = (linear(x, f"{name}.{n}") for n in ("wq", "wk", "wv"))
        kv_heads, out = k.shape[-1] // width, []
        for h in range(heads):
            g = h // (heads // kv_heads)
            mine, keys, values = (
                q[:, h * width : (h + 1) * width],
                k[:, g * width :][:, :width],
                v[:, g * width :][:, :width],
            )
            if normed:
                mine, keys = rms(mine, t[f"{name}.q_norm.weight"]), rms(keys, t[f"{name}.k_norm.weight"])
            if cos is not None:

                def turn(a):
                    first, second = a[:, : width // 2], a[:, width // 2 :]
                    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)

                mine, keys = turn(mine), turn(keys)
            weights = (mine @ keys.T / math.sqrt(width)).exp()
            out.append(weights / weights.sum(1, keepdim=True) @ values)
        return linear(torch.cat(out, dim=1), f"{name}.proj")

    def ffn(x, name):
        both = linear(x, f"{name}.w12")
        gate, up = both[:, : 4 * dim], both[:, 4 * dim :]
        return linear(gate / (1 + (-gate).exp()) * up, f"{name}.w3")

    made = []
    for image in images.double():
        cut = image.unfold(1, patch, patch).unfold(2, patch, patch)
        rows, columns = cut.shape[1:3]
        kernel = t["patch_embed.projection.weight"].reshape(dim, -1)
        x = cut.permute(1, 2, 0, 3, 4).reshape(rows * columns, -1) @ kernel.T + t["patch_embed.projection.bias"]
        if windows:
            place, tokens = x.view(rows, columns, dim), []
            for r in range(0, rows, 4):
                for c in range(0, columns, 4):
                    w = torch.cat([t["tokenizer.w_cls"][0], place[r : r + 4, c : c + 4].reshape(16, dim)])
                    w = w + t["tokenizer.local_pos_embed"][0]
                    for i in range(windows):
                        b = f"tokenizer.blocks.{i}"
                        w = w + attention(rms(w, t[f"{b}.ln1.weight"]), f"{b}.attn", normed=False)
                        w = w + ffn(rms(w, t[f"{b}.ln2.weight"]), f"{b}.ffn")
                    tokens.append(w[0])
            x, rows, columns = torch.stack(tokens), rows // 4, columns // 4
        angles = []
        for r in range(rows):
            for c in range(columns):
                at = (2 * (r + 0.5) / rows - 1, 2 * (c + 0.5) / columns - 1)
                angles.append([2 * math.pi * a / float(p) for a in at for p in tensors["rope_embed.periods"]])
        angles = torch.cat([torch.zeros(1 + registers, width // 2), torch.tensor(angles)]).double()
        x = torch.cat([t["cls_token"][0], t["storage_tokens"][0], x])
        for i in range(depth):
            b = f"blocks.{i}"
            y = attention(rms(x, t[f"{b}.ln1.weight"]), f"{b}.attn", angles.cos(), angles.sin())
            x = x + y * t[f"{b}.attn.gamma.weight"]
            x = x + ffn(rms(x, t[f"{b}.ln2.weight"]), f"{b}.ffn")
        made.append(rms(x, t["ln1.weight"]))
    return torch.stack(made)


@pytest.mark.parametrize("windows", [0, 2])
def test_features_are_those_of_the_formulas_in_float64(windows, monkeypatch):
    size = modern.Modern(48, 3, 4, 8, full=1, registers=3, windows=windows)
    tensors = sapiens2(48, 3, 4, 1, windows, patch=8, registers=3, device="cpu", seed=3)
    encoder = modern.ModernEncoder(size)
    encoder.load_state_dict(official.encoder_state(*official.recognise(tensors), encoder))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = reference(tensors, images, 4, 3, 1, patch=8, registers=3, windows=windows)
    # Windows in several lots give the same.
    monkeypatch.setattr(modern, "CHUNK", 5)
    with torch.no_grad():
        found = encoder(images)[-1]
        assert found.shape == (2, 4 + (6 if windows else 96), 48)
        assert close(found.double(), expected)
        assert close(encoder.double()(images.double())[-1], expected, 1e-6)


@pytest.mark.parametrize("windows", [0, 1])
def test_looking_at_some_patches_is_dropping_the_others_and_keeps_their_places(windows):
    """With one block and no window mixing, attention over chosen tokens equals masking the rest out."""
    torch.manual_seed(0)
    size = modern.Modern(48, 2, 4, 8, full=None, registers=2, windows=windows)
    encoder = modern.ModernEncoder(size).double()
    encoder.rope.periods = encoder.rope.periods.double()
    images = torch.randn(2, 3, 64, 128, dtype=torch.float64)
    count = 8 if windows else 128
    keep = torch.stack([torch.randperm(count)[:5] for _ in range(2)])
    found = encoder(images, keep)[-1]
    assert found.shape == (2, 3 + 5, 48)
    real = F.scaled_dot_product_attention

    def masked(q, k, v, **how):
        seen = torch.zeros(2, 1, 1, k.shape[2], dtype=torch.bool)
        seen[:, :, :, :3] = True
        for i in range(2):
            seen[i, 0, 0, 3 + keep[i]] = True
        return real(q, k, v, attn_mask=seen) if k.shape[2] == 3 + count else real(q, k, v)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", masked)
        whole = encoder(images)[-1]
    assert torch.allclose(found[:, :3], whole[:, :3], atol=1e-9)
    assert torch.allclose(found[:, 3:], torch.stack([w[3 + k] for w, k in zip(whole, keep)]), atol=1e-9)


def randomised(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            near = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(near + 0.1 * torch.randn(parameter.shape, generator=rng))
    return model.eval()


def dino(kind, gated):
    """transformers' model, ours of the same shape, and the file transformers writes of it."""
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}
    ours = {"rms": False, "qk_norm": False, "full": None, "scales": (1e-5, 1e-5), "gated": gated}
    if kind == "dinov3":
        config = transformers.DINOv3ViTConfig(
            **shape, intermediate_size=512, use_gated_mlp=gated, num_register_tokens=4, hidden_act="silu" if gated else "gelu"
        )  # fmt: skip
        size = modern.Modern(128, 3, 2, 16, hidden=512, registers=4, rope=torch.float32, eps=1e-5, **ours)
        return randomised(transformers.DINOv3ViTModel(config)), size
    registers = 4 if kind == "dinov2-reg" else 0
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{name}Config")(**shape, patch_size=14, use_swiglu_ffn=gated)
    hidden = (int(512 * 2 / 3) + 7) // 8 * 8 if gated else 512
    size = modern.Modern(
        128, 3, 2, 14, hidden=hidden, registers=registers, rope=None, positions=(4, 4), antialias=registers > 0, **ours
    )
    return randomised(getattr(transformers, f"{name}Model")(config)), size


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", ["dinov2", "dinov2-reg", "dinov3"])
def test_dinos_features_are_those_of_transformers_and_official_names_go_both_ways(kind, gated, tmp_path):
    theirs, size = dino(kind, gated)
    theirs.save_pretrained(tmp_path)
    encoder = modern.ModernEncoder(size)
    layout, tensors = official.recognise(load_file(tmp_path / "model.safetensors"))
    assert layout == kind.removesuffix("-reg")
    encoder.load_state_dict(official.encoder_state(layout, tensors, encoder), strict=True)
    side = 3 * size.patch
    images = torch.randn(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        assert close(encoder(images)[-1], expected)
    # Under the release's own names: qkv in one, gates in one for v2, a mask token and a mask of biases beside.
    back = keymaps_modern.official_tensors(layout, encoder.state_dict())
    assert "blocks.1.attn.qkv.weight" in back
    assert ("blocks.1.mlp.w12.weight" in back) == (gated and layout == "dinov2")
    back["mask_token"] = torch.zeros(1, 128)
    if layout == "dinov3":
        mask = torch.ones(384)
        mask[128:256] = float("nan")
        back |= {f"blocks.{i}.attn.qkv.bias_mask": mask for i in range(3)}
    again = official.encoder_state(*official.recognise(back), encoder)
    assert all(torch.equal(again[k], v) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("size", "millions"),
    # The papers' tables: DINOv2 (Oquab et al., Table 15), DINOv3 (Siméoni et al., Table 1), rounded there.
    [("dinov2-s", 21), ("dinov2-b", 86), ("dinov2-l", 300), ("dinov2-g", 1100), ("dinov3-s", 21), ("dinov3-s-plus", 29),
     ("dinov3-b", 86), ("dinov3-l", 300), ("dinov3-h-plus", 840), ("dinov3-7b", 6716)],
)  # fmt: skip
def test_dinos_sizes_are_the_published_ones(size, millions):
    with torch.device("meta"):
        encoder = modern.ModernEncoder(modern.SIZES[size])
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.06)


def test_weights_of_another_kind_are_refused_in_words():
    model = DenseModel(SIZES["tiny"], "depth", 16)
    tensors = sapiens2(48, 1, 4, patch=8, device="cpu")
    with pytest.raises(JobError, match="layout is sapiens2"):
        official.encoder_state(*official.recognise(tensors), model.encoder)
    tensors["blocks.0.attn.extra"] = torch.zeros(1)
    with pytest.raises(JobError, match="no place here: blocks.0.attn.extra"):
        official.encoder_state(*official.recognise(tensors), modern.ModernEncoder(modern.Modern(48, 1, 4, 8)))


def test_layers_learn_at_their_own_rate_and_tokens_do_not_decay():
    from training.schedule import parameter_groups

    size = modern.Modern(48, 3, 4, 8, full=1, registers=2, windows=1)
    model = DenseModel(size, "depth", 16)
    names = {id(p): n for n, p in model.named_parameters()}
    at = {names[id(p)]: (g["scale"], g["weight_decay"]) for g in parameter_groups(model, 0.1, 0.8) for p in g["params"]}
    # sapiens.md 3.0: embedding, tokens and tokenizer 0, block i i + 1, all else L + 1.
    first = pytest.approx(0.8**4)
    assert at["encoder.windows.blocks.0.mlp.down.weight"] == (first, 0.1)
    assert at["encoder.windows.position_tokens"] == at["encoder.embed.register_tokens"] == (first, 0.0)
    assert at["encoder.blocks.2.attention.query.weight"] == (pytest.approx(0.8), 0.1)
    assert at["encoder.blocks.2.scale1"] == (pytest.approx(0.8), 0.0)
    assert at["head.fuse.weight"] == (1.0, 0.1)
    assert at["encoder.norm.weight"] == (1.0, 0.0)
