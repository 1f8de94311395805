"""A generator and a job's body prior -> one body: anny's parameters, and who that is in plain terms.

Traits come from a Gaussian copula over the job's shares, so that marginals and correlations are set apart. Sources:
child growth anchors and height percentiles by age and sex are anny's own calibration to WHO tables (Apache-2.0); adult
age runs on MakeHuman's anchors (young = 25 years, old = 90). Children's body mass follows the CDC 2000 median curve.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import special

from manifests.bodies import BUILDS, SEXES, TONES, TRAITS, BodyPrior, bands
from render.people import builds

# Years -> anny's age: newborn to 16 from anny's calibration, its "young" shape to 25, its "old" shape at 90.
YEARS = (0.0, 1.0, 4.0, 11.0, 16.0, 25.0, 90.0)
ANNY_AGE = (0.0, 0.05, 0.215, 0.415, 0.67, 0.67, 1.0)
# Beta distributions of anny's height at ANNY_AGE[:5] (anny 0.6, shape_calibration): alpha, beta.
HEIGHT_BETA = {
    "male": ((21.596, 51.978, 22.147, 13.405, 16.496), (58.601, 57.36, 45.859, 22.105, 25.656)),
    "female": ((29.521, 66.282, 31.816, 21.264, 13.684), (96.722, 74.54, 59.491, 23.975, 25.748)),
}
# BMI of an adult in each build (WHO classes; 16.5 and 36 close the open ends), and the median BMI at an age (CDC 2000).
BUILD_BMI = {"slim": (16.5, 18.5), "average": (18.5, 25.0), "heavy": (25.0, 30.0), "very_heavy": (30.0, 36.0)}
MEDIAN_YEARS = (0.0, 1.0, 2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0)
MEDIAN_BMI = (13.4, 16.9, 16.4, 15.3, 15.9, 17.4, 19.3, 21.1, 22.0)
# anny's local changes that make one person unlike another; "l-" stands for a left and right pair.
FACE = [
    "l-cheek-bones-incr",
    "l-cheek-inner-incr",
    "l-cheek-volume-incr",
    "chin-bones-incr",
    "chin-height-incr",
    "chin-jaw-drop-incr",
    "chin-prominent-incr",
    "chin-width-incr",
    "chin-prognathism-incr",
    "l-ear-scale-incr",
    "l-ear-wing-incr",
    "eyebrows-angle-up",
    "eyebrows-trans-up",
    "eyebrows-trans-forward",
    "l-eye-height2-incr",
    "l-eye-scale-incr",
    "l-eye-corner1-up",
    "l-eye-corner2-up",
    "l-eye-epicanthus-out",
    "l-eye-eyefold-up",
    "l-eye-trans-out",
    "l-eye-trans-up",
    "forehead-scale-vert-incr",
    "forehead-trans-forward",
    "forehead-temple-incr",
    "head-scale-depth-incr",
    "head-scale-horiz-incr",
    "head-scale-vert-incr",
    "mouth-scale-horiz-incr",
    "mouth-lowerlip-volume-incr",
    "mouth-upperlip-volume-incr",
    "mouth-trans-up",
    "mouth-angles-up",
    "mouth-trans-forward",
    "mouth-trans-out",
    "nose-scale-vert-incr",
    "nose-scale-horiz-incr",
    "nose-scale-depth-incr",
    "nose-hump-incr",
    "nose-point-up",
    "nose-point-width-incr",
    "nose-flaring-incr",
    "nose-trans-up",
    "nose-volume-incr",
    "nose-nostrils-width-incr",
    "nose-trans-out",
]
LIMBS = [
    "measure-shoulder-dist-incr",
    "torso-vshape-incr",
    "hip-scale-horiz-incr",
    "measure-waisttohip-dist-incr",
    "torso-scale-vert-incr",
    "measure-upperleg-height-incr",
    "measure-lowerleg-height-incr",
    "measure-upperarm-length-incr",
    "measure-lowerarm-length-incr",
    "neck-scale-vert-incr",
    "l-foot-scale-incr",
    "l-hand-scale-incr",
    "l-upperarm-muscle-incr",
    "l-lowerleg-muscle-incr",
]
# Share of anny's "caucasian" from which hair and eyes may be light.
EUROPEAN = 0.45
# How far an individual's limbs go, against the face's.
LIMB_SPREAD, SIDED_LIMIT = 0.35, 0.75
WRINKLES = "head-age-incr"
# From anny's mean face to people's: its eyes are open 8.6 mm (10 to 11 are usual), its lower face is an eighth too short and
# its nose too long for it. By least squares towards seven measures of adults (tests/test_bodies.py), then halved where
# single faces became odd. The jaw is wider than anny's by what photographs show (benchmarks/face_average.py).
MEAN = {
    "chin-bones-incr": 0.2,
    "chin-height-incr": 0.2,
    "l-eye-height2-incr": 0.3,
    "l-eye-scale-incr": 0.15,
    "l-eye-trans-out": 0.12,
    "mouth-trans-up": -0.22,
    "nose-scale-vert-incr": -0.3,
    "nose-trans-up": 0.3,
}
# What sets a child's face apart, whole at birth and gone at GROWN_YEARS: eyes are nearly grown while nose, chin and brow
# ridge are not, and cheeks are full. anny's own ages leave adult features on a small head.
GROWN_YEARS = 16.0
CHILD = {
    "l-eye-scale-incr": 0.35,
    "l-eye-height2-incr": 0.15,
    "l-cheek-volume-incr": 0.5,
    "l-cheek-inner-incr": 0.3,
    "l-cheek-bones-incr": -0.3,
    "chin-height-incr": -0.6,
    "chin-prominent-incr": -0.3,
    "chin-bones-incr": -0.5,
    "chin-jaw-drop-incr": -0.4,
    "chin-width-incr": -0.3,
    "nose-scale-vert-incr": -0.2,
    "nose-scale-horiz-incr": -0.2,
    "nose-scale-depth-incr": -0.5,
    "nose-hump-incr": -0.5,
    "nose-point-up": 0.5,
    "nose-volume-incr": -0.3,
    "forehead-trans-forward": 0.3,
    "eyebrows-trans-forward": -0.4,
    "mouth-scale-horiz-incr": -0.3,
    "neck-scale-vert-incr": -0.4,
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """``phenotype``: anny's labels in [0, 1] (gender 0 is male, 1 female). ``changes``: anny's local changes in [-1, 1].

    ``bmi`` is asked of the body in kg/m2; ``skin_tone`` is the Monk scale's 1..10.
    """

    phenotype: dict[str, float]
    changes: dict[str, float]
    age_years: float
    sex: str
    build: str
    bmi: float
    skin_tone: int

    def face(self) -> dict[str, float]:
        """The local changes of the face, both sides' mean, to a hundredth: what a row says of it."""
        return {
            label.removeprefix("l-").removesuffix("-incr"): round(
                sum(self.changes[name] for name in _sides(label)) / len(_sides(label)), 2
            )
            for label in FACE
        }


def draw_shape(rng: np.random.Generator, prior: BodyPrior) -> Shape:
    """One body of ``prior``'s people."""
    u = special.ndtr(_root(prior) @ rng.standard_normal(len(TRAITS)))
    at = dict(zip(TRAITS, u.tolist()))
    years = _in_bands(prior.age_years, at["age_years"])
    sex, _ = _pick(_ordered(prior.sex, SEXES), at["sex"])
    build, within = _pick(_ordered(prior.build, BUILDS), at["build"])
    tone, _ = _pick(_ordered(prior.skin_tone, TONES), at["skin_tone"])
    low, high = BUILD_BMI[build]
    bmi = (low + (high - low) * within) * float(np.interp(years, MEDIAN_YEARS, MEDIAN_BMI)) / MEDIAN_BMI[-1]
    age = float(np.interp(years, YEARS, ANNY_AGE))
    height = percentile_height(age, sex, _in_bands(prior.height, at["height"]))
    muscle = _in_bands(prior.muscle, at["muscle"])
    gender = float(rng.uniform(0, 0.08))
    gender = 1 - gender if sex == "female" else gender
    weight, fat, muscle = builds.invert(bmi, age, gender, muscle, height)
    lead = _pick(dict(prior.ancestry), float(rng.random()))[0]
    mix = dict(zip(("african", "asian", "caucasian"), (0.45 * rng.dirichlet(np.ones(3))).tolist()))
    mix[lead] += 0.55
    phenotype = {
        "age": age,
        "gender": gender,
        "muscle": muscle,
        "weight": weight,
        "height": height,
        "proportions": _in_bands(prior.proportions, at["proportions"]),
        "cupsize": float(rng.beta(2, 2) * np.clip((years - 9) / 8, 0, 1)),
        "firmness": float(np.clip(rng.normal(0.75 - years / 150, 0.12), 0, 1)),
        **mix,
    }
    changes = {label: fat * value for label, value in builds.FAT.items()}
    for label, value in _individual(rng, prior, years).items():
        changes[label] = changes.get(label, 0.0) + value
    changes[WRINKLES] = float(np.clip((years - 35) / 60, 0, 0.8))
    return Shape(phenotype, changes, years, sex, str(build), bmi, int(tone))


def percentile_height(age: float, sex: str, percentile: float) -> float:
    """anny's height in [0, 1] at a percentile of its calibration for anny's ``age`` and ``sex``."""
    alpha, beta = (float(np.interp(age, ANNY_AGE[:5], row)) for row in HEIGHT_BETA[sex])
    # The outermost half percent would be people outside any asset's height gate.
    return float(special.betaincinv(alpha, beta, np.clip(percentile, 0.005, 0.995)))


def labels() -> list[str]:
    """Every local change that a drawn body may use, in a fixed order."""
    return sorted({WRINKLES, *builds.FAT, *(name for label in FACE + LIMBS for name in _sides(label))})


def _individual(rng: np.random.Generator, prior: BodyPrior, years: float) -> dict[str, float]:
    """Local changes of one individual: normal, both sides alike but for the asymmetry; children's faces differ less."""
    young = float(np.clip(1 - years / GROWN_YEARS, 0, 1))
    spread = np.repeat([1.0 - 0.5 * young, LIMB_SPREAD], [len(FACE), len(LIMBS)]) * prior.variety
    mean = np.array([MEAN.get(k, 0.0) + young * CHILD.get(k, 0.0) for k in FACE + LIMBS])
    common = rng.standard_normal(len(spread)) * spread + mean
    apart = rng.standard_normal(len(spread)) * prior.asymmetry
    found = {}
    for label, value, half in zip(FACE + LIMBS, common.tolist(), apart.tolist()):
        if label.endswith("trans-out") and not label.startswith("l-"):
            # These move an unpaired part to one side: nothing but asymmetry.
            value = half
        for sign, name in zip((1, -1), _sides(label)):
            each = value + sign * half if label.startswith("l-") else value
            found[name] = float(np.clip(each, -SIDED_LIMIT, SIDED_LIMIT))
    return found


def _sides(label: str) -> tuple[str, ...]:
    return (label, "r" + label[1:]) if label.startswith("l-") else (label,)


def _root(prior: BodyPrior) -> np.ndarray:
    """(7, 7) float64 root of the copula's matrix, singular ones included."""
    if not prior.correlations:
        return np.eye(len(TRAITS))
    values, vectors = np.linalg.eigh(prior.copula())
    return vectors * np.sqrt(np.maximum(values, 0))


def _in_bands(text: dict[str, float], u: float) -> float:
    """The value at quantile ``u`` of a histogram of bands."""
    found = bands(text)
    shares = np.array([share for _, _, share in found])
    edges = np.concatenate([[0.0], np.cumsum(shares)])
    i = int(np.clip(np.searchsorted(edges, u, "right") - 1, 0, len(found) - 1))
    low, high, share = found[i]
    return low + (high - low) * float(np.clip((u - edges[i]) / share, 0, 1)) if share else low


def _ordered(shares: dict[Any, float], names: tuple[Any, ...]) -> dict[Any, float]:
    """Shares in the order that correlations count in, whatever order the job wrote them in."""
    return {name: shares.get(name, 0.0) for name in names}


def _pick(shares: dict[Any, float], u: float) -> tuple[Any, float]:
    """The key at quantile ``u``, and how far inside its share that is, 0..1."""
    names = [name for name, share in shares.items() if share > 0]
    weights = np.array([shares[name] for name in names])
    edges = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
    i = int(np.clip(np.searchsorted(edges, u, "right") - 1, 0, len(names) - 1))
    return names[i], float(np.clip((u - edges[i]) / (edges[i + 1] - edges[i]), 0, 1))
