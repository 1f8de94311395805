"""A file's bytes and what its source wrote beside it -> licence, author, address, and whether it may be used at all.

Opt-outs: X-Robots `noai` and `noimageai` (as img2dataset honours them), the PLUS property DataMining in XMP, and C2PA's
training-mining assertion. Generated pictures: IPTC's digital source types in XMP or C2PA, and what generators sign with.
"""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

# Metadata that travels with a row is text a person could have written, not a second corpus.
MAX_METADATA, MAX_TEXT = 16_384, 4 * 2**20
LICENCE = ("licence", "license", "license_url", "licence_url", "rights", "usage_terms")
AUTHOR = ("author", "artist", "creator", "photographer", "credit")
ADDRESS = ("url", "image_url", "source_url", "uri")
ROBOTS = ("x_robots_tag", "x-robots-tag", "robots", "http_headers", "headers", "ai_opt_out", "optout", "opt_out")
NO_AI = re.compile(r"\b(noai|noimageai)\b", re.IGNORECASE)
# http://ns.useplus.org/ldf/vocab/: the values that forbid training; one that allows all but search is allowed here.
MINING = re.compile(rb"DMI-PROHIBITED(-AIMLTRAINING|-GENAIMLTRAINING|-EXCEPTSEARCHENGINEINDEXING|-SEECONSTRAINT)?\b")
# C2PA 1.3+, cbor: the entry's key, then within a few bytes "use" and "notAllowed".
TRAINING = re.compile(
    rb"(c2pa|cawg)\.(ai_training|ai_generative_training|data_mining).{0,24}use.{0,4}notAllowed", re.DOTALL
)
GENERATED = re.compile(
    rb"\b(compositeWithTrainedAlgorithmicMedia|trainedAlgorithmicMedia|algorithmicMedia|compositeSynthetic)\b"
)
GENERATORS = re.compile(
    rb"Stable[ _]Diffusion|StableDiffusion|Midjourney|DALL.{0,2}E|NovelAI|ComfyUI|Adobe Firefly|InvokeAI|invokeai_metadata|"
    rb"Leonardo\.Ai|Imagen \d|made with google ai|sd-metadata|Steps: \d+, Sampler: ",
    re.IGNORECASE,
)
# Keywords of PNG text that web interfaces of diffusion models write.
GENERATOR_KEYS = (b"parameters", b"prompt", b"workflow", b"sd-metadata", b"invokeai_metadata", b"Dream")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """None means that nothing was said. ``optout`` and ``synthetic`` quote what was found."""

    licence: str | None
    author: str | None
    url: str | None
    optout: str | None
    synthetic: str | None
    metadata: str | None


def read(data: bytes, said: Mapping[str, Any]) -> Provenance:
    """``data``: an image file. ``said``: what the source keeps about it, by name."""
    parts = list(segments(data))
    keep = json.dumps(said, default=str, sort_keys=True, ensure_ascii=False) if said else None
    return Provenance(
        licence=_first(said, LICENCE),
        author=_first(said, AUTHOR),
        url=_first(said, ADDRESS),
        optout=_optout(said, parts),
        synthetic=_synthetic(parts),
        metadata=keep[:MAX_METADATA] if keep else None,
    )


def segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, contents) of the parts of a file that hold text about it, not pixels; damage ends the walk quietly."""
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return iter([(b"", data[:65536]), (b"", data[-65536:])])


def _jpeg(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xE1 <= marker <= 0xEF or marker == 0xFE:
            yield b"APP", data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


def _png(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind in (b"tEXt", b"eXIf", b"caBX"):
            yield kind, body
        elif kind in (b"zTXt", b"iTXt"):
            yield kind, _inflated(kind, body)
        at += 12 + length


def _inflated(kind: bytes, body: bytes) -> bytes:
    """The text of a PNG chunk that may be packed, up to MAX_TEXT: a text can be a bomb, too."""
    key, _, rest = body.partition(b"\0")
    try:
        if kind == b"zTXt":
            return key + b"\0" + zlib.decompressobj().decompress(rest[1:], MAX_TEXT)
        if rest[:1] == b"\x01":
            text = rest[2:].split(b"\0", 2)[2]
            return key + b"\0" + zlib.decompressobj().decompress(text, MAX_TEXT)
    except (zlib.error, IndexError):
        pass
    return body


def _webp(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        if kind in (b"EXIF", b"XMP ", b"C2PA"):
            yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _optout(said: Mapping[str, Any], parts: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in said.items():
        if name.lower() in ROBOTS and value not in (None, False, "", "false", "False", 0):
            if value in (True, 1, "true", "True"):
                return f"{name}: {value}"
            found = NO_AI.search(str(value))
            if found:
                return f"{name}: {found.group().lower()}"
    for _, body in parts:
        for pattern in (MINING, TRAINING):
            match = pattern.search(body)
            if match:
                return match.group().decode("ascii", "replace")[:60].split("\0")[0]
    return None


def _synthetic(parts: list[tuple[bytes, bytes]]) -> str | None:
    for kind, body in parts:
        match = GENERATED.search(body) or GENERATORS.search(body)
        if match:
            return match.group().decode("ascii", "replace")
        if kind in (b"tEXt", b"zTXt", b"iTXt") and body.split(b"\0", 1)[0] in GENERATOR_KEYS:
            return "PNG text " + body.split(b"\0", 1)[0].decode()
    return None


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    lower = {k.lower(): v for k, v in said.items()}
    return next((str(lower[n])[:1000] for n in names if lower.get(n) not in (None, "")), None)
