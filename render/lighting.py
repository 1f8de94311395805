"""Environment maps -> a drawn light for the engines, and the background pixels behind the people."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.errors import InputError
from manifests.frames import camera_rays, equirect_uv, to_camera
from manifests.priors import LightPrior
from render import response
from render.scene import Backdrop, Camera, Lamp, Lighting, Scene
from render.textures import NEAREST_M

SUFFIXES = (".exr", ".hdr")
# Mean radiance that strength 1 brings any map to: white cloth in the open then stays just under clipping.
MEAN_RADIANCE = 0.7
# What a metering camera brings matt white that faces it to, and how much of the way, in stops: cameras stop short of it.
METERED, METERED_SHARE = 0.9, 0.85
# How much of the light's own colour white balance takes away: evenings stay warm.
BALANCED_SHARE = 0.75
# No camera sees by a map that is all but black, nor before one that is a lamp.
MOST_GAIN = 16.0
# From so many pixels a texel on the background is out of focus; radius of the disc.
COARSE_PX, OPEN_TEXELS = 3.0, 0.7
# Columns of the map that Cycles lights by. At the most a texel (0.35 degrees) is narrower than the sun (0.53); reflections
# in eyes show no more than the least.
LEAST_PX, MOST_PX = 256, 1024
# How far what throws a visible shadow is from what it falls on: on people themselves, and on the ground.
REACH_M, GROUND_REACH_M = 0.1, 1.0
# Where area lamps point.
CHEST_M = 1.2


def environments(prior: LightPrior, root: Path) -> list[tuple[str, Path, str]]:
    """(id, file, sha256) of every map, sorted by id. Raises InputError when there is none."""
    if prior.environments == "bundled":
        spec = importlib.util.find_spec("bpy")
        if spec is None or spec.origin is None:
            raise InputError(
                "render.lighting.environments: `bundled` maps come with bpy, which is not installed; install maquette[render]"
            )
        files = sorted(Path(spec.origin).parent.glob("*/datafiles/studiolights/world/*.exr"))
    else:
        folder = root / prior.environments
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise InputError(
            f"render.lighting.environments: no .exr or .hdr file in {prior.environments} (looked in {root})"
        )
    return [(f.stem, f, _sha256(f)) for f in files]


def draw_lighting(prior: LightPrior, maps: list[tuple[str, Path, str]], rng: np.random.Generator) -> Lighting:
    """One map, its yaw and strength. Maps are brought to one mean radiance, so that `strength` means the same on
    each.
    """
    name, path, _ = maps[rng.integers(len(maps))]
    yaw = float(rng.uniform(0, 360))
    strength = float(rng.uniform(*prior.strength)) * MEAN_RADIANCE / mean_radiance(str(path))
    bundled = prior.environments == "bundled"
    rights = {
        "id": f"environment/{name}",
        "source": "Poly Haven, in bpy" if bundled else str(prior.environments),
        "licence": "CC0-1.0" if bundled else prior.licence,
        "consent": "no people",
        "redistributable": bundled or prior.redistributable,
    }
    return Lighting(name, str(path), yaw, strength, rights, draw_lamps(prior, rng))


def draw_lamps(prior: LightPrior, rng: np.random.Generator) -> list[Lamp]:
    """A sun, area lamps, both or none, as the prior's shares say."""
    lamps = []
    if rng.random() < prior.sun.share:
        azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(*prior.sun.elevation_deg))
        away = -np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        strength, size = float(rng.uniform(*prior.sun.strength)), float(rng.uniform(*prior.sun.angle_deg))
        lamps.append(Lamp("sun", np.zeros(3), away, strength, size))
    if rng.random() < prior.area.share:
        for _ in range(rng.integers(prior.area.count[0], prior.area.count[1] + 1)):
            azimuth, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*prior.area.distance_m)
            position = np.array([np.cos(azimuth) * distance, np.sin(azimuth) * distance, rng.uniform(0.8, 2.6)])
            direction = np.array([0.0, 0.0, CHEST_M]) - position
            direction /= np.linalg.norm(direction)
            power, side = float(rng.uniform(*prior.area.power_w)), float(rng.uniform(*prior.area.size_m))
            lamps.append(Lamp("area", position, direction, power, side))
    return lamps


def metered(lighting: Lighting, camera: Camera, ev: float = 0.0) -> Lighting:
    """``lighting`` at the strength at which what faces ``camera`` is exposed as a photographer would have it, and ``ev``
    stops more.
    """
    found = float(_on_subject(lighting, camera) @ response.LUMA)
    gain = 2**ev * float(np.clip((METERED / max(found, 1e-3)) ** METERED_SHARE, 1 / MOST_GAIN, MOST_GAIN))
    lamps = [dataclasses.replace(lamp, strength=lamp.strength * gain) for lamp in lighting.lamps]
    return dataclasses.replace(lighting, strength=lighting.strength * gain, lamps=lamps)


def balanced(lighting: Lighting, camera: Camera) -> Lighting:
    """``lighting`` of the colour in which what faces ``camera`` is nearly white, as bright as before."""
    found = np.maximum(_on_subject(lighting, camera), 1e-6)
    # Of light without one colour no gain makes any.
    gains = np.maximum(found / (found @ response.LUMA), 1 / MOST_GAIN) ** -BALANCED_SHARE
    gains *= (found @ response.LUMA) / ((found * gains) @ response.LUMA)
    red, green, blue = (float(a * b) for a, b in zip(lighting.gains, gains))
    return dataclasses.replace(lighting, balance=(red, green, blue))


def _on_subject(lighting: Lighting, camera: Camera) -> np.ndarray:
    """(3,) linear: what matt white towards the camera, and 27 degrees up and to both sides of it, sends back unshadowed."""
    right, down, ahead = camera.world_to_camera[:3, :3]
    normals = np.stack([-ahead, -ahead - down / 2, -ahead - right / 2, -ahead + right / 2])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return irradiance(lighting, normals).mean(axis=0)


def described(lighting: Lighting, backdrop: Backdrop | None) -> dict[str, Any]:
    """The `lighting` field of a sample."""
    lamps = [
        {
            "kind": lamp.kind,
            "position": np.round(lamp.position, 5).tolist(),
            "direction": np.round(lamp.direction, 5).tolist(),
            "strength": round(lamp.strength, 5),
            "size": round(lamp.size, 5),
        }
        for lamp in lighting.lamps
    ]
    return {
        "environment": lighting.environment,
        "yaw_deg": lighting.yaw_deg,
        "strength": lighting.strength,
        "lamps": json.dumps(lamps) if lamps else None,
        "backdrop": backdrop.name if backdrop else None,
    }


@functools.lru_cache(maxsize=8)
def read_map(path: str) -> np.ndarray:
    """(h, w, 3) float32 linear Rec.709 radiance of an equirectangular .exr or .hdr, row 0 at the zenith."""
    if path.lower().endswith(".exr"):
        import OpenEXR

        with OpenEXR.File(path, separate_channels=True) as file:
            channels = file.channels()
            return np.stack([channels[c].pixels for c in "RGB"], axis=-1).astype(np.float32)
    bgr = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if bgr is None:
        raise InputError(f"environment {path}: not readable as an HDR picture")
    return np.ascontiguousarray(bgr[..., 2::-1], np.float32)


@functools.lru_cache(maxsize=64)
def mean_radiance(path: str) -> float:
    """Mean luminance of a map over the sphere."""
    picture = read_map(path)
    rows = np.sin((np.arange(len(picture)) + 0.5) / len(picture) * np.pi)
    luminance = (picture @ response.LUMA).mean(axis=1)
    return max(float((luminance * rows).sum() / rows.sum()), 1e-4)


def light_map(scene: Scene) -> np.ndarray:
    """(h, w, 3) float32 linear, row 0 at the zenith: the scene's map, no finer than its frame can show.

    A texel widens the edge of a shadow by its own angle times the way from what throws it: about a pixel here, up to
    MOST_PX columns. The background is taken from the whole map (`behind`).
    """
    camera, picture = scene.camera, read_map(scene.lighting.path)
    depths = [to_camera(p.mesh.vertices, camera.world_to_camera)[:, 2] for p in scene.people]
    nearest = min((float(z[z > NEAREST_M].min(initial=np.inf)) for z in depths), default=np.inf)
    texel = nearest / camera.K[0, 0] / (GROUND_REACH_M if scene.shadows else REACH_M)
    finest = 2 ** np.round(np.log2(2 * np.pi / texel)) if np.isfinite(texel) else LEAST_PX
    width = int(np.clip(finest, LEAST_PX, MOST_PX))
    return _smaller(scene.lighting.path, width) if width < picture.shape[1] else picture


# Views of one scene share a map; more than that is memory that grows with every map and width.
@functools.lru_cache(maxsize=2)
def _smaller(path: str, width: int) -> np.ndarray:
    picture = read_map(path)
    height = max(round(width * picture.shape[0] / picture.shape[1]), 1)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def background(camera: Camera, lighting: Lighting) -> np.ndarray:
    """(H, W, 3) float32 linear radiance that each pixel's centre sees of the environment: of the whole map, whatever Cycles
    lights by.
    """
    # Half the time of float64, and right within 1e-3 px of a 16k map.
    directions = camera_rays(camera.K, camera.width, camera.height).astype(np.float32)
    directions = directions @ camera.world_to_camera[:3, :3].astype(np.float32)
    uv = equirect_uv(directions, np.radians(lighting.yaw_deg))
    picture = read_map(lighting.path)
    height, width = picture.shape[:2]
    x, y = (uv[..., 0] * width - 0.5).astype(np.float32), (uv[..., 1] * height - 0.5).astype(np.float32)
    padded = np.concatenate([picture[:, -1:], picture, picture[:, :1]], axis=1)
    seen = cv2.remap(padded, x + 1, np.clip(y, 0, height - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen * np.asarray(lighting.gains, np.float32) * np.float32(lighting.strength)


def behind(scene: Scene) -> np.ndarray:
    """(H, W, 3) float32 linear: what shows where nobody is, the photograph or the environment.

    An environment so near that its texels would show as tiles is out of focus instead: a disc of OPEN_TEXELS round each
    pixel with a soft edge, as behind a portrait taken by an open lens.
    """
    camera = scene.camera
    if scene.backdrop is not None:
        return response.radiance(scene.backdrop.picture, camera.response)
    texel_px = camera.K[0, 0] * 2 * np.pi / read_map(scene.lighting.path).shape[1]
    if texel_px < COARSE_PX:
        return background(camera, scene.lighting)
    # Pixels of half a texel are plenty for what is spread over more than one.
    width, height = (max(round(2 * side / texel_px), 8) for side in (camera.width, camera.height))
    K = np.diag([width / camera.width, height / camera.height, 1]) @ camera.K
    seen = background(dataclasses.replace(camera, K=K, width=width, height=height), scene.lighting)
    at = np.arange(-np.ceil(2 * OPEN_TEXELS), np.ceil(2 * OPEN_TEXELS) + 1)
    disc = np.clip(2 * OPEN_TEXELS + 0.5 - np.hypot(at[:, None], at), 0, 1)
    seen = cv2.filter2D(seen, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    seen = cv2.resize(seen, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    # Without the creases of a linear ramp, and without a cubic one's black rings round lamps.
    return cv2.GaussianBlur(seen, (0, 0), 0.35 * camera.width / width, borderType=cv2.BORDER_REFLECT)


@functools.lru_cache(maxsize=64)
def _harmonics(path: str) -> np.ndarray:
    """(9, 3) float64: a map's light on a matt white surface, in real spherical harmonics up to order 2.

    Coefficients of the radiance, each order times its share of the cosine lobe (Ramamoorthi and Hanrahan 2001) and
    over pi: what is left is within 3 % of the exact integral for natural light.
    """
    picture = cv2.resize(read_map(path), (128, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    azimuth = (0.5 - (np.arange(128) + 0.5) / 128) * 2 * np.pi
    polar = (np.arange(64) + 0.5)[:, None] / 64 * np.pi
    across = np.sin(polar)
    directions = np.stack(
        [across * np.cos(azimuth), across * np.sin(azimuth), np.broadcast_to(np.cos(polar), (64, 128))], axis=-1
    )
    solid_angle = across * (np.pi / 64) * (2 * np.pi / 128)
    weighted = (picture * solid_angle[..., None]).reshape(-1, 3)
    lobe = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])
    return lobe[:, None] * (_basis(directions.reshape(-1, 3)).T @ weighted)


def _basis(d: np.ndarray) -> np.ndarray:
    """(N, 9) real spherical harmonics of unit directions (N, 3)."""
    x, y, z = d.T
    first, second = 0.488603, 1.092548
    rows = [np.full(len(d), 0.282095), first * y, first * z, first * x]
    rows += [second * x * y, second * y * z, 0.315392 * (3 * z * z - 1), second * x * z, 0.546274 * (x * x - y * y)]
    return np.stack(rows, axis=1)


def irradiance(lighting: Lighting, normals: np.ndarray) -> np.ndarray:
    """(N, 3) float64 linear: what a matt white surface with unit world ``normals`` (N, 3) sends back, unshadowed.

    Area lamps count as points seen from chest height over the origin: for previews and for metering, not for pictures.
    """
    c, s = np.cos(np.radians(lighting.yaw_deg)), np.sin(np.radians(lighting.yaw_deg))
    in_map = normals.astype(np.float64) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    # Order 2 rings below zero opposite a strong sun.
    light = np.maximum(_basis(in_map) @ _harmonics(lighting.path), 0.0) * lighting.strength
    # Lamps are white.
    for lamp in lighting.lamps:
        facing = np.clip(-normals @ lamp.direction, 0, 1)[:, None]
        if lamp.kind == "sun":
            light = light + facing * lamp.strength / np.pi
        else:
            # A flat lamp of P watts sends P / pi per steradian straight ahead.
            distance = np.linalg.norm(lamp.position - [0.0, 0.0, CHEST_M])
            light = light + facing * lamp.strength / (np.pi * distance) ** 2
    return light * lighting.gains


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
