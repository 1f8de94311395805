"""A curate stage -> a decision for every input and a dataset of the kept ones: measure, find pairs, decide, materialise.

Each part is a file or a set of files that is there or not, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from curation import dedup
from curation.calibration import hash_of
from curation.content import Content
from curation.decide import decide, funnel, read_tombstones, readings
from curation.detectors import PersonDetector
from curation.reading import read
from curation.rules import absent
from curation.sources import listed
from curation.stage import CORPUS, MEASUREMENTS, RULES
from manifests import commit
from manifests.curation import CurateStage, Policy
from manifests.dataset import Dataset
from manifests.errors import InputError, JobError, PhotoError, ShardError
from manifests.job import Job
from manifests.plan import split_of
from manifests.rewrite import withdraw
from manifests.shards import ShardWriter
from manifests.store import storage
from pipeline.corpus import NAMES, survey
from pipeline.embedders import embedder
from pipeline.freeze import freeze
from pipeline.measuring import REPEATING, WAVE, measure, partitions, write
from pipeline.progress import Events, bar, console
from pipeline.road import read_job
from pipeline.workers import join

WHOLE, PAIRS, DECIDED = "measured.parquet", "pairs.parquet", "decisions/decisions.parquet"
ROW_GROUP = 65_536


def curate(job: Job, folder: Path, root: Path, events: Events, address: str | None = None) -> dict[str, Any]:
    """Measure what is still missing, decide over all, write the kept.

    ``folder``: the stage's dataset folder. ``root``: where relative paths start. ``address``: of a Ray cluster; Ray is started
    where there is something to measure or to write. Returns counts. Raises InputError, JobError, StorageError.
    """
    assert job.curate is not None
    stage = job.curate
    started = time.monotonic()
    tombstones = read_tombstones(root / stage.tombstones if stage.tombstones else None)
    engine = _engine(stage, root)
    inputs = listed(stage, root, folder / "bundled")
    digest = freeze(folder, stage, _frozen(stage, inputs), engine=engine)
    commit.collect_orphans(folder)
    measuring = _measured(stage, root, folder, inputs, engine, address)
    table, pairs = load(folder)
    decisions = decide(table, stage, pairs, tombstones, load_alike(folder))
    write(folder / DECIDED, decisions, synced=False)
    materialise(stage, folder, digest, decisions, address)
    commit.fold(folder, "curated", digest)
    _withdrawn(folder, decisions)
    steps = funnel(decisions)
    result = {
        "inputs": len(decisions),
        "kept": steps[-1][2],
        "failed": 0,
        "measuring_s": round(measuring, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    for rule, field in absent(decisions).items():
        console.print(f"  [yellow]skipped[/yellow] {rule}: no model for it; give curate.{field}", soft_wrap=True)
    if not result["kept"]:
        why = ", ".join(f"{name} {came - went}" for name, came, went in steps if came > went)
        console.print(f"  [yellow]nothing was kept[/yellow] of {len(decisions)} photographs: {why}", soft_wrap=True)
    events.emit("stage_finished", stage="curate", funnel=steps, readings=readings(decisions, stage), **result)
    return result


def apart(folder: Path, out: Path, policy: Policy, decisions: pa.Table) -> int:
    """Write what another ``policy`` kept of a curate stage as a dataset of its own at ``out``; the same call goes on where it
    stopped. Returns its rows.

    ``decisions``: by that policy, over the measurements in ``folder``. Raises InputError, JobError, ShardError, StorageError.
    """
    given = read_job(folder.parent).curate
    if given is None:
        raise InputError(
            f"{folder.parent}/job.yaml: has no curate section any more; give a run folder that still has it"
        )
    if not pc.any(decisions["kept"]).as_py():
        raise InputError(f"{out}: the policy keeps nothing of {folder}; no dataset was written")
    stage = CurateStage.model_validate(given.model_dump() | policy.model_dump())
    was = json.loads((folder / "stage.json").read_text())
    digest = freeze(out, stage, [(folder.parent.name, was["digest"])], engine=was["engine"])
    materialise(stage, out, digest, decisions, None)
    commit.fold(out, "curated", digest)
    _withdrawn(out, decisions)
    return len(Dataset(out))


def buried(folder: Path) -> frozenset[str]:
    """The sha256 of what the stage's own tombstones and `maquette withdraw` took out: no other policy brings it back.

    Raises InputError.
    """
    if not (folder / DECIDED).is_file():
        raise InputError(f"{folder}: holds no decisions; run `maquette curate` on its job to the end")
    table = pq.read_table(folder / DECIDED, columns=["sha256", "reasons"])
    reasons = table["reasons"].combine_chunks()
    rows = pc.list_parent_indices(reasons).filter(pc.equal(pc.list_flatten(reasons), RULES["tombstone"]))
    manifest = commit.newest_manifest(folder)
    withdrawn = {i.rpartition("-")[2] for i in manifest["withdrawn"]} if manifest else set()
    taken = table["sha256"].filter(
        pc.is_in(pc.utf8_slice_codeunits(table["sha256"], 0, 16), pa.array(sorted(withdrawn), pa.string()))
    )
    return frozenset([*table["sha256"].take(rows).to_pylist(), *taken.to_pylist()])


def load(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Measurements of all inputs in order of uri with what the corpus says of them, and their near-duplicate pairs.

    Raises InputError before they exist.
    """
    for name in (WHOLE, PAIRS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: holds no complete measurements; run `maquette curate` on its job to the end")
    # Vectors are ten times the rest, and no rule needs them again.
    table = pq.read_table(folder / WHOLE, columns=[n for n in MEASUREMENTS.names if n != "embedding"])
    if (folder / NAMES[0]).is_file():
        for column, field in zip(pq.read_table(folder / NAMES[0]).columns, CORPUS):
            table = table.append_column(field, column)
    return table, pq.read_table(folder / PAIRS)


def load_alike(folder: Path) -> pa.Table | None:
    """Pairs of pictures that show the same, by row number; None where nothing was surveyed."""
    return pq.read_table(folder / NAMES[1]) if (folder / NAMES[1]).is_file() else None


def materialise(stage: CurateStage, folder: Path, digest: str, decisions: pa.Table, address: str | None) -> None:
    """Write the kept photographs, original bytes untouched, in shards of `samples_per_task`, through Ray Data.

    What a tombstone removes keeps its place in the count, so that a longer list moves no other picture to another shard;
    nor does it change their `sampling_weight`, which is that of the decisions they were written by.
    """
    only = pc.and_(
        pc.equal(pc.list_value_length(decisions["reasons"]), 1), pc.equal(decisions["first_fail"], "tombstone")
    )
    chosen = decisions.filter(pc.or_(decisions["kept"], pc.fill_null(only, False)))
    done = commit.receipts(folder)
    # A dataset begun before rows had weights is finished as it was begun.
    before = any("sampling_weight" not in row for r in done.values() for s in r.shards for row in s.index[:1])
    firsts = range(0, len(chosen), stage.samples_per_task)
    names = {first: f"{first:08d}+{min(stage.samples_per_task, len(chosen) - first)}" for first in firsts}
    tasks = [first for first in firsts if names[first] not in done]
    if tasks:
        join(address, folder)
    for at in range(0, len(tasks), WAVE):
        items = [
            {"name": names[first], "first": first, "rows": chosen.slice(first, stage.samples_per_task).to_pylist()}
            for first in tasks[at : at + WAVE]
        ]
        written = ray.data.from_items(items, override_num_blocks=len(items)).map(_shard(stage, folder, digest, before))
        for _ in written.iter_rows():
            pass


def _shard(stage: CurateStage, folder: Path, digest: str, before: bool) -> Any:
    """A Ray Data task: rows of decisions -> one shard and its receipt."""

    def put(item: dict[str, Any]) -> dict[str, Any]:
        outcomes = []
        with ShardWriter(folder, item["name"], "curated", before) as writer:
            for i, decision in enumerate(item["rows"], item["first"]):
                if decision["kept"]:
                    row = _row(stage, digest, i, decision)
                    writer.append(row)
                    spent = round(sum(v or 0.0 for v in decision["ms"].values()) / 1e3, 6)
                    outcomes.append(commit.Outcome(row["sample_id"], i, "done", "", spent, 1))
            shards = writer.close()
        commit.write_receipt(folder, commit.Receipt(item["name"], digest, shards, outcomes, {}))
        return {"rows": len(outcomes)}

    return put


def _row(stage: CurateStage, digest: str, index: int, d: dict[str, Any]) -> dict[str, Any]:
    try:
        data, _ = read({**d, "meta": None, "meta_offset": 0, "meta_length": 0})
    except PhotoError as error:
        raise ShardError(
            f"{d['uri']}: {error.message}, though it was measured; put the file back and run again"
        ) from None
    if hashlib.sha256(data).hexdigest() != d["sha256"]:
        raise ShardError(
            f"{d['uri']}: the file changed while the stage ran; give the job a new `name` to curate it as it is now"
        )
    source = d["uri"].split("/")[0]
    return {
        "sample_id": f"{digest[:12]}-{d['sha256'][:16]}",
        "stage_digest": digest,
        "index": index,
        "split": split_of(d["sha256"], stage.splits),
        "image": {"bytes": data, "path": d["uri"].rpartition("/")[2].rpartition("#")[2]},
        **{k: d[k] for k in ("width", "height", "orientation", "sha256", "phash", "boxes", "uri")},
        "rights": [
            {"id": d["uri"], "source": source} | {k: d[k] for k in ("licence", "consent", "redistributable")},
        ],
        **{k: d[k] for k in ("cluster_path", "sampling_weight")},
    }


def _measured(
    stage: CurateStage, root: Path, folder: Path, inputs: pa.Table, engine: str, address: str | None
) -> float:
    """All measurements in one file, and the pairs among them; partitions that are on disk are read, the others made.

    Returns the seconds that it took, without Ray's start for what is missing.
    """
    parts = partitions(inputs, stage, engine)
    where = folder / "measurements"
    have = {p.stem for p in where.glob("*.parquet")} if where.is_dir() else set()
    missing = {name: at for name, at in parts.items() if name not in have}
    if missing:
        join(address, folder)
    started = time.monotonic()
    if missing:
        listing = folder / "tmp" / "listing.arrow"
        with storage(listing):
            listing.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(listing), "wb") as file, pa.ipc.new_file(file, inputs.schema) as writer:
                writer.write_table(inputs)
        with bar("curate") as progress:
            shown = progress.add_task("", total=sum(n for _, n in missing.values()), note="")
            measure(stage, root, folder, listing, missing, lambda rows: progress.update(shown, advance=rows))
        listing.unlink()
    for name in have - set(parts):
        # Of a file that changed, or of another detector.
        (where / f"{name}.parquet").unlink()
    key = hashlib.sha256("".join(parts).encode()).hexdigest()
    if not (folder / WHOLE).is_file() or pq.read_schema(folder / WHOLE).metadata[b"partitions"].decode() != key:
        _joined([where / f"{name}.parquet" for name in parts], folder / WHOLE, key)
        (folder / PAIRS).unlink(missing_ok=True)
    if not (folder / PAIRS).is_file():
        write(folder / PAIRS, dedup.pairs(pq.read_table(folder / WHOLE, columns=[*dedup.VARIANTS, "thumb"])))
    survey(stage, folder, folder / WHOLE, address)
    return time.monotonic() - started


def _joined(files: list[Path], whole: Path, key: str) -> None:
    """One file of many, a partition in memory at a time; inputs are in order of uri, so the rows are as well."""
    fresh = whole.with_name(f"{whole.name}.{uuid.uuid4().hex[:8]}.tmp")
    schema = MEASUREMENTS.with_metadata({"partitions": key})
    with storage(whole):
        with pq.ParquetWriter(
            fresh, schema, compression="zstd", compression_level=1, use_dictionary=REPEATING
        ) as writer:
            waiting: list[pa.Table] = []
            for i, path in enumerate(files):
                waiting.append(pq.read_table(path, schema=MEASUREMENTS))
                if sum(map(len, waiting)) >= ROW_GROUP or i + 1 == len(files):
                    writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(schema.metadata))
                    waiting = []
        fresh.replace(whole)


def _frozen(stage: CurateStage, inputs: pa.Table) -> list[tuple[str, str]]:
    """(source, sha256 of what it lists): names, places and sizes; the bytes are checked when they are measured."""
    found = []
    for path in sorted({s.path for s in stage.sources}):
        own = inputs.filter(pc.starts_with(inputs["uri"], path.strip("/") if path != "bundled" else "bundled/"))
        digest = hashlib.sha256()
        for batch in own.select(["uri", "kind", "offset", "length"]).to_batches(max_chunksize=65536):
            digest.update(json.dumps(batch.to_pydict()).encode())
        found.append((f"{path} ({len(own)} inputs)", digest.hexdigest()))
    return found


def _engine(stage: CurateStage, root: Path) -> str:
    """What makes the measurements: versions, weights and maps. Raises JobError where a preset lacks its map."""
    parts = [f"{n} {importlib.metadata.version(n)}" for n in ("pillow", "simplejpeg", "opencv-python-headless")]
    for settings in filter(None, (stage.detector, stage.head_detector)):
        detector = PersonDetector(settings, root)
        if stage.preset and settings is stage.detector and not (stage.raw or detector.weak or detector.calibration):
            raise JobError(
                f"curate.preset {stage.preset}: score > {stage.min_score:g} means a calibrated score, and there is no map "
                f"for the weights of {detector.name} ({detector.weights_sha256[:12]}); make one with `maquette calibrate`, "
                "or set curate.raw: true to hold the model's own score against it"
            )
        table = detector.calibration
        parts.append(f"{detector.name} {detector.weights_sha256} {hash_of(table) if table else 'raw'}")
    parts.append(Content(stage, root, embedder(stage.embedding, root)).models)
    return ", ".join(parts)


def _withdrawn(folder: Path, decisions: pa.Table) -> None:
    """Take what a tombstone names out of shards that an earlier run wrote."""
    if commit.newest_manifest(folder) is None:
        return
    gone = set(decisions.filter(pc.equal(decisions["first_fail"], "tombstone"))["sha256"].to_pylist())
    labels = Dataset(folder).labels.table if gone else None
    if labels is None:
        return
    ids = [i for i in labels["sample_id"].to_pylist() if any(i.endswith(s[:16]) for s in gone if s)]
    if ids:
        withdraw(folder, ids, "named by curate.tombstones")
