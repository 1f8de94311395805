"""Contrast and saturation of rendered people as the sRGB curve and as `photographic` show them, beside photographs of people.

    python benchmarks/response.py --photos FOLDER --data RUN/render

FOLDER holds photographs and an index.json: a list of {image, person_boxes_xywh}. Of every box of 180 px and more, and of as many
rendered people, the upper 60 % count: standard deviation of luma, mean of the largest less the smallest channel. The last line
says how much nearer to the photographs the second response is: the ratio of the two distances, both figures taken together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from manifests.dataset import Dataset
from render import response

LEAST_PX = 180


def measured(crop: np.ndarray) -> tuple[float, float]:
    """Spread of luma and mean saturation of (h, w, 3) uint8 sRGB, both in [0, 1]."""
    x = crop.astype(np.float32) / 255
    return float((x @ response.LUMA).std()), float((x.max(axis=2) - x.min(axis=2)).mean())


def upper(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The upper 60 % of a box x0, y0, x1, y1 in px."""
    x0, y0, x1, y1 = box
    return picture[max(0, int(y0)) : int(y0 + 0.6 * (y1 - y0)), max(0, int(x0)) : int(x1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    photos = []
    for entry in json.loads((given.photos / "index.json").read_text()):
        boxes = [b for b in entry.get("person_boxes_xywh") or [] if b[3] >= LEAST_PX and b[2] >= 70]
        if boxes:
            picture = cv2.imread(str(given.photos / entry["image"]))[..., ::-1]
            photos += [measured(upper(picture, (x, y, x + w, y + h))) for x, y, w, h in boxes]
    dataset, plain, photographic = Dataset(given.data), [], []
    # As the run's camera developed them, and back.
    taken = json.loads((given.data / "stage.json").read_text())["fields"]["camera"]["response"]
    for i in np.linspace(0, len(dataset) - 1, min(len(dataset), 200)).astype(int):
        sample = dataset.sample(int(i))
        light = response.radiance(sample.image, taken)
        box = tuple(float(v) for v in sample.people[0].box)
        if box[2] - box[0] < 8:
            continue
        plain.append(measured(upper(response.developed(light, "srgb"), box)))
        photographic.append(measured(upper(response.developed(light, "photographic"), box)))
    means = {}
    for name, found in (("photographs", photos), ("srgb", plain), ("photographic", photographic)):
        means[name] = np.mean(found, axis=0)
        error = np.std(found, axis=0) / len(found) ** 0.5
        print(
            f"{name:<13}{len(found):4d} people: spread of luma {means[name][0]:.3f} +- {error[0]:.3f}, "
            f"saturation {means[name][1]:.3f} +- {error[1]:.3f}"
        )
    far = [float(np.linalg.norm(means[k] / means["photographs"] - 1)) for k in ("srgb", "photographic")]
    print(f"ratio {far[0] / far[1]:.2f}")


if __name__ == "__main__":
    main()
