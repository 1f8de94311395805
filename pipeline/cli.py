"""The `maquette` command: words on a command line -> stages run, an exit code, and one clear paragraph when
something is wrong.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from manifests import job as jobs
from manifests.errors import BAD_JOB, DONE, FAILURES, INTERRUPTED, STORAGE, InputError, JobError, MaquetteError
from pipeline import assets
from pipeline.progress import console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Maquette: 3D people and photographs to training sets, and training sets to models.",
)
app.add_typer(assets.app, name="assets")

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="job manifest (YAML)")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="run folder or dataset folder")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="override a field: render.samples=8")
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join, such as `auto`; default: a local one")]
Only = Annotated[str | None, typer.Option(help="one stage: render, curate, pretrain, finetune, evaluate or report")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="try failed samples again")]


@app.command()
def run(
    job: JobPath, overrides: Overrides = None, only: Only = None, address: Address = None, retry_failed: Retry = False
) -> None:
    """Run a job; the same command again goes on where it stopped."""
    from pipeline import road

    checked = jobs.load(job, overrides)
    code = road.drive(checked, job.resolve().parent, only, address, retry_failed)
    raise typer.Exit(code)


@app.command()
def render(
    job: JobPath,
    overrides: Overrides = None,
    address: Address = None,
    retry_failed: Retry = False,
    engine: Annotated[str, typer.Option(help="cycles, or raster: quick previews into RUN/preview")] = "cycles",
    count: Annotated[int, typer.Option(help="samples that raster draws")] = 12,
) -> None:
    """Short for `run JOB --only render`; with --engine raster draw framings in seconds, and no dataset."""
    if engine == "raster":
        from pipeline.preview import preview

        typer.echo(str(preview(jobs.load(job, overrides), job.resolve().parent, count)))
    elif engine == "cycles":
        run(job, overrides, "render", address, retry_failed)
    else:
        raise InputError(f"--engine {engine}: expected cycles or raster")


@app.command()
def curate(job: JobPath, overrides: Overrides = None, address: Address = None) -> None:
    """Short for `run JOB --only curate`."""
    run(job, overrides, "curate", address)


@app.command()
def train(job: JobPath, overrides: Overrides = None) -> None:
    """Pre-train, fine-tune and evaluate: the training stages of a job."""
    for stage in ("pretrain", "finetune", "evaluate"):
        try:
            run(job, overrides, stage)
        except typer.Exit as finished:
            if finished.exit_code:
                raise


@app.command()
def plan(job: JobPath, overrides: Overrides = None) -> None:
    """Print what would run, with counts, bytes and time, and run nothing."""
    from pipeline import estimate

    estimate.show(jobs.load(job, overrides), job.resolve().parent)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job manifest, for editors."""
    typer.echo(json.dumps(jobs.Job.model_json_schema(), indent=2))


@app.command()
def verify(folder: Folder) -> None:
    """Re-read every byte of a run's datasets: checksums, counts, geometry."""
    from manifests import verify as checks

    bad = 0
    for dataset in datasets(folder):
        problems = checks.verify(dataset)
        bad += len(problems)
        for problem in problems:
            typer.echo(f"{dataset}: {problem}")
        typer.echo(f"{dataset}: {'sound' if not problems else f'{len(problems)} problems'}")
    raise typer.Exit(STORAGE if bad else DONE)


@app.command()
def inspect(
    folder: Folder,
    row: Annotated[list[int] | None, typer.Option(help="write these rows as PNG")] = None,
    out: Annotated[Path, typer.Option(help="folder for the PNGs")] = Path("."),
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet of rendered rows (.jpg or .png)")] = None,
) -> None:
    """Print counts, fields and rights; --row writes rows as PNG, --sheet many of them on one picture."""
    from manifests import codecs, view
    from manifests.dataset import Dataset

    for dataset in datasets(folder):
        typer.echo(f"{dataset}\n" + json.dumps(view.summary(dataset), indent=2, default=str))
        opened = Dataset(dataset)
        if sheet and opened.kind == "rendered":
            picture = view.contact_sheet(opened, row or view.spread(opened.labels, 12))
            sheet.write_bytes(codecs.encode_image(picture, "png" if sheet.suffix == ".png" else "jpeg"))
            typer.echo(str(sheet))
        elif row:
            out.mkdir(parents=True, exist_ok=True)
            for i in row:
                if not 0 <= i < len(opened):
                    raise InputError(f"row {i}: {dataset} has rows 0 to {len(opened) - 1}")
                path = out / f"{dataset.name}-{i:06d}.png"
                path.write_bytes(view.row_png(opened[i]))
                typer.echo(str(path))


@app.command()
def export(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="dataset folder, or run folder that holds one")],
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

    found = datasets(dataset)
    if len(found) > 1:
        raise InputError(f"{dataset}: holds {len(found)} datasets; name one: {' or '.join(str(f) for f in found)}")
    with bar("export") as shown:
        task = shown.add_task("", total=None, note=form)
        rows = write(
            found[0],
            form,
            out,
            split,
            allow_restricted,
            lambda done, all_: shown.update(task, completed=done, total=all_),
        )
    typer.echo(f"{out}: {rows} rows as {form}")


@app.command()
def report(folder: Folder) -> None:
    """Build report/index.html of a run again."""
    from pipeline import report as pages

    if not (folder / "job.yaml").is_file():
        raise InputError(f"{folder}: no job.yaml here; give a run folder, such as runs/quickstart")
    typer.echo(str(pages.build(folder)))


@app.command()
def doctor() -> None:
    """Check this machine: Python, libraries, disk, memory, cores, GPU, weights and caches."""
    from pipeline import doctor as checks

    raise typer.Exit(checks.main([]))


def datasets(folder: Path) -> list[Path]:
    """The dataset folders that ``folder`` is or holds; raises InputError when there is none."""
    candidates = [folder, folder / "render", folder / "curate"]
    found = [f for f in candidates if (f / "manifest").is_dir()]
    if not found:
        what = "no such folder" if not folder.exists() else "neither a run nor a dataset (no manifest/ inside)"
        raise InputError(f"{folder}: {what}; give a folder such as runs/quickstart or runs/quickstart/render")
    return found


def main() -> None:
    """Entry point: runs a command and turns every error a user can cause into one paragraph and its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = app(standalone_mode=False)
    except typer.Exit as finished:
        code = finished.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except JobError as error:
        _say("the job cannot run:\n" + "\n".join(f"  {p}" for p in error.problems))
        code = error.exit_code
    except MaquetteError as error:
        _say(str(error))
        code = error.exit_code
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            _say(
                f"storage: {error.strerror} ({error.filename or 'while writing'}); finished work is kept. "
                "Free space and give the same command again."
            )
            code = STORAGE
        else:
            raise
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            _say(f"{error.format_message()} See `maquette --help`.")
            code = BAD_JOB
        else:
            raise
    if code == INTERRUPTED:
        # Typer turns Ctrl-C into this code on some paths and into Abort on others.
        _say("interrupted; finished work is kept. Give the same command again to go on.")
    sys.stdout.flush()
    # bpy and Ray may crash while the interpreter shuts down, long after the work is safe on disk.
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else (DONE if code is None else FAILURES))


def _say(message: str) -> None:
    console.print(f"[red]maquette:[/red] {escape(message)}", soft_wrap=True)


if __name__ == "__main__":
    main()
