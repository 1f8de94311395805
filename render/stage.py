"""A sample's spec -> people, camera and light -> both engines -> one checked sample."""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from manifests.errors import InputError, SampleRejected
from manifests.job import RenderStage
from manifests.plan import Identity, SampleSpec, split_of
from manifests.sample import Person, RenderedSample
from manifests.seeds import generator
from render import lighting
from render.assets import Source, source_of
from render.framing import draw_camera
from render.groundtruth import embree, keypoints, verify
from render.scene import Camera, PersonMesh, Scene


def pool(stage: RenderStage, root: Path) -> tuple[list[Identity], list[tuple[str, str]]]:
    """The identities a stage draws from, with their splits, and its frozen inputs as (id, sha256) rows.

    Reads files but starts no engine. Raises InputError.
    """
    identities: list[Identity] = []
    inputs: list[tuple[str, str]] = []
    for i, settings in enumerate(stage.assets):
        for identity_id, key, sha256 in source_of(settings, stage.people_seed, root).identities():
            identities.append(
                Identity(identity_id, i, key, split_of(identity_id, stage.splits, f"split/{stage.people_seed}"))
            )
            inputs.append((identity_id, sha256))
    twice = {i for i, _ in inputs if sum(i == j for j, _ in inputs) > 1}
    if twice:
        raise InputError(f"render.assets: more than one asset is called {', '.join(sorted(twice))}; rename the files")
    inputs += [(f"environment/{name}", sha) for name, _, sha in lighting.environments(stage.lighting, root)]
    return identities, inputs


def engine_version() -> str:
    """Name and version of what makes the bytes, without importing it."""
    names = ("bpy", "embreex", "anny")
    return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)


class Renderer:
    """One Blender and one set of assets per worker process, kept from sample to sample."""

    def __init__(self, stage: RenderStage, root: Path, threads: int) -> None:
        from render.blender.engine import BlenderEngine

        self._stage = stage
        self._sources = [source_of(settings, stage.people_seed, root) for settings in stage.assets]
        self._maps = lighting.environments(stage.lighting, root)
        memory = Path("/dev/shm")
        self._scratch = tempfile.TemporaryDirectory(prefix="maquette-", dir=memory if memory.is_dir() else None)
        self._engine = BlenderEngine(stage.engine, threads, Path(self._scratch.name))
        self.seconds: dict[str, float] = {}

    def render(self, spec: SampleSpec) -> RenderedSample:
        """Make one sample. Raises AssetError, RenderError, and SampleRejected when the two engines disagree."""
        clock = Clock()
        scene = self.scene(spec)
        clock.lap("assets")
        border = embree.region(scene.people, scene.camera)
        if border is None:
            raise SampleRejected(spec.sample_id, "nobody in the frame")
        truth = embree.cast(scene.people, scene.camera)
        clock.lap("embree")
        frame = self._engine.render(scene, border)
        clock.lap("cycles")
        share = verify.check(
            spec.sample_id, truth.depth, truth.mask, frame.depth, self._stage.verify_limits, truth.layered
        )
        image = lighting.composite(frame.rgba, lighting.background(scene.camera, scene.lighting))
        alpha = np.rint(np.clip(frame.rgba[..., 3], 0, 1) * 255).astype(np.uint8)
        people = describe(scene.people, truth.mask, scene.camera)
        clock.lap("compose")
        self.seconds = dict(clock.laps)
        light = scene.lighting
        return RenderedSample(
            sample_id=spec.sample_id,
            stage_digest=spec.stage_digest,
            index=spec.index,
            split=spec.split,
            image=image,
            depth=truth.depth,
            normal=truth.normal,
            alpha=alpha,
            mask=truth.mask,
            segmentation=truth.segmentation,
            people=people,
            K=scene.camera.K,
            world_to_camera=scene.camera.world_to_camera,
            framing=spec.framing,
            lighting={"environment": light.environment, "yaw_deg": light.yaw_deg, "strength": light.strength},
            rights=[*(p.rights for p in scene.people), light.rights],
            agreement={"opaque": share, "strand": None},
            engine={
                "renderer": "cycles",
                "version": self._engine.version,
                "samples": self._stage.engine.samples,
                "denoiser": self._stage.engine.denoiser,
            },
        )

    def scene(self, spec: SampleSpec) -> Scene:
        """Everything the sample shows."""
        return draw_scene(self._stage, self._sources, self._maps, spec)


def draw_scene(stage: RenderStage, sources: list[Source], maps: list[tuple[str, Path, str]], spec: SampleSpec) -> Scene:
    """Everything a sample shows, drawn from generator(stage seed, "sample", index) alone.

    ``sources``: one per asset setting of the stage; ``maps``: lighting.environments. Raises AssetError.
    """
    rng = generator(stage.seed, "sample", spec.index)
    people = [sources[i.asset].load(i.key, rng) for i in spec.identities]
    camera = draw_camera(people[0], spec.framing, stage.camera, stage.width, stage.height, rng)
    light = lighting.draw_lighting(stage.lighting, maps, rng)
    return Scene(people, camera, light, int(rng.integers(2**31)))


class Clock:
    """Wall-clock seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to ``name``."""
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self._last = now


def describe(people: list[PersonMesh], mask: np.ndarray, camera: Camera) -> list[Person]:
    """The `people` field of a frame. ``mask``: (H, W) uint8. A person nobody sees has an empty box at (0, 0)."""
    caster = embree.Caster(people, camera.world_to_camera)
    described = []
    for i, person in enumerate(people):
        ys, xs = np.nonzero(mask == i + 1)
        box = (
            np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
            if len(xs)
            else np.zeros(4, np.float32)
        )
        uv, points, visibility = np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0, np.uint8)
        if person.keypoints is not None:
            points = person.keypoints
            uv, visibility = keypoints.seen(person, i, caster, camera)
        described.append(
            Person(
                asset_id=person.identity_id,
                box=box,
                visible_fraction=embree.visible_fraction(person, i + 1, mask, camera),
                keypoint_set=person.keypoint_set,
                keypoints=uv.astype(np.float32),
                keypoints_3d=points.astype(np.float32),
                visibility=visibility,
                bones=person.bones,
                phenotype=person.phenotype,
            )
        )
    return described
