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
from pipeline import assets, curate_commands, data_commands, export_model, model_commands, people, predict_commands
from pipeline.progress import console

# What a path that a user names can be wrong by.
PLACES = (
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Maquette: 3D people and photographs to training sets, and training sets to models.",
)
app.add_typer(assets.app, name="assets")
app.add_typer(people.app, name="people")

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="job manifest (YAML)")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="run folder")]
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
def train(
    job: JobPath,
    overrides: Overrides = None,
    address: Address = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="choose accumulation and checkpointing by the GPU's memory")
    ] = False,
    prepare: Annotated[bool, typer.Option("--prepare", help="write the run folder only, for torchrun")] = False,
) -> None:
    """Pre-train, fine-tune and evaluate: the training stages of a job."""
    from pipeline import road

    checked = jobs.load(job, overrides)
    if fit:
        checked = road.fitting(checked)
    if prepare:
        folder = road.prepare(checked, job.resolve().parent)
        typer.echo(f"torchrun --nproc-per-node gpu -m training {folder}")
        return
    stages = [s for s in ("pretrain", "finetune", "evaluate") if getattr(checked, s)]
    if not stages:
        raise JobError(f"job {checked.name}: no training section; give pretrain, finetune or evaluate")
    for stage in stages:
        code = road.drive(checked, job.resolve().parent, stage, address)
        if code:
            raise typer.Exit(code)


@app.command()
def sweep(job: JobPath, overrides: Overrides = None, address: Address = None) -> None:
    """Run a job's scaling study: data size x model size x source x seeds in parallel, fitted; the same command goes on."""
    from pipeline import sweep as study

    raise typer.Exit(study.sweep(jobs.load(job, overrides), job.resolve().parent, address))


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


for command in (
    *curate_commands.COMMANDS,
    *data_commands.COMMANDS,
    *model_commands.COMMANDS,
    *predict_commands.COMMANDS,
    *export_model.COMMANDS,
):
    app.command()(command)


def main() -> None:
    """Entry point: runs the command that the process was started with and ends with its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    code = execute(sys.argv[1:])
    sys.stdout.flush()
    # bpy and Ray may crash while the interpreter shuts down, long after the work is safe on disk.
    sys.stderr.flush()
    os._exit(code)


def execute(arguments: list[str]) -> int:
    """Run `maquette ARGUMENTS`, turn every error a user can cause into one paragraph, and return the exit code."""
    try:
        code = app(arguments, standalone_mode=False)
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
        elif error.errno in PLACES and error.filename:
            _say(f"{error.filename}: {error.strerror}; give another path, or mend this one. Finished work is kept.")
            code = BAD_JOB
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
    return code if isinstance(code, int) else (DONE if code is None else FAILURES)


def _say(message: str) -> None:
    console.print(f"[red]maquette:[/red] {escape(message)}", soft_wrap=True)


if __name__ == "__main__":
    main()
