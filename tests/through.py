"""A dressed person and a view -> how many rays see through the clothes, and why.

The clothes are closed for the question: every hem of every garment gets a lid, a fan to the middle of its loop. A ray
that meets a lid first looks into a sleeve, a collar or up a skirt, and may see what is there. A ray that first meets a
garment is inside the clothed silhouette. It sees through where
- "skin": skin that lies under a garment by construction is nearer than the garment;
- "layer": the garment it meets lies under another by construction, and that is close behind it;
- "back": it meets a garment's inner face without having passed a lid;
- "hole": the person as rendered has nothing there, or nothing within 2 cm of it.
"""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from render.people.body import groups
from render.people.cloth import border_edges
from render.people.tailor import Dressed

FRONT, LID, UNDER = 0, 1, 2
GRID_M = 0.006
# Looser cloth than this over what is under it there is none.
CLOSE_M = 0.06


def through(dressed: Dressed, azimuth: float, elevation: float) -> dict[str, int]:
    """Counts of rays by reason, and "inside": those in the clothed silhouette. Angles in radians; parallel rays."""
    cos, sin = np.cos(elevation), np.sin(elevation)
    ahead = np.array([-np.sin(azimuth) * cos, np.cos(azimuth) * cos, -sin])
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    up = np.cross(right, ahead)
    shell, label = _shell(dressed)
    skin = groups()["body"][dressed.left]
    hidden = dressed.covered[skin].all(axis=1)
    person = [(p.vertices, p.quads) for p in dressed.pieces]
    rendered = [_triangles(v, q) for v, q in person]
    under = _triangles(dressed.vertices, skin[hidden])
    every = np.concatenate([*rendered, under, _triangles(dressed.vertices, skin[~hidden])])
    first_under = sum(map(len, rendered))
    points = shell.reshape(-1, 3)
    x, y = points @ right, points @ up
    xs, ys = np.meshgrid(np.arange(x.min(), x.max(), GRID_M), np.arange(y.min(), y.max(), GRID_M))
    start = float((every.reshape(-1, 3) @ ahead).min()) - 1
    origins = xs.ravel()[:, None] * right + ys.ravel()[:, None] * up + start * ahead
    a, za, facing = _first(shell, origins, ahead)
    b, zb, _ = _first(every, origins, ahead)
    on = (a >= 0) & (label[a] != LID)
    # What comes through has the cloth that covers it close behind; into an open coat one looks at what is under it.
    over = label == FRONT
    _, zc, facing_c = _first(shell[over], origins, ahead)
    close = (facing_c < 0) & (zc < za + CLOSE_M)
    is_under = (b >= first_under) & (b < first_under + len(under)) & (zb < za - 1e-6)
    count = {
        "skin": on & is_under,
        "layer": on & ~is_under & (label[a] == UNDER) & (facing < 0) & (zb > za - 1e-3) & close,
        "back": on & (facing > 0) & (zb > za - 1e-3),
        "hole": on & ((b < 0) | (zb > za + 0.02)),
    }
    return {name: int(rays.sum()) for name, rays in count.items()} | {"inside": int(on.sum())}


def _shell(dressed: Dressed) -> tuple[np.ndarray, np.ndarray]:
    triangles, labels = [], []
    for worn in dressed.worn:
        quads = worn.cutout.quads
        front = _triangles(worn.points, quads)
        under = worn.beneath[quads].all(axis=1)
        triangles.append(front)
        labels.append(np.tile(np.where(under, UNDER, FRONT), 2))
        for loop in _loops(border_edges(quads)):
            ring = worn.points[loop]
            middle = np.broadcast_to(ring.mean(axis=0), ring.shape)
            triangles.append(np.stack([ring, np.roll(ring, -1, 0), middle], axis=1))
            labels.append(np.full(len(ring), LID))
    return np.concatenate(triangles), np.concatenate(labels)


def _loops(edges: np.ndarray) -> list[list[int]]:
    after: dict[int, list[int]] = {}
    for a, b in edges.tolist():
        after.setdefault(a, []).append(b)
    loops = []
    while after:
        start = next(iter(after))
        loop, at = [], start
        while at in after:
            loop.append(at)
            ends = after[at]
            onward = ends.pop()
            if not ends:
                del after[at]
            at = onward
        loops.append(loop)
    return loops


def _triangles(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    return np.concatenate([points[quads[:, [0, 1, 2]]], points[quads[:, [0, 2, 3]]]])


def _first(triangles: np.ndarray, origins: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First triangle or -1, its distance, and the sign of its facing along the ray."""
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(triangles, np.float32))
    directions = np.tile(ahead, (len(origins), 1)).astype(np.float32)
    hit = scene.run(origins.astype(np.float32), directions, output=1)
    face = hit["primID"].astype(np.int64)
    t = triangles[face]
    normal = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
    return face, np.where(face >= 0, hit["tfar"], np.inf), np.sign(normal @ ahead)
