"""Photograph bytes -> the same picture, saying nothing of where, when, by whom and with what it was taken."""

from __future__ import annotations

import re

from manifests import codecs, photo

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP2, APP14, APP15, COM = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
# Inside coded pixels FF is followed by 00 or a restart marker; anything else ends them.
END_OF_SCAN = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")


def without_metadata(data: bytes) -> bytes:
    """A picture file without EXIF, XMP, IPTC, comments, thumbnails and whatever follows the picture; upright.

    An upright JPEG keeps its coded pixels to the bit, with its colour profile. One that EXIF turns is decoded, turned
    and coded again (q95 4:4:4); other formats become PNG in sRGB. Raises PhotoError.
    """
    found = photo.header(data)
    if found.format == "JPEG" and found.orientation == 1:
        bare = _bare_jpeg(data)
        if bare is not None:
            return bare
    rgb, _ = photo.decode(data)
    return codecs.encode_image(rgb, "jpeg444" if found.format == "JPEG" else "png")


def _bare_jpeg(data: bytes) -> bytes | None:
    """The segments a decoder needs, up to the first end of image; None where the file is not built as it should be."""
    kept = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1  # fill byte
            continue
        if marker == EOI:
            return b"".join([*kept, data[at : at + 2]])
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SOS:
            scan = END_OF_SCAN.search(data, end)
            if scan is None:
                return None
            end = scan.start()
        if _needed(marker, data[at + 4 : at + 18]):
            kept.append(data[at:end])
        at = end
    # A file that ends with its last marker has no four bytes left to read.
    return b"".join([*kept, data[at : at + 2]]) if data[at : at + 2] == b"\xff\xd9" else None


def _needed(marker: int, head: bytes) -> bool:
    """Whether pixels or their colours depend on the segment."""
    if marker == APP2:
        return head.startswith(b"ICC_PROFILE\0")
    if marker == APP0:
        # The last two bytes are the sides of a thumbnail, which may show what was cut away.
        return head.startswith(b"JFIF\0") and head[12:14] == b"\0\0"
    return marker == APP14 or not (APP0 <= marker <= APP15 or marker == COM)
