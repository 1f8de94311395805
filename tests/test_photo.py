"""Hostile photographs: each is decoded right or refused with its reason code, never half."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from manifests import photo
from manifests.errors import PhotoError


def smooth(width: int = 60, height: int = 40) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)


def encoded(rgb: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    upright = smooth()
    # What a camera stores when the upright picture is this one: the inverse of what EXIF tells a viewer to do.
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = photo.upright(upright, inverse)
    exif = Image.Exif()
    exif[photo.EXIF_ORIENTATION] = orientation
    rgb, header = photo.decode(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(rgb, upright)
    assert header.orientation == orientation
    # The same answer as Pillow's own transpose.
    from PIL import ImageOps

    assert np.array_equal(
        np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(stored, "PNG", exif=exif))))), rgb
    )


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(mode):
    picture = Image.fromarray(smooth()[..., 0]) if mode == "I;16" else Image.fromarray(smooth())
    if mode == "I;16":
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16)) * 257)
    else:
        picture = picture.convert(mode)
    out = io.BytesIO()
    picture.save(out, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 95} if mode == "CMYK" else {}))
    rgb, _ = photo.decode(out.getvalue())
    assert rgb.shape == (40, 60, 3)
    assert rgb.dtype == np.uint8
    assert rgb.std() > 5


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "format"),
        (b"\xff\xd8\xff\xe0 not really", "format"),
        (bytes(1000), "format"),
    ],
)
def test_what_is_no_photograph_says_so(data, code):
    with pytest.raises(PhotoError) as caught:
        photo.decode(data)
    assert caught.value.code == code


def test_bombs_are_refused_before_they_are_decoded():
    bomb = encoded(np.zeros((4000, 4000, 3), np.uint8), "PNG")
    with pytest.raises(PhotoError) as caught:
        photo.decode(bomb, max_pixels=1_000_000)
    assert caught.value.code == "too_large"
    with pytest.raises(PhotoError) as caught:
        photo.decode(bomb, max_bytes=100)
    assert caught.value.code == "too_large"


def test_animations_are_refused():
    frames = [Image.fromarray(smooth()), Image.fromarray(smooth()[::-1].copy())]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(PhotoError) as caught:
        photo.decode(out.getvalue())
    assert caught.value.code == "animated"


def test_truncated_and_zeroed_jpegs_are_always_caught():
    noisy = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = encoded(noisy, quality=90)
    chance = random.Random(0)
    start = data.index(b"\xff\xda") + 20
    for _ in range(40):
        cut = chance.randrange(start, len(data) - 4)
        with pytest.raises(PhotoError):
            photo.decode(data[:cut])
        at = chance.randrange(start, len(data) - 600)
        with pytest.raises(PhotoError):
            photo.decode(data[:at] + bytes(512) + data[at + 512 :])


def test_truncated_png_is_caught():
    data = encoded(smooth(), "PNG")
    with pytest.raises(PhotoError):
        photo.decode(data[: len(data) // 2])
