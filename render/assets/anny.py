"""A seed and a number -> one dressed, posed person on anny's open body model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import AnnySource
from manifests.clothes import ClothesPrior
from manifests.errors import AssetError, InputError, PhotoError
from manifests.keypoints import SETS
from manifests.seeds import generator
from manifests.skins import SkinPrior
from render.people import builds
from render.people.body import Body, groups
from render.people.doll import Doll
from render.people.eyes import widened
from render.people.fabric import own_pictures, picture
from render.people.held import grasp, in_the_way, placed
from render.people.held import pieces as in_hand
from render.people.identity import Look, draw_look
from render.people.joints import rig_of
from render.people.landmarks import landmarks
from render.people.materials import materials_of
from render.people.motions import Motions
from render.people.parts import Parts
from render.people.piece import Piece
from render.people.pose import draw_pose
from render.people.wardrobe import Wardrobe
from render.scene import Mesh, PersonMesh
from render.strands import shifted

# No hat is thicker than this over a skull.
HAT_M = 0.05


class AnnyPeople:
    """A pool of ``source.count`` identities; j depends on (people_seed, j) alone."""

    def __init__(self, source: AnnySource, people_seed: int, root: Path = Path()) -> None:
        """``root``: where the paths of motion files, fabrics and skins start. Raises InputError where one is missing."""
        self._source, self._seed = source, people_seed
        self._fabrics = own_pictures(source.clothes.textures, "clothes.textures", root)
        self._skins = own_pictures(source.skins.textures, "skins.textures", root)
        self._version = importlib.metadata.version("anny")
        self._motions = Motions(source.pose.motions, root)

    def identities(self) -> list[tuple[str, str, str]]:
        """(id, key, sha256 of what the identity is drawn from). Raises InputError for a fabric or skin that cannot be worn: each is
        looked at here, before any work.
        """
        self._check_pictures()
        rows = []
        settings = self._source.model_dump_json(exclude={"count"}) + self._motions.sha256()
        settings += "".join(sha for _, sha in self._fabrics + self._skins)
        for j in range(self._source.count):
            made_from = f"anny {self._version}/{self._seed}/{j}/{settings}".encode()
            rows.append((_id(j), str(j), hashlib.sha256(made_from).hexdigest()))
        return rows

    def _check_pictures(self) -> None:
        looks: list[tuple[str, list[tuple[str, str]], Callable[[str], object]]] = [
            ("clothes.textures", self._fabrics, picture)
        ]
        if self._skins:
            looks.append(("skins.textures", self._skins, _studio()[1].complexions.bare))
        for key, files, look in looks:
            for file, _ in files:
                try:
                    look(file)
                except PhotoError as error:
                    raise InputError(f"{key}: {Path(file).name}: {error}; take it out of the folder") from None

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """Identity ``key`` in a pose drawn from ``rng``: feet on z = 0, hips over the origin, facing -y, metres."""
        return self.labelled(key, rng)[0]

    def labelled(self, key: str, rng: np.random.Generator) -> tuple[PersonMesh, dict[str, np.ndarray]]:
        """``load``, and every keypoint set by name: (J, 3) float64 metres, NaN where absent. Raises AssetError where a fabric or
        skin cannot be read any more.
        """
        fabrics = tuple(path for path, _ in self._fabrics)
        source = self._source
        look = draw_look(
            generator(self._seed, "identity", key),
            source.body,
            source.clothes,
            fabrics,
            source.accessories,
            source.detail,
            source.hair,
            tuple(path for path, _ in self._skins),
        )
        shape = look.shape
        body, wardrobe = _studio()
        figure = body.figure(shape.phenotype, shape.changes)
        thing = next((t for t in look.things if t.slot == "held"), None)
        pose = draw_pose(
            rng,
            source.pose,
            rig_of(body),
            Doll(body, figure),
            self._motions,
            age_years=shape.age_years,
            holding=thing.side if thing else "",
        )
        held = grasp(thing, body, rig_of(body), figure, pose.rotations) if thing else None
        rotations = pose.rotations | held.rotations if held else pose.rotations
        posed = body.posed(shape.phenotype, rotations, shape.changes, pose.actions)
        if look.detail == "full":
            posed.vertices = widened(posed.vertices, look.pupil)
        bmi, height = builds.measured_bmi(figure.rest, groups()["body"])
        pieces, strands, left_out = wardrobe.outfitted(look, posed)
        if held is not None:
            turn, middle = placed(held, body, posed, rotations)
            if in_the_way(held, turn, middle, pieces, body):
                left_out.append("held")
            else:
                pieces += in_hand(held, turn, middle)
        ground = min(float(p.vertices[p.quads.ravel(), 2].min()) for p in pieces if len(p.quads))
        hips = posed.keypoints[11:13].mean(axis=0)
        shift = -np.array([hips[0], hips[1], ground])
        identity_id = _id(key)
        try:
            mesh = assemble(pieces, look, shift, _parts(), pose.actions)
        except (PhotoError, OSError) as error:
            raise AssetError(
                identity_id, f"a fabric or skin that it wears cannot be read ({error}); put it back"
            ) from None
        strands = [shifted(s, shift) for s in strands]
        hair = np.concatenate([np.zeros((0, 3)), *(s.points.reshape(-1, 3) for s in strands)])
        top, chin = head_marks(mesh, hair, posed.vertices[body.skull] + shift)
        points = {name: landmarks(name)(posed.vertices, posed.keypoints) + shift for name in SETS}
        person = PersonMesh(
            identity_id=identity_id,
            mesh=mesh,
            landmarks={
                "head_top": top,
                "chin": chin,
                "hips": hips + shift,
                "feet": np.array([0.0, 0.0, 0.0]),
            },
            rights=self._rights(identity_id, look),
            keypoints=points[self._source.keypoints],
            keypoint_set=self._source.keypoints,
            bones={k: np.round(v + shift, 6).tolist() for k, v in posed.bones.items()},
            strands=strands,
            phenotype={
                "age_years": round(shape.age_years, 1),
                "sex": shape.sex,
                "height_m": round(height, 3),
                "bmi": round(bmi, 1),
                "build": shape.build,
                "monk_skin_tone": shape.skin_tone,
                **told(look),
                "anny": {k: round(v, 4) for k, v in shape.phenotype.items()},
                "face": shape.face(),
            },
            pose={
                "source": pose.source,
                "hands": list(pose.hands),
                "expression": pose.expression,
                "tries": pose.tries,
                "relief": pose.relief,
                "deepest_mm": round(pose.depth_m * 1e3, 1),
                "left_out": left_out,
                "worn": [t.kind for t in look.things if t.slot not in left_out],
            },
        )
        return person, points

    def _rights(self, identity_id: str, look: Look) -> dict[str, Any]:
        """Of the open body, and of the user's fabrics and skins where the person wears any."""
        clothes, skins = self._source.clothes, self._source.skins
        own: list[ClothesPrior | SkinPrior] = [clothes] if any(w.texture is not None for w in look.outfit.wears) else []
        shown = look.detail == "full" and look.complexion.photo is not None
        priors = [*own, skins] if shown else own
        return {
            "id": identity_id,
            "source": f"anny {self._version}",
            "licence": " AND ".join(dict.fromkeys(["CC0-1.0", *(p.licence for p in priors)])),
            "consent": skins.consent if shown else "not a person",
            "redistributable": all(p.redistributable for p in priors),
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


def _id(number: str | int) -> str:
    return f"anny/{int(number):06d}"


def told(look: Look) -> dict[str, Any]:
    """What a row says of how a person looks: kinds, not colours. ``accessories`` are owned; a pose may leave some out."""
    hair = {"full": look.hair.name, "simple": look.cap.style, "mannequin": "none"}[look.detail]
    return {
        "freckles": round(look.complexion.freckles, 2),
        "outfit": [wear.name for wear in look.outfit.wears],
        "hair": hair,
        "beard": look.hair.beard_name if look.detail == "full" else "none",
        "accessories": [thing.kind for thing in look.things],
    }


def head_marks(mesh: Mesh, hair: np.ndarray, skull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) highest and lowest point of a head, hair or hat included, over and under its middle.

    ``hair``: (M, 3) metres, points of its strands. ``skull``: (N, 3) metres, the vertices that its bone moves: a hand above the
    head is not part of it.
    """
    middle = (skull.min(0) + skull.max(0))[:2] / 2
    near = np.linalg.norm(mesh.vertices[:, :2] - middle, axis=1) < 0.12
    near &= mesh.vertices[:, 2] < skull[:, 2].max() + HAT_M
    over = hair[np.linalg.norm(hair[:, :2] - middle, axis=1) < 0.12]
    top = max(float(p[:, 2].max()) for p in (mesh.vertices[near], over, skull) if len(p))
    return np.array([*middle, top]), np.array([*middle, skull[:, 2].min()])


def assemble(pieces: list[Piece], look: Look, shift: np.ndarray, parts: Parts, actions: dict[str, float]) -> Mesh:
    """One triangle mesh of all pieces: smooth normals per piece, one material per kind, uv in metres for patterns,
    Sapiens2's class of every face.
    """
    kinds = sorted({p.kind for p in pieces})
    materials = materials_of(look, _studio()[1].complexions, actions)
    vertices, faces, normals, index, uv, part = [], [], [], [], [], []
    first = 0
    for piece in pieces:
        if not len(piece.quads):
            continue
        used, local = np.unique(piece.quads, return_inverse=True)
        quads = local.reshape(-1, 4)
        points = (piece.vertices[used] + shift).astype(np.float32)
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        # Corners that are one point by construction; what a pose squeezes stays, or faces would go by pose.
        kept = _area(piece.vertices[used], triangles) > 1e-16
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
