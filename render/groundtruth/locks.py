"""People's strands and rays -> the strand that each ray meets first, and the normal of its volume there.

Legend: N rays, S strands of all sets. Camera frame: OpenCV, metres.
"""

from __future__ import annotations

import functools

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from scipy.spatial import cKDTree

from manifests.frames import camera_centre, to_camera
from render.groundtruth.fibres import Fibres
from render.scene import PersonMesh, Strands

# A ray that meets the proxy only so far behind a strand tells nothing of it: the strand strays outside the volume.
STRAY_M = 0.03
# Least cosine between a strand's normal and the way to the camera.
EDGE = 0.02


class Locks:
    """All strands of one frame. ``person``: (S,) whose each is; ``part``: (S,) uint8 class; ``color``: (S, 3) linear RGB."""

    def __init__(self, people: list[PersonMesh], world_to_camera: np.ndarray) -> None:
        self.sets = [s for p in people for s in p.strands]
        counts = [len(s.points) for s in self.sets]
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        whose = [i for i, p in enumerate(people) for _ in p.strands]
        self.person = np.repeat(np.array(whose, int), counts)
        self.part = np.repeat(np.array([s.part for s in self.sets], np.uint8), counts)
        self.color = np.concatenate([np.zeros((0, 3)), *(s.color for s in self.sets)])
        self._pose = world_to_camera
        self._proxies: dict[int, tuple[EmbreeScene, np.ndarray, np.ndarray]] = {}

    def first_hits(self, directions: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 first strand on each ray from the camera before ``limit``, or -1, and (N,) float64 planar
        z. ``directions``: (N, 3) camera frame with z = 1. ``limit``: (N,) planar z.
        """
        found, z = np.full(len(directions), -1), np.asarray(limit, np.float64).copy()
        # Curves stay in the world's frame, so that one scene of them serves all views.
        eye, turned = camera_centre(self._pose), directions @ self._pose[:3, :3]
        for i, strands in enumerate(self.sets):
            on = self._near(strands, directions)
            strand, at = _curves(strands).first_hits(eye, turned[on], z[on])
            met = on[strand >= 0]
            found[met], z[met] = self._first[i] + strand[strand >= 0], at[strand >= 0]
        return found, np.where(found >= 0, z, 0.0)

    def covered(self, directions: np.ndarray) -> np.ndarray:
        """(N,) bool: whether rays from the camera along ``directions`` (N, 3) meet any strand."""
        found = np.zeros(len(directions), bool)
        eye, turned = camera_centre(self._pose), directions @ self._pose[:3, :3]
        for strands in self.sets:
            on = self._near(strands, directions)
            on = on[~found[on]]
            found[on] = _curves(strands).covered(eye, turned[on])
        return found

    def normals(self, which: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(N, 3) float64 unit normals, camera frame, towards the camera, of strands ``which`` (N,) at ``points`` (N, 3)."""
        out = np.zeros((len(which), 3))
        of = np.searchsorted(self._first, which, "right") - 1
        for i in np.unique(of):
            mine = np.flatnonzero(of == i)
            out[mine] = self._on_proxy(int(i), points[mine])
        length = np.linalg.norm(out, axis=1, keepdims=True)
        toward = -points / np.linalg.norm(points, axis=1, keepdims=True)
        out = np.where(length > 1e-9, out / np.maximum(length, 1e-9), toward)
        # The edge of a volume is seen from the side: what leans away is brought back to the edge, and never turned round.
        out = out + np.maximum(EDGE - np.einsum("nc,nc->n", out, toward), 0)[:, None] * toward
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def _near(self, strands: Strands, directions: np.ndarray) -> np.ndarray:
        """Indices of the rays that pass a box round the set."""
        corners = to_camera(_box(strands), self._pose)
        if (corners[:, 2] < 0.05).any():
            return np.arange(len(directions))
        uv = corners[:, :2] / corners[:, 2:]
        return np.flatnonzero(((directions[:, :2] >= uv.min(0)) & (directions[:, :2] <= uv.max(0))).all(axis=1))

    def _on_proxy(self, i: int, points: np.ndarray) -> np.ndarray:
        """Interpolated where the ray to a point enters the proxy; else the mean of the proxy's nearest ones."""
        mesh, directions = self.sets[i].proxy, points / points[:, 2:]
        if i not in self._proxies:
            corners = to_camera(mesh.vertices.astype(np.float64), self._pose)[mesh.faces]
            scene = EmbreeScene()
            TriangleMesh(scene, np.ascontiguousarray(corners, np.float32))
            self._proxies[i] = scene, corners, mesh.corner_normals.astype(np.float64) @ self._pose[:3, :3].T
        scene, corners, corner_normals = self._proxies[i]
        hit = scene.run(np.zeros_like(directions, np.float32), directions.astype(np.float32), output=True)
        face, z = hit["primID"].astype(np.int64), hit["tfar"].astype(np.float64)
        weights = np.stack([1 - hit["u"] - hit["v"], hit["u"], hit["v"]], axis=1)
        normals = np.einsum("nk,nkc->nc", weights, corner_normals[np.maximum(face, 0)])
        stray = (face < 0) | (z > points[:, 2] + STRAY_M)
        if stray.any():
            # Of many, so that neighbours have nearly the same: each triangle counts its corners for itself.
            nearest = (
                cKDTree(corners.mean(axis=1)).query(points[stray], k=min(24, len(corners)))[1].reshape(stray.sum(), -1)
            )
            normals[stray] = corner_normals.mean(axis=1)[nearest].mean(axis=1)
        return normals


@functools.lru_cache(maxsize=16)
def _curves(strands: Strands) -> Fibres:
    return Fibres(strands.points, strands.radius)


@functools.lru_cache(maxsize=16)
def _box(strands: Strands) -> np.ndarray:
    """(8, 3) corners. A Catmull-Rom curve may pass its points by a quarter of their distance."""
    flat = strands.points.reshape(-1, 3).astype(np.float64)
    ends = np.stack([flat.min(0) - 0.01, flat.max(0) + 0.01])
    return np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
