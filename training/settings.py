"""A run folder's resolved job.yaml -> plain dataclasses, without pydantic: a GPU machine has little but torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from manifests.errors import InputError, JobError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its guards; fields and meaning as in manifests/job_training.py, here and below."""

    steps: int
    batch: int
    lr: float
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    ema: float
    spike: float
    checkpoint_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """How it runs."""

    workers: int
    cpus: int
    gpu: str
    precision: str
    parallel: str
    accumulate: int
    checkpointing: bool
    compile: bool
    fit: bool
    failures: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of a sample."""

    crop: tuple[float, float]
    stretch: float
    rotate_deg: float
    rotate_share: float
    tilt_deg: float
    flip: float
    backgrounds: str | None
    background_share: float
    brightness: float
    contrast: float
    saturation: float
    hue_deg: float
    grey: float
    blur: float
    blur_px: float
    noise: float
    iso: float
    jpeg: float
    jpeg_quality: tuple[int, int]
    box_shift: float
    box_scale: float
    part_boxes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distilled:
    """What Sapiens2's objective has beside the masked autoencoder."""

    locals: int
    local_width: int
    local_height: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    block_share: float
    prototypes: int
    hidden: int
    bottleneck: int
    weight: float
    koleo: float
    momentum: float
    centre_momentum: float
    student_temperature: float
    teacher_temperature: tuple[float, float]
    warmup_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked autoencoder, alone or with self-distillation."""

    data: list[str]
    weights: list[float] | None
    weighted: bool
    model: str
    width: int
    height: int
    mask_ratio: float
    decoder_dim: int
    decoder_depth: int
    decoder: str
    predict: float
    objective: str
    distilled: Distilled
    augment: Augment
    seed: int
    optim: Optim
    compute: Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distil:
    """A teacher."""

    teacher: str
    output: float
    feature: float
    token_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune:
    """One dense task, and others beside it."""

    name: str
    task: str
    loss: str | None
    data: list[str]
    weights: list[float] | None
    samples: int | None
    init: str
    model: str
    width: int
    height: int
    layer_decay: float
    patch_padding: int
    also: dict[str, float]
    head: str
    head_width: int
    init_head: bool
    encoder_size: tuple[int, int] | None
    distil: Distil | None
    augment: Augment
    seed: int
    optim: Optim
    compute: Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Held-out split."""

    data: list[str]
    split: str
    alignment: str
    bootstrap: int
    seed: int


PARTS: dict[str, type] = {
    "optim": Optim, "compute": Compute, "augment": Augment, "distilled": Distilled, "distil": Distil,
}  # fmt: skip
PAIRS = ("betas", "crop", "jpeg_quality", "global_scale", "local_scale", "teacher_temperature", "encoder_size")
# What settings amounted to before they existed: checkpoints of then are read as well.
BEFORE: dict[str, Any] = {"samples": None, "also": {}, "init_head": False, "encoder_size": None, "distil": None}
# What may change between two runs of one training: none of it moves the weights by more than rounding.
NOT_IN_DIGEST = {
    "optim": ("checkpoint_every",),
    "compute": tuple(f.name for f in dataclasses.fields(Compute) if f.name != "precision"),
}


def read(run: Path) -> dict[str, Any]:
    """The sections of ``run``/job.yaml: pretrain, finetune (a list), evaluate; None where absent. Raises InputError."""
    path = run if run.suffix in (".yaml", ".yml") else run / "job.yaml"
    if not path.is_file():
        raise InputError(f"{run}: no job.yaml here; give a run folder that `maquette run` made")
    tree = yaml.safe_load(path.read_text())
    return {
        "pretrain": _build(Pretrain, tree.get("pretrain")),
        "finetune": [_build(Finetune, t) for t in tree.get("finetune") or []],
        "evaluate": _build(Evaluate, tree.get("evaluate")),
    }


def build_finetune(tree: dict[str, Any]) -> Finetune:
    """One fine-tune's settings from a plain tree. Raises JobError."""
    return _build(Finetune, tree)


def _build(kind: type, tree: dict[str, Any] | None) -> Any:
    if tree is None:
        return None
    names = {f.name for f in dataclasses.fields(kind)}
    if set(tree) != names:
        raise JobError(
            f"{kind.__name__.lower()}: fields {', '.join(sorted(set(tree) ^ names))} are not as this trainer expects: "
            "`maquette train JOB --prepare` writes a job with every default filled in"
        )
    values: dict[str, Any] = {k: tuple(v) if k in PAIRS and v is not None else v for k, v in tree.items()}
    for name in values.keys() & PARTS.keys():
        values[name] = _build(PARTS[name], tree[name])
    return kind(**values)


def restored(fields: dict[str, Any], where: Path) -> Finetune:
    """The settings of a fine-tune from the digest in its checkpoint ``where``; what a digest leaves out is None. Raises
    InputError.
    """
    fields = BEFORE | fields
    lacks = sorted(f.name for f in dataclasses.fields(Finetune) if f.name not in fields)
    if lacks:
        raise InputError(f"checkpoint {where}: another version's, without {', '.join(lacks)}; train it again")

    def known(kind: type, tree: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {f.name: tree.get(f.name) for f in dataclasses.fields(kind)}
        return {k: tuple(v) if k in PAIRS and v else v for k, v in found.items()}

    values = known(Finetune, fields)
    given = {name: part for name, part in PARTS.items() if values.get(name) is not None}
    return Finetune(**values | {name: part(**known(part, values[name])) for name, part in given.items()})


def digest(settings: Pretrain | Finetune, data: list[str], precision: str) -> dict[str, Any]:
    """What a checkpoint must match to be gone on with: every field that changes the weights, and the data's
    identity. ``precision``: what `auto` came to.
    """
    fields = dataclasses.asdict(settings)
    for part, names in NOT_IN_DIGEST.items():
        for name in names:
            fields[part].pop(name)
    if fields.get("samples") is None:
        # All rows, as before there was a choice: older checkpoints go on.
        fields.pop("samples", None)
    if not fields.get("weighted"):
        fields.pop("weighted", None)
    fields["compute"]["precision"] = precision
    fields = json.loads(json.dumps({**fields, "data": data}))
    return {"fields": fields, "sha256": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}


def folders(run: Path, data: list[str]) -> list[Path]:
    """Dataset folders of a `data` list: stages of this run, or paths."""
    return [run / name if name in ("render", "curate") else Path(name) for name in data]
