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
LOOKING = PosePrior(standing=1, walking=0, running=0, sitting=0, crouching=0, kneeling=0, reaching=0, sport=0, dance=0,
                    gesture=0)  # fmt: skip


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
    """In front of the face, a little to one side, as a portrait lens sees it."""
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
    turn = rng.uniform(-0.55, 0.55)
    way = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) @ ahead
    target = np.array([eyes[0], eyes[1], (top[2] + chin[2]) / 2 - 0.06 * tall]) - ahead * 0.03
    focal = 2.36 * height
    distance = 1.55 * tall / height * focal
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    eye = target + way * distance + np.array([0, 0, distance * rng.uniform(-0.06, 0.12)])
    return Camera(K, look_at(eye, target), width, height, "face")


def portrait(engine: BlenderEngine, number: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    someone = person(number)
    rng = generator(SEED, "portrait", number)
    view = camera(someone, width, rng)
    prior = LightPrior(strength=(0.5, 0.8))
    light = lighting.draw_lighting(prior, lighting.environments(prior, Path()), rng)
    way = np.array([rng.uniform(-0.8, 0.8), 0.7, rng.uniform(-1.0, -0.4)])
    light.lamps.append(Lamp("sun", np.zeros(3), way / np.linalg.norm(way), float(rng.uniform(0.8, 2.0)), 6.0))
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
