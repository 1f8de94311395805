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
from manifests.errors import ShardError
from manifests.index import label, row_bytes, row_hash
from manifests.sample import Person, RenderedSample, schema
from manifests.store import open_store, storage

MAX_BATCH_ROWS = 16
MAX_BATCH_BYTES = 32 * 2**20
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file: ``path`` relative to the dataset folder, its one split, size and hashes, and its index rows."""

    path: str
    split: str
    rows: int
    bytes: int
    sha256: str
    xxh3: str
    index: list[dict[str, Any]] = dataclasses.field(repr=False)


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
        "white_balance": None if s.white_balance is None else list(s.white_balance),
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
        white_balance=tuple(gains) if (gains := row.get("white_balance")) is not None else None,
    )


class ShardWriter:
    """Writes one task's rows to ``folder``/data/TASK-SPLIT-SHA12.arrow, a file for each split; complete or absent.

    One split a file: `datasets` opens whole files, and held-out people must not come along. Use as a context manager:
    leaving it by an error removes the temporary files. ``close`` fsyncs, re-opens, hashes every row again and decodes
    one before the rename. ``folder``: a path or bucket URL. ``early``: without the columns that came later, for a dataset
    from before them: `datasets` opens shards of one schema. Raises StorageError when the storage refuses.
    """

    def __init__(self, folder: str | Path, task_id: str, kind: str, early: bool = False) -> None:
        self._store = open_store(folder)
        self._task_id, self._kind, self._schema = task_id, kind, schema(kind, early)
        self._streams: dict[str, _Stream] = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._streams.values():
            stream.abandon()

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; batches are cut at 16 rows or 32 MB, whichever comes first."""
        split = row["split"]
        if split not in self._streams:
            path = self._store.scratch() / f"{self._task_id}-{uuid.uuid4().hex[:8]}.arrow.tmp"
            self._streams[split] = _Stream(path, self._kind, self._task_id, self._schema)
        self._streams[split].append(row)

    def close(self) -> list[Shard]:
        """Commit the files under their final names, in order of split; an empty list when no row was appended."""
        finished = [(split, stream, stream.finish()) for split, stream in sorted(self._streams.items())]
        shards = []
        for split, stream, labels in finished:
            sha256 = stream.sink.sha256.hexdigest()
            name = f"data/{self._task_id}-{split}-{sha256[:12]}.arrow"
            for row in labels:
                row["shard"] = name
            self._store.publish(stream.path, name)
            xxh3 = stream.sink.xxh3.hexdigest()
            shards.append(Shard(name, split, len(labels), stream.sink.size, sha256, xxh3, labels))
        return shards


class _Stream:
    """One temporary Arrow stream file and the index rows of what went into it."""

    def __init__(self, path: Path, kind: str, task_id: str, fields: pa.Schema) -> None:
        self.path, self._kind, self._task_id, self._schema = path, kind, task_id, fields
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._labels: list[dict[str, Any]] = []
        with storage(path):
            self.sink = _HashingFile(path)
            self._writer = pa.ipc.new_stream(pa.PythonFile(self.sink, mode="w"), fields)

    def append(self, row: dict[str, Any]) -> None:
        size = row_bytes(row)
        if self._pending and (len(self._pending) == MAX_BATCH_ROWS or self._pending_bytes + size > MAX_BATCH_BYTES):
            self._flush()
        self._pending.append(row)
        self._pending_bytes += size

    def finish(self) -> list[dict[str, Any]]:
        """Close, sync, re-open and compare; returns the index rows without their shard's name."""
        self._flush()
        with storage(self.path):
            self._writer.close()
            self.sink.finish()
        self._check()
        return self._labels

    def abandon(self) -> None:
        self.sink.abandon()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._pending, schema=self._schema)
        with storage(self.path):
            self._writer.write_batch(batch)
        # As Arrow holds them, not as they were given: float32 columns round.
        self._labels += [label(row, len(self._labels) + i) for i, row in enumerate(rows_of(batch))]
        self._pending, self._pending_bytes = [], 0

    def _check(self) -> None:
        """What stands on disk must be what was handed in: each row's hash again, and one row decoded."""
        row: dict[str, Any] | None = None
        position = 0
        for batch, offset, size in located_batches(self.path):
            for i, row in enumerate(rows_of(batch)):
                if position >= len(self._labels) or row_hash(row) != self._labels[position]["xxh3"]:
                    raise ShardError(f"shard of task {self._task_id}: row {position} did not read back; check the disk")
                self._labels[position] |= {"batch_offset": offset, "batch_bytes": size, "batch_row": i}
                position += 1
        if position != len(self._labels) or row is None:
            raise ShardError(
                f"shard of task {self._task_id}: wrote {len(self._labels)} rows, read back {position}; check the disk"
            )
        if self._kind == "rendered":
            sample_of(row)


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


def located_batches(path: Path) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """(batch, offset, bytes) of each record batch of a local shard, memory-mapped.

    Raises ShardError when the file is missing, truncated or no Arrow stream; batches before the damage come first.
    """
    try:
        with pa.memory_map(str(path)) as source:
            fields = pa.ipc.read_schema(source)
            while True:
                offset = source.tell()
                try:
                    message = pa.ipc.read_message(source)
                except EOFError:
                    # The end-of-stream mark or a cut between two batches; the writer always leaves the mark.
                    if source.size() - offset != len(END_OF_STREAM):
                        raise ShardError(f"shard {path}: ends without its mark; run `maquette verify`") from None
                    return
                yield pa.ipc.read_record_batch(message, fields), offset, source.tell() - offset
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(f"shard {path}: {str(error).splitlines()[0]}; run `maquette verify` on its dataset") from None


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a local shard, as ``located_batches``."""
    return (batch for batch, _, _ in located_batches(path))


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch as dicts, one at a time: a whole batch of blobs would be copied at once."""
    return (batch.slice(i, 1).to_pylist()[0] for i in range(batch.num_rows))


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a local shard as dicts, in order."""
    for batch in read_batches(path):
        yield from rows_of(batch)


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
