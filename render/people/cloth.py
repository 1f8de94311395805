"""A garment's place on the sheet -> its cut: quads with clean hems, and what each of its points is made of.

Legend: C points of the sheet, N points of the cut, Q quads.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from render.people.shell import Shell


@dataclasses.dataclass
class Cutout:
    """``quads``: (Q, 4) int32 into N. Point n is ``(1 - t[n]) * C[i[n]] + t[n] * C[j[n]]``. ``source``: (Q,) quads of the
    sheet. ``rim``: (N,) bool, on a hem.
    """

    quads: np.ndarray
    i: np.ndarray
    j: np.ndarray
    t: np.ndarray
    source: np.ndarray
    rim: np.ndarray

    def take(self, field: np.ndarray) -> np.ndarray:
        """(N, ...) of a field (C, ...) on the sheet."""
        t = self.t.reshape((-1,) + (1,) * (field.ndim - 1))
        return field[self.i] * (1 - t) + field[self.j] * t


def cut(shell: Shell, depth: np.ndarray) -> Cutout:
    """The quads inside ``depth`` (C,) metres, their border points moved along an edge to where it is 0."""
    kept = depth[shell.quads].mean(axis=1) > 0
    source = np.flatnonzero(kept)
    used, local = np.unique(shell.quads[source], return_inverse=True)
    outside = np.zeros(len(depth), bool)
    outside[shell.quads[~kept]] = True
    # Only where the next quad could have been cut: the sheet's own ends stay where they are.
    border = np.zeros(len(depth), bool)
    border[used] = outside[used]
    a = np.concatenate([shell.edges[:, 0], shell.edges[:, 1]])
    b = np.concatenate([shell.edges[:, 1], shell.edges[:, 0]])
    across = border[a] & ((depth[a] > 0) != (depth[b] > 0)) & (np.minimum(depth[a], depth[b]) > -1)
    a, b = a[across], b[across]
    order = np.argsort(np.abs(depth[a] - depth[b]), kind="stable")
    partner = np.arange(len(depth))
    partner[a[order]] = b[order]
    gap = depth - depth[partner]
    t = np.where(partner != np.arange(len(depth)), depth / np.where(np.abs(gap) < 1e-9, 1, gap), 0)
    return Cutout(
        quads=local.reshape(-1, 4).astype(np.int32),
        i=used,
        j=partner[used],
        t=np.clip(t[used], 0, 0.95),
        source=source,
        rim=_rim(local.reshape(-1, 4), len(used)),
    )


def border_edges(quads: np.ndarray) -> np.ndarray:
    """(E, 2) directed edges of (Q, 4) quads that one quad alone has, in that quad's winding."""
    pairs = np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2).astype(np.int64)
    key = pairs.min(axis=1) << 32 | pairs.max(axis=1)
    _, of, count = np.unique(key, return_inverse=True, return_counts=True)
    return pairs[count[of] == 1]


def _rim(quads: np.ndarray, n: int) -> np.ndarray:
    on = np.zeros(n, bool)
    on[border_edges(quads).ravel()] = True
    return on
