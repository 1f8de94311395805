"""Injected probes: each hostile file gets its reason code, and nothing that bytes can do ends the run."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from curation import dedup
from curation.decide import decide
from curation.measure import Fetched, Measurer
from manifests import photo
from manifests.errors import PhotoError
from tests import photos
from tests.conftest import ROOT
from tests.photos import cloud, encoded, settings

PICTURE = cloud(7)
DATA = encoded(PICTURE, quality=88)


def item(data: bytes, name: str = "x") -> Fetched:
    row = {"uri": name, "kind": "file", "file": name, "offset": 0, "length": len(data), "licence": "x", "consent": "x"}
    return Fetched(row | {"redistributable": False, "meta": None}, data, {}, None, 0.0)


@pytest.fixture(scope="module")
def measurer() -> Measurer:
    return Measurer(settings(max_pixels=4_000_000, max_bytes=5_000_000), ROOT)


def reasons(measurer: Measurer, files: dict[str, bytes]) -> dict[str, str]:
    rows = measurer.measure([item(data, name) for name, data in files.items()])
    table = photos.table(rows)
    decided = decide(table, settings(accept_weak=True), dedup.pairs(table.sort_by("uri")))
    assert len(decided) == len(files)
    return dict(zip(decided["uri"].to_pylist(), decided["first_fail"].to_pylist()))


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def test_every_probe_gets_its_reason_code(measurer):
    wide = Image.fromarray((PICTURE[..., 0].astype(np.uint16)) * 257)
    sixteen = io.BytesIO()
    wide.save(sixteen, "PNG")
    files = {
        "truncated": DATA[: len(DATA) // 2],
        "zeroed": DATA[:9000] + bytes(1024) + DATA[10024:],
        "bomb": encoded(np.zeros((3000, 3000, 3), np.uint8), "PNG"),
        "heavy": bytes(5_000_001),
        "animated": animated(),
        "page.jpg": b"<html><body>404</body></html>",
        "zero bytes": b"",
        "noise": random.Random(0).randbytes(5000),
        "a-original": DATA,
        "b-same bytes": DATA,
        "c-mirrored": encoded(PICTURE[:, ::-1].copy()),
        "d-re-encoded": encoded(PICTURE, quality=40),
        "flat": encoded(np.full((400, 400, 3), 90, np.uint8), "PNG"),
        "tiny": encoded(PICTURE[:100, :100].copy()),
        "thin": encoded(np.tile(PICTURE[:330], (1, 5, 1))),
        "e-16 bit": sixteen.getvalue(),
    }
    found = reasons(measurer, files)
    expected = {
        "truncated": "corrupt", "zeroed": "corrupt", "bomb": "too_large", "heavy": "too_large", "animated": "animated",
        "page.jpg": "format", "zero bytes": "empty", "noise": "format", "b-same bytes": "dup_exact", "flat": "blur",
        "tiny": "too_small", "thin": "aspect",
    }  # fmt: skip
    assert {k: found[k] for k in expected} == expected
    rows = decide_rows(measurer, files)
    for twin in ("c-mirrored", "d-re-encoded", "e-16 bit"):
        assert "dup_near" in rows[twin]["reasons"] or rows[twin]["dup_of"] is None
    assert rows["c-mirrored"]["dup_group"] == rows["d-re-encoded"]["dup_group"] == rows["a-original"]["dup_group"]


def decide_rows(measurer: Measurer, files: dict[str, bytes]) -> dict[str, dict]:
    table = photos.table(measurer.measure([item(data, name) for name, data in files.items()])).sort_by("uri")
    return {d["uri"]: d for d in decide(table, settings(accept_weak=True), dedup.pairs(table)).to_pylist()}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_and_boxes_are_upright_for_every_exif_orientation(measurer, orientation):
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    exif = Image.Exif()
    exif[photo.EXIF_ORIENTATION] = orientation
    row = measurer.measure([item(encoded(photo.upright(PICTURE, inverse), quality=95, exif=exif))])[0]
    upright = measurer.measure([item(encoded(PICTURE, quality=95))])[0]
    assert (row["width"], row["height"], row["orientation"]) == (480, 360, orientation)
    pair = photos.table([upright | {"uri": "a"}, row | {"uri": "b"}])
    assert dedup.between(pair, np.array([0]), np.array([1]))[0] <= 8


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_is_measured(measurer, mode):
    out = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(out, "JPEG" if mode == "CMYK" else "PNG")
    row = measurer.measure([item(out.getvalue())])[0]
    assert row["error"] is None
    assert row["phash"] is not None


def jpegs(shared) -> list[bytes]:
    return [p.read_bytes() for p in sorted((shared / "photos/img").glob("*.jpg"))[:25]]


def test_damage_in_the_middle_of_a_photograph_is_caught(shared):
    """Zeroed blocks and truncations always; bursts of 64 random bytes in three cases of four: in the others the decoder
    falls into step again with as many blocks as before, and nothing in the stream is wrong.
    """
    chance, count = random.Random(1), 500
    files = jpegs(shared)
    caught = {"zeroed": 0, "cut": 0, "random": 0}
    for i in range(count):
        data = files[i % len(files)]
        # The last scan is the picture's; one before it is the thumbnail's.
        start = data.rindex(b"\xff\xda") + 20
        at, cut = chance.randrange(start, len(data) - 600), chance.randrange(start, len(data) - 2)
        for kind, bad in (
            ("zeroed", data[:at] + bytes(512) + data[at + 512 :]),
            ("cut", data[:cut]),
            ("random", data[:at] + chance.randbytes(64) + data[at + 64 :]),
        ):
            try:
                photo.decode(bad)
            except PhotoError as error:
                caught[kind] += error.code == "corrupt"
    assert caught["zeroed"] == caught["cut"] == count
    assert caught["random"] >= 0.75 * count, caught


@pytest.mark.parametrize("count", [pytest.param(200), pytest.param(2000, marks=pytest.mark.soak)])
def test_mutated_files_get_one_row_each_and_crash_nothing(measurer, count):
    chance = random.Random(2)
    out = io.BytesIO()
    Image.fromarray(PICTURE[:120, :160]).save(out, "TIFF", compression="tiff_lzw")
    small = PICTURE[:120, :160].copy()
    seeds = [encoded(small, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF")] + [out.getvalue()]
    for first in range(0, count, 20):
        files = [mutated(chance, chance.choice(seeds)) for _ in range(min(20, count - first))]
        rows = measurer.measure([item(data, f"{i:02d}") for i, data in enumerate(files)])
        assert len(rows) == len(files)
        decided = decide(photos.table(rows), settings(), dedup.pairs(photos.table(rows)))
        assert decided["uri"].to_pylist() == [f"{i:02d}" for i in range(len(files))]
        assert not any(decided["kept"].to_pylist())


def mutated(chance: random.Random, data: bytes) -> bytes:
    bad = bytearray(data)
    for _ in range(chance.randint(1, 12)):
        at = chance.randrange(len(bad))
        kind = chance.randrange(4)
        if kind == 0:
            bad[at] = chance.randrange(256)
        elif kind == 1:
            bad[at : at + chance.randint(1, 40)] = chance.randbytes(chance.randint(0, 40))
        elif kind == 2:
            del bad[at : at + chance.randint(1, 200)]
        else:
            # Lengths and sizes live in the head of a file.
            bad[min(len(bad) - 1, chance.randrange(64))] = chance.choice((0, 1, 127, 255))
        if not bad:
            return b""
    return bytes(bad)
