"""A job -> its first samples drawn in seconds: framings to check before a long run. Starts neither Blender nor Ray."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from manifests import codecs, plan, view
from manifests.errors import AssetError, InputError, JobError, SampleRejected, StorageError
from manifests.job import Job
from pipeline.progress import console
from render.assets import source_of
from render.assets.scan import quick
from render.groundtruth.embree import region
from render.raster import Raster
from render.sheet import Tile, grid
from render.stage import Studio, pool

TILE_PX = 300


def preview(job: Job, root: Path, count: int) -> Path:
    """Draw samples 0 to ``count`` - 1 of ``job``'s render stage into RUN/preview; returns the contact sheet's path.

    ``root``: the folder that the job's relative paths start from. An asset that cannot be used gets an empty tile with
    the reason. What an earlier preview left is replaced; datasets are not touched. Raises JobError, InputError,
    StorageError.
    """
    stage = job.render
    if stage is None:
        raise JobError(f"job {job.name}: no `render` section to preview")
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more")
    identities, _ = pool(stage, root)
    sources = [source_of(settings, stage.people_seed, root, quick) for settings in stage.assets]
    folder = job.folder.resolve() / "preview"
    tiles: list[Tile] = []
    seconds: list[float] = []
    raster = Raster()
    _cleared(folder)
    with tempfile.TemporaryDirectory() as scratch:
        studio = Studio(stage, root, Path(scratch), sources)
        for index in range(min(count, stage.samples)):
            # The digest names the sample and draws nothing.
            spec = plan.sample_spec(stage, "0" * 64, identities, index)
            words = [f"{index}  {spec.framing}", *(i.identity_id for i in spec.identities)]
            try:
                scene = studio.scene(spec)
                if region(scene.people, scene.camera) is None:
                    raise SampleRejected(spec.sample_id, "nobody in the frame")
            except AssetError as error:
                tiles.append(Tile(None, [*words, error.message], True))
                continue
            except SampleRejected as error:
                tiles.append(Tile(None, [*words, error.reason], True))
                continue
            started = time.perf_counter()
            picture = raster.picture(scene)
            seconds.append(time.perf_counter() - started)
            write(folder / f"{index:08d}.png", picture)
            tiles.append(Tile(view.thumbnail(picture, TILE_PX), words))
    wide = max([t.picture.shape[1] for t in tiles if t.picture is not None] or [TILE_PX])
    tall = max([t.picture.shape[0] for t in tiles if t.picture is not None] or [TILE_PX])
    index_path = folder / "index.jpg"
    write(index_path, grid(tiles, tall, wide))
    if seconds:
        console.print(f"  {len(seconds)} views, {np.median(seconds):.2f} s each")
    return index_path


def write(path: Path, picture: np.ndarray) -> None:
    """``picture``: (H, W, 3) uint8 sRGB, as PNG or, at any other name, JPEG. Raises StorageError."""
    data = codecs.encode_image(picture, "png" if path.suffix.lower() == ".png" else "jpeg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free space or choose another place") from None


def _cleared(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; free space or choose another `runs` folder") from None
