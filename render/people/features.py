"""A posed body -> its teeth, tongue and lashes, from the base mesh's helper geometry.

The helpers follow shape and facial actions: an open jaw takes lower teeth and tongue along, a shut eye its lashes.
Legend: Q quads.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from render.people.body import Posed, groups
from render.people.piece import Piece
from render.people.teeth import brought, unrolled

# Helper group's beginning -> the kind of piece that names its material.
KINDS = {
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes": "lashes",
    "helper-r-eyelashes": "lashes",
}
# Lashes on a quad of their strip, and half their width at root and tip, as shares of its width.
LASHES, ROOT, TIP = 5, 0.06, 0.010


def inner_pieces(posed: Posed, seam: list[int]) -> list[Piece]:
    """One piece of each kind: "teeth" (both rows), "tongue" and "lashes" (four rows, seen from both sides). ``seam``:
    as `Face.upper_seam`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, quads in groups().items():
        kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), None)
        if kind:
            found.setdefault(kind, []).append(quads)
    lashes = [_combed(posed, quads) for quads in found.pop("lashes")]
    moved = posed.vertices.copy()
    upper = np.unique(groups()["helper-upper-teeth"])
    moved[upper] += brought(posed, upper, seam)
    pieces = [Piece(kind, moved, np.concatenate(parts)) for kind, parts in sorted(found.items())]
    next(p for p in pieces if p.kind == "teeth").uv = np.concatenate(
        [unrolled(posed, name) for name in groups() if KINDS.get(name) == "teeth"]
    )
    points = np.concatenate(lashes).reshape(-1, 3)
    return [Piece("lashes", points, np.arange(len(points), dtype=np.int32).reshape(-1, 4)), *pieces]


def _combed(posed: Posed, quads: np.ndarray) -> np.ndarray:
    """(M, 4, 3) metres: the strip ``quads`` (Q, 4) of a row of lashes cut into slivers that taper from the lid outwards."""
    skin = cKDTree(posed.rest[np.unique(groups()["body"])])
    used = np.unique(quads)
    far = np.zeros(len(posed.rest))
    far[used] = skin.query(posed.rest[used])[0]
    far /= far.max()
    # Corners in the order root, root, tip, tip.
    turns = np.stack([np.roll(quads, k, axis=1) for k in range(4)])
    d = far[turns]
    ordered = turns[(d[..., 2] + d[..., 3] - d[..., 0] - d[..., 1]).argmax(axis=0), np.arange(len(quads))]
    a, b, c, d = (posed.vertices[ordered[:, k]][:, None] for k in range(4))
    middle = ((np.arange(LASHES) + 0.5) / LASHES)[None, :, None]
    half = ROOT + (TIP - ROOT) * far[ordered]
    low, high = half[:, :2].mean(axis=1)[:, None, None], half[:, 2:].mean(axis=1)[:, None, None]
    corners = [a + (b - a) * (middle - low), a + (b - a) * (middle + low),
               d + (c - d) * (middle + high), d + (c - d) * (middle - high)]  # fmt: skip
    return np.stack(corners, axis=2).reshape(-1, 4, 3)
