"""A Scene of plain arrays -> Cycles' beauty and its sample-0 depth and index passes, in one long-lived bpy process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import OpenEXR

from manifests.errors import InputError, RenderError
from manifests.job import Engine
from render.blender.build import build_camera, build_ground, build_lamp, build_person, build_world
from render.blender.hair import build_strands, light_strands
from render.lighting import irradiance, light_map
from render.scene import PersonMesh, Scene
from render.textures import fitted, halved

# What Blender only prints; a frame that comes with one of these is not to be trusted.
FATAL = re.compile(
    r"Error: (?!Python)|Unable to (?:open|load)|SVM stack|out of memory|Missing image|failed to load", re.I
)
FIRST_SAMPLE = re.compile(r"Time:(\d+):([\d.]+) [^\n]*Sample 0/")
# OIDN's prefilter of albedo and normals, and its quality. One dressed person, 16 samples, PSNR against 1,024 and seconds:
# 35.7 dB 0.58 s, 36.7 dB 0.75 s, 36.9 dB 1.11 s; without, 26.2 dB 0.53 s. Prefilter FAST loses more than it costs.
# Prefilter of the guides and quality. Albedo and normals of 16 samples are clean enough to guide as they are: prefilter FAST,
# which takes them for noisy, costs 0.1 to 0.2 dB and no less time (benchmarks/README.md).
DENOISER = {
    "fast": ("FAST", "FAST"),
    "balanced": ("NONE", "BALANCED"),
    "high": ("NONE", "HIGH"),
    "accurate": ("ACCURATE", "HIGH"),
}
# EEVEE's name before Blender 5 and since.
EEVEE = ("BLENDER_EEVEE_NEXT", "BLENDER_EEVEE")
# Fastest first; OptiX before CUDA on the same card.
GPU_KINDS = ("optix", "cuda", "hip", "oneapi", "metal")
# Our name -> the pass's names in 4.5 and 5.0.
PASSES = {"Combined": ("Combined",), "Depth": ("Depth",), "Index": ("IndexOB", "Object Index")}
# Channels of the passes that have more than one.
LETTERS = {"Combined": "RGBA", "Normal": "XYZ"}
# An AOV that people's materials set to 1: their coverage, when the film's alpha also holds shadows on the ground.
PERSON_PASS = {"Person": ("Person",)}
KINDS = (
    "objects",
    "meshes",
    "hair_curves",
    "cameras",
    "materials",
    "images",
    "worlds",
    "textures",
    "lights",
    "node_groups",
)
# Pictures that Blender itself keeps.
OWN_IMAGES = ("RENDER_RESULT", "COMPOSITING")
MISS_M = 1e9
# Object indices of strands count from here, those of meshes from 1.
STRAND_INDEX = 1000


@dataclasses.dataclass
class Frame:
    """One Cycles render at full size, zero outside the border. H rows, W columns.

    ``rgba``: (H, W, 4) float32 linear Rec.709, premultiplied, film transparent, shadows on the ground included.
    ``coverage``: (H, W) float32, the people's share of each pixel. ``depth``: (H, W) float32 planar z in metres, 0 where
    missed. ``index``: (H, W) int32, position in scene.people + 1, 0 where missed. ``strand``: (H, W) bool, that is a
    strand of theirs. ``log``: what Blender printed.
    ``seconds``: wall-clock time by step: "build" the scene, "sync" it to Cycles, "trace" (denoising included), "read".
    """

    rgba: np.ndarray
    coverage: np.ndarray
    depth: np.ndarray
    index: np.ndarray
    strand: np.ndarray
    log: str
    seconds: dict[str, float]


class BlenderEngine:
    """Renders scenes one after another; people stay in Blender while scenes hold the same list of them, as the views of
    one scene do, and every other data-block is removed between frames (bpy keeps what one forgets).

    ``threads``: fixed thread count. ``scratch``: folder for the pass file, best in memory.
    """

    version = bpy.app.version_string

    def __init__(self, settings: Engine, threads: int, scratch: Path) -> None:
        self._settings = settings
        self._exr = scratch / f"passes-{os.getpid()}.exr"
        scratch.mkdir(parents=True, exist_ok=True)
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        bpy.context.preferences.filepaths.use_scripts_auto_execute = False
        self.device = choose_device(settings.device)
        # The people in Blender now: the list they came as, with shadow marks or not, their halvings, their data-blocks.
        self._kept: tuple[list[PersonMesh], bool, tuple[tuple[int, ...], ...], dict[str, set[Any]]] | None = None
        kind = "" if self.device == "cpu" else f"/{self.device}"
        # What a sample says of its maker: "cycles", "cycles/optix", "eevee".
        self.name = "eevee" if settings.renderer == "eevee" else f"cycles{kind}"
        self._configure(threads)

    def render(self, scene: Scene, border: tuple[int, int, int, int] | None, log_to: Path | None = None) -> Frame:
        """Render ``scene``; ``border``: x0, y0, x1, y1 px (half open) outside which nothing is traced, or None for all.
        ``log_to``: file for what Blender says, which is there even when the process dies of it.

        Raises RenderError with Blender's own words.
        """
        wanted = PASSES | PERSON_PASS if scene.shadows else PASSES
        eevee = self._settings.renderer == "eevee"
        at = [time.perf_counter()]
        with captured(log_to) as log:
            try:
                self._build(scene, border)
                at.append(time.perf_counter())
                painted = self._trace({"Combined": ("Combined",)}, eevee=True) if eevee else {}
                passes = self._trace(wanted) | painted
            except InputError as error:
                raise RenderError("", str(error)) from None
            except RuntimeError as error:
                self._kept = None
                raise RenderError("", f"Blender: {error}".strip()) from None
            finally:
                self._clear(keep_people=True)
                self._exr.unlink(missing_ok=True)
            printed = log()
        at.append(time.perf_counter())
        if FATAL.search(printed):
            raise RenderError(
                "", "Blender said: " + "; ".join(x for x in printed.splitlines() if FATAL.search(x))[:800]
            )
        passes = {name: uncropped(pixels, scene, border) for name, pixels in passes.items()}
        depth = passes["Depth"][..., 0]
        index = np.where((depth > 0) & (depth < MISS_M), np.rint(passes["Index"][..., 0]), 0).astype(np.int32)
        strand = index > STRAND_INDEX
        index = np.where(strand, index - STRAND_INDEX, index)
        rgba = passes["Combined"]
        coverage = passes["Person"][..., 0] if scene.shadows else rgba[..., 3]
        sync = sync_seconds(printed)
        seconds = {"build": at[1] - at[0], "sync": sync, "trace": self._traced - sync}
        seconds["read"] = at[2] - at[1] - self._traced
        return Frame(rgba, coverage, np.where(index > 0, depth, 0), index, strand, printed, seconds)

    def _trace(self, wanted: dict[str, tuple[str, ...]], eevee: bool = False) -> dict[str, np.ndarray]:
        """Run one engine over the scene as it stands; the passes ``wanted``."""
        scene = bpy.context.scene
        scene.render.engine = EEVEE[bpy.app.version >= (5, 0, 0)] if eevee else "CYCLES"
        started = time.perf_counter()
        bpy.ops.render.render(write_still=True, scene=scene.name)
        self._traced = time.perf_counter() - started
        return read_passes(self._exr, wanted)

    def _configure(self, threads: int) -> None:
        scene, s = bpy.context.scene, self._settings
        render, cycles = scene.render, scene.cycles
        render.engine = "CYCLES"
        cycles.device = "CPU" if self.device == "cpu" else "GPU"
        render.threads_mode, render.threads = "FIXED", threads
        # Beside EEVEE, Cycles gives depth and index alone, which are those of its first sample.
        cycles.samples = s.samples if s.renderer == "cycles" else 1
        scene.eevee.taa_render_samples = s.samples
        cycles.use_adaptive_sampling = False
        cycles.use_light_tree = False
        cycles.max_bounces = s.max_bounces
        cycles.diffuse_bounces = cycles.glossy_bounces = cycles.transmission_bounces = s.max_bounces
        cycles.transparent_max_bounces = 64
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.use_denoising = s.denoiser != "none" and s.renderer == "cycles"
        if s.denoiser != "none":
            cycles.denoiser = "OPENIMAGEDENOISE"
            cycles.denoising_prefilter, cycles.denoising_quality = DENOISER[s.denoiser]
            cycles.denoising_use_gpu = self.device != "cpu"
        # Round curves, which Embree meets in the same points; ribbons turn with the ray and differ on a third of the pixels.
        scene.cycles_curves.shape = "THICK"
        render.film_transparent = True
        render.use_persistent_data = False
        render.use_compositing = render.use_sequencer = False
        render.resolution_percentage = 100
        render.use_file_extension = False
        layer = scene.view_layers[0]
        layer.use_pass_z = layer.use_pass_object_index = True
        image = render.image_settings
        if hasattr(image, "media_type"):
            image.media_type = "MULTI_LAYER_IMAGE"
        image.file_format = "OPEN_EXR_MULTILAYER"
        image.color_mode, image.color_depth, image.exr_codec = "RGBA", "32", "NONE"
        # Blender 5 writes multi-part files unless told otherwise; one part is what the reader below expects.
        if hasattr(image, "use_exr_interleave"):
            image.use_exr_interleave = True
        render.filepath = str(self._exr)

    def _people(self, scene: Scene) -> None:
        """Have the scene's people in Blender, with textures as fine as its camera needs: those of the last view stay."""
        blender = bpy.context.scene
        times = fitted(scene.people, scene.camera)
        if self._kept is not None:
            people, shadows, before, _ = self._kept
            if people is scene.people and shadows == scene.shadows:
                finest = tuple(tuple(map(min, b, t)) for b, t in zip(before, times))
                if finest == before:
                    return
                # What one view did not show another may: what either needs serves the next ones too.
                times = finest
        self._kept = None
        self._clear()
        for i, person in enumerate(halved(scene.people, times)):
            obj = build_person(person, scene.shadows)
            obj.pass_index = i + 1
            blender.collection.objects.link(obj)
            for strands in person.strands:
                obj = build_strands(strands, "Person" if scene.shadows else None)
                obj.pass_index = STRAND_INDEX + i + 1
                blender.collection.objects.link(obj)
        self._kept = (scene.people, scene.shadows, times, {kind: set(getattr(bpy.data, kind)) for kind in KINDS})

    def _build(self, scene: Scene, border: tuple[int, int, int, int] | None) -> None:
        blender = bpy.context.scene
        self._people(scene)
        blender.cycles.seed = scene.seed & 0x7FFFFFFF
        layer = blender.view_layers[0]
        while layer.aovs:
            layer.aovs.remove(layer.aovs[0])
        if scene.shadows:
            build_ground()
            aov = layer.aovs.add()
            aov.name, aov.type = "Person", "VALUE"
        build_camera(scene.camera)
        build_world(scene.lighting, light_map(scene))
        for lamp in scene.lighting.lamps:
            build_lamp(lamp, scene.lighting.gains)
        around = np.concatenate([np.eye(3), -np.eye(3)])
        light_strands(float(irradiance(scene.lighting, around).mean()))
        # With an environment alone the light tree costs more than it gives; among lamps it finds the near ones.
        blender.cycles.use_light_tree = bool(scene.lighting.lamps)
        width, height = scene.camera.width, scene.camera.height
        r = blender.render
        r.use_border = r.use_crop_to_border = border is not None
        if border is not None:
            x0, y0, x1, y1 = border
            # Blender keeps shares as float32 and cuts the fraction off: a quarter of a pixel more stays this pixel.
            r.border_min_x, r.border_max_x = ((x + 0.25) / width for x in (x0, x1))
            r.border_min_y, r.border_max_y = ((height - y + 0.25) / height for y in (y1, y0))

    def _clear(self, keep_people: bool = False) -> None:
        """Remove every data-block a frame made."""
        blender = bpy.context.scene
        blender.camera = None
        blender.world = None
        kept = self._kept[3] if keep_people and self._kept is not None else {}
        for kind in KINDS:
            stay = kept.get(kind, set())
            bpy.data.batch_remove(
                [b for b in getattr(bpy.data, kind) if b not in stay and getattr(b, "type", "") not in OWN_IMAGES]
            )


def choose_device(wanted: str) -> str:
    """Switch on every GPU of one kind: ``wanted``, or with "auto" the first of GPU_KINDS that is here; else "cpu".

    Raises InputError when the kind asked for is not here.
    """
    if wanted == "cpu":
        return "cpu"
    preferences = bpy.context.preferences.addons["cycles"].preferences
    known = {kind for kind, *_ in preferences.get_device_types(bpy.context)}
    for kind in GPU_KINDS if wanted == "auto" else (wanted,):
        if kind.upper() not in known:
            continue
        preferences.compute_device_type = kind.upper()
        preferences.refresh_devices()
        gpus = [d for d in preferences.devices if d.type == kind.upper()]
        for device in preferences.devices:
            device.use = device in gpus
        if gpus:
            return kind
    if wanted != "auto":
        raise InputError(f"render.engine.device: no {wanted} device on this machine; take auto or cpu")
    preferences.compute_device_type = "NONE"
    return "cpu"


def read_passes(path: Path, passes: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """name in ``passes`` -> (H, W, C) float32 from a one-part multilayer EXR. Raises RenderError naming a pass that is
    absent.
    """
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    found: dict[str, np.ndarray] = {}
    for full_name, pixels in channels.items():
        _, pass_name, letter = full_name.split(".", 2) if full_name.count(".") >= 2 else ("", full_name, "")
        for ours, names in passes.items():
            if pass_name in names:
                order = LETTERS.get(ours, letter)
                plane = found.setdefault(ours, np.zeros((*pixels.shape, len(order)), np.float32))
                plane[..., order.index(letter)] = pixels
    missing = [p for p in passes if p not in found]
    if missing:
        raise RenderError("", f"pass {', '.join(missing)} missing from Blender's EXR; it holds {sorted(channels)}")
    return found


def uncropped(pixels: np.ndarray, scene: Scene, border: tuple[int, int, int, int] | None) -> np.ndarray:
    """(H, W, C) float32: a pass cut to ``border`` back at its place in the frame. Raises RenderError at another size."""
    height, width = scene.camera.height, scene.camera.width
    x0, y0, x1, y1 = border or (0, 0, width, height)
    if pixels.shape[:2] != (y1 - y0, x1 - x0):
        raise RenderError("", f"Blender gave {pixels.shape[1]}x{pixels.shape[0]} px for the border {x0, y0, x1, y1}")
    if border is None:
        return pixels
    frame = np.zeros((height, width, pixels.shape[2]), np.float32)
    frame[y0:y1, x0:x1] = pixels
    return frame


def sync_seconds(printed: str) -> float:
    """When Cycles took its first sample, seconds after the call, by what it ``printed``; 0 when it did not say."""
    first = FIRST_SAMPLE.search(printed)
    return 60 * float(first[1]) + float(first[2]) if first else 0.0


@contextlib.contextmanager
def captured(path: Path | None = None) -> Iterator[Any]:
    """Catch what native code writes to file descriptors 1 and 2, in ``path`` if given; yields a function that returns
    it.
    """
    with path.open("w+b") if path else tempfile.TemporaryFile() as sink:
        saved = os.dup(1), os.dup(2)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)

        def text() -> str:
            sink.flush()
            return os.pread(sink.fileno(), 2**20, 0).decode(errors="replace")

        try:
            yield text
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
