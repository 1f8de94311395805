"""A sample's spec -> people, camera and light -> both engines -> one checked sample."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import threadpoolctl

from manifests.errors import InputError, SampleRejected
from manifests.job import RenderStage
from manifests.plan import Identity, SampleSpec, split_of
from manifests.sample import Person, RenderedSample
from manifests.seeds import generator
from render import backdrop, lighting, response
from render.assets import Source, source_of
from render.framing import ATTEMPTS, draw_camera
from render.groundtruth import coverage, embree, keypoints, silhouette, verify
from render.placement import stand_together
from render.scene import Camera, Lighting, PersonMesh, Scene
from render.strands import merged, merging

if TYPE_CHECKING:
    from render.blender.engine import Frame


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
    inputs += [(f"background/{name}", sha) for name, _, sha in backdrop.photographs(stage.background, root)]
    return identities, inputs


def engine_version() -> str:
    """Name and version of what makes the bytes, without importing it."""
    names = ("maquette", "bpy", "embreex", "anny")
    return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)


@contextlib.contextmanager
def cores_seen(count: int) -> Iterator[None]:
    """Let what is loaded meanwhile see ``count`` cores at most.

    Blender's thread pool (TBB) counts them once, whatever the scene's threads are, and a thread of it that finds no work
    spins: measured, half a core beside a worker of one thread.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# Arrays of this many bytes and more are mapped each by itself, and go back to the system when they are freed.
MAPPED_BYTES = 1 << 20
# Of malloc.h.
M_MMAP_THRESHOLD = -3


def tidied() -> Callable[[int], int] | None:
    """glibc's malloc_trim, which gives pages that are free inside its heap back to the system, after large arrays were
    taken off that heap; None where there is no glibc.

    People of strands leave the heap in tatters: 260 MB of a worker's 1,800 without malloc_trim, 15 ms a frame (measured).
    glibc maps large arrays by themselves too, but only until one is freed: left alone, a worker grew by 24 to 38 MB in 450
    frames, and with its threshold fixed it does not (benchmarks/memory.py). The threshold is the whole process's:
    a trainer in the same one wants the opposite (training.loader.tune_allocator), and who comes last has it.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        # musl has another allocator.
        return None
    # Where glibc refuses, memory grows as before, and workers are recycled by it.
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    return trim


class Renderer:
    """One Blender and one set of assets per worker process, kept from sample to sample."""

    def __init__(self, stage: RenderStage, root: Path, threads: int) -> None:
        # numpy's BLAS, of this whole process, keeps a second core spinning after each product, one that Cycles could have.
        threadpoolctl.threadpool_limits(1, "blas")
        self._stage, self._threads = stage, threads
        self._scratch = scratch_folder()
        self._studio = Studio(stage, root, Path(self._scratch.name))
        with cores_seen(threads):
            from render.blender.engine import BlenderEngine

            self._engine = BlenderEngine(stage.engine, threads, Path(self._scratch.name))
        # A worker of one thread on the CPU keeps to its one core.
        alone = threads == 1 and self._engine.device == "cpu"
        self._beside: concurrent.futures.Executor = (
            AtOnce() if alone else concurrent.futures.ThreadPoolExecutor(1, "geometry")
        )
        self._trim = tidied()
        self.seconds: dict[str, float] = {}
        # Where Blender's words go while it renders: a file that outlives the process.
        self.log: Path | None = None

    def render(self, spec: SampleSpec) -> RenderedSample:
        """Make one sample. Raises AssetError, RenderError, and SampleRejected when the two engines disagree."""
        started = time.perf_counter()
        scene = self._studio.scene(spec)
        drawn = time.perf_counter() - started
        sample = self.shoot(spec, scene)
        self.seconds = {"assets": drawn, **self.seconds}
        if self._trim is not None:
            self._trim(0)
        return sample

    def shoot(self, spec: SampleSpec, scene: Scene) -> RenderedSample:
        """``scene`` as the sample ``spec`` names. Raises RenderError and SampleRejected; leaves seconds by step, of which
        "geometry" passes beside Cycles' "build", "sync" and "trace" unless the worker has one thread.
        """
        border = embree.region(scene.people, scene.camera)
        if border is None:
            raise SampleRejected(spec.sample_id, "nobody in the frame")
        see_through = self._stage.transparent == "see_through"
        # Beside Cycles, which leaves cores idle while it syncs and all of them where a card traces.
        geometry = self._beside.submit(Geometry.of, scene, see_through, tuple(self._stage.extras))
        try:
            # Shadows fall outside the people's own region.
            frame = self._engine.render(scene, None if scene.shadows else border, self.log)
        finally:
            clock = Clock()
            concurrent.futures.wait([geometry])
            clock.lap("wait")
        known = geometry.result()
        truth, caster = known.truth, known.caster
        strand = truth.strand | frame.strand
        share, strands = verify.check(
            spec.sample_id, truth.depth, truth.mask, frame.depth, self._stage.verify_limits, truth.layered, strand
        )
        clock.lap("verify")
        image, alpha = finish(frame, known, scene, self._threads)
        people = describe(scene.people, truth.mask, scene.camera, caster if see_through else None)
        clock.lap("compose")
        self.seconds = {"geometry": known.seconds, **frame.seconds, **clock.laps}
        rights = [*(p.rights for p in scene.people), scene.lighting.rights]
        if scene.backdrop is not None and scene.backdrop.rights not in rights:
            rights.append(scene.backdrop.rights)
        return RenderedSample(
            sample_id=spec.sample_id,
            stage_digest=spec.stage_digest,
            index=spec.index,
            split=spec.split,
            image=image,
            depth=truth.depth,
            normal=truth.normal,
            normal_shading=truth.normal_shading,
            albedo=truth.albedo,
            alpha=alpha,
            mask=truth.mask,
            segmentation=truth.segmentation,
            people=people,
            K=scene.camera.K,
            world_to_camera=scene.camera.world_to_camera,
            framing=spec.framing,
            lighting=lighting.described(scene.lighting, scene.backdrop),
            white_balance=scene.lighting.balance,
            rights=rights,
            agreement={"opaque": share, "strand": strands},
            engine={
                "renderer": self._engine.name,
                "version": self._engine.version,
                "samples": self._stage.engine.samples,
                "denoiser": self._stage.engine.denoiser,
            },
        )


class AtOnce(concurrent.futures.Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """A finished future. Raises what ``fn`` raises."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclasses.dataclass
class Geometry:
    """What rays and maps tell of a scene without its picture. H rows, W columns.

    ``count``: (H, W) float32 alpha at silhouettes, NaN elsewhere (silhouette.py). ``behind``: (H, W, 3) float32 linear,
    what shows where nobody is. ``seconds``: that it took.
    """

    caster: embree.Caster
    truth: embree.Truth
    count: np.ndarray
    behind: np.ndarray
    seconds: float

    @classmethod
    def of(cls, scene: Scene, see_through: bool = True, extras: tuple[str, ...] = ()) -> Geometry:
        """``see_through`` and ``extras`` as `embree.cast` takes them."""
        started = time.perf_counter()
        # First, since Embree keeps Python's lock, which Blender's scene is built under in the meantime.
        behind = lighting.behind(scene)
        caster = embree.Caster(scene.people, scene.camera.world_to_camera, see_through)
        truth = embree.cast(scene.people, scene.camera, see_through, extras, caster)
        count = silhouette.counted(truth.mask, truth.strand, caster, scene.camera)
        return cls(caster, truth, count, behind, time.perf_counter() - started)


def finish(frame: Frame, known: Geometry, scene: Scene, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The picture over its background, (H, W, 3) uint8 sRGB, and the people's alpha, (H, W) uint8."""
    strand = known.truth.strand | frame.strand
    covered = silhouette.settled(frame.coverage, known.count, strand)
    covered = coverage.refined(np.clip(covered, 0, 1), strand, scene.camera, known.caster, threads)
    # With shadows the film's alpha is the people's no more, and the shadow under a foot has its own share of an edge.
    rgba = frame.rgba if scene.shadows else silhouette.premultiplied(frame.rgba, covered)
    image = response.composite(rgba, known.behind, scene.camera.response)
    return image, np.rint(covered * 255).astype(np.uint8)


class Studio:
    """A stage's people, lights and photographs: everything its scenes are drawn from, without an engine."""

    def __init__(self, stage: RenderStage, root: Path, scratch: Path, sources: list[Source] | None = None) -> None:
        """``root``: where the job's relative paths start. ``scratch``: folder for environments made on the way.
        ``sources``: readers of the stage's assets other than its own, one for each.
        """
        self._stage, self._scratch = stage, scratch
        self._sources = sources or [source_of(settings, stage.people_seed, root) for settings in stage.assets]
        self._maps = lighting.environments(stage.lighting, root)
        self._photographs = backdrop.photographs(stage.background, root)
        self._last: tuple[int, list[PersonMesh], Lighting] | None = None
        self._merged: tuple[list[PersonMesh], tuple[tuple[int, ...], ...], list[PersonMesh]] | None = None

    def scene(self, spec: SampleSpec) -> Scene:
        """Everything the sample shows. People and light are drawn from generator(stage seed, "scene", its number), once
        for all views of a scene; camera, background and noise from (stage seed, "sample", index). A view that is metered
        or balanced, or stands before a photograph has its own strength of light.

        Raises AssetError, and SampleRejected when no camera sees the subject as the job asks.
        """
        stage, background = self._stage, self._stage.background
        number = spec.index // stage.views
        if self._last is None or self._last[0] != number:
            self._last = None
            rng = generator(stage.seed, "scene", number)
            people = [self._sources[i.asset].load(i.key, rng) for i in spec.identities]
            people = stand_together(people, stage.people, rng)
            self._last = (number, people, lighting.draw_lighting(stage.lighting, self._maps, rng))
        _, everyone, light = self._last
        rng = generator(stage.seed, "sample", spec.index)
        camera = draw_camera(everyone, spec.framing, stage.camera, stage.width, stage.height, rng)
        if camera is None:
            raise SampleRejected(
                spec.sample_id,
                f"no camera of {ATTEMPTS} sees {everyone[0].identity_id} as render.camera asks; widen its ranges",
            )
        behind = backdrop.draw_backdrop(background, self._photographs, stage.width, stage.height, spec.sample_id, rng)
        if behind is not None and background.estimate_light:
            light = backdrop.estimated_light(behind, camera, light.lamps, self._scratch)
        # A photograph behind was metered when it was taken.
        if behind is None and stage.camera.exposure == "subject":
            ev = generator(stage.seed, "exposure", spec.index).uniform(*stage.camera.exposure_ev)
            light = lighting.metered(light, camera, float(ev))
        if behind is None and stage.camera.white_balance == "subject":
            light = lighting.balanced(light, camera)
        people = self._seen_by(camera, everyone)
        return Scene(people, camera, light, int(rng.integers(2**31)), behind, background.ground_shadows)

    def _seen_by(self, camera: Camera, people: list[PersonMesh]) -> list[PersonMesh]:
        """``people`` with strands as fine as ``camera`` shows; the same list for views that need the same."""
        times = merging(people, camera)
        if all(n == 1 for counts in times for n in counts):
            return people
        if self._merged is None or self._merged[0] is not people or self._merged[1] != times:
            self._merged = (people, times, merged(people, times))
        return self._merged[2]


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for this process's passes, in memory where the system has one; those of killed processes are removed."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else Path(tempfile.gettempdir())
    for old in base.glob("maquette-*-*"):
        pid = old.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"maquette-{os.getpid()}-", dir=base)


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


def describe(
    people: list[PersonMesh], mask: np.ndarray, camera: Camera, caster: embree.Caster | None = None
) -> list[Person]:
    """The `people` field of a frame. ``mask``: (H, W) uint8. A person nobody sees has an empty box at (0, 0).

    ``caster``: one of these people that sees through blended layers, where there is one: an eye behind glasses is seen.
    """
    caster = caster or embree.Caster(people, camera.world_to_camera)
    described = []
    alone, fraction = len(people) == 1, embree.visible_fraction
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
                visible_fraction=1.0
                if alone and embree.whole(person, camera)
                else fraction(person, i + 1, mask, camera),
                keypoint_set=person.keypoint_set,
                keypoints=uv.astype(np.float32),
                keypoints_3d=points.astype(np.float32),
                visibility=visibility,
                bones=person.bones,
                phenotype=person.phenotype
                if person.pose is None
                else {**(person.phenotype or {}), "pose": person.pose},
            )
        )
    return described
