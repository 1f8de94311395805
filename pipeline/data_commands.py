"""The commands that look at, mend and rearrange datasets: words on a command line -> one call of manifests/ each."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from manifests.errors import DONE, FAILURES, STORAGE, InputError, StorageError

Place = Annotated[str, typer.Argument(metavar="DATASET", help="dataset or run: a folder, s3:// or gs://")]
Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="LABEL=VALUE", help="also != < <= > >=; several must all hold")
]
Out = Annotated[str, typer.Option(help="the new dataset: a folder, s3:// or gs://")]
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SHOWN_IDS = 20


def verify(folder: Place, quick: Annotated[bool, typer.Option(help="hashes only, decode nothing")] = False) -> None:
    """Re-read every byte of a run's datasets: seals, checksums, counts, geometry."""
    from manifests import verify as checks

    bad = waiting = 0
    for dataset in datasets(folder):
        problems = checks.verify(dataset, deep=not quick)
        bad += len(problems)
        for problem in problems:
            typer.echo(f"{dataset}: {problem}")
        missing = 0 if problems else _missing(dataset)
        waiting += missing
        typer.echo(f"{dataset}: {_state(dataset, len(problems), missing)}")
    raise typer.Exit(STORAGE if bad else FAILURES if waiting else DONE)


def _missing(dataset: str) -> int:
    """How many samples the run's job asks for that no receipt knows yet; 0 where there is no job to ask."""
    from manifests import commit
    from manifests.job import load

    job = Path(dataset).parent / "job.yaml"
    if not (job.is_file() and (Path(dataset) / "stage.json").is_file() and Path(dataset).name == "render"):
        return 0
    stage = load(job).render
    known = {o.index for r in commit.receipts(dataset).values() for o in r.outcomes}
    return max(stage.samples - len(known), 0) if stage else 0


def _state(dataset: str, problems: int, missing: int) -> str:
    if problems:
        return f"{problems} problems"
    job = Path(dataset).parent / "job.yaml"
    return f"sound, but {missing} samples are not there yet: `maquette run {job}` makes them" if missing else "sound"


def repair(
    folder: Place,
    salvage: Annotated[bool, typer.Option("--salvage", help="keep sound rows instead of running tasks again")] = False,
) -> None:
    """Mend damage: queue tasks again where their job is at hand, keep sound rows where not, name what is lost."""
    from manifests.repair import repair as mend

    code = DONE
    for dataset in datasets(folder):
        job = Path(dataset).parent / "job.yaml"
        rerun = not salvage and job.is_file() and (Path(dataset) / "stage.json").is_file()
        done = mend(dataset, rerun)
        for what, names in (("quarantined", done.quarantined), ("rebuilt", done.rebuilt), ("queued", done.requeued)):
            for name in names:
                typer.echo(f"{dataset}: {what} {name}")
        if done.salvaged:
            typer.echo(f"{dataset}: {done.salvaged} rows kept from damaged shards")
        for name in done.lost:
            typer.echo(f"{dataset}: lost {name}")
        for problem in done.remaining:
            typer.echo(f"{dataset}: still wrong: {problem}")
        missing = 0 if done.remaining else _missing(dataset)
        typer.echo(f"{dataset}: {_state(dataset, len(done.remaining), missing)}")
        code = STORAGE if done.remaining else FAILURES if (done.lost or missing) and code == DONE else code
    raise typer.Exit(code)


def inspect(
    folder: Place,
    row: Annotated[list[int] | None, typer.Option(help="write these rows as PNG")] = None,
    out: Annotated[Path, typer.Option(help="folder for the PNGs")] = Path("."),
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet of rendered rows (.jpg or .png)")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="browse samples in a browser of this machine")] = False,
    port: Annotated[int, typer.Option(help="with --serve: 0 takes a free one", min=0, max=65535)] = 0,
) -> None:
    """Print counts, fields and rights; --row writes rows as PNG, --sheet many on one picture, --serve opens a page."""
    from manifests import codecs, view
    from manifests.dataset import Dataset

    if serve:
        from pipeline.browse import serve as browse

        browse([Dataset(d) for d in datasets(folder)], port, lambda url: typer.echo(f"{url}  (Ctrl-C ends it)"))
        return
    if sheet and sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"--sheet {sheet}: name a .jpg or a .png")
    for dataset in datasets(folder):
        typer.echo(f"{dataset}\n" + json.dumps(view.summary(dataset), indent=2, default=str))
        opened = Dataset(dataset)
        if sheet and opened.kind == "rendered":
            if not len(opened):
                raise InputError(f"{dataset}: holds no row; nothing to draw")
            picture = view.contact_sheet(opened, row or view.spread(opened.labels, 12))
            _write(sheet, codecs.encode_image(picture, "png" if sheet.suffix.lower() == ".png" else "jpeg"))
            typer.echo(str(sheet))
        elif row:
            for i in row:
                if not 0 <= i < len(opened):
                    raise InputError(f"row {i}: {dataset} has rows 0 to {len(opened) - 1}")
                path = out / f"{dataset.rstrip('/').rsplit('/', 1)[-1]}-{i:06d}.png"
                _write(path, view.row_png(opened[i]))
                typer.echo(str(path))


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free space or choose another place") from None


def stats(folder: Place, where: Where = None) -> None:
    """Print counts by label, bytes by field, depth range and fill as JSON."""
    from manifests.stats import stats as measured

    views = [_view(d, where) for d in datasets(folder)]
    if where and not any(len(v) for v in views):
        raise InputError(f"{folder}: no row has {' and '.join(where)}; `maquette inspect` shows the labels' values")
    typer.echo(json.dumps([measured(v) for v in views], indent=2, default=str))


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="dataset")],
    b: Annotated[str, typer.Argument(metavar="B", help="dataset")],
) -> None:
    """Compare two datasets row by row, by id and content, without reading pixels; exit code 1 when they differ."""
    from manifests.dataset import Dataset
    from manifests.stats import diff as compared

    found = compared(Dataset(_one(a)), Dataset(_one(b)))
    for what, ids in found.items():
        more = f", ... {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        typer.echo(f"{what} {len(ids)}" + (f": {', '.join(ids[:SHOWN_IDS])}{more}" if ids else ""))
    raise typer.Exit(FAILURES if any(found.values()) else DONE)


def merge(
    sources: Annotated[list[str], typer.Argument(metavar="DATASET...", help="datasets of one kind")], out: Out
) -> None:
    """Write the rows of several datasets as one."""
    from manifests.rewrite import merge as write

    typer.echo(f"{out}: {write([_one(s) for s in sources], out)} rows")


def split(
    folder: Place, out: Out, by: Annotated[str, typer.Option(help="label: split, framing, environment, ...")] = "split"
) -> None:
    """Write a dataset for each value of a label, into OUT/VALUE."""
    from manifests.dataset import Dataset
    from manifests.rewrite import split as write

    for value, rows in write(Dataset(_one(folder)), out, by).items():
        typer.echo(f"{out.rstrip('/')}/{value}: {rows} rows")


def filter(folder: Place, out: Out, where: Where = None) -> None:
    """Write the rows whose labels hold as a dataset of their own: --where split=train --where "people>=2"."""
    from manifests.rewrite import subset

    typer.echo(f"{out}: {subset(_view(_one(folder), where), out)} rows")


def compact(
    folder: Place, megabytes: Annotated[int, typer.Option(help="size of a shard, at most", min=1)] = 256
) -> None:
    """Put small shards together and drop withdrawn rows; `gc` removes what they replace."""
    from manifests.rewrite import compact as write

    for dataset in datasets(folder):
        typer.echo(f"{dataset}: {len(write(dataset, megabytes * 2**20))} shards replaced")


def withdraw(
    folder: Place,
    why: Annotated[str, typer.Option(help="kept with the tombstone")],
    sample: Annotated[list[str] | None, typer.Option(help="sample id")] = None,
    asset: Annotated[list[str] | None, typer.Option(help="every sample that shows this person")] = None,
) -> None:
    """Take samples out for good, such as after a withdrawn consent: hidden at once, their bytes and history deleted.

    The ledger keeps their ids, as the proof that they were there and were withdrawn.
    """
    from manifests.dataset import Dataset
    from manifests.rewrite import withdraw as take_out

    dataset = Dataset(_one(folder))
    ids = [*(sample or [])]
    if asset:
        shown = dataset.filter(assets=asset).labels.table["sample_id"].to_pylist()
        if not shown and not ids:
            raise InputError(f"{dataset.url}: no sample shows {', '.join(asset)}; nothing was withdrawn")
        ids += shown
    found = take_out(dataset.url, ids, why)
    typer.echo(f"{dataset.url}: {len(found)} samples withdrawn; exports, copies and trained models are not touched")


def gc(
    folder: Place, older_than: Annotated[float, typer.Option(help="seconds; spares the work of running drivers")] = 3600
) -> None:
    """Delete older manifests, replaced shards and what crashed writers left behind."""
    from manifests import commit

    for dataset in datasets(folder):
        gone = commit.drop_history(dataset) + commit.collect_orphans(dataset, older_than)
        typer.echo(f"{dataset}: {len(gone)} files removed")


def card(folder: Place) -> None:
    """Write the dataset card and the `datasets` views again; prints the card's path."""
    from manifests import index
    from manifests.card import write_views
    from manifests.commit import newest_manifest
    from manifests.store import open_store

    for dataset in datasets(folder):
        store = open_store(dataset)
        manifest = newest_manifest(store)
        assert manifest is not None
        write_views(store, manifest, index.read(store, manifest))
        typer.echo(f"{store.url}/README.md")


def push(
    folder: Place,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="user/name on the Hugging Face Hub")],
    public: Annotated[bool, typer.Option("--public", help="a new repository is private otherwise")] = False,
    allow_restricted: Annotated[
        bool, typer.Option("--allow-restricted", help="push rows whose rights forbid redistribution, too")
    ] = False,
) -> None:
    """Upload a dataset to the Hugging Face Hub as one commit; photographs leave without EXIF."""
    from manifests.hub import push as upload

    done = upload(_one(folder), repo, not public, allow_restricted)
    typer.echo(f"{done.url}: {done.rows} rows in {done.files} files")


def export(
    folder: Place,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="sapiens-v1, sapiens2-pointmap, sapiens2-normal, synthhuman, coco-keypoints, webdataset or parquet",
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder to make; an empty one is taken")],
    split: Annotated[str | None, typer.Option(help="only train, val or test; default: a sub-folder for each")] = None,
    allow_restricted: Annotated[
        bool, typer.Option("--allow-restricted", help="export rows whose rights forbid redistribution, too")
    ] = False,
) -> None:
    """Write a dataset in the format of another project."""
    from manifests.export import export as write
    from pipeline.progress import bar

    with bar("export") as shown:
        task = shown.add_task("", total=None, note=form)
        rows = write(
            _one(folder),
            form,
            out,
            split,
            allow_restricted,
            lambda done, all_: shown.update(task, completed=done, total=all_),
        )
    typer.echo(f"{out}: {rows} rows as {form}")


def datasets(folder: str) -> list[str]:
    """The dataset folders that ``folder`` is or holds; raises InputError when there is none."""
    from manifests.store import LocalStore, open_store

    root = open_store(folder)
    place = root.root if isinstance(root, LocalStore) else None
    isfile = place is not None and place.is_file()
    found = (
        []
        if isfile
        else [p for p in (root.url, f"{root.url}/render", f"{root.url}/curate") if open_store(p).names("manifest")]
    )
    if found:
        return found
    if place is not None and (place / "job.yaml").is_file():
        raise InputError(
            f"{folder}: this run has no finished dataset: it was interrupted, or kept nothing. Give its `maquette run` again to go "
            "on; why photographs were dropped stands in the report (`maquette report`)"
        )
    missing = place is not None and not place.exists()
    what = (
        "is a file" if isfile else "no such folder" if missing else "neither a run nor a dataset (no manifest/ inside)"
    )
    raise InputError(f"{folder}: {what}; give a folder such as runs/quickstart or runs/quickstart/render")


def _one(folder: str) -> str:
    found = datasets(folder)
    if len(found) > 1:
        raise InputError(f"{folder}: holds {len(found)} datasets; name one: {' or '.join(found)}")
    return found[0]


def _view(folder: str, where: list[str] | None) -> Any:
    """The dataset, narrowed by conditions such as ``split=train``, ``people>=2`` or ``assets=files/anna``."""
    from manifests.dataset import Dataset

    view = Dataset(folder)
    for text in where or []:
        match = re.fullmatch(r"(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*)", text)
        if match is None:
            raise InputError(f"--where {text}: expected LABEL=VALUE, or one of {' '.join(COMPARE)}")
        name, sign, value = match.groups()
        table = view.labels.table
        if name not in table.column_names:
            raise InputError(f"--where {text}: no label {name}; the index has {', '.join(table.column_names)}")
        have = table[name].to_pylist()
        kind = next((type(v) for v in have if v is not None), str)
        if kind is list:
            keep = [(value in (v or [])) == (sign == "=") for v in have]
        else:
            try:
                wanted = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
            except (ValueError, KeyError):
                raise InputError(f"--where {text}: {name} holds {kind.__name__} values") from None
            keep = [v is not None and bool(COMPARE[sign](v, wanted)) for v in have]
        view = view.take([i for i, k in enumerate(keep) if k])
    return view


COMMANDS = (
    *(inspect, verify, repair, stats, diff, merge, split, filter),
    *(compact, withdraw, gc, card, push, export),
)
