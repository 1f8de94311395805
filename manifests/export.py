"""A dataset -> a folder in the format of another project, complete or absent; what may not leave does not."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from manifests.card import SPLIT_NAMES
from manifests.dataset import Dataset
from manifests.errors import InputError, StorageError
from manifests.export_coco import coco_keypoints
from manifests.export_folders import sapiens2_normal, sapiens2_pointmap, sapiens_v1, synthhuman
from manifests.export_tables import parquet, webdataset

# (done, total) rows; called after each row.
Progress = Callable[[int, int], None]
NAMED_IDS = 5
# Formats that `datasets` opens by folder, and what their files are called: the card lists them by split.
OPENED_BY_DATASETS = {"parquet": "*.parquet", "webdataset": "*.tar"}


def export(
    folder: str | Path,
    name: str,
    out: Path,
    split: str | None = None,
    allow_restricted: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the dataset ``folder`` to ``out`` as format ``name`` (a key of EXPORTERS); returns the number of rows.

    With ``split`` that split's rows stand in ``out`` itself; without, each split has a sub-folder, so that held-out
    people never mix with the others. ``export.json`` states frames, units and licences; ``samples.jsonl`` names the
    file stem, number (synthhuman's files are numbered), sample, people and rights of every row. The folder is written
    as ``out``.partial- and a random suffix, and renamed when whole. Raises InputError where a format, split or field is
    missing, ``out`` is not empty, or a row's rights forbid redistribution; StorageError when the disk refuses.
    """
    if name not in EXPORTERS:
        near = difflib.get_close_matches(name, EXPORTERS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(EXPORTERS)}"
        raise InputError(f"--format {name}: no such format; {hint}")
    dataset = Dataset(folder)
    chosen = dataset if split is None else dataset.filter(split=split)
    if not len(chosen):
        have = ", ".join(sorted(dataset.manifest["splits"])) or "no rows at all"
        raise InputError(f"{folder}: nothing to export{f' in split {split}' if split else ''}; it has {have}")
    restricted = [label["sample_id"] for label in chosen.labels if not label["redistributable"]]
    if restricted and not allow_restricted:
        raise InputError(
            f"{folder}: the rights of {len(restricted)} of {len(chosen)} rows forbid redistribution "
            f"({_some(restricted)}). Give --allow-restricted to export them all the same, for a place where you may "
            "keep them; nothing was written"
        )
    stems = _stems([label["sample_id"] for label in chosen.labels])
    out = Path(out).resolve()
    draft = out.with_name(f"{out.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: is there already and not empty; name a new folder, or remove it first")
        draft.mkdir(parents=True)
        _write(chosen, name, draft, split, stems, progress)
        # rename(2) refuses a folder that someone filled in the meantime.
        os.replace(draft, out)
    except OSError as error:
        raise StorageError(
            f"{out}: {error.strerror or error}; no export was left behind: free space or mend the storage, then "
            "export again"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return len(chosen)


def _write(
    chosen: Dataset, name: str, draft: Path, split: str | None, stems: dict[str, str], progress: Progress | None
) -> None:
    conventions: dict[str, str] = {}
    done = 0
    splits = sorted({label["split"] for label in chosen.labels})
    with (draft / "samples.jsonl").open("w") as listing:

        def rows(part: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
            nonlocal done
            for number in range(len(part)):
                row = part.checked(number)
                stem = stems[row["sample_id"]]
                yield stem, row
                # After the yield: a row is listed and counted once its files stand.
                listing.write(json.dumps({"stem": stem, "number": number, **_identity(row)}) + "\n")
                done += 1
                if progress:
                    progress(done, len(chosen))

        for one in splits:
            folder = draft if split else draft / one
            folder.mkdir(exist_ok=True)
            conventions = EXPORTERS[name](rows(chosen.filter(split=one)), folder)
    facts = {
        "format": name,
        "kind": chosen.kind,
        "rows": len(chosen),
        "splits": dict(Counter(label["split"] for label in chosen.labels)),
        "licences": dict(Counter(licence for label in chosen.labels for licence in label["licences"])),
        "redistributable": sum(label["redistributable"] for label in chosen.labels),
        "conventions": conventions,
        "stage_digest": chosen.manifest["stage_digest"],
        "manifest_sha256": chosen.manifest["sha256"],
    }
    (draft / "export.json").write_text(json.dumps(facts, indent=1) + "\n")
    if name in OPENED_BY_DATASETS:
        pattern = OPENED_BY_DATASETS[name]
        files = [
            f'  - split: {SPLIT_NAMES.get(one, one)}\n    path: "{pattern if split else f"{one}/{pattern}"}"\n'
            for one in splits
        ]
        head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{''.join(files)}---\n"
        told = "\n".join(f"- `{field}`: {meaning}" for field, meaning in conventions.items())
        (draft / "README.md").write_text(f"{head}\n{len(chosen)} rows, exported by Maquette.\n\n{told}\n")


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    people = [person["asset_id"] for person in row.get("people") or []]
    return {"sample_id": row["sample_id"], "split": row["split"], "people": people, "rights": row["rights"]}


def _stems(ids: list[str]) -> dict[str, str]:
    """sample id -> file stem: readers cut names at dots and folders at slashes."""
    stems = {one: re.sub(r"[^A-Za-z0-9_-]", "_", one) for one in ids}
    twice = [stem for stem, count in Counter(stems[one] for one in ids).items() if count > 1]
    if twice:
        raise InputError(f"several samples would be written as {_some(twice)}; give them ids that differ in letters")
    return stems


def _some(ids: list[str]) -> str:
    more = len(ids) - NAMED_IDS
    return ", ".join(ids[:NAMED_IDS]) + (f" and {more} more" if more > 0 else "")


EXPORTERS: dict[str, Callable[[Iterator[tuple[str, dict[str, Any]]], Path], dict[str, str]]] = {
    "sapiens-v1": sapiens_v1,
    "sapiens2-pointmap": sapiens2_pointmap,
    "sapiens2-normal": sapiens2_normal,
    "synthhuman": synthhuman,
    "coco-keypoints": coco_keypoints,
    "webdataset": webdataset,
    "parquet": parquet,
}
