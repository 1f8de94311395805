"""A folder of scans -> one row for every asset in it: what it is, how it stands, and what is wrong with it.

Each file is read in a process of its own kind, so that one that takes Blender down costs one row and not the scan.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.assets import FilesSource, RenderPeopleSource, ScanSource, ThumanSource
from manifests.errors import AssetError, InputError
from render.assets import keypoints
from render.assets.defects import Problem, barring, geometry, remarks
from render.assets.files import SUFFIXES, Reader, ScanFiles, named
from render.assets.references import references
from render.assets.renderpeople import FILE as RENDERPEOPLE_FILE
from render.assets.renderpeople import RenderPeople
from render.assets.thuman import Thuman, is_scan
from render.scene import Mesh, Scan

# An 8k RenderPeople scan imports in 20 s; a file that needs this long is broken.
DEADLINE_S = 300.0
# Formats people keep scans in that nothing here reads: listed rather than passed over.
FOREIGN = (".blend", ".abc", ".dae", ".ma", ".max", ".stl", ".off")
MENDS = {
    "unreadable": "export it again, as GLB where possible",
    "crashed": "Blender died or hung on it: export it again, or leave it out",
}

SCHEMA = pa.schema(
    [
        pa.field("asset_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # renderpeople, thuman, files
        pa.field("usable", pa.bool_(), nullable=False),  # false: a problem bars it, and a job skips it
        pa.field("height_m", pa.float32()),
        pa.field("files", pa.list_(pa.string()), nullable=False),  # relative to the scanned folder, the mesh first
        pa.field("format", pa.string(), nullable=False),
        pa.field("unit", pa.string()),  # with its origin in brackets: declared, set, guessed, or the library's own
        pa.field("up", pa.string()),  # the same
        pa.field("scale_m", pa.float32()),  # metres per number of the mesh as imported
        pa.field("bounds_m", pa.list_(pa.float32())),  # x0 y0 z0 x1 y1 z1 as it stands: z up, feet on 0, facing -y
        pa.field("triangles", pa.int64()),
        pa.field("textures", pa.int32()),
        pa.field("watertight", pa.bool_()),
        pa.field("missing_textures", pa.list_(pa.string())),
        pa.field("bones", pa.int32()),  # 0: no rig
        pa.field("clips", pa.list_(pa.string())),
        pa.field("morphs", pa.int32()),
        pa.field("keypoint_set", pa.string()),  # of NAME.keypoints.yaml beside it
        pa.field("licence", pa.string(), nullable=False),
        pa.field("consent", pa.string(), nullable=False),
        pa.field("redistributable", pa.bool_(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field(
            "problems",
            pa.list_(
                pa.struct([("code", pa.string()), ("bars", pa.bool_()), ("what", pa.string()), ("mend", pa.string())])
            ),
            nullable=False,
        ),
    ],
    metadata={"frame": "z up, feet on z = 0, facing -y", "units": "metres"},
)


def sources(root: Path, settings: dict[str, Any], reader: Reader | None = None) -> list[ScanFiles]:
    """The kinds of library found under ``root``, each with its people. Raises InputError for a folder without any scan.

    ``settings``: fields of ScanSource that hold for all, such as unit, licence, consent; and ThumanSource's ``fits``.
    ``reader``: see ScanFiles.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds the scans")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    theirs = [p for p in files if RENDERPEOPLE_FILE.fullmatch(p.name)]
    scans = [p for p in files if is_scan(p)]
    fits = [p for p in files if scans and p.stem.lower() == "mesh_smplx"]
    rest = [p for p in files if p not in {*theirs, *scans, *fits}]
    if not files and not foreign(root):
        raise InputError(f"{root}: no scan in it ({', '.join(SUFFIXES)}); give the folder that holds the scans")
    found: list[ScanFiles] = []
    # The fits are THuman's alone.
    given = {"paths": [str(root)], **{k: v for k, v in settings.items() if k != "fits"}}
    if theirs:
        found.append(RenderPeople(RenderPeopleSource(**given), root, reader))
    if scans:
        found.append(Thuman(ThumanSource(**given, fits=settings.get("fits")), root, reader))
    if rest:
        generic = ScanFiles(FilesSource(**(given | {"paths": [str(p) for p in rest]})), root, reader)
        generic.paths = named("files", rest)
        found.append(generic)
    return found


def foreign(root: Path) -> list[Path]:
    """Scans under ``root`` in formats that are not read, but for those that lie there in another format too."""
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in FOREIGN and p.is_file())
    return [p for p in files if not any(p.with_suffix(s).is_file() for s in SUFFIXES)]


def scan(root: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of SCHEMA, one per asset, in order of source and id; every import is left in the cache. Raises InputError."""
    todo = [(s.source, name, path) for s in sources(root, settings) for name, path in s.paths]
    twice = {name for name, n in Counter(name for _, name, _ in todo).items() if n > 1}
    with Reading(root) as reading:
        for source, name, path in todo:
            row = reading.row(source, name, path)
            if name in twice:
                what = f"another asset is called {name} too"
                mend = "rename one, or move it out, before a job uses both"
                row["problems"].append(Problem("same_name", False, what, mend)._asdict())
            yield row
    kept = {k: v for k, v in settings.items() if k != "fits"}
    for name, path in named("files", foreign(root)):
        yield strange(FilesSource(paths=[str(root)], **kept), root, name, path)


class Reading:
    """A process that reads one file after another for as long as none takes it down; then another one goes on."""

    def __init__(self, root: Path) -> None:
        self._root, self._pool = root, _pool()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def row(self, source: ScanSource, name: str, path: Path) -> dict[str, Any]:
        """The row of one asset as Blender reads it, which the cache then holds."""
        task = self._pool.submit(_row, source, self._root, name, path)
        try:
            return task.result(timeout=DEADLINE_S)
        except (BrokenProcessPool, TooLong):
            for process in (self._pool._processes or {}).values():
                process.kill()
            self._pool.shutdown(cancel_futures=True)
            self._pool = _pool()
        row = _blank(source, self._root, name, path)
        row["sha256"] = _kind(source, self._root, path).content(path)
        row["problems"] = [Problem("crashed", True, f"{path.name}: {MENDS['crashed']}")._asdict()]
        return row


def strange(settings: ScanSource, root: Path, name: str, path: Path) -> dict[str, Any]:
    """The row of a file in a format that is not read."""
    row = _blank(settings, root, name, path)
    what = f"{path.suffix[1:].upper()} is not read"
    row["problems"] = [Problem("format", True, what, "export it as GLB")._asdict()]
    return row


def _row(settings: ScanSource, root: Path, name: str, path: Path) -> dict[str, Any]:
    return examine(_kind(settings, root, path), root, name, path)[0]


def _kind(settings: ScanSource, root: Path, path: Path) -> ScanFiles:
    return KINDS[settings.source](settings.model_copy(update={"paths": [str(path)]}), root)


def examine(source: ScanFiles, root: Path, name: str, path: Path) -> tuple[dict[str, Any], Mesh | None]:
    """The row of one asset, read by the source's own reader, and its mesh as it stands, where it could be read."""
    row = _blank(source.source, root, name, path)
    problems: list[Problem] = []
    mesh: Mesh | None = None
    try:
        row["sha256"] = source.content(path)
        found = source.scan(name, path)
        row |= _counts(found)
        mesh, standing = source.standing(name, path, found)
        row |= {
            "height_m": standing.height_m,
            "unit": standing.unit,
            "up": standing.up,
            "scale_m": standing.scale_m,
            "bounds_m": [float(x) for x in (*mesh.vertices.min(0), *mesh.vertices.max(0))],
        }
        row["watertight"], shape = geometry(mesh)
        bars = barring(found, mesh, standing, source.source)
        barred = {p.code for p in bars}
        problems = bars + [p for p in remarks(found, standing) if p.code not in barred] + shape
        marked = keypoints.load(name, path, found)
        row["keypoint_set"] = marked[0] if marked else None
    except AssetError as error:
        problems.append(Problem(error.code, True, error.message))
    except InputError as error:
        problems.append(Problem("unreadable", True, str(error), MENDS["unreadable"]))
    row["usable"] = not any(p.bars for p in problems)
    row["problems"] = [p._asdict() for p in problems]
    return row, mesh


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """``rows`` as one Arrow IPC stream at ``path``, under another name first: whole or absent. Raises InputError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, SCHEMA)
        with partial.open("wb") as file:
            with pa.ipc.new_stream(file, SCHEMA) as stream:
                stream.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another folder with --out") from None


def _pool() -> ProcessPoolExecutor:
    # spawn: bpy does not survive a fork.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_forget_blender)


def _forget_blender() -> None:
    """Take Blender's own scripts off the path that a parent with Blender hands down: their `bpy` hides the real one."""
    sys.path[:] = [p for p in sys.path if not (Path(p) / "bpy" / "__init__.py").is_file()]


def _blank(settings: ScanSource, root: Path, name: str, path: Path) -> dict[str, Any]:
    """A row of what is known without reading the mesh."""
    named_files = [path, *(r for r in references(path) if r.is_file())]
    relative = [str(f.relative_to(root)) if f.is_relative_to(root) else str(f) for f in dict.fromkeys(named_files)]
    row = dict.fromkeys(SCHEMA.names)
    return row | {
        "asset_id": name,
        "source": settings.source,
        "usable": False,
        "files": relative,
        "format": path.suffix[1:].lower(),
        "licence": settings.licence,
        "consent": settings.consent,
        "redistributable": settings.redistributable,
        "sha256": "",
        "problems": [],
    }


def _counts(found: Scan) -> dict[str, Any]:
    materials = found.mesh.materials
    textures = [t for m in materials for t in (m.base_color_texture, m.normal_texture, m.roughness_texture)]
    different = {id(t) for t in textures if t is not None}
    return {
        "triangles": len(found.mesh.faces),
        "textures": len(different),
        "missing_textures": sorted({*found.missing_colour, *found.missing_other}),
        "bones": len(found.bones),
        "clips": found.clips,
        "morphs": found.morphs,
    }


KINDS: dict[str, type[ScanFiles]] = {"files": ScanFiles, "renderpeople": RenderPeople, "thuman": Thuman}
