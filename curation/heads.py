"""An embedding or a picture -> a score: NSFW, aesthetic, realism, artistic, watermark; and a trainer for such heads.

A linear head is a chain of linear layers without anything between them, as LAION's aesthetic predictors are; one that ends
in several classes names them. Its file says which embedding it was fitted on, and others are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation.embedding import in_batches, loaded, state_sha256
from manifests.curation import Head
from manifests.errors import InputError
from manifests.seeds import generator

FOLDS = 5
LEAST = 8
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class LinearHead:
    """Scores unit embeddings (N, D); ``probability``: whether its output is a share (a fitted head) or a bare scale."""

    def __init__(self, settings: Head, root: Path, embedding_sha256: str) -> None:
        path = root / settings.weights
        arrays, said = _arrays(path)
        self.name, self.weights_sha256 = f"linear {path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
        wanted = said.get("embedding_sha256")
        if wanted and wanted != embedding_sha256:
            raise InputError(
                f"curate.heads: {path}: fitted on the embedding {said.get('embedding', '')} ({wanted[:12]}), the job's is "
                f"{embedding_sha256[:12]}; fit one with `maquette head`, or give the job that embedding"
            )
        names = sorted((n for n in arrays if n.endswith("weight") and arrays[n].ndim == 2), key=_order)
        self._layers = [(arrays[n].T, arrays.get(n.removesuffix("weight") + "bias", np.zeros(1))) for n in names]
        if not self._layers:
            raise InputError(f"curate.heads: {path}: holds no linear layer (names that end in `weight`, two axes)")
        self._labels: list[str] = said.get("labels", [])
        self._counted = [i for i, n in enumerate(self._labels) if n in (settings.labels or said.get("counted", []))]
        if self._labels and not self._counted:
            raise InputError(f"curate.heads: {path}: give `labels`, of {', '.join(self._labels)}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(N,) float."""
        width = self._layers[0][0].shape[0]
        if x.shape[1] != width:
            raise InputError(
                f"curate.heads: {self.name} wants embeddings of {width} numbers, the job's have {x.shape[1]}"
            )
        for weight, bias in self._layers:
            x = x @ weight + bias
        if not self._labels:
            return x[:, 0]
        odds = np.exp(x - x.max(axis=1, keepdims=True))
        share: np.ndarray = (odds / odds.sum(axis=1, keepdims=True))[:, self._counted].sum(axis=1)
        return share


class Classifier:
    """A transformers image classifier: the share of the labels that count."""

    def __init__(self, settings: Head, root: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._processor, model, where, self._device = loaded(
            settings, root, "heads", AutoImageProcessor, AutoModelForImageClassification
        )
        wanted = {n.lower() for n in settings.labels}
        self._counted = [int(i) for i, n in model.config.id2label.items() if str(n).lower() in wanted]
        if not self._counted:
            known = ", ".join(map(str, model.config.id2label.values()))
            raise InputError(f"curate.heads: {where}: none of its labels ({known}) is {' or '.join(sorted(wanted))}")
        self.name, self.weights_sha256 = f"classifier {Path(where).name}", state_sha256(model)
        self._model, self._batch, self._torch = model, settings.batch, torch

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """What waits of a picture (H, W, 3) uint8."""
        return np.asarray(self._processor(images=rgb, return_tensors="np")["pixel_values"][0], np.float32)

    def __call__(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """(B,) float."""

        def of(blob: np.ndarray) -> np.ndarray:
            with self._torch.inference_mode():
                logits = self._model(pixel_values=self._torch.from_numpy(blob).to(self._device)).logits.float()
            share = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
            return np.asarray(share[:, self._counted].sum(dim=1, keepdim=True).cpu().numpy())

        return in_batches(inputs, self._batch, of)[:, 0]


def fit(x: np.ndarray, labels: Sequence[str], seed: int = 0) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """A head of several classes from unit embeddings ``x`` (N, D), and (label, right, of) of each class, held out.

    Multinomial logistic regression (scikit-learn's L-BFGS); the ridge is chosen, and the rates are made, by seeded folds.
    Raises InputError where a class has fewer than LEAST pictures.
    """
    from sklearn.linear_model import LogisticRegression

    names = sorted(set(labels))
    y = np.array([names.index(n) for n in labels])
    counts = np.bincount(y, minlength=len(names))
    if len(names) < 2 or counts.min() < LEAST:
        said = ", ".join(f"{n} {c}" for n, c in zip(names, counts))
        raise InputError(
            f"head: two or more classes of at least {LEAST} pictures each are needed, got {said or 'none'}"
        )
    # Sorted by content, so that the order of files says nothing.
    order = np.lexsort(x.T[:8])
    x, y = x[order], y[order]
    fold = np.empty(len(y), int)
    for k in range(len(names)):
        own = np.flatnonzero(y == k)
        fold[generator("head", seed, k).permutation(own)] = np.arange(len(own)) % FOLDS

    def model(ridge: float) -> Any:
        return LogisticRegression(C=1 / ridge, class_weight="balanced", max_iter=2000)

    guesses = {r: np.concatenate([model(r).fit(x[fold != f], y[fold != f]).predict(x[fold == f]) for f in range(FOLDS)])
               for r in RIDGES}  # fmt: skip
    truth = np.concatenate([y[fold == f] for f in range(FOLDS)])
    best = max(RIDGES, key=lambda r: ((guesses[r] == truth).mean(), r))
    whole = model(best).fit(x, y)
    weight, bias = whole.coef_, whole.intercept_
    if len(names) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    rates = [
        (n, int(((guesses[best] == k) & (truth == k)).sum()), int((truth == k).sum())) for k, n in enumerate(names)
    ]
    return {"labels": names, "weight": weight.tolist(), "bias": bias.tolist(), "ridge": best}, rates


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name and what the file says of itself. Raises InputError."""
    try:
        if path.suffix == ".json":
            tree = json.loads(path.read_text())
            return {k: np.array(tree[k], np.float64) for k in ("weight", "bias")}, tree
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return {k: np.asarray(v, np.float64) for k, v in load_file(path).items()}, {}
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        return {k: np.asarray(v.numpy(), np.float64) for k, v in state.items()}, {}
    except OSError as error:
        raise InputError(f"curate.heads: {path}: {error.strerror or 'no such file'}") from None
    except Exception as error:  # noqa: BLE001 - torch, pickle and safetensors share no base; each means the same
        raise InputError(f"curate.heads: {path}: not a head ({str(error).splitlines()[0][:160]})") from None


def _order(name: str) -> tuple[Any, ...]:
    """`layers.10.weight` after `layers.2.weight`."""
    return tuple(int(p) if p.isdigit() else -1 for p in name.split("."))
