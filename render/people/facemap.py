"""The head's chart -> what lies where on it: lips, cheeks, lids, beard, and the lines that age draws.

All places are landmarks of the template. Legend: S texels of a side. Masks are (S, S) float32 in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np

from render.people.anchors_face import Face
from render.people.chart import Chart

Line = tuple[str, np.ndarray, float, float]


class FaceMap:
    """Masks by name, and wrinkles as lines: kind, (N, 2) texels, width in metres, depth in metres at full age."""

    def __init__(self, chart: Chart, template: np.ndarray, groups: dict[str, np.ndarray]) -> None:
        self._chart, self._template = chart, template
        face = Face(template, groups)
        lids, nose, lips = face.lids(), face.nose_and_chin(), face.lips()
        at = {name: self._point(place) for name, place in {**lids, **nose, **lips}.items()}
        self._uv = _vertex_uv(chart, len(template))
        eye = face.eye
        self.eye = eye
        corner, wing, chin = at["l_outer_corner_of_mouth"], at["outer_corner_of_l_nostril"], at["tip_of_chin"]
        mouth = (corner + corner * [-1, 1, 1]) / 2
        mouth = np.array([0, mouth[1], mouth[2]])
        tip, glabella = at["tip_of_nose"], at["center_of_glabella"]
        cheek = np.array([0.043, eye[1] + 0.012, (eye[2] + mouth[2]) / 2 - 0.002])
        under = at["l_centerpoint_of_lower_lash_line"] + np.array([0.0, 0.0, -0.010])
        over = at["l_centerpoint_of_upper_lash_line"] + np.array([0, 0, 0.005])
        ear = self._point(face.ear()["l_tip_of_ear_lobe"])
        lip = self._polygon([face.lip_rings()[0]])
        self.masks = {
            "lips": cv2.GaussianBlur(lip, (0, 0), 1.6),
            "cheeks": self._pair(cheek, (0.019, 0.02, 0.015)),
            "nose": self._blob(tip + np.array([0, 0.004, 0.002]), (0.012, 0.02, 0.012)),
            "bridge": self._blob((tip + glabella) / 2, (0.009, 0.02, 0.02)),
            "chin": self._blob(chin, (0.016, 0.02, 0.011)),
            "forehead": self._blob(glabella + np.array([0, 0.01, 0.032]), (0.04, 0.03, 0.02)),
            "above": np.clip((self._chart.place[..., 2] - glabella[2] + 0.008) / 0.02, 0, 1),
            "under_eye": self._pair(under, (0.014, 0.012, 0.0055)),
            "lids": self._pair(over, (0.014, 0.012, 0.006)),
            "ears": self._pair(ear + np.array([0.006, 0.012, 0.025]), (0.012, 0.022, 0.03)),
            "wings": self._pair(wing + np.array([0.001, 0.002, -0.003]), (0.006, 0.008, 0.006)),
            "moustache": self._blob(np.array([0, mouth[1], (mouth[2] + tip[2]) / 2 + 0.001]), (0.021, 0.02, 0.005)),
        }
        over_seam = np.clip((self._chart.place[..., 2] - mouth[2]) / 0.002, 0, 1).astype(np.float32)
        self.masks["upper_lip"] = self.masks["lips"] * over_seam
        # What little light comes out of: between the lips, in the nostrils, beside the wings, under the lower lip.
        rim = [at[f"{k}_corner_of_l_nostril"] for k in ("inner", "outer", "upper")]
        groove = at["center_of_labiomental_groove"]
        self.masks["seam"] = self._outline(face.lip_rings()[1], 2.0)
        self.masks["nostrils"] = self._pair(np.mean(rim, axis=0), (0.0040, 0.006, 0.0030))
        self.masks["alar"] = self._pair(at["l_outer_corner_of_nose"] + [0.003, 0.004, -0.003], (0.0028, 0.006, 0.006))
        self.masks["groove"] = self._blob(groove, (0.016, 0.015, 0.0035))
        # The roots of the lashes lie along a dark line, and the lid folds in at its crease.
        self.masks["lash"] = np.maximum(
            self._line(at, "upper_lash_line", 2.2), 0.5 * self._line(at, "lower_lash_line", 1.5)
        )
        self.masks["crease"] = self._line(at, "upper_crease_line", 3.0)
        self.masks["beard"] = self._beard(chin, ear, corner)
        self.masks["beard"] *= 1 - np.clip(self.masks["lips"] * 1.5, 0, 1)
        self.lines = self._wrinkles(at)
        self.freckled = np.clip(
            0.9 * self.masks["cheeks"] + 0.8 * self.masks["bridge"] + 0.5 * self.masks["nose"]
            + 0.35 * self.masks["forehead"] + 0.12 * self._front(), 0, 1,
        ) * (1 - np.clip(2 * self.masks["lips"] + self.masks["lids"], 0, 1))  # fmt: skip

    def texel(self, point: np.ndarray) -> np.ndarray:
        """(2,) x, y texels of the vertex of the chart nearest to ``point`` (3,)."""
        used = np.flatnonzero(~np.isnan(self._uv[:, 0]))
        near = used[np.linalg.norm(self._template[used] - point, axis=1).argsort()[:3]]
        far = np.maximum(np.linalg.norm(self._template[near] - point, axis=1), 1e-5)
        uv = (self._uv[near] / far[:, None]).sum(axis=0) / (1 / far).sum()
        return np.array([uv[0], 1 - uv[1]]) * self._chart.side - 0.5

    def _point(self, place: dict[int, float]) -> np.ndarray:
        return sum((self._template[v] * w for v, w in place.items()), np.zeros(3))

    def _blob(self, centre: np.ndarray, reach: tuple[float, float, float]) -> np.ndarray:
        d = (self._chart.place - np.float32(centre)) / np.array(reach, np.float32)
        return np.exp(-0.5 * np.einsum("ijk,ijk->ij", d, d)).astype(np.float32)

    def _pair(self, centre: np.ndarray, reach: tuple[float, float, float]) -> np.ndarray:
        return np.maximum(self._blob(centre, reach), self._blob(centre * [-1, 1, 1], reach))

    def _line(self, at: dict[str, np.ndarray], ending: str, blur_px: float) -> np.ndarray:
        """(S, S) float32, 1 along the points of ``at`` whose names end so, on both sides."""
        points = sorted((p for name, p in at.items() if name.endswith(ending)), key=lambda p: float(p[0]))
        made = np.zeros((self._chart.side,) * 2, np.float32)
        for side in (-1, 1):
            px = np.array([self.texel(p * [side, 1, 1]) for p in points]) * 16
            cv2.polylines(made, [np.rint(px).astype(np.int32)], False, (1.0,), 2, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(made, (0, 0), blur_px)
        return (soft / soft.max()).astype(np.float32)

    def _outline(self, ring: list[int], blur_px: float) -> np.ndarray:
        """(S, S) float32, 1 along the vertices of ``ring``."""
        made = np.zeros((self._chart.side,) * 2, np.float32)
        px = np.stack([self._uv[ring, 0], 1 - self._uv[ring, 1]], axis=1) * self._chart.side - 0.5
        cv2.polylines(made, [np.rint(px * 16).astype(np.int32)], True, (1.0,), 2, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(made, (0, 0), blur_px)
        return (soft / soft.max()).astype(np.float32)

    def _front(self) -> np.ndarray:
        return np.clip((self.eye[1] + 0.06 - self._chart.place[..., 1]) / 0.06, 0, 1).astype(np.float32)

    def _polygon(self, rings: list[list[int]]) -> np.ndarray:
        made = np.zeros((self._chart.side,) * 2, np.float32)
        for ring in rings:
            uv = self._uv[ring]
            px = (np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * self._chart.side - 0.5) * 16
            cv2.fillPoly(made, [np.rint(px).astype(np.int32)], (1.0,), lineType=cv2.LINE_AA, shift=4)
        return made

    def _beard(self, chin: np.ndarray, ear: np.ndarray, corner: np.ndarray) -> np.ndarray:
        """The upper lip, chin and jaw as a man's beard grows: up to the ears, down to the throat."""
        p = self._chart.place
        x, z = np.abs(p[..., 0]), p[..., 2]
        # The upper border runs from below the cheek at the mouth's corner to the ear's front.
        share = np.clip((x - corner[0]) / (ear[0] - corner[0]), 0, 1)
        top = (corner[2] + 0.006) + share**1.6 * (ear[2] + 0.035 - corner[2])
        low = chin[2] - 0.012 + 0.014 * share
        edge = np.clip((top - z) / 0.012, 0, 1) * np.clip((z - low) / 0.02, 0, 1)
        edge *= np.clip((ear[1] + 0.004 - p[..., 1]) / 0.012, 0, 1)
        return np.maximum(edge, self.masks["moustache"]).astype(np.float32)

    def _wrinkles(self, at: dict[str, np.ndarray]) -> list[Line]:
        """Forehead, frown, crow's feet, nose to mouth, mouth to chin, under the eyes, round the neck."""
        outer = at["l_outer_end_of_upper_lash_line"]
        wing, corner = at["outer_corner_of_l_nostril"], at["l_outer_corner_of_mouth"]
        glabella = at["center_of_glabella"]
        found: list[Line] = []
        for k, up in enumerate((0.021, 0.031, 0.040, 0.049)):
            x = np.linspace(-0.040 + 0.004 * k, 0.040 - 0.004 * k, 15)
            z = glabella[2] + up + 0.0022 * np.cos(x * 150) - 0.004 * (np.abs(x) / 0.04) ** 2
            found.append(("forehead", np.stack([x, np.full(15, glabella[1] + 0.006), z], 1), 0.0016, 0.00034))
        for side in (-1, 1):
            flip = np.array([side, 1, 1])
            in_m = side * 0.0062
            frown = [[in_m, glabella[1], glabella[2] - 0.002], [in_m * 1.15, glabella[1], glabella[2] + 0.013]]
            found.append(("frown", np.array(frown), 0.0015, 0.00040))
            for turn in np.radians([-38, -14, 10, 32]):
                s = np.linspace(0.005, 0.021, 6)
                way = np.stack([np.cos(turn) * s, s * 0.55, np.sin(turn) * s - 8 * s**2], 1)
                found.append(("crow", (outer + way) * flip, 0.0010, 0.00024))
            t = np.linspace(0, 1, 9)[:, None]
            start, end = wing + np.array([0.003, 0.002, 0.002]), corner + np.array([0.010, 0.003, -0.002])
            fold = start + t * (end - start) + np.array([0.006, 0.0, 0.0]) * np.sin(np.pi * t)
            found.append(("fold", fold * flip, 0.0026, 0.00075))
            down = corner + np.array([0.006, 0.002, -0.006])
            found.append(("mouth", (down + t * np.array([0.004, 0.004, -0.020])) * flip, 0.0018, 0.00035))
            for drop in (0.011, 0.016):
                low = at["l_centerpoint_of_lower_lash_line"]
                x = np.linspace(-0.013, 0.013, 9)
                z = low[2] - drop + 0.004 * (x / 0.013) ** 2
                bag = np.stack([low[0] + x, np.full(9, low[1] + 0.003), z], 1)
                found.append(("bag", bag * flip, 0.0018, 0.00034))
        lines = [(kind, np.array([self.texel(p) for p in at]), width, depth) for kind, at, width, depth in found]
        # Rings round the neck follow the map's own rows.
        for row in (0.075, 0.052):
            x = np.linspace(0.18, 0.82, 30) * self._chart.side
            y = (1 - row) * self._chart.side + 4 * np.sin(x / 60)
            lines.append(("neck", np.stack([x, y], 1), 0.0028, 0.0005))
        return lines


def _vertex_uv(chart: Chart, count: int) -> np.ndarray:
    uv = np.full((count, 2), np.nan)
    uv[chart.quads.ravel()] = np.mod(chart.uv.reshape(-1, 2), 1)
    return uv
