"""Raw scores of a detector and labelled pictures -> a map to scores that mean the same for every detector, with intervals.

A calibrated score is read as a threshold: of the boxes that score at least s, a share s is right (the tail, what a rule
"score > 0.9" asks for). `probability`, kept beside it, is the chance of one box at exactly that score, which is lower:
YOLOX-nano's boxes above raw 0.63 are right in 9 of 10 cases, those just at 0.63 in 6.
Legend: N boxes, K knots. Right: IoU >= 0.5 with a person that no better box has taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation.scoring import Judged
from manifests.curation import Detector
from manifests.errors import InputError
from manifests.seeds import generator

BUNDLED = Path(__file__).parent / "maps"
KNOTS = np.concatenate([[0.05], np.linspace(0.1, 0.98, 45), [0.999]])
FOLDS, RESAMPLES = 5, 400
# Fewer boxes or people than this give a map whose interval spans most of the scale.
MIN_BOXES, MIN_RIGHT = 40, 20
# Keeps two or three coefficients finite where right and wrong boxes do not overlap.
RIDGE = 0.05


@dataclasses.dataclass(frozen=True)
class Calibration:
    """``raw``, ``score``, ``low``, ``high``, ``probability``: (K,) float, rising; low and high are 95 % over pictures.

    It holds for scores of the weights of ``weights_sha256`` at ``looks`` looks at a picture.
    """

    weights_sha256: str
    looks: int
    detector: str
    family: str
    pictures: int
    people: int
    boxes: int
    raw: tuple[float, ...]
    score: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    probability: tuple[float, ...]

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """(N,) raw scores -> (N,) calibrated scores."""
        return np.interp(raw, self.raw, self.score).round(5)

    def raw_at(self, score: float) -> tuple[float, float, float]:
        """The raw score whose calibrated one is ``score``, and its 95 % interval."""
        value, low, high = (float(np.interp(score, y, self.raw)) for y in (self.score, self.high, self.low))
        return value, low, high


def fit(judged: Sequence[Judged], weights_sha256: str, detector: str, looks: int = 1, seed: int = 0) -> Calibration:
    """A map from the boxes of labelled pictures.

    Two monotone families with two and three coefficients compete in seeded five-fold cross-validation over pictures; the
    smaller wins unless the larger is better by a standard error. Raises InputError where there is too little to learn from.
    """
    boxes, right = sum(len(j.raw) for j in judged), sum(int(j.right.sum()) for j in judged)
    if boxes < MIN_BOXES or right < MIN_RIGHT:
        raise InputError(
            f"calibration of {detector}: {boxes} boxes, {right} of them right, on {len(judged)} pictures; at least "
            f"{MIN_BOXES} and {MIN_RIGHT} are needed: give more labelled photographs"
        )
    family = _chosen(judged, seed)
    score, probability = _curve(judged, family)
    draws = generator("calibration", seed, "resamples")
    again = np.array(
        [_curve([judged[i] for i in draws.integers(0, len(judged), len(judged))], family)[0] for _ in range(RESAMPLES)]
    )
    low, high = np.percentile(again, [2.5, 97.5], axis=0)

    def column(values: np.ndarray) -> tuple[float, ...]:
        return tuple(np.round(values, 5).tolist())

    return Calibration(
        weights_sha256=weights_sha256,
        looks=looks,
        detector=detector,
        family=family,
        pictures=len(judged),
        people=sum(j.people for j in judged),
        boxes=boxes,
        raw=column(KNOTS),
        score=column(score),
        low=column(np.minimum(low, score)),
        high=column(np.maximum(high, score)),
        probability=column(probability),
    )


def _chosen(judged: Sequence[Judged], seed: int) -> str:
    order = generator("calibration", seed, "folds").permutation(len(judged))
    loss: dict[str, list[np.ndarray]] = {name: [] for name in FAMILIES}
    for k in range(FOLDS):
        held = set(order[k::FOLDS].tolist())
        train = [j for i, j in enumerate(judged) if i not in held]
        x, y = _pooled([judged[i] for i in sorted(held)])
        for name in FAMILIES:
            p = _probability(x, _coefficients(*_pooled(train), name), name).clip(1e-6, 1 - 1e-6)
            loss[name].append(-(y * np.log(p) + (1 - y) * np.log(1 - p)))
    small, large = (np.concatenate(loss[name]) for name in FAMILIES)
    gain = small - large
    return list(FAMILIES)[int(gain.mean() > gain.std() / np.sqrt(len(gain)))]


def _curve(judged: Sequence[Judged], family: str) -> tuple[np.ndarray, np.ndarray]:
    """Tail share and probability at KNOTS, both (K,)."""
    x, y = _pooled(judged)
    coefficients = _coefficients(x, y, family)
    of_boxes = _probability(np.sort(x)[::-1], coefficients, family)
    above = np.searchsorted(-np.sort(x)[::-1], -KNOTS, side="right")
    total = np.concatenate([[0.0], np.cumsum(of_boxes)])
    at = _probability(KNOTS, coefficients, family)
    tail = np.where(above > 0, total[above] / np.maximum(above, 1), at)
    # A box at the knot counts as one more, so that the map goes on rising beyond the best box seen.
    tail = (tail * above + at) / (above + 1)
    return np.maximum.accumulate(tail), at


def _pooled(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([j.raw for j in judged]), np.concatenate([j.right for j in judged]).astype(float)


def _probability(raw: np.ndarray, coefficients: np.ndarray, family: str) -> np.ndarray:
    return 1 / (1 + np.exp(-FAMILIES[family](raw) @ coefficients))


def _coefficients(raw: np.ndarray, right: np.ndarray, family: str) -> np.ndarray:
    """Ridge logistic regression by Newton's method; a coefficient that would make the map fall is held at zero."""
    x = FAMILIES[family](raw)
    free = np.ones(x.shape[1], bool)
    while True:
        w = np.zeros(x.shape[1])
        ridge = np.where(np.arange(x.shape[1]) > 0, RIDGE, 1e-9)
        for _ in range(60):
            p = 1 / (1 + np.exp(-x @ w))
            slope = x.T @ (p - right) + ridge * w
            bend = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
            step = np.zeros_like(w)
            step[free] = np.linalg.solve(bend[np.ix_(free, free)], slope[free])
            w -= step.clip(-4, 4)
            if abs(step).max() < 1e-8:
                break
        falling = (w < 0) & (np.arange(len(w)) > 0)
        if not falling.any():
            return w
        free &= ~falling


def hash_of(found: Calibration) -> str:
    """16 hex digits of what the map does to scores."""
    return hashlib.sha256(json.dumps([found.raw, found.score]).encode()).hexdigest()[:16]


def save(found: Calibration, path: Path) -> None:
    """Write the map as JSON."""
    path.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")


def read(path: Path) -> Calibration:
    """The map in ``path``. Raises InputError."""
    try:
        tree = json.loads(path.read_text())
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree.items()}
        found = Calibration(**fields)
        rising = all(np.all(np.diff(v) >= 0) for v in (found.raw, found.score))
        if not rising or len(found.raw) != len(found.score) or len(found.raw) < 2:
            raise ValueError("its map does not rise")
        return found
    except OSError as error:
        raise InputError(f"calibration {path}: {error.strerror}; write one with `maquette calibrate`") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"calibration {path}: not a map of this version ({error}); run `maquette calibrate`") from None


def find(settings: Detector, root: Path, weights_sha256: str, looks: int) -> Calibration | None:
    """The map of a detector: the one its settings name, else one beside the weights, else one that came with maquette.

    Raises InputError where the named one was made for other weights, or for another number of looks at each picture.
    """
    if settings.calibration:
        found = read(root / settings.calibration)
        if found.weights_sha256 != weights_sha256:
            raise InputError(
                f"calibration {settings.calibration}: made for weights {found.weights_sha256[:12]} ({found.detector}), not "
                f"for {weights_sha256[:12]}; run `maquette calibrate` with these weights"
            )
        if found.looks != looks:
            raise InputError(
                f"calibration {settings.calibration}: made for {found.looks} looks at each picture, the detector takes "
                f"{looks}; run `maquette calibrate --looks {looks}`"
            )
        return found
    beside = root / f"{settings.weights}.calibration.json"
    for path in [beside, *sorted(BUNDLED.glob("*.json"))]:
        if path.is_file():
            found = read(path)
            if (found.weights_sha256, found.looks) == (weights_sha256, looks):
                return found
    return None


def _logit(raw: np.ndarray) -> np.ndarray:
    s = raw.clip(1e-4, 1 - 1e-4)
    return np.stack([np.ones_like(s), np.log(s / (1 - s))], axis=1)


def _beta(raw: np.ndarray) -> np.ndarray:
    s = raw.clip(1e-4, 1 - 1e-4)
    return np.stack([np.ones_like(s), np.log(s), -np.log(1 - s)], axis=1)


# Platt (1999) on the logit, and Kull, Silva Filho and Flach (2017); the smaller one first.
FAMILIES = {"logistic": _logit, "beta": _beta}
