"""A posed body -> its teeth, tongue and lashes, from the base mesh's helper geometry.

The helpers follow shape and facial actions: an open jaw takes lower teeth and tongue along, a shut eye its lashes.
Legend: Q quads.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from render.people.body import Posed, groups
from render.people.piece import Piece

# Helper group's beginning -> the kind of piece that names its material.
KINDS = {
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes": "lashes",
    "helper-r-eyelashes": "lashes",
}
# The base mesh keeps its teeth a centimetre and more behind the lips. Real ones all but touch them; the lower row has to
# stay, since below the lip the chin is hollow.
BEHIND_LIPS_M, FORWARD_M = 0.002, (0.0, 0.008)
# Lashes on a quad of their strip, and half their width at root and tip, as shares of its width.
LASHES, ROOT, TIP = 3, 0.075, 0.012


def inner_pieces(posed: Posed, seam: int) -> list[Piece]:
    """One piece of each kind: "teeth" (both rows), "tongue" and "lashes" (four rows, seen from both sides). ``seam``:
    the upper lip's vertex in the middle of where the lips meet.
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, quads in groups().items():
        kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), None)
        if kind:
            found.setdefault(kind, []).append(quads)
    lashes = [_combed(posed, quads) for quads in found.pop("lashes")]
    moved = posed.vertices.copy()
    moved[np.unique(groups()["helper-upper-teeth"])] += _forward(posed, seam)
    pieces = [Piece(kind, moved, np.concatenate(parts)) for kind, parts in sorted(found.items())]
    points = np.concatenate(lashes).reshape(-1, 3)
    return [Piece("lashes", points, np.arange(len(points), dtype=np.int32).reshape(-1, 4)), *pieces]


def _forward(posed: Posed, seam: int) -> np.ndarray:
    """(3,) metres, posed: what brings the upper teeth up to the lips, wherever the face has those."""
    upper = np.unique(groups()["helper-upper-teeth"])
    gap = posed.rest[upper, 1].min() - posed.rest[seam, 1] - BEHIND_LIPS_M
    turn, _ = Rotation.align_vectors(
        posed.vertices[upper] - posed.vertices[upper].mean(axis=0), posed.rest[upper] - posed.rest[upper].mean(axis=0)
    )
    return turn.apply([0.0, -float(np.clip(gap, *FORWARD_M)), 0.0])


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
