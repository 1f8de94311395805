"""Errors of many trainings -> a power law with intervals, and what they cost. Pure arithmetic on what a sweep left on disk.

Legend: K trainings, I held-out people, R resamplings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests.job_training import Power
from manifests.seeds import generator

LEVEL = (2.5, 97.5)
# Sizes below which a floor cannot be told from a small exponent: three points fit any curve of three numbers.
SIZES_FOR_A_FLOOR = 4
FLOORS = np.linspace(0, 0.99, 100)
J_PER_WH = 3600.0


@dataclasses.dataclass(frozen=True)
class Point:
    """One training: ``samples`` rows, ``parameters`` of the model, and the error of each person, {id: (sum, pictures)}."""

    source: str
    model: str
    samples: int
    seed: int
    parameters: int
    people: dict[str, tuple[float, int]]

    @property
    def error(self) -> float:
        """Mean over pictures."""
        return sum(s for s, _ in self.people.values()) / sum(n for _, n in self.people.values())


@dataclasses.dataclass(frozen=True)
class Law:
    """error = floor + scale * samples ** -exponent; each with a 95 % interval or None, and the share of variance of the log
    that it explains.
    """

    scale: float
    exponent: float
    floor: float
    explained: float
    intervals: dict[str, list[float] | None]
    band: list[tuple[float, float, float]]

    def at(self, samples: np.ndarray) -> np.ndarray:
        """Errors (N,) at (N,) sizes."""
        return self.floor + self.scale * np.asarray(samples, float) ** -self.exponent


def law(points: Sequence[Point], resamplings: int, *key: int | str) -> Law | None:
    """The law of trainings that differ in samples and seed alone; None with fewer than two sizes.

    Intervals resample people, the same ones for all trainings since all were judged on the same pictures, and seeds within each
    size. ``band``: (samples, low, high) of the curve itself.
    """
    sizes = np.array(sorted({p.samples for p in points}))
    if len(sizes) < 2:
        return None
    names = sorted({i for p in points for i in p.people})
    sums = np.array([[p.people.get(i, (0.0, 0))[0] for i in names] for p in points])
    counts = np.array([[p.people.get(i, (0.0, 0))[1] for i in names] for p in points], float)
    of = np.array([int(np.searchsorted(sizes, p.samples)) for p in points])
    floored = len(sizes) >= SIZES_FOR_A_FLOOR

    def means(people: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        errors = sums[:, people].sum(axis=1) / np.maximum(counts[:, people].sum(axis=1), 1e-12)
        return np.array([errors[chosen[of[chosen] == k]].mean() for k in range(len(sizes))])

    everyone, every = np.arange(len(names)), np.arange(len(points))
    mean = means(everyone, every)
    scale, exponent, floor = fitted(sizes, mean, floored)
    rng = generator("scaling", *key)
    draws, curves = [], []
    grid = np.geomspace(sizes[0], sizes[-1], 24)
    for _ in range(resamplings):
        chosen = np.concatenate([rng.choice(np.flatnonzero(of == k), (of == k).sum()) for k in range(len(sizes))])
        again = means(rng.integers(len(names), size=len(names)), chosen)
        if (again > 0).all():
            draws.append(fitted(sizes, again, floored))
            curves.append(draws[-1][2] + draws[-1][0] * grid ** -draws[-1][1])
    spans: dict[str, list[float] | None] = dict.fromkeys(("scale", "exponent", "floor"))
    band: list[tuple[float, float, float]] = []
    if draws:
        low, high = np.percentile(draws, LEVEL, axis=0)
        spans = {k: [float(low[i]), float(high[i])] for i, k in enumerate(spans)}
        below, above = np.percentile(curves, LEVEL, axis=0)
        band = [(float(n), float(a), float(b)) for n, a, b in zip(grid, below, above)]
    if not floored:
        spans["floor"] = None
    left = np.log(mean) - np.log(floor + scale * sizes**-exponent)
    spread = ((np.log(mean) - np.log(mean).mean()) ** 2).sum()
    return Law(scale, exponent, floor, float(1 - (left**2).sum() / spread) if spread > 0 else 1.0, spans, band)


def fitted(samples: np.ndarray, errors: np.ndarray, floored: bool) -> tuple[float, float, float]:
    """(scale, exponent, floor): least squares of log(error - floor) on log(samples), the floor by search where asked for."""
    x = np.log(samples.astype(float))
    best = (np.inf, 0.0, 0.0, 0.0)
    for share in FLOORS if floored else FLOORS[:1]:
        floor = share * errors.min()
        slope, start = np.polyfit(x, np.log(errors - floor), 1)
        # In the errors' own logarithm: a floor near the smallest error would bend its own yardstick.
        loss = ((np.log(floor + np.exp(start + slope * x)) - np.log(errors)) ** 2).sum()
        if loss < best[0] - 1e-15:
            best = (float(loss), float(np.exp(start)), float(-slope), float(floor))
    return best[1:]


def joint(points: Sequence[Point]) -> dict[str, float] | None:
    """error = scale * samples ** -exponent * parameters ** -by_parameters over all sizes of model; None where they do not vary."""
    if len({p.parameters for p in points}) < 2 or len({p.samples for p in points}) < 2:
        return None
    table = np.array([[1.0, -np.log(p.samples), -np.log(p.parameters)] for p in points])
    found, *_ = np.linalg.lstsq(table, np.log([p.error for p in points]), rcond=None)
    return {"scale": float(np.exp(found[0])), "exponent": float(found[1]), "by_parameters": float(found[2])}


def cost(usage: Sequence[dict[str, Any]], seen: int, power: Power) -> dict[str, float]:
    """What a training took in all its attempts. ``usage``: rows of `phase`, `cpu_s`, `gpu_s`, `wall_s`; ``seen``: pictures that it
    was trained on. Hours of training and of judging, watt-hours of both, and of training for a thousand pictures.
    """

    def total(kind: str, phase: str | None = None) -> float:
        return sum(float(u[kind]) for u in usage if phase is None or u["phase"] == phase)

    def energy(phase: str | None = None) -> float:
        joules = total("cpu_s", phase) * power.cpu_core_w + total("gpu_s", phase) * power.gpu_w
        return joules * power.overhead / J_PER_WH

    thousands = max(seen, 1) / 1000
    return {
        "cpu_h": total("cpu_s") / 3600,
        "gpu_h": total("gpu_s") / 3600,
        "wall_h": total("wall_s") / 3600,
        "energy_wh": energy(),
        "cpu_s_per_thousand": total("cpu_s", "train") / thousands,
        "gpu_s_per_thousand": total("gpu_s", "train") / thousands,
        "energy_wh_per_thousand": energy("train") / thousands,
    }
