"""People with strands -> the same people with fewer and thicker strands, or with a smooth surface in their place.

Legend: N strands, K points of each, V vertices, F triangles. World frame, metres.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.frames import to_camera
from render.scene import Camera, Mesh, PersonMesh, Strands

# A strand is drawn no thinner than this in the picture; where all of them would be, fewer and thicker ones cover the same.
LEAST_PX = 0.22
# One strand stands for at most this many.
MOST = 16
NEAREST_M = 0.05


def solid(person: PersonMesh) -> PersonMesh:
    """``person`` with each set of strands replaced by its proxy."""
    if not person.strands:
        return person
    return dataclasses.replace(person, mesh=joined([person.mesh, *(s.proxy for s in person.strands)]), strands=[])


def joined(meshes: list[Mesh]) -> Mesh:
    """One mesh of all triangles; corners without uv get (0, 0). None of them carries colours by corner."""
    first = np.cumsum([0] + [len(m.vertices) for m in meshes])
    kinds = np.cumsum([0] + [len(m.materials) for m in meshes])
    stack = np.concatenate
    return Mesh(
        vertices=stack([m.vertices for m in meshes]),
        faces=stack([m.faces + f for m, f in zip(meshes, first)]).astype(np.int32),
        corner_normals=stack([m.corner_normals for m in meshes]),
        material_index=stack([m.material_index + k for m, k in zip(meshes, kinds)]).astype(np.int32),
        materials=[material for m in meshes for material in m.materials],
        uv=stack([np.zeros((len(m.faces), 3, 2), np.float32) if m.uv is None else m.uv for m in meshes]),
        part=None if meshes[0].part is None else stack([m.part for m in meshes if m.part is not None]),
    )


def shifted(strands: Strands, shift: np.ndarray) -> Strands:
    """``strands`` moved by ``shift`` (3,) metres."""
    proxy = dataclasses.replace(strands.proxy, vertices=(strands.proxy.vertices + shift).astype(np.float32))
    return dataclasses.replace(strands, points=(strands.points + shift).astype(np.float32), proxy=proxy)


def outline(person: PersonMesh) -> np.ndarray:
    """(M, 3) float64: every point that the person's surface lies near."""
    return np.concatenate([person.mesh.vertices, *(s.points.reshape(-1, 3) for s in person.strands)]).astype(np.float64)


def merging(people: list[PersonMesh], camera: Camera) -> tuple[tuple[int, ...], ...]:
    """Per person and set of strands: how many strands, a power of 2, one may stand for in ``camera``'s picture."""
    return tuple(tuple(_merging(s, camera) for s in p.strands) for p in people)


def merged(people: list[PersonMesh], times: tuple[tuple[int, ...], ...]) -> list[PersonMesh]:
    """``people`` with one strand, as much thicker as covers what they all did, in the place of ``times``."""
    return [
        dataclasses.replace(p, strands=[_fewer(s, n) for s, n in zip(p.strands, counts)])
        for p, counts in zip(people, times)
    ]


def _merging(strands: Strands, camera: Camera) -> int:
    points = to_camera(strands.points[::8, 0].astype(np.float64), camera.world_to_camera)
    near = np.median(points[:, 2]) if len(points) else np.inf
    if near < NEAREST_M:
        return 1
    width_px = 2 * float(np.median(strands.radius)) * camera.K[0, 0] / near
    return int(2 ** np.floor(np.log2(np.clip(LEAST_PX / max(width_px, 1e-9), 1, MOST))))


def _fewer(strands: Strands, times: int) -> Strands:
    if times == 1:
        return strands
    count = -(-len(strands.points) // times)
    # One strand has the colour of all it stands for: salt and pepper stays grey from afar.
    color = np.resize(strands.color, (times, count, 3)).mean(axis=0).astype(np.float32)
    # As much thicker as covers what all of them do, whichever stay.
    areas = strands.radius[:, 1:] * np.linalg.norm(np.diff(strands.points, axis=1), axis=2)
    thicker = np.clip(areas.sum() / max(float(areas[:count].sum()), 1e-12), 1, 2 * times)
    return dataclasses.replace(
        strands, points=strands.points[:count], radius=strands.radius[:count] * np.float32(thicker), color=color
    )
