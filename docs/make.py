"""Every picture in docs/, made again: `python docs/make.py`, after `make demo`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import trimesh
import yaml
from PIL import Image

from manifests.assets import AnnySource
from manifests.seeds import generator
from render.assets.anny import AnnyPeople

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
        "camera": {"elevation_deg": [0, 25], "occluded": 0.3},
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
        mesh = anny.load(keys[i + 2][1], generator(2, name)).mesh
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


def main() -> None:
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
