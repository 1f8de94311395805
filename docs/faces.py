"""Sixteen drawn faces -> docs/faces.png: `python docs/faces.py [WIDTH] [SAMPLES] [FIRST] [LAST] [OUT] [SKINS] [MAPS]`.

Each is a close-up of 3:4, 768x1024 at WIDTH 768, every age and tone and many kinds of hair; on the sheet they stand at half size.
SKINS is a folder of photographed skins, as a job's `skins.textures`; MAPS one of environments, as its `lighting.environments`.

The sheet's are CC0: of MakeHuman `middleage_darkskinned_male`, `middleage_lightskinned_{male,male2,female2}`,
`old_darkskinned_male`, `young_darkskinned_male`, `young_lightskinned_{male,male2,male3,female2,female3}`; of Poly Haven, 1k,
aerodynamics_workshop, brown_photostudio_01, _02, _06, _07, chinese_garden, christmas_photo_studio_07, circus_arena,
forest_slope, immenstadter_horn, leadenhall_market, modern_buildings_2, phalzer_forest_01, potsdamer_platz, rainforest_trail,
rooitou_park, st_fagans_interior, thatch_chapel, vestibule (github.com/gkjohnson/3d-demo-data and pmndrs/drei-assets), and
esplanade, lab, sunrise, sunset, venice as github.com/pmndrs/assets calls them.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from manifests.accessories import AccessoriesPrior
from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.clothes import ClothesPrior
from manifests.frames import camera_centre, look_at
from manifests.hair import HairPrior
from manifests.job import Engine
from manifests.keypoints import SETS
from manifests.priors import LightPrior
from manifests.seeds import generator
from manifests.skins import SkinPrior
from render import lighting, response
from render.assets.anny import AnnyPeople
from render.blender.engine import BlenderEngine
from render.placement import moved
from render.scene import Camera, Lamp, Lighting, PersonMesh, Scene
from render.strands import merged, merging

SEED, ACROSS = 53, 4
# Of these faces another draw than SEED's was chosen by eye, of three or four. Nobody has another's seed plus number.
CHOSEN = {2: 61, 5: 62, 7: 62, 8: 62, 10: 61, 11: 62, 14: 62}
# Who has company in the picture, and how many more stand behind: few photographs show one person alone.
BESIDE = (0, 1, 4, 5, 7, 9, 10, 13, 15)
BEHIND = (1, 2, 1, 2, 0, 1, 0, 2, 1, 0, 2, 2, 1, 0, 3, 1)
# Stops between both halves of a face, of two in three at most: light on photographs' faces differs half as much as it does where
# people turn anyhow (benchmarks/face_average.py).
UNEVEN = 0.5
# Up to this Monk tone skin is lighter than most of a picture, and by how many stops.
FAIR, FAIR_STOPS = 4, 0.4
# Years, sex, Monk tone, hair and leading ancestry of each: all ten tones, on faces that have them.
WHO = (
    (7, "female", 3, "curly_long", "caucasian"), (24, "male", 9, "buzz", "african"),
    (33, "female", 6, "wavy", "asian"), (68, "male", 2, "side_part", "caucasian"),
    (19, "female", 8, "afro", "african"), (45, "male", 5, "side_part", "caucasian"),
    (3, "male", 7, "curly_short", "african"), (74, "female", 4, "curly_short", "caucasian"),
    (29, "female", 10, "braids", "african"), (38, "male", 1, "messy", "caucasian"),
    (58, "female", 7, "bun", "african"), (13, "male", 4, "messy", "asian"),
    (83, "male", 8, "coils", "african"), (27, "female", 5, "long", "asian"),
    (50, "male", 7, "bald", "african"), (22, "female", 2, "fringe_bob", "asian"),
)  # fmt: skip
LOOKING = PosePrior(standing=0.5, walking=0.5, running=0, sitting=1, crouching=0, kneeling=0, reaching=1.5, sport=0.5, dance=1,
                    gesture=2, faces={"happy": 5, "neutral": 1.5, "speech": 1.5})  # fmt: skip
# Cut closer than the default; fewer coats and hats.
WORN = ClothesPrior(coat=0.1, patterns={"plain": 3, "stripes": 0.7, "checks": 1, "print": 2}, fit=(0.0, 0.35),
                    hats={"none": 30, "cap": 1, "beanie": 1, "brimmed": 0.5})  # fmt: skip
BEARDS = {"none": 2, "stubble": 3, "short": 2, "full": 1.5, "goatee": 0.5}
WITH = AccessoriesPrior(eyewear={"none": 7, "glasses": 2.5, "sunglasses": 0.3})
# Degrees that the eyes lie above the skull's joint, of those who hold their heads level; and who is asked how often to do so.
UPRIGHT, TRIES = (4.0, 40.0), 16
# Hands stay so far below the chin: close by they are what a close-up is not about.
HANDS_M = -0.15
# Share of pictures with a lamp beside the surroundings' own light, and of those by a flash.
HARD, FLASH = 0.6, 0.65
# Share of people who look at the camera.
LOOKS = 0.4
STANDING = PosePrior(**{f: float(f == "standing") for f in FAMILIES})


def person(number: int, skins: SkinPrior) -> PersonMesh:
    """One of WHO."""
    years, sex, tone, style, ancestry = WHO[number]
    body = BodyPrior(
        age_years={f"{years}-{years + 1}": 1},
        sex={sex: 1},
        skin_tone={tone: 1},
        ancestry={ancestry: 1},
        build={"slim": 1, "average": 3, "heavy": 1},
    )
    hair = HairPrior(female={style: 1}, male={style: 1}, beards=BEARDS)
    source = AnnySource(count=1, body=body, pose=LOOKING, clothes=WORN, hair=hair, accessories=WITH, skins=skins)
    seed = CHOSEN.get(number, SEED)
    people = AnnyPeople(source, seed + number)
    rng = generator(seed, "face", number)
    for _ in range(TRIES):
        someone = people.load("0", rng)
        if UPRIGHT[0] < nod(someone) < UPRIGHT[1] and hands(someone) < HANDS_M:
            break
    return someone


def facing(someone: PersonMesh) -> tuple[np.ndarray, np.ndarray]:
    """(3,) midpoint between the eyes and (3,) unit level direction of the face, world."""
    points = someone.bones or {}
    left, right = np.array(points["eye.L"]), np.array(points["eye.R"])
    ahead = np.cross(left - right, [0, 0, 1.0]) * [1, 1, 0]
    return (left + right) / 2, (-ahead if ahead[1] > 0 else ahead) / np.linalg.norm(ahead)


def nod(someone: PersonMesh) -> float:
    """Degrees by which the eyes lie above the skull's joint, along the face."""
    eyes, ahead = facing(someone)
    at = eyes - np.array((someone.bones or {})["head"])
    return float(np.degrees(np.arctan2(at[2], at @ ahead)))


def hands(someone: PersonMesh) -> float:
    """Metres by which the higher wrist is above the chin."""
    bones = someone.bones or {}
    return max(bones["wrist.L"][2], bones["wrist.R"][2]) - float(someone.landmarks["chin"][2])


def gaze(someone: PersonMesh) -> np.ndarray:
    """(3,) unit direction, world, in which both eyes look."""
    names = SETS[str(someone.keypoint_set)].names
    assert someone.keypoints is not None
    found = []
    for side, letter in (("l", "L"), ("r", "R")):
        pupil = [someone.keypoints[k] for k, n in enumerate(names) if n.startswith(f"{side}_border_of_pupil")]
        found.append(np.mean(pupil, axis=0) - np.array((someone.bones or {})[f"eye.{letter}"]))
    way = np.sum(found, axis=0)
    return way / np.linalg.norm(way)


def turned(way: np.ndarray, angle: float) -> np.ndarray:
    """(3,) ``way`` turned by ``angle`` radians counter-clockwise about z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * way[0] - s * way[1], s * way[0] + c * way[1], way[2]])


def passer(
    number: int, place: np.ndarray, view: Camera, spread: float, skins: SkinPrior, rng: np.random.Generator
) -> PersonMesh:
    """Someone else, standing at ``place`` (2,) metres and facing the camera, give or take ``spread`` radians."""
    other = AnnyPeople(
        AnnySource(count=1, body=BodyPrior(age_years={"18-70": 1}), pose=STANDING, clothes=WORN, skins=skins),
        SEED + number,
    ).load("0", rng)
    away = view.world_to_camera[2, :2]
    # People are drawn facing -y.
    yaw = np.arctan2(-away[1], -away[0]) + np.pi / 2 + rng.normal(0, spread)
    return moved(other, float(yaw), place)


def company(
    number: int, someone: PersonMesh, view: Camera, side: int, skins: SkinPrior, rng: np.random.Generator
) -> list[PersonMesh]:
    """Someone half a step to the camera's right (``side`` 1), left (-1) or nobody (0), and who else is about, steps behind."""
    eyes, _ = facing(someone)
    away = view.world_to_camera[2, :2] / np.linalg.norm(view.world_to_camera[2, :2])
    aside = np.array([away[1], -away[0]])
    near = float(np.linalg.norm(camera_centre(view.world_to_camera)[:2] - eyes[:2]))
    found = []
    if side:
        place = eyes[:2] + side * aside * rng.uniform(0.24, 0.30) + away * rng.uniform(0.25, 0.4)
        found.append(passer(100 + number, place, view, 0.25, skins, rng))
    first = rng.choice([-1, 1])
    for k in range(BEHIND[number]):
        deep = rng.uniform(0.7, 2.2)
        across = (-1) ** k * first * rng.uniform(0.2, 0.55) * view.width / view.K[0, 0] * (near + deep)
        found.append(passer(200 + 16 * k + number, eyes[:2] + away * deep + aside * across, view, 1.0, skins, rng))
    return found


def camera(someone: PersonMesh, width: int, side: int, rng: np.random.Generator) -> Camera:
    """Before the face or to its side, near or some steps back and seldom quite level, as people are photographed."""
    height = width * 4 // 3
    assert someone.keypoints is not None
    eyes, ahead = facing(someone)
    top, chin = someone.landmarks["head_top"], someone.landmarks["chin"]
    tall = float(top[2] - chin[2])
    turn = rng.choice([-1, 1]) * rng.beta(1.0, 2.6) * 1.3
    way, rise = turned(ahead, turn), rng.uniform(-0.06, 0.12)
    if rng.random() < LOOKS:
        looks = gaze(someone)
        level = looks * [1, 1, 0]
        way, rise = level / np.linalg.norm(level), float(np.clip(looks[2] / np.linalg.norm(level), -0.1, 0.25))
    target = np.array([eyes[0], eyes[1], (top[2] + chin[2]) / 2 - 0.06 * tall]) - ahead * 0.03
    aside = np.array([-way[1], way[0], 0])
    wide = rng.uniform(1.8, 2.3) if side else 1.3 * 1.5 ** rng.beta(1.2, 1.2)
    # ``aside`` is the camera's left; beside company there is room for it.
    slid = -0.25 * side if side else rng.uniform(-0.22, 0.22)
    target = target + aside * slid * tall * wide / 1.5 - np.array([0, 0, (wide - 1.35) * 0.3 * tall])
    # From an arm's length, as with a telephone, to some steps back.
    focal = rng.uniform(1.2, 2.0) * height
    distance = wide * tall / height * focal
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    eye = target + way * distance + np.array([0, 0, distance * rise])
    tilt = rng.normal(0, 0.08)
    rolled = np.eye(4)
    rolled[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return Camera(K, rolled @ look_at(eye, target), width, height, "face", "photographic")


def _busy(view: Camera, light: Lighting) -> bool:
    """Whether there is something to see behind, and not a white wall or sky."""
    small = dataclasses.replace(
        view, K=np.diag([0.1, 0.1, 1]) @ view.K, width=view.width // 10, height=view.height // 10
    )
    seen = lighting.behind(Scene([], small, lighting.metered(light, small), 0))
    shown = response.developed(seen, "srgb").mean(axis=2)
    return float(shown.std()) > 30 and float(np.median(shown)) < 210


def _evenly(someone: PersonMesh, light: Lighting) -> float:
    """Stops between light on the one and on the other half of a face."""
    _, ahead = facing(someone)
    halves = lighting.irradiance(light, np.stack([turned(ahead, side * 1.0) for side in (-1, 1)])).mean(axis=1)
    return float(abs(np.log2(halves[0] / halves[1])))


def portrait(engine: BlenderEngine, number: int, width: int, skins: SkinPrior, environments: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    someone = person(number, skins)
    rng = generator(CHOSEN.get(number, SEED), "portrait", number)
    side = int(rng.choice([-1, 1])) if number in BESIDE else 0
    view = camera(someone, width, side, rng)
    # Most have a hard lamp beside the surroundings' own light: a flash, the low sun.
    hard = rng.random() < HARD
    prior = LightPrior(environments=environments, strength=(0.15, 0.5) if hard else (0.9, 1.6))
    # Before the dark studio people look cut out, and a night sky takes minutes: photographs of the street have neither.
    maps = [m for m in lighting.environments(prior, Path()) if m[0] not in ("studio", "night")]
    light = lighting.draw_lighting(prior, maps, rng)
    uneven = UNEVEN * abs(rng.normal())
    for _ in range(40):
        # Nobody is photographed before a bare ceiling, and few with half of the face in the dark.
        if _evenly(someone, light) < uneven + 0.2 and _busy(view, light):
            break
        light = lighting.draw_lighting(prior, maps, rng)
    right, down, ahead = view.world_to_camera[:3, :3]
    if hard and rng.random() < FLASH:
        flash = camera_centre(view.world_to_camera) - 0.06 * down + 0.05 * right
        watts = 4.0 * float(np.sum((flash - facing(someone)[0]) ** 2)) * rng.uniform(0.7, 1.5)
        light.lamps.append(Lamp("area", flash, ahead, watts, 0.04))
    elif hard:
        # Down, and with the camera's view or across it.
        level = ahead * [1, 1, 0]
        way = turned(level, rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)) + np.array([0, 0, rng.uniform(-0.8, -0.3)])
        light.lamps.append(Lamp("sun", np.zeros(3), way / np.linalg.norm(way), float(rng.uniform(2.0, 3.4)), 1.5))
    stops = float(rng.normal(0.0, 0.3))
    # Who photographs light skin before what is darker takes it back.
    stops -= FAIR_STOPS * (WHO[number][2] <= FAIR)
    light = lighting.balanced(lighting.metered(light, view, stops), view)
    people = [someone, *company(number, someone, view, side, skins, rng)]
    people = merged(people, merging(people, view))
    scene = Scene(people, view, light, SEED + number)
    frame = engine.render(scene, None)
    return response.composite(frame.rgba, lighting.behind(scene), view.response)


def main() -> None:
    given = sys.argv[1:]
    width, samples = (int(v) for v in (given + ["768", "32"][len(given) :])[:2])
    first, last = (int(v) for v in (given[2:] + ["0", str(len(WHO))][len(given[2:]) :])[:2])
    out = Path(given[4]) if len(given) > 4 else Path(__file__).parent / "faces.png"
    skins = SkinPrior(textures=given[5] if len(given) > 5 else None)
    environments = given[6] if len(given) > 6 else "bundled"
    assert len({CHOSEN.get(k, SEED) + k for k in range(len(WHO))}) == len(WHO)
    with tempfile.TemporaryDirectory() as scratch:
        engine = BlenderEngine(Engine(samples=samples, denoiser="high"), 2, Path(scratch))
        found = [portrait(engine, k, width, skins, environments) for k in range(first, last)]
    if width > 400:
        found = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in found]
    blank = np.full_like(found[0], 255)
    found += [blank] * (-len(found) % min(ACROSS, len(found)))
    across = min(ACROSS, len(found))
    rows = [np.hstack(found[k : k + across]) for k in range(0, len(found), across)]
    Image.fromarray(np.vstack(rows)).save(out, optimize=True)


if __name__ == "__main__":
    main()
