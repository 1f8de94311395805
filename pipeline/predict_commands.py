"""`maquette predict`: words on a command line -> models loaded, photographs or videos predicted, an exit code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from manifests.errors import InputError, PhotoError

WHOLE = "none"


def predict(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="a fine-tune's model.safetensors, or a run: all its fine-tunes")
    ],
    source: Annotated[Path, typer.Argument(metavar="PHOTO|FOLDER|VIDEO", help="what to look at")],
    out: Annotated[Path, typer.Option(help="folder of results, one below it for each input")] = Path("predicted"),
    also: Annotated[list[Path] | None, typer.Option(help="a further checkpoint, of another task")] = None,
    detector: Annotated[
        str,
        typer.Option(help="ONNX weights of a person detector; `face`: OpenCV's cascade, weak; `none`: whole pictures"),
    ] = "face",
    layout: Annotated[str, typer.Option(help="head of the ONNX detector, as in a job's curate.detector")] = "yolox",
    score: Annotated[float, typer.Option(min=0, max=1, help="least score of a person's box")] = 0.5,
    batch: Annotated[int, typer.Option(min=1, help="people looked at together")] = 8,
    height_m: Annotated[float, typer.Option(help="height of people; what metres rest on")] = 1.7,
    distance_m: Annotated[float | None, typer.Option(help="distance of people, where known; wins over height")] = None,
    focal_px: Annotated[float | None, typer.Option(help="focal length; default: EXIF, else assumed and said")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="larger pictures are refused")] = 50_000_000,
    relight: Annotated[
        str | None, typer.Option(metavar="X,Y,Z", help="also light people from there: x right, y down, z away")
    ] = None,
    turn: Annotated[
        float | None, typer.Option(metavar="DEG", help="also show people from so far left and right")
    ] = None,
    background: Annotated[Path | None, typer.Option(help="also put people before this picture")] = None,
    device: Annotated[str, typer.Option(help="auto or cpu")] = "auto",
) -> None:
    """Find people, predict each with fine-tuned models, and paste the maps back into the picture's own pixels."""
    from curation.detectors import PersonDetector
    from manifests import photo
    from manifests.curation import Detector
    from pipeline import predict as work
    from pipeline.metric import Size
    from pipeline.predict_write import Looks
    from training.predictor import Predictor

    behind = None
    if background is not None:
        try:
            behind = photo.decode(background.read_bytes())[0]
        except (OSError, PhotoError) as error:
            raise InputError(f"--background {background}: {error}; give a photograph") from None
    looks = Looks(_direction(relight), turn, behind)
    paths = [p for given in (checkpoint, *(also or [])) for p in checkpoints(given)]
    models = [Predictor(p, device) for p in paths]
    have = {t for m in models for t in m.tasks}
    if "pointmap" in have:
        have.add("depth")
    for flag, needs in looks.needs().items():
        if needs - have:
            raise InputError(f"{flag}: needs a model of {' and of '.join(sorted(needs - have))}; add one with --also")
    found = None
    if detector != WHOLE:
        kind = "face" if detector == "face" else "onnx"
        weights = None if kind == "face" else str(Path(detector).resolve())
        found = PersonDetector(Detector(kind=kind, weights=weights, layout=layout), Path.cwd())
    wanted = work.Wanted(
        score=score, batch=batch, max_pixels=max_pixels, focal_px=focal_px, size=Size(height_m, distance_m), looks=looks
    )
    told = {
        "models": [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths],
        "detector": found.weights_sha256 if found else WHOLE,
        "background": hashlib.sha256(background.read_bytes()).hexdigest() if background else None,
        "flags": [score, height_m, distance_m, focal_px, relight, turn, layout],
    }
    again = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    raise typer.Exit(work.predict(source, out, work.Eye(models, found, wanted), again))


def checkpoints(given: Path) -> list[Path]:
    """The file itself; of a run or a fine-tune's folder, the final weights in it. Raises InputError."""
    if not given.is_dir():
        return [given]
    found = [p for p in (given / "model.safetensors",) if p.is_file()]
    found = found or sorted((given / "finetune").glob("*/model.safetensors"))
    if not found:
        raise InputError(
            f"{given}: no fine-tuned model here; give a model.safetensors, or a run whose fine-tunes are done"
        )
    return found


def _direction(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        x, y, z = (float(v) for v in text.split(","))
    except ValueError:
        raise InputError(f"--relight {text}: expected three numbers such as -1,-1,-1 (left, above, before)") from None
    if x == y == z == 0:
        raise InputError("--relight 0,0,0: a direction has a length")
    return x, y, z


COMMANDS = (predict,)
