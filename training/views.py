"""A camera and a draw -> another camera at the same place: how a crop, turn, tilt, stretch or mirror of a picture is one
change of axes and intrinsics.

A view is (R, K): points go to R @ points_cam, pixels are K's. R is orthogonal; a mirror has determinant -1. Everything
that geometry needs follows from these two: where pixels come from, what normals, depth and keypoints become.
Frames and pixels as in manifests/frames.py. Legend: J keypoints.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from training.settings import Augment

# A photograph without intrinsics is taken to have a long side of this many focal lengths.
NOMINAL_FOCAL = 1.2


@dataclasses.dataclass(frozen=True)
class View:
    """``R``: (3, 3) float64 new camera axes from old. ``K``: (3, 3) float64 px of the new picture."""

    R: np.ndarray
    K: np.ndarray

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places."""
        return bool(np.linalg.det(self.R) < 0)

    def source_from_view(self, K: np.ndarray) -> np.ndarray:
        """(3, 3) float64: homogeneous px of the old picture, of intrinsics ``K``, from px of the new one."""
        return K @ self.R.T @ np.linalg.inv(self.K)


def nominal_intrinsics(width: int, height: int) -> np.ndarray:
    """(3, 3) float64 px of a centred camera for a picture of unknown intrinsics."""
    f = NOMINAL_FOCAL * max(width, height)
    return np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]])


def whole(K: np.ndarray, source: tuple[int, int], size: tuple[int, int]) -> View:
    """The whole picture of ``source`` (H, W) stretched to ``size`` (H, W)."""
    scale = np.diag([size[1] / source[1], size[0] / source[0], 1.0])
    return View(np.eye(3), scale @ K)


def draw(rng: np.random.Generator, K: np.ndarray, source: tuple[int, int], size: tuple[int, int], how: Augment) -> View:
    """A random crop of ``source`` (H, W) px that fills ``size`` (H, W) px, turned, tilted and mirrored as ``how`` allows."""
    height, width = source
    aspect = size[1] / size[0]
    largest = min(width, height * aspect)
    share = np.sqrt(rng.uniform(*how.crop))
    stretch = np.exp(rng.uniform(-how.stretch, how.stretch))
    crop_w = min(largest * share * stretch, width)
    crop_h = min(largest / aspect * share / stretch, height)
    centre = np.array([rng.uniform(crop_w / 2, width - crop_w / 2), rng.uniform(crop_h / 2, height - crop_h / 2), 1.0])
    turn = np.radians(how.rotate_deg * rng.uniform(-1, 1)) * (rng.random() < how.rotate_share)
    tilt = np.radians(how.tilt_deg * rng.uniform(-1, 1, 2))
    mirror = rng.random() < how.flip
    R = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0]) @ roll(turn) @ pan_tilt(*tilt)
    return aimed(R, K, centre[:2], (K[0, 0] * size[1] / crop_w, K[1, 1] * size[0] / crop_h), size)


def aimed(
    R: np.ndarray, K: np.ndarray, at_px: np.ndarray, focal_px: tuple[float, float], size: tuple[int, int]
) -> View:
    """The view with axes ``R`` and focal lengths ``focal_px`` in whose middle the old picture's pixel ``at_px`` (2,) lies."""
    ray = R @ np.linalg.inv(K) @ np.array([*at_px, 1.0])
    x, y = ray[:2] / ray[2]
    fx, fy = focal_px
    return View(R, np.array([[fx, 0, size[1] / 2 - fx * x], [0, fy, size[0] / 2 - fy * y], [0, 0, 1]]))


def roll(angle_rad: float) -> np.ndarray:
    """(3, 3): the picture's content turned clockwise by ``angle_rad`` about the optical axis."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def pan_tilt(pan_rad: float, tilt_rad: float) -> np.ndarray:
    """(3, 3): the camera turned about its own y axis, then its x axis."""
    c, s, d, t = np.cos(pan_rad), np.sin(pan_rad), np.cos(tilt_rad), np.sin(tilt_rad)
    pan = np.array([[c, 0, -s], [0, 1.0, 0], [s, 0, c]])
    return np.array([[1.0, 0, 0], [0, d, -t], [0, t, d]]) @ pan


def move_points(view: View, points_cam: np.ndarray) -> np.ndarray:
    """(J, 3) camera-frame metres of the old camera -> of the view's."""
    return points_cam @ view.R.T


def move_keypoints(
    view: View, K: np.ndarray, uv_px: np.ndarray, visibility: np.ndarray, size: tuple[int, int], pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of a picture of intrinsics ``K`` -> (J, 2) px of the view and (J,) visibility, 0 outside ``size`` (H, W).

    ``pairs``: (J,) int, the keypoint that each one is the mirror image of; a mirrored view makes them change places.
    """
    homogeneous = np.concatenate([uv_px, np.ones((len(uv_px), 1))], axis=1) @ np.linalg.inv(view.source_from_view(K)).T
    front = homogeneous[:, 2] > 0
    uv = homogeneous[:, :2] / np.where(front, homogeneous[:, 2], 1.0)[:, None]
    inside = front & (uv >= 0).all(axis=1) & (uv < np.array(size[::-1])).all(axis=1)
    seen = np.where(inside, visibility, 0)
    return (uv[pairs], seen[pairs]) if view.mirrored else (uv, seen)
