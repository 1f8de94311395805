"""Repair of scans: each kind of damage is done here, named, mended, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from manifests.errors import InputError
from render.assets.repair import repair, repair_file


def sphere() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(3, 0.5)


def said(changes) -> dict[str, int]:
    return {c.kind: c.count for c in changes}


def test_a_sound_mesh_stays_as_it_is():
    mesh = sphere()
    mended, changes = repair(mesh)
    assert changes == []
    assert np.array_equal(mended.faces, mesh.faces)
    assert np.array_equal(mended.vertices, mesh.vertices)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_small_hole_is_filled_facing_outwards(size):
    mesh = trimesh.creation.icosphere(4, 0.5)
    near = np.argsort(np.linalg.norm(mesh.triangles_center - mesh.triangles_center[0], axis=1))[:size]
    keep = np.ones(len(mesh.faces), bool)
    keep[near] = False
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False))
    assert said(changes) == {"hole": 1}
    assert mended.is_watertight
    assert mended.is_winding_consistent
    assert mended.volume == pytest.approx(mesh.volume, rel=0.01)


def test_two_holes_are_counted_and_said():
    mesh = sphere()
    keep = np.ones(len(mesh.faces), bool)
    keep[[0, 900]] = False
    _, changes = repair(trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False))
    assert [str(c) for c in changes] == ["2 holes filled"]


def test_a_large_opening_is_left_and_named():
    mesh = sphere()
    half = mesh.triangles_center[:, 2] > -0.2
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, mesh.faces[half], process=False))
    assert [(c.kind, c.count, c.done) for c in changes] == [("open", 1, False)]
    assert len(mended.faces) == half.sum()


def test_the_outline_of_a_strand_card_is_no_hole():
    card = trimesh.Trimesh([[0, 0, 0], [0.02, 0, 0], [0.02, 0, 0.02], [0, 0, 0.02]], [[0, 1, 2], [0, 2, 3]])
    mended, changes = repair(trimesh.util.concatenate([sphere(), card.apply_translation([1, 0, 0])]))
    assert said(changes) == {"open": 1}
    assert len(mended.faces) == len(sphere().faces) + 2


def test_duplicate_faces_are_removed_whatever_corner_they_start_at():
    mesh = sphere()
    faces = np.concatenate([mesh.faces, np.roll(mesh.faces[:5], 1, axis=1)])
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, faces, process=False))
    assert said(changes) == {"duplicate": 5}
    assert np.array_equal(mended.faces, mesh.faces)


def test_faces_without_area_are_removed():
    mesh = sphere()
    faces = np.concatenate([mesh.faces, [[0, 0, 1], [2, 3, 3]]])
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, faces, process=False))
    assert said(changes) == {"degenerate": 2}
    assert np.array_equal(mended.faces, mesh.faces)


def test_a_mesh_inside_out_is_turned():
    mesh = sphere()
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False))
    assert said(changes) == {"inverted": len(mesh.faces)}
    assert mended.volume == pytest.approx(mesh.volume)
    assert np.einsum("vc,vc->v", mended.vertex_normals, mesh.vertex_normals).min() > 0.99


def test_single_inverted_faces_are_turned():
    mesh = sphere()
    faces = mesh.faces.copy()
    faces[[3, 77, 200]] = faces[[3, 77, 200], ::-1]
    mended, changes = repair(trimesh.Trimesh(mesh.vertices, faces, process=False))
    assert said(changes) == {"inverted": 3}
    assert mended.is_winding_consistent
    assert mended.volume == pytest.approx(mesh.volume)


def test_only_the_piece_that_is_inside_out_is_turned():
    good, bad = sphere(), sphere().apply_translation([2, 0, 0])
    bad.invert()
    mended, changes = repair(trimesh.util.concatenate([good, bad]))
    assert said(changes) == {"inverted": len(bad.faces)}
    assert mended.volume == pytest.approx(2 * good.volume)


def test_a_texture_seam_is_no_hole_and_coordinates_stay():
    mesh = sphere()
    # Every face with its own three vertices, as an exporter splits them: 1280 pieces to the index, one to the eye.
    split = trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False)
    uv = np.random.default_rng(0).random((len(split.vertices), 2))
    split.visual = trimesh.visual.TextureVisuals(uv)
    assert repair(split)[1] == []
    split.update_faces(np.arange(len(split.faces)) != 10)
    mended, changes = repair(split)
    assert said(changes) == {"hole": 1}
    assert np.array_equal(mended.visual.uv, split.visual.uv)
    assert len(mended.faces) == len(mesh.faces)


def test_all_kinds_at_once_end_watertight():
    mesh = sphere()
    faces = np.concatenate([mesh.faces[1:], mesh.faces[5:6], [[9, 9, 10]]])[:, ::-1]
    before = faces.copy()
    damaged = trimesh.Trimesh(mesh.vertices, faces, process=False)
    mended, changes = repair(damaged)
    assert said(changes) == {"degenerate": 1, "duplicate": 1, "inverted": len(mesh.faces) - 1, "hole": 1}
    assert mended.is_watertight
    assert mended.volume == pytest.approx(mesh.volume)
    # The mesh that was given is left alone.
    assert np.array_equal(damaged.faces, before)
    assert repair(mended)[1] == []


def test_a_file_is_repaired_beside_and_keeps_its_texture(tmp_path):
    from PIL import Image

    mesh = sphere()
    keep = np.ones(len(mesh.faces), bool)
    keep[[0, 900]] = False
    uv = np.random.default_rng(0).random((len(mesh.vertices), 2))
    skin = trimesh.visual.material.SimpleMaterial(Image.new("RGB", (8, 8), (9, 99, 9)))
    torn = trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False)
    torn.visual = trimesh.visual.TextureVisuals(uv=uv, material=skin)
    for suffix in ("obj", "glb"):
        (tmp_path / suffix).mkdir()
        path = tmp_path / suffix / f"torn.{suffix}"
        torn.export(path)
        before = path.read_bytes()
        assert [str(c) for c in repair_file(path, tmp_path / "out" / suffix)] == ["2 holes filled"]
        assert path.read_bytes() == before
        again = trimesh.load_scene(str(tmp_path / "out" / suffix / f"torn.{suffix}"), process=False)
        (mended,) = again.geometry.values()
        assert len(mended.faces) == len(mesh.faces)
        pbr = mended.visual.material.to_pbr() if suffix == "obj" else mended.visual.material
        assert pbr.baseColorTexture.getpixel((0, 0))[:3] == (9, 99, 9)


def test_what_cannot_be_repaired_is_said(tmp_path, shared):
    character = next((shared / "assets/people").glob("**/*.gl*"))
    for path, words in ((character, "rigged"), (tmp_path / "x.fbx", "export it as"), (tmp_path / "none.obj", "read")):
        with pytest.raises(InputError, match=words):
            repair_file(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
