"""A dataset -> a repository of the Hugging Face Hub, as one commit: readers see all of it or none."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests import rewrite
from manifests.cache import fetched
from manifests.commit import LEDGER
from manifests.dataset import Dataset
from manifests.errors import InputError, ShardError, StorageError
from manifests.privacy import without_metadata
from manifests.store import open_store

# What this module put there before; a file that people added stays.
OURS = ("data/", "index/", "manifest/", "columns/", *(f"{part}/" for part in LEDGER))
NAMED_IDS = 5


@dataclasses.dataclass(frozen=True)
class Pushed:
    """``url`` of the commit, ``rows`` and ``files`` in it."""

    url: str
    rows: int
    files: int


def push(folder: str | Path, repo: str, private: bool = True, allow_restricted: bool = False) -> Pushed:
    """Upload the dataset to ``repo`` ("user/name"), which is created when it is not there; one commit, old shards removed.

    Photographs lose EXIF and whatever else says where and by whom they were taken; the endpoint and token are those of
    the environment (HF_ENDPOINT, HF_TOKEN). Raises InputError when rights forbid redistribution or the Hub refuses,
    ShardError when a shard is not what was written, StorageError when the Hub does not answer.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise InputError("pushing needs huggingface_hub; pip install 'maquette[hub]'") from None
    dataset = Dataset(folder)
    restricted = dataset.filter(redistributable=False).labels
    if len(restricted) and not allow_restricted:
        some = ", ".join(r["sample_id"] for r in restricted[:NAMED_IDS])
        raise InputError(
            f"{dataset.url}: the rights of {len(restricted)} of {len(dataset)} rows forbid redistribution ({some}"
            f"{', ...' if len(restricted) > NAMED_IDS else ''}). Push a `maquette filter --where redistributable=true` "
            "of it, or give --allow-restricted for a place where you may keep them; nothing was uploaded"
        )
    with tempfile.TemporaryDirectory(prefix="maquette-push-") as scratch:
        # Withdrawn samples are named by the ledger, and photographs carry places and names: both leave through a copy.
        if dataset.kind == "curated" or dataset.manifest["withdrawn"]:
            rewrite.write(_clean(dataset), scratch, dataset.kind, dataset.manifest["stage_digest"])
            rewrite.copy_columns([dataset], scratch)
            dataset = Dataset(scratch)
        files = _files(dataset)
        adds = [huggingface_hub.CommitOperationAdd(name, source) for name, source in files.items()]
        said = {e["path"]: e["sha256"] for e in [*dataset.manifest["shards"], *dataset.manifest["columns"]]}
        for add in adds:
            if add.path_in_repo in said and add.upload_info.sha256.hex() != said[add.path_in_repo]:
                raise ShardError(f"{add.path_in_repo}: its bytes are not what was written; run `maquette repair` first")
        api = huggingface_hub.HfApi()
        try:
            api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            there = api.list_repo_files(repo, repo_type="dataset")
            gone = [n for n in there if n.startswith(OURS) and n not in files]
            removals = [huggingface_hub.CommitOperationDelete(n) for n in gone]
            done = api.create_commit(
                repo,
                [*adds, *removals],
                commit_message=f"{len(dataset)} {dataset.kind} rows, manifest {dataset.manifest['number']}",
                repo_type="dataset",
            )
        except (HfHubHTTPError, HFValidationError) as error:
            line = str(error).strip().splitlines()[0]
            raise InputError(f"{repo}: the Hub refused ({line}); check the name, and HF_TOKEN's rights") from None
        except _transport_errors() as error:
            raise StorageError(
                f"{repo}: the Hub does not answer ({error}); nothing was committed: push again"
            ) from None
    return Pushed(str(done.commit_url), len(dataset), len(files))


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises when nobody answers; it has changed its HTTP library, and passes these through."""
    found: list[type[Exception]] = [OSError]
    for name in ("httpx2", "httpx"):
        with contextlib.suppress(ImportError):
            found.append(importlib.import_module(name).TransportError)
    return tuple(found)


def _files(dataset: Dataset) -> dict[str, Any]:
    """name in the repository -> local path or bytes: card, shards, and what `Dataset` needs to open a download."""
    store, manifest = open_store(dataset.url), dataset.manifest
    names = ["README.md", manifest["index"], f"manifest/{manifest['number']:08d}.json"]
    names += [f"{key}.json" for key in manifest["ledger"]]
    found: dict[str, Any] = {name: store.read(name) for name in names}
    return found | {e["path"]: fetched(store, e) for e in [*manifest["shards"], *manifest["columns"]]}


def _clean(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for row in rewrite.plain(dataset):
        if dataset.kind == "curated":
            data = without_metadata(row["image"]["bytes"])
            # The metadata that said how to turn the picture is gone, and the picture is turned.
            row |= {"image": {**row["image"], "bytes": data}, "orientation": 1}
            row["sha256"] = hashlib.sha256(data).hexdigest()
        yield row
