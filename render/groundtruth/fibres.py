"""Strands and rays -> the first strand each ray meets and where, by Embree's round Catmull-Rom curves.

Cycles hands its thick curves to Embree as the same primitive with the same doubled ends, so the two engines differ by
float rounding alone. embreex wraps triangles only: the curves go through the C interface of the library that it ships.
Legend: N rays, S strands, K points of each.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import embreex.rtcore_scene
import numpy as np

# Values of Embree 4's enums (rtcore_geometry.h, rtcore_buffer.h, rtcore_scene.h).
ROUND_CATMULL_ROM, INDEX_BUFFER, VERTEX_BUFFER, UINT, FLOAT4, ROBUST = 58, 0, 1, 0x5001, 0x9004, 4
PACKET = 16
# Rows of RTCRayHit16, each of 16 values of 4 bytes, and those that are set or read here.
RAY_ROWS = 12
ROWS, ORG, TNEAR, DIR, TFAR, MASK, PRIM, GEOM = 21, slice(0, 3), 3, slice(4, 7), 8, 9, 17, 18
MISS = 0xFFFFFFFF
NEAREST_M = 1e-4


class Fibres:
    """One set of strands as an Embree scene in the frame of its points."""

    def __init__(self, points: np.ndarray, radius: np.ndarray) -> None:
        """``points``: (S, K, 3) metres, K >= 2. ``radius``: (S, K) metres."""
        library, device = _embree()
        count, k = points.shape[:2]
        self._library, self._segments = library, k - 1
        # The first and the last point stand twice, as in Cycles: a Catmull-Rom segment needs a neighbour on either side.
        ring = np.concatenate([[0], np.arange(k), [k - 1]])
        # Embree reads 16 bytes past the end of what it is lent.
        self._vertices = np.zeros((count * (k + 2) + 1, 4), np.float32)
        self._vertices[:-1, :3] = points[:, ring].reshape(-1, 3)
        self._vertices[:-1, 3] = radius[:, ring].ravel()
        first = np.arange(count)[:, None] * (k + 2) + np.arange(k - 1)
        self._index = np.append(first.ravel(), 0).astype(np.uint32)
        self._scene = library.rtcNewScene(device)
        library.rtcSetSceneFlags(self._scene, ROBUST)
        geometry = library.rtcNewGeometry(device, ROUND_CATMULL_ROM)
        share = library.rtcSetSharedGeometryBuffer
        share(geometry, INDEX_BUFFER, 0, UINT, self._index.ctypes.data, 0, 4, count * (k - 1))
        share(geometry, VERTEX_BUFFER, 0, FLOAT4, self._vertices.ctypes.data, 0, 16, count * (k + 2))
        library.rtcCommitGeometry(geometry)
        library.rtcAttachGeometry(self._scene, geometry)
        library.rtcReleaseGeometry(geometry)
        library.rtcCommitScene(self._scene)
        if library.rtcGetDeviceError(device):
            raise MemoryError("Embree could not build the strands")

    def __del__(self) -> None:
        self._library.rtcReleaseScene(self._scene)

    def covered(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) bool: whether a ray from ``origin`` (3,) along ``directions`` (N, 3) meets any strand."""
        rays = _packets(origin, directions, np.full(len(directions), np.inf), RAY_ROWS)
        self._each(rays, self._library.rtcOccluded16)
        # A ray that is stopped comes back with an end before its start.
        return rays[:, TFAR].reshape(-1)[: len(directions)] < 0

    def first_hits(
        self, origin: np.ndarray, directions: np.ndarray, limit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The first strand on each ray before ``limit``.

        ``origin``: (3,). ``directions``: (N, 3), of any length. ``limit``: (N,) lengths of them. Returns (N,) int64
        strand or -1, (N,) float64 lengths of ``directions``.
        """
        n = len(directions)
        rays = _packets(origin, directions, limit, ROWS)
        self._each(rays, self._library.rtcIntersect16)
        prim = rays[:, PRIM].reshape(-1).view(np.uint32)[:n]
        met = rays[:, GEOM].reshape(-1).view(np.uint32)[:n] != MISS
        strand = np.where(met, prim.astype(np.int64) // self._segments, -1)
        return strand, np.where(met, rays[:, TFAR].reshape(-1)[:n], np.inf).astype(np.float64)

    def _each(self, rays: np.ndarray, trace: Any) -> None:
        valid = np.full(PACKET + 16, -1, np.int32)
        on = valid.ctypes.data + (-valid.ctypes.data % 64)
        start, step, scene = rays.ctypes.data, rays.strides[0], self._scene
        for i in range(len(rays)):
            trace(on, scene, start + i * step, None)


def _packets(origin: np.ndarray, directions: np.ndarray, limit: np.ndarray, rows: int) -> np.ndarray:
    """(P, rows, 16) float32: packets as Embree reads them, on 64 bytes; the last is filled up with rays that end at once."""
    n = len(directions)
    packets = -(-n // PACKET)
    flat = np.zeros((rows, packets * PACKET), np.float32)
    flat[ORG] = np.asarray(origin, np.float32)[:, None]
    flat[DIR, :n] = directions.T
    flat[TNEAR], flat[TFAR, :n] = NEAREST_M, limit
    flat[TFAR, n:] = -1
    whole = flat.view(np.uint32)
    whole[MASK] = MISS
    if rows > RAY_ROWS:
        whole[PRIM], whole[GEOM] = MISS, MISS
    memory = np.empty(rows * packets * PACKET + 16, np.float32)
    skip = (-memory.ctypes.data % 64) // 4
    rays = memory[skip : skip + flat.size].reshape(packets, rows, PACKET)
    rays[:] = flat.reshape(rows, packets, PACKET).transpose(1, 0, 2)
    return rays


@functools.cache
def _embree() -> tuple[Any, int]:
    """Embree's C functions, and a device."""
    # What the extension module is linked to is found through it.
    library = ctypes.CDLL(embreex.rtcore_scene.__file__)
    handle, number, size = ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t
    for name, result, arguments in (
        ("rtcNewDevice", handle, [ctypes.c_char_p]),
        ("rtcGetDeviceError", ctypes.c_int, [handle]),
        ("rtcNewScene", handle, [handle]),
        ("rtcSetSceneFlags", None, [handle, ctypes.c_int]),
        ("rtcCommitScene", None, [handle]),
        ("rtcReleaseScene", None, [handle]),
        ("rtcNewGeometry", handle, [handle, ctypes.c_int]),
        ("rtcSetSharedGeometryBuffer", None, [handle, ctypes.c_int, number, ctypes.c_int, handle, size, size, size]),
        ("rtcCommitGeometry", None, [handle]),
        ("rtcAttachGeometry", number, [handle, handle]),
        ("rtcReleaseGeometry", None, [handle]),
        ("rtcIntersect16", None, [handle, handle, handle, handle]),
        ("rtcOccluded16", None, [handle, handle, handle, handle]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library, library.rtcNewDevice(b"threads=1,set_affinity=0")
