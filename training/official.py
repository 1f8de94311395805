"""Checkpoint files of ours, of Sapiens v1 and 2, DINOv2 and 3 and transformers' ViTMAE -> weights of our models, and back."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from manifests.errors import InputError, JobError
from training import keymaps_modern
from training.keymaps import (
    ENCODER_KEYS,
    SAPIENS,
    VITMAE,
    VITMAE_DECODER_KEYS,
    VITMAE_KEYS,
    Tensors,
    hub_name,
    patch_side,
    translate,
    translate_back,
)
from training.modern import ModernEncoder
from training.vit import Encoder, resize_positions, sincos

OURS = "maquette"
MODERN = (keymaps_modern.SAPIENS2, keymaps_modern.DINOV2, keymaps_modern.DINOV3)
LAYOUTS = (SAPIENS, VITMAE, *MODERN)


def read(path: Path) -> tuple[str, Tensors]:
    """A checkpoint's layout and its tensors, prefixes and wrappers taken off: ours as ``encoder.*`` and others, Sapiens
    and DINO as the bare encoder, ViTMAE under the Hub's names. Safetensors, or torch files without code in them. Raises
    InputError.
    """
    try:
        return recognise(raw(path))
    except InputError as error:
        raise InputError(f"weights {path}: {error}") from None


def raw(path: Path) -> Tensors:
    """A file's tensors as they are named. Raises InputError."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, SafetensorError, RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"not readable as safetensors or as a torch file of tensors ({why})") from None


def recognise(tensors: Tensors) -> tuple[str, Tensors]:
    """As ``read``, of tensors in memory."""
    tensors = unwrapped(tensors)
    if any(k.startswith("model.encoder.") for k in tensors):
        return OURS, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    if any(k.startswith("backbone.") for k in tensors):
        tensors = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    if "layers.0.attn.qkv.weight" in tensors:
        return SAPIENS, tensors
    modern = keymaps_modern.layout_of(tensors)
    if modern is not None:
        return modern, tensors
    if any(k.endswith("embeddings.patch_embeddings.projection.weight") for k in tensors):
        return VITMAE, {hub_name(k): v for k, v in tensors.items()}
    raise InputError(
        "neither this trainer's, nor Sapiens v1's (layers.0.attn.qkv.weight), nor Sapiens2's (blocks.0.attn.wq.weight), nor "
        "DINO's (blocks.0.ls1.gamma), nor transformers' ViTMAE "
        f"(embeddings.patch_embeddings.projection.weight); it begins with {', '.join(list(tensors)[:3])}"
    )


def unwrapped(tensors: Tensors) -> Tensors:
    """What lies under the name that releases wrap their weights in."""
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(tensors.get(wrapper), dict):
            tensors = tensors[wrapper]  # type: ignore[assignment]
    return tensors


def load_encoder(path: Path, model: nn.Module) -> None:
    """Fill ``model.encoder`` from any checkpoint that ``read`` knows. Raises InputError, JobError."""
    layout, tensors = read(path)
    encoder = model.encoder
    assert isinstance(encoder, Encoder | ModernEncoder)
    try:
        encoder.load_state_dict(encoder_state(layout, tensors, encoder))
    except JobError as error:
        raise JobError(f"init {path}: {error}; set the same `model`") from None


def encoder_state(layout: str, tensors: Tensors, encoder: Encoder | ModernEncoder) -> Tensors:
    """What ``encoder.load_state_dict`` takes, strictly: every weight of the file has its place but those of decoders, task
    heads and the class token of an encoder without one; positions are resized to the encoder's grid. Raises JobError.
    """
    modern = isinstance(encoder, ModernEncoder)
    if layout == OURS:
        found = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    elif modern != (layout in MODERN):
        raise JobError(f"its layout is {layout}, of another kind of transformer than this model's")
    elif layout in MODERN:
        found = keymaps_modern.sized(keymaps_modern.encoder_tensors(layout, tensors), encoder.state_dict())
    else:
        whole = {k: v for k, v in tensors.items() if not k.startswith("decoder.")}
        found = translate(whole, ENCODER_KEYS[layout])
    wanted = {k: v.shape for k, v in encoder.state_dict().items()}
    stored, extra = found.pop("embed.position_tokens", None), int("embed.cls_token" in found)
    if stored is not None and not extra and _grid_or_none(stored.shape[1]) is None:
        # ViTPose has no class token and keeps its place, which it adds to every patch's.
        stored = stored[:, 1:] + stored[:, :1]
    if "embed.cls_token" not in wanted:
        found.pop("embed.cls_token", None)
    if "embed.position_tokens" in wanted:
        found["embed.position_tokens"] = _positions(stored, extra, encoder, int("embed.cls_token" in wanted))
    elif stored is not None:
        raise JobError("it holds positions of its own, and this model computes them: give the model a grid")
    check(found, wanted)
    return found


def mae_state(tensors: Tensors, model: nn.Module) -> Tensors:
    """What ``model.load_state_dict`` of a whole masked autoencoder takes from a ViTMAE checkpoint. Raises JobError."""
    inside = {k: v for k, v in tensors.items() if k.startswith("decoder.")}
    outside = {k: v for k, v in tensors.items() if not k.startswith("decoder.")}
    found = {f"encoder.{k}": v for k, v in translate(outside, VITMAE_KEYS).items()}
    found |= translate(inside, VITMAE_DECODER_KEYS)
    check(found, {k: v.shape for k, v in model.state_dict().items()})
    return found


def export(path: Path, layout: str, grid: tuple[int, int] | None = None) -> Tensors:
    """The weights of a checkpoint of ours under the names of ``layout``: the encoder of any model for sapiens-v1, sapiens2,
    dinov2 and dinov3, a whole masked autoencoder for vitmae. ``grid``: of positions that the model computes; its training pictures' by default.
    Raises InputError, JobError.
    """
    found, tensors = read(path)
    if found != OURS:
        raise InputError(f"weights {path}: already in the layout {found}")
    encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    other = {k: v for k, v in tensors.items() if not k.startswith("encoder.")}
    if layout in MODERN or "blocks.0.attention.query.weight" in encoder:
        return _export_modern(path, layout, encoder)
    side = patch_side(encoder["embed.projection.weight"].shape[1])
    whole = layout == VITMAE
    if whole and "mask_token" not in other:
        raise JobError(f"weights {path}: only a whole masked autoencoder goes by ViTMAE's names; use {SAPIENS}")
    if whole and any(".query." in k for k in other):
        raise JobError(f"weights {path}: ViTMAE has no names for a decoder of cross attention; use {SAPIENS}")
    for state in (encoder, other) if whole else (encoder,):
        if "position_tokens" not in state and "embed.position_tokens" not in state:
            grid = grid or _trained_grid(path, side)
            dim = len(state["norm.bias"])
            cls = torch.zeros(1, int("embed.cls_token" in encoder), dim)
            name = "embed.position_tokens" if state is encoder else "position_tokens"
            state[name] = torch.cat([cls, sincos(grid, dim)], dim=1)
    theirs = translate_back(encoder, ENCODER_KEYS[layout])
    return theirs | (translate_back(other, VITMAE_DECODER_KEYS) if whole else {})


def _export_modern(path: Path, layout: str, encoder: Tensors) -> Tensors:
    """As ``export``, of a modern encoder. Raises JobError where it is not of ``layout``'s kind."""
    kind = keymaps_modern.SAPIENS2 if "blocks.0.attention.query_norm.weight" in encoder else keymaps_modern.DINOV3
    if "embed.position_tokens" in encoder:
        kind = keymaps_modern.DINOV2 if "blocks.0.attention.query.weight" in encoder else SAPIENS
    if layout != kind or "blocks.0.attention.query.weight" not in encoder:
        raise JobError(f"weights {path}: an encoder of this kind goes by the names of {kind}, not of {layout}")
    return keymaps_modern.official_tensors(layout, encoder)


def _positions(stored: Tensor | None, extra: int, encoder: Encoder | ModernEncoder, kept: int) -> Tensor:
    """``stored`` positions (1, extra + N, D), or sin-cos, for the encoder's grid, after ``kept`` places of class tokens."""
    assert encoder.grid is not None
    if stored is None:
        stored, extra = sincos(encoder.grid, encoder.size.dim), 0
    patches = stored[:, extra:]
    if patches.shape[1] != math.prod(encoder.grid):
        smooth = getattr(encoder.size, "antialias", False)
        patches = resize_positions(patches, _grid_of(patches.shape[1]), encoder.grid, smooth)
    cls = stored[:, :extra] if extra else torch.zeros_like(stored[:, :1])
    return torch.cat([cls[:, :kept], patches], dim=1)


def _trained_grid(path: Path, side: int) -> tuple[int, int]:
    with safe_open(path, "pt") as file:
        state = json.loads((file.metadata() or {}).get("state", "{}"))
    fields = state.get("digest", {}).get("fields", {})
    if not {"height", "width"} <= fields.keys():
        raise InputError(f"weights {path}: they do not say their pictures' size; give a grid in patches")
    return fields["height"] // side, fields["width"] // side


def check(found: Tensors, wanted: dict[str, torch.Size]) -> None:
    """Raise JobError unless names and shapes are the same."""
    lacks, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [k for k in wanted.keys() & found.keys() if found[k].shape != wanted[k]]
    if lacks or more or other:
        parts = [f"lacks {', '.join(lacks[:3])}"] if lacks else []
        parts += [f"has {', '.join(more[:3])} too many"] if more else []
        parts += [f"{k} is {tuple(found[k].shape)} in place of {tuple(wanted[k])}" for k in sorted(other)[:3]]
        raise JobError(f"it does not fit this model: {'; '.join(parts)}")


def _grid_of(count: int) -> tuple[int, int]:
    """The grid that ``count`` patches must come from: a square, or rows to columns as 4 to 3. Raises JobError."""
    found = _grid_or_none(count)
    if found is None:
        raise JobError(f"its {count} positions are neither a square nor a 4:3 grid")
    return found


def _grid_or_none(count: int) -> tuple[int, int] | None:
    side, unit = math.isqrt(count), math.isqrt(count // 12)
    if side * side == count:
        return side, side
    return (4 * unit, 3 * unit) if 12 * unit * unit == count else None
