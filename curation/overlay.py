"""An upright picture -> how surely text was laid over it, from pixels alone or from a text detector's boxes as well.

What a graphics program sets differs from text that stands in the scene: the letters of a line share one base line to the
pixel and one ink to a few levels. Area alone costs 10 points of recall of good pictures (signs, jerseys).

Legend: L letters, R runs of letters on one line, T boxes of text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation import trees
from manifests.errors import InputError

# Longer side that is looked at, px: letters of 3 % of a picture's height are then 15 px tall.
SIDE_PX = 640
# A letter stands out by STEP levels from the mean of a window about as large as itself and its gaps.
WINDOWS, STEP = (17, 45), 16
LEAST_PX, MOST_SHARE = 6, 0.2
BASE_PX, BASE_SHARE, INK, SIZE, GAP = 1.5, 0.07, 40.0, 1.8, 1.5
# Natural texture can make thousands of specks; runs need each against each.
MOST_LETTERS = 1500
RUN = ("log letters", "log size", "base line", "ink", "ink inside", "contrast", "sizes", "fill", "gaps", "width",
       "ink's end", "ground", "fills")  # fmt: skip
# Probability of the text map that opens a box, and its mean within one (PaddleOCR's own values are 0.3 and 0.6).
OPEN, SURE, GROW = 0.3, 0.5, 1.5
BOX = ("log ratio", "degrees", "log contrast", "score", "log height", "one ink", "other ink", "sharp", "log area",
       *(f"run {n}" for n in RUN))  # fmt: skip
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class TextOverlay:
    """Scores pictures; ``weights``: an ONNX export of PaddleOCR's DB text detector, None = by pixels alone."""

    def __init__(self, weights: Path | None = None, judge: bool = True) -> None:
        self._session: Any = None
        self.weights_sha256: str | None = None
        if weights is not None:
            self._session = session(weights, "curate.text.weights")
            self.weights_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        # Fitting asks for features before there is an ensemble.
        self._trees = (
            trees.load(trees.BUNDLED / ("overlay_boxes.json" if weights else "overlay_runs.json")) if judge else None
        )
        self.name = f"overlay {'text detector ' + weights.name if weights else 'by pixels'}"

    def __call__(self, rgb: np.ndarray) -> float:
        """0..1, 0.5 where one in thirty clean photographs lies above; ``rgb``: (H, W, 3) uint8."""
        assert self._trees is not None
        x = self.features(rgb)[0]
        return float(self._trees(x).max(initial=0.0))

    def features(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is known of each place that could be overlaid text, (T, F), and its box (T, 4) xyxy px of `small`."""
        picture = small(rgb)
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if self._session is None:
            return all_runs(grey)
        found = [_of_box(picture, grey, box) for box in self._boxes(picture)]
        kept = [f for f in found if f is not None]
        return (
            np.array([f for f, _ in kept]).reshape(-1, len(BOX)),
            np.array([b for _, b in kept]).reshape(-1, 4),
        )

    def _boxes(self, picture: np.ndarray) -> list[tuple[float, ...]]:
        """Centre x, y, width, height (px of ``picture``), degrees off level, score."""
        h, w = picture.shape[:2]
        across, down = (max(32, round(v / 32) * 32) for v in (w, h))
        blob = (cv2.resize(picture, (across, down)) / 255.0 - MEAN) / DEVIATION
        feed = {
            self._session.get_inputs()[0].name: np.ascontiguousarray(
                blob[..., ::-1].transpose(2, 0, 1)[None], np.float32
            )
        }
        likely = np.asarray(self._session.run(None, feed)[0])[0, 0]
        outlines, _ = cv2.findContours((likely > OPEN).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        found: list[tuple[float, ...]] = []
        for outline in outlines:
            (x, y), (a, b), degrees = cv2.minAreaRect(outline)
            if min(a, b) < 3:
                continue
            mask = np.zeros(likely.shape, np.uint8)
            cv2.drawContours(mask, [outline], -1, (1,), -1)
            score = float(likely[mask > 0].mean())
            if score < SURE:
                continue
            if a < b:
                a, b, degrees = b, a, degrees - 90
            # DB learns shrunken text; this is the offset that its paper undoes (Liao et al. 2020, section 3.5).
            grow = GROW * a * b / (a + b)
            level = abs((degrees + 90) % 180 - 90)
            found.append((x * w / across, y * h / down, (a + grow) * w / across, (b + grow) * h / down, level, score))
        return found


def small(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8, the longer side at most SIDE_PX."""
    factor = SIDE_PX / max(rgb.shape[:2])
    if factor >= 1:
        return rgb
    size = (max(8, round(rgb.shape[1] * factor)), max(8, round(rgb.shape[0] * factor)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def all_runs(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (R, len(RUN)) and boxes xyxy px (R, 4) of every run of light or of dark letters of luma (H, W) uint8."""
    found = [runs(letters(grey, window, sign), grey.shape) for window in WINDOWS for sign in (1, -1)]
    return np.concatenate([f for f, _ in found]), np.concatenate([b for _, b in found])


def letters(grey: np.ndarray, window: int, sign: int) -> np.ndarray:
    """(L, 8): x, y, w, h px, ink (extreme of luma), its spread, ground (mean around it) and share of the box that is ink.

    ``sign``: 1 for light letters, -1 for dark ones.
    """
    local = cv2.blur(grey, (window, window))
    mask = (cv2.subtract(grey, local) if sign > 0 else cv2.subtract(local, grey)) > STEP
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    x, y, w, h, area = (stats[:, i] for i in range(5))
    fill = area / np.maximum(w * h, 1)
    good = (h >= LEAST_PX) & (h <= MOST_SHARE * len(grey)) & (w <= 6 * h) & (h <= 12 * w) & (fill > 0.12) & (area >= 8)
    good[0] = False
    if not 3 <= good.sum() <= MOST_LETTERS:
        return np.zeros((0, 8))
    flat = labels.ravel()
    picked = np.flatnonzero(good[flat])
    which, value = flat[picked], sign * grey.ravel()[picked].astype(np.int64)
    order = np.argsort(which * 512 + value, kind="stable")
    which, value = which[order], value[order]
    names, first = np.unique(which, return_index=True)
    count = np.diff(np.append(first, len(which)))
    # Strokes are a few px wide and their edges are mixed with the ground: the upper part is ink alone.
    top, middle = (value[first + (count * share).astype(int)] for share in (0.92, 0.7))
    around = np.add.reduceat(local.ravel()[picked][order].astype(float), first) / count
    parts = [x[names], y[names], w[names], h[names], sign * top, top - middle, around, fill[names]]
    return np.stack(parts, axis=1).astype(float)


def runs(found: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """As `all_runs`, of letters (L, 8) that stand on one line of a picture of ``shape``."""
    from scipy.sparse.csgraph import connected_components

    feats, boxes = [], []
    if len(found) >= 3:
        x, y, w, h, ink = found.T[:5]
        base, right = y + h, x + w
        gap = np.maximum(x[:, None], x) - np.minimum(right[:, None], right)
        tall = np.maximum(h[:, None], h)
        linked = (
            (abs(base[:, None] - base) <= np.maximum(BASE_PX, BASE_SHARE * tall))
            & (tall <= SIZE * np.minimum(h[:, None], h))
            & (gap > -0.3 * tall)
            & (gap <= GAP * tall)
            & (abs(ink[:, None] - ink) <= INK)
        )
        label = connected_components(linked, directed=False)[1]
        for k in np.flatnonzero(np.bincount(label) >= 3):
            m = found[label == k]
            feats.append(_of_run(m[np.argsort(m[:, 0], kind="stable")], shape[0]))
            boxes.append([m[:, 0].min(), m[:, 1].min(), (m[:, 0] + m[:, 2]).max(), (m[:, 1] + m[:, 3]).max()])
    return np.array(feats, float).reshape(-1, len(RUN)), np.array(boxes, float).reshape(-1, 4)


def _of_run(m: np.ndarray, height: int) -> list[float]:
    size = m[:, 3].max()
    gaps = m[1:, 0] - (m[:-1, 0] + m[:-1, 2])
    ink = m[:, 4].mean()
    return [
        np.log(len(m)),
        np.log(size / height),
        (m[:, 1] + m[:, 3]).std() / size,
        m[:, 4].std(),
        float(np.median(m[:, 5])),
        abs(m[:, 4] - m[:, 6]).mean(),
        m[:, 3].std() / size,
        m[:, 7].mean(),
        gaps.std() / size,
        float(np.median(m[:, 2])) / size,
        min(ink, 255 - ink),
        m[:, 6].std(),
        m[:, 7].std(),
    ]


def _of_box(picture: np.ndarray, grey: np.ndarray, box: tuple[float, ...]) -> tuple[list[float], list[float]] | None:
    """Features and xyxy px of one box of text; None where it is no line, or too small to look into."""
    x, y, w, h, degrees, score = box
    height, width = grey.shape
    if degrees > 45 or h > MOST_SHARE * height:
        return None
    x0, x1 = int(max(0, x - w / 2)), int(min(width, x + w / 2))
    y0, y1 = int(max(0, y - h / 2)), int(min(height, y + h / 2))
    inside, luma = picture[y0:y1, x0:x1], grey[y0:y1, x0:x1]
    if min(luma.shape) < 6:
        return None
    light = luma > cv2.threshold(luma, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    if light.all() or not light.any():
        return None
    inks = sorted((_one_ink(inside, light), _one_ink(inside, ~light)), reverse=True)
    contrast = abs(np.median(inside[light], axis=0) - np.median(inside[~light], axis=0)).max()
    steps = np.percentile(abs(np.diff(luma.astype(float), axis=1)), 98)
    # The letters' windows need ground around the box.
    pad = int(h)
    around = np.ascontiguousarray(grey[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad])
    found = all_runs(around)[0]
    best = found[found[:, 0].argmax()] if len(found) else np.zeros(len(RUN))
    if len(found):
        best = best.copy()
        best[1] += np.log(len(around) / height)
    whole = [np.log(w / h), min(degrees, 5.0), np.log(contrast + 1), score, np.log(h / height), *inks]
    return [*whole, min(steps / max(contrast, 1.0), 3.0), np.log(w * h / grey.size), *best], [x0, y0, x1, y1]


def _one_ink(inside: np.ndarray, mask: np.ndarray) -> float:
    """The share of the inner pixels of ``mask`` within ten levels of their median colour."""
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    if core.sum() < 20:
        core = cv2.erode(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    values = inside[core > 0].astype(float)
    if len(values) < 8:
        return 0.0
    return float((abs(values - np.median(values, axis=0)).max(axis=1) <= 10).mean())


def session(path: Path, field: str) -> Any:
    """An onnxruntime session of one thread. Raises InputError naming the job's ``field``."""
    import onnxruntime

    if not path.is_file():
        raise InputError(f"{field}: {path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # 3: errors alone; exporters' warnings are nothing that a user can act on.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common public base
        raise InputError(f"{field}: {path}: onnxruntime cannot load it ({error})") from None
