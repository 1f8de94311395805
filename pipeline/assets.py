"""`maquette assets ...`: what one does with a folder of scans before a job names it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at a folder of scans.")


@app.callback()
def assets() -> None:
    """Look at a folder of scans."""


@app.command()
def sheet(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of scans")],
    out: Annotated[Path, typer.Option(help="picture to write (.jpg or .png)")] = Path("sheet.jpg"),
) -> None:
    """Draw every scan of a folder upright and to one scale, its problems in words."""
    from pipeline.preview import write
    from render import sheet as sheets

    write(out, sheets.library(folder))
    typer.echo(str(out))
