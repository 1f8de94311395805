"""Rows -> one complete Arrow IPC stream on disk, or nothing; and back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from manifests import codecs
from manifests.errors import ShardError, StorageError
from manifests.sample import Person, RenderedSample, schema

MAX_BATCH_ROWS = 16
MAX_BATCH_BYTES = 32 * 2**20
BLOBS = ("image", "depth", "normal", "normal_shading", "albedo", "alpha", "mask", "segmentation")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file: ``path`` relative to the dataset folder, its size and hashes."""

    path: str
    rows: int
    bytes: int
    sha256: str
    xxh3: str


@dataclasses.dataclass(frozen=True)
class Coding:
    """How arrays become bytes: ``image`` jpeg, jpeg444, png or webp; ``exact_depth`` float32; ``normal_bits`` 12, 16, 32."""

    image: str = "jpeg"
    exact_depth: bool = False
    normal_bits: int = 12


def row_of(sample: RenderedSample, coding: Coding | None = None) -> dict[str, Any]:
    """One row of the "rendered" schema, arrays coded. Raises ValueError where a codec's bound cannot be kept."""
    s, how = sample, coding or Coding()
    bits = how.normal_bits
    return {
        "sample_id": s.sample_id,
        "stage_digest": s.stage_digest,
        "index": s.index,
        "split": s.split,
        "image": _image(s.image, how.image, s.sample_id),
        "depth": codecs.encode_depth(s.depth, s.mask, how.exact_depth),
        "normal": codecs.encode_normal(s.normal, s.mask, bits),
        "normal_shading": None if s.normal_shading is None else codecs.encode_normal(s.normal_shading, s.mask, bits),
        "albedo": None if s.albedo is None else _image(s.albedo, "png", s.sample_id),
        "alpha": codecs.encode_u8(s.alpha),
        "mask": codecs.encode_u8(s.mask),
        "segmentation": None if s.segmentation is None else codecs.encode_u8(s.segmentation),
        "people": [_person_row(p) for p in s.people],
        "camera": {
            "K": np.asarray(s.K, np.float64).ravel().tolist(),
            "world_to_camera": np.asarray(s.world_to_camera, np.float64).ravel().tolist(),
            "width": s.mask.shape[1],
            "height": s.mask.shape[0],
            "framing": s.framing,
        },
        "lighting": s.lighting,
        "rights": s.rights,
        "agreement": s.agreement,
        "engine": s.engine,
    }


def sample_of(row: dict[str, Any]) -> RenderedSample:
    """The inverse of ``row_of``, up to the codecs' bounds. Raises ShardError on blobs that do not decode."""
    camera = row["camera"]
    h, w = camera["height"], camera["width"]
    return RenderedSample(
        sample_id=row["sample_id"],
        stage_digest=row["stage_digest"],
        index=row["index"],
        split=row["split"],
        image=codecs.decode_image(row["image"]["bytes"]),
        depth=codecs.decode_depth(row["depth"], h, w),
        normal=codecs.decode_normal(row["normal"], h, w),
        normal_shading=None if row["normal_shading"] is None else codecs.decode_normal(row["normal_shading"], h, w),
        albedo=None if row["albedo"] is None else codecs.decode_image(row["albedo"]["bytes"]),
        alpha=codecs.decode_u8(row["alpha"], h, w),
        mask=codecs.decode_u8(row["mask"], h, w),
        segmentation=None if row["segmentation"] is None else codecs.decode_u8(row["segmentation"], h, w),
        people=[_person_of(p) for p in row["people"]],
        K=np.array(camera["K"]).reshape(3, 3),
        world_to_camera=np.array(camera["world_to_camera"]).reshape(4, 4),
        framing=camera["framing"],
        lighting=row["lighting"],
        rights=row["rights"],
        agreement=row["agreement"],
        engine=row["engine"],
    )


class ShardWriter:
    """Writes one task's rows to ``folder``/data/TASK-SHA12.arrow; the file is complete or absent.

    Use as a context manager: leaving it by an error removes the temporary file. ``close`` fsyncs, re-opens, counts and
    decodes before the rename. Raises StorageError when the disk refuses.
    """

    def __init__(self, folder: Path, task_id: str, kind: str) -> None:
        self._folder, self._task_id, self._kind = Path(folder), task_id, kind
        self._schema = schema(kind)
        self._temporary = self._folder / "tmp" / f"{task_id}-{uuid.uuid4().hex[:8]}.arrow.tmp"
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._rows = 0
        self._sink: _HashingFile | None = None
        self._stream: Any = None
        self._result: Shard | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._sink is not None:
            self._sink.abandon()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; batches are cut at 16 rows or 32 MB, whichever comes first."""
        size = row_bytes(row)
        if self._pending and (len(self._pending) == MAX_BATCH_ROWS or self._pending_bytes + size > MAX_BATCH_BYTES):
            self._flush()
        self._pending.append(row)
        self._pending_bytes += size

    def close(self) -> Shard | None:
        """Commit the file under its final name; None when no row was appended."""
        if self._pending:
            self._flush()
        if self._sink is None:
            return None
        with storage(self._temporary):
            self._stream.close()
            self._sink.finish()
        sink, self._sink = self._sink, None
        self._check()
        name = f"data/{self._task_id}-{sink.sha256.hexdigest()[:12]}.arrow"
        with storage(self._folder / name):
            (self._folder / "data").mkdir(parents=True, exist_ok=True)
            os.replace(self._temporary, self._folder / name)
            fsync_folder(self._folder / "data")
        return Shard(name, self._rows, sink.size, sink.sha256.hexdigest(), sink.xxh3.hexdigest())

    def _flush(self) -> None:
        with storage(self._temporary):
            if self._sink is None:
                self._temporary.parent.mkdir(parents=True, exist_ok=True)
                self._sink = _HashingFile(self._temporary)
                self._stream = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), self._schema)
            batch = pa.RecordBatch.from_pylist(self._pending, schema=self._schema)
            self._stream.write_batch(batch)
        self._rows += len(self._pending)
        self._pending, self._pending_bytes = [], 0

    def _check(self) -> None:
        """What stands on disk must be what was handed in: count the rows and decode one."""
        rows = 0
        last: dict[str, Any] | None = None
        for batch in read_batches(self._temporary):
            rows += batch.num_rows
            last = batch.slice(batch.num_rows - 1).to_pylist()[0]
        if rows != self._rows or last is None:
            raise ShardError(
                f"shard of task {self._task_id}: wrote {self._rows} rows, read back {rows}; check the disk"
            )
        if self._kind == "rendered":
            sample_of(last)


class _HashingFile:
    """A write-only binary file that hashes what passes through it."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb")  # noqa: SIM115 - closed by finish or abandon
        self.sha256 = hashlib.sha256()
        self.xxh3 = xxhash.xxh3_128()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.sha256.update(view)
        self.xxh3.update(view)
        self.size += view.nbytes
        return self._file.write(view)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Arrow closes its sink; the file stays open until ``finish`` has synced it."""

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names ``path`` and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path}: {reason}; finished work is kept: free space or mend the storage, then run again"
        ) from None


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a shard, memory-mapped. Raises ShardError when it is missing, truncated or no Arrow
    stream.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            yield from reader
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(f"shard {path}: {str(error).splitlines()[0]}; run `maquette verify` on its dataset") from None


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a shard as dicts, in order."""
    for batch in read_batches(path):
        for i in range(batch.num_rows):
            yield batch.slice(i, 1).to_pylist()[0]


def row_bytes(row: dict[str, Any]) -> int:
    """Bytes of a row's blobs."""
    return sum(len(b) for b in _blobs(row))


def row_hash(row: dict[str, Any]) -> str:
    """xxh3-128 over a row's blobs in field order: finds the damaged row in a damaged shard."""
    digest = xxhash.xxh3_128()
    for blob in _blobs(row):
        digest.update(len(blob).to_bytes(8, "little"))
        digest.update(blob)
    return digest.hexdigest()


def _blobs(row: dict[str, Any]) -> Iterator[bytes]:
    for name in BLOBS:
        value = row.get(name)
        if value is not None:
            yield value["bytes"] if isinstance(value, dict) else value


def _image(rgb: np.ndarray, image_format: str, name: str) -> dict[str, Any]:
    suffix = {"jpeg": "jpg", "jpeg444": "jpg"}.get(image_format, image_format)
    return {"bytes": codecs.encode_image(rgb, image_format), "path": f"{name}.{suffix}"}


def _person_row(p: Person) -> dict[str, Any]:
    return {
        "asset_id": p.asset_id,
        "box": np.asarray(p.box, np.float32).tolist(),
        "visible_fraction": float(p.visible_fraction),
        "keypoint_set": p.keypoint_set,
        "keypoints": np.asarray(p.keypoints, np.float32).tolist(),
        "keypoints_3d": np.asarray(p.keypoints_3d, np.float32).tolist(),
        "keypoint_visibility": np.asarray(p.visibility, np.uint8).tolist(),
        "bones": None if p.bones is None else json.dumps(p.bones, sort_keys=True),
        "phenotype": None if p.phenotype is None else json.dumps(p.phenotype, sort_keys=True),
    }


def _person_of(row: dict[str, Any]) -> Person:
    return Person(
        asset_id=row["asset_id"],
        box=np.array(row["box"], np.float32),
        visible_fraction=row["visible_fraction"],
        keypoint_set=row["keypoint_set"],
        keypoints=np.array(row["keypoints"], np.float32).reshape(-1, 2),
        keypoints_3d=np.array(row["keypoints_3d"], np.float32).reshape(-1, 3),
        visibility=np.array(row["keypoint_visibility"], np.uint8),
        bones=json.loads(row["bones"]) if row["bones"] else None,
        phenotype=json.loads(row["phenotype"]) if row["phenotype"] else None,
    )
