"""Forty drawn people -> docs/people.png, one crowd in four rows: `python docs/people.py [WIDTH] [SAMPLES]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from manifests.assets import AnnySource
from manifests.bodies import PosePrior
from manifests.frames import camera_centre, camera_rays, look_at
from manifests.job import Engine
from manifests.priors import LightPrior
from manifests.seeds import generator
from render import lighting, response
from render.assets.anny import AnnyPeople
from render.blender.engine import BlenderEngine
from render.placement import moved
from render.scene import Backdrop, Camera, Lamp, Scene
from render.strands import merged, merging

ROWS, ACROSS = 4, 10
# Metres between neighbours and between rows.
ASIDE, BEHIND = 1.0, 1.5
# Side of a slab of the ground, and half the width of what is between two, metres.
SLAB_M, JOINT_M = 0.6, 0.007
SEED = 11
# What people do on a square.
STREET = PosePrior(
    standing=5,
    walking=5,
    gesture=3,
    reaching=1,
    running=1,
    sitting=0.4,
    crouching=0.5,
    kneeling=0.2,
    sport=0.2,
    dance=0.4,
)


def crowd() -> list:
    """Forty people of the default prior in rows, each turned a little."""
    pool = AnnyPeople(AnnySource(count=ROWS * ACROSS, pose=STREET), SEED)
    people = []
    for j, (_, key, _) in enumerate(pool.identities()):
        rng = generator(SEED, "crowd", j)
        row, column = divmod(j, ACROSS)
        x = (column - (ACROSS - 1) / 2 + (0.25 if row % 2 else -0.25)) * ASIDE
        at = np.array([x, row * BEHIND]) + rng.uniform(-0.08, 0.08, 2)
        people.append(moved(pool.load(key, rng), float(rng.uniform(-0.6, 0.6)), at))
    return people


def camera(width: int) -> Camera:
    """Above the first row's heads, far enough to see all rows about equally large."""
    height = width * 2 // 5
    focal = 2.02 * width
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    middle = np.array([0.0, (ROWS - 1) / 2 * BEHIND - 0.15, 0.66])
    return Camera(K, look_at(middle + np.array([0.0, -22.0, 10.5]), middle), width, height, "full", "photographic")


def paving(view: Camera, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 sRGB: worn concrete slabs on the ground, as ``view`` sees them."""
    rays = camera_rays(view.K, view.width, view.height) @ view.world_to_camera[:3, :3]
    eye = camera_centre(view.world_to_camera)
    ground = (eye - rays * (eye[2] / rays[..., 2:]))[..., :2] / SLAB_M
    # Rows are staggered; each slab has its own grey, dust and stains lie across them.
    at = ground + np.stack([0.5 * (np.floor(ground[..., 1]) % 2), np.zeros(ground.shape[:2])], axis=-1)
    slab = np.floor(at).astype(int) % 64
    light = 0.17 * np.exp(0.10 * rng.normal(0, 1, (64, 64)))[slab[..., 0], slab[..., 1]]
    for cells, much in ((0.9, 0.10), (6.0, 0.07), (40.0, 0.06)):
        noise = rng.normal(0, 1, (256, 256))
        light *= np.exp(much * map_coordinates(noise, np.moveaxis(ground * cells, -1, 0), order=1, mode="grid-wrap"))
    joint = np.abs(at - np.rint(at)).min(axis=-1) * SLAB_M
    light *= 1 - 0.4 * np.clip(1.5 - joint / JOINT_M, 0, 1)
    return response.developed(light[..., None] * [1.04, 1.0, 0.93], view.response)


def main() -> None:
    width = int(sys.argv[1]) if len(sys.argv) > 1 else 1600
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    prior = LightPrior()
    maps = lighting.environments(prior, Path())
    light = lighting.draw_lighting(prior, maps, generator(SEED, "light"))
    light.strength *= 0.5
    way = np.array([0.55, 0.5, -1.2])
    light.lamps.append(Lamp("sun", np.zeros(3), way / np.linalg.norm(way), 2.2, 1.5))
    view = camera(width)
    ground = paving(view, generator(SEED, "ground"))
    people = crowd()
    people = merged(people, merging(people, view))
    scene = Scene(people, view, light, SEED, Backdrop("ground", ground, light.rights), True)
    with tempfile.TemporaryDirectory() as scratch:
        frame = BlenderEngine(Engine(samples=samples, denoiser="high"), 2, Path(scratch)).render(scene, None)
    picture = response.composite(frame.rgba, lighting.behind(scene), view.response)
    Image.fromarray(picture).save(Path(__file__).parent / "people.png", optimize=True)


if __name__ == "__main__":
    main()
