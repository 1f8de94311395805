"""Task checkpoints of Sapiens v1, Sapiens2 and ViTPose -> the head of a model of ours, and ours under Sapiens2's names.

By tables of names (sapiens.md 1.2), strict: every weight of the file's head has its place.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from manifests.errors import InputError, JobError
from training import official
from training.heads import POSES, DeconvHead, DenseModel
from training.heads_sapiens2 import PixelShuffleHead
from training.heads_vitpose import ClassicHead, SimpleHead
from training.keymaps import Tensors

# Their last layer's name by task. v1 calls it conv_seg in all dense tasks.
LAST = {"parts": "conv_seg", "parts28": "conv_seg", **dict.fromkeys(POSES, "conv_pose")}
LAST |= {"normal": "conv_normal", "pointmap": "conv_pointmap", "albedo": "conv_albedo"}
# Ours -> theirs, patterns; what a pattern does not name stays.
SHUFFLE = (
    (r"^first\.0\.", "input_conv.0."),
    (r"^first\.1\.", "input_conv.1."),
    (r"^ups\.(\d+)\.", r"upsample_blocks.\1."),
    (r"^convs\.", "conv_layers."),
)
DECONV = ((r"^deconvs\.", "deconv_layers."), (r"^convs\.", "conv_layers."))
SCALE = ((r"^convs\.", "scale_conv_layers."), (r"^out\.", "scale_final_layer."))
# transformers' ViTPose: theirs -> ours.
VITPOSE = (
    (r"^deconv1\.", "deconvs.0."), (r"^batchnorm1\.", "deconvs.1."), (r"^deconv2\.", "deconvs.3."),
    (r"^batchnorm2\.", "deconvs.4."), (r"^conv\.", "out."),
)  # fmt: skip


def load_task(path: Path, model: DenseModel) -> None:
    """Fill encoder and head of ``model`` from a task checkpoint: ours, `backbone.*` with `decode_head.*` or `head.*`.

    Raises InputError where the file has no head, JobError where it is another's.
    """
    tensors = official.unwrapped(_raw(path))
    official.load_encoder(path, model)
    theirs: Tensors = {}
    for prefix in ("decode_head.", "head."):
        theirs |= {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if any(k.startswith("model.head.") for k in tensors):
        found = {k.removeprefix("model."): v for k, v in tensors.items() if re.match(r"model\.(head|scale)\.", k)}
    elif theirs:
        found = head_state(theirs, model)
    else:
        raise InputError(f"weights {path}: no head in it (decode_head.*, head.*); give a checkpoint of the task")
    wanted = {k: v.shape for k, v in model.state_dict().items() if k.startswith(("head.", "scale."))}
    try:
        official.check(found, wanted)
    except JobError as error:
        raise JobError(f"init {path}: its head: {error}; set the same `task`, `head` and head_width: 0") from None
    model.load_state_dict(found, strict=False)


def head_state(theirs: Tensors, model: DenseModel) -> Tensors:
    """Their head's weights, `decode_head.` taken off, under our names."""
    names = {official_name(k, model): k for k in model.state_dict() if k.startswith(("head.", "scale."))}
    # v1's last layers, and ViTPose's.
    for theirs_last in ("conv_seg.", "final_layer.", "conv_depth.", "conv_normal."):
        for leaf in ("weight", "bias"):
            names.setdefault(f"{theirs_last}{leaf}", f"head.out.{leaf}")
    if isinstance(model.head, ClassicHead | SimpleHead):
        return {f"head.{_renamed(k, VITPOSE)}": v for k, v in theirs.items()}
    return {names.get(k, k): v for k, v in theirs.items()}


def official_head(model: nn.Module) -> Tensors:
    """The head of a model of ours under Sapiens2's names, `decode_head.` before them. Raises JobError for other heads."""
    assert isinstance(model, DenseModel)
    if not isinstance(model.head, PixelShuffleHead | DeconvHead):
        raise JobError("only heads of Sapiens have official names: train with head: sapiens2")
    state = {k: v for k, v in model.state_dict().items() if k.startswith(("head.", "scale."))}
    return {f"decode_head.{official_name(k, model)}": v.contiguous() for k, v in state.items()}


def official_name(name: str, model: DenseModel) -> str:
    """Sapiens2's name, without `decode_head.`, of our ``head.*`` or ``scale.*``."""
    part, _, rest = name.partition(".")
    if part == "scale":
        return _renamed(rest, SCALE)
    if rest.startswith("out."):
        return f"{LAST.get(model.task, 'conv_seg')}.{rest.removeprefix('out.')}"
    return _renamed(rest, SHUFFLE if isinstance(model.head, PixelShuffleHead) else DECONV)


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, instead in table:
        fresh, count = re.subn(pattern, instead, name)
        if count:
            return fresh
    return name


def _raw(path: Path) -> Tensors:
    try:
        return official.raw(path)
    except InputError as error:
        raise InputError(f"weights {path}: {error}") from None
