"""Our weights -> a folder that `transformers.AutoModel` opens, where the architecture exists there: its config, names and shapes.

The masked autoencoder is ViTMAE; Sapiens2's encoders and heads are Sapiens2. A dense model's plain encoder has no class token, which
no architecture of transformers lacks: those go by their own names beside an ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manifests.errors import JobError
from training import keymaps_modern, official, official_heads
from training.heads import CHANNELS, DenseModel
from training.heads_sapiens2 import PixelShuffleHead
from training.keymaps import VITMAE, patch_side
from training.modern import Modern, ModernEncoder
from training.transforms import MEAN, STD
from training.vit import SIZES, Size

ENCODER = "Sapiens2Model"
HEADED = {
    "parts": "Sapiens2ForSemanticSegmentation",
    "pose308": "Sapiens2ForPoseEstimation",
    "normal": "Sapiens2ForNormalEstimation",
    "pointmap": "Sapiens2ForPointmapEstimation",
}


def vitmae(checkpoint: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and tensors of a pre-trained autoencoder; ``fields``: of its digest. Raises JobError."""
    height, width = fields["height"], fields["width"]
    tensors = official.export(checkpoint, VITMAE)
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"]
    side, dim = kernel.shape[-1], kernel.shape[0]
    depth = _count(tensors, "vit.encoder.layer.")
    decoder_dim = tensors["decoder.decoder_norm.weight"].shape[0]
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


def sapiens2(model: DenseModel, height: int, width: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """config.json and tensors of a dense model on Sapiens2's encoder: with its head where transformers has one of the task, else
    the encoder alone; None for other encoders.
    """
    encoder = model.encoder
    if not isinstance(encoder, ModernEncoder):
        return None
    config = sapiens2_config(encoder.size, height, width)
    if config is None:
        return None
    tensors = keymaps_modern.official_tensors(keymaps_modern.SAPIENS2, encoder.state_dict())
    if model.kind != "sapiens2" or model.task not in HEADED:
        return config | {"architectures": [ENCODER]}, tensors
    config |= {"architectures": [HEADED[model.task]], "head_config": _head(model), "num_labels": CHANNELS[model.task]}
    named = {f"backbone.{k}": v for k, v in tensors.items()}
    return config, named | official_heads.official_head(model)


def sapiens2_config(size: Size, height: int, width: int) -> dict[str, Any] | None:
    """What transformers must know of an encoder of ``size``; None where it is not Sapiens2's, or its windowed one."""
    if not isinstance(size, Modern) or size.full is None or size.windows:
        return None
    return {
        "model_type": "sapiens2",
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": size.hidden or 4 * size.dim,
        "patch_size": size.patch,
        "num_register_tokens": size.registers,
        "image_size": [height, width],
        "num_first_full_attention_layers": size.full,
        "num_last_full_attention_layers": size.full,
        "num_key_value_attention_heads": size.heads // 2,
        "num_key_value_heads_per_layer": [size.keys(i) for i in range(size.depth)],
        "layerscale_value": size.scales[0],
    }


def _head(model: DenseModel) -> dict[str, Any]:
    """transformers' description of our head, read off its layers' shapes."""
    state = model.state_dict()
    shuffled = isinstance(model.head, PixelShuffleHead)
    stem, leaf = ("head.ups.", ".0.weight") if shuffled else ("head.deconvs.", ".weight")
    ups = [v for k, v in state.items() if k.startswith(stem) and k.endswith(leaf) and v.ndim == 4]
    convs = [v for k, v in state.items() if k.startswith("head.convs.") and v.ndim == 4]
    given: dict[str, Any] = {
        "model_type": "sapiens2_head",
        "upsample_out_channels": [len(u) // 4 if shuffled else u.shape[1] for u in ups],
        "conv_out_channels": [len(c) for c in convs],
        "use_pixel_shuffle": shuffled,
    }
    if shuffled:
        given |= {"upsample_kernel_sizes": [3] * len(ups), "conv_kernel_sizes": [3] * len(convs)}
    scale = [v for k, v in state.items() if k.startswith("scale.convs.") and v.ndim == 4]
    if scale:
        hidden = [len(state[f"scale.out.{i}.weight"]) for i in (1, 3)]
        given |= {"scale_conv_out_channels": [len(s) for s in scale], "scale_final_hidden_sizes": hidden}
    return given


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
