"""Previews: the rasteriser against Embree and arithmetic, scans read without Blender, the sheet's words, the command."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from manifests import frames
from manifests.assets import FilesSource
from manifests.errors import AssetError, InputError
from manifests.seeds import generator
from render import lighting, raster, sheet
from render.assets import library, scan
from render.assets.files import ScanFiles
from render.groundtruth import embree
from render.scene import Camera, Lighting, Material, Mesh, PersonMesh
from tests import runs, scans
from tests.conftest import ROOT

# fx and fy differ, the principal point is off centre, the camera is rolled by 0.4 rad.
W, H = 192, 256
K = np.array([[260.0, 0, 80.0], [0, 250.0, 150.0], [0, 0, 1]])
POSE = frames.look_at(np.array([0.9, -2.6, 1.7]), np.array([0.05, 0.0, 1.0]), 0.4)
CAMERA = Camera(K, POSE, W, H, "full")
# Straight at a wall of 1 m: 100 px a metre.
FRONT = Camera(
    np.array([[300.0, 0, 50], [0, 300, 50], [0, 0, 1]]),
    frames.look_at(np.array([0.0, -3, 1]), np.array([0.0, 0, 1])),
    100,
    100,
    "full",
)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8).repeat(32, 0).repeat(32, 1)


def white(normals: np.ndarray) -> np.ndarray:
    return np.ones_like(normals)


@pytest.fixture(scope="module")
def gl():
    return raster.Raster()


def wall(y: float = 0.0, **material) -> PersonMesh:
    """A square metre at ``y`` that faces the camera, (0, 0) of its texture at the lower left."""
    corners = np.array([[-0.5, y, 0.5], [0.5, y, 0.5], [0.5, y, 1.5], [-0.5, y, 1.5]], np.float32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    normals = np.broadcast_to(np.float32([0, -1, 0]), (2, 3, 3))
    mesh = Mesh(corners, faces, normals, np.zeros(2, np.int32), [Material("wall", **material)], uv[faces])
    return PersonMesh("wall", mesh, {}, {})


def figure(folder: Path) -> PersonMesh:
    path = runs.figure(folder / "figure.obj")
    source = ScanFiles(FilesSource(paths=[path.name], unit="m", up="y"), folder, scan.quick)
    return source.load(source.identities()[0][1], generator(0))


def test_silhouette_and_depth_agree_with_embree(gl, tmp_path):
    person = figure(tmp_path)
    truth = embree.cast([person], CAMERA)
    rgba, depth = gl.layers([person], CAMERA, white)
    assert rgba.shape == (H, W, 4)
    assert 0.05 < (truth.mask > 0).mean() < 0.9
    assert ((depth > 0) == (truth.mask > 0)).mean() > 0.99
    assert ((rgba[..., 3] > 127) == (truth.mask > 0)).mean() > 0.99
    both = (depth > 0) & (truth.mask > 0)
    assert np.median(np.abs(depth - truth.depth)[both]) < 2e-3


def test_real_characters_agree_with_embree(gl, shared):
    folder = shared / "assets/people"
    source = ScanFiles(FilesSource(paths=[str(folder)]), folder, scan.quick)
    for _, key, _ in source.identities():
        person = source.load(key, generator(0))
        assert 1.6 < person.phenotype["height_m"] < 2.0
        rgba, depth = gl.layers([person], CAMERA, white)
        assert ((depth > 0) == (embree.cast([person], CAMERA).mask > 0)).mean() > 0.99
        assert rgba[depth > 0][:, :3].std(axis=0).min() > 20


def test_a_texture_is_upright_and_its_colours_are_kept(gl):
    texture = np.dstack([QUARTERS, np.full(QUARTERS.shape[:2], 255, np.uint8)])
    rgba, _ = gl.layers([wall(base_color_texture=texture)], FRONT, white)
    for (y, x), colour in zip([(25, 25), (25, 75), (75, 25), (75, 75)], QUARTERS[::63, ::63].reshape(-1, 3)):
        assert np.abs(rgba[y, x, :3].astype(int) - colour).max() <= 2


def test_a_texture_in_a_file_is_upright(gl, tmp_path):
    # glTF: y up, v down; trimesh writes it.
    square = trimesh.Trimesh([[-0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 1.5, 0], [-0.5, 1.5, 0]], [[0, 1, 2], [0, 2, 3]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(QUARTERS))
    square.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], material)
    square.export(tmp_path / "wall.glb")
    read = scan.read("wall", tmp_path / "wall.glb")
    assert read.missing_colour == read.bare == []
    rgba, _ = gl.layers([PersonMesh("wall", read.mesh, {}, {})], FRONT, white)
    for (y, x), colour in zip([(25, 25), (25, 75), (75, 25), (75, 75)], QUARTERS[::63, ::63].reshape(-1, 3)):
        assert np.abs(rgba[y, x, :3].astype(int) - colour).max() <= 2


def test_a_base_colour_is_linear_and_shown_as_srgb(gl):
    rgba, _ = gl.layers([wall(base_color=(0.5, 0.1, 0.002))], FRONT, white)
    # 1.055 x^(1/2.4) - 0.055 and, below 0.0031308, 12.92 x.
    assert np.abs(rgba[50, 50, :3].astype(int) - [188, 89, 7]).max() <= 1


def test_cut_out_texels_show_what_is_behind_as_in_embree(gl):
    texture = np.full((64, 64, 4), 255, np.uint8)
    texture[:32, :, 3] = 0
    people = [wall(base_color_texture=texture, alpha_mode="cutout"), wall(0.5, base_color=(1.0, 0.0, 0.0))]
    rgba, depth = gl.layers(people, FRONT, white)
    truth = embree.cast(people, FRONT)
    assert np.abs(depth - truth.depth)[truth.mask > 0].mean() < 0.02
    assert rgba[30, 50].tolist() == [255, 0, 0, 255]
    assert rgba[75, 50].tolist() == [255, 255, 255, 255]


def test_a_wall_is_lit_on_the_side_it_is_seen_from(gl):
    toward = lambda n: np.repeat(np.clip(-n[:, 1:2], 0, 1), 3, axis=1)  # noqa: E731
    turned = wall()
    turned.mesh.faces = turned.mesh.faces[:, ::-1].copy()
    turned.mesh.corner_normals = -turned.mesh.corner_normals
    for person in (wall(base_color=(1, 1, 1)), turned):
        assert gl.layers([person], FRONT, toward)[0][50, 50, 0] > 200


def environment(path: Path, picture: np.ndarray) -> Lighting:
    cv2.imwrite(str(path), picture.astype(np.float32))
    return Lighting("test", str(path), 0.0, 2.0, {})


def test_light_of_a_half_sky_is_the_closed_form(tmp_path):
    half = np.zeros((64, 128, 3))
    half[:32] = 1
    normals = np.array([[0, 0, 1.0], [0, 0, -1], [1, 0, 0], [0.6, 0, 0.8]])
    # A hemisphere of radiance 1 gives (1 + cos) / 2 on a matt white surface; strength is 2.
    expected = 1 + normals[:, 2]
    assert np.abs(lighting.irradiance(environment(tmp_path / "half.hdr", half), normals)[:, 0] - expected).max() < 0.02


@pytest.mark.parametrize("yaw", [0.0, 70.0, 200.0])
def test_light_comes_from_where_the_background_shows_the_sun(tmp_path, yaw):
    sun = np.zeros((64, 128, 3))
    sun[30:34, 40:44] = 100
    light = environment(tmp_path / "sun.hdr", sun)
    light.yaw_deg = yaw
    angle = np.radians(np.arange(0, 360, 2))
    round_about = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    brightest = round_about[lighting.irradiance(light, round_about)[:, 0].argmax()]
    u, v = frames.equirect_uv(brightest, np.radians(yaw))
    assert abs(u - 42 / 128) < 0.01
    assert abs(v - 0.5) < 0.02


def test_vertex_colours_of_a_ply_are_shown(gl, tmp_path):
    box = trimesh.creation.box((0.8, 0.8, 0.8)).apply_translation([0, 0, 1])
    box.visual.vertex_colors = np.tile(np.uint8([200, 60, 30, 255]), (8, 1))
    box.export(tmp_path / "box.ply")
    mesh = scan.read("box", tmp_path / "box.ply").mesh
    rgba, _ = gl.layers([PersonMesh("box", mesh, {}, {})], FRONT, white)
    assert np.abs(rgba[50, 50, :3].astype(int) - [200, 60, 30]).max() <= 1


@pytest.mark.parametrize(
    ("name", "data"), [("a.glb", b"glTF not really"), ("b.gltf", b"{"), ("c.obj", b""), ("d.ply", b"ply\nformat x")]
)
def test_an_unreadable_scan_is_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AssetError, match=name):
        scan.read("a", tmp_path / name)


def test_a_scan_may_not_refer_to_what_lies_outside_its_folder(tmp_path):
    path = runs.figure(tmp_path / "library/scan.obj")
    (tmp_path / "secret.mtl").write_text("newmtl a\n")
    path.write_text("mtllib ../secret.mtl\n" + path.read_text())
    with pytest.raises(AssetError, match="outside its own folder"):
        scan.read("a", path)


def test_the_sheet_says_what_is_wrong_with_each_scan(gl, tmp_path):
    good = runs.figure(tmp_path / "good.obj")
    giant = trimesh.load(good)
    giant.apply_scale(10)
    giant.export(tmp_path / "giant.glb")
    (tmp_path / "broken.glb").write_bytes(b"glTF not really")
    (tmp_path / "studio.blend").write_bytes(b"")
    box = trimesh.creation.box((0.4, 0.3, 1.7))
    (tmp_path / "ascii.usda").write_text(scans.usd(box.vertices, box.faces))
    bare = runs.figure(tmp_path / "bare.obj")
    bare.write_text("mtllib gone.mtl\n" + bare.read_text())
    rows = {r["files"][0]: (r, m) for r, m in sheet.looked(tmp_path)}
    tiles = {name: sheet.asset_tile(row, mesh, gl, 60) for name, (row, mesh) in rows.items()}
    said = {name: "; ".join(tile.words) for name, tile in tiles.items()}
    assert "1.70 m" in said["good.obj"]
    assert "m guessed from the height" in said["good.obj"]
    assert "no texture" in said["good.obj"]
    # One source of truth: what the sheet says are the problems of the scan's rows.
    scanned = {row["files"][0]: row for row in library.scan(tmp_path, {})}
    assert scanned.keys() == rows.keys()
    for name in ("good.obj", "giant.glb", "bare.obj", "ascii.usda", "studio.blend"):
        assert scanned[name]["problems"] == rows[name][0]["problems"]
        assert scanned[name]["height_m"] == pytest.approx(rows[name][0]["height_m"], abs=1e-4)
    assert "outside 0.4-2.5 m" in said["giant.glb"]
    assert "not drawn to scale" in said["giant.glb"]
    assert tiles["giant.glb"].alarm
    assert "cannot read it" in said["broken.glb"]
    assert tiles["broken.glb"].picture is None
    assert "BLEND is not read" in said["studio.blend"]
    assert tiles["ascii.usda"].picture is not None
    assert "gone.mtl is missing" in said["bare.obj"]
    # Feet on the lowest row, 1.7 m at 60 px a metre.
    picture = tiles["good.obj"].picture.astype(int)
    drawn = np.flatnonzero((np.abs(picture - sheet.ruled(*picture.shape[:2], 60)).max(axis=2) > 20).any(axis=1))
    assert drawn.max() >= picture.shape[0] - 2
    assert abs(np.ptp(drawn) + 1 - 102) <= 2
    assert sheet.library(tmp_path, 60).shape[2] == 3


def test_the_sheet_knows_libraries_and_helpers_as_the_scan_does(tmp_path):
    mesh = figure(tmp_path / "once").mesh
    mesh.materials[0].base_color_texture = np.dstack([QUARTERS, np.full(QUARTERS.shape[:2], 255, np.uint8)])
    shutil.rmtree(tmp_path / "once")
    scans.renderpeople(tmp_path, mesh)
    scans.thuman(tmp_path, mesh)
    scans.by_blender(tmp_path, scans.RIGGED)
    drawn = {row["asset_id"]: row for row, _ in sheet.looked(tmp_path)}
    scanned = {row["asset_id"]: row for row in library.scan(tmp_path, {})}
    assert drawn.keys() == scanned.keys() == {"renderpeople/carla_posed_004", "thuman/0525", "files/rigged"}
    for name, row in scanned.items():
        assert row["usable"]
        for field in ("height_m", "triangles", "textures", "bones", "clips", "morphs", "unit", "up", "watertight"):
            assert drawn[name][field] == row[field], (name, field)
    helpers = {p["what"] for p in drawn["files/rigged"]["problems"] if p["code"] == "helper_shapes"}
    assert helpers == {"display_helper left out: no part of the person"}


def test_a_machine_without_egl_is_told_what_to_install(monkeypatch):
    def absent(name, *_):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(InputError, match=r"libEGL.so.1 is missing.*apt-get install -y libegl1"):
        # Behind the cache that keeps one context per process.
        raster._open.__wrapped__()


def test_a_preview_starts_neither_blender_nor_ray_and_writes_no_dataset(tmp_path):
    job = runs.job(tmp_path, samples=4)
    (tmp_path / "scans/figure0.obj").write_text("not a mesh")
    code = (
        "import sys; from pathlib import Path; from manifests import job; from pipeline.preview import preview\n"
        f"print(preview(job.load({str(job)!r}), Path({str(tmp_path)!r}), 3))\n"
        "assert not {'bpy', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/run"
    assert [p.name for p in run.iterdir()] == ["preview"]
    names = sorted(p.name for p in (run / "preview").iterdir())
    assert "index.jpg" in names
    # Three figures, one sample each, one of them not a mesh.
    assert len(names) == 3
    assert cv2.imread(str(run / "preview" / names[0])).shape == (128, 96, 3)


def test_commands_answer_bad_input_with_one_paragraph(tmp_path):
    (tmp_path / "empty").mkdir()
    job = runs.job(tmp_path)
    for arguments, expected in (
        (("assets", "sheet", tmp_path / "empty"), "no scan in it"),
        (("assets", "sheet", tmp_path / "nowhere"), "no such folder"),
        (("render", job, "--engine", "eevee"), "expected cycles or raster"),
        (("render", job, "--engine", "raster", "--count", "0"), "expected 1 or more"),
    ):
        code, said = runs.here(*arguments)
        assert code == 2
        assert expected in said
        assert "Traceback" not in said
