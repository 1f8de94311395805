"""A job's embedding settings -> the model that makes the vectors: a transformers one, or maquette's own pre-trained encoder,
which curation and training must not know of each other for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from curation.embedding import Embedder, TransformersEmbedder, in_batches, state_sha256, unit
from manifests.curation import Embedding
from manifests.errors import InputError


class OwnEncoder:
    """The encoder of a pre-training checkpoint, at the size it was trained at; its mean patch token is the vector."""

    def __init__(self, settings: Embedding, root: Path) -> None:
        import torch

        from training import checkpoint
        from training.transforms import MEAN, STD
        from training.vit import SIZES, Encoder

        path = root / settings.weights
        state, tensors = checkpoint.read(path)
        fields = state.get("digest", {}).get("fields", {})
        if not {"model", "width", "height", "mask_ratio"} <= fields.keys():
            raise InputError(f"curate.embedding.weights: {path}: not a checkpoint of `pretrain`")
        encoder = Encoder(SIZES[fields["model"]], cls_token=True)
        encoder.load_state_dict(checkpoint.under(tensors, "model.encoder."))
        self._device = "cuda" if settings.device == "auto" and torch.cuda.is_available() else settings.device
        self._device = "cpu" if self._device == "auto" else self._device
        torch.set_num_threads(1)
        self._size = (fields["width"], fields["height"])
        self._mean, self._std = MEAN, STD
        self.name = f"encoder {fields['model']} {fields['width']}x{fields['height']}"
        self.weights_sha256 = state_sha256(encoder)
        self._encoder = encoder.eval().to(self._device)
        self._batch, self._torch = settings.batch, torch

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(3, h, w) float32: stretched to the model's size, as its ratio says nothing of what is shown."""
        import cv2

        small = cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(((small - self._mean) / self._std).transpose(2, 0, 1), np.float32)

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """(B, D) float32 of length 1."""

        def of(blob: np.ndarray) -> np.ndarray:
            with self._torch.inference_mode():
                tokens = self._encoder(self._torch.from_numpy(blob).to(self._device))[-1]
            return unit(tokens[:, 1:].mean(dim=1).float().cpu().numpy())

        return in_batches(inputs, self._batch, of)


def embedder(settings: Embedding | None, root: Path) -> Embedder | None:
    """The model of ``settings``, None without. Raises InputError."""
    return EMBEDDERS[settings.kind](settings, root) if settings else None


EMBEDDERS: dict[str, Callable[[Embedding, Path], Embedder]] = {
    "transformers": TransformersEmbedder,
    "encoder": OwnEncoder,
}
