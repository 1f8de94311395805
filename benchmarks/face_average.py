"""Rendered and photographed faces laid on one another by landmarks -> where the rendered ones differ on average.

    python benchmarks/face_average.py --photos FOLDER --made SHEET [SHEET ...] [--across 4] [--picture OUT.png]

SHEETs are pictures like docs/faces.png, `--across` faces wide and high; FOLDER holds photographs. Needs mediapipe (Apache-2.0),
which wants older libraries than this project: `pip install mediapipe==0.10.14 scipy` in an environment of its own.
Of a sheet's every face the largest counts, of photographs all of 28 px and more; those that look aside are left out.
Brightness is in stops over the median of the whole face, eyes and lips included, a* and b* are CIELAB over its medians,
distances are shares of that between the outer corners of the eyes; all are medians over faces, distances with the standard
error that a median of normal values has. The last line is the mean of |difference| in brightness over the places.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import Delaunay

os.environ.setdefault("GLOG_minloglevel", "2")
import mediapipe

SIDE, LEAST_PX, LEAST_TURN = 160, 28, 0.45
# Landmarks of mediapipe's face mesh.
PLACES = {
    "brow": (105, 52, 66, 65, 334, 282, 296, 295),
    "cheek": (50, 280, 205, 425),
    "forehead": (151, 9, 108, 337),
    "under the eye": (119, 348, 230, 450),
    "nose": (4, 5, 195),
    "beside the nose": (198, 420, 209, 429),
    "moustache": (164, 167, 393),
    "upper lip": (37, 267, 0),
    "lower lip": (17, 84, 314),
    "chin": (199, 175),
    "jaw": (149, 378, 150, 379, 136, 365),
    "eye": (159, 145, 386, 374, 158, 153, 385, 380),
}
EYES = (33, 133, 362, 263)
SPANS = {
    "eyes to brows": (EYES, (65, 52, 105, 66, 295, 282, 334, 296)),
    "eyes to chin": (EYES, (152,)),
    "eyes to nose": (EYES, (2,)),
    "eyes to mouth": (EYES, (61, 291)),
    "cheeks": ((234,), (454,)),
    "jaw": ((150,), (379,)),
    "mouth": ((61,), (291,)),
    "eye open": ((159,), (145,)),
}


class Reader:
    """Finds faces and their meshes."""

    def __init__(self) -> None:
        solutions = mediapipe.solutions
        self._boxes = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
        self._mesh = solutions.face_mesh.FaceMesh(static_image_mode=True, min_detection_confidence=0.4)

    def faces(self, picture: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Crops (h, w, 3) uint8 BGR of the frontal faces of ``picture``, each with its landmarks (468, 2) px."""
        high, wide = picture.shape[:2]
        found = []
        for one in self._boxes.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).detections or []:
            box = one.location_data.relative_bounding_box
            reach = int(max(box.width * wide, box.height * high))
            x, y = int((box.xmin + box.width / 2) * wide), int((box.ymin + box.height / 2) * high)
            if reach < LEAST_PX:
                continue
            padded = cv2.copyMakeBorder(picture, *[reach] * 4, cv2.BORDER_REPLICATE)
            crop = padded[max(y, 0) : y + 2 * reach, max(x, 0) : x + 2 * reach]
            points = self._points(crop)
            if points is not None:
                found.append((crop, points))
        return found

    def _points(self, crop: np.ndarray) -> np.ndarray | None:
        scale = max(1.0, 192 / min(crop.shape[:2]))
        large = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        meshes = self._mesh.process(cv2.cvtColor(large, cv2.COLOR_BGR2RGB)).multi_face_landmarks
        if not meshes:
            return None
        points = np.array([[p.x, p.y] for p in meshes[0].landmark[:468]]) * crop.shape[1::-1]
        one, other = (float(np.linalg.norm(points[1] - points[k])) for k in (234, 454))
        return points if min(one, other) / max(one, other) > LEAST_TURN else None


def common(shapes: list[np.ndarray]) -> np.ndarray:
    """(468, 2) px: the mean of the shapes (468, 2), turned, shifted and scaled on to one another, in SIDE px."""

    def unit(points: np.ndarray) -> np.ndarray:
        points = points - points.mean(axis=0)
        return points / np.sqrt((points**2).sum() / len(points))

    mean = unit(shapes[0])
    for _ in range(6):
        turned = []
        for shape in map(unit, shapes):
            u, _, v = np.linalg.svd(shape.T @ mean)
            turned.append(shape @ (u @ v))
        mean = unit(np.mean(turned, axis=0))
    return (mean - mean.min(axis=0)) / np.ptp(mean, axis=0).max() * (SIDE - 12) + 6


def averaged(
    faces: list[tuple[np.ndarray, np.ndarray]], shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(SIDE, SIDE, 3) medians of stops, a* and b* of ``faces`` warped to ``shape``; their mean picture, BGR in [0, 1]; (N, 2)
    standard deviations of each face's light, and of its difference from itself mirrored.
    """
    net = Delaunay(shape)
    at = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2).astype(float)
    of = net.find_simplex(at)
    share = np.einsum("nij,nj->ni", net.transform[of, :2], at - net.transform[of, 2])
    share = np.column_stack([share, 1 - share.sum(axis=1)])
    inside, maps, pictures, light_of = (of >= 0).reshape(SIDE, SIDE), [], [], []
    weight = inside.astype(np.float32)
    both = inside & inside[:, ::-1]
    for crop, points in faces:
        where = np.einsum("nk,nkc->nc", share, points[net.simplices[of]]).reshape(SIDE, SIDE, 2).astype(np.float32)
        picture = cv2.remap(crop, where[..., 0], where[..., 1], cv2.INTER_LINEAR).astype(np.float32) / 255
        light = np.where(picture < 0.04, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
        stops = np.log2(light @ np.array([0.0722, 0.7152, 0.2126], np.float32) + 0.004)
        lab = cv2.cvtColor(picture, cv2.COLOR_BGR2LAB)
        values = np.dstack([stops, lab[..., 1:]])
        maps.append(values - np.median(values[inside], axis=0))
        pictures.append(picture)
        broad = cv2.GaussianBlur(stops * weight, (0, 0), SIDE / 12) / np.maximum(
            cv2.GaussianBlur(weight, (0, 0), SIDE / 12), 1e-3
        )
        light_of.append([broad[inside].std(), (broad - broad[:, ::-1])[both].std()])
    return np.median(maps, axis=0), np.mean(pictures, axis=0), np.array(light_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--made", type=Path, nargs="+", required=True)
    parser.add_argument("--across", type=int, default=4)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    reader, n = Reader(), given.across
    files = sorted(p for p in given.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    shown = [p for p in map(cv2.imread, map(str, files)) if p is not None]
    tiles = []
    for name in given.made:
        sheet = cv2.imread(str(name))
        if sheet is None:
            raise SystemExit(f"{name} cannot be read as a picture")
        high, wide = sheet.shape[0] // n, sheet.shape[1] // n
        tiles += [sheet[r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in range(n) for c in range(n)]
    tiles = [
        cv2.resize(t, None, fx=300 / t.shape[1], fy=300 / t.shape[1], interpolation=cv2.INTER_CUBIC) for t in tiles
    ]
    largest = [max(found, key=lambda f: np.ptp(f[1][:, 0])) for found in map(reader.faces, tiles) if found]
    faces = {"photographs": [f for p in shown for f in reader.faces(p)], "made": largest}
    print(", ".join(f"{len(found)} faces {name}" for name, found in faces.items()))
    if not all(faces.values()):
        raise SystemExit("nothing to compare: no frontal face on one of the sides")
    shape = common([points for found in faces.values() for _, points in found])
    results = {name: averaged(found, shape) for name, found in faces.items()}
    for name, (one, other) in SPANS.items():
        line = f"{name:16}"
        for kind, found in faces.items():
            values = [
                np.linalg.norm(p[list(one)].mean(axis=0) - p[list(other)].mean(axis=0)) / np.linalg.norm(p[33] - p[263])
                for _, p in found
            ]
            line += f"  {kind} {np.median(values):.3f} +- {1.25 * np.std(values) / len(values) ** 0.5:.3f}"
        print(line)
    for k, name in enumerate(("light varies", "light aside")):
        told = "".join(f"  {kind} {np.median(v[:, k]):.2f} stops" for kind, (_, _, v) in results.items())
        print(f"{name:16}{told}")
    apart = []
    for name, marks in PLACES.items():
        spots = np.rint(shape[list(marks)]).astype(int)
        values = {k: np.mean([m[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1)) for x, y in spots], axis=0)
                  for k, (m, _, _) in results.items()}  # fmt: skip
        apart.append(abs(values["made"][0] - values["photographs"][0]))
        print(
            f"{name:16}" + "".join(f"  {k} {v[0]:+.2f} stops a* {v[1]:+.1f} b* {v[2]:+.1f}" for k, v in values.items())
        )
    if given.picture:
        rows = [
            np.hstack([mean, np.dstack([np.clip(m[..., 0] / 4 + 0.5, 0, 1)] * 3)]) for m, mean, _ in results.values()
        ]
        cv2.imwrite(str(given.picture), np.vstack(rows) * 255)
    print(f"{np.mean(apart):.2f} stops apart")


if __name__ == "__main__":
    main()
