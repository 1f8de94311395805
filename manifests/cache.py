"""Shards of a bucket -> whole local files, checked on arrival; the least recently used go when room is needed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from manifests.errors import ShardError
from manifests.store import LocalStore, Store, storage

RANGE_BYTES = 8 * 2**20
RANGES = 8
DEFAULT_GB = 50.0
FOLDER, LIMIT_GB = "MAQUETTE_CACHE", "MAQUETTE_CACHE_GB"


def fetched(store: Store, shard: dict[str, Any]) -> Path:
    """A local path with the bytes of ``shard`` (an entry of a manifest); a store on this machine has it already.

    Files are named by their sha256, so that datasets share them, and appear when they are whole. Raises ShardError
    when what arrives is not what was written, StorageError when the store or the disk refuses.
    """
    if isinstance(store, LocalStore):
        return store.root / shard["path"]
    folder = cache_folder()
    path = folder / f"{shard['sha256']}.arrow"
    with storage(path):
        # Touching is what makes the cache least recently *used*; another process may have removed the file just now.
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder, shard["bytes"])
        fresh = folder / f"{uuid.uuid4().hex}.tmp"
        try:
            digest = _download(store, shard, fresh)
            if digest != shard["sha256"]:
                raise ShardError(
                    f"shard {store.url}/{shard['path']}: what arrived is not what was written; run `maquette verify`"
                )
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    return path


def cache_folder() -> Path:
    """$MAQUETTE_CACHE, else a folder of the user's cache."""
    given = os.environ.get(FOLDER)
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "maquette/shards"


def make_room(folder: Path, needed: int) -> list[Path]:
    """Remove the least recently used shards until ``needed`` bytes fit under $MAQUETTE_CACHE_GB (50); returns them.

    A process that has one mapped keeps its bytes until it lets go.
    """
    limit = float(os.environ.get(LIMIT_GB, DEFAULT_GB)) * 1e9
    files = []
    for path in folder.glob("*.arrow"):
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    held = sum(size for _, size, _ in files)
    removed = []
    for _, size, path in sorted(files):
        if held + needed <= limit:
            break
        path.unlink(missing_ok=True)
        held -= size
        removed.append(path)
    return removed


def _download(store: Store, shard: dict[str, Any], path: Path) -> str:
    """Fetch by parallel ranges, write in order; returns the sha256 of what arrived."""
    digest = hashlib.sha256()
    starts = range(0, shard["bytes"], RANGE_BYTES)

    def part(start: int) -> bytes:
        return store.read_range(shard["path"], start, min(RANGE_BYTES, shard["bytes"] - start))

    with path.open("xb") as file, ThreadPoolExecutor(RANGES) as pool:
        # A window of ranges: a whole shard of them would sit in memory twice.
        for first in range(0, len(starts), RANGES):
            for data in pool.map(part, starts[first : first + RANGES]):
                digest.update(data)
                file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
