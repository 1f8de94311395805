"""Sources: every kind of corpus becomes the same table of inputs, with its bytes, metadata and rights; nothing is lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import uuid
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import provenance, reading
from curation.measure import Measurer, fetch
from curation.sources import count, listed
from manifests.curation import PhotoSource
from manifests.errors import InputError, PhotoError
from tests import s3
from tests.conftest import ROOT
from tests.photos import cloud, encoded, settings

JPEG = [encoded(cloud(i, 120, 90)) for i in range(4)]


def inputs(tmp_path, path: str, **source) -> list[dict]:
    stage = settings(sources=[PhotoSource(path=path, licence="own", **source)])
    rows = listed(stage, tmp_path, tmp_path / "scratch").to_pylist()
    assert [r["uri"] for r in rows] == sorted(r["uri"] for r in rows)
    assert count(stage, tmp_path)[0] == len(rows)
    return rows


def tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def test_the_bundled_corpus_is_real_photographs_and_three_made_files(tmp_path):
    photos = listed(settings(), ROOT, tmp_path).to_pylist()
    assert len(photos) >= 8
    assert {p["uri"].rsplit("/", 1)[-1] for p in photos} >= {
        "copy_of_grace_hopper.jpg",
        "truncated.jpg",
        "not_an_image.jpg",
    }
    n, size = count(settings(), ROOT)
    assert n == len(photos)
    assert size == sum(p["length"] for p in photos)


def test_a_folder_gives_its_pictures_with_the_json_beside_them(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.jpg").write_bytes(JPEG[0])
    (tmp_path / "in/deep/b.JPG").write_bytes(JPEG[1])
    (tmp_path / "in/a.json").write_text(json.dumps({"license": "CC-BY-4.0", "url": "http://x/a", "artist": "Ann"}))
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "secret.jpg").write_bytes(JPEG[2])
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    rows = inputs(tmp_path, "in")
    assert [r["uri"] for r in rows] == ["in/a.jpg", "in/deep/b.JPG", "in/gone.jpg", "in/link.jpg"]
    # What links lead to outside the folder is not read, and they are named.
    assert all("leads out of its folder" in str(fetch(r).error) for r in rows[2:])
    rows = rows[:2]
    found = [reading.read(r) for r in rows]
    assert [d for d, _ in found] == JPEG[:2]
    measured = Measurer(settings(min_side_px=50), tmp_path).measure([fetch(r) for r in rows])
    assert [(m["licence"], m["author"], m["url"]) for m in measured] == [
        ("CC-BY-4.0", "Ann", "http://x/a"), ("own", None, None)
    ]  # fmt: skip
    assert [m["sha256"] for m in measured] == [hashlib.sha256(d).hexdigest() for d in JPEG[:2]]


def test_a_webdataset_shard_gives_its_members_with_their_metadata(tmp_path):
    members = {"000.jpg": JPEG[0], "000.json": b'{"license": "CC0-1.0"}', "000.txt": b"caption", "001.jpg": JPEG[1]}
    tar(tmp_path / "00000.tar", members)
    with tarfile.open(tmp_path / "00000.tar", "a") as out:
        info = tarfile.TarInfo("001.jpg")
        info.size = len(JPEG[2])
        out.addfile(info, io.BytesIO(JPEG[2]))
    rows = inputs(tmp_path, "00000.tar")
    assert [reading.read(r)[0] for r in rows] == JPEG[:3]
    assert reading.read(rows[0])[1] == {"license": "CC0-1.0"}
    (tmp_path / "cut.tar").write_bytes((tmp_path / "00000.tar").read_bytes()[:3000])
    with pytest.raises((InputError, PhotoError)):
        [reading.read(r) for r in inputs(tmp_path, "cut.tar")]
    (tmp_path / "packed.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="no random access"):
        inputs(tmp_path, "packed.tar.gz")


@pytest.mark.parametrize("form", ["parquet", "arrow_stream", "arrow_file"])
def test_tables_give_their_rows_with_the_other_columns(tmp_path, form):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": d, "path": f"{i}.jpg"} for i, d in enumerate(JPEG[:3])] + [{"bytes": None, "path": "gone"}]
    table = pa.table({"image": pa.array(cells, kind), "license": ["a", "b", "c", "d"]})
    path = tmp_path / ("t.parquet" if form == "parquet" else "t.arrow")
    if form == "parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        new = pa.ipc.new_stream if form == "arrow_stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    rows = inputs(tmp_path, path.name)
    assert [reading.read(r)[0] for r in rows[:3]] == JPEG[:3]
    assert reading.read(rows[1])[1]["license"] == "b"
    with pytest.raises(PhotoError) as caught:
        reading.read(rows[3])
    assert caught.value.code == "io_error"


def test_img2dataset_output_accounts_for_what_was_not_downloaded(tmp_path):
    (tmp_path / "out").mkdir()
    tar(
        tmp_path / "out/00000.tar",
        {"000000000.jpg": JPEG[0], "000000000.json": b'{"url": "http://x/0", "status": "success"}'},
    )
    record = pa.table(
        {"key": ["000000000", "000000001"], "url": ["http://x/0", "http://x/1"], "status": ["success", "failed_to_download"],
         "error_message": [None, "HTTP Error 404"]}
    )  # fmt: skip
    pq.write_table(record, tmp_path / "out/00000.parquet")
    (tmp_path / "out/00000_stats.json").write_text("{}")
    rows = inputs(tmp_path, "out")
    assert [r["kind"] for r in rows] == ["missing", "tar"]
    row = Measurer(settings(), tmp_path).measure([fetch(rows[0])])[0]
    assert (row["error"], row["error_detail"], row["url"]) == ("download_failed", "HTTP Error 404", "http://x/1")


def test_a_list_of_addresses_names_files_beside_it_and_nothing_else(tmp_path):
    (tmp_path / "l").mkdir()
    for i in range(2):
        (tmp_path / f"l/{i}.jpg").write_bytes(JPEG[i])
    (tmp_path / "secret.jpg").write_bytes(JPEG[2])
    (tmp_path / "l/urls.csv").write_text(
        "url,path,license\nhttp://x/0,0.jpg,CC0\nhttp://x/1.jpg,,\nhttp://x/2,../secret.jpg,\nhttp://x/3,3.jpg,\n"
    )
    rows = inputs(tmp_path, "l/urls.csv")
    assert [r["kind"] for r in rows] == ["file", "file", "missing", "missing"]
    assert reading.read(rows[0])[1]["license"] == "CC0"
    assert reading.read(rows[1])[0] == JPEG[1]
    with pytest.raises(PhotoError, match="outside the folder"):
        reading.read(rows[2])
    (tmp_path / "l/urls.txt").write_text("# made\n0.jpg\nhttp://x/photo%201.jpg\t1.jpg\n")
    assert [reading.read(r)[0] for r in inputs(tmp_path, "l/urls.txt")] == JPEG[:2]


def test_what_is_not_there_is_named(tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no photograph inside"):
        inputs(tmp_path, "bare")
    with pytest.raises(InputError, match="no such file or folder"):
        inputs(tmp_path, "nowhere")
    gone = listed(settings(), ROOT, tmp_path / "s").to_pylist()[0] | {"file": "/nonexistent/x.jpg"}
    row = Measurer(settings(), ROOT).measure([fetch(gone)])[0]
    assert (row["error"], row["stopped"]) == ("io_error", "read")


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    data = encoded(np.zeros((8, 8, 3), np.uint8), "PNG")
    extra = b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    return data[:33] + extra + data[33:]


def jpeg(app1: bytes) -> bytes:
    return JPEG[0][:2] + b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1 + JPEG[0][2:]


IPTC = b"http://ns.adobe.com/xap/1.0/\0<x Iptc4xmpExt:DigitalSourceType='http://cv.iptc.org/newscodes/digitalsourcetype/%s'/>"
C2PA = b"c2pa.training-mining\xa1gentries\xa1xc2pa.ai_generative_training\xa1cusejnotAllowed"


@pytest.mark.parametrize(
    ("data", "said", "optout", "synthetic"),
    [
        (JPEG[0], {}, None, None),
        (JPEG[0], {"x_robots_tag": "noindex, NoImageAI"}, "x_robots_tag: noimageai", None),
        (JPEG[0], {"X-Robots-Tag": "noindex"}, None, None),
        (JPEG[0], {"optout": True}, "optout: True", None),
        (JPEG[0], {"caption": "a noai poster"}, None, None),
        (jpeg(b"http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"), {}, "DMI-PROHIBITED-AIMLTRAINING", None),
        (jpeg(b"http://ns.useplus.org/ldf/vocab/DMI-ALLOWED"), {}, None, None),
        (jpeg(b"jumb" + C2PA), {}, "c2pa.ai_generative_training", None),
        (jpeg(IPTC % b"trainedAlgorithmicMedia"), {}, None, "trainedAlgorithmicMedia"),
        (jpeg(IPTC % b"digitalCapture"), {}, None, None),
        (jpeg(b"Exif\0\0 Midjourney v6"), {}, None, "Midjourney"),
        (png((b"tEXt", b"parameters\0a cat\nSteps: 20, Sampler: Euler")), {}, None, "Steps: 20, Sampler: "),
        (png((b"zTXt", b"workflow\0\0" + zlib.compress(b"{}"))), {}, None, "PNG text workflow"),
        (png((b"tEXt", b"Software\0GIMP")), {}, None, None),
    ],
)
def test_opt_outs_and_generators_are_read_where_they_are_written(data, said, optout, synthetic):
    found = provenance.read(data, said)
    assert found.synthetic == synthetic
    assert (found.optout or "").startswith(optout or "")
    assert bool(found.optout) == bool(optout)


def test_text_that_is_a_bomb_or_damaged_is_not_unpacked():
    bomb = png((b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)[:150_000]))
    assert max(len(body) for _, body in provenance.segments(bomb)) <= provenance.MAX_TEXT + 2
    for cut in range(0, 200, 7):
        provenance.read(JPEG[0][:cut], {})
        provenance.read(png((b"iTXt", b"a\0\1\0x\0y\0z"))[: 33 + cut], {})


@pytest.fixture
def bucket(monkeypatch):
    server = s3.Server()
    for key, value in s3.environment(server.endpoint).items():
        monkeypatch.setenv(key, value)
    yield f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"
    server.stop()


def test_a_bucket_gives_what_a_folder_gives(tmp_path, bucket):
    from manifests.store import open_store

    tar(tmp_path / "00000.tar", {f"{i}.jpg": d for i, d in enumerate(JPEG)})
    pq.write_table(pa.table({"jpg": JPEG[:2], "license": ["a", "b"]}), tmp_path / "t.parquet")
    url = f"{bucket}/corpus"
    store = open_store(url)
    store.replace("x/00000.tar", (tmp_path / "00000.tar").read_bytes())
    store.replace("x/t.parquet", (tmp_path / "t.parquet").read_bytes())
    store.replace("x/one.jpg", JPEG[3])
    rows = inputs(tmp_path, url)
    assert [r["kind"] for r in rows] == ["tar"] * 4 + ["file"] + ["table"] * 2
    assert [reading.read(r)[0] for r in rows] == [*JPEG, JPEG[3], *JPEG[:2]]
    single = inputs(tmp_path, f"{url}/x/one.jpg")
    assert [r["uri"] for r in single] == [f"{url}/x/one.jpg"]


def test_a_name_that_no_table_can_hold_and_a_pipe_get_their_rows(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("写真 ü.jpg", "a#b.jpg", "line\nbreak.jpg"):
        (folder / name).write_bytes(encoded(cloud(0)))
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.jpg")).write_bytes(encoded(cloud(0)))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "self").symlink_to(folder)
    rows = inputs(tmp_path, "odd")
    why = {r["uri"]: str(f.error) if (f := fetch(r)).error else None for r in rows}
    assert {n for n, w in why.items() if w is None} == {"odd/写真 ü.jpg", "odd/a#b.jpg", "odd/line\nbreak.jpg"}
    assert "not UTF-8" in why["odd/bad\\udcff.jpg"]
    assert "regular file" in why["odd/pipe.jpg"]
    assert len(rows) == 5
