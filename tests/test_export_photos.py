"""Photographs that leave a dataset: upright, and without what their files tell of where they were taken."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import cv2
import numpy as np
import pytest

from manifests import photo
from manifests.errors import InputError
from manifests.export import export
from tests.test_export import store


def photograph(file_format: str, orientation: int) -> tuple[bytes, np.ndarray]:
    """A file with a place, a name and a comment in it, and its upright pixels as our own decoder sees them."""
    from PIL import Image, PngImagePlugin

    rng = np.random.default_rng(orientation)
    picture = Image.fromarray(cv2.resize(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8), (90, 60)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "SECRET place"
    exif.get_ifd(0x8825)[29] = "2024:SECRET"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "SECRET note")
    kept = io.BytesIO()
    options = {"pnginfo": notes} if file_format == "PNG" else {"comment": b"SECRET", "progressive": orientation == 1}
    picture.save(kept, file_format, exif=exif, **options)
    data = kept.getvalue() + (b"SECRET video" if file_format == "JPEG" else b"")
    return data, photo.decode(data)[0]


def curated(i: int, data: bytes, shape: tuple[int, int], orientation: int) -> dict:
    return {
        "sample_id": f"photo-{i}",
        "stage_digest": "d" * 64,
        "index": i,
        "split": "train",
        "image": {"bytes": data, "path": f"IMG_{i}.jpg"},
        "width": shape[1],
        "height": shape[0],
        "orientation": orientation,
        "sha256": hashlib.sha256(data).hexdigest(),
        "phash": bytes(32),
        "boxes": [{"xyxy": [1.0, 2.0, 30.0, 40.0], "raw_score": 0.9, "score": 0.9}],
        "uri": "corpus/1",
        "rights": [{"id": "p", "source": "s", "licence": "CC-BY-4.0", "consent": None, "redistributable": True}],
    }


def test_photographs_leave_upright_and_without_what_their_files_tell(tmp_path):
    import pandas

    cases = [("JPEG", 1), ("JPEG", 6), ("PNG", 1), ("PNG", 3)]
    files = [photograph(*case) for case in cases]
    rows = [curated(i, d, p.shape[:2], cases[i][1]) for i, (d, p) in enumerate(files)]
    folder = store(tmp_path / "d", rows, "curated")
    assert all(b"SECRET" in data for data, _ in files)
    export(folder, "webdataset", tmp_path / "w", "train")
    export(folder, "parquet", tmp_path / "p", "train")
    table = pandas.read_parquet(tmp_path / "p" / "00000.parquet")
    with tarfile.open(tmp_path / "w" / "000000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    for i, (case, (_, pixels)) in enumerate(zip(cases, files)):
        data = table.iloc[i]["image"]["bytes"]
        assert data == members[f"photo-{i}.{'jpg' if case[0] == 'JPEG' else 'png'}"]
        assert b"SECRET" not in data
        back, header = photo.decode(data)
        assert header.orientation == 1
        assert table.iloc[i]["orientation"] == 1
        assert back.shape == pixels.shape == (table.iloc[i]["height"], table.iloc[i]["width"], 3)
        # Only a JPEG that had to be turned is coded again.
        assert np.abs(back.astype(int) - pixels).max() <= (12 if case == ("JPEG", 6) else 0)
    assert json.loads(members["photo-0.json"])["phash"] == "00" * 32
    with pytest.raises(InputError, match="photo-0: has no `depth`, which the format sapiens-v1 needs"):
        export(folder, "sapiens-v1", tmp_path / "s")
