"""Tar shards, tables, lists and a downloader's records -> rows of curation.sources.INPUTS, by their headers alone."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from curation.reading import IMAGES, opened, table_of
from manifests.errors import InputError
from manifests.store import LocalStore, Store

TABLES = {".parquet", ".arrow", ".feather"}
LISTS = {".csv", ".tsv", ".jsonl", ".txt"}
# Where tables of other projects keep a picture's bytes: HF Image, img2dataset, and what people call it.
BYTES = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes", "image_bytes", "content", "data")
PATHS = ("path", "file", "filename", "file_name", "local_path")
URLS = ("url", "image_url", "source_url")


def row(
    uri: str,
    kind: str,
    file: str,
    offset: int,
    length: int,
    *,
    meta_offset: int = 0,
    meta_length: int = 0,
    meta: str | None = None,
    stamp: int = 0,
) -> dict[str, Any]:
    """One input. ``meta_length``: of the JSON beside it in the tar; -1: a .json file of the same name lies beside it; of a
    table's row: about how many bytes it has.
    """
    where = {"offset": offset, "length": length, "meta_offset": meta_offset, "meta_length": meta_length, "meta": meta}
    return {"uri": uri, "kind": kind, "file": file, "stamp": stamp, **where}


def tar_members(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """Each picture of a plain tar; WebDataset's `key.json` goes with `key.jpg`. Raises InputError where it is damaged."""
    pictures: list[tuple[str, int, int]] = []
    beside: dict[str, tuple[int, int]] = {}
    file = f"{store.url}/{name}"
    try:
        with opened(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, _, end = member.name.rpartition(".")
                if f".{end.lower()}" in IMAGES:
                    pictures.append((member.name, member.offset_data, member.size))
                elif end == "json":
                    beside[key] = (member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]
            # tarfile takes the end of a cut file for the end of the archive; a whole one ends in zeros.
            stream.seek(-512, 2)
            if any(stream.read(512)):
                raise tarfile.ReadError("it ends in the middle")
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{file}: not a whole tar file ({error}); fetch it again, or take it out of the source"
        ) from None
    seen: set[str] = set()
    for member_name, offset, size in pictures:
        # A tar may hold one name twice; both are inputs.
        uri = f"{name}#{member_name}" + (f"@{offset}" if member_name in seen else "")
        seen.add(member_name)
        meta = beside.get(member_name.rpartition(".")[0], (0, 0))
        yield row(uri, "tar", file, offset, size, meta_offset=meta[0], meta_length=meta[1])


def table_rows(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """Each row of a Parquet or Arrow file that has a column of picture bytes; nothing of one that has none."""
    file = f"{store.url}/{name}"
    with table_of(file) as table:
        if bytes_column(table.schema) is None:
            return
        position = 0
        for part, (rows, size) in enumerate(table.parts()):
            for i in range(rows):
                yield row(f"{name}#{position:08d}", "table", file, part, i, meta_length=size // max(rows, 1))
                position += 1


def bytes_column(schema: pa.Schema) -> str | None:
    """The column of picture bytes: binary, or HF's struct<bytes, path>."""
    for name in BYTES:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
    return None


def is_download_record(store: Store, name: str, have: set[str]) -> bool:
    """Whether a Parquet file is img2dataset's record of the shard beside it: 00000.parquet of 00000.tar or 00000/."""
    stem = name.removesuffix(".parquet")
    if f"{stem}.tar" not in have and not any(n.startswith(f"{stem}/") for n in have):
        return False
    with table_of(f"{store.url}/{name}") as table:
        return {"url", "key", "status"} <= set(table.schema.names)


def failed_downloads(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """What img2dataset was asked for and did not get; what it got is in the tar or folder."""
    file = f"{store.url}/{name}"
    with table_of(file) as table:
        for part in range(len(table.parts())):
            for record in table.read(part).to_pylist():
                if record["status"] != "success":
                    yield row(f"{name}#{record['key']}", "missing", file, 0, 0, meta=_json(record))


def listed(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """Each line of a list of addresses whose pictures lie on the same disk: columns `url` and `path` (from the list's
    folder), or one address or path a line. Without a path the address's last part is looked for. Raises InputError.
    """
    base = name.rpartition("/")[0]
    for i, record in enumerate(_records(store, name)):
        lower = {k.lower(): v for k, v in record.items() if v not in (None, "")}
        url = next((str(lower[k]) for k in URLS if k in lower), None)
        path = next((str(lower[k]) for k in PATHS if k in lower), None)
        if path is None and url is None:
            raise InputError(f"{store.url}/{name}: line {i + 1} has neither `url` nor `path`")
        path = path or unquote(urlsplit(str(url)).path).rpartition("/")[2]
        where = f"{base}/{path}" if base else path
        # A list is somebody else's text: it names nothing outside its own folder.
        outside = path.startswith(("/", "~")) or ".." in path.split("/")
        uri, meta = f"{name}#{i:08d}", _json(record)
        if outside or not store.exists(where):
            why = "outside the folder of the list" if outside else "no such file beside the list"
            yield row(uri, "missing", f"{store.url}/{path}", 0, 0, meta=_json(record | {"error_message": why}))
        else:
            stamp = (store.root / where).stat().st_mtime_ns if isinstance(store, LocalStore) else 0
            yield row(uri, "file", f"{store.url}/{where}", 0, store.size(where), meta=meta, stamp=stamp)


def _records(store: Store, name: str) -> Iterator[dict[str, Any]]:
    end = name.rpartition(".")[2].lower()
    if end == "parquet":
        with table_of(f"{store.url}/{name}") as table:
            for part in range(len(table.parts())):
                yield from table.read(part).to_pylist()
        return
    try:
        text = store.read(name).decode("utf-8")
        if end == "jsonl":
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
        elif end in ("csv", "tsv"):
            yield from csv.DictReader(io.StringIO(text), delimiter="\t" if end == "tsv" else ",")
        else:
            for line in (part.strip() for part in text.splitlines()):
                if line and not line.startswith("#"):
                    url, _, path = line.partition("\t")
                    yield ({"url": url} if "://" in url else {"path": url}) | ({"path": path.strip()} if path else {})
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(f"{store.url}/{name}: not a readable list ({error})") from None


def _json(record: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in record.items() if not isinstance(v, bytes)}, default=str, ensure_ascii=False)
