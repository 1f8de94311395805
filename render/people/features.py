"""A posed body -> its teeth, tongue and lashes, from the base mesh's helper geometry.

The helpers follow shape and facial actions: an open jaw takes lower teeth and tongue along, a shut eye its lashes.
Legend: Q quads.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from trimesh import Trimesh

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
# The base mesh keeps its teeth a centimetre and more behind the lips, which real ones all but touch, and so high that a
# smile uncovers a dark slit beneath them. The upper row's front comes down by a share LOW of its width, and forward as far
# as there is room behind lips and skin; molars keep their bite, and the lower row stays, since below the lip the chin is
# hollow. Teeth within TOOTH_M of each other along the row move as one.
LOW, FRONT_M, TOOTH_M = 0.065, 0.015, 0.006
BEHIND_LIPS_M, ROOM_M, MOST_M = 0.002, 0.001, 0.008
# Roots may go so far into the lip before them, which is twice as thick and more.
GUM_M = 0.003
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
    moved[upper] += _brought(posed, upper, seam)
    pieces = [Piece(kind, moved, np.concatenate(parts)) for kind, parts in sorted(found.items())]
    points = np.concatenate(lashes).reshape(-1, 3)
    return [Piece("lashes", points, np.arange(len(points), dtype=np.int32).reshape(-1, 4)), *pieces]


def _brought(posed: Posed, upper: np.ndarray, seam: list[int]) -> np.ndarray:
    """(U, 3) metres, posed: what brings the upper row's vertices (U,) down, and forward to the lips, wherever the face has
    those.
    """
    row, rest = posed.vertices[upper], posed.rest[upper]
    turn, _ = Rotation.align_vectors(row - row.mean(axis=0), rest - rest.mean(axis=0))
    # In the head's own axes: a turned head draws lips and cheeks along.
    points = turn.apply(posed.vertices, inverse=True)
    skin = _skin_near(points, upper)
    at, lips = points[upper], points[seam]
    # What bites decides how far down there is room: roots are behind the lip, or in it where that is raised.
    bites = at[:, 2] < at[:, 2].min() + 0.4 * np.ptp(at[:, 2])
    low = np.clip((_clearance(at[bites], skin, 2) - ROOM_M).min(), 0, LOW * np.ptp(at[:, 0]))
    shift = np.zeros_like(at)
    shift[:, 2] = -low * np.clip(2 - (at[:, 1] - at[:, 1].min()) / FRONT_M, 0, 1)
    at = at + shift
    aside, middle = np.abs(at[:, 0] - lips[0, 0]), np.abs(lips[:, 0] - lips[0, 0])
    behind = at[:, 1] - np.interp(aside, middle, lips[:, 1]) - BEHIND_LIPS_M
    # What is farther back than the front teeth keeps its place behind them.
    most = min(float(behind[aside < 0.5 * middle.max()].min()), MOST_M)
    ahead = _clearance(at, skin, 1) + np.where(bites, -ROOM_M, GUM_M)
    room = np.clip(np.minimum(np.minimum(behind, ahead), most), 0, None)
    # Of all that is near along the row, then smooth along it: never more than each has room for, and no tooth tilts.
    close = np.abs(at[:, :1] - at[:, 0]) < TOOTH_M
    least = np.where(close, room, np.inf).min(axis=1)
    shift[:, 1] = -(close @ least) / close.sum(axis=1)
    return turn.apply(shift)


def _skin_near(points: np.ndarray, these: np.ndarray) -> Trimesh:
    """The body's surface of vertices ``points`` (N, 3) within a hand's breadth of ``these`` (U,)."""
    quads = groups()["body"]
    near = quads[(np.abs(points[quads].mean(axis=1) - points[these].mean(axis=0)) < 0.1).all(axis=1)]
    return Trimesh(points, np.concatenate([near[:, :3], near[:, [0, 2, 3]]]), process=False)


def _clearance(points: np.ndarray, skin: Trimesh, axis: int) -> np.ndarray:
    """(N,) metres from ``points`` (N, 3) against ``axis`` (1 forward, 2 down) to ``skin``; inf where it is open."""
    way = np.tile(-np.eye(3)[axis], (len(points), 1))
    hits, ray, _ = skin.ray.intersects_location(points, way, multiple_hits=False)
    found = np.full(len(points), np.inf)
    found[ray] = points[ray, axis] - hits[:, axis]
    return found


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
