"""Scan files by path -> people that are measured, upright, in metres, on the ground."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from manifests.errors import AssetError, InputError, UnitError
from manifests.job import FilesSource
from render.scene import Mesh, PersonMesh

SUFFIXES = (".glb", ".gltf", ".obj")
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
ADULT_M = (1.4, 2.1)
# Where faces, chins and hips are, as shares of the height of a standing adult (drawing canon: eight heads).
CHIN, HIPS = 0.87, 0.53


class ScanFiles:
    """GLB, glTF and OBJ files; each is read once per process and kept while memory lasts (the last four)."""

    def __init__(self, source: FilesSource, root: Path, read_mesh: Callable[[str, Path], Mesh] | None = None) -> None:
        """``read_mesh(asset id, path)`` reads a file instead of Blender: previews have a reader that starts none."""
        self._source = source
        self._read_mesh = read_mesh or _by_blender
        self._files = {str(p): p for p in find(source.paths, root)}
        self._load = functools.lru_cache(maxsize=4)(self._read)

    def identities(self) -> list[tuple[str, str, str]]:
        """(id, path, sha256 over the file and every file it refers to)."""
        return [(asset_id(path), key, content_sha256(path)) for key, path in self._files.items()]

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """The scan as it stands; ``rng`` is not used. Raises AssetError, UnitError."""
        return self._load(key)

    def _read(self, key: str) -> PersonMesh:
        path = self._files[key]
        name = asset_id(path)
        for reference in references(path):
            if not reference.resolve().is_relative_to(path.parent.resolve()):
                raise AssetError(
                    name, f"{path.name} refers to {reference}, outside its own folder; copy that file beside it"
                )
        mesh = self._read_mesh(name, path)
        mesh, said = stand(name, path, mesh, self._source)
        height = float(mesh.vertices[:, 2].max())
        middle = (mesh.vertices.min(0) + mesh.vertices.max(0))[:2] / 2
        at = lambda share: np.array([*middle, share * height])  # noqa: E731
        return PersonMesh(
            identity_id=name,
            mesh=mesh,
            landmarks={"head_top": at(1.0), "chin": at(CHIN), "hips": at(HIPS), "feet": at(0.0)},
            rights={
                "id": name,
                "source": path.name,
                "licence": self._source.licence,
                "consent": self._source.consent,
                "redistributable": self._source.redistributable,
            },
            phenotype={"height_m": round(height, 4), **said},
        )


def _by_blender(name: str, path: Path) -> Mesh:
    from render.blender.importer import import_file

    return import_file(name, path)


def find(patterns: list[str], root: Path) -> Iterator[Path]:
    """Files behind paths, folders and globs, sorted, each once. Raises InputError for one that matches nothing."""
    seen: set[Path] = set()
    for pattern in patterns:
        given = root / pattern
        if given.is_dir():
            matches = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif given.is_file():
            matches = [given]
        else:
            base = Path(given.anchor)
            matches = sorted(p for p in base.glob(str(given.relative_to(base))) if p.suffix.lower() in SUFFIXES)
        if not matches:
            raise InputError(f"render.assets.paths: {pattern}: no {', '.join(SUFFIXES)} file there (looked in {root})")
        for path in matches:
            if path.suffix.lower() not in SUFFIXES:
                raise InputError(f"render.assets.paths: {pattern}: not one of {', '.join(SUFFIXES)}")
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def asset_id(path: Path) -> str:
    """``files/STEM``."""
    return f"files/{path.stem}"


def references(path: Path) -> list[Path]:
    """Files that a glTF or an OBJ with its MTL names, as paths; embedded data are none."""
    try:
        if path.suffix.lower() == ".gltf":
            tree = json.loads(path.read_text())
            names = [x.get("uri", "") for kind in ("buffers", "images") for x in tree.get(kind, [])]
            return [path.parent / unquote(n) for n in names if n and not n.startswith("data:")]
        if path.suffix.lower() == ".obj":
            libraries = [
                path.parent / m.strip() for m in re.findall(r"^mtllib (.+)$", path.read_text(errors="replace"), re.M)
            ]
            maps = [
                path.parent / m.split()[-1]
                for library in libraries
                if library.is_file()
                for m in re.findall(
                    r"^\s*(?:map_\w+|bump|norm|disp) (.+)$", library.read_text(errors="replace"), re.M | re.I
                )
            ]
            return [*libraries, *maps]
    except (OSError, ValueError, AttributeError):
        return []
    return []


def content_sha256(path: Path) -> str:
    """sha256 over the file and, in order of name, the files it refers to. Raises InputError."""
    digest = hashlib.sha256()
    try:
        for file in [path, *sorted(r for r in references(path) if r.is_file())]:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    except OSError as error:
        raise InputError(f"asset {asset_id(path)}: {path}: {error.strerror}") from None
    return digest.hexdigest()


def stand(name: str, path: Path, mesh: Mesh, source: FilesSource) -> tuple[Mesh, dict[str, Any]]:
    """The mesh upright, in metres, on z = 0, its middle over the origin, facing -y; and what was assumed of unit and axis.

    glTF is metres with its up axis declared (Blender has turned it); an OBJ says nothing: up is the longest side, and the
    unit is guessed from the height. Raises UnitError.
    """
    declared = path.suffix.lower() in (".glb", ".gltf")
    extent = np.ptp(mesh.vertices, axis=0)
    up = source.up
    if up == "auto":
        up = "z" if declared else ("z" if extent.argmax() == 2 else "y" if extent.argmax() == 1 else "x")
    vertices = mesh.vertices.astype(np.float64) @ TO_Z_UP[up].T
    normals = mesh.corner_normals @ TO_Z_UP[up].T.astype(np.float32)
    height = float(np.ptp(vertices[:, 2]))
    low, high = source.height_gate_m
    unit: str
    if source.unit != "auto":
        unit = source.unit
    elif declared:
        unit = "m"
    else:
        unit = guess_unit(height, source.height_gate_m)
    scale = METRES[unit]
    if not low <= height * scale <= high:
        raise UnitError(
            name,
            f"height {height * scale:.3g} m is outside {low:g}-{high:g} m at unit {unit}; set render.assets' unit or up, or its height_gate_m",
        )
    vertices *= scale
    middle = (vertices.min(0) + vertices.max(0)) / 2
    vertices -= [middle[0], middle[1], vertices[:, 2].min()]
    said = {
        "unit": unit if source.unit != "auto" or declared else f"{unit} (guessed)",
        "up": up if source.up != "auto" or declared else f"{up} (guessed)",
    }
    return dataclasses.replace(mesh, vertices=vertices.astype(np.float32), corner_normals=normals), said


def guess_unit(height: float, gate_m: tuple[float, float]) -> str:
    """The unit in which ``height`` is an adult's, else the first in which it passes the gate, else metres.

    67 is an adult in inches and an infant in centimetres: libraries hold more adults.
    """
    adult = [u for u, scale in METRES.items() if ADULT_M[0] <= height * scale <= ADULT_M[1]]
    passes = [u for u, scale in METRES.items() if gate_m[0] <= height * scale <= gate_m[1]]
    return next(iter([*(u for u in adult if u in passes), *passes]), "m")


# Rows of each matrix are the new x, y, z; all are rotations. A y-up file faces +z, which becomes -y.
TO_Z_UP = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "x": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "-z": np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-x": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
}
