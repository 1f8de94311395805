"""A body mass index asked of anny's body -> the weight, fat and muscle that give it, from a table of measured bodies.

`python -m render.people.builds` measures the table again (about a minute). anny's weight axis alone spans a BMI of 21-25 for a
man of middling muscle; past its end, fat is laid on by local changes (FAT), and short of its beginning muscle gives way.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np

# Local changes of the fattest body of the table.
FAT = {
    "measure-waist-circ-incr": 1.0,
    "measure-hips-circ-incr": 0.8,
    "measure-bust-circ-incr": 0.6,
    "measure-underbust-circ-incr": 0.8,
    "stomach-tone-incr": -0.6,
    "head-fat-incr": 0.6,
    "neck-double-incr": 0.5,
    "buttocks-volume-incr": 0.4,
    "measure-neck-circ-incr": 0.6,
    "measure-thigh-circ-incr": 0.6,
    "measure-calf-circ-incr": 0.4,
    "measure-upperarm-circ-incr": 0.6,
    "l-upperarm-fat-incr": 0.6,
    "r-upperarm-fat-incr": 0.6,
    "l-lowerarm-fat-incr": 0.4,
    "r-lowerarm-fat-incr": 0.4,
    "l-upperleg-fat-incr": 0.6,
    "r-upperleg-fat-incr": 0.6,
    "l-lowerleg-fat-incr": 0.4,
    "r-lowerleg-fat-incr": 0.4,
    "hip-scale-depth-incr": 0.4,
    "torso-scale-depth-incr": 0.4,
}
AGES = (0.0, 0.05, 0.215, 0.415, 0.67, 1.0)
GENDERS, MUSCLES, HEIGHTS = (0.0, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0), (0.2, 0.4, 0.6)
# 0..1 is anny's weight; 1..2 lays fat on at full weight.
LOADS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
AXES = (AGES, GENDERS, MUSCLES, HEIGHTS)
TABLE = Path(__file__).with_name("builds.csv")
# kg/m3, as anny's anthropometry takes it.
DENSITY = 980.0


def invert(bmi: float, age: float, gender: float, muscle: float, height: float) -> tuple[float, float, float]:
    """(weight, fat, muscle), all in [0, 1], of the body whose BMI is ``bmi`` kg/m2 or as near as there is."""
    for less in np.linspace(muscle, 0, 6).tolist():
        curve = np.maximum.accumulate(_curve(age, gender, less, height))
        if curve[0] <= bmi <= curve[-1]:
            muscle = less
            break
    else:
        muscle = 0.0 if bmi < _curve(age, gender, 0.0, height)[0] else muscle
        curve = np.maximum.accumulate(_curve(age, gender, muscle, height))
    load = float(np.interp(bmi, curve + np.arange(len(curve)) * 1e-9, LOADS))
    return min(load, 1.0), max(load - 1.0, 0.0), muscle


def measured_bmi(rest: np.ndarray, quads: np.ndarray) -> tuple[float, float]:
    """(BMI kg/m2, height m) of a body's skin: ``rest`` (V, 3) metres standing, ``quads`` (Q, 4) outward."""
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = (rest[triangles[:, i]] for i in range(3))
    volume = abs(float(np.einsum("ij,ij->", np.cross(a, b), c)) / 6)
    height = float(np.ptp(rest[np.unique(quads), 2]))
    return volume * DENSITY / height**2, height


def _curve(age: float, gender: float, muscle: float, height: float) -> np.ndarray:
    """(7,) BMI along LOADS, linear between the bodies of the table."""
    total = np.zeros(len(LOADS))
    sides = []
    for axis, value in zip(AXES, (age, gender, muscle, height)):
        value = min(max(value, axis[0]), axis[-1])
        i = min(int(np.searchsorted(axis, value, "right")) - 1, len(axis) - 2)
        t = (value - axis[i]) / (axis[i + 1] - axis[i])
        sides.append(((i, 1 - t), (i + 1, t)))
    for corner in itertools.product(*sides):
        weight = float(np.prod([w for _, w in corner]))
        if weight:
            total += weight * _table()[tuple(i for i, _ in corner)]
    return total


@functools.cache
def _table() -> np.ndarray:
    """(ages, genders, muscles, heights, loads) BMI."""
    return np.loadtxt(TABLE, delimiter=",").reshape(*(len(axis) for axis in AXES), len(LOADS))


def measure() -> np.ndarray:
    """The table's rows: (ages * genders * muscles * heights, loads) BMI of anny's bodies, middling in all else."""
    from render.people.body import Body, groups

    body, skin = Body(), groups()["body"]
    rows = []
    for age, gender, muscle, height in itertools.product(*AXES):
        phenotype = {"age": age, "gender": gender, "muscle": muscle, "height": height}
        row = []
        for load in LOADS:
            fat = {label: max(load - 1, 0.0) * value for label, value in FAT.items()}
            rest = body.figure(phenotype | {"weight": min(load, 1.0)}, fat).rest
            row.append(measured_bmi(rest, skin)[0])
        rows.append(row)
    return np.array(rows)


if __name__ == "__main__":
    np.savetxt(TABLE, measure(), "%.3f", ",")
