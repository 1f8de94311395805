"""People at the origin -> a group that stands on one ground, nobody touching anybody.

Legend: V vertices, F triangles. World frame, metres, z up.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.priors import PeoplePrior
from render.scene import Mesh, PersonMesh, Strands
from render.strands import solid

# Bodies are kept apart slab by slab: outstretched arms may pass over a lower neighbour's head.
SLAB_M = 0.05
SAME_WAY_SD_DEG = 25.0


def stand_together(people: list[PersonMesh], prior: PeoplePrior, rng: np.random.Generator) -> list[PersonMesh]:
    """``people``, each at the origin facing -y -> the first left there, the others turned and set round it.

    A newcomer comes to the group's middle along a drawn direction until a vertical plane in every slab of height still
    parts it from everyone by the drawn gap: two meshes can then never cross.
    """
    placed = [people[0]]
    for person in people[1:]:
        turn = (
            rng.normal(0, np.radians(SAME_WAY_SD_DEG)) if rng.random() < prior.same_way else rng.uniform(-np.pi, np.pi)
        )
        turned = moved(person, float(turn), np.zeros(2))
        angle = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        middle = np.mean([_middle(p.mesh) for p in placed], axis=0)
        reach = np.max(_stacked([support(solid(p).mesh, direction) for p in placed]), axis=0)
        front = support(solid(turned).mesh, -direction)
        shared = min(len(reach), len(front))
        distance = float((reach[:shared] + front[:shared]).max() + rng.uniform(*prior.gap_m) - middle @ direction)
        placed.append(moved(turned, 0.0, middle + distance * direction))
    return placed


def support(mesh: Mesh, direction: np.ndarray) -> np.ndarray:
    """(S,) float64 metres: how far the mesh reaches along ``direction`` (2,) in each slab of SLAB_M from z = 0 up;
    -inf where it has nothing.
    """
    along = (mesh.vertices[:, :2].astype(np.float64) @ direction)[mesh.faces].max(axis=1)
    slab = np.floor(np.maximum(mesh.vertices[:, 2][mesh.faces], 0) / SLAB_M).astype(int)
    low, high = slab.min(axis=1), slab.max(axis=1)
    reach = np.full(high.max() + 1, -np.inf)
    # A large triangle counts whole in every slab it passes.
    for step in range(int((high - low).max()) + 1):
        passes = low + step <= high
        np.maximum.at(reach, low[passes] + step, along[passes])
    return reach


def moved(person: PersonMesh, yaw: float, offset: np.ndarray) -> PersonMesh:
    """``person`` turned by ``yaw`` radians counter-clockwise about z, then shifted by ``offset`` (2,) metres."""
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0, 0, 1.0]])
    shift = np.array([*offset, 0.0])

    def place(points: np.ndarray) -> np.ndarray:
        return np.asarray(points, np.float64) @ turn.T + shift

    def stand(mesh: Mesh) -> Mesh:
        return dataclasses.replace(
            mesh,
            vertices=place(mesh.vertices).astype(np.float32),
            corner_normals=(mesh.corner_normals @ turn.T).astype(np.float32),
        )

    def comb(strands: Strands) -> Strands:
        return dataclasses.replace(strands, points=place(strands.points).astype(np.float32), proxy=stand(strands.proxy))

    return dataclasses.replace(
        person,
        mesh=stand(person.mesh),
        strands=[comb(s) for s in person.strands],
        landmarks={k: place(v) for k, v in person.landmarks.items()},
        keypoints=None if person.keypoints is None else place(person.keypoints),
        bones=None
        if person.bones is None
        else {k: np.round(place(np.array(v)), 6).tolist() for k, v in person.bones.items()},
    )


def _middle(mesh: Mesh) -> np.ndarray:
    """(2,) middle of the mesh's box on the ground."""
    return (mesh.vertices[:, :2].min(0) + mesh.vertices[:, :2].max(0)).astype(np.float64) / 2


def _stacked(reaches: list[np.ndarray]) -> np.ndarray:
    """(P, S) with -inf above whoever is shorter."""
    size = max(map(len, reaches))
    return np.stack([np.pad(r, (0, size - len(r)), constant_values=-np.inf) for r in reaches])
