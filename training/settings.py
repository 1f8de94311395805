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
    """AdamW: as manifests/job.py."""

    steps: int
    batch: int
    lr: float
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    checkpoint_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked autoencoder."""

    data: list[str]
    weights: list[float] | None
    model: str
    width: int
    height: int
    mask_ratio: float
    decoder_dim: int
    decoder_depth: int
    crop_scale: tuple[float, float]
    seed: int
    optim: Optim


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune:
    """One dense task."""

    name: str
    task: str
    data: list[str]
    weights: list[float] | None
    init: str
    model: str
    width: int
    height: int
    layer_decay: float
    head_width: int
    seed: int
    optim: Optim


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Held-out split."""

    data: list[str]
    split: str


def read(run: Path) -> dict[str, Any]:
    """The sections of ``run``/job.yaml: pretrain, finetune (a list), evaluate; None where absent. Raises InputError."""
    path = run / "job.yaml"
    if not path.is_file():
        raise InputError(f"{run}: no job.yaml here; give a run folder that `maquette run` made")
    tree = yaml.safe_load(path.read_text())
    return {
        "pretrain": _build(Pretrain, tree.get("pretrain")),
        "finetune": [_build(Finetune, t) for t in tree.get("finetune") or []],
        "evaluate": _build(Evaluate, tree.get("evaluate")),
    }


def _build(kind: type, tree: dict[str, Any] | None) -> Any:
    if tree is None:
        return None
    names = {f.name for f in dataclasses.fields(kind)}
    if set(tree) != names:
        raise JobError(
            f"{kind.__name__.lower()}: fields {sorted(set(tree) ^ names)} do not match this trainer's version"
        )
    values: dict[str, Any] = {k: tuple(v) if k in ("betas", "crop_scale") else v for k, v in tree.items()}
    if "optim" in values:
        values["optim"] = _build(Optim, tree["optim"])
    return kind(**values)


def digest(settings: Any, data: list[str]) -> dict[str, Any]:
    """What a checkpoint must match to be gone on with: every field that changes the weights, and the data's
    identity.
    """
    fields = dataclasses.asdict(settings)
    fields["optim"].pop("checkpoint_every")
    fields = json.loads(json.dumps({**fields, "data": data}))
    return {"fields": fields, "sha256": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}


def folders(run: Path, data: list[str]) -> list[Path]:
    """Dataset folders of a `data` list: stages of this run, or paths."""
    return [run / name if name in ("render", "curate") else Path(name) for name in data]
