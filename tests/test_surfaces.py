"""What a file's materials become: each policy of render/blender/translate.py, in the picture and in the geometry."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from manifests import frames
from manifests.assets import FilesSource
from manifests.job import Engine
from manifests.seeds import generator
from render import response
from render.assets.files import ScanFiles
from render.groundtruth import embree, verify
from render.scene import Camera, Lighting, Material, PersonMesh, Scene

pytestmark = pytest.mark.engine
W, H = 96, 96
# Straight at the card from -y: it spans 60 px, its texture's left edge on the left.
CAMERA = Camera(
    np.array([[180.0, 0, 48], [0, 180.0, 48], [0, 0, 1]]),
    frames.look_at(np.array([0.0, -3, 0.5]), np.array([0.0, 0, 0.5])),
    W,
    H,
    "full",
)
BEHIND = Camera(CAMERA.K, frames.look_at(np.array([0.0, 3, 0.5]), np.array([0.0, 0, 0.5])), W, H, "full")
# Middles of the card's three thirds, and a row through them.
ROW, LEFT, MIDDLE, RIGHT = 48, 27, 48, 69


def thirds(*alphas: int) -> np.ndarray:
    """(60, 60, 4) uint8 red, alpha by thirds from left to right."""
    out = np.zeros((60, 60, 4), np.uint8)
    out[..., 0] = 220
    for i, alpha in enumerate(alphas):
        out[:, 20 * i : 20 * i + 20, 3] = alpha
    return out


def card(path: Path, texture: np.ndarray | None, **material) -> PersonMesh:
    """A GLB of a square metre that faces the camera, as a job loads it."""
    corners = [[-0.5, 0, 0], [0.5, 0, 0], [0.5, 1, 0], [-0.5, 1, 0]]
    square = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    picture = None if texture is None else Image.fromarray(texture, "RGBA")
    made = trimesh.visual.material.PBRMaterial(baseColorTexture=picture, **material)
    square.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], made)
    square.export(path)
    return load(path)


def load(path: Path, **settings) -> PersonMesh:
    source = ScanFiles(FilesSource(paths=[path.name], **settings), path.parent)
    return source.load(source.identities()[0][1], generator(0))


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Lighting:
    path = tmp_path_factory.mktemp("light") / "even.hdr"
    cv2.imwrite(str(path), np.ones((32, 64, 3), np.float32))
    return Lighting("even", str(path), 0.0, 1.0, {})


@pytest.fixture(scope="module")
def shoot(light, tmp_path_factory):
    """(picture (H, W, 3) uint8 before black, coverage (H, W), truth, agreement) of a person before ``camera``."""
    from render.blender.engine import BlenderEngine

    engine = BlenderEngine(Engine(samples=32, denoiser="none"), 1, tmp_path_factory.mktemp("scratch"))

    def take(person: PersonMesh, see_through: bool = True, camera: Camera = CAMERA):
        truth = embree.cast([person], camera, see_through, ("albedo",))
        frame = engine.render(Scene([person], camera, light, 1), None)
        share = verify.agreement(truth.depth, truth.mask, frame.depth, 1e-4, truth.layered)
        picture = response.composite(frame.rgba, np.zeros((H, W, 3), np.float32))
        return picture, frame.coverage, truth, share

    return take


def at(values: np.ndarray) -> list[float]:
    return [float(values[ROW, x]) for x in (LEFT, MIDDLE, RIGHT)]


def test_cut_hair_is_cut_at_the_files_own_threshold_in_both_engines(shoot, tmp_path):
    person = card(tmp_path / "card.glb", thirds(20, 100, 230), alphaMode="MASK", alphaCutoff=0.25)
    material = person.mesh.materials[0]
    assert (material.alpha_mode, material.alpha_threshold) == ("cutout", pytest.approx(0.25))
    _, coverage, truth, share = shoot(person)
    assert at(truth.mask) == [0, 1, 1]
    assert at(coverage) == pytest.approx([0, 1, 1], abs=0.02)
    assert share >= 0.98


def test_blended_hair_mixes_in_the_picture_and_is_there_from_one_half_in_geometry(shoot, tmp_path):
    person = card(tmp_path / "card.glb", thirds(0, 77, 204), alphaMode="BLEND")
    assert person.mesh.materials[0].alpha_mode == "blend"
    _, coverage, truth, _ = shoot(person)
    # 77/255 and 204/255 of 32 samples, give or take three standard deviations.
    assert at(coverage) == pytest.approx([0, 0.30, 0.80], abs=0.25)
    assert coverage[20:76, 30:66].mean() == pytest.approx((0.3 * 20 + 0.8 * 8 + 0 * 8) / 36, abs=0.08)
    assert at(truth.mask) == [0, 0, 1]
    # Told not to see through, geometry has whatever is drawn at all; the empty part of a card is not.
    assert at(shoot(person, see_through=False)[2].mask) == [0, 1, 1]


def test_a_blend_that_is_full_everywhere_is_opaque_and_checked_by_both_engines(shoot, tmp_path):
    person = card(tmp_path / "card.glb", thirds(255, 255, 255), alphaMode="BLEND")
    assert person.mesh.materials[0].alpha_mode == "opaque"
    _, _, truth, share = shoot(person)
    assert at(truth.mask) == [1, 1, 1]
    assert not truth.layered.any()
    assert share >= 0.98


@pytest.mark.parametrize("alpha", [60, 200])
def test_a_lens_without_texture_is_seen_through_or_not_as_the_job_says(shoot, tmp_path, alpha):
    person = card(tmp_path / "lens.glb", None, baseColorFactor=[10, 10, 10, alpha], alphaMode="BLEND")
    material = person.mesh.materials[0]
    assert (material.alpha_mode, material.alpha) == ("blend", pytest.approx(alpha / 255, abs=1e-3))
    _, coverage, truth, _ = shoot(person)
    assert coverage[30:66, 30:66].mean() == pytest.approx(alpha / 255, abs=0.03)
    assert not truth.mask.any()
    assert at(shoot(person, see_through=False)[2].mask) == [1, 1, 1]


def test_a_map_of_opacity_in_an_obj_is_cut_when_two_valued_and_blended_when_soft(tmp_path):
    path = tmp_path / "card.obj"
    path.write_text(
        "mtllib card.mtl\nusemtl hair\nv -.5 0 0\nv .5 0 0\nv .5 1 0\nv -.5 1 0\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    (tmp_path / "card.mtl").write_text("newmtl hair\nmap_Kd colour.png\nmap_d opacity.png\n")
    cv2.imwrite(str(tmp_path / "colour.png"), thirds(255, 255, 255)[..., 2::-1])
    for alphas, mode in (((0, 0, 255), "cutout"), ((0, 128, 255), "blend")):
        cv2.imwrite(str(tmp_path / "opacity.png"), thirds(*alphas)[..., 3])
        material = load(path, unit="m", up="y").mesh.materials[0]
        assert material.alpha_mode == mode
        assert np.abs(material.base_color_texture[30, [10, 30, 50], 3].astype(int) - alphas).max() <= 2


def test_cloth_of_one_sheet_is_seen_from_both_sides_with_its_normal_to_the_camera(shoot, tmp_path):
    person = card(tmp_path / "cloth.glb", thirds(255, 255, 255), doubleSided=False)
    for camera in (CAMERA, BEHIND):
        picture, _, truth, share = shoot(person, camera=camera)
        assert at(truth.mask) == [1, 1, 1]
        assert share >= 0.98
        assert truth.normal[ROW, MIDDLE] == pytest.approx([0, 0, -1], abs=1e-5)
        # Lit from all round, both sides show the same red.
        assert picture[ROW, MIDDLE, 0] > 150
        assert picture[ROW, MIDDLE, 0] > 3 * picture[ROW, MIDDLE, 1]


def test_a_part_without_a_material_is_grey_and_listed(shoot, tmp_path):
    path = tmp_path / "bare.ply"
    trimesh.creation.box((0.5, 1.7, 0.3)).export(path)
    source = ScanFiles(FilesSource(paths=["bare.ply"]), tmp_path)
    assert source.scan("files/bare", path).bare == ["bare"]
    person = load(path)
    assert person.mesh.materials[0].base_color == (0.5, 0.5, 0.5)
    truth = shoot(person)[2]
    assert truth.albedo[ROW, MIDDLE].tolist() == [188, 188, 188]


def test_normal_roughness_and_metal_maps_arrive_as_painted(tmp_path):
    bent = np.dstack([thirds(255, 255, 255)[..., :1] * 0 + v for v in (200, 128, 240)]).astype(np.uint8)
    rough = np.dstack([thirds(255, 255, 255)[..., :1] * 0 + v for v in (0, 90, 30)]).astype(np.uint8)
    person = card(
        tmp_path / "cloth.glb",
        thirds(255, 255, 255),
        normalTexture=Image.fromarray(bent),
        metallicRoughnessTexture=Image.fromarray(rough),
        roughnessFactor=0.5,
        metallicFactor=1.0,
        baseColorFactor=[128, 255, 255, 255],
    )
    (material,) = person.mesh.materials
    assert material.normal_texture[30, 30].tolist() == [200, 128, 240, 255]
    # glTF: green times the factor is roughness, blue times the factor is metal.
    assert material.roughness_texture[30, 30, 0] == pytest.approx(45, abs=1)
    assert material.metallic == pytest.approx(30 / 255, abs=0.01)
    # A factor of linear 128/255 dims sRGB 220 to 159: 0.7157 * 0.502 = 0.3593.
    assert material.base_color_texture[30, 30, 0] == pytest.approx(161, abs=2)


def test_vertex_colours_are_the_same_in_cycles_and_in_the_albedo(shoot, tmp_path):
    box = trimesh.creation.box((0.9, 0.9, 0.4))
    box.visual.vertex_colors = np.tile(np.uint8([200, 60, 30, 255]), (8, 1))
    box.export(tmp_path / "box.ply")
    person = load(tmp_path / "box.ply", unit="m", up="y")
    assert person.mesh.materials[0] == Material("missing", (0.5, 0.5, 0.5), vertex_color=True)
    picture, _, truth, _ = shoot(person)
    assert truth.albedo[ROW, MIDDLE].tolist() == [200, 60, 30]
    # Radiance 1 from everywhere on a matt surface gives its own colour back; gloss adds a few per cent of white.
    assert np.abs(picture[ROW, MIDDLE].astype(int) - [200, 60, 30]).max() < 45
    assert picture[ROW, MIDDLE, 0] > 2.5 * picture[ROW, MIDDLE, 1]
