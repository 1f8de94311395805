"""Share of overlaid text, sketches, cartoons and marked sites that the filters without a large model find, and what they
cost in clean photographs. Every picture is judged by an ensemble that was fitted on other photographs (five folds).

    python benchmarks/curation_filters.py --photos ../shared/photos/img [--text ../shared/weights/ch_PP-OCRv3_det_infer.onnx]
    python benchmarks/curation_filters.py --photos ... --text ... --fit      # also writes curation/maps/*.json
    python benchmarks/curation_filters.py --photos ... --sites 40            # source-level watermarks as well

The last line is the smallest of found / mark over what issue 9 names (90 % of captions and banners at 5 % false alarms,
90 % of sketches and 50 % of cartoons at 1 %). Predicted before the first run: 1.0 with text weights, 0.8 by pixels alone.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

# benchmarks/curation.py would stand in for the package, and this folder's scripts are no modules.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))
from curation import overlay, style, trees, watermark
from curation.scoring import wilson
from tests import overlays

FOLDS, TREES = 5, 150
Draw = Callable[[np.ndarray, int], np.ndarray]
CLEAN: dict[str, Draw] = {
    "clean": lambda p, i: p,
    "clean, mirrored": lambda p, i: np.ascontiguousarray(p[:, ::-1]),
    "clean, cut": overlays.again,
    "clean, cut again": lambda p, i: overlays.again(p, i + 500),
    "clean, before a backdrop": overlays.studio,
}
# Its maker turned it to a pencil drawing and signed it: for style no clean photograph.
DRAWING = "000000006614.jpg"


def judged(photos: list[np.ndarray], find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], kinds: dict[str, Draw],
           truth: bool) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Features of every candidate place, whether it is what is looked for, and its photograph and kind."""
    x, y, photo, kind = [], [], [], []
    for k, (name, draw) in enumerate((CLEAN | kinds).items()):
        for i, picture in enumerate(photos):
            made = draw(picture, i + 1000 * k)
            features, boxes = find(made)
            right = np.full(len(features), name not in CLEAN)
            if truth and name not in CLEAN:
                changed = overlay.small(abs(made.astype(int) - picture.astype(int)).astype(np.uint8)).max(axis=2) > 24
                right = np.array(
                    [changed[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean() > 0.22 for b in boxes], bool
                )
            x.append(features)
            y.append(right)
            photo += [i] * len(features)
            kind += [k] * len(features)
    return np.concatenate(x), np.concatenate(y), np.array(photo), np.array(kind)


def report(title: str, names: tuple[str, ...], data: tuple[np.ndarray, ...], kinds: dict[str, Draw], photos: int,
           alarms: float, fit: Path | None) -> dict[str, float]:  # fmt: skip
    """Print the rates at ``alarms`` false alarms by folds; ``fit``: where the ensemble of all photographs goes."""
    x, y, photo, kind = data
    held = np.zeros(len(x))
    for fold in range(FOLDS):
        inside = photo % FOLDS != fold
        held[~inside] = trees.fit(x[inside], y[inside], names, TREES)(x[~inside])
    best = np.zeros((len(CLEAN) + len(kinds), photos))
    np.maximum.at(best, (kind, photo), held)
    clean = np.sort(best[: len(CLEAN)].ravel())[::-1]
    # Neither the changed photographs nor those as they are may pass the share.
    threshold = max(clean[int(alarms * len(clean))], np.sort(best[0])[::-1][int(alarms * photos)])
    real = int((best[0] > threshold).sum())
    print(
        f"{title}: threshold {threshold:.3f}; false alarms {100 * alarms:g} % of {len(clean)}, {real} of {photos} as they are"
    )
    found = {}
    for k, name in enumerate(kinds, len(CLEAN)):
        hits = int((best[k] > threshold).sum())
        rate, low, high = wilson(hits, photos)
        found[name] = rate
        print(f"  {name:<12} {rate:.3f}  (95 %: {low:.3f} to {high:.3f}; n {photos})")
    if fit is not None:
        whole = trees.fit(x, y, names, TREES)
        # 0.5 stands where the folds put the allowed share of clean photographs.
        shift = np.log(threshold / (1 - threshold))
        trees.save(dataclasses.replace(whole, start=whole.start - float(shift)), fit)
        print(f"  written: {fit}")
    return found


def sites(photos: list[np.ndarray], draws: int) -> tuple[float, float]:
    """The largest score of clean sites and the smallest of marked ones."""
    rng = np.random.default_rng(1)

    def score(pictures: list[np.ndarray]) -> watermark.Stamp:
        return watermark.stamped([watermark.prepare(overlays.jpeg(p, rng, 80)) for p in pictures])

    clean = [score(overlays.site(photos, seed, seed % 2 == 0)).score for seed in range(draws)]
    print(f"sites: {draws} clean draws of 64, largest score {max(clean):.2f}")
    marked = {}
    for relative in (False, True):
        for layout in ("tiled", "centred", "corner"):
            for alpha in (0.1, 0.2, 0.35):
                pictures = [overlays.mark(p, layout, alpha, relative) for p in overlays.site(photos, 100)]
                found = score(pictures)
                marked[layout, alpha, relative] = found.score
                print(
                    f"  {layout:<8} alpha {alpha:<4} {'of the width' if relative else 'in px':<13} {found.score:.2f} ({found.where})"
                )
    return max(clean), min(marked.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--only", help="drawn, overlay_runs or overlay_boxes")
    parser.add_argument("--sites", type=int, default=0, help="clean draws of 64 pictures")
    args = parser.parse_args()
    named = {p.name: cv2.imread(str(p))[..., ::-1].copy() for p in sorted(args.photos.glob("*.jpg"))}
    photos = list(named.values())
    n, maps = len(photos), trees.BUNDLED
    marks: dict[str, float] = {}
    if args.only in (None, "drawn"):
        drawn = overlays.SKETCHES | overlays.CARTOONS
        taken = [p for name, p in named.items() if name != DRAWING]
        data = judged(taken, lambda p: (style.features(p)[None], np.zeros((1, 4))), drawn, False)
        found = report("drawn", style.NAMES, data, drawn, len(taken), 0.01, maps / "drawn.json" if args.fit else None)
        marks["sketches"] = float(np.mean([found[k] for k in overlays.SKETCHES])) / 0.9
        marks["cartoons"] = float(np.mean([found[k] for k in overlays.CARTOONS])) / 0.5
    for name, weights, names in (("overlay_runs", None, overlay.RUN), ("overlay_boxes", args.text, overlay.BOX)):
        if args.only not in (None, name) or (name == "overlay_boxes" and weights is None):
            continue
        find = overlay.TextOverlay(weights, judge=False).features
        data = judged(photos, find, overlays.TEXTS, True)
        found = report(name, names, data, overlays.TEXTS, n, 0.045, maps / f"{name}.json" if args.fit else None)
        marks[name] = min(found["caption"], found["banner"]) / 0.9
    if args.sites:
        clean, marked = sites(photos, args.sites)
        marks["sites"] = float(marked > 2.0 > clean)
    for name, value in marks.items():
        print(f"{name}: {value:.2f} of its mark")
    line = {"benchmark": "curation_filters", "ratio": round(float(min(marks.values())), 3)}
    line |= {
        "marks": {k: round(float(v), 3) for k, v in marks.items()},
        "cores": os.cpu_count(),
        "cpu": platform.machine(),
    }
    with (Path(__file__).parent / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"ratio {line['ratio']:.2f}")


if __name__ == "__main__":
    main()
