"""A job's photograph sources -> one table of inputs, in order of their uri; nothing of the pictures is read yet.

INPUTS says where the bytes of each lie: a file, a stretch of a tar, a row of a table, or nowhere (`missing`: a list or a
downloader names it, and the reason is its metadata). `curation.reading` fetches them.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import archives
from curation.reading import IMAGES
from manifests.curation import CurateStage, PhotoSource
from manifests.errors import InputError, MissingError
from manifests.store import REMOTE, LocalStore, Store, open_store

INPUTS = pa.schema(
    [
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("meta_offset", pa.int64()),
        ("meta_length", pa.int64()),
        ("meta", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("redistributable", pa.bool_()),
        ("stamp", pa.int64()),
    ]
)
BUNDLED = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "LicenseRef-public-domain"),
    ("skimage", "data/astronaut.png", "LicenseRef-public-domain"),
    ("skimage", "data/camera.png", "CC0-1.0"),
    ("skimage", "data/coffee.png", "CC0-1.0"),
    ("skimage", "data/chelsea.png", "CC0-1.0"),
    ("sklearn", "datasets/images/china.jpg", "CC-BY-2.0"),
    ("sklearn", "datasets/images/flower.jpg", "CC-BY-2.0"),
)


def listed(stage: CurateStage, root: Path, scratch: Path) -> pa.Table:
    """INPUTS of the stage, sorted by uri, which is unique. ``scratch``: where `bundled` puts its three made files.

    Raises InputError for a source that does not exist or holds nothing.
    """
    tables = []
    for source in stage.sources:
        rows = _bundled(scratch) if source.path == "bundled" else _found(source, root)
        tables.append(_table(rows, source))
    whole = pa.concat_tables(tables).sort_by("uri")
    same = pc.equal(whole["uri"][1:], whole["uri"][:-1]) if len(whole) > 1 else pa.chunked_array([], pa.bool_())
    if pc.any(same).as_py():
        double = whole["uri"][1:].filter(same)[0].as_py()
        raise InputError(f"curate.sources: {double}: listed twice; give each file once")
    return whole


def count(stage: CurateStage, root: Path) -> tuple[int, int]:
    """How many inputs there are and about how many bytes, without writing anything. Raises InputError."""
    inputs, size = 0, 0
    for source in stage.sources:
        if source.path == "bundled":
            files = [path for path, _ in _bundled_files()]
            sizes = [path.stat().st_size for path in files] + [len(data) for data in _probes(files[0]).values()]
        else:
            sizes = [row["length"] if row["kind"] != "table" else row["meta_length"] for row in _found(source, root)]
        inputs, size = inputs + len(sizes), size + sum(sizes)
    return inputs, size


def _table(rows: Iterator[dict[str, Any]] | list[dict[str, Any]], source: PhotoSource) -> pa.Table:
    """In pieces: a million dictionaries at once would be most of the driver's memory."""
    rights = {"licence": source.licence, "consent": source.consent, "redistributable": source.redistributable}
    batches, waiting = [], []
    for row in rows:
        waiting.append(rights | row)
        if len(waiting) == 50_000:
            batches.append(pa.Table.from_pylist(waiting, schema=INPUTS))
            waiting = []
    return pa.concat_tables([*batches, pa.Table.from_pylist(waiting, schema=INPUTS)])


def _found(source: PhotoSource, root: Path) -> Iterator[dict[str, Any]]:
    """The inputs of one source; InputError where there is none."""
    remote = REMOTE.match(source.path)
    where = source.path if remote else str(root / source.path)
    store = open_store(where)
    if isinstance(store, LocalStore) and not store.root.exists():
        raise InputError(f"curate.sources: {source.path}: no such file or folder (looked in {root})")
    names = store.walk()
    if remote and not names:
        # One object, not a prefix.
        folder, _, name = where.rstrip("/").rpartition("/")
        store, names, prefix = open_store(folder), [name], source.path.rstrip("/").rpartition("/")[0]
    elif names == [""]:
        name = Path(where).name
        store, names, prefix = open_store(str(Path(where).parent)), [name], source.path.rpartition("/")[0]
    else:
        prefix = source.path.rstrip("/")
    some = False
    for name in store.strays() if isinstance(store, LocalStore) and source.kind in ("auto", "files") else []:
        if Path(name).suffix.lower() in IMAGES:
            some = True
            why = "a link that leads out of its folder; give the folder that holds the file itself as a source"
            yield _sayable(_absent(f"{prefix}/{name}" if prefix else name, f"{store.url}/{name}", why))
    for row in _walked(store, names, source.kind):
        some = True
        yield _sayable(row | {"uri": f"{prefix}/{row['uri']}" if prefix else row["uri"]})
    if not some:
        raise InputError(
            f"curate.sources: {source.path}: no photograph inside ({', '.join(sorted(IMAGES))}, .tar, .parquet, .arrow)"
        )


def _sayable(row: dict[str, Any]) -> dict[str, Any]:
    """A table holds UTF-8 alone: other bytes of a name are written as \\udcXX; a file so named can be listed, not read."""
    said = {k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for k, v in row.items()}
    if said["file"] == row["file"]:
        return said
    return _absent(said["uri"], said["file"], "its name is not UTF-8; rename it")


def _absent(uri: str, file: str, why: str) -> dict[str, Any]:
    return archives.row(uri, "missing", file, 0, 0, meta=json.dumps({"error_message": why}))


def _walked(store: Store, names: list[str], kind: str) -> Iterator[dict[str, Any]]:
    have = set(names)
    failed = {n for n in names if n.endswith(".parquet") and archives.is_download_record(store, n, have)}
    for name in names:
        end = "." + name.rpartition(".")[2].lower()
        try:
            if kind == "list" or (kind == "auto" and len(names) == 1 and end in archives.LISTS):
                yield from archives.listed(store, name)
            elif name in failed:
                yield from archives.failed_downloads(store, name)
            elif end == ".tar" and kind in ("auto", "tar"):
                yield from archives.tar_members(store, name)
            elif end in archives.TABLES and kind in ("auto", "table"):
                yield from archives.table_rows(store, name)
            elif name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".zip")):
                raise InputError(
                    f"{store.url}/{name}: a packed archive has no random access; unpack it to a plain .tar"
                )
            elif end in IMAGES and kind in ("auto", "files"):
                beside = name[: -len(end)] + ".json"
                if isinstance(store, LocalStore) and not (store.root / name).is_file():
                    yield _absent(name, f"{store.url}/{name}", "not a regular file")
                    continue
                size, stamp = _state(store, name)
                yield archives.row(
                    name, "file", f"{store.url}/{name}", 0, size, meta_length=-1 if beside in have else 0, stamp=stamp
                )
        except MissingError:
            continue


def _state(store: Store, name: str) -> tuple[int, int]:
    if isinstance(store, LocalStore):
        found = (store.root / name).stat()
        return found.st_size, found.st_mtime_ns
    return store.size(name), 0


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


def _bundled(scratch: Path) -> list[dict[str, Any]]:
    """The sample pictures and the probes made of the first, so that each rule has work to do."""
    files = _bundled_files()
    said = {"consent": "sample data of a library", "redistributable": False}
    rows = [
        archives.row(f"bundled/{package}/{path.name}", "file", str(path), 0, path.stat().st_size)
        | said
        | {"licence": licence}
        for path, (package, _, licence) in files
    ]
    scratch.mkdir(parents=True, exist_ok=True)
    for name, data in _probes(files[0][0]).items():
        path = scratch / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        at = archives.row(f"bundled/probes/{name}", "file", str(path.resolve()), 0, len(data))
        rows.append(at | said | {"licence": files[0][1][2]})
    return rows
