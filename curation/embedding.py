"""Pictures -> one vector each, by any transformers model with an image processor; the cheap heads and clusters share it.

An embedder prepares a picture at once, so that nothing full-size waits for its batch, and gives unit vectors. The person
detector reads the same decoded picture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manifests.curation import Embedding, Weights
from manifests.errors import InputError


class Embedder(Protocol):
    """``name``, ``weights_sha256``; ``prepare``: (H, W, 3) uint8 -> what waits; ``embed``: B of these -> (B, D) float32
    of length 1.
    """

    name: str
    weights_sha256: str

    def prepare(self, rgb: np.ndarray) -> np.ndarray: ...

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray: ...


class TransformersEmbedder:
    """CLIP and SigLIP by their image features, DINOv2 and others by their pooled output or, without one, the mean token."""

    def __init__(self, settings: Embedding, root: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModel

        self._processor, model, where, self._device = loaded(settings, root, "embedding", AutoImageProcessor, AutoModel)
        self._features: Callable[..., Any] | None = getattr(model, "get_image_features", None)
        self.name = f"transformers {model.config.model_type} {Path(where).name}"
        self.weights_sha256 = state_sha256(model)
        self._model, self._batch = model, settings.batch
        self._torch = torch

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        blob = self._processor(images=rgb, return_tensors="np")["pixel_values"][0]
        return np.asarray(blob, np.float32)

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return in_batches(inputs, self._batch, self._of)

    def _of(self, blob: np.ndarray) -> np.ndarray:
        pixels = self._torch.from_numpy(blob).to(self._device)
        with self._torch.inference_mode():
            out = self._features(pixel_values=pixels) if self._features else self._model(pixel_values=pixels)
        if not isinstance(out, self._torch.Tensor):
            pooled = getattr(out, "pooler_output", None)
            out = pooled if pooled is not None else out.last_hidden_state.mean(dim=1)
        return unit(out.float().cpu().numpy())


def folder_or_hub(weights: str, root: Path, where: str) -> str:
    """What transformers shall load: a folder below ``root``, or else a hub id. Raises InputError for neither.

    A mistyped folder that is taken for a hub id is asked for over the network, again and again.
    """
    folder = root / weights
    if folder.is_dir():
        return str(folder)
    beside = folder.parent != root and folder.parent.is_dir()
    if beside or not re.fullmatch(r"[\w.-]*\w(/[\w.-]*\w)?", weights):
        raise InputError(f"curate.{where}.weights: {weights}: no such folder (looked in {root}), and no hub id")
    return weights


def loaded(settings: Weights, root: Path, where: str, processor: Any, model: Any) -> tuple[Any, Any, str, str]:
    """Processor, model on its device, the name it was loaded by, and the device. Raises InputError."""
    import torch

    name = folder_or_hub(settings.weights, root, where)
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    try:
        return (
            processor.from_pretrained(name, use_fast=False),
            model.from_pretrained(name).eval().to(device),
            name,
            device,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        raise InputError(f"curate.{where}.weights: {name}: transformers cannot load it ({first})") from None


def in_batches(inputs: Sequence[np.ndarray], batch: int, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``of`` (B, ...) -> (B, D), over inputs of one shape at a time; a batch is halved where memory runs out."""
    rows: list[np.ndarray | None] = [None] * len(inputs)
    for shape in sorted({i.shape for i in inputs}):
        which = [k for k, i in enumerate(inputs) if i.shape == shape]
        size, at = batch, 0
        while at < len(which):
            part = which[at : at + size]
            try:
                found = of(np.stack([inputs[k] for k in part]))
            except (MemoryError, RuntimeError) as error:
                # torch's OutOfMemoryError is a RuntimeError whose text alone tells.
                if len(part) == 1 or not (isinstance(error, MemoryError) or "memory" in str(error).lower()):
                    raise
                size = max(1, len(part) // 2)
                continue
            for k, row in zip(part, found):
                rows[k] = row
            at += len(part)
    return np.stack(rows)  # type: ignore[arg-type]


def unit(x: np.ndarray) -> np.ndarray:
    """(N, D) float32, each row of length 1."""
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def packed(vector: np.ndarray) -> bytes:
    """A vector (D,) as it is stored: half precision, which moves a cosine by less than 1e-3."""
    return vector.astype(np.float16).tobytes()


def unpacked(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """(M, D) float32 of length 1 of the rows that have a vector, and their numbers (M,)."""
    chunks = column.to_pylist()
    rows = np.array([i for i, v in enumerate(chunks) if v is not None], np.int64)
    if not len(rows):
        return np.zeros((0, 0), np.float32), rows
    flat = np.frombuffer(b"".join(chunks[i] for i in rows), np.float16)
    return unit(flat.reshape(len(rows), -1).astype(np.float32)), rows


def state_sha256(model: Any) -> str:
    """64 hex digits of a torch model's weights, by name and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().float().numpy()).tobytes())
    return digest.hexdigest()
