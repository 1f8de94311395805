"""Sixteen drawn faces -> docs/faces.png: `python docs/faces.py [WIDTH] [SAMPLES] [FIRST] [LAST] [OUT]`.

Each is a close-up of 3:4, 768x1024 at WIDTH 768, every age, tone and kind of hair; on the sheet they stand at half size.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from manifests.assets import AnnySource
from manifests.bodies import BodyPrior, PosePrior
from manifests.frames import look_at
from manifests.job import Engine
from manifests.priors import LightPrior
from manifests.seeds import generator
from render import lighting
from render.assets.anny import AnnyPeople
from render.blender.engine import BlenderEngine
from render.scene import Camera, Lamp, PersonMesh, Scene

SEED, ACROSS = 23, 4
# Years, sex and Monk tone of each.
WHO = (
    (7, "female", 2), (24, "male", 9), (33, "female", 3), (68, "male", 2),
    (19, "female", 8), (45, "male", 5), (3, "male", 6), (74, "female", 4),
    (29, "female", 10), (38, "male", 1), (58, "female", 7), (13, "male", 4),
    (83, "male", 8), (27, "female", 5), (50, "male", 3), (22, "female", 1),
)  # fmt: skip
LOOKING = PosePrior(standing=3, walking=0, running=0, sitting=0, crouching=0, kneeling=0, reaching=0.5, sport=0, dance=0,
                    gesture=2)  # fmt: skip


def person(number: int) -> PersonMesh:
    """One of WHO."""
    years, sex, tone = WHO[number]
    body = BodyPrior(
        age_years={f"{years}-{years + 1}": 1},
        sex={sex: 1},
        skin_tone={tone: 1},
        build={"slim": 1, "average": 3, "heavy": 1},
    )
    people = AnnyPeople(AnnySource(count=1, body=body, pose=LOOKING), SEED + number)
    return people.load("0", generator(SEED, "face", number))


def camera(someone: PersonMesh, width: int, rng: np.random.Generator) -> Camera:
    """Before the face or to its side, near or some steps back and seldom quite level, as people are photographed."""
    height = width * 4 // 3
    assert someone.keypoints is not None
    points = someone.bones or {}
    eyes = (np.array(points["eye.L"]) + np.array(points["eye.R"])) / 2
    top, chin = someone.landmarks["head_top"], someone.landmarks["chin"]
    tall = float(top[2] - chin[2])
    across = np.array(points["eye.L"]) - np.array(points["eye.R"])
    ahead = np.cross(across, [0, 0, 1.0])
    ahead[2] = 0
    ahead = -ahead / np.linalg.norm(ahead) if ahead[1] > 0 else ahead / np.linalg.norm(ahead)
    turn = rng.choice([-1, 1]) * rng.beta(1.2, 2.2) * 1.45
    way = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) @ ahead
    target = np.array([eyes[0], eyes[1], (top[2] + chin[2]) / 2 - 0.06 * tall]) - ahead * 0.03
    aside = np.array([-way[1], way[0], 0])
    wide = 1.35 * 1.7 ** rng.beta(1, 1.6)
    target = (
        target + aside * rng.uniform(-0.22, 0.22) * tall * wide / 1.5 - np.array([0, 0, (wide - 1.35) * 0.3 * tall])
    )
    focal = 2.36 * height
    distance = wide * tall / height * focal
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    eye = target + way * distance + np.array([0, 0, distance * rng.uniform(-0.06, 0.12)])
    tilt = rng.normal(0, 0.05)
    rolled = np.eye(4)
    rolled[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return Camera(K, rolled @ look_at(eye, target), width, height, "face")


def portrait(engine: BlenderEngine, number: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    someone = person(number)
    rng = generator(SEED, "portrait", number)
    view = camera(someone, width, rng)
    # One light in three is a lamp near by or the low sun: hard, with deep shadows; the rest is mild.
    hard = rng.random() < 0.4
    prior = LightPrior(strength=(0.3, 0.45) if hard else (0.6, 1.1))
    light = lighting.draw_lighting(prior, lighting.environments(prior, Path()), rng)
    # Down, and with the camera's view or across it.
    ahead = view.world_to_camera[2, :3] * [1, 1, 0]
    swing = rng.choice([-1, 1]) * rng.uniform(0.5, 1.3)
    way = np.array([np.cos(swing) * ahead[0] - np.sin(swing) * ahead[1], np.sin(swing) * ahead[0] + np.cos(swing) * ahead[1],
                    rng.uniform(-0.8, -0.3)])  # fmt: skip
    power = float(rng.uniform(2.4, 3.8) if hard else rng.uniform(0.6, 1.6))
    light.lamps.append(Lamp("sun", np.zeros(3), way / np.linalg.norm(way), power, 1.5 if hard else 8.0))
    scene = Scene([someone], view, light, SEED + number)
    frame = engine.render(scene, None)
    return lighting.composite(frame.rgba, lighting.behind(scene))


def main() -> None:
    given = sys.argv[1:]
    width, samples = (int(v) for v in (given + ["768", "32"][len(given) :])[:2])
    first, last = (int(v) for v in (given[2:] + ["0", str(len(WHO))][len(given[2:]) :])[:2])
    out = Path(given[4]) if len(given) > 4 else Path(__file__).parent / "faces.png"
    with tempfile.TemporaryDirectory() as scratch:
        engine = BlenderEngine(Engine(samples=samples, denoiser="balanced"), 2, Path(scratch))
        found = [portrait(engine, k, width) for k in range(first, last)]
    if width > 400:
        found = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in found]
    blank = np.full_like(found[0], 255)
    found += [blank] * (-len(found) % min(ACROSS, len(found)))
    across = min(ACROSS, len(found))
    rows = [np.hstack(found[k : k + across]) for k in range(0, len(found), across)]
    Image.fromarray(np.vstack(rows)).save(out, optimize=True)


if __name__ == "__main__":
    main()
