"""Random frames of mixed assets: both engines' depth, normals and instance masks, within the limits the product states.

Bodies: parametric people, the characters kept beside the checkout where they are, and tests/bodies.py's made ones.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from manifests import frames
from manifests.assets import AnnySource, FilesSource
from manifests.job import Engine
from manifests.priors import CameraPrior, PeoplePrior
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.assets.files import ScanFiles
from render.framing import draw_camera
from render.groundtruth import embree
from render.placement import moved, stand_together
from render.scene import Camera, Lighting, PersonMesh, Scene
from tests import bodies

SHARED = Path(os.environ.get("MAQUETTE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SIZE = (96, 128)
CAMERAS = CameraPrior(truncated=0.3, occluded=0.3, min_visible=0.02, roll_deg=20, elevation_deg=(-40, 60))


@pytest.fixture(scope="module")
def normal_pass(tmp_path_factory):
    """Render at one sample with Cycles' own shading normals beside depth: scene -> (Frame, (H, W, 3) world normals)."""
    import bpy

    from render.blender import engine as module

    kept = {}
    read = module.read_passes

    def spy(path, passes):
        found = read(path, passes | {"Normal": ("Normal",)})
        kept["normal"] = found["Normal"]
        return found

    made = module.BlenderEngine(Engine(samples=1, denoiser="none"), 2, tmp_path_factory.mktemp("engine"))
    bpy.context.scene.view_layers[0].use_pass_normal = True
    module.read_passes = spy
    # Normals are compared with those of the whole maps, not of what a small frame needs.
    fitted, module.fitted = module.fitted, lambda people, camera: tuple((0,) * len(p.mesh.materials) for p in people)

    def shot(scene):
        border = embree.region(scene.people, scene.camera)
        return made.render(scene, border), module.uncropped(kept["normal"], scene, border)

    yield shot
    module.read_passes, module.fitted = read, fitted
    bpy.context.scene.view_layers[0].use_pass_normal = False


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Lighting:
    import cv2

    path = tmp_path_factory.mktemp("sky") / "sky.hdr"
    cv2.imwrite(str(path), np.full((16, 32, 3), 0.5, np.float32))
    return Lighting("sky", str(path), 0.0, 1.0, {})


@pytest.fixture(scope="module")
def people() -> list[PersonMesh]:
    """Bodies to mix, each at the origin."""
    rng = generator(11, "bodies")
    anny = AnnyPeople(AnnySource(count=3), 3)
    found = [anny.load(key, rng) for _, key, _ in anny.identities()]
    for person in found:
        # Cloth's procedural bump changes how Cycles shades it and is no part of any normal that we write. Weaves are finer than
        # a pixel: a hundredth of a texel turns them by more than the limit below.
        person.mesh.materials = [dataclasses.replace(m, bump=0.0, normal_texture=None) for m in person.mesh.materials]
    for kind, make in bodies.KINDS.items():
        found += [bodies.person(f"{kind}/{i}", make(rng)) for i in range(2)]
    if (SHARED / "assets" / "people").is_dir():
        scans = ScanFiles(FilesSource(paths=[str(SHARED / "assets" / "people")]), Path("/"))
        found += [scans.load(key, rng) for _, key, _ in scans.identities()]
    return found


def mixed(people: list[PersonMesh], seed: int, count: int | None = None) -> tuple[list[PersonMesh], Camera]:
    """``count`` (else 1 to 4) of ``people`` turned, set apart and looked at by a skewed, rolled camera that is not square."""
    rng = generator(seed, "mixed")
    # A crowd at a lone person's resolution would be all silhouette.
    width, height = SIZE if count is None else (2 * SIZE[0], 2 * SIZE[1])
    while True:
        chosen = [people[i] for i in rng.permutation(len(people))[: count or rng.integers(1, 5)]]
        while count and len(chosen) < count:
            chosen.append(people[rng.integers(len(people))])
        chosen[0] = moved(chosen[0], float(rng.uniform(-np.pi, np.pi)), np.zeros(2))
        group = stand_together(chosen, PeoplePrior(gap_m=(0.02, 0.3)), rng)
        framing = ("face", "upper", "full")[rng.integers(3)] if count is None else "full"
        camera = draw_camera(group, framing, CAMERAS, width, height, rng)
        if camera is not None:
            camera.K[0, 0] *= rng.uniform(0.9, 1.1)
            camera.K[:2, 2] += rng.uniform(-0.1, 0.1, 2) * (width, height)
            return group, camera


def apart_deg(truth: np.ndarray, world: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W) degrees between camera-frame normals and Cycles' world ones."""
    theirs = world.astype(np.float64) @ camera.world_to_camera[:3, :3].T
    theirs /= np.maximum(np.linalg.norm(theirs, axis=-1, keepdims=True), 1e-12)
    return 2 * np.degrees(np.arcsin(np.clip(np.linalg.norm(theirs - truth, axis=-1) / 2, 0, 1)))


def retilted(people: list[PersonMesh], camera: Camera, normal: np.ndarray) -> np.ndarray:
    """(H, W) bool: where Cycles turns a shading normal towards the eye, since its mirror image of the eye would lie under
    the surface. That is a remedy against black spots and no property of the surface.
    """
    caster = embree.Caster(people, camera.world_to_camera)
    rays = frames.camera_rays(camera.K, camera.width, camera.height).reshape(-1, 3)
    face = np.where((face := caster.first_hits(rays)[0]) < caster.triangles, face, -1)
    corners = np.concatenate([p.mesh.vertices.astype(np.float64)[p.mesh.faces] for p in people])[face]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) @ camera.world_to_camera[:3, :3].T
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    eye = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
    flat *= np.sign((flat * eye).sum(1, keepdims=True))
    n = normal.reshape(-1, 3).astype(np.float64)
    mirror = 2 * (n * eye).sum(1, keepdims=True) * n - eye
    return ((flat * mirror).sum(1) < np.minimum(0.9 * (flat * eye).sum(1), 0.01)).reshape(normal.shape[:2])


def unmapped(person: PersonMesh) -> PersonMesh:
    plain = [dataclasses.replace(m, normal_texture=None) for m in person.mesh.materials]
    return dataclasses.replace(person, mesh=dataclasses.replace(person.mesh, materials=plain))


def measured(scene: Scene, render) -> dict[str, tuple[int, int]]:
    """Of one frame: (pixels that agree, pixels compared) by depth, normal, shading normal; and instances that differ."""
    camera, people = scene.camera, scene.people
    frame, mapped = render(scene)
    _, plain = render(dataclasses.replace(scene, people=[unmapped(p) for p in people]))
    truth = embree.cast(people, camera, extras=("normal_shading",))
    # Strands have their own limits: test_hair.py.
    opaque = ~truth.layered & ~truth.strand & ~frame.strand
    use = (truth.mask > 0) & (frame.index > 0) & opaque
    inner = use & ~embree.silhouette_band(truth.mask)
    shaded = inner & ~retilted(people, camera, truth.normal_shading)
    # Cycles has corners in float32: past 10 m a pixel seen edge-on moves by its spacing.
    near = np.abs(truth.depth.astype(np.float64) - frame.depth) <= 5e-5 * np.maximum(1, truth.depth / 10)
    straight = apart_deg(truth.normal, plain, camera) <= 0.05
    bent = apart_deg(truth.normal_shading, mapped, camera) <= 0.05
    differ = (truth.mask != frame.index) & opaque
    return {
        "depth": (int((near & use).sum()), int(use.sum())),
        "normal": (int((straight & inner).sum()), int(inner.sum())),
        "shading": (int((bent & shaded).sum()), int(shaded.sum())),
        "masks": (int(differ.sum()), int(opaque.sum())),
    }


def frames_of(people: list[PersonMesh], light: Lighting, seeds: range, count: int | None = None) -> Iterator[Scene]:
    for seed in seeds:
        group, camera = mixed(people, seed, count)
        yield Scene(group, camera, light, seed)


def check(scenes: Iterator[Scene], render) -> None:
    rows = [measured(scene, render) for scene in scenes]
    share = {
        k: np.sum([r[k][0] for r in rows]) / np.sum([r[k][1] for r in rows]) for k in ("depth", "normal", "shading")
    }
    worst = {k: min(r[k][0] / max(r[k][1], 1) for r in rows if r[k][1] > 200) for k in share}
    pixels, masks = sum(r["depth"][1] for r in rows), max(r["masks"][0] for r in rows)
    print(  # noqa: T201 - the figures are what `make soak` is run for
        f"\n{len(rows)} frames, {pixels} opaque pixels: depth {share['depth']:.4%} within 0.05 mm (to 10 m, as a share of depth beyond; worst frame "
        f"{worst['depth']:.3%}), normals {share['normal']:.4%} within 0.05 degree ({worst['normal']:.3%}), "
        f"shading normals {share['shading']:.4%} ({worst['shading']:.3%}), instances differ in {masks} pixels at most"
    )
    assert pixels > 500 * len(rows)
    assert share["depth"] >= 0.999
    assert share["normal"] >= 0.99
    assert share["shading"] >= 0.99
    assert masks <= 5


def test_mixed_frames(people, light, normal_pass):
    check(frames_of(people, light, range(5)), normal_pass)


def test_sixteen_people(people, light, normal_pass):
    check(frames_of(people, light, range(100, 101), 16), normal_pass)


@pytest.mark.soak
def test_two_hundred_mixed_frames(people, light, normal_pass):
    check(frames_of(people, light, range(1000, 1200)), normal_pass)


def test_cycles_and_we_bend_normals_alike_on_mirrored_uv(light, normal_pass):
    for seed in range(2):
        egg = bodies.person("egg", bodies.egg(np.random.default_rng(seed)))
        for azimuth in (0.0, np.pi / 2, np.pi):
            eye = np.array([2.5 * np.sin(azimuth), -2.5 * np.cos(azimuth), 1.0])
            K = np.array([[150.0, 0, 48], [0, 150.0, 64], [0, 0, 1]])
            camera = Camera(K, frames.look_at(eye, np.array([0, 0, 0.7])), *SIZE, "full")
            row = measured(Scene([egg], camera, light, 0), normal_pass)
            assert row["shading"][1] > 500
            assert row["shading"][0] > 0.99 * row["shading"][1]
    truth = embree.cast([egg], camera, extras=("normal_shading",))
    # The map does bend: without it the two normals would be the same.
    bend = np.degrees(np.arccos(np.clip((truth.normal * truth.normal_shading).sum(-1), -1, 1)))[truth.mask > 0]
    assert np.median(bend) > 5
