"""A mesh of quads -> its rings and columns of edges, places along them, and where a line leaves the skin.

The base mesh is drawn in loops round eyes, mouth, nostrils and limbs; they are the contours that landmarks lie on.
Legend: V vertices, Q quads. Template frame: x to the person's left, -y forward, z up, metres.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

# Vertex -> weight, weights of a place summing to 1.
Place = dict[int, float]


class Surface:
    """``points``: (V, 3) float64. ``quads``: (Q, 4) int."""

    def __init__(self, points: np.ndarray, quads: np.ndarray) -> None:
        self.points, self.quads = points, quads
        self.vertices = np.unique(quads)
        self.near: dict[int, set[int]] = defaultdict(set)
        self._of: dict[int, set[int]] = defaultdict(set)
        for number, quad in enumerate(quads.tolist()):
            for i, vertex in enumerate(quad):
                self.near[vertex] |= {quad[i - 1], quad[(i + 1) % 4]}
                self._of[vertex].add(number)

    def closest(self, point: np.ndarray) -> int:
        """The vertex nearest to ``point`` (3,)."""
        return int(self.vertices[np.linalg.norm(self.points[self.vertices] - point, axis=1).argmin()])

    def walk(self, vertex: int, towards: np.ndarray, most: int = 60) -> list[int]:
        """A column: from ``vertex`` along the edge nearest to ``towards`` (3,), straight on across every crossing, until
        a pole of the mesh, the start again, or ``most`` vertices.
        """

        def cosine(other: int) -> float:
            edge = self.points[other] - self.points[vertex]
            return float(edge @ towards / np.linalg.norm(edge))

        path = [vertex, max(self.near[vertex], key=cosine)]
        while len(path) < most:
            following = self._straight(path[-2], path[-1])
            if following is None or following == path[0]:
                break
            path.append(following)
        return path

    def ring(self, vertex: int, column: list[int]) -> list[int]:
        """The closed loop that crosses ``column`` at ``vertex``, from it to the person's left first.

        Raises ValueError where the mesh has a pole on it.
        """
        at = column.index(vertex)
        across = [n for n in self.near[vertex] if n not in (column[at - 1], column[at + 1])]
        first = max(across, key=lambda n: self.points[n, 0])
        path = [vertex, first]
        while (following := self._straight(path[-2], path[-1])) != vertex:
            if following is None or following in path:
                raise ValueError(f"vertex {vertex}: its edge loop does not close")
            path.append(following)
        return path

    def leaves(self, origin: np.ndarray, direction: np.ndarray) -> Place:
        """Where the ray last leaves the skin. Raises ValueError where it meets none."""
        best, place = -np.inf, {}
        for corners in ([0, 1, 2], [0, 2, 3]):
            t = self.quads[:, corners]
            a, b, c = (self.points[t[:, i]] for i in range(3))
            cross = np.cross(direction, c - a)
            det = np.einsum("nc,nc->n", b - a, cross)
            with np.errstate(divide="ignore", invalid="ignore"):
                u = np.einsum("nc,nc->n", origin - a, cross) / det
                q = np.cross(origin - a, b - a)
                v = q @ direction / det
                length = np.einsum("nc,nc->n", c - a, q) / det
            inside = (np.abs(det) > 1e-15) & (u >= 0) & (v >= 0) & (u + v <= 1) & (length > 0)
            for i in np.flatnonzero(inside):
                if length[i] > best:
                    best = length[i]
                    place = dict(zip(t[i].tolist(), (1 - u[i] - v[i], u[i], v[i])))
        if not place:
            raise ValueError("the ray meets no skin")
        return place

    def _straight(self, before: int, at: int) -> int | None:
        """The neighbour of ``at`` across from ``before``; None at a pole."""
        if len(self.near[at]) != 4:
            return None
        beside = self._of[before] & self._of[at]
        ahead = [n for n in self.near[at] if n != before and not self._of[n] & beside]
        return ahead[0] if len(ahead) == 1 else None


def arc(ring: list[int], first: int, last: int) -> list[int]:
    """Vertices of a closed ``ring`` from ``first`` on to ``last``, in the ring's own sense."""
    at = ring.index(first)
    turned = ring[at:] + ring[:at]
    return turned[: turned.index(last) + 1]


def along(points: np.ndarray, path: list[int], shares: list[float]) -> Iterator[Place]:
    """Places on ``path`` at the given shares of its length."""
    steps = np.linalg.norm(np.diff(points[path], axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    for share in shares:
        length = share * at[-1]
        i = int(np.clip(np.searchsorted(at, length, "right") - 1, 0, len(steps) - 1))
        t = (length - at[i]) / steps[i]
        yield {path[i]: 1 - t, path[i + 1]: t}
