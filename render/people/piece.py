"""One surface of a person: what the makers of skin, eyes, clothes, caps and accessories hand to the assembler; strands are no pieces."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass
class Piece:
    """``vertices``: (N, 3) float64 metres; ``quads``: (Q, 4) int32 into them; ``kind`` names its material.

    ``part``: a class of manifests/parts.py, or one without its side; "" where parts.py tells it by ``kind``. ``uv``:
    (Q, 4, 2) texture coordinates, or None where no texture is. ``normals``: (N, 3) unit, or None: its quads' own.
    """

    kind: str
    vertices: np.ndarray
    quads: np.ndarray
    part: str = ""
    uv: np.ndarray | None = None
    normals: np.ndarray | None = None
