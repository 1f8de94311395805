"""Near-duplicates: every copy is found, no two photographs are one, and the tables of large corpora agree with all pairs."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa
import pytest

from curation import dedup, filters
from curation.decide import decide
from curation.fingerprint import fingerprint, hashes, ranks
from manifests import photo
from tests import photos
from tests.photos import cloud, encoded, measured, settings

COPIES = {
    "jpeg q30": lambda a: photo.decode(encoded(a, quality=30))[0],
    "half": lambda a: cv2.resize(a, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "enlarged": lambda a: cv2.resize(a, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "blur": lambda a: cv2.GaussianBlur(a, (0, 0), 2),
    "grey": lambda a: np.repeat(cv2.cvtColor(a, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "brighter": lambda a: np.clip(a * 1.3 + 10, 0, 255).astype(np.uint8),
    "darker": lambda a: (a * 0.6).astype(np.uint8),
    "mirrored": lambda a: np.ascontiguousarray(a[:, ::-1]),
    "white border": lambda a: cv2.copyMakeBorder(a, 30, 30, 40, 40, cv2.BORDER_CONSTANT, value=(255, 255, 255)),
    "mirrored in black bars": lambda a: cv2.copyMakeBorder(
        np.ascontiguousarray(a[:, ::-1]), 50, 50, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    ),
}


def row(name: str, rgb: np.ndarray) -> dict:
    grey = filters.luma(rgb)
    marks = fingerprint(grey, filters.inside(grey))
    return measured(
        name, [((0, 0, 400, 400), 0.95)], width=rgb.shape[1], height=rgb.shape[0], phash=marks.plain, phash_mirrored=marks.mirrored,
        phash_trimmed=marks.trimmed, phash_trimmed_mirrored=marks.trimmed_mirrored, thumb=marks.thumb,
    )  # fmt: skip


def table(pictures: dict[str, np.ndarray]) -> pa.Table:
    return photos.table([row(n, pictures[n]) for n in sorted(pictures)])


def pictures(shared) -> dict[str, np.ndarray]:
    index = json.loads((shared / "photos/index.json").read_text())
    return {e["image"]: photo.decode((shared / "photos" / e["image"]).read_bytes())[0] for e in index}


def test_every_copy_of_a_photograph_is_found_and_no_two_photographs_are_one(shared):
    originals = pictures(shared)
    assert len(dedup.pairs(table(originals))) == 0
    for kind, copy in COPIES.items():
        both = {f"{n}|0": p for n, p in originals.items()} | {f"{n}|1": copy(p) for n, p in originals.items()}
        found = dedup.pairs(table(both))
        names = sorted(both)
        pairs = {(names[a], names[b]) for a, b in zip(found["a"].to_pylist(), found["b"].to_pylist())}
        assert pairs == {(f"{n}|0", f"{n}|1") for n in originals}, kind


def test_faces_of_different_people_are_not_copies_of_each_other():
    """A hundred aligned faces of LFW, which arrive inside scikit-image, at the size of a small portrait."""
    from pathlib import Path

    import skimage

    faces = np.load(Path(skimage.__file__).parent / "data/lfw_subset.npy")[:100]
    portraits = [cv2.resize((f * 255).astype(np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC) for f in faces]
    rgb = {f"{i:03d}": np.repeat(p[..., None], 3, axis=2) for i, p in enumerate(portraits)}
    assert len(dedup.pairs(table(rgb))) == 0


def test_the_keeper_is_the_largest_whatever_the_order():
    pieces = {
        "a-half": COPIES["half"](cloud(0)),
        "b-whole": cloud(0),
        "c-mirror": COPIES["mirrored"](COPIES["half"](cloud(0))),
    }
    rows = table(pieces | {"d-other": cloud(1)})
    found = dedup.pairs(rows)
    for seed in range(3):
        mixed = rows.take(np.random.default_rng(seed).permutation(len(rows)))
        decided = decide(mixed, settings(min_side_px=1), found)
        assert dict(zip(decided["uri"].to_pylist(), decided["dup_of"].to_pylist())) == {
            "a-half": "b-whole", "b-whole": None, "c-mirror": "b-whole", "d-other": None
        }  # fmt: skip


def test_tables_of_large_corpora_find_what_all_pairs_find():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (300, 256), dtype=np.uint8)
    near = base[rng.integers(0, 300, 300)]
    for i, bits in enumerate(rng.integers(0, 60, 300)):
        near[i, rng.choice(256, bits, replace=False)] ^= 1
    codes = [np.packbits(b).tobytes() for b in np.concatenate([base, near])]
    flat = np.arange(256, dtype=np.uint8).tobytes()
    rows = photos.table([measured(f"{i:04d}", phash=c, thumb=flat) for i, c in enumerate(codes)])
    few, many = dedup.pairs(rows, multi=False), dedup.pairs(rows, multi=True)
    assert few.equals(many)
    assert few["distance"].to_numpy().max() == 47
    expected = (np.concatenate([base, near])[:, None] != np.concatenate([base, near])[None]).sum(axis=2)
    assert len(few) == int((np.triu(expected <= 47, 1)).sum())


def test_beyond_the_sure_distance_thumbnails_must_agree():
    bits = np.zeros(256, np.uint8)
    bits[:44] = 1
    rng = np.random.default_rng(0)
    thumbs = [rng.integers(0, 256, 256, dtype=np.uint8).tobytes() for _ in range(2)]
    pair = [
        measured("a", phash=bytes(32), thumb=thumbs[0]),
        measured("b", phash=np.packbits(bits).tobytes(), thumb=thumbs[1]),
    ]
    assert len(dedup.pairs(photos.table(pair))) == 0
    pair[1]["thumb"] = thumbs[0]
    assert dedup.pairs(photos.table(pair)).to_pylist() == [{"a": 0, "b": 1, "distance": 44}]


def test_groups_are_transitive_and_a_shorter_distance_parts_them():
    bits = np.zeros((3, 256), np.uint8)
    bits[1, :20] = 1
    bits[2, :40] = 1
    good = [((0, 0, 400, 400), 0.95)]
    rows = photos.table(
        [
            measured(n, good, phash=np.packbits(b).tobytes(), thumb=bytes(256), width=w, height=w)
            for n, b, w in zip("abc", bits, (1000, 3000, 2000))
        ]
    )
    found = dedup.pairs(rows)
    assert decide(rows, settings(duplicate_distance=24), found)["dup_of"].to_pylist() == ["b", None, "b"]
    assert decide(rows, settings(duplicate_distance=24), found)["dup_distance"].to_pylist() == [20, None, 20]
    assert decide(rows, settings(duplicate_distance=19), found)["dup_of"].to_pylist() == [None] * 3


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_flat_picture_is_like_nothing(shade):
    flat = np.full((300, 400, 3), shade, np.uint8)
    assert len(dedup.pairs(table({"a": flat, "b": flat}))) == 0


@pytest.mark.parametrize("seed", range(4))
def test_quality_numbers_follow_what_was_done_to_a_picture(seed):
    picture = cloud(seed)
    plain = filters.measure(filters.luma(picture))
    soft = filters.measure(filters.luma(cv2.GaussianBlur(picture, (0, 0), 4)))
    framed = filters.measure(
        filters.luma(cv2.copyMakeBorder(picture, 90, 90, 120, 120, cv2.BORDER_CONSTANT, value=(9, 9, 9)))
    )
    assert soft.blur < plain.blur / 4
    # 480 x 360 in 720 x 540: 5/9 of the area is border.
    assert framed.border == pytest.approx(5 / 9, abs=0.02)
    assert plain.border < 0.05
    assert filters.measure(filters.luma((picture * 0.1).astype(np.uint8))).bright <= 26
    assert filters.measure(filters.luma(np.full((40, 40, 3), 77, np.uint8))).entropy == 0


def test_the_hash_is_pdqs_bit_for_bit(shared):
    """Meta's library, given the same 64 x 64 samples, as a peer; the sixth of its eight turns is the mirror image."""
    import pdqhash

    for rgb in list(pictures(shared).values())[:16]:
        grey = filters.luma(rgb)
        samples = np.sqrt(ranks(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)) / 255.0) * 255
        bits, _ = pdqhash.compute_dihedral(np.repeat(samples.astype(np.uint8)[..., None], 3, axis=2))
        assert hashes(grey) == tuple(np.packbits(np.asarray(bits[k], np.uint8)).tobytes() for k in (0, 5))
