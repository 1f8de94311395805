"""Every picture in docs/, made again: `python docs/make.py`, after `make demo`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import trimesh
import yaml
from PIL import Image

from manifests.assets import AnnySource
from manifests.frames import look_at
from manifests.keypoints import SETS
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.groundtruth import embree
from render.groundtruth import keypoints as visibility
from render.scene import Camera, PersonMesh
from render.strands import solid

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCENES = {
    "name": "scenes",
    "render": {
        "samples": 12,
        "samples_per_task": 3,
        "width": 512,
        "height": 384,
        "seed": 5,
        "assets": [{"source": "anny", "count": 24}],
        "splits": {"train": 1.0, "val": 0.0, "test": 0.0},
        "people": {"counts": [1, 2, 2, 2], "gap_m": [0.05, 0.5]},
        "framing": {"face": 0, "upper": 1, "full": 3},
        "camera": {
            "elevation_deg": [0, 25],
            "occluded": 0.3,
            "response": "photographic",
            "exposure": "subject",
            "white_balance": "subject",
        },
        "lighting": {"sun": {"share": 0.6, "strength": [2, 4]}},
        "background": {"ground_shadows": True},
        "engine": {"samples": 16},
    },
}


def maquette(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pipeline.cli", *map(str, arguments)], cwd=ROOT, check=False)


def library(folder: Path) -> None:
    """Seven scans of made people: four sound, one each without texture, upside down and far too small."""
    anny = AnnyPeople(AnnySource(count=12), 3)
    keys = anny.identities()
    for i, (name, scale, flip) in enumerate(
        (
            ("ada", 1, 0),
            ("bo_cm", 100, 0),
            ("cleo", 1, 0),
            ("dan_mm", 1000, 0),
            ("eve_lost", 1, 0),
            ("finn_up", 1, 1),
            ("gus_tiny", 0.05, 0),
        )
    ):
        mesh = solid(anny.load(keys[i + 2][1], generator(2, name))).mesh
        turn = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) @ np.diag([1, 1 - 2 * flip, 1 - 2 * flip])
        colour = np.array([m.base_color for m in mesh.materials])[mesh.material_index]
        texels = (255 * np.clip(colour, 0, 1) ** (1 / 2.2)).astype(np.uint8)
        side = int(np.ceil(np.sqrt(len(texels))))
        picture = np.zeros((side * side, 3), np.uint8)
        picture[: len(texels)] = texels
        at = np.arange(len(texels))
        uv = np.stack([(at % side + 0.5) / side, 1 - (at // side + 0.5) / side], axis=1)
        made = trimesh.Trimesh(
            (mesh.vertices @ turn.T * scale)[mesh.faces].reshape(-1, 3),
            np.arange(mesh.faces.size).reshape(-1, 3),
            vertex_normals=(mesh.corner_normals @ turn.T).reshape(-1, 3),
            visual=trimesh.visual.TextureVisuals(
                uv=np.repeat(uv, 3, axis=0),
                material=trimesh.visual.material.SimpleMaterial(Image.fromarray(picture.reshape(side, side, 3))),
            ),
            process=False,
        )
        made.export(folder / name / f"{name}.obj")
        if name == "eve_lost":
            for lost in (folder / name).glob("*.png"):
                lost.unlink()


def keypoints(path: Path) -> None:
    """Face, hand, foot and all of a made person with the numbers of Sapiens's 308 points: filled = visible, ring = hidden."""
    person = AnnyPeople(AnnySource(count=12), 3).load("5", generator(2, "keypoints"))
    at = dict(zip(SETS["sapiens308"].names, person.keypoints))
    face = (at["tip_of_nose"] + at["center_of_nose_root"]) / 2
    eye = (at["l_center_of_iris"] + at["l_midpoint_4_of_upper_lash_line"]) / 2
    mouth = (at["center_of_cupid_bow"] + at["center_of_lower_outer_lip"]) / 2
    views = (
        (face, at["tip_of_nose"] - (at["left_ear"] + at["right_ear"]) / 2, 0.19),
        (eye, at["l_center_of_iris"] - at["left_ear"] * [0.3, 1, 1] - (at["right_ear"] * [0.7, 0, 0]), 0.05),
        (mouth, at["tip_of_nose"] - (at["left_ear"] + at["right_ear"]) / 2, 0.09),
        (at["left_middle_finger_third_joint"], _back_of_hand(at), 0.24),
        ((at["left_big_toe"] + at["left_heel"]) / 2, np.array([0.5, -0.6, 0.6]), 0.34),
        (at["nose"] * [0, 0, 0.52], np.array([0.25, -1, 0.05]), 1.1 * at["nose"][2]),
    )
    tiles = [_marked(person, centre, towards, size) for centre, towards, size in views]
    Image.fromarray(np.concatenate([np.concatenate(tiles[i : i + 3], axis=1) for i in (0, 3)])).save(
        path, optimize=True
    )


def _back_of_hand(at: dict[str, np.ndarray]) -> np.ndarray:
    along = at["left_middle_finger_third_joint"] - at["left_wrist"]
    across = at["left_forefinger_third_joint"] - at["left_pinky_finger_third_joint"]
    return np.cross(across, along)


def _marked(person: PersonMesh, centre: np.ndarray, towards: np.ndarray, size_m: float, px: int = 600) -> np.ndarray:
    """(px, px, 3): ``size_m`` round ``centre``, seen from the side ``towards``, its points marked and numbered."""
    away = 1.2 + 2 * size_m
    eye = centre + away * towards / np.linalg.norm(towards)
    focal = px * away / size_m
    K = np.array([[focal, 0, px / 2], [0, focal, px / 2], [0, 0, 1]])
    camera = Camera(K, look_at(eye, centre), px, px, "face")
    light = np.array([0.55, -0.35, 0.75]) @ camera.world_to_camera[:3, :3].T
    truth = embree.cast([person], camera, extras=("albedo",))
    shade = 0.6 + 0.4 * np.clip(truth.normal @ (light / np.linalg.norm(light)), 0, 1)
    assert truth.albedo is not None
    colour = 90 + 0.6 * truth.albedo
    picture = np.where(truth.mask[..., None] > 0, colour * shade[..., None], 245).clip(0, 255).astype(np.uint8)
    uv, seen = visibility.seen(person, 0, embree.Caster([person], camera.world_to_camera), camera)
    for j, ((u, v), shown) in enumerate(zip(uv, seen)):
        if shown:
            where = (round(float(u) - 0.5), round(float(v) - 0.5))
            cv2.circle(picture, where, 3, (201, 60, 40), -1 if shown == 2 else 1, cv2.LINE_AA)
            cv2.putText(picture, str(j), (where[0] + 4, where[1] - 3), 0, 0.36, (20, 30, 90), 1, cv2.LINE_AA)
    return picture


def main() -> None:
    keypoints(DOCS / "keypoints.png")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("ada", "bo_cm", "cleo", "dan_mm", "eve_lost", "finn_up", "gus_tiny"):
            (folder / "scans" / name).mkdir(parents=True)
        library(folder / "scans")
        maquette("assets", "sheet", folder / "scans", "--out", DOCS / "assets.jpg")
        job = folder / "scenes.yaml"
        job.write_text(yaml.safe_dump(SCENES | {"runs": str(folder)}))
        maquette("render", job, "--engine", "raster")
        (folder / "scenes" / "preview" / "index.jpg").replace(DOCS / "preview.jpg")
        maquette("render", job)
        maquette("inspect", folder / "scenes" / "render", "--sheet", DOCS / "scenes.jpg")
    if (ROOT / "runs" / "quickstart" / "render").is_dir():
        maquette("inspect", ROOT / "runs" / "quickstart" / "render", "--sheet", DOCS / "contact.jpg")


if __name__ == "__main__":
    main()
