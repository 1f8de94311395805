"""A piece of a person -> Sapiens2's class of each of its quads: which limb, lip or garment it shows.

Skin is told by its bones: a quad belongs to the part whose bones move its four corners most, so a border runs where the
joint bends; neck and trunk part at the plane through the neck's joint across the neck. The left half decides and the
right is its mirror image. Lips are the rings of the base mesh between the border of the red and the seam inside, parted
at the mouth's corners. Eyes, brows, lashes and the mouth's inside are Face_Neck, as in Sapiens's own maps from finer
vocabularies. Legend: V vertices of the base mesh, Q quads.
"""

from __future__ import annotations

import numpy as np

from manifests.parts import CLASSES, ID, MIRROR, UNLABELLED
from render.people.anchors import Mirror
from render.people.anchors_face import Face

# What a bone moves, by the beginning of its name; any other bone moves the trunk.
LIMBS = {
    "Left_Upper_Leg": ("upperleg",),
    "Left_Lower_Leg": ("lowerleg",),
    "Left_Foot": ("foot", "toe"),
    "Left_Upper_Arm": ("upperarm",),
    "Left_Lower_Arm": ("lowerarm",),
    "Left_Hand": ("wrist", "finger", "metacarpal"),
    "Face_Neck": ("neck", "head", "eye", "jaw", "tongue"),
}
KINDS = {
    "top": "Upper_Clothing",
    "bottom": "Lower_Clothing",
    "shoes": "Shoe",
    "socks": "Sock",
    "hair": "Hair",
    "beard": "Hair",
    "hat": "Apparel",
    "glasses": "Eyeglass",
    "tongue": "Tongue",
    **dict.fromkeys(("sclera", "iris", "pupil", "eyes", "lashes", "brows"), "Face_Neck"),
}
SKIN_KINDS = ("skin", "head", "nails", "lips", "brows")


class Parts:
    """Classes of one topology's quads, worked out once."""

    def __init__(
        self,
        template: np.ndarray,
        groups: dict[str, np.ndarray],
        bones: list[str],
        weights: np.ndarray,
        weight_bones: np.ndarray,
    ) -> None:
        """``weights``: (V, K) float, how much each bone of ``weight_bones`` (V, K), indices into ``bones``, moves each
        vertex.
        """
        self._template = template
        quads = groups["body"]
        self._body = _table(quads, self._limbs(groups, bones, weights, weight_bones))
        lips = _lips(template, groups)
        self._body |= {key: ID[name] for key, name in lips.items()}
        self._teeth = {
            kind: set(np.unique(groups[f"helper-{kind.lower()}-teeth"]).tolist()) for kind in ("Upper", "Lower")
        }

    def of(self, kind: str, part: str, quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        """(Q,) uint8 classes of a piece. ``part``: what its maker calls it: a class, or one without its side ("Shoe");
        else ``kind`` decides. ``vertices``: (N, 3) of the piece, of which base mesh quads keep their numbers.

        Raises ValueError on a piece that no rule knows.
        """
        if not part and kind in SKIN_KINDS:
            return self._skin(kind, quads)
        if not part and kind == "teeth":
            upper = np.array([set(q) <= self._teeth["Upper"] for q in quads.tolist()], bool)
            return np.where(upper, ID["Upper_Teeth"], ID["Lower_Teeth"]).astype(np.uint8)
        name = part or KINDS.get(kind, "")
        if name == "unlabelled":
            return np.full(len(quads), UNLABELLED, np.uint8)
        if name in ID:
            return np.full(len(quads), ID[name], np.uint8)
        if f"Left_{name}" in ID:
            points = self._template if len(vertices) == len(self._template) else vertices
            left = points[quads, 0].mean(axis=1) > 0
            return np.where(left, ID[f"Left_{name}"], ID[f"Right_{name}"]).astype(np.uint8)
        raise ValueError(f"piece {kind!r}: {name!r} is none of Sapiens2's classes: {', '.join(CLASSES)}")

    def _skin(self, kind: str, quads: np.ndarray) -> np.ndarray:
        try:
            return np.array([self._body[tuple(q)] for q in np.sort(quads, axis=1).tolist()], np.uint8)
        except KeyError:
            raise ValueError(f"piece {kind!r}: a quad of it is none of the base mesh's body") from None

    def _limbs(
        self, groups: dict[str, np.ndarray], bones: list[str], weights: np.ndarray, weight_bones: np.ndarray
    ) -> np.ndarray:
        """(Q,) class of every body quad by its bones."""
        quads, mirror = groups["body"], Mirror(self._template)
        names = ["Torso", *LIMBS]
        limb = [next((n for n, heads in LIMBS.items() if bone.startswith(heads)), "Torso") for bone in bones]
        column = np.array([names.index(name) for name in limb])[weight_bones]
        total = np.zeros((len(weights), len(names)))
        np.add.at(total, (np.arange(len(weights))[:, None], column), weights)
        share = total[quads].sum(axis=1)
        # Rounded, so that a tie does not hang on the order of a sum.
        best = np.array([ID[n] for n in names])[np.round(share, 9).argmax(axis=1)]
        neck, head = (self._template[np.unique(groups[f"joint-{name}"])].mean(axis=0) for name in ("neck", "head"))
        trunk = np.isin(best, (ID["Torso"], ID["Face_Neck"]))
        above = (self._template[quads].mean(axis=1) - neck) @ (head - neck) > 0
        best[trunk] = np.where(above[trunk], ID["Face_Neck"], ID["Torso"])
        left = self._template[quads, 0].mean(axis=1) > 0
        by_quad = dict(zip(map(tuple, np.sort(quads[left], axis=1).tolist()), best[left].tolist()))
        other = np.sort(mirror.vertex[quads[~left]], axis=1)
        best[~left] = [MIRROR[by_quad[tuple(q)]] for q in other.tolist()]
        return best


def _table(quads: np.ndarray, classes: np.ndarray) -> dict[tuple[int, ...], int]:
    return dict(zip(map(tuple, np.sort(quads, axis=1).tolist()), classes.tolist()))


def _lips(template: np.ndarray, groups: dict[str, np.ndarray]) -> dict[tuple[int, ...], str]:
    """Quad (its vertices sorted) -> "Upper_Lip" or "Lower_Lip"."""
    rings = Face(template, groups).rings_of_lips()
    upper: set[int] = set()
    for ring in rings:
        # Corners count as both: a quad is upper when none of its vertices is strictly lower.
        corner = [i for i, v in enumerate(ring) if abs(template[v, 0]) == max(abs(template[ring, 0]))]
        low, high = min(corner), max(corner)
        upper |= {v for i, v in enumerate(ring) if i <= low or i >= high}
    on = {v for ring in rings for v in ring}
    found: dict[tuple[int, ...], str] = {}
    for quad in groups["body"].tolist():
        if on.issuperset(quad):
            found[tuple(sorted(quad))] = "Upper_Lip" if upper.issuperset(quad) else "Lower_Lip"
    return found
