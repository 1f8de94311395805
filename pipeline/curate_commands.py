"""The commands of curation: other policies, audits, heads from labelled folders, and detectors' maps from labelled boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from manifests.errors import InputError, JobError, PhotoError

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="run folder, or its curate/ folder")]
Folds = Annotated[int, typer.Option(min=2, help="the report judges each picture by a map fitted on the others' folds")]


def decide(
    folder: RunFolder,
    policy: Annotated[Path, typer.Option(help="YAML with rules of the job's curate section, such as min_score: 0.8")],
    out: Annotated[
        Path | None, typer.Option(help="table to write; default: RUN/curate/decisions/POLICY.parquet")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="also write what is kept, with its weights, as a dataset of its own")
    ] = None,
) -> None:
    """Decide again from stored scores, without pixels: a million photographs in seconds."""
    from curation.decide import decide as by
    from curation.decide import funnel, read_tombstones
    from curation.rules import absent
    from pipeline.curate import apart, buried, load, load_alike
    from pipeline.measuring import write

    stage = folder / "curate" if (folder / "curate").is_dir() else folder
    rules = read_policy(policy)
    table, pairs = load(stage)
    started = time.perf_counter()
    dead = read_tombstones(policy.parent / rules.tombstones if rules.tombstones else None)
    if dataset is not None:
        dead |= buried(stage)
    decisions = by(table, rules, pairs, dead, load_alike(stage))
    path = out or stage / "decisions" / f"{policy.stem}.parquet"
    write(path, decisions, synced=False)
    for rule, came, went in funnel(decisions):
        if came != went:
            typer.echo(f"  {rule:<12} {came:>10} -> {went}")
    for rule, field in absent(decisions).items():
        typer.echo(f"  {rule:<12} skipped: measured without a model for it (curate.{field})")
    kept = funnel(decisions)[-1][2]
    typer.echo(f"{path}: {kept} of {len(decisions)} kept, decided in {time.perf_counter() - started:.1f} s")
    if dataset is not None:
        typer.echo(f"{dataset}: {apart(stage.resolve(), dataset.resolve(), rules, decisions)} photographs")


def read_policy(path: Path) -> Any:
    """A checked Policy from YAML. Raises InputError, JobError."""
    import pydantic

    from manifests.curation import Policy
    from manifests.model import read_yaml

    try:
        tree = read_yaml(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--policy {path}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise JobError(f"--policy {path}: expected rules such as min_score: 0.8, got {type(tree).__name__}")
    try:
        return Policy.model_validate(tree)
    except pydantic.ValidationError as error:
        known = ", ".join(Policy.model_fields)
        raise JobError(
            [
                f"--policy {path}: {'.'.join(map(str, e['loc'])) or 'policy'}: "
                + (f"unknown rule; known: {known}" if e["type"] == "extra_forbidden" else e["msg"])
                for e in error.errors()
            ]
        ) from None


def audit(
    folder: RunFolder,
    labels: Annotated[
        Path | None, typer.Option(help="file that the audit page saved: prints precision by reason")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="pictures of each reason, and of the kept")] = 40,
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
) -> None:
    """Write RUN/report/audit.html to label in a browser; with --labels, read what it saved into the run's report."""
    import json

    from pipeline import audit as sheets
    from pipeline.report_curate import read_decisions

    stage = folder / "curate" if (folder / "curate").is_dir() else folder
    decisions = read_decisions(stage)
    if decisions is None or not len(decisions):
        raise InputError(f"{folder}: no decisions here; run `maquette curate` on its job first")
    if labels is None:
        typer.echo(str(sheets.sheet(stage.parent, decisions, count, seed)))
        return
    found = sheets.read_labels(labels, decisions)
    (stage / sheets.RESULT).write_text(json.dumps(found, indent=1) + "\n")
    for r in found["reasons"]:
        n = r["right"] + r["wrong"]
        said = f"{r['precision']:.3f}  (95 %: {r['low']:.3f} to {r['high']:.3f}; n {n})" if n else "nobody was sure"
        typer.echo(f"  {r['reason']:<16} {said}")
    typer.echo(f"{stage / sheets.RESULT}: {found['labelled']} labels; `maquette report` shows them")


def head(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="a folder for each label, named as the label")],
    embedding: Annotated[str, typer.Option(help="transformers folder or hub id, or a checkpoint of `pretrain`")],
    out: Annotated[Path, typer.Option(help="head to write, for curate.heads.NAME.weights")],
    counts: Annotated[str, typer.Option(help="labels that score, comma-separated, such as painting,render")],
    kind: Annotated[str, typer.Option(help="transformers, or encoder for a checkpoint of `pretrain`")] = "transformers",
    seed: Annotated[int, typer.Option(help="of the folds")] = 0,
) -> None:
    """Fit a head on labelled folders: artistic, nsfw, watermark or whatever the folders tell apart."""
    import json

    from curation.heads import fit
    from curation.scoring import wilson
    from manifests.curation import Embedding
    from manifests.photo import decode
    from pipeline.embedders import EMBEDDERS
    from pipeline.progress import bar

    if kind not in EMBEDDERS:
        raise InputError(f"--kind {kind}: expected {' or '.join(EMBEDDERS)}")
    files = [(p, p.parent.name) for p in sorted(photos.glob("*/*")) if p.is_file()]
    counted = [n.strip() for n in counts.split(",") if n.strip()]
    unknown = sorted(set(counted) - {n for _, n in files})
    if unknown or not counted:
        raise InputError(f"--counts {counts}: {', '.join(unknown) or 'nothing'} is no folder of {photos} with pictures")
    model = EMBEDDERS[kind](Embedding(kind=kind, weights=embedding), Path.cwd())
    prepared = []
    with bar("embed") as progress:
        shown = progress.add_task("", total=len(files), note="")
        for path, _ in files:
            try:
                prepared.append(model.prepare(decode(path.read_bytes())[0]))
            except PhotoError as error:
                raise InputError(f"{path}: {error.message}; take it out of the folder") from None
            progress.update(shown, advance=1)
    found, rates = fit(model.embed(prepared), [name for _, name in files], seed)
    found |= {"counted": counted, "embedding": model.name, "embedding_sha256": model.weights_sha256}
    try:
        out.write_text(json.dumps(found) + "\n")
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; give another place") from None
    for name, right, of in rates:
        rate, low, high = wilson(right, of)
        typer.echo(f"  {name:<20} {rate:.3f} right when held out  (95 %: {low:.3f} to {high:.3f}; n {of})")
    typer.echo(f"{out}: {len(files)} pictures, {len(rates)} labels; {', '.join(counted)} score")


def calibrate(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="folder with index.json, or a COCO annotation file")],
    weights: Annotated[str, typer.Option(help="ONNX file, or transformers folder or hub id")],
    kind: Annotated[str, typer.Option(help="onnx or transformers")] = "onnx",
    layout: Annotated[str, typer.Option(help="head of an ONNX file: yolox, picodet, nanodet, detr, ...")] = "yolox",
    looks: Annotated[int, typer.Option(min=1, max=2, help="as the job's detector.looks")] = 2,
    out: Annotated[Path | None, typer.Option(help="map to write; default: WEIGHTS.calibration.json")] = None,
    report: Annotated[bool, typer.Option("--report", help="rates on held-out pictures, with 95 % intervals")] = False,
    folds: Folds = 5,
    seed: Annotated[int, typer.Option(help="of the split and the resampling")] = 0,
) -> None:
    """Fit the map from a detector's own scores to calibrated ones, on photographs whose people are all marked."""
    from curation import calibration
    from curation.detectors import PersonDetector

    try:
        settings = _settings(kind, weights, layout, looks)
        detector = PersonDetector(settings, Path.cwd(), calibrated=False)
        judged = judge_all(detector, photos)
        if report:
            for line in report_lines(judged, detector, folds, seed):
                typer.echo(line)
        found = calibration.fit(judged, detector.weights_sha256, detector.name, detector.looks, seed)
        path = out or Path(f"{weights}.calibration.json")
        calibration.save(found, path)
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; give another place with --out") from None
    raw, low, high = found.raw_at(0.9)
    typer.echo(
        f"{path}: {found.boxes} boxes on {found.pictures} pictures, {found.people} people, {found.family} map; "
        f"0.9 is raw {raw:.3f} (95 %: {low:.3f} to {high:.3f})"
    )


def _settings(kind: str, weights: str, layout: str, looks: int) -> Any:
    from manifests.curation import Detector

    if kind not in ("onnx", "transformers"):
        raise InputError(f"--kind {kind}: expected onnx or transformers; a weak detector has no score to calibrate")
    return Detector(kind=kind, weights=weights, layout=layout, looks=looks)


def judge_all(detector: Any, photos: Path) -> list[Any]:
    """A Judged for each labelled photograph, in the order of the labels."""
    import numpy as np

    from curation.scoring import judge, labelled
    from manifests.photo import decode
    from pipeline.progress import bar

    found = []
    with bar("calibrate") as progress:
        entries = labelled(photos)
        shown = progress.add_task("", total=len(entries), note="")
        for entry in entries:
            try:
                rgb, _ = decode(entry.path.read_bytes())
            except PhotoError as error:
                raise InputError(f"{entry.path}: {error.message}; take it out of the labels") from None
            boxes = detector.detect([rgb])[0]
            corners = np.array([b.xyxy for b in boxes], float).reshape(-1, 4)
            found.append(judge(corners, np.array([b.raw for b in boxes], float), entry.boxes))
            progress.update(shown, advance=1)
    return found


def report_lines(judged: Sequence[Any], detector: Any, folds: int, seed: int) -> list[str]:
    """What a map is worth on pictures that it was not fitted on: one line a rate, each with its 95 % interval.

    Pictures are dealt to ``folds`` by ``seed``; each is judged by the map of the other folds.
    """
    import numpy as np

    from curation import calibration
    from curation.decide import side
    from curation.scoring import over_pictures, wilson
    from curation.stage import READINGS
    from manifests.seeds import generator

    order = generator("calibration", seed, "split").permutation(len(judged))
    held, sure = [], []
    for k in range(folds):
        apart = set(order[k::folds].tolist())
        train = [j for i, j in enumerate(judged) if i not in apart]
        fitted = calibration.fit(train, detector.weights_sha256, detector.name, detector.looks, seed)
        held += [judged[i] for i in sorted(apart)]
        sure += [fitted(judged[i].raw) > 0.9 for i in sorted(apart)]
    lines = [
        f"{detector.name}: {len(held)} pictures, each judged by a map fitted on {folds - 1} of {folds} parts (seed {seed})"
    ]

    def line(name: str, rate: tuple[float, float, float], n: int) -> None:
        lines.append(f"  {name:<44} {rate[0]:.3f}  (95 %: {rate[1]:.3f} to {rate[2]:.3f}; n {n})")

    people = np.array([j.people > 0 for j in held])
    seen = np.array([bool(s.any()) for s in sure])
    line("recall of person images, rule off", wilson(int((seen & people).sum()), int(people.sum())), int(people.sum()))
    line("precision of person images, rule off", wilson(int((seen & people).sum()), int(seen.sum())), int(seen.sum()))
    hits, n = [int(j.right[s].sum()) for j, s in zip(held, sure)], [int(s.sum()) for s in sure]
    line("precision of boxes above calibrated 0.9", over_pictures(hits, n, seed), sum(n))
    raw = [int((j.raw > 0.9).any()) for j in held if j.people]
    line("recall of person images at raw 0.9", wilson(sum(raw), len(raw)), len(raw))
    for reading in READINGS:
        truth = np.array([bool((side(j.truth, reading) > 300).any()) for j in held])
        found = np.array([bool((s & (side(j.corners, reading) > 300)).any()) for j, s in zip(held, sure)])
        both = int((truth & found).sum())
        line(f"{reading} > 300 px: recall", wilson(both, int(truth.sum())), int(truth.sum()))
        line(f"{reading} > 300 px: precision", wilson(both, int(found.sum())), int(found.sum()))
        line(f"{reading} > 300 px: share kept", wilson(int(found.sum()), len(held)), len(held))
    return lines


COMMANDS = (decide, audit, head, calibrate)
