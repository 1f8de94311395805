"""The template's head -> where hair, beard and brows grow: fine quads, a hairline, and roots drawn on them.

Head coordinates: the middle between the eyes is 0 and the crown 1 above it; x to the person's left, y backwards, z up.
Legend: V vertices of the base mesh, C points of the fine surface, Q its quads, N roots.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

# y, z of the hairline as a profile shows it: forehead, temple, sideburn, over the ear, behind it, nape. Hair is half as dense
# 0.05 above it: on the forehead 74 mm above the eyes of an adult.
HAIRLINE = np.array(
    [
        *((-0.6, 0.61), (-0.02, 0.59), (0.09, 0.49), (0.20, 0.34), (0.28, 0.19), (0.36, -0.08), (0.45, -0.10)),
        *((0.50, 0.09), (0.74, 0.12), (0.82, -0.05), (0.88, -0.40), (0.98, -0.62), (1.6, -0.72)),
    ]
)
# x, z of a brow's lower and upper edge as the front shows it, from its inner to its outer end: on the ridge over the eye,
# which stands out most at 0.14 to 0.20.
BROW = np.array(
    [(0.07, 0.102, 0.170), (0.16, 0.110, 0.190), (0.28, 0.135, 0.210), (0.38, 0.130, 0.192), (0.47, 0.078, 0.116)]
)
# How high a moustache reaches: under the nose.
NOSE_Z = -0.405


@dataclasses.dataclass
class Roots:
    """``quad``: (N,) of the fine quads; ``weights``: (N, 4) of its corners; ``at``: (N, 3) head coordinates."""

    quad: np.ndarray
    weights: np.ndarray
    at: np.ndarray


class Scalp:
    """What depends on the template alone. ``matrix``: (C, V) from the base mesh; ``quads``: (Q, 4); ``at``: (C, 3);
    ``source``: (Q,) the body's quad that each is a part of.
    """

    def __init__(self, template: np.ndarray, quads: dict[str, np.ndarray], skull: np.ndarray) -> None:
        body, at = quads["body"], head_frame(template, quads)(template)
        on_head = np.zeros(len(template), bool)
        on_head[skull] = True
        # The neck too: beards and napes end on it.
        on_head |= (at[:, 2] > -1.25) & (np.abs(at[:, 0]) < 0.75) & (at[:, 1] > -0.5) & (at[:, 1] < 1.5)
        whole = np.flatnonzero(on_head[body].all(axis=1))
        # Not the inside of mouth, nose and eye sockets.
        middle = at[body[whole]].mean(axis=1)
        whole = whole[
            ~(
                (np.abs(middle[:, 0]) < 0.3)
                & (middle[:, 1] > 0.02)
                & (middle[:, 1] < 0.5)
                & (middle[:, 2] < -0.3)
                & (middle[:, 2] > -0.75)
            )
        ]
        self.matrix, self.quads = _sixteen(body[whole], len(template))
        self.source = np.tile(whole, 16)
        self.at = self.matrix @ at
        self.used = np.unique(self.quads)
        self._area = quad_area(self.at, self.quads)

    def roots(self, rng: np.random.Generator, count: int, density: np.ndarray) -> Roots:
        """``count`` roots by ``density`` (C,) in [0, 1] over the fine surface's area."""
        chance = self._hairy(density)
        quad = rng.choice(len(self.quads), count, p=chance / chance.sum())
        u, v = rng.random((2, count))
        weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=1)
        at = np.einsum("nk,nkc->nc", weights, self.at[self.quads[quad]])
        return Roots(quad, weights, at)

    def amount(self, density: np.ndarray) -> float:
        """m2 of the template's skin, weighed by ``density`` (C,) in [0, 1]."""
        return float(self._hairy(density).sum())

    def _hairy(self, density: np.ndarray) -> np.ndarray:
        return self._area * density[self.quads].mean(axis=1)

    def on(self, roots: Roots, values: np.ndarray) -> np.ndarray:
        """(N, 3) of ``values`` (C, 3) at the roots."""
        return np.einsum("nk,nkc->nc", roots.weights, values[self.quads[roots.quad]])

    def corners(self, values: np.ndarray) -> np.ndarray:
        """(Q, 4, C) of ``values`` (B, 4, C) at the corners of the body's quads."""
        whole = self.source[: len(self.source) // 16]
        matrix, quads = _sixteen(np.arange(4 * len(whole)).reshape(-1, 4), 4 * len(whole))
        return (matrix @ values[whole].reshape(-1, values.shape[2]))[quads]

    def beard(self, at: np.ndarray, cheek: float) -> tuple[np.ndarray, np.ndarray]:
        """(N,) density of a full beard and of a moustache, 0 to 1. ``cheek``: 0 low to 1 high on the cheek."""
        x, y, z = np.abs(at[:, 0]), at[:, 1], at[:, 2]
        # From the sideburn along the cheek to the corner of the mouth; under the jaw to the throat.
        high = np.interp(
            y, [-0.3, -0.1, 0.15, 0.36, 0.46], np.array([-0.62, -0.56, -0.40, -0.12, 0.0]) + 0.08 * (cheek - 0.5)
        )
        low = np.interp(y, [-0.3, 0.0, 0.3, 0.5], [-1.05, -1.04, -0.95, -0.62])
        chin = np.clip((high - z) / 0.08, 0, 1) * np.clip((z - low) / 0.07, 0, 1) * np.clip((0.50 - y) / 0.05, 0, 1)
        mouth = (x < 0.24) & (z > -0.70) & (z < -0.48)
        chin = np.where(mouth, 0.0, chin)
        # Under the lower lip hair is sparse beside the tuft in the middle.
        chin *= np.where((z > -0.78) & (z < -0.68) & (x > 0.05) & (x < 0.2), 0.25, 1.0)
        lip = np.interp(x, [0.0, 0.05, 0.2, 0.28], [-0.50, -0.495, -0.55, -0.70])
        nose = np.interp(x, [0.0, 0.12, 0.2, 0.3], [NOSE_Z, NOSE_Z, -0.44, -0.56])
        above = np.clip((z - lip) / 0.025, 0, 1) * np.clip((nose - z) / 0.03, 0, 1) * (x < 0.3) * (y < 0.0)
        return chin, above


def across_brow(at: np.ndarray) -> np.ndarray:
    """(N,) -1 at a brow's lower edge to 1 at its upper one, of head coordinates ``at`` (N, 3)."""
    x = np.abs(at[:, 0])
    low, high = np.interp(x, BROW[:, 0], BROW[:, 1]), np.interp(x, BROW[:, 0], BROW[:, 2])
    return (at[:, 2] - low) / (high - low) * 2 - 1


def brow(at: np.ndarray) -> np.ndarray:
    """(N,) 0 outside a brow to 1 in its middle."""
    x = np.abs(at[:, 0])
    along = np.clip((x - 0.04) / 0.08, 0, 1) * np.clip((0.49 - x) / 0.12, 0, 1)
    return np.where(at[:, 1] < 0.15, np.clip(1 - np.abs(across_brow(at)), 0, 1) * along, 0.0)


def hairline(at: np.ndarray, recede: float = 0.0) -> np.ndarray:
    """(N,) how far above the hairline points ``at`` (N, 3) are, head units; ``recede``: 0 to 1, temples first."""
    y, z = at[:, 1], at[:, 2]
    # Men's hairlines retreat at the temples, then from the forehead.
    temple = np.exp(-(((np.abs(at[:, 0]) - 0.34) / 0.16) ** 2))
    back = recede * (0.16 + 0.26 * temple) * np.clip((z - 0.2) / 0.3, 0, 1)
    return polyline_distance(np.stack([y - back, z], axis=1), HAIRLINE)


def head_frame(points: np.ndarray, quads: dict[str, np.ndarray]):
    """A function from ``points``' metres (N, 3), of one body in the A-pose, to head coordinates."""
    eye, size = eyes_and_size(points, quads)
    return lambda p: (p - eye) / size


def eyes_and_size(points: np.ndarray, quads: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The middle between the eyes (3,) and metres from it up to the crown."""
    balls = [points[np.unique(quads[k])] for k in ("helper-l-eye", "helper-r-eye")]
    eye = np.mean([b.mean(axis=0) for b in balls], axis=0)
    return eye, float(points[np.unique(quads["body"]), 2].max() - eye[2])


def split(quads: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Each of (Q, 4) quads of a mesh of ``count`` vertices into four, on itself: (C, count) weights, (4Q, 4) quads.

    Not smoothed: what is smoothed sinks below the skin that the picture shows.
    """
    n, q = count, len(quads)
    pairs = np.sort(np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    edges, of = np.unique(pairs, axis=0, return_inverse=True)
    of, e = of.reshape(q, 4), len(edges)
    rows = np.concatenate([np.arange(n), n + np.repeat(np.arange(e), 2), n + e + np.repeat(np.arange(q), 4)])
    weights = np.concatenate([np.ones(n), np.full(2 * e, 0.5), np.full(4 * q, 0.25)])
    columns = np.concatenate([np.arange(n), edges.ravel(), quads.ravel()])
    matrix = sp.coo_matrix((weights, (rows, columns)), shape=(n + e + q, n)).tocsr()
    middle = n + e + np.arange(q)
    fine = [np.stack([quads[:, i], n + of[:, i], middle, n + of[:, i - 1]], axis=1) for i in range(4)]
    return matrix, np.concatenate(fine)


def _sixteen(quads: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """``split`` twice; quad j's parts are j, j + Q, j + 2Q and so on."""
    first, fine = split(quads, count)
    second, finest = split(fine, first.shape[0])
    return (second @ first).tocsr(), finest


def polyline_distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """(N,) distance of (N, 2) points from a line from left to right, positive above it."""
    a, b = line[:-1], line[1:]
    along = b - a
    t = np.clip(np.einsum("nlc,lc->nl", points[:, None] - a, along) / (along**2).sum(1), 0, 1)
    gap = points[:, None] - (a + t[..., None] * along)
    far = np.linalg.norm(gap, axis=2)
    nearest = far.argmin(axis=1)
    side = np.sign(points[:, 1] - np.interp(points[:, 0], line[:, 0], line[:, 1]))
    return far[np.arange(len(points)), nearest] * side


def quad_area(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(Q,)."""
    a, b, c, d = (points[quads[:, i]] for i in range(4))
    return (np.linalg.norm(np.cross(b - a, c - a), axis=1) + np.linalg.norm(np.cross(c - a, d - a), axis=1)) / 2
