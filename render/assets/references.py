"""An asset file -> the files it refers to, which never lie outside its own folder, and one hash over them all."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from manifests.errors import AssetError, InputError

# Folders beside a mesh that libraries keep pictures in; FBX exporters add NAME.fbm.
PICTURE_FOLDERS = re.compile(r"tex(ture)?s?|maps?|images?|materials?|.*\.fbm", re.I)
PICTURES = re.compile(rb"[\w .()+-]{1,120}\.(?:png|jpe?g|tga|tiff?|bmp|webp|exr|hdr|dds)", re.I)
BINARY_USD = b"PXR-USDC"
MTL_LIBRARY = re.compile(r"^mtllib +(.+?)\s*$", re.M)
MTL_MAP = re.compile(r"^\s*(map_\w+|bump|norm|disp|refl) +(.+?)\s*$", re.M | re.I)
# Options before a map's name: -s 1 1 1, -bm 0.5, -clamp on, -imfchan r.
MTL_OPTIONS = re.compile(r"^(?:-\w+(?:\s+(?:[-+]?[\d.]+|on|off|[rgbmlz]))*\s+)+", re.I)


def references(path: Path) -> list[Path]:
    """Files that ``path`` names, each as it would be read: where named, else found by name beside, else as named.

    Embedded data are none. A binary USD hides names in compressed bytes: every picture beside it counts.
    """
    return list(dict.fromkeys(as_read(path.parent, name) for name, _ in _named(path)))


def as_read(folder: Path, name: str) -> Path:
    """Where the file written as ``name`` in an asset of ``folder`` is read from; the path as written when nowhere."""
    at = folder / name
    return at if at.is_file() else beside(folder, _last(name)) or at


def lost(path: Path) -> tuple[list[str], list[str]]:
    """Names of files that an OBJ with its MTL, a glTF or a GLB asks for and that are nowhere: of base colour, of all
    else. A lost MTL takes the base colour with it.
    """
    if path.suffix.lower() not in (".obj", ".gltf", ".glb"):
        return [], []
    gone = [(_last(n), colour) for n, colour in _named(path) if not as_read(path.parent, n).is_file()]
    return sorted({n for n, colour in gone if colour}), sorted({n for n, colour in gone if not colour})


def refuse_outside(asset_id: str, path: Path) -> None:
    """Raise AssetError where ``path`` names a file that exists and lies outside its folder, links followed."""
    home = path.parent.resolve()
    for reference in (path.parent / name for name, _ in _named(path)):
        if reference.exists() and not reference.resolve().is_relative_to(home):
            raise AssetError(
                asset_id,
                f"{path.name} refers to {reference}, outside its own folder; copy that file beside it",
                "outside",
            )


def beside(folder: Path, name: str) -> Path | None:
    """A file called ``name`` in ``folder`` or its picture folders, letter case aside, or None. Never a link outward."""
    home = folder.resolve()
    for place in picture_folders(folder):
        for file in sorted(place.iterdir()):
            if file.name.lower() == name.lower() and file.is_file() and file.resolve().is_relative_to(home):
                return file
    return None


def picture_folders(folder: Path) -> list[Path]:
    """``folder`` itself, then the folders in it that are called as libraries call those of their pictures."""
    return [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and PICTURE_FOLDERS.fullmatch(p.name))]


def content_sha256(path: Path) -> str:
    """sha256 over the file and, in order of name, the files it refers to. Raises InputError."""
    digest = hashlib.sha256()
    try:
        for file in [path, *sorted({r for r in references(path) if r.is_file()})]:
            digest.update(file.name.encode())
            digest.update(file_sha256(file, file.stat().st_mtime_ns, file.stat().st_size))
    except OSError as error:
        raise InputError(f"asset {path.stem}: {path}: {error.strerror}") from None
    return digest.hexdigest()


@functools.lru_cache(maxsize=65536)
def file_sha256(path: Path, mtime_ns: int, size: int) -> bytes:
    """Digest of one file; the time and size of its last change make a changed file another question."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def gltf_tree(path: Path) -> dict[str, Any]:
    """The JSON of a glTF or a GLB. Raises OSError, ValueError, struct.error."""
    data = path.read_bytes()
    if data[:4] == b"glTF":
        data = data[20 : 20 + struct.unpack("<I", data[12:16])[0]]
    tree = json.loads(data.decode("utf-8-sig"))
    if not isinstance(tree, dict):
        raise ValueError("not a glTF")
    return tree


def _named(path: Path) -> list[tuple[str, bool]]:
    """(name as written, whether it is of base colour) of every file that ``path`` names; [] for what cannot be read."""
    try:
        return list(dict.fromkeys(NAMERS.get(path.suffix.lower(), _pictures)(path)))
    except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError, struct.error):
        return []


def _gltf(path: Path) -> Iterator[tuple[str, bool]]:
    tree = gltf_tree(path)
    textures = [m.get("pbrMetallicRoughness", {}).get("baseColorTexture") for m in tree.get("materials", [])]
    colours = {tree["textures"][t["index"]].get("source") for t in textures if t}
    for kind in ("buffers", "images"):
        for i, item in enumerate(tree.get(kind, [])):
            name = item.get("uri", "")
            if name and not name.startswith("data:"):
                yield unquote(name), kind == "images" and i in colours


def _obj(path: Path) -> Iterator[tuple[str, bool]]:
    for library in MTL_LIBRARY.findall(path.read_text(errors="replace")):
        yield library, True
        file = as_read(path.parent, library)
        if file.is_file():
            for kind, written in MTL_MAP.findall(file.read_text(errors="replace")):
                yield MTL_OPTIONS.sub("", written), kind.lower() == "map_kd"


def _pictures(path: Path) -> Iterator[tuple[str, bool]]:
    data = path.read_bytes()
    if data[:8] == BINARY_USD:
        for place in picture_folders(path.parent):
            for file in sorted(place.iterdir()):
                if PICTURES.fullmatch(file.name.encode()) and file.is_file():
                    yield str(file.relative_to(path.parent)), False
        return
    for name in sorted({m.decode(errors="replace").strip() for m in PICTURES.findall(data)}):
        yield name, False
    if path.suffix.lower() in (".usda", ".usd"):
        # Everything between at-signs in a text USD: layers, payloads and pictures.
        for name in re.findall(r"@([^@\n]+)@", data.decode(errors="replace")):
            yield name, False


def _last(name: str) -> str:
    """The file name of a path written on either system."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


NAMERS = {".gltf": _gltf, ".glb": _gltf, ".obj": _obj}
