"""Our weights -> a folder that `transformers.AutoModel` opens, where the architecture exists there: its config, names and shapes.

The masked autoencoder is ViTMAE. A dense model's plain encoder has no class token, which no architecture of transformers lacks:
those go by their own names beside an ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manifests.errors import JobError
from training import official
from training.keymaps import VITMAE, patch_side
from training.transforms import MEAN, STD


def vitmae(checkpoint: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and tensors of a pre-trained autoencoder; ``fields``: of its digest. Raises JobError."""
    height, width = fields["height"], fields["width"]
    tensors = official.export(checkpoint, VITMAE)
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"]
    side, dim = kernel.shape[-1], kernel.shape[0]
    depth = _count(tensors, "vit.encoder.layer.")
    decoder_dim = tensors["decoder.decoder_norm.weight"].shape[0]
    from training.vit import SIZES

    heads = {(s.dim, s.depth): s.heads for s in SIZES.values()}.get((dim, depth))
    if heads is None:
        raise JobError(f"weights {checkpoint}: {dim} wide and {depth} deep is no size of this trainer")
    assert side == patch_side(tensors["decoder.decoder_pred.weight"].shape[0])
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * dim,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": [height, width],
        "patch_size": side,
        "num_channels": 3,
        "qkv_bias": True,
        "decoder_hidden_size": decoder_dim,
        "decoder_num_hidden_layers": _count(tensors, "decoder.decoder_layers."),
        "decoder_num_attention_heads": max(1, decoder_dim // 32),
        "decoder_intermediate_size": 4 * decoder_dim,
        "mask_ratio": fields["mask_ratio"],
        "norm_pix_loss": True,
    }
    return config, tensors


def preprocessor(height: int, width: int) -> dict[str, Any]:
    """preprocessor_config.json: how a picture becomes the model's input."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(float(v) / 255, 6) for v in MEAN],
        "image_std": [round(float(v) / 255, 6) for v in STD],
    }


def _count(tensors: dict[str, Any], prefix: str) -> int:
    return len({k.removeprefix(prefix).split(".")[0] for k in tensors if k.startswith(prefix)})
