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
from training import checkpoint, settings
from training.finetune import built
from training.heads import DenseModel
from training.tasks import objective
from training.transforms import MEAN, STD

# Turning a picture's left and right round turns these channels' signs with it.
MIRRORED_SIGN = {"normal": (-1.0, 1.0, 1.0)}


class Predictor:
    """One fine-tuned model, ready to look: ``task``, ``settings``, ``size`` (h, w), ``state`` of the checkpoint's header."""

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
    def task(self) -> str:
        """What the head predicts."""
        return self.settings.task

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the model was trained at."""
        return self.settings.height, self.settings.width

    def predict(self, pictures: Sequence[np.ndarray], batch: int = 8) -> list[np.ndarray]:
        """For each picture (H, W, 3) uint8 sRGB its map (H, W, C) float32; pictures are stretched to the model's size."""
        out: list[np.ndarray] = []
        for i in range(0, len(pictures), batch):
            some = pictures[i : i + batch]
            maps = read(self.model, torch.stack([prepared(p, self.size) for p in some]), self.settings)
            out += [stretched(m, p.shape[:2], self.task) for m, p in zip(maps, some)]
        return out


def described(path: Path) -> tuple[settings.Finetune, dict[str, object]]:
    """The settings that a fine-tune's checkpoint was trained with, and its whole header. Raises InputError."""
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file; give a fine-tune's model.safetensors, or its run folder")
    state = checkpoint.state_of(path)
    fields = state.get("digest", {}).get("fields", {})
    if "task" not in fields:
        raise InputError(f"checkpoint {path}: it has no task's head; give RUN/finetune/NAME/model.safetensors")
    return settings.restored(fields, path), state


def prepared(rgb: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(3, h, w) float32 as models take it, of a picture (H, W, 3) uint8 sRGB."""
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    return torch.from_numpy(((small.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1).copy())


@torch.no_grad()
def read(model: DenseModel, images: Tensor, how: settings.Finetune) -> np.ndarray:
    """(B, h, w, C) float32: what the head says of ``images`` (B, 3, h, w), the mean of each and of its mirror image."""
    device = next(model.parameters()).device
    reading = objective(how.task, how.loss).read
    out = reading(model(torch.cat([images, images.flip(-1)]).to(device)).float()).cpu().numpy()
    straight, mirrored = np.split(out, 2)
    sign = np.array(MIRRORED_SIGN.get(how.task, (1.0,)), np.float32)[:, None, None]
    return ((straight + mirrored[..., ::-1] * sign) / 2).transpose(0, 2, 3, 1)


def stretched(field: np.ndarray, size: tuple[int, ...], task: str) -> np.ndarray:
    """(h, w, C) -> (H, W, C) of ``size``, bilinear; unit vectors stay unit."""
    full = cv2.resize(field, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, -1)
    return full / np.maximum(np.linalg.norm(full, axis=2, keepdims=True), 1e-6) if task == "normal" else full
