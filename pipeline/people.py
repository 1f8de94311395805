"""`maquette people`: parametric people written as files, without a render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manifests.errors import DONE, FAILURES, InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make parametric people as files.")
SHEET = 60


@app.callback()
def _group() -> None:
    """Keeps `make` a word of its own while it is the only one."""


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="folder for the files; the same command again goes on")],
    count: Annotated[int, typer.Option(min=1, help="people")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="who they are; the same seed makes the same people")] = 0,
    job: Annotated[Path | None, typer.Option(help="job manifest whose anny asset says how people are drawn")] = None,
    sheet: Annotated[bool, typer.Option(help=f"draw the first {SHEET} into OUT/sheet.jpg")] = True,
) -> None:
    """Write people as GLB scans with keypoints, parts, bones and traits beside them; CC0, free to pass on."""
    from manifests import job as jobs
    from manifests.assets import AnnySource
    from pipeline.progress import bar, console
    from render.people.make import make as made

    source = AnnySource(count=count)
    if job is not None:
        render = jobs.load(job).render
        found = [a for a in (render.assets if render else []) if isinstance(a, AnnySource)]
        if not found:
            raise InputError(f"{job}: no asset of source anny in it; add one under render.assets, or leave --job out")
        source = found[0].model_copy(update={"count": count})
    failed = []
    with bar("people") as progress:
        task = progress.add_task("", total=count, note="")
        for identity_id, why in made(source, seed, out):
            progress.update(task, advance=1, note=identity_id)
            if why is not None:
                failed.append(identity_id)
                console.print(f"{identity_id}: {why}", markup=False, soft_wrap=True)
    if sheet:
        from pipeline.preview import write
        from render import sheet as sheets

        write(out / "sheet.jpg", sheets.library(out.resolve(), most=SHEET))
    typer.echo(f"{out}: {count - len(failed)} of {count} people")
    raise typer.Exit(FAILURES if failed else DONE)
