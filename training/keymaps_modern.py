"""Names, shapes and orders of Sapiens2's, DINOv2's and DINOv3's weights <-> ours (training/modern.py), by tables; strict.

Written from lists of keys alone: the releases' own, and those of transformers' files, which become the releases' first.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from manifests.errors import JobError
from training.keymaps import Names, Tensors, translate, translate_back
from training.rope import Periods

SAPIENS2, DINOV2, DINOV3 = "sapiens2", "dinov2", "dinov3"


def _block(attention: tuple[str, str, str, str], more: dict[str, str]) -> dict[str, Names]:
    """The table of a block: its queries, keys, values and projection, and ``more``, ours -> theirs."""
    q, k, v, out = (f"blocks.{{i}}.attn.{name}." for name in attention)
    return {
        "blocks.{i}.attention.query.": q,
        "blocks.{i}.attention.key_value.": (k, v),
        "blocks.{i}.attention.proj.": out,
        **{f"blocks.{{i}}.{ours}": f"blocks.{{i}}.{theirs}" for ours, theirs in more.items()},
    }


_PLAIN = _block(
    ("wq", "wk", "wv", "proj"),
    {"norm1.weight": "ln1.weight", "norm2.weight": "ln2.weight", "mlp.gate_up.": "ffn.w12.", "mlp.down.": "ffn.w3."},
)
SAPIENS2_KEYS: dict[str, Names] = {
    "embed.cls_token": "cls_token",
    "embed.register_tokens": "storage_tokens",
    "embed.projection.": "patch_embed.projection.",
    "rope.periods": "rope_embed.periods",
    **_PLAIN,
    "blocks.{i}.attention.query_norm.weight": "blocks.{i}.attn.q_norm.weight",
    "blocks.{i}.attention.key_norm.weight": "blocks.{i}.attn.k_norm.weight",
    "blocks.{i}.scale1": "blocks.{i}.attn.gamma.weight",
    "norm.weight": "ln1.weight",
}
# Of the 4K model, their names without `tokenizer.`, ours without `windows.`.
WINDOW_KEYS: dict[str, Names] = {"position_tokens": "local_pos_embed", "window_token": "w_cls", **_PLAIN}
_DINO: dict[str, Names] = {
    "embed.cls_token": "cls_token",
    "embed.projection.": "patch_embed.proj.",
    "norm.": "norm.",
    **_block(
        ("q", "k", "v", "proj"), {"norm1.": "norm1.", "norm2.": "norm2.", "scale1": "ls1.gamma", "scale2": "ls2.gamma"}
    ),
}
_MLP: dict[str, Names] = {
    "blocks.{i}.mlp.up.": "blocks.{i}.mlp.fc1.",
    "blocks.{i}.mlp.down.": "blocks.{i}.mlp.fc2.",
}
_GATED: dict[str, Names] = {
    "blocks.{i}.mlp.gate_up.": ("blocks.{i}.mlp.w1.", "blocks.{i}.mlp.w2."),
    "blocks.{i}.mlp.down.": "blocks.{i}.mlp.w3.",
}
# transformers' names -> the releases'. Its Sapiens2 files have the releases' names.
DINO_ALIASES = (
    (r"^(?:dinov2|dinov2_with_registers|dinov3_vit|model)\.(?=embeddings|encoder|layer|model|norm|layernorm)", ""),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^(?:model\.|encoder\.)?layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attn\.([qkv])(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
)


def layout_of(tensors: Tensors) -> str | None:
    """Which of the three ``tensors``, prefixes taken off, are; None = none."""
    if "blocks.0.attn.wq.weight" in tensors:
        return SAPIENS2
    names = set(map(_dino_name, tensors))
    if not {"blocks.0.ls1.gamma", "patch_embed.proj.weight"} <= names:
        return None
    return DINOV2 if "pos_embed" in names else DINOV3


def encoder_tensors(layout: str, theirs: Tensors) -> Tensors:
    """Their encoder under our names and in our shapes. Raises JobError on names without a place."""
    if layout == SAPIENS2:
        inside = {k.removeprefix("tokenizer."): v for k, v in theirs.items() if k.startswith("tokenizer.")}
        found = translate({k: v for k, v in theirs.items() if not k.startswith("tokenizer.")}, SAPIENS2_KEYS)
        if inside:
            found |= {f"windows.{k}": v for k, v in translate(inside, WINDOW_KEYS).items()}
        return found
    named = _dino(theirs)
    return translate(named, _dino_keys(named))


def official_tensors(layout: str, ours: Tensors) -> Tensors:
    """The inverse, under the releases' own names, bit for bit (DINO's mask token, which we have no use for, aside)."""
    if layout == SAPIENS2:
        inside = {k.removeprefix("windows."): v for k, v in ours.items() if k.startswith("windows.")}
        theirs = translate_back({k: v for k, v in ours.items() if not k.startswith("windows.")}, SAPIENS2_KEYS)
        return theirs | {f"tokenizer.{k}": v for k, v in translate_back(inside, WINDOW_KEYS).items()}
    keys = _DINO | (_GATED if "blocks.0.mlp.gate_up.weight" in ours else _MLP)
    keys |= {"rope.periods": "rope_embed.periods"} if layout == DINOV3 else {"embed.position_tokens": "pos_embed"}
    if "embed.register_tokens" in ours:
        keys["embed.register_tokens"] = "storage_tokens" if layout == DINOV3 else "register_tokens"
    theirs = translate_back(ours, keys)
    for name in [k for k in theirs if ".attn.q." in k]:
        parts = [theirs.pop(name.replace(".attn.q.", f".attn.{p}.")) for p in "qkv"]
        theirs[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    if layout == DINOV2:
        for name in [k for k in theirs if ".mlp.w1." in k]:
            both = [theirs.pop(name), theirs.pop(name.replace(".w1.", ".w2."))]
            theirs[name.replace(".w1.", ".w12.")] = torch.cat(both)
    return theirs


def _dino_keys(theirs: Tensors) -> dict[str, Names]:
    keys = _DINO | (_GATED if "blocks.0.mlp.w1.weight" in theirs else _MLP)
    for ours, name in (
        ("embed.position_tokens", "pos_embed"),
        ("embed.register_tokens", "register_tokens"),
        ("rope.periods", "rope_embed.periods"),
    ):
        if name in theirs:
            keys[ours] = name
    return keys


def _dino(tensors: Tensors) -> Tensors:
    """One set of names for both DINOs and both writers of them: queries, keys, values and both halves of a gate apart."""
    named: Tensors = {}
    gated = any(".mlp.gate_proj." in k for k in tensors)
    # transformers calls the two layers of DINOv3's plain MLP up and down as well.
    words = {"gate_proj": "w1", "up_proj": "w2" if gated else "fc1", "down_proj": "w3" if gated else "fc2"}
    for key, tensor in tensors.items():
        name = re.sub(r"(?<=\.mlp\.)(\w+_proj)", lambda m: words[m[1]], _dino_name(key))
        # The mask token is of no use in a dense model.
        if name == "mask_token" or name.endswith("bias_mask"):
            continue
        if ".attn.qkv." in name:
            masked = tensors.get(f"{key}_mask")
            whole = tensor if masked is None else torch.where(masked.isnan() | (masked == 0), 0, tensor)
            named |= {name.replace(".qkv.", f".{p}."): v for p, v in zip("qkv", whole.chunk(3))}
        elif ".mlp.w12." in name:
            named |= {name.replace(".w12.", f".w{i + 1}."): v for i, v in enumerate(tensor.chunk(2))}
        else:
            named[name.replace("storage_tokens", "register_tokens")] = tensor
    for name in [k for k in named if re.search(r"\.attn\.[qkv]\.weight$", k)]:
        # Keys without a bias, and all three of the 7B, compute as with one of 0.
        named.setdefault(name.replace(".weight", ".bias"), torch.zeros_like(named[name][:, 0]))
    if "pos_embed" not in named and "rope_embed.periods" not in named:
        # transformers computes the periods: float32 ones of the same formula.
        named["rope_embed.periods"] = Periods(_head_width(named), torch.float32).get_buffer("periods")
    return named


def _head_width(named: Tensors) -> int:
    """DINOv3's: 64 for every size but the 7B's 128."""
    return 128 if len(named["norm.weight"]) == 4096 else 64


def _dino_name(name: str) -> str:
    for pattern, instead in DINO_ALIASES:
        name = re.sub(pattern, instead, name)
    return name


def sized(found: Tensors, wanted: dict[str, Tensor]) -> Tensors:
    """``found`` with what only some files hold settled: stored periods cast to the model's type. Raises JobError when a file
    of another kind of positions was given.
    """
    if ("rope.periods" in wanted) != ("rope.periods" in found):
        raise JobError("its positions are of another kind (rotary or learnt) than this model's")
    if "rope.periods" in wanted:
        found["rope.periods"] = found["rope.periods"].to(wanted["rope.periods"].dtype)
    return found
