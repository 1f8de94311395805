"""Scan files by path: unit and up axis, the height gate, what a file may refer to, and real characters end to end."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from manifests import frames
from manifests.assets import FilesSource
from manifests.errors import AssetError, InputError, RenderError, UnitError
from manifests.job import RenderStage
from manifests.plan import SampleSpec, render_tasks
from manifests.seeds import generator
from render.assets.files import ScanFiles
from render.assets.references import content_sha256, references
from render.scene import Camera, Lighting, Scene
from tests import bodies, runs

pytestmark = pytest.mark.engine
RNG = generator(0)


def load(path: Path, **settings):
    source = ScanFiles(FilesSource(paths=[path.name], **settings), path.parent)
    return source.load(source.identities()[0][1], RNG)


def scaled(path: Path, scale: float) -> Path:
    mesh = trimesh.load(runs.figure(path))
    mesh.apply_scale(scale)
    mesh.export(path)
    return path


@pytest.mark.parametrize(("scale", "unit"), [(1, "m"), (100, "cm"), (1000, "mm"), (1 / 0.0254, "inch")])
def test_an_obj_says_no_unit_so_it_is_guessed_and_said(tmp_path, scale, unit):
    one = load(scaled(tmp_path / "scan.obj", scale), unit="auto")
    # 1.7 m is 67 inches, which would be an infant in centimetres: an adult is the better guess, and said to be one.
    assert one.phenotype["height_m"] == pytest.approx(1.7, abs=1e-3)
    assert one.phenotype["unit"] == f"{unit} (guessed)"
    assert one.phenotype["up"] == "y (guessed)"
    assert abs(one.mesh.vertices[:, 2].min()) < 1e-6
    assert np.abs((one.mesh.vertices.min(0) + one.mesh.vertices.max(0))[:2]).max() < 1e-5


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_every_up_axis_stands_the_figure_on_its_feet(tmp_path, up):
    mesh = trimesh.load(runs.figure(tmp_path / "y.obj"))
    axis = "xyz".index(up[-1])
    sign = -1.0 if up.startswith("-") else 1.0
    # A rotation that carries +y to the wanted axis.
    target = np.zeros(3)
    target[axis] = sign
    mesh.apply_transform(trimesh.geometry.align_vectors([0, 1, 0], target))
    mesh.export(tmp_path / "turned.obj")
    one = load(tmp_path / "turned.obj", unit="m", up=up)
    v = one.mesh.vertices
    assert v[:, 2].max() == pytest.approx(1.7, abs=1e-3)
    # The head is the narrow end, and it is on top.
    top, bottom = v[v[:, 2] > 1.55], v[v[:, 2] < 0.15]
    assert np.ptp(top[:, :2], axis=0).max() < np.ptp(bottom[:, :2], axis=0).max()
    # A rotation, not a mirror: triangles still face outwards.
    solid = trimesh.Trimesh(v, one.mesh.faces, process=False)
    assert solid.volume > 0


def test_the_height_gate_names_the_asset_and_the_mend(tmp_path):
    with pytest.raises(UnitError, match=r"files/scan: height 170 m is outside 0.4-2.5 m at unit m; set render.assets'"):
        load(scaled(tmp_path / "scan.obj", 100), unit="m", up="y")


def test_a_file_may_not_refer_to_what_lies_outside_its_folder(tmp_path):
    inside = tmp_path / "library"
    path = runs.figure(inside / "scan.obj")
    (tmp_path / "secret.mtl").write_text("newmtl a\n")
    path.write_text("mtllib ../secret.mtl\n" + path.read_text())
    with pytest.raises(AssetError, match="outside its own folder"):
        load(path, unit="m", up="y")


def test_the_hash_covers_every_file_an_asset_names(tmp_path):
    path = runs.figure(tmp_path / "scan.obj")
    path.write_text("mtllib scan.mtl\n" + path.read_text())
    (tmp_path / "scan.mtl").write_text("newmtl a\nmap_Kd skin.png\n")
    (tmp_path / "skin.png").write_bytes(b"one")
    assert {r.name for r in references(path)} == {"scan.mtl", "skin.png"}
    before = content_sha256(path)
    (tmp_path / "skin.png").write_bytes(b"two")
    assert content_sha256(path) != before


def test_a_broken_file_is_an_asset_error_without_a_traceback(tmp_path):
    for name, data in (("a.glb", b"glTF not really"), ("b.gltf", b"{"), ("c.obj", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AssetError, match=name):
            load(tmp_path / name)
    with pytest.raises(InputError, match="nowhere"):
        ScanFiles(FilesSource(paths=["nowhere"]), tmp_path)


def test_what_goes_wrong_beside_cycles_comes_out_and_nothing_is_left_running(tmp_path, monkeypatch):
    from render import stage as road

    path = tmp_path / "sky.hdr"
    cv2.imwrite(str(path), np.full((16, 32, 3), 0.5, np.float32))
    light = Lighting("sky", str(path), 0.0, 1.0, {})
    K = np.array([[60.0, 0, 24], [0, 60.0, 32], [0, 0, 1]])
    view = Camera(K, frames.look_at(np.array([0, -3.0, 1.0]), np.array([0, 0, 0.7])), 48, 64, "full")
    scene = Scene([bodies.person("egg", bodies.egg(np.random.default_rng(0)))], view, light, 0)
    renderer = road.Renderer(RenderStage(samples=1, width=48, height=64, engine={"samples": 1}), tmp_path, 2)
    spec = SampleSpec("one", "0" * 64, 0, "train", "full", ())
    whole = renderer.shoot(spec, scene)
    assert (whole.mask > 0).any()
    known, done = road.Geometry.of, []

    def slow(*given):
        # Cycles needs the file at once and fails long before this.
        time.sleep(1.5)
        done.append(known(dataclasses.replace(given[0], lighting=light), *given[1:]))
        return done[-1]

    monkeypatch.setattr(road.Geometry, "of", slow)
    missing = dataclasses.replace(scene, lighting=dataclasses.replace(light, path=str(tmp_path / "gone.hdr")))
    with pytest.raises(RenderError, match=r"gone\.hdr"):
        renderer.shoot(spec, missing)
    assert len(done) == 1, "the engine's failure left rays in flight"
    monkeypatch.setattr(road.Geometry, "of", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        renderer.shoot(spec, scene)
    monkeypatch.undo()
    assert np.array_equal(renderer.shoot(spec, scene).image, whole.image)
    renderer._beside = road.AtOnce()
    assert np.array_equal(renderer.shoot(spec, scene).image, whole.image)


def test_real_characters_render_in_metres_and_both_engines_agree(shared, tmp_path):
    from render.stage import Renderer, pool

    folder = shared / "assets/people"
    stage = RenderStage(
        samples=3,
        width=384,
        height=512,
        assets=[FilesSource(paths=[str(folder)], licence="CC-BY-4.0")],
        engine={"samples": 1, "denoiser": "none"},
    )
    identities, inputs = pool(stage, tmp_path)
    assert [i.identity_id for i in identities] == ["files/cristine", "files/jay", "files/maya"]
    assert len(inputs) > 3
    renderer = Renderer(stage, tmp_path, 1)
    seen = set()
    for task in render_tasks(stage, "0" * 64, identities):
        for spec in task.samples:
            sample = renderer.render(spec)
            seen.add(spec.framing)
            assert sample.agreement["opaque"] >= 0.999
            height = sample.people[0].phenotype["height_m"]
            assert 1.6 < height < 2.0
            assert sample.image.shape == (512, 384, 3)
            assert (sample.mask > 0).mean() > 0.05
    assert seen == {"face", "upper", "full"}
