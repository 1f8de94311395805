"""A trained teacher and a student -> what the student's loss has beside its task's: outputs, features, a knowledge token.

ViTPose (Xu et al. 2022, 3.5): the teacher, frozen, first learns one token that goes before all others and lowers its own loss;
the student then has that token, frozen, and learns from truth and from what the teacher puts out.
Legend: B batch, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.errors import InputError, JobError
from manifests.seeds import generator
from training import checkpoint
from training import settings as sections
from training.heads import DenseModel
from training.loader import on_device
from training.settings import Finetune
from training.team import Team

Batches = Callable[[range, Team], Iterator[tuple[dict[str, np.ndarray], float]]]
View = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]

# AdamW's rate while the token alone learns.
TOKEN_RATE = 1e-2


def teacher_of(run: Path, settings: Finetune) -> tuple[DenseModel, Finetune, list[str]]:
    """The teacher that ``settings`` name, frozen, its own settings, and its file's sha256 for the digest.

    Raises InputError where it is missing or not a fine-tune's, JobError where it does another task.
    """
    from training.finetune import built

    assert settings.distil is not None
    named = settings.distil.teacher
    path = run / "finetune" / named / "model.safetensors"
    path = path if path.is_file() else Path(named)
    if not path.is_file():
        raise InputError(
            f"finetune {settings.name}: no teacher {named}; name an earlier finetune of this job, or a model.safetensors"
        )
    fields = checkpoint.state_of(path).get("digest", {}).get("fields", {})
    if "task" not in fields:
        raise InputError(
            f"finetune {settings.name}: {path} does not say what it was trained for: give a fine-tune's model.safetensors"
        )
    theirs = remembered(fields)
    if theirs.task != settings.task:
        raise JobError(
            f"finetune {settings.name}: its teacher does {theirs.task}, it learns {settings.task}; choose one of its task"
        )
    model = built(theirs)
    checkpoint.load_weights(path, model)
    with path.open("rb") as file:
        known = hashlib.file_digest(file, "sha256").hexdigest()
    return model.requires_grad_(False).eval(), theirs, [known]


def remembered(fields: dict[str, Any]) -> Finetune:
    """Settings as a checkpoint's digest keeps them; what it leaves out has no part in the model."""
    tree = json.loads(json.dumps({k: v for k, v in fields.items() if k != "data"}))
    tree = sections.BEFORE | tree | {"data": []}
    tree["optim"] = {"checkpoint_every": 1} | tree["optim"]
    kept = {"workers": 1, "cpus": 1, "gpu": "auto", "parallel": "ddp", "accumulate": 1, "checkpointing": False, "compile": False,
            "fit": False, "failures": 0}  # fmt: skip
    tree["compute"] = kept | tree["compute"]
    return sections.build_finetune(tree)


class Aid(nn.Module):
    """What training alone needs of a student: a linear map from its features to the teacher's. Not part of the result."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.map = nn.Conv2d(student, teacher, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, D of the teacher, rows, columns)."""
        return self.map(features)


class Lesson:
    """The teacher's part of the loss. ``loss`` of a step is the task's plus this one's terms."""

    def __init__(self, student: DenseModel, teacher: DenseModel, how: Finetune) -> None:
        assert how.distil is not None
        self._teacher, self._how, self._task = teacher, how.distil, how.task
        self._seed = how.seed
        if self._how.feature:
            student.aid = Aid(student.encoder.size.dim, teacher.encoder.size.dim)

    def __call__(self, module: nn.Module, batch: dict[str, Tensor], own: Any) -> Tensor:
        """``own``: (output, target, mask) -> the task's loss."""
        images = batch["image"]
        output, features = module(images, features=True)
        total = own(output, batch["target"], batch["mask"])
        with torch.no_grad():
            theirs, their_features = self._teacher(images, features=True)
        if self._how.output:
            total = total + self._how.output * like(self._task, output, theirs)
        if self._how.feature:
            total = total + self._how.feature * self._near(features, their_features)
        return total

    def token(self, batches: Batches, view: View, loss_of: Loss, student: DenseModel, me: Team) -> Tensor:
        """The knowledge token, (1, 1, D) of ``student``, that the frozen teacher learns from the first steps' batches.

        ``loss_of``: (model, batch) -> loss. Workers see their own parts of a batch and share gradients.
        """
        steps, teacher = self._how.token_steps, self._teacher
        start = 0.02 * generator(self._seed, "first token").normal(size=(1, 1, teacher.encoder.size.dim))
        token = nn.Parameter(torch.from_numpy(start).float().to(me.device))
        optimiser = torch.optim.AdamW([token], lr=TOKEN_RATE, weight_decay=0.0)
        had, teacher.prompt_tokens = teacher.prompt_tokens, token
        for step, (arrays, _) in enumerate(on_device(batches(range(steps), me), me.device)):
            for group in optimiser.param_groups:
                group["lr"] = TOKEN_RATE * (1 - step / steps)
            optimiser.zero_grad()
            loss_of(teacher, view(arrays)).backward()
            assert token.grad is not None
            token.grad.copy_(me.mean(token.grad))
            optimiser.step()
        teacher.prompt_tokens = had
        return fixed_map(token.detach(), student.encoder.size.dim, self._seed)

    def _near(self, features: Tensor, theirs: Tensor) -> Tensor:
        """1 - cosine of mapped features with the teacher's, place by place; ``features`` are mapped already."""
        theirs = F.interpolate(theirs.float(), size=features.shape[2:], mode="bilinear", align_corners=False)
        return (1 - F.cosine_similarity(features.float(), theirs, dim=1)).mean()


def like(task: str, output: Tensor, theirs: Tensor) -> Tensor:
    """Distance of two outputs: cross entropy with the teacher's shares for classes, else mean squares."""
    theirs = theirs.detach()
    if output.shape != theirs.shape:
        theirs = F.interpolate(theirs, size=output.shape[2:], mode="bilinear", align_corners=False)
    if task.startswith("parts"):
        return -(theirs.softmax(dim=1) * output.log_softmax(dim=1)).sum(dim=1).mean()
    if task == "foreground":
        return F.binary_cross_entropy_with_logits(output, theirs.sigmoid())
    return F.mse_loss(output, theirs)


def fixed_map(token: Tensor, width: int, seed: int) -> Tensor:
    """(1, 1, D) -> (1, 1, ``width``): itself, or through a fixed orthogonal map; a learnt map of one fixed token could make any
    token of it.
    """
    dim = token.shape[2]
    if dim == width:
        return token
    rng = generator(seed, "knowledge token")
    q, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(max(width, dim),) * 2)))
    return token @ q[:dim, :width].to(token)
