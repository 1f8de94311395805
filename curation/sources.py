"""A job's photograph sources -> an ordered list of files; `bundled` ones arrive inside declared dependencies."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from manifests.errors import InputError
from manifests.job import CurateStage, PhotoSource

# What a browser or a camera would call a picture, and what scrapers leave beside them.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif"}
BUNDLED = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "LicenseRef-public-domain"),
    ("skimage", "data/astronaut.png", "LicenseRef-public-domain"),
    ("skimage", "data/camera.png", "CC0-1.0"),
    ("skimage", "data/coffee.png", "CC0-1.0"),
    ("skimage", "data/chelsea.png", "CC0-1.0"),
    ("sklearn", "datasets/images/china.jpg", "CC-BY-2.0"),
    ("sklearn", "datasets/images/flower.jpg", "CC-BY-2.0"),
)


@dataclasses.dataclass(frozen=True)
class Photo:
    """One input: where it is and what its source says of its rights."""

    uri: str
    path: str
    licence: str
    consent: str
    redistributable: bool


def listed(stage: CurateStage, root: Path, scratch: Path) -> list[Photo]:
    """Every input of the stage, sorted by uri. ``scratch``: where `bundled` puts its three made files.

    Raises InputError for a source that does not exist or holds nothing.
    """
    photos: list[Photo] = []
    for source in stage.sources:
        photos += _bundled(scratch) if source.path == "bundled" else _folder(source, root)
    return sorted(photos, key=lambda p: p.uri)


def count(stage: CurateStage, root: Path) -> tuple[int, int]:
    """How many inputs there are and their bytes, without touching anything. Raises InputError."""
    sizes: list[int] = []
    for source in stage.sources:
        if source.path == "bundled":
            files = [path for path, _ in _bundled_files()]
            sizes += [path.stat().st_size for path in files] + [len(data) for data in _probes(files[0]).values()]
        else:
            sizes += [Path(p.path).stat().st_size for p in _folder(source, root)]
    return len(sizes), sum(sizes)


def _folder(source: PhotoSource, root: Path) -> list[Photo]:
    folder = root / source.path
    if not folder.exists():
        raise InputError(f"curate.sources: {source.path}: no such folder (looked in {root})")
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    # A link that leads out of the folder is not part of the corpus.
    inside = [p for p in files if p.is_file() and (folder.is_file() or p.resolve().is_relative_to(folder.resolve()))]
    if not inside:
        raise InputError(f"curate.sources: {source.path}: no photograph inside ({', '.join(sorted(SUFFIXES))})")
    base = folder.parent if folder.is_file() else folder
    return [
        Photo(
            uri=f"{source.path}/{p.relative_to(base).as_posix()}",
            path=str(p.resolve()),
            licence=source.licence,
            consent=source.consent,
            redistributable=source.redistributable,
        )
        for p in inside
    ]


def _bundled_files() -> list[tuple[Path, tuple[str, str, str]]]:
    found = []
    for entry in BUNDLED:
        spec = importlib.util.find_spec(entry[0])
        if spec is None or spec.origin is None:
            raise InputError(f"curate.sources: bundled: {entry[0]} is not installed; install maquette[curate]")
        path = Path(spec.origin).parent / entry[1]
        if path.is_file():
            found.append((path, entry))
    return found


def _probes(photo: Path) -> dict[str, bytes]:
    """File name -> bytes of an exact copy, a truncated file and a non-image."""
    data = photo.read_bytes()
    return {
        f"copy_of_{photo.name}": data,
        "truncated.jpg": data[: len(data) // 2],
        "not_an_image.jpg": b"<html><body>404 Not Found</body></html>",
    }


def _bundled(scratch: Path) -> list[Photo]:
    """The sample pictures and the probes made of the first, so that each rule has work to do."""
    files = _bundled_files()
    photos = [
        Photo(f"bundled/{package}/{path.name}", str(path), licence, "sample data of a library", False)
        for path, (package, _, licence) in files
    ]
    scratch.mkdir(parents=True, exist_ok=True)
    for name, data in _probes(files[0][0]).items():
        path = scratch / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        photos.append(Photo(f"bundled/probes/{name}", str(path), files[0][1][2], "sample data of a library", False))
    return photos
