"""MAE on kept against random pictures at equal count, and one probe on both encoders: does curation help what is learnt?

    python benchmarks/curation_outcome.py --photos ../shared/photos --weights ../shared/weights/yolox_nano.onnx [--steps 300]

A scraped corpus is made of the photographs: each in several crops, and beside them what a scrape brings along (captions,
sketches, cartoons, near-duplicates). The policy of `sapiens`, its box rule off, keeps some; as many are drawn at random. Both
train the same masked autoencoder from the same weights over the same number of steps. The probe: a ridge regression on the mean
patch token that tells crops with a person from crops without, by leave-one-photograph-out over photographs that neither saw.

Predicted before the first run: no sure difference; 32 photographs and a few hundred steps are far from where data decide.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

# benchmarks/curation.py would stand in for the package.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))
from curation import dedup
from curation.decide import decide, funnel
from curation.measure import Fetched, Measurer
from curation.stage import MEASUREMENTS
from manifests.curation import CurateStage, PhotoSource
from manifests.seeds import generator
from tests import overlays
from training.mae import MaskedAutoencoder
from training.transforms import MEAN, STD
from training.vit import Size

SIDE, DRAWS = 64, 1000
SHAPE = Size(96, 4, 3, 8)


def scraped(photos: list[np.ndarray], copies: int) -> list[np.ndarray]:
    """What a scrape would bring of these photographs: half of it good."""
    makers = [overlays.again, overlays.again, overlays.caption, overlays.pencil, overlays.posterised, overlays.shapes]
    return [makers[k % len(makers)](p, 100 * k + i) for k in range(copies) for i, p in enumerate(photos)]


def chosen(pictures: list[np.ndarray], weights: Path) -> np.ndarray:
    """(N,) bool: what the policy keeps."""
    detector = {"kind": "onnx", "weights": str(weights), "looks": 1}
    stage = CurateStage(
        sources=[PhotoSource(path=".")], detector=detector, preset="sapiens", min_box_px=0, min_side_px=100
    )
    measurer = Measurer(stage, Path("/"))
    rows = []
    for i, rgb in enumerate(pictures):
        data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        rows += measurer.measure([Fetched({"uri": f"{i:05d}"}, data, {}, None, 0.0)])
    import pyarrow as pa

    table = pa.Table.from_pylist(rows, schema=MEASUREMENTS)
    decisions = decide(table, stage, dedup.pairs(table))
    for rule, came, went in funnel(decisions):
        if came != went:
            print(f"  {rule:<12} {came:>6} -> {went}")
    return np.array(decisions["kept"].to_pylist(), bool)


def tensor(rgb: np.ndarray) -> torch.Tensor:
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(((small - MEAN) / STD).transpose(2, 0, 1).astype(np.float32))


def trained(pictures: list[np.ndarray], steps: int, batch: int, seed: int) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    model = MaskedAutoencoder(SHAPE, 64, 1, 0.75)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    data, rng = torch.stack([tensor(p) for p in pictures]), generator("outcome", seed)
    patches = (SIDE // SHAPE.patch) ** 2
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        rows = torch.from_numpy(rng.integers(0, len(data), batch))
        order = torch.from_numpy(np.argsort(rng.random((batch, patches)), axis=1))
        loss = model(data[rows], order)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return model


def probe(model: MaskedAutoencoder, crops: list[np.ndarray], label: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """(M,) whether each crop is told right by a ridge fitted on the other photographs' crops."""
    with torch.inference_mode():
        x = model.encoder(torch.stack([tensor(c) for c in crops]))[-1][:, 1:].mean(dim=1).numpy().astype(np.float64)
    right = np.zeros(len(x), bool)
    for p in np.unique(photo):
        inside = photo != p
        mean, spread = x[inside].mean(axis=0), x[inside].std(axis=0) + 1e-6
        a, y = (x[inside] - mean) / spread, 2.0 * label[inside] - 1
        w = np.linalg.solve(a.T @ a + 10.0 * len(a) / a.shape[1] * np.eye(a.shape[1]), a.T @ (y - y.mean()))
        right[~inside] = (((x[~inside] - mean) / spread) @ w + y.mean() > 0) == label[~inside]
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    entries = json.loads((args.photos / "index.json").read_text())
    photos = [cv2.imread(str(args.photos / e["image"]))[..., ::-1].copy() for e in entries]
    train, held = list(range(0, len(photos), 2)), list(range(1, len(photos), 2))
    corpus = scraped([photos[i] for i in train], args.copies)
    keep = chosen(corpus, args.weights.resolve())
    print(f"{len(corpus)} scraped, {keep.sum()} kept")
    crops = [overlays.again(photos[i], 7000 + k) for i in held for k in range(4)]
    label = np.repeat([bool(entries[i]["has_person"]) for i in held], 4)
    photo = np.repeat(held, 4)
    right: dict[str, list[np.ndarray]] = {"kept": [], "random": []}
    for seed in range(args.seeds):
        drawn = generator("outcome", seed, "random").choice(len(corpus), int(keep.sum()), replace=False)
        for name, rows in (("kept", np.flatnonzero(keep)), ("random", np.sort(drawn))):
            model = trained([corpus[i] for i in rows], args.steps, 32, seed)
            right[name].append(probe(model, crops, label, photo))
    by_photo = {n: np.array([[r[photo == p].mean() for p in held] for r in rs]).mean(axis=0) for n, rs in right.items()}
    draws = generator("outcome", "bootstrap").integers(0, len(held), (DRAWS, len(held)))
    for name, value in by_photo.items():
        low, high = np.percentile(value[draws].mean(axis=1), [2.5, 97.5])
        print(f"  {name:<7} accuracy {value.mean():.3f}  (95 % over photographs: {low:.3f} to {high:.3f})")
    difference = by_photo["kept"] - by_photo["random"]
    low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
    print(
        f"  difference {difference.mean():+.3f}  (95 %: {low:+.3f} to {high:+.3f}); always the commoner: {max(label.mean(), 1 - label.mean()):.3f}"
    )
    print(f"  {time.process_time() - started:.0f} s of processor")
    ratio = float(by_photo["kept"].mean() / by_photo["random"].mean())
    line = {
        "benchmark": "curation_outcome",
        "ratio": round(ratio, 3),
        "difference": [round(float(v), 4) for v in (difference.mean(), low, high)],
    }
    line |= {
        "kept": int(keep.sum()),
        "of": len(corpus),
        "steps": args.steps,
        "seeds": args.seeds,
        "cpu": platform.machine(),
    }
    line |= {"cores": os.cpu_count()}
    with (Path(__file__).parent / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
