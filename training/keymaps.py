"""Names, shapes and orders of Sapiens v1's and transformers' ViTMAE weights <-> ours, by tables; strict both ways.

Written from lists of keys alone. Ours are named as training/vit.py and training/mae.py name their modules.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from manifests.errors import JobError

Names = str | tuple[str, ...]
Tensors = dict[str, Tensor]

SAPIENS, VITMAE = "sapiens-v1", "vitmae"
# Ours -> theirs; names that end in a dot stand for a weight and a bias, three names for rows end to end.
SAPIENS_KEYS: dict[str, Names] = {
    "embed.cls_token": "cls_token",
    "embed.position_tokens": "pos_embed",
    "embed.projection.": "patch_embed.projection.",
    "blocks.{i}.norm1.": "layers.{i}.ln1.",
    "blocks.{i}.attention.qkv.": "layers.{i}.attn.qkv.",
    "blocks.{i}.attention.proj.": "layers.{i}.attn.proj.",
    "blocks.{i}.norm2.": "layers.{i}.ln2.",
    "blocks.{i}.mlp.0.": "layers.{i}.ffn.layers.0.0.",
    "blocks.{i}.mlp.2.": "layers.{i}.ffn.layers.1.",
    "norm.": "ln1.",
}


def _vitmae_block(ours: str, theirs: str) -> dict[str, Names]:
    inner = f"{theirs}.attention.attention."
    return {
        f"{ours}.norm1.": f"{theirs}.layernorm_before.",
        f"{ours}.attention.qkv.": (f"{inner}query.", f"{inner}key.", f"{inner}value."),
        f"{ours}.attention.proj.": f"{theirs}.attention.output.dense.",
        f"{ours}.norm2.": f"{theirs}.layernorm_after.",
        f"{ours}.mlp.0.": f"{theirs}.intermediate.dense.",
        f"{ours}.mlp.2.": f"{theirs}.output.dense.",
    }


VITMAE_KEYS: dict[str, Names] = {
    "embed.cls_token": "vit.embeddings.cls_token",
    "embed.position_tokens": "vit.embeddings.position_embeddings",
    "embed.projection.": "vit.embeddings.patch_embeddings.projection.",
    **_vitmae_block("blocks.{i}", "vit.encoder.layer.{i}"),
    "norm.": "vit.layernorm.",
}
VITMAE_DECODER_KEYS: dict[str, Names] = {
    "to_decoder.": "decoder.decoder_embed.",
    "mask_token": "decoder.mask_token",
    "position_tokens": "decoder.decoder_pos_embed",
    **_vitmae_block("decoder.{i}", "decoder.decoder_layers.{i}"),
    "norm.": "decoder.decoder_norm.",
    "head.": "decoder.decoder_pred.",
}
# transformers 5 renamed its modules, and saves decoders under a third name: all become the Hub's names.
VITMAE_ALIASES = (
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"^(?=embeddings\.|encoder\.layer\.|layers\.|layernorm\.)", "vit."),
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
ENCODER_KEYS = {SAPIENS: SAPIENS_KEYS, VITMAE: VITMAE_KEYS}


def translate(theirs: Tensors, keys: dict[str, Names]) -> Tensors:
    """Their tensors under our names and in our shapes. Raises JobError on names that ``keys`` does not hold."""
    ours: Tensors = {}
    rest = set(theirs)
    for name in _names(keys, theirs):
        parts = _theirs(name, keys)
        if not rest.issuperset(parts):
            raise JobError(f"it lacks {', '.join(p for p in parts if p not in theirs)}")
        rest.difference_update(parts)
        tensor = torch.cat([theirs[p] for p in parts]) if len(parts) > 1 else theirs[parts[0]]
        if name == "embed.projection.weight":
            tensor = tensor.flatten(1)
        elif name.startswith("head."):
            side = patch_side(len(tensor))
            tensor = tensor.unflatten(0, (side, side, 3)).movedim(2, 0).flatten(0, 2)
        ours[name] = tensor
    if rest:
        raise JobError(f"it holds {len(rest)} weights that have no place here: {', '.join(sorted(rest)[:3])}")
    return ours


def translate_back(ours: Tensors, keys: dict[str, Names]) -> Tensors:
    """The inverse of ``translate``, bit for bit."""
    theirs: Tensors = {}
    for name, tensor in ours.items():
        parts = _theirs(name, keys)
        if name == "embed.projection.weight":
            side = patch_side(tensor.shape[1])
            tensor = tensor.unflatten(1, (3, side, side))
        elif name.startswith("head."):
            side = patch_side(len(tensor))
            tensor = tensor.unflatten(0, (3, side, side)).movedim(0, 2).flatten(0, 2)
        for part, value in zip(parts, tensor.chunk(len(parts)), strict=True):
            theirs[part] = value.contiguous()
    return theirs


def hub_name(name: str) -> str:
    """A ViTMAE weight's name as the Hub's files have it."""
    for pattern, instead in VITMAE_ALIASES:
        name = re.sub(pattern, instead, name)
    return name


def _names(keys: dict[str, Names], theirs: Tensors) -> list[str]:
    """Our names that ``theirs`` must hold; the class token's where they have one."""
    numbered = next(v for k, v in keys.items() if "{i}" in k)
    first = numbered if isinstance(numbered, str) else numbered[0]
    pattern = re.compile(re.escape(first).replace(re.escape("{i}"), r"(\d+)"))
    depth = len({m.group(1) for k in theirs if (m := pattern.match(k))})
    names = []
    for key in keys:
        if key == "embed.cls_token" and keys[key] not in theirs:
            continue
        for i in range(depth if "{i}" in key else 1):
            full = key.replace("{i}", str(i))
            names += [f"{full}weight", f"{full}bias"] if full.endswith(".") else [full]
    return names


def _theirs(name: str, keys: dict[str, Names]) -> tuple[str, ...]:
    number = re.match(r"(?:blocks|decoder)\.(\d+)\.", name)
    index = number.group(1) if number else ""
    template = re.sub(r"^(blocks|decoder)\.\d+\.", r"\1.{i}.", name)
    stem, _, leaf = template.rpartition(".")
    found = keys.get(template)
    if found is None:
        found, tail = keys.get(f"{stem}."), leaf
    else:
        tail = ""
    if found is None:
        raise JobError(f"{name} has no name in the other layout")
    return tuple(f"{f}{tail}".replace("{i}", index) for f in ((found,) if isinstance(found, str) else found))


def patch_side(pixels: int) -> int:
    """The side of a square patch of so many numbers in three colours."""
    return math.isqrt(pixels // 3)
