"""Every axis, flip and unit convention, and the conversions between them; nobody else knows one.

Camera frame (OpenCV): x right, y down, z forward, metres. World frame: right-handed, z up, metres (Blender's).
Pixels: pixel (0, 0)'s centre is (0.5, 0.5), u right, v down, so a centred principal point is (W/2, H/2).
``world_to_camera`` is a (4, 4) float64 rigid transform: points_cam = R @ points_world + t.
Normals are stored in the camera frame (OpenCV); OpenGL's camera frame (x right, y up, z to the viewer) is (1, -1,
-1) times it.

Legend: N points, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

NORMAL_FRAME = "opencv_camera"
OPENGL_FROM_OPENCV = np.array([1.0, -1.0, -1.0])
Z_UP_FROM_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
BLENDER_SENSOR_MM = 36.0


def opengl_from_opencv(vectors: np.ndarray) -> np.ndarray:
    """Camera-frame vectors (..., 3) from OpenCV axes to OpenGL axes; its own inverse."""
    return vectors * OPENGL_FROM_OPENCV.astype(vectors.dtype)


def indexed_pixels(uv: np.ndarray) -> np.ndarray:
    """(..., 2) px of a file format that counts from pixel centres, the first centre being (0, 0); ours is (0.5, 0.5)."""
    return np.asarray(uv) - 0.5


def indexed_intrinsics(K: np.ndarray) -> np.ndarray:
    """(3, 3) float64 px: ``K`` for readers that take a pixel's index for the place of its centre (no + 0.5)."""
    shifted = np.array(K, np.float64)
    shifted[:2] -= 0.5 * shifted[2]
    return shifted


def camera_rays(K: np.ndarray, width: int, height: int, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """(H, W, 3) float64 camera-frame directions through the pixel centres, scaled to z = 1.

    A surface point at planar depth z lies at ``z * direction``. ``K``: (3, 3) px, skew allowed. ``box``: x0, y0, x1, y1
    px (half open), for its (y1 - y0, x1 - x0, 3) part alone.
    """
    x0, y0, x1, y1 = box or (0, 0, width, height)
    a = np.linalg.inv(np.asarray(K, np.float64))
    across = (np.arange(x0, x1) + 0.5)[:, None] * a[:, 0] + a[:, 2]
    down = (np.arange(y0, y1) + 0.5)[:, None] * a[:, 1]
    return down[:, None] + across[None]


def to_camera(points_world: np.ndarray, world_to_camera: np.ndarray) -> np.ndarray:
    """(N, 3) float64 camera-frame metres from (N, 3) world metres."""
    return points_world @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]


def camera_centre(world_to_camera: np.ndarray) -> np.ndarray:
    """(3,) float64 world metres: where the camera stands."""
    return -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]


def project(points_world: np.ndarray, K: np.ndarray, world_to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole projection: (N, 2) float64 px and (N,) float64 planar depth in metres; behind the camera z <= 0."""
    points_cam = to_camera(np.asarray(points_world, np.float64), world_to_camera)
    z = points_cam[:, 2]
    uvw = points_cam @ np.asarray(K, np.float64).T
    safe = np.where(np.abs(z) < 1e-12, 1e-12, z)
    return uvw[:, :2] / safe[:, None], z


def point_map(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(H, W, 3) float64 camera-frame metres from (H, W) planar depth in metres."""
    height, width = depth.shape
    return camera_rays(K, width, height) * depth[..., None]


def look_at(eye: np.ndarray, target: np.ndarray, roll_rad: float = 0.0) -> np.ndarray:
    """(4, 4) float64 world_to_camera for a camera at ``eye`` (3,) looking at ``target`` (3,), world metres.

    The image's up is the world's z, then the camera turns by ``roll_rad`` about its optical axis (clockwise content).
    """
    forward = np.asarray(target, np.float64) - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-9:
        raise ValueError("look_at: the view direction is parallel to the world's z axis")
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ np.stack([right, down, forward])
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation
    world_to_camera[:3, 3] = -rotation @ eye
    return world_to_camera


def blender_matrix_world(world_to_camera: np.ndarray) -> np.ndarray:
    """(4, 4) float64 ``matrix_world`` of a Blender camera (x right, y up, looking down -z) at the same pose."""
    camera_to_world = np.linalg.inv(world_to_camera)
    camera_to_world[:3, :3] = camera_to_world[:3, :3] * OPENGL_FROM_OPENCV
    return camera_to_world


def blender_intrinsics(K: np.ndarray, width: int, height: int) -> dict[str, float]:
    """Blender's lens, shift and pixel aspect for a zero-skew ``K`` (3, 3) px.

    With sensor_fit HORIZONTAL and sensor_width 36 mm, Blender's focal length in px is lens * W / 36 along x and that
    times aspect_x / aspect_y along y; shifts are in units of the image width (manual, Camera > Shift).
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    return {
        "lens_mm": float(fx * BLENDER_SENSOR_MM / width),
        "shift_x": float((width / 2 - cx) / width),
        "shift_y": float((cy - height / 2) * (fx / fy) / width),
        "aspect_x": float(max(1.0, fy / fx)),
        "aspect_y": float(max(1.0, fx / fy)),
    }


def equirect_uv(directions_world: np.ndarray, yaw_rad: float) -> np.ndarray:
    """(..., 2) in [0, 1), float32 or float64 as given: where a world direction (..., 3) falls on an equirectangular map turned by
    ``yaw_rad``.

    u = 0.5 - atan2(y, x) / 2 pi, v = acos(z) / pi with v = 0 the top row (zenith): Cycles' mapping of an Environment
    Texture (kernel/geom, direction_to_equirectangular). ``yaw_rad`` turns the environment counter-clockwise about z.
    """
    x, y, z = np.moveaxis(directions_world, -1, 0)
    u = 0.5 - (np.arctan2(y, x) - yaw_rad) / (2 * np.pi)
    v = 0.5 - np.arctan2(z, np.hypot(x, y)) / np.pi
    return np.stack([np.mod(u, 1.0), np.clip(v, 0.0, 1.0)], axis=-1)
