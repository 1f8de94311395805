"""Measurements of a whole corpus -> what no picture alone can say: whether its site stamps it, its place in the tree of
clusters, and which others show the same. Pictures are opened again for sites alone, 64 of each.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from curation import clusters, watermark
from curation.embedding import unpacked
from curation.reading import read
from curation.stage import CORPUS
from manifests import photo
from manifests.curation import CurateStage
from manifests.errors import PhotoError, ShardError
from pipeline.measuring import write
from pipeline.workers import join

ALIKE = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("distance", pa.float32())])
NAMES = ("corpus.parquet", "alike.parquet")
NEEDED = ["uri", "url", "kind", "file", "offset", "length", "sha256", "stopped", "error"]


def survey(stage: CurateStage, folder: Path, whole: Path, address: str | None) -> None:
    """Write NAMES into ``folder`` from the measurements in ``whole``, unless they are there for the same ones.

    Raises ShardError where a picture that was measured is gone.
    """
    of = pq.read_schema(whole).metadata[b"partitions"].decode()
    key = hashlib.sha256(json.dumps([of, stage.clusters.model_dump()]).encode()).hexdigest()
    done = [folder / name for name in NAMES]
    if all(p.is_file() and (pq.read_schema(p).metadata or {}).get(b"of") == key.encode() for p in done):
        return
    table = pq.read_table(whole, columns=NEEDED)
    sites = [_site(url, uri) for url, uri in zip(table["url"].to_pylist(), table["uri"].to_pylist())]
    stamps = _stamps(stage, table, sites, folder, address)
    keys = table["sha256"].to_pylist()
    vectors, rows = unpacked(pq.read_table(whole, columns=["embedding"])["embedding"])
    paths = clusters.tree(vectors, [keys[r] for r in rows.tolist()], stage.clusters)
    placed: list[str | None] = [None] * len(table)
    for row, place in zip(rows.tolist(), paths):
        placed[row] = place
    columns = [sites, [stamps.get(s) for s in sites], placed]
    found = pa.table([pa.array(c, f.type) for c, f in zip(columns, CORPUS)], schema=CORPUS)
    a, b, distance = clusters.pairs(vectors, paths)
    alike = pa.table([rows[a], rows[b], distance], schema=ALIKE)
    for path, part in zip(done, (found, alike)):
        write(path, part.replace_schema_metadata({"of": key}))


def _site(url: str | None, uri: str) -> str:
    """The host a picture came from; without an address, its source."""
    return (urlsplit(url).hostname if url else None) or uri.split("/")[0]


def _stamps(
    stage: CurateStage, table: pa.Table, sites: list[str], folder: Path, address: str | None
) -> dict[str, float]:
    """site -> score, of sites with enough pictures; the pictures with the smallest sha256 stand for it."""
    sound = table["stopped"].is_null().to_numpy() & table["error"].is_null().to_numpy()
    sha = table["sha256"].to_pylist()
    by_site: dict[str, dict[str, int]] = {}
    for row in np.flatnonzero(sound).tolist():
        by_site.setdefault(sites[row], {}).setdefault(sha[row], row)
    items = []
    for site, have in sorted(by_site.items()):
        if len(have) >= watermark.LEAST:
            rows = [have[s] for s in sorted(have)[: watermark.MOST]]
            items.append({"site": site, "rows": table.take(rows).to_pylist()})
    if not items:
        return {}

    def judge(item: dict[str, Any]) -> dict[str, Any]:
        prepared = []
        for row in item["rows"]:
            try:
                data, _ = read({**row, "meta": None, "meta_offset": 0, "meta_length": 0})
                prepared.append(watermark.prepare(photo.decode(data, stage.max_pixels, stage.max_bytes)[0]))
            except PhotoError as error:
                raise ShardError(
                    f"{row['uri']}: {error.message}, though it was measured; put the file back and run again"
                ) from None
        return {"site": item["site"], "score": watermark.stamped(prepared).score}

    join(address, folder)
    done = ray.data.from_items(items, override_num_blocks=len(items)).map(judge)
    return {row["site"]: round(row["score"], 4) for row in done.iter_rows()}
