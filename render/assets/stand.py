"""A scan's mesh in its file's axes and numbers -> the same mesh upright, in metres, on z = 0, and what was assumed.

Legend: V vertices, F triangles.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from manifests.assets import ScanSource
from render.scene import Mesh, Scan

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
ADULT_M = (1.4, 2.1)
# Up is x only where x is this much longer than both others: arms held out are as long as the body is tall.
LYING = 1.3


class Custom(NamedTuple):
    """What a source knows of its files where the job says "auto": metres per unit and up axis, and who says so."""

    unit: str | None = None
    scale_m: float | None = None
    up: str | None = None
    says: str = ""


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a scan came to stand. ``unit``, ``up``: the value and, in brackets, where it is from: declared by the file,
    set by the job, guessed from the shape, or the source's own. ``height_m``: metres. ``scale_m``: metres per number in
    the mesh as imported. ``turn``: (3, 3) float64 rotation, ``shift``: (3,) float64 metres: a point p of the mesh as
    imported comes to stand at scale_m * turn @ p + shift.
    """

    unit: str
    up: str
    height_m: float
    scale_m: float
    turn: np.ndarray
    shift: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) float64 metres of (N, 3) ``points`` of the scan as imported."""
        return self.scale_m * (np.asarray(points, np.float64) @ self.turn.T) + self.shift


def stand(scan: Scan, source: ScanSource, custom: Custom = Custom()) -> tuple[Mesh, Standing]:
    """The mesh upright, in metres, on z = 0, its middle over the origin, facing -y; and how.

    glTF, FBX and USD declare unit and axis (Blender has applied them); OBJ and PLY say nothing: up is the longer of y
    and z, and the unit is guessed from the height. A job's own word stands above both. The height gate is not asked here (defects.barring).
    """
    mesh = scan.mesh
    up, up_from = _up(scan, source, custom)
    turn = TO_Z_UP[up]
    turned = mesh.vertices.astype(np.float64) @ turn.T
    low, high = turned.min(0), turned.max(0)
    height = float(high[2] - low[2])
    unit, scale, unit_from = _unit(scan, source, custom, height)
    shift = -scale * np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    standing = Standing(f"{unit} ({unit_from})", f"{up} ({up_from})", round(height * scale, 4), scale, turn, shift)
    vertices = standing.place(mesh.vertices).astype(np.float32)
    normals = mesh.corner_normals @ turn.T.astype(np.float32)
    return dataclasses.replace(mesh, vertices=vertices, corner_normals=normals), standing


def _up(scan: Scan, source: ScanSource, custom: Custom) -> tuple[str, str]:
    if source.up != "auto":
        return source.up, "set"
    if scan.unit_m is not None:
        return "z", "declared"
    if custom.up:
        return custom.up, custom.says
    x, y, z = np.ptp(scan.mesh.vertices, axis=0)
    if x > LYING * max(y, z):
        return "x", "guessed"
    return ("y" if y >= z else "z"), "guessed"


def _unit(scan: Scan, source: ScanSource, custom: Custom, height: float) -> tuple[str, float, str]:
    """(unit, metres per imported number, where from)."""
    if source.unit != "auto":
        return source.unit, METRES[source.unit] / (scan.unit_m or 1.0), "set"
    if custom.scale_m is not None:
        return f"{custom.scale_m:.4g} m", custom.scale_m, custom.says
    if scan.unit_m is not None:
        named = next((u for u, s in METRES.items() if abs(s / scan.unit_m - 1) < 1e-3), f"{scan.unit_m:.4g} m")
        return named, 1.0, "declared"
    if custom.unit is not None:
        return custom.unit, METRES[custom.unit], custom.says
    unit = guess_unit(height, source.height_gate_m)
    return unit, METRES[unit], "guessed"


def guess_unit(height: float, gate_m: tuple[float, float]) -> str:
    """The unit in which ``height`` is an adult's, else the first in which it passes the gate, else metres.

    67 is an adult in inches and an infant in centimetres: libraries hold more adults.
    """
    adult = [u for u, scale in METRES.items() if ADULT_M[0] <= height * scale <= ADULT_M[1]]
    passes = [u for u, scale in METRES.items() if gate_m[0] <= height * scale <= gate_m[1]]
    return next(iter([*(u for u in adult if u in passes), *passes]), "m")


def signs_of_feet(vertices: np.ndarray, faces: np.ndarray) -> list[float]:
    """Three signs in [-1, 1], positive where feet are below, negative where they are above.

    ``vertices``: (V, 3), z up, any unit; ``faces``: (F, 3). The signs: how far the ends spread sideways (two feet against
    one head), the footprint of each end (soles against a crown), and which half of the silhouette is the fuller
    (shoulders and arms against legs). Guesses, all three: a raised hand, a hat or a long dress each turn one.
    """
    p = vertices.astype(np.float64) - vertices.min(0)
    p /= max(float(p[:, 2].max()), 1e-9)
    a, b, c = (p[faces[:, i]] for i in range(3))
    points = np.concatenate([a, b, c, (a + b) / 2, (b + c) / 2, (c + a) / 2, (a + b + c) / 3])
    z = points[:, 2]
    spread = [float(points[end][:, :2].std(axis=0).sum()) if end.any() else 0.0 for end in (z < 0.06, z > 0.94)]
    prints = [_cells(points[end][:, :2]) + 20 for end in (z < 0.015, z > 0.985)]
    wide = points[:, int(np.ptp(points[:, 1]) > np.ptp(points[:, 0]))]
    outline = np.unique(np.floor(np.stack([wide, z], axis=1) * 64).astype(int), axis=0)
    fuller = float((outline[:, 1] >= 32).sum() / max((outline[:, 1] < 32).sum(), 1))
    ratios = [(spread[0] + 0.01) / (spread[1] + 0.01), prints[0] / prints[1], max(fuller, 1e-3) ** 2]
    return [float(np.clip(np.log(r), -1, 1)) for r in ratios]


def upside_down(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Whether a person with (V, 3) ``vertices``, z up, and (F, 3) ``faces`` seems to stand on the head: a guess.

    The spread of the ends counts double: of the three it was never wrong on scans and parametric people tried.
    """
    spread, prints, fuller = signs_of_feet(vertices, faces)
    return spread < 0 and 2 * spread + prints + fuller < -0.3


def _cells(points: np.ndarray) -> int:
    """How many squares of 0.6 % of the height (1 cm) hold any of (N, 2) ``points``."""
    return len(np.unique(np.floor(points / 0.006).astype(int), axis=0))


# Rows of each matrix are the new x, y, z; all are rotations. A y-up file faces +z, which becomes -y.
TO_Z_UP = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "x": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "-z": np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-x": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
}
