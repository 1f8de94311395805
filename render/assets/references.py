"""An asset file -> the files it refers to, which never lie outside its own folder, and one hash over them all."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from manifests.errors import AssetError, InputError

# Folders beside a mesh that libraries keep pictures in; FBX exporters add NAME.fbm.
PICTURE_FOLDERS = re.compile(r"tex(ture)?s?|maps?|images?|materials?|.*\.fbm", re.I)
PICTURES = re.compile(rb"[\w .()+-]{1,120}\.(?:png|jpe?g|tga|tiff?|bmp|webp|exr|hdr|dds)", re.I)
MTL_MAP = re.compile(r"^\s*(?:map_\w+|bump|norm|disp|refl) +(.+?)\s*$", re.M | re.I)
# Options before a map's name: -s 1 1 1, -bm 0.5, -clamp on, -imfchan r.
MTL_OPTIONS = re.compile(r"^(?:-\w+(?:\s+(?:[-+]?[\d.]+|on|off|[rgbmlz]))*\s+)+", re.I)


def references(path: Path) -> list[Path]:
    """Files that ``path`` names, each as it would be read: where named, else found by name beside, else as named.

    Embedded data are none. Formats that hide names in compressed bytes (binary USD) give none.
    """
    return [p if p.is_file() else beside(path.parent, _last(p)) or p for p in _named(path)]


def refuse_outside(asset_id: str, path: Path) -> None:
    """Raise AssetError where ``path`` names a file that exists and lies outside its folder, links followed."""
    home = path.parent.resolve()
    for reference in _named(path):
        if reference.exists() and not reference.resolve().is_relative_to(home):
            raise AssetError(
                asset_id,
                f"{path.name} refers to {reference}, outside its own folder; copy that file beside it",
                "outside",
            )


def beside(folder: Path, name: str) -> Path | None:
    """A file called ``name`` in ``folder`` or its picture folders, letter case aside, or None. Never a link outward."""
    home = folder.resolve()
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and PICTURE_FOLDERS.fullmatch(p.name))]
    for place in places:
        for file in sorted(place.iterdir()):
            if file.name.lower() == name.lower() and file.is_file() and file.resolve().is_relative_to(home):
                return file
    return None


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


def _named(path: Path) -> list[Path]:
    """Paths as written, joined to the asset's folder."""
    kind = path.suffix.lower()
    try:
        if kind in (".gltf", ".obj"):
            return list({".gltf": _gltf, ".obj": _obj}[kind](path))
        if kind in (".fbx", ".usda", ".usd", ".ply"):
            names = {m.decode(errors="replace").strip() for m in PICTURES.findall(path.read_bytes())}
            return [path.parent / n for n in sorted(names)] + (_layers(path) if kind == ".usda" else [])
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    return []


def _gltf(path: Path) -> Iterator[Path]:
    tree: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    for kind in ("buffers", "images"):
        for item in tree.get(kind, []):
            name = item.get("uri", "")
            if name and not name.startswith("data:"):
                yield path.parent / unquote(name)


def _obj(path: Path) -> Iterator[Path]:
    for library in re.findall(r"^mtllib +(.+?)\s*$", path.read_text(errors="replace"), re.M):
        file = path.parent / library
        yield file
        if file.is_file():
            for written in MTL_MAP.findall(file.read_text(errors="replace")):
                yield path.parent / MTL_OPTIONS.sub("", written)


def _layers(path: Path) -> list[Path]:
    """Everything between at-signs in a text USD: layers, payloads and pictures."""
    return [path.parent / n for n in re.findall(r"@([^@\n]+)@", path.read_text(errors="replace"))]


def _last(path: Path) -> str:
    """The file name of a path written on either system."""
    return str(path).replace("\\", "/").rsplit("/", 1)[-1]
