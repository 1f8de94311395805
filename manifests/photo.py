"""Untrusted photograph bytes -> an upright sRGB array, or a PhotoError with its reason code; for all packages.

Reason codes: empty, format, animated, too_large, corrupt.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from typing import Any

import cv2
import numpy as np

from manifests.errors import PhotoError

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
MAX_SIDE = 65_500
FORMATS = {"JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"}
EXIF_ORIENTATION = 0x0112
# 512 zero bits are 120 blocks or more: no baseline picture has them unless its tables call zeros flat.
ZERO_RUN, PROGRESSIVE = 64, {0xC2, 0xC6, 0xCA, 0xCE}


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes say: ``width``, ``height`` as stored (before rotation), ``orientation`` EXIF 1 to 8."""

    format: str
    width: int
    height: int
    orientation: int
    mode: str


def header(data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Header:
    """Check the size and kind of a file without decoding it. Raises PhotoError."""
    return _open(data, max_pixels, max_bytes)[0]


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> tuple[np.ndarray, Header]:
    """(H, W, 3) uint8 sRGB, turned upright by its EXIF orientation, and the file's header. Raises PhotoError.

    JPEGs go through a strict decoder: PIL and OpenCV accept every file damaged in the middle (measured), this one
    refuses.
    """
    found, picture = _open(data, max_pixels, max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            checked = _strict_jpeg(data, found) if found.format == "JPEG" else None
            # Decoding is most of the price of a photograph: what was checked is used where no profile asks for more.
            plain = picture.mode in ("RGB", "L") and not picture.info.get("icc_profile")
            rgb = checked if checked is not None and plain else _to_srgb(picture)
    except (OSError, ValueError, SyntaxError, Warning, MemoryError, EOFError, TypeError, IndexError) as error:
        raise PhotoError("corrupt", f"does not decode: {_first_line(error)}") from None
    return upright(rgb, found.orientation), found


def upright(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) turned and mirrored as EXIF orientation 1 to 8 asks."""
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }.get(orientation, lambda a: a)(rgb)
    return np.ascontiguousarray(turned)


def _open(data: bytes, max_pixels: int, max_bytes: int) -> tuple[Header, Any]:
    """The header and a lazy PIL picture."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise PhotoError("empty", "zero bytes")
    if len(data) > max_bytes:
        raise PhotoError("too_large", f"{len(data)} bytes, {max_bytes} allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=sorted(FORMATS))
            kind, (width, height) = picture.format or "", picture.size
            orientation = int(picture.getexif().get(EXIF_ORIENTATION, 1))
            frames = getattr(picture, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise PhotoError("too_large", _first_line(error)) from None
    except Exception as error:  # noqa: BLE001 - parsers of hostile headers raise anything; each is the same answer
        # Pillow names the buffer by its address, which would differ from run to run.
        said = "cannot identify image file" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise PhotoError("format", f"not a photograph ({said})") from None
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise PhotoError("too_large", f"{width}x{height} pixels, {max_pixels} allowed")
    if width < 1 or height < 1:
        raise PhotoError("format", f"{width}x{height} pixels")
    if frames > 1:
        raise PhotoError("animated", f"{frames} frames")
    return Header(kind, width, height, orientation if 1 <= orientation <= 8 else 1, picture.mode), picture


def _strict_jpeg(data: bytes, found: Header) -> np.ndarray | None:
    """(H, W, 3) as stored, None where simplejpeg is not installed or has no RGB of it; raises ValueError where
    libjpeg-turbo so much as warns.
    """
    try:
        import simplejpeg
    except ImportError:
        # A truncated stream has no end marker; damage in the middle is then found by nobody.
        if b"\xff\xd9" not in data[-64:]:
            raise ValueError("no end of image") from None
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is None:
            raise ValueError("OpenCV cannot decode it") from None
        return None
    if zeroed(data):
        raise ValueError(f"{ZERO_RUN} zero bytes in a row, which its code table gives no meaning")
    if found.mode in ("RGB", "L"):
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=True))
    simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    return None


def zeroed(data: bytes) -> bool:
    """Whether a baseline JPEG holds a run of zeros that no encoder writes: a block that storage or network lost.

    The decoder takes one in fourteen such blocks for pixels. The all-zero code of a Huffman table is its first symbol;
    where that is end-of-block, zeros are a flat area and mean nothing.
    """
    if data.find(bytes(ZERO_RUN)) < 0:
        return False
    step, firsts = 2, []
    while step + 4 <= len(data) and data[step] == 0xFF:
        marker, length = data[step + 1], int.from_bytes(data[step + 2 : step + 4], "big")
        if marker == 0xC4:
            firsts += _first_codes(data[step + 4 : step + 2 + length])
        elif marker in PROGRESSIVE:
            return False
        step += 2 + length
        if marker == 0xDA:
            # Where components take turns, one table that gives zeros a meaning of their own is enough.
            in_turns = data[step - length + 2] > 1 or 0 not in firsts
            return in_turns and any(firsts) and data.find(bytes(ZERO_RUN), step) >= 0
    return False


def _first_codes(tables: bytes) -> list[int]:
    """The first symbol of each table of a DHT segment: no difference (DC) and end of block (AC) are 0."""
    found = []
    while len(tables) > 17:
        count = sum(tables[1:17])
        found.append(tables[17])
        tables = tables[17 + count :]
    return found


def _to_srgb(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of any mode: profiles applied, 16 bit scaled, transparency laid on white."""
    from PIL import Image, ImageCms

    profile = picture.info.get("icc_profile")
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        wide = np.asarray(picture).astype(np.float64)
        return np.repeat(np.clip(wide / 257, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("P", "LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture).convert("RGB")
    elif profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            picture = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            picture = picture.convert("RGB")
    return np.asarray(picture.convert("RGB"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
