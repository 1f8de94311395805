"""Sapiens2's and DINO's encoders, and their official weights. Names, shapes and counts are those of sapiens.md 1.2; numbers
are checked against transformers' implementations, oracles here alone, and a float64 reference written from formulas.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from training import keymaps_modern, modern, official

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


@pytest.mark.parametrize("size", NUMERICS)
def test_features_are_those_of_transformers(size, tmp_path):
    depth, full = NUMERICS[size]
    dim, _, heads, *_ = TABLE[size]
    grouped = max(0, depth - 2 * full)
    cut = modern.dataclasses.replace(modern.SIZES[size], depth=depth, full=full)
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
