"""Scan files by path -> people that are measured, upright, in metres, on the ground."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manifests.assets import FilesSource, ScanSource
from manifests.errors import AssetError, InputError, TextureError, UnitError
from render.assets import cache
from render.assets.defects import barring
from render.assets.references import content_sha256, refuse_outside
from render.assets.stand import Custom, Standing, stand
from render.scene import Mesh, PersonMesh, Pose, Scan

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".usd", ".usda", ".usdc", ".usdz")
ERRORS = {"height": UnitError, "missing_texture": TextureError}
# Where faces, chins and hips are, as shares of the height of a standing adult (drawing canon: eight heads).
CHIN, HIPS = 0.87, 0.53


class ScanFiles:
    """Scans in any of SUFFIXES; each is imported once per node (cache.py) and the last four stay in memory.

    Other libraries change what is theirs: ``find``, ``custom`` and ``mend``.
    """

    def __init__(self, source: ScanSource, root: Path) -> None:
        self.source = source
        self.paths = self.find(root)
        self._ids = {str(path): name for name, path in self.paths}
        self._load = functools.lru_cache(maxsize=4)(self._read)

    def identities(self) -> list[tuple[str, str, str]]:
        """(id, path, sha256 over the file and every file it refers to)."""
        return [(name, str(path), self.content(path)) for name, path in self.paths]

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """The scan as it stands; ``rng`` is not used. Raises AssetError, UnitError, TextureError."""
        return self._load(key)

    def find(self, root: Path) -> list[tuple[str, Path]]:
        """(id, file) of every person. Raises InputError."""
        return named("files", list(find(self.source.paths, root)))

    def content(self, path: Path) -> str:
        """sha256 of everything that makes this person."""
        return content_sha256(path)

    def custom(self, name: str, path: Path) -> Custom:
        """What this kind of library knows where neither file nor job says. Raises AssetError."""
        return Custom()

    def mend(self, path: Path, scan: Scan) -> Scan:
        """Repair what this kind of library is known to leave out."""
        return scan

    def scan(self, name: str, path: Path) -> Scan:
        """The file as imported, from the cache where it is there. Raises AssetError."""
        refuse_outside(name, path)
        pose = _pose(self.source)
        key = cache.key_of(content_sha256(path), path.suffix, pose)
        scan = cache.load(key)
        if scan is None:
            from render.blender.importer import import_file

            scan = import_file(name, path, pose)
            cache.store(key, scan)
        return self.mend(path, scan)

    def standing(self, name: str, path: Path, scan: Scan) -> tuple[Mesh, Standing]:
        """``scan`` upright and in metres, whatever its height. Raises AssetError."""
        return stand(scan, self.source, self.custom(name, path))

    def _read(self, key: str) -> PersonMesh:
        path, name = Path(key), self._ids[key]
        scan = self.scan(name, path)
        mesh, standing = self.standing(name, path, scan)
        for problem in barring(scan, mesh, standing, self.source):
            raise ERRORS.get(problem.code, AssetError)(name, problem.text, problem.code)
        middle = (mesh.vertices.min(0) + mesh.vertices.max(0))[:2] / 2
        at = lambda share: np.array([*middle, share * standing.height_m])  # noqa: E731
        return PersonMesh(
            identity_id=name,
            mesh=mesh,
            landmarks={"head_top": at(1.0), "chin": at(CHIN), "hips": at(HIPS), "feet": at(0.0)},
            rights={
                "id": name,
                "source": path.name,
                "licence": self.source.licence,
                "consent": self.source.consent,
                "redistributable": self.source.redistributable,
            },
            phenotype={"height_m": standing.height_m, "unit": standing.unit, "up": standing.up},
        )


def _pose(source: ScanSource) -> Pose:
    if not isinstance(source, FilesSource):
        return Pose()
    frame = source.frame if source.clip is not None else 1
    return Pose(source.clip, frame, tuple(sorted((k, tuple(v)) for k, v in source.bones.items())))


def find(patterns: list[str], root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Files behind paths, folders and globs, sorted, each once. Raises InputError for one that matches nothing."""
    seen: set[Path] = set()
    for pattern in patterns:
        given = root / pattern
        if given.is_dir():
            matches = sorted(p for p in given.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        elif given.is_file():
            matches = [given]
        else:
            base = Path(given.anchor)
            matches = sorted(p for p in base.glob(str(given.relative_to(base))) if p.suffix.lower() in suffixes)
        if not matches:
            raise InputError(f"render.assets.paths: {pattern}: no {', '.join(suffixes)} file there (looked in {root})")
        for path in matches:
            if path.suffix.lower() not in suffixes:
                raise InputError(f"render.assets.paths: {pattern}: not one of {', '.join(suffixes)}")
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def named(source: str, paths: list[Path]) -> list[tuple[str, Path]]:
    """(``source``/STEM, path); where a stem comes twice (many libraries call each file scene.gltf), FOLDER/STEM."""
    stems = Counter(p.stem for p in paths)
    return [(f"{source}/{p.stem}" if stems[p.stem] == 1 else f"{source}/{p.parent.name}/{p.stem}", p) for p in paths]
