"""What a job may say about the bodies and poses of parametric people: shares, correlations, pose families, motions."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, get_args

import numpy as np
import pydantic
from pydantic import Field

from manifests.model import Model

Weight = Annotated[float, Field(ge=0)]
Bands = dict[str, Weight]
# Order matters twice: shares of sex, build and skin tone run from low to high for the correlations.
Sex = Literal["female", "male"]
Build = Literal["slim", "average", "heavy", "very_heavy"]
FaceFamily = Literal["neutral", "happy", "speech", "emotion", "habit"]
FACES: tuple[FaceFamily, ...] = get_args(FaceFamily)
SEXES: tuple[Sex, ...] = ("female", "male")
BUILDS: tuple[Build, ...] = ("slim", "average", "heavy", "very_heavy")
TONES = tuple(range(1, 11))
TRAITS = ("age_years", "sex", "build", "height", "muscle", "proportions", "skin_tone")
FAMILIES = (
    "standing",
    "walking",
    "running",
    "sitting",
    "crouching",
    "kneeling",
    "reaching",
    "sport",
    "dance",
    "gesture",
)
DECADES = {f"{a}-{a + 10}": 1.0 for a in range(0, 90, 10)}
MAX_AGE = 90.0


def bands(text: dict[str, float]) -> list[tuple[float, float, float]]:
    """{"20-30": 2, ...} -> [(from, to, share)] in rising order, shares summing to 1. Raises ValueError."""
    found = []
    for name, share in text.items():
        try:
            low, high = (float(part) for part in name.split("-"))
        except ValueError:
            raise ValueError(f"{name!r} is no band; write FROM-TO, such as 20-30") from None
        if not low < high:
            raise ValueError(f"band {name!r} ends before it begins")
        found.append((low, high, share))
    found.sort()
    if any(b[0] < a[1] for a, b in itertools.pairwise(found)):
        raise ValueError("bands may not overlap")
    total = sum(share for _, _, share in found)
    if total <= 0:
        raise ValueError("at least one band needs a share above 0")
    return [(low, high, share / total) for low, high, share in found]


class BodyPrior(Model):
    """Who is drawn: shares of each trait (normalised; uniform within a band) and how traits go together."""

    age_years: Bands = Field(DECADES, description="bands of years within 0-90: share")
    sex: dict[Sex, Weight] = Field(dict.fromkeys(SEXES, 1.0))
    build: dict[Build, Weight] = Field(
        dict.fromkeys(BUILDS, 1.0),
        description="BMI 16.5-18.5, 18.5-25, 25-30, 30-36 kg/m2; children in proportion to their age's median",
    )
    skin_tone: dict[Annotated[int, Field(ge=1, le=10)], Weight] = Field(
        dict.fromkeys(TONES, 1.0), description="Monk scale, 1 lightest: share"
    )
    height: Bands = Field({"0-1": 1.0}, description="percentile within age and sex, as bands within 0-1")
    muscle: Bands = Field({"0-1": 1.0}, description="0 slight to 1 strong; the ends of build allow less of it")
    proportions: Bands = Field({"0-1": 1.0}, description="0 ideal to 1 unusual lengths of limbs and trunk")
    ancestry: dict[Literal["african", "asian", "caucasian"], Weight] = Field(
        dict.fromkeys(("african", "asian", "caucasian"), 1.0),
        description="anny's names for three shapes of face and body: share that leads a person's mix",
    )
    correlations: dict[str, Annotated[float, Field(ge=-1, le=1)]] = Field(
        {}, description="TRAIT,TRAIT: correlation of a Gaussian copula; female < male, slim < very_heavy"
    )
    variety: float = Field(0.22, ge=0, le=0.5, description="spread of individual shapes, as a share of their extremes")
    asymmetry: float = Field(0.05, ge=0, le=0.2, description="spread of left against right, likewise")

    @pydantic.model_validator(mode="after")
    def _sound(self) -> BodyPrior:
        limits = {"age_years": MAX_AGE, "height": 1.0, "muscle": 1.0, "proportions": 1.0}
        for name, high in limits.items():
            found = bands(getattr(self, name))
            if found[0][0] < 0 or found[-1][1] > high:
                raise ValueError(f"{name}: bands lie within 0 and {high:g}")
        for name in ("sex", "build", "skin_tone", "ancestry"):
            if sum(getattr(self, name).values()) <= 0:
                raise ValueError(f"{name}: at least one share above 0")
        self.copula()
        return self

    def copula(self) -> np.ndarray:
        """(7, 7) float64 correlation matrix of TRAITS. Raises ValueError where ``correlations`` contradict each other."""
        matrix = np.eye(len(TRAITS))
        for pair, value in self.correlations.items():
            names = [part.strip() for part in pair.split(",")]
            if len(names) != 2 or names[0] == names[1] or not set(names) <= set(TRAITS):
                raise ValueError(f"correlations: {pair!r} is no pair of {', '.join(TRAITS)}")
            i, j = (TRAITS.index(name) for name in names)
            matrix[i, j] = matrix[j, i] = value
        if np.linalg.eigvalsh(matrix)[0] < -1e-9:
            raise ValueError("correlations contradict each other: no people have all of them; weaken one")
        return matrix


class PosePrior(Model):
    """How people hold themselves: shares of the library's families (normalised), and motion files beside it."""

    standing: Weight = 3.0
    walking: Weight = 2.0
    running: Weight = 1.0
    sitting: Weight = 1.0
    crouching: Weight = 1.0
    kneeling: Weight = 0.7
    reaching: Weight = 1.5
    sport: Weight = 1.5
    dance: Weight = 1.0
    gesture: Weight = 2.0
    motions: list[str] = Field(
        [], description="AMASS .npz (SMPL, SMPL-H, SMPL-X) and .bvh files or globs, relative to the job"
    )
    motion_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="share of poses taken from motions, if any"
    )
    faces: dict[FaceFamily, Weight] = Field(
        {"neutral": 2.5, "happy": 5.0, "speech": 2.0, "emotion": 1.5, "habit": 1.0},
        description="shares of families of facial expressions; one left out does not occur",
    )
    jitter_deg: float = Field(4.0, ge=0, le=15, description="standard deviation at a large joint")

    @pydantic.model_validator(mode="after")
    def _some(self) -> PosePrior:
        if sum(getattr(self, family) for family in FAMILIES) <= 0:
            raise ValueError("at least one pose family needs a share above 0")
        if sum(self.faces.values()) <= 0:
            raise ValueError("faces: at least one share above 0")
        return self
