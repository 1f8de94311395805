"""A few numbers about a picture -> a score in 0..1, by a small boosted ensemble of trees that is kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import InputError

# Not beside the detectors' maps, where every file is one.
BUNDLED = Path(__file__).parent / "evidence"


@dataclasses.dataclass(frozen=True)
class Trees:
    """T trees of D levels, complete: node k has the children 2k + 1 and 2k + 2; ``value`` holds what a leaf adds.

    ``feature`` (T, 2^D - 1) int, ``threshold`` (T, 2^D - 1) float, ``value`` (T, 2^D) float, ``start``: log odds.
    """

    names: tuple[str, ...]
    start: float
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(N,) scores of features ``x`` (N, F), in the order of ``names``."""
        total = np.full(len(x), self.start)
        depth = int(np.log2(self.value.shape[1]))
        rows = np.arange(len(x))
        for feature, threshold, value in zip(self.feature, self.threshold, self.value):
            node = np.zeros(len(x), np.int64)
            for _ in range(depth):
                node = 2 * node + 1 + (x[rows, feature[node]] > threshold[node])
            total += value[node - self.feature.shape[1]]
        return 1 / (1 + np.exp(-total.clip(-30, 30)))


def load(path: Path) -> Trees:
    """The ensemble in ``path``. Raises InputError."""
    try:
        tree = json.loads(path.read_text())
        return Trees(
            tuple(tree["names"]),
            float(tree["start"]),
            np.array(tree["feature"], np.int64),
            np.array(tree["threshold"], np.float64),
            np.array(tree["value"], np.float64),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a tree ensemble of this version ({error!r})") from None


def save(trees: Trees, path: Path) -> None:
    """Write as JSON, rounded to what single precision keeps of thresholds."""
    tree: dict[str, Any] = {
        "names": list(trees.names),
        "start": round(trees.start, 6),
        "feature": trees.feature.tolist(),
        "threshold": [[float(f"{v:.6g}") for v in row] for row in trees.threshold],
        "value": [[float(f"{v:.5g}") for v in row] for row in trees.value],
    }
    path.write_text(json.dumps(tree, separators=(",", ":")) + "\n")


def fit(x: np.ndarray, y: np.ndarray, names: tuple[str, ...], count: int, weight: np.ndarray | None = None) -> Trees:
    """Gradient boosting (Friedman 2001, through scikit-learn) of ``count`` trees of three levels.

    ``x`` (N, F), ``y`` (N,) bool, ``weight`` (N,). The same input gives the same trees.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(
        n_estimators=count,
        max_depth=3,
        learning_rate=0.05,
        min_samples_leaf=30,
        max_features=5,
        subsample=0.5,
        random_state=0,
    )
    model.fit(x, y, sample_weight=weight)
    rate = float(np.average(y, weights=weight))
    nodes, leaves = 7, 8
    feature, threshold = np.zeros((count, nodes), np.int64), np.full((count, nodes), np.inf)
    value = np.zeros((count, leaves))
    for t, (tree,) in enumerate(model.estimators_):
        _spread(tree.tree_, 0, 0, (feature[t], threshold[t], value[t]))
    value *= model.learning_rate
    # JSON has no infinity; no feature here comes near this.
    return Trees(names, float(np.log(rate / (1 - rate))), feature, np.minimum(threshold, 1e30), value)


def _spread(tree: Any, node: int, at: int, out: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Copy sklearn's ``node`` to place ``at`` of a complete tree; a leaf above the last level fills all below it."""
    feature, threshold, value = out
    if at >= len(feature):
        value[at - len(feature)] = tree.value[node][0][0]
        return
    left, right = tree.children_left[node], tree.children_right[node]
    if left < 0:
        left = right = node
    else:
        feature[at], threshold[at] = tree.feature[node], tree.threshold[node]
    _spread(tree, left, 2 * at + 1, out)
    _spread(tree, right, 2 * at + 2, out)
