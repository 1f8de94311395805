"""Scan libraries: every source stands upright, in metres, textured, and renders; every defect is named in the table."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import trimesh

from manifests import frames
from manifests.assets import FilesSource, ThumanSource
from manifests.errors import AssetError, InputError
from manifests.job import Engine
from manifests.priors import LightPrior
from manifests.seeds import generator
from render import lighting, response
from render.assets import library, scan, source_of
from render.assets.files import ScanFiles
from render.assets.thuman import ArraysOnly, fit_scale
from render.groundtruth import embree, verify
from render.scene import Camera, Mesh, PersonMesh, Scene
from tests import runs, scans

pytestmark = pytest.mark.engine
RNG = generator(0)
W, H = 96, 128
# 2.2 m of height in the frame, from the front: -y.
CAMERA = Camera(
    np.array([[290.0, 0, W / 2], [0, 290.0, H / 2], [0, 0, 1]]),
    frames.look_at(np.array([0.0, -5, 0.95]), np.array([0.0, 0, 0.95])),
    W,
    H,
    "full",
)
SOURCES = {
    "renderpeople/carla_posed_004": "obj",
    "thuman/0525": "obj",
    "files/person_fbx": "fbx",
    "files/person_fbx_m": "fbx",
    "files/person_ply": "ply",
    "files/person_usd": "usdc",
    "files/person_usd_cm": "usda",
}


@pytest.fixture(scope="module")
def character(shared) -> Mesh:
    """One of the characters, read without Blender: z up, metres, on the ground."""
    folder = shared / "assets/people/maya"
    source = ScanFiles(FilesSource(paths=["maya.gltf"]), folder, scan.quick)
    return source.load(str(source.paths[0][1]), RNG).mesh


@pytest.fixture(scope="module")
def made(character, tmp_path_factory) -> Path:
    """A folder of libraries, one of each kind, all of the one character."""
    folder = tmp_path_factory.mktemp("scans")
    scans.renderpeople(folder, character)
    scans.thuman(folder, character)
    scans.ply(folder / "person_ply.ply", character)
    scans.textured(folder / "source/person.obj", character)
    scans.by_blender(folder, scans.CONVERTED)
    shutil.rmtree(folder / "source")
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from render.blender.engine import BlenderEngine

    return BlenderEngine(Engine(samples=2, denoiser="none"), 1, tmp_path_factory.mktemp("scratch"))


def shoot(engine, person: PersonMesh, see_through: bool = True) -> tuple[np.ndarray, embree.Truth, float]:
    """(H, W, 3) uint8 picture, the truth, and the share of pixels on which the engines agree within 0.1 mm."""
    prior = LightPrior()
    light = lighting.draw_lighting(prior, lighting.environments(prior, Path()), generator(5))
    scene = Scene([person], CAMERA, light, 1)
    truth = embree.cast([person], CAMERA, see_through)
    frame = engine.render(scene, embree.region([person], CAMERA))
    share = verify.agreement(truth.depth, truth.mask, frame.depth, 1e-4, truth.layered)
    return response.composite(frame.rgba, np.zeros((H, W, 3), np.float32)), truth, share


def table(folder: Path, **settings) -> dict[str, dict]:
    return {row["asset_id"]: row for row in library.scan(folder, settings)}


def codes(row: dict) -> set[str]:
    return {p["code"] for p in row["problems"]}


def middles(mesh: Mesh) -> np.ndarray:
    """(F, 3) middles of triangles, sorted along each axis by itself: what a shape is, whatever the order of its faces."""
    return np.sort(mesh.vertices[mesh.faces].astype(np.float64).mean(axis=1), axis=0)


def test_every_source_stands_upright_in_metres_textured_and_renders(engine, made, character, tmp_path):
    rows = table(made)
    assert {name: row["format"] for name, row in rows.items()} == SOURCES
    assert all(row["usable"] for row in rows.values()), rows
    height = float(character.vertices[:, 2].max())
    for kind in library.sources(made, {}):
        for name, path in kind.paths:
            person, row = kind.load(str(path), RNG), rows[name]
            assert row["height_m"] == pytest.approx(height, abs=2e-3), name
            assert row["triangles"] == len(character.faces)
            # The same shape, standing the same way: metres, upright, facing -y, not mirrored.
            assert np.abs(middles(person.mesh) - middles(character)).max() < 2e-3, name
            picture, truth, share = shoot(engine, person)
            assert share >= 0.99, name
            colours = picture[truth.mask > 0].astype(int)
            assert colours.std(axis=0).min() > 8, name
            if name == "files/person_ply":
                # Red feet, blue hair.
                ys = np.nonzero(truth.mask)[0]
                feet, hair = (picture[y][truth.mask[y] > 0].mean(axis=0) for y in (ys.max() - 3, ys.min() + 3))
                assert feet[0] > 2 * feet[2]
                assert hair[2] > 2 * hair[0]
                assert person.mesh.corner_colors is not None
            else:
                assert row["textures"] == 1, name
    units = {name: (row["unit"], row["up"]) for name, row in rows.items()}
    assert units["renderpeople/carla_posed_004"] == ("cm (RenderPeople)", "y (RenderPeople)")
    assert units["thuman/0525"] == ("1.715 m (from the fit)", "y (from the fit)")
    assert units["files/person_fbx"] == ("cm (declared)", "z (declared)")
    assert units["files/person_fbx_m"] == ("m (declared)", "z (declared)")
    assert units["files/person_usd_cm"] == ("cm (declared)", "z (declared)")
    assert units["files/person_ply"] == ("m (guessed)", "y (guessed)")
    assert units["files/person_usd"] == ("m (declared)", "z (declared)")


def test_the_characters_stand_without_their_helper_and_render(engine, shared):
    folder = shared / "assets/people"
    rows = table(folder, licence="CC-BY-SA-4.0")
    assert list(rows) == ["files/cristine", "files/jay", "files/maya"]
    source = ScanFiles(FilesSource(paths=[str(folder)]), folder)
    for name, path in source.paths:
        row, person = rows[name], source.load(str(path), RNG)
        assert row["usable"], row
        assert 1.6 < row["height_m"] < 2.0
        # Blender's bone shape is an icosphere 2 m wide.
        assert "Icosphere" in next(p["what"] for p in row["problems"] if p["code"] == "helper_shapes")
        assert np.ptp(person.mesh.vertices[:, 1]) < 1.0
        assert row["unit"] == "m (declared)"
        assert row["textures"] >= 20
        assert row["missing_textures"] == []
        assert row["bones"] > 100
        assert row["licence"] == "CC-BY-SA-4.0"
        assert set(person.bones) >= {"char:head_jnt"} or len(person.bones) == row["bones"]
        picture, truth, share = shoot(engine, person)
        assert share >= 0.99
        assert picture[truth.mask > 0].std(axis=0).min() > 8


def test_each_defect_is_named_in_the_table_with_its_mend(tmp_path):
    folder = tmp_path / "library"
    runs.figure(folder / "unsaid.obj")
    upright = trimesh.load(folder / "unsaid.obj")
    upright.apply_transform(trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0]))
    upright.export(folder / "headstand.obj")
    small = trimesh.load(folder / "unsaid.obj")
    small.apply_scale(0.1 / 1.7)
    small.export(folder / "doll.glb")
    lost = runs.figure(folder / "lost.obj")
    lost.write_text("mtllib lost.mtl\nusemtl skin\n" + lost.read_text())
    (folder / "lost.mtl").write_text("newmtl skin\nmap_Kd skin_4k.png\n")
    box = trimesh.creation.box((0.4, 1.7, 0.3))
    # A wall inside, from edge to edge: four of its neighbours' edges get a third triangle.
    inner = np.array([[0, 3, 7], [0, 7, 4]])
    trimesh.Trimesh(box.vertices, np.vstack([box.faces, inner]), process=False).export(folder / "walled.glb")
    trimesh.Trimesh(box.vertices, box.faces[:, ::-1], process=False).export(folder / "inside_out.glb")
    # With corners of its own: Blender drops a face that repeats another's vertices.
    again = trimesh.Trimesh(box.vertices[box.faces[0]], [[0, 1, 2]], process=False)
    trimesh.util.concatenate([box, again]).export(folder / "doubled.glb")
    trimesh.Trimesh(box.vertices, box.faces[2:], process=False).export(folder / "open.glb")
    (folder / "points.obj").write_text("v 0 0 0\nv 0 1 0\n")
    (folder / "empty.ply").write_bytes(b"")
    (folder / "studio.max").write_bytes(b"")
    (folder / "closed.glb").write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(box)))
    rows = table(folder)
    expected = {
        "unsaid": {"no_unit"},
        "headstand": {"upside_down"},
        "doll": {"height"},
        "lost": {"missing_texture"},
        "walled": {"non_manifold"},
        "inside_out": {"inverted_normals"},
        "doubled": {"duplicate_faces"},
        "open": {"holes"},
        "points": {"empty"},
        "empty": {"unreadable"},
        "studio": {"format"},
    }
    assert rows.keys() == {f"files/{n}" for n in (*expected, "closed")}
    for name, wanted in expected.items():
        row = rows[f"files/{name}"]
        assert wanted <= codes(row), (name, row["problems"])
        bars = name in ("headstand", "doll", "lost", "points", "empty", "studio")
        assert row["usable"] is not bars, (name, row["problems"])
        for problem in row["problems"]:
            assert problem["mend"] or ";" in problem["what"], problem
    assert rows["files/doll"]["problems"][0]["what"] == "height 0.1 m is outside 0.4-2.5 m at unit m"
    assert rows["files/lost"]["missing_textures"] == ["skin_4k.png"]
    assert codes(rows["files/closed"]) == {"no_texture", "missing_material"}
    assert rows["files/closed"]["watertight"]
    assert not rows["files/open"]["watertight"]
    # The mend that each row names, done.
    mended = table(folder, missing_colour="grey", up="-y", unit="m")
    assert mended["files/headstand"]["usable"]
    assert mended["files/lost"]["usable"]


def test_a_job_skips_what_the_table_bars_for_the_same_reason(tmp_path):
    path = runs.figure(tmp_path / "lost.obj")
    path.write_text("mtllib gone.mtl\nusemtl skin\n" + path.read_text())
    source = ScanFiles(FilesSource(paths=["lost.obj"]), tmp_path)
    with pytest.raises(AssetError, match=r"files/lost: colour gone.mtl is missing or unreadable; put it beside"):
        source.load(str(path), RNG)
    grey = ScanFiles(FilesSource(paths=["lost.obj"], missing_colour="grey"), tmp_path)
    assert grey.load(str(path), RNG).mesh.materials[0].base_color_texture is None


def test_a_job_leaves_out_what_a_scan_barred(tmp_path):
    runs.figure(tmp_path / "scans/good.obj")
    small = trimesh.load(tmp_path / "scans/good.obj")
    small.apply_scale(0.1)
    small.export(tmp_path / "scans/doll.glb")
    library.write(list(library.scan(tmp_path / "scans", {})), tmp_path / "assets.arrow")
    source = ScanFiles(FilesSource(paths=["scans"], scanned="assets.arrow"), tmp_path)
    assert [name for name, _, _ in source.identities()] == ["files/good"]
    # Mended, it is another file, and back.
    small.apply_scale(10)
    small.export(tmp_path / "scans/doll.glb")
    assert [name for name, _, _ in source.identities()] == ["files/doll", "files/good"]
    for scanned, expected in (
        ("nowhere.arrow", "write it with `maquette assets scan`"),
        ("scans/good.obj", "write it"),
    ):
        with pytest.raises(InputError, match=expected):
            ScanFiles(FilesSource(paths=["scans"], scanned=scanned), tmp_path).identities()


def test_the_command_writes_the_table_and_says_what_is_skipped(tmp_path):
    runs.figure(tmp_path / "library/good.obj")
    (tmp_path / "library/bad.glb").write_bytes(b"glTF not really")
    out = tmp_path / "out"
    code, said = runs.here("assets", "scan", tmp_path / "library", "--out", out, "--licence", "CC0-1.0")
    assert code == 1
    assert "files/bad: skipped: unreadable" in said
    assert "1 of 2 assets can be used" in said
    read = pa.ipc.open_stream((out / "assets.arrow").read_bytes()).read_all()
    assert read.schema.equals(library.SCHEMA, check_metadata=True)
    assert read.column("asset_id").to_pylist() == ["files/bad", "files/good"]
    assert read.column("usable").to_pylist() == [False, True]
    assert set(read.column("licence").to_pylist()) == {"CC0-1.0"}
    # Blender is not asked again: the second scan reads what the first left.
    for arguments, expected in (
        (("assets", "scan", tmp_path / "nowhere"), "no such folder"),
        (("assets", "scan", tmp_path / "library", "--unit", "ell", "--out", out), "--unit ell"),
    ):
        code, said = runs.here(*arguments)
        assert (code, "Traceback" in said) == (2, False)
        assert expected in said


def test_a_usd_in_centimetres_is_told_by_its_text_and_by_how_the_importer_scales_it(tmp_path):
    from render.blender.importer import usd_unit_applied

    box = trimesh.creation.box((40, 30, 170))
    path = tmp_path / "box.usda"
    path.write_text(scans.usd(box.vertices, box.faces, 0.01))
    row = table(tmp_path)["files/box"]
    assert row["usable"], row
    assert (row["height_m"], row["unit"]) == (pytest.approx(1.7, abs=1e-4), "cm (declared)")
    assert usd_unit_applied(path) == pytest.approx(0.01)
    assert table(tmp_path, unit="inch", height_gate_m=(1, 9))["files/box"]["height_m"] == pytest.approx(
        170 * 0.0254, abs=1e-3
    )


def test_a_scan_is_imported_once_and_again_when_a_byte_changes(tmp_path, monkeypatch):
    from render.blender import importer

    calls = []
    real = importer.import_file
    monkeypatch.setattr(importer, "import_file", lambda *a: calls.append(a[0]) or real(*a))
    path = runs.figure(tmp_path / "once.obj", height=1.613)

    def load() -> PersonMesh:
        return ScanFiles(FilesSource(paths=["once.obj"], unit="m", up="y"), tmp_path).load(str(path), RNG)

    first, second = load(), load()
    assert len(calls) == 1
    for name in ("vertices", "faces", "corner_normals", "material_index", "uv"):
        assert np.array_equal(getattr(first.mesh, name), getattr(second.mesh, name))
    path.write_text(path.read_text() + "# changed\n")
    load()
    assert len(calls) == 2
    # A damaged entry is read again, and mended.
    entries = sorted(
        (Path(library.os.environ["MAQUETTE_CACHE"]) / "scans").glob("*.npz"), key=lambda p: p.stat().st_mtime
    )
    entries[-1].write_bytes(entries[-1].read_bytes()[:-200])
    load()
    assert len(calls) == 3


def test_thuman_without_a_fit_names_the_mend_and_a_fit_is_never_run(tmp_path, made):
    folder = tmp_path / "thuman"
    shutil.copytree(made / "model", folder / "model")
    settings = ThumanSource(paths=["model"])
    source = source_of(settings, 0, folder)
    with pytest.raises(AssetError, match="thuman/0525: no unit: no smplx_param.pkl .* set fits, or unit"):
        source.load(source.identities()[0][1], RNG)
    # The fit where the job says it is.
    shutil.copytree(made / "smplx", folder / "elsewhere")
    fitted = source_of(settings.model_copy(update={"fits": "elsewhere"}), 0, folder)
    assert 1.6 < fitted.load(fitted.identities()[0][1], RNG).phenotype["height_m"] < 2.0
    assert not table(folder)["thuman/0525"]["usable"]
    assert table(folder, fits=str(folder / "elsewhere"))["thuman/0525"]["usable"]
    bad = tmp_path / "smplx_param.pkl"
    for data in (
        pickle.dumps(Path()),
        pickle.dumps({"scale": np.array([print], object)}),
        b"",
        pickle.dumps({"scale": -1}),
    ):
        bad.write_bytes(data)
        with pytest.raises(AssetError, match="no scale can be read"):
            fit_scale("thuman/1", bad)
    for protocol in range(6):
        data = pickle.dumps({"scale": np.float64(0.5), "pose": np.ones((2, 3), np.float32)}, protocol=protocol)
        assert ArraysOnly(io.BytesIO(data)).load()["scale"] == 0.5


def test_renderpeople_takes_the_standard_density_and_says_when_colour_is_gone(tmp_path, made):
    home = tmp_path / "rp_carla_posed_004_OBJ"
    shutil.copytree(made / "rp_carla_posed_004_OBJ", home)
    shutil.copy(home / "rp_carla_posed_004_100k.obj", home / "rp_carla_posed_004_30k.obj")
    (kind,) = library.sources(tmp_path, {})
    assert [(name, path.name) for name, path in kind.paths] == [
        ("renderpeople/carla_posed_004", "rp_carla_posed_004_100k.obj")
    ]
    before = kind.identities()[0][2]
    (home / "tex/rp_carla_posed_004_dif_2k.jpg").rename(home / "tex/rp_carla_posed_004_A.jpg")
    assert kind.identities()[0][2] != before
    assert kind.load(str(kind.paths[0][1]), RNG).mesh.materials[0].base_color_texture is not None
    (home / "tex/rp_carla_posed_004_A.jpg").unlink()
    row = library.examine(kind, tmp_path, *kind.paths[0])[0]
    assert codes(row) >= {"missing_texture"}
    assert not row["usable"]


def test_a_file_that_kills_blender_costs_one_row(tmp_path, monkeypatch):
    runs.figure(tmp_path / "a.obj")
    monkeypatch.setattr(library, "_row", _die)
    rows = table(tmp_path)
    assert codes(rows["files/a"]) == {"crashed"}


def _die(*_: object) -> dict:
    library.os._exit(7)


def test_a_library_without_scans_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no scan in it"):
        list(library.scan(tmp_path, {}))
