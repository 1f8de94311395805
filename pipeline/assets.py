"""`maquette assets`: libraries of scans looked through before a job is written for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from manifests.errors import DONE, FAILURES, InputError, StorageError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look through libraries of 3D people.")

Library = Annotated[Path, typer.Argument(metavar="DIR", help="folder that holds the scans")]
Out = Annotated[Path, typer.Option(help="folder for assets.arrow")]


@app.command()
def scan(
    folder: Library,
    out: Out = Path("."),
    unit: Annotated[str, typer.Option(help="m, cm, mm or inch, for all; else as declared, or guessed")] = "auto",
    up: Annotated[str, typer.Option(help="x, y, z, -x, -y or -z, for all; else as declared, or guessed")] = "auto",
    fits: Annotated[
        Path | None, typer.Option(help="THuman's SMPL-X fits, NNNN/smplx_param.pkl; else looked for")
    ] = None,
    missing_colour: Annotated[str, typer.Option(help="skip or grey: assets whose colour is missing")] = "skip",
    licence: Annotated[str | None, typer.Option(help="SPDX id of all assets")] = None,
    consent: Annotated[str | None, typer.Option(help="what the people shown agreed to")] = None,
    redistributable: Annotated[bool, typer.Option(help="pictures made of them may be passed on")] = False,
) -> None:
    """Measure every scan under DIR into OUT/assets.arrow; exit 1 when some cannot be used."""
    import pydantic

    from render.assets import library

    said: dict[str, Any] = {
        "unit": unit,
        "up": up,
        "missing_colour": missing_colour,
        "licence": licence,
        "consent": consent,
    }
    said["fits"] = None if fits is None else str(fits.resolve())
    settings = {k: v for k, v in said.items() if v is not None} | {"redistributable": redistributable}
    rows = []
    try:
        for row in library.scan(folder.resolve(), settings):
            rows.append(row)
            _progress(len(rows), row)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][-1]} {first.get('input')}: {first['msg'].lower()}") from None
    library.write(rows, out / "assets.arrow")
    _show(rows, out / "assets.arrow")
    raise typer.Exit(DONE if all(r["usable"] for r in rows) else FAILURES)


@app.command()
def repair(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="scans: OBJ, PLY, or GLB without a rig")],
    out: Annotated[Path, typer.Option(help="folder for the repaired copies; theirs stay as they are")],
) -> None:
    """Fill small holes, drop doubled and flat triangles, turn inverted ones; say what was changed in each file."""
    from render.assets.repair import repair_file

    for path in files:
        try:
            changes = repair_file(path, out)
        except OSError as error:
            raise StorageError(f"{out / path.name}: {error.strerror or error}; give another folder") from None
        typer.echo(f"{out / path.name}: {', '.join(map(str, changes)) or 'nothing to change'}")


@app.command()
def sheet(
    folder: Library,
    out: Annotated[Path, typer.Option(help="picture to write (.jpg or .png)")] = Path("sheet.jpg"),
) -> None:
    """Draw every scan under DIR upright and to one scale, its problems in words."""
    from pipeline.preview import write
    from render import sheet as sheets

    write(out, sheets.library(folder.resolve()))
    typer.echo(str(out))


def _progress(count: int, row: dict[str, Any]) -> None:
    from pipeline.progress import console

    if console.is_terminal:
        console.print(f"{count}  {row['asset_id']}", markup=False, highlight=False)


def _show(rows: list[dict[str, Any]], path: Path) -> None:
    """A table of all assets, red where one is skipped, then each problem with its mend."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from pipeline.progress import console
    from render.assets.defects import Problem

    table = Table("asset", "height", "unit", "up", "triangles", "textures", "closed", "rig", box=SIMPLE, padding=0)
    table.columns[0].overflow = "fold"
    for row in rows:
        cells = [
            row["asset_id"],
            f"{row['height_m']:.3f} m" if row["height_m"] is not None else "-",
            _short(row["unit"]),
            _short(row["up"]),
            f"{row['triangles']:,}" if row["triangles"] is not None else "-",
            str(row["textures"]) if row["textures"] is not None else "-",
            {True: "yes", False: "no", None: "-"}[row["watertight"]],
            f"{row['bones']} bones" if row["bones"] else "-",
        ]
        # Names come from files: Text, so that none is read as markup.
        table.add_row(*(Text(c) for c in cells), style=None if row["usable"] else "red")
    console.print(table)
    for row in rows:
        for problem in row["problems"]:
            word = "skipped" if problem["bars"] else "note"
            line = f"{row['asset_id']}: {word}: {problem['code']}: {Problem(**problem).text}"
            console.print(Text(line), soft_wrap=True)
    good = sum(r["usable"] for r in rows)
    console.print(Text(f"{good} of {len(rows)} assets can be used (? = guessed); {path}"), soft_wrap=True)


def _short(said: str | None) -> str:
    """A unit or axis without its origin, a question mark standing for a guess."""
    return "-" if said is None else said.split(" (")[0] + ("?" if said.endswith("(guessed)") else "")
