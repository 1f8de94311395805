"""A seed and a number -> one dressed, posed person on anny's open body model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import AnnySource
from manifests.keypoints import SETS
from manifests.seeds import generator
from render.people.body import Body, groups
from render.people.fabric import own_fabrics
from render.people.identity import Look, draw_look
from render.people.landmarks import landmarks
from render.people.materials import materials_of
from render.people.parts import Parts
from render.people.pose import draw_pose
from render.people.piece import Piece
from render.people.wardrobe import Wardrobe
from render.scene import Mesh, PersonMesh


class AnnyPeople:
    """A pool of ``source.count`` identities; j depends on (people_seed, j) alone."""

    def __init__(self, source: AnnySource, people_seed: int, root: Path = Path()) -> None:
        """``root``: where the folder of fabrics starts. Raises InputError where it holds none."""
        self._count, self._seed = source.count, people_seed
        self._clothes = source.clothes
        self._fabrics = own_fabrics(source.clothes, root)
        self._keypoint_set = source.keypoints
        self._version = importlib.metadata.version("anny")

    def identities(self) -> list[tuple[str, str, str]]:
        """(id, key, sha256 of what the identity is drawn from)."""
        rows = []
        wear = self._clothes.model_dump_json() + "".join(sha for _, sha in self._fabrics)
        for j in range(self._count):
            made_from = f"anny {self._version}/{self._seed}/{j}/{wear}".encode()
            rows.append((f"anny/{j:06d}", str(j), hashlib.sha256(made_from).hexdigest()))
        return rows

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """Identity ``key`` in a pose drawn from ``rng``: feet on z = 0, hips over the origin, facing -y, metres."""
        return self.labelled(key, rng)[0]

    def labelled(self, key: str, rng: np.random.Generator) -> tuple[PersonMesh, dict[str, np.ndarray]]:
        """``load``, and every keypoint set by name: (J, 3) float64 metres, NaN where absent."""
        look = draw_look(
            generator(self._seed, "identity", key), self._clothes, tuple(path for path, _ in self._fabrics)
        )
        body, wardrobe = _studio()
        posed = body.posed(look.phenotype, draw_pose(rng))
        pieces = wardrobe.dress(look, posed)
        ground = min(float(p.vertices[p.quads.ravel(), 2].min()) for p in pieces if len(p.quads))
        hips = posed.keypoints[11:13].mean(axis=0)
        shift = -np.array([hips[0], hips[1], ground])
        coco = posed.keypoints + shift
        head = posed.bones["head"] + shift
        identity_id = f"anny/{int(key):06d}"
        mesh = assemble(pieces, look, shift, _parts())
        top = mesh.vertices[:, 2].max() if look.hair_style else 0.0
        points = {name: landmarks(name)(posed.vertices, posed.keypoints) + shift for name in SETS}
        person = PersonMesh(
            identity_id=identity_id,
            mesh=mesh,
            landmarks={
                "head_top": np.array([coco[0, 0], coco[3:5, 1].mean(), _head_top(mesh, head, float(top))]),
                "chin": np.array([*head[:2], coco[0, 2] - 0.5 * abs(coco[0, 2] - head[2]) - 0.04]),
                "hips": hips + shift,
                "feet": np.array([0.0, 0.0, 0.0]),
            },
            rights=self._rights(identity_id, look),
            keypoints=points[self._keypoint_set],
            keypoint_set=self._keypoint_set,
            bones={k: np.round(v + shift, 6).tolist() for k, v in posed.bones.items()},
            phenotype={**{k: round(v, 4) for k, v in look.phenotype.items()}, "monk_skin_tone": look.monk},
        )
        return person, points

    def _rights(self, identity_id: str, look: Look) -> dict[str, Any]:
        """Of the open body, and of the user's fabrics where the person wears any."""
        own = any(w.texture is not None for w in look.outfit.wears)
        return {
            "id": identity_id,
            "source": f"anny {self._version}",
            "licence": f"CC0-1.0 AND {self._clothes.licence}" if own else "CC0-1.0",
            "consent": "not a person",
            "redistributable": self._clothes.redistributable if own else True,
        }


@functools.cache
def _studio() -> tuple[Body, Wardrobe]:
    """One body model per process."""
    body = Body()
    return body, Wardrobe(body)


@functools.cache
def _parts() -> Parts:
    """The classes of its surface."""
    body, _ = _studio()
    return Parts(body.template, groups(), body.bone_names, body.weights, body.weight_bones)


def _head_top(mesh: Mesh, head: np.ndarray, top: float) -> float:
    """z of the highest point within a head's width of the head's bone: a raised hand is not a head."""
    near = np.linalg.norm(mesh.vertices[:, :2] - head[:2], axis=1) < 0.12
    return float(mesh.vertices[near, 2].max()) if near.any() else top


def assemble(pieces: list[Piece], look: Look, shift: np.ndarray, parts: Parts) -> Mesh:
    """One triangle mesh of all pieces: smooth normals per piece, one material per kind, uv in metres for patterns,
    Sapiens2's class of every face.
    """
    kinds = sorted({p.kind for p in pieces})
    materials = materials_of(look)
    vertices, faces, normals, index, uv, part = [], [], [], [], [], []
    first = 0
    for piece in pieces:
        if not len(piece.quads):
            continue
        used, local = np.unique(piece.quads, return_inverse=True)
        quads = local.reshape(-1, 4)
        points = (piece.vertices[used] + shift).astype(np.float32)
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        kept = _area(points, triangles) > 1e-10
        triangles = triangles[kept]
        part.append(np.tile(parts.of(piece.kind, piece.part, piece.quads, piece.vertices), 2)[kept])
        smooth = _smooth(points, triangles) if piece.normals is None else piece.normals[used]
        vertices.append(points)
        faces.append(triangles + first)
        normals.append(smooth[triangles])
        index.append(np.full(len(triangles), kinds.index(piece.kind), np.int32))
        corners = np.zeros((len(quads), 4, 2)) if piece.uv is None else piece.uv
        uv.append(np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])[kept])
        first += len(points)
    return Mesh(
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int32),
        corner_normals=np.concatenate(normals).astype(np.float32),
        material_index=np.concatenate(index),
        materials=[materials[k] for k in kinds],
        uv=np.concatenate(uv).astype(np.float32),
        part=np.concatenate(part),
    )


def _area(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[triangles[:, i]].astype(np.float64) for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _smooth(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N, 3) float64 unit area-weighted vertex normals."""
    p = points.astype(np.float64)
    face = np.cross(p[triangles[:, 1]] - p[triangles[:, 0]], p[triangles[:, 2]] - p[triangles[:, 0]])
    total = np.zeros_like(p)
    for i in range(3):
        np.add.at(total, triangles[:, i], face)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
