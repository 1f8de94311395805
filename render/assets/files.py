"""Scan files by path -> people that are measured, upright, in metres, on the ground."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.assets import FilesSource, ScanSource
from manifests.errors import AssetError, InputError, TextureError, UnitError
from render.assets import cache, keypoints
from render.assets.colour import dressed
from render.assets.defects import barring
from render.assets.references import content_sha256, lost, refuse_outside
from render.assets.stand import Custom, Standing, stand
from render.scene import Mesh, PersonMesh, Pose, Scan

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".usd", ".usda", ".usdc", ".usdz")
ERRORS = {"height": UnitError, "missing_texture": TextureError}
# Where faces, chins and hips are, as shares of the height of a standing adult (drawing canon: eight heads).
CHIN, HIPS = 0.87, 0.53


# (asset id, file, pose) -> what is in the file.
Reader = Callable[[str, Path, Pose], Scan]


class ScanFiles:
    """Scans in any of SUFFIXES; each is imported once per node (cache.py) and the last four stay in memory.

    Other libraries change what is theirs: ``find``, ``custom`` and ``colour``.
    """

    def __init__(self, source: ScanSource, root: Path, reader: Reader | None = None) -> None:
        """``reader`` reads files instead of Blender: previews have one that starts none."""
        self.source, self.root = source, root
        self.reader = reader or imported
        self.paths = self.find(root)
        self._ids = {str(path): name for name, path in self.paths}
        self._load = functools.lru_cache(maxsize=4)(self._read)

    def identities(self) -> list[tuple[str, str, str]]:
        """(id, path, sha256 over the file and every file it refers to), without those that a scan barred.

        Raises InputError.
        """
        found = [(name, str(path), self.content(path)) for name, path in self.paths]
        if self.source.scanned is None:
            return found
        out = barred(self.root / self.source.scanned)
        left = [one for one in found if one[2] not in out]
        if not left:
            raise InputError(
                f"render.assets.scanned: {self.source.scanned} bars all {len(found)} assets; mend one, scan again"
            )
        return left

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """The scan as it stands; ``rng`` is not used. Raises AssetError, UnitError, TextureError."""
        return self._load(key)

    def find(self, root: Path) -> list[tuple[str, Path]]:
        """(id, file) of every person. Raises InputError."""
        return named("files", list(find(self.source.paths, root)))

    def custom(self, name: str, path: Path) -> Custom:
        """What this kind of library knows where neither file nor job says. Raises AssetError."""
        return Custom()

    def colour(self, path: Path) -> Path | None:
        """The picture that this kind of library keeps of a person's colour, for meshes that lost their material."""
        return None

    def extras(self, path: Path) -> list[Path]:
        """Files beside ``path`` that it does not name and that make the person what it is."""
        return [f for f in (self.colour(path), keypoints.file_of(path)) if f is not None]

    def content(self, path: Path) -> str:
        """sha256, 64 hex digits and as many for each of ``extras``, of everything that makes this person."""
        return "".join(content_sha256(f) for f in (path, *self.extras(path)))

    def scan(self, name: str, path: Path) -> Scan:
        """The file as read, its losses made good where the library's own habits allow. Raises AssetError."""
        scan = self.reader(name, path, _pose(self.source))
        colours, others = lost(path)
        scan.missing_colour = list(dict.fromkeys([*scan.missing_colour, *colours]))
        scan.missing_other = list(dict.fromkeys([*scan.missing_other, *others]))
        colour = self.colour(path)
        return scan if colour is None else dressed(name, scan, colour)

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
        marked = keypoints.load(name, path, scan)
        heads = standing.place(np.array([joint[0] for joint in scan.joints.values()]).reshape(-1, 3))
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
            keypoints=None if marked is None else standing.place(marked[1]),
            keypoint_set=None if marked is None else marked[0],
            bones=dict(zip(scan.joints, np.round(heads, 6).tolist())) or None,
            phenotype={"height_m": standing.height_m, "unit": standing.unit, "up": standing.up},
        )


def imported(name: str, path: Path, pose: Pose) -> Scan:
    """The file as Blender imports it, from the cache where it is there. Raises AssetError."""
    refuse_outside(name, path)
    key = cache.key_of(content_sha256(path), path.suffix, pose)
    scan = cache.load(key)
    if scan is None:
        from render.blender.importer import import_file

        scan = import_file(name, path, pose)
        cache.store(key, scan)
    return scan


def _pose(source: ScanSource) -> Pose:
    if not isinstance(source, FilesSource):
        return Pose()
    frame = source.frame if source.clip is not None else 1
    return Pose(source.clip, frame, tuple(sorted(source.bones.items())))


def barred(table: Path) -> set[str]:
    """The hashes of the assets that an assets.arrow marks as not usable. Raises InputError."""
    try:
        with pa.OSFile(str(table)) as file:
            rows = pa.ipc.open_stream(file).read_all().select(["sha256", "usable"]).to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"render.assets.scanned: {table}: {first}; write it with `maquette assets scan`") from None
    return {row["sha256"] for row in rows if not row["usable"]}


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
