"""A sample's generator -> joint rotations of a natural standing or walking pose.

Rotations are vectors in radians about the world axes of the A-pose (x to the person's left, -y forward, z up).
"""

from __future__ import annotations

import numpy as np

SIDES = (("L", 1.0), ("R", -1.0))
FINGERS = [f"finger{i}-{j}" for i in range(2, 6) for j in (1, 2, 3)]


def draw_pose(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """bone -> (3,) rotation vector: a gait phase, hanging or bent arms, a turn of trunk and head, half-closed hands."""
    deg = np.radians
    stride = deg(rng.uniform(0, 26)) * rng.choice([0.15, 1.0])
    rotations: dict[str, np.ndarray] = {}
    turn = deg(rng.normal(0, 7))
    lean = deg(rng.normal(2, 3))
    for bone in ("spine04", "spine03", "spine02"):
        rotations[bone] = np.array([lean / 3, deg(rng.normal(0, 1.5)), turn / 3])
    for bone in ("neck01", "head"):
        rotations[bone] = np.array([deg(rng.normal(1, 5)), deg(rng.normal(0, 4)), deg(rng.normal(0, 11))])
    first = rng.choice([1.0, -1.0])
    for side, sign in SIDES:
        swing = first * sign * stride
        rotations[f"upperleg01.{side}"] = np.array([-swing, -sign * deg(rng.uniform(0, 3)), 0.0])
        rotations[f"lowerleg01.{side}"] = np.array([deg(rng.uniform(1, 6)) + max(-swing, 0) * 1.1, 0.0, 0.0])
        rotations[f"foot.{side}"] = np.array([min(swing, 0.0) * -0.4, 0.0, 0.0])
        lowered = deg(rng.uniform(24, 38))
        raised = rng.random() < 0.15
        if raised:
            lowered = deg(rng.uniform(-25, 5))
        forward = -deg(rng.normal(6, 8)) + 0.8 * swing
        rotations[f"upperarm01.{side}"] = np.array([forward, sign * lowered, 0.0])
        bend = deg(rng.uniform(35, 95) if raised or rng.random() < 0.25 else rng.uniform(2, 18))
        rotations[f"lowerarm01.{side}"] = np.array([-bend, 0.0, -sign * bend * 0.25])
        curl = deg(rng.uniform(4, 24))
        for finger in FINGERS:
            rotations[f"{finger}.{side}"] = np.array([0.0, sign * curl, 0.0])
    return rotations
