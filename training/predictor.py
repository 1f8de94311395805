"""A fine-tuned checkpoint and pictures -> what its head says of each, as a user takes it, at the pictures' own size.

A checkpoint says in its header what it is: nothing beside the one file is needed.
Legend: B pictures of a batch, (H, W) a picture, (h, w) the model's size, C channels of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from manifests.errors import InputError, JobError
from training import checkpoint, heatmaps, settings, truth
from training.finetune import built
from training.judges import averaged, prepared
from training.tasks import objective


class Predictor:
    """One fine-tuned model, ready to look: ``tasks`` of its heads, ``settings``, ``size`` (h, w), ``state`` of its header."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """``path``: the model.safetensors of a fine-tune. Raises InputError."""
        self.path = Path(path)
        self.settings, self.state = described(self.path)
        self.model = built(self.settings)
        try:
            checkpoint.load_weights(self.path, self.model)
        except JobError as error:
            raise InputError(f"checkpoint {path}: it does not hold what its header describes ({error})") from None
        self.device = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
        self.model.to(self.device).eval()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What its heads predict, the first by name."""
        return (self.settings.task, *self.settings.also)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the model was trained at."""
        return self.settings.height, self.settings.width

    def predict(self, pictures: Sequence[np.ndarray], batch: int = 8) -> dict[str, list[np.ndarray]]:
        """For each task and picture (H, W, 3) uint8 sRGB what ``finished`` says; pictures are stretched to the model's size."""
        out: dict[str, list[np.ndarray]] = {t: [] for t in self.tasks}
        for i in range(0, len(pictures), batch):
            some = pictures[i : i + batch]
            for task, maps in self.answers(torch.stack([prepared(p, self.size) for p in some])).items():
                out[task] += [self.finished(m, p.shape[:2], task) for m, p in zip(maps, some)]
        return out

    @torch.no_grad()
    def answers(self, images: Tensor) -> dict[str, np.ndarray]:
        """Task -> (B, C, h, w) as a user takes it, of ``images`` (B, 3, h, w): the mean of each and of its mirror image."""
        both = torch.cat([images, images.flip(-1)]).to(self.device)
        said = self.model(both, every=True) if self.settings.also else {self.settings.task: self.model(both)}
        return {t: averaged(o, t, self.settings) for t, o in said.items()}

    def finished(self, answer: np.ndarray, size: tuple[int, ...], task: str) -> np.ndarray:
        """(C, h, w) -> (H, W, C) of ``size`` float32, unit vectors unit; (H, W, 1) uint8 class ids of parts; (K, 3) px and score
        of poses.
        """
        if task in truth.SETS:
            places = objective(task, self.settings.loss if task == self.settings.task else None).places
            assert places is not None
            found = places(answer)
            return np.concatenate([heatmaps.pixels(found[:, :2], (size[0], size[1])), found[:, 2:]], axis=1)
        full = cv2.resize(answer.transpose(1, 2, 0), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        full = full.reshape(size[0], size[1], -1)
        if task.startswith("parts"):
            return full.argmax(axis=2)[..., None].astype(np.uint8)
        return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6) if task == "normal" else full


def described(path: Path) -> tuple[settings.Finetune, dict[str, object]]:
    """The settings that a fine-tune's checkpoint was trained with, and its whole header. Raises InputError."""
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file; give a fine-tune's model.safetensors, or its run folder")
    state = checkpoint.state_of(path)
    fields = state.get("digest", {}).get("fields", {})
    if "task" not in fields:
        raise InputError(f"checkpoint {path}: it has no task's head; give RUN/finetune/NAME/model.safetensors")
    return settings.restored(fields, path), state
