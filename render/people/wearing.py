"""A dressed, posed person and what it owns -> the pieces of its accessories, each in the frame where it is built.

Things on the head are built in the head's frame (x to its left, -y ahead, z up), where the posed face lies as the skull
at rest would. Legend: V vertices of the base mesh, N points.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from render.people.accessories import Thing
from render.people.anchors_face import Face
from render.people.body import Body, Posed, groups
from render.people.headwear import rigid
from render.people.piece import Piece
from render.people.tailor import Dressed

# Sapiens2's class of each slot; headsets have none ("Headset" is unmapped), and what is held is an occluder, which
# every one of its source vocabularies puts with the background.
CLASS = {
    "eyewear": "Eyeglass",
    "earrings": "Apparel",
    "scarf": "Apparel",
    "bags": "Apparel",
    "mask": "Apparel",
    "headphones": "unlabelled",
    "watch": "Apparel",
    "held": "Background",
}


@dataclasses.dataclass
class Head:
    """``points``: (V, 3) posed base mesh in the head's frame. ``turn``, ``shift``: back to the world.

    ``eyes``, ``lobes``, ``ear_tops``: (2, 3), left first.
    """

    points: np.ndarray
    skin: np.ndarray
    turn: np.ndarray
    shift: np.ndarray
    eyes: np.ndarray
    lobes: np.ndarray
    ear_tops: np.ndarray
    nose: np.ndarray
    root: np.ndarray
    chin: np.ndarray

    def world(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) of the head's frame in the world."""
        return points @ self.turn.T + self.shift

    @property
    def ipd(self) -> float:
        """Between the eyes' centres, metres."""
        return float(np.linalg.norm(self.eyes[0] - self.eyes[1]))


class Wearer:
    """Who wears the things: frames and clouds of points that their makers ask for."""

    def __init__(self, body: Body, posed: Posed, dressed: Dressed, limb: np.ndarray, hair_m: float) -> None:
        """``limb``: (V,) names. ``hair_m``: how thick hair is under what presses on it."""
        self.body, self.posed, self.dressed, self.limb = body, posed, dressed, limb
        self.hair_m = hair_m
        # World points of what is worn already: glasses go over a mask.
        self.beneath = np.zeros((0, 3))
        self.size = float(np.ptp(posed.rest[np.unique(groups()["body"]), 2])) / 1.7

    @functools.cached_property
    def head(self) -> Head:
        places = _places(self.body)
        rest, now = self.posed.rest, self.posed.vertices
        turn, shift = rigid(rest[places["skull"]], now[places["skull"]])
        points = (now - shift) @ turn
        at = {k: points[v] for k, v in places.items() if k not in ("skull", "head")}
        eyes = np.array([points[np.unique(groups()[f"helper-{s}-eye"])].mean(axis=0) for s in "lr"])
        return Head(points, places["head"], turn, shift, eyes, np.array([at["l_lobe"], at["r_lobe"]]),
                    np.array([at["l_ear"], at["r_ear"]]), at["nose"], at["root"], at["chin"])  # fmt: skip

    @functools.cached_property
    def trunk(self) -> np.ndarray:
        """(N, 3) world points of the trunk as clothed: cloth where there is any, skin elsewhere."""
        shell = self.shell_limb
        found = [w.points[np.isin(shell[w.cutout.i], ("trunk", "pelvis"))] for w in self.dressed.worn]
        skin = np.unique(groups()["body"])
        bare = skin[np.isin(self.limb[skin], ("trunk", "pelvis", "neck"))]
        found += [
            p.vertices[np.unique(p.quads)]
            for p in self.dressed.pieces
            if p.kind in ("top", "over", "top_rib") and p.normals is None
        ]
        return np.concatenate([self.dressed.vertices[bare], *found])

    @functools.cached_property
    def shell_limb(self) -> np.ndarray:
        """(C,) limb of each point of the clothes' sheet."""
        from render.people.shell import limbs_of

        return limbs_of(self.body.vertex_bone)[_nearest_vertex(self.body)]

    def solid_points(self) -> np.ndarray:
        """(N, 3) world points of all skin that shows and all cloth."""
        body = groups()["body"][self.dressed.left]
        found = [self.dressed.vertices[np.unique(body)]]
        found += [p.vertices[np.unique(p.quads)] for p in self.dressed.pieces if len(p.quads)]
        return np.concatenate(found)


def put_on(things: tuple[Thing, ...], wearer: Wearer) -> tuple[list[Piece], list[str]]:
    """Pieces of all things, and the slots that this pose had no room for."""
    from render.people import carrying, facewear, jewellery, spectacles

    makers = {
        "eyewear": spectacles.glasses,
        "earrings": jewellery.earrings,
        "watch": jewellery.watch,
        "mask": facewear.mask,
        "headphones": facewear.headphones,
        "scarf": carrying.scarf,
        "bags": carrying.bag,
    }
    pieces: list[Piece] = []
    left_out = []
    for thing in sorted(things, key=lambda t: t.slot != "mask"):
        if thing.slot not in makers:
            continue
        made = makers[thing.slot](thing, wearer)
        if made is None:
            left_out.append(thing.slot)
            continue
        for piece in made:
            piece.part = CLASS[thing.slot]
        if thing.slot == "mask":
            wearer.beneath = made[0].vertices
        pieces += made
    return pieces, left_out


@functools.lru_cache(maxsize=1)
def _places(body: Body) -> dict[str, np.ndarray]:
    """Vertices of the template: one array or number a name."""
    face = Face(body.template, groups())
    nose = face.nose_and_chin()
    from render.people.anchors import Mirror

    mirror = Mirror(body.template).vertex
    lobe = next(iter(face.ear()["l_tip_of_ear_lobe"]))
    t = body.template
    head = body.skull
    scalp = head[t[head, 2] > face.eye[2] + 0.03]
    # An ear is 6 cm high; its top stands out farthest from the skull near there.
    near = head[(np.abs(t[head, 1] - t[lobe, 1] - 0.008) < 0.022) & (np.abs(t[head, 2] - t[lobe, 2] - 0.052) < 0.006)]
    top = near[t[near, 0].argmax()]
    return {
        "head": head, "skull": scalp, "l_lobe": np.int64(lobe), "r_lobe": mirror[lobe], "l_ear": np.int64(top),
        "r_ear": mirror[top], "nose": np.int64(next(iter(nose["tip_of_nose"]))),
        "root": np.int64(next(iter(nose["center_of_nose_root"]))), "chin": np.int64(next(iter(nose["tip_of_chin"]))),
    }  # fmt: skip


@functools.lru_cache(maxsize=1)
def _nearest_vertex(body: Body) -> np.ndarray:
    """(C,) the base mesh's vertex that each point of the clothes' sheet follows most."""
    from scipy.sparse import vstack

    from render.people.shell import catmull

    first, _ = catmull(groups()["helper-tights"], len(body.template))
    second, _ = catmull(groups()["helper-skirt"], len(body.template))
    return np.asarray(vstack([first, second]).tocsr().argmax(axis=1)).ravel()
