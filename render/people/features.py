"""A posed body -> its teeth, tongue and lashes, from the base mesh's helper geometry.

The helpers follow shape and facial actions: an open jaw takes lower teeth and tongue along, a shut eye its lashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from render.people.body import Posed, groups

if TYPE_CHECKING:
    from render.people.piece import Piece

# Helper group's beginning -> the kind of piece that names its material.
KINDS = {
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes": "lashes",
    "helper-r-eyelashes": "lashes",
}


def inner_pieces(posed: Posed) -> list[Piece]:
    """One piece of each kind: "teeth" (both rows), "tongue" and "lashes" (four strips, seen from both sides)."""
    from render.people.piece import Piece

    found: dict[str, list[np.ndarray]] = {}
    for name, quads in groups().items():
        kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), None)
        if kind:
            found.setdefault(kind, []).append(quads)
    return [Piece(kind, posed.vertices, np.concatenate(parts)) for kind, parts in sorted(found.items())]
