"""Clean photographs -> what a scraped corpus mixes in: captions, banners, watermarks of a site, sketches, cartoons.

All drawn here by PIL and OpenCV from a seed, so that the right answer is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = ["the", "best", "summer", "sale", "ends", "today", "get", "your", "ticket", "now", "visit", "our", "new", "store",
         "in", "town", "breaking", "news", "from", "world", "when", "you", "finally", "see", "it", "live", "tonight", "only",
         "at", "eight", "free", "shipping", "photo", "by", "anna", "smith", "all", "rights", "reserved", "me", "and", "my",
         "friends", "looking", "for", "a", "job", "call", "us", "555", "0199", "grand", "opening", "Paris", "2019"]  # fmt: skip
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol",
         "DejaVuSansMono", "DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSerif-Italic")  # fmt: skip
INKS = ((255, 255, 255), (0, 0, 0), (255, 240, 0), (220, 20, 20), (245, 245, 245), (20, 40, 120))


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf"), size)


def jpeg(rgb: np.ndarray, rng: np.random.Generator, low: int = 75) -> np.ndarray:
    """(H, W, 3) as it comes back from a JPEG of quality ``low`` to 95."""
    quality = int(rng.integers(low, 96))
    data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()


def phrase(rng: np.random.Generator, least: int, most: int) -> str:
    words = " ".join(rng.choice(WORDS, int(rng.integers(least, most + 1))))
    return [words, words.upper(), words.capitalize()][int(rng.integers(3))]


def caption(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A line or two of text straight on the picture, plain, outlined or with a shadow."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    w, h = picture.size
    size = int(max(14, h * rng.uniform(0.04, 0.1)))
    face = font(str(rng.choice(FONTS)), size)
    ink = INKS[int(rng.integers(len(INKS)))]
    contrary = (0, 0, 0) if sum(ink) > 380 else (255, 255, 255)
    style = int(rng.integers(3))
    y = [int(h * 0.03), int(h * rng.uniform(0.3, 0.6)), int(h * rng.uniform(0.8, 0.95) - size)][int(rng.integers(3))]
    for _ in range(int(rng.integers(1, 3))):
        text = phrase(rng, 2, 7)
        while draw.textlength(text, font=face) > 0.95 * w and " " in text:
            text = text.rsplit(" ", 1)[0]
        x = int((w - draw.textlength(text, font=face)) * rng.uniform(0.1, 0.9))
        if style == 1:
            draw.text((x, y), text, ink, face, stroke_width=max(1, size // 16), stroke_fill=contrary)
        else:
            if style == 2:
                draw.text((x + 2, y + 2), text, contrary, face)
            draw.text((x, y), text, ink, face)
        y += int(size * 1.25)
    return jpeg(np.asarray(picture), rng)


def banner(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A strip along the top or the bottom, opaque or half transparent, with text in it."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    size = int(max(12, h * rng.uniform(0.03, 0.075)))
    tall = int(size * rng.uniform(1.4, 2.4))
    y = [0, h - tall, int(h * rng.uniform(0.6, 0.8))][int(rng.integers(3))]
    ground = np.array(INKS[int(rng.integers(len(INKS)))], float)
    alpha = float(rng.choice([1.0, 1.0, 0.8, 0.6]))
    out = rgb.astype(float)
    out[y : y + tall] = (1 - alpha) * out[y : y + tall] + alpha * ground
    picture = Image.fromarray(out.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    ink = (255, 255, 255) if ground.sum() < 380 else (0, 0, 0)
    face, text = font(str(rng.choice(FONTS)), size), phrase(rng, 2, 8)
    while draw.textlength(text, font=face) > 0.95 * w and " " in text:
        text = text.rsplit(" ", 1)[0]
    x = int((w - draw.textlength(text, font=face)) * rng.uniform(0, 1))
    draw.text((x, y + (tall - size) // 2 - size // 8), text, ink, face)
    return jpeg(np.asarray(picture), rng)


def hershey(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A caption in OpenCV's own stroke font."""
    rng = np.random.default_rng(seed)
    out, (h, w) = rgb.copy(), rgb.shape[:2]
    scale, thick = rng.uniform(0.7, 1.6) * h / 480, int(rng.integers(1, 4))
    face = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX]))
    text = phrase(rng, 2, 5)
    (tw, th), _ = cv2.getTextSize(text, face, scale, thick)
    at = (int(max(4, (w - tw) * rng.uniform(0, 1))), int(rng.uniform(0.1, 0.95) * h) + th // 2)
    cv2.putText(out, text, at, face, scale, INKS[int(rng.integers(len(INKS)))], thick, cv2.LINE_AA)
    return jpeg(out, rng)


TEXTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"caption": caption, "banner": banner, "hershey": hershey}


def pencil(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A photograph turned to a pencil drawing by dodging: grey divided by its blurred negative."""
    rng = np.random.default_rng(seed)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    soft = 255 - cv2.GaussianBlur(255 - grey, (0, 0), rng.uniform(3, 12))
    return jpeg(np.repeat(cv2.divide(grey, soft, scale=256)[..., None], 3, axis=2), rng)


def ink_lines(rgb: np.ndarray, seed: int) -> np.ndarray:
    """The edges of a photograph in ink on paper, or in chalk."""
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), rng.uniform(1, 2))
    edges = cv2.Canny(grey, rng.uniform(30, 60), rng.uniform(80, 140))
    edges = cv2.GaussianBlur(cv2.dilate(edges, np.ones((2, 2), np.uint8)), (3, 3), 0)[..., None] / 255
    paper, ink = np.array([rng.uniform(215, 255)] * 3) - rng.uniform(0, 15, 3), rng.uniform(0, 70, 3)
    if rng.random() < 0.15:
        paper, ink = ink, paper
    return jpeg((paper * (1 - edges) + ink * edges).clip(0, 255).astype(np.uint8), rng)


def strokes(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A figure of lines, drawn by code on blank paper of the photograph's size; the photograph itself is not used."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    out = np.full((h, w, 3), rng.uniform(225, 255), np.uint8)
    ink = tuple(int(v) for v in rng.uniform(0, 90, 1).repeat(3))
    cx, cy, r = w * rng.uniform(0.35, 0.65), h * rng.uniform(0.2, 0.35), h * rng.uniform(0.08, 0.14)
    thick = int(rng.integers(1, 4))
    cv2.ellipse(out, (int(cx), int(cy)), (int(0.8 * r), int(r)), 0, 0, 360, ink, thick, cv2.LINE_AA)
    for _ in range(int(rng.integers(15, 60))):
        start = np.array([cx, cy + r]) + rng.normal(0, 1.2 * r, 2)
        points = start + np.cumsum(rng.normal(0, 0.25 * r, (int(rng.integers(4, 15)), 2)), axis=0)
        cv2.polylines(out, [points.astype(np.int32)], False, ink, thick, cv2.LINE_AA)
    if rng.random() < 0.5:
        x = int(rng.uniform(0, w / 2))
        for k in range(x, x + int(w * 0.3), int(rng.integers(5, 11))):
            cv2.line(out, (k, int(0.6 * h)), (k + 40, int(0.9 * h)), ink, 1, cv2.LINE_AA)
    return jpeg(out, rng)


def posterised(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A photograph smoothed within its edges, in few colours, with dark outlines: the usual cartoon filter."""
    rng = np.random.default_rng(seed)
    out = rgb[..., ::-1].copy()
    for _ in range(int(rng.integers(2, 6))):
        out = cv2.bilateralFilter(out, 9, rng.uniform(30, 60), 9)
    if rng.random() < 0.6:
        step = int(rng.integers(16, 48))
        out = (out // step * step + step // 2).clip(0, 255).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 7)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, int(rng.integers(2, 7)))
    if rng.random() < 0.75:
        out = cv2.bitwise_and(out, out, mask=lines)
    return jpeg(out[..., ::-1], rng)


def stylised(rgb: np.ndarray, seed: int) -> np.ndarray:
    """OpenCV's own edge-aware stylisation."""
    rng = np.random.default_rng(seed)
    return jpeg(cv2.stylization(np.ascontiguousarray(rgb[..., ::-1]), None, 60, rng.uniform(0.3, 0.6))[..., ::-1], rng)


def shapes(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A flat figure in a flat room, drawn by code; the photograph gives its size alone."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    out = np.empty((h, w, 3), np.uint8)
    top, bottom = (rng.uniform(60, 255, 3) for _ in range(2))
    steps = np.linspace(0, 1, h)[:, None, None] if rng.random() < 0.4 else np.zeros((h, 1, 1))
    out[:] = top * (1 - steps) + bottom * steps
    line = int(rng.integers(0, 5))

    def fill(points: np.ndarray) -> None:
        colour = tuple(int(v) for v in rng.uniform(20, 255, 3))
        cv2.fillPoly(out, [points.astype(np.int32)], colour, cv2.LINE_AA)
        if line:
            cv2.polylines(out, [points.astype(np.int32)], True, (20, 20, 20), line, cv2.LINE_AA)

    def blob(x: float, y: float, a: float, b: float) -> np.ndarray:
        t = np.linspace(0, 2 * np.pi, 60)
        return np.stack([x + a * np.cos(t), y + b * np.sin(t)], axis=1)

    fill(np.array([[0, 0.75 * h], [w, 0.7 * h], [w, h], [0, h]]))
    for _ in range(int(rng.integers(4, 16))):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        fill(blob(x, y, rng.uniform(10, 0.2 * w), rng.uniform(10, 0.2 * h)) + rng.normal(0, 2, (60, 2)))
    x, y, r = w * rng.uniform(0.3, 0.7), h * 0.35, h * rng.uniform(0.1, 0.16)
    fill(np.array([[x - r, y + r], [x + r, y + r], [x + 1.4 * r, h], [x - 1.4 * r, h]]))
    fill(blob(x, y, 0.85 * r, r))
    for side in (-1, 1):
        fill(blob(x + side * 0.35 * r, y - 0.1 * r, 0.12 * r, 0.16 * r))
    return jpeg(out, rng)


SKETCHES = {"pencil": pencil, "ink_lines": ink_lines, "strokes": strokes}
CARTOONS = {"posterised": posterised, "stylised": stylised, "shapes": shapes}


def site(photos: list[np.ndarray], seed: int, mixed: bool = True) -> list[np.ndarray]:
    """64 clean pictures of one site: photographs cut, mirrored and brought to sizes of their own."""
    rng = np.random.default_rng(seed)
    found = []
    for k in rng.permutation(64):
        rgb = photos[k % len(photos)]
        h, w = rgb.shape[:2]
        a = rng.uniform(0.75, 1)
        y, x = int(rng.uniform(0, 1 - a) * h), int(rng.uniform(0, 1 - a) * w)
        rgb = rgb[y : y + int(a * h), x : x + int(a * w)]
        if rng.random() < 0.5:
            rgb = rgb[:, ::-1]
        factor = rng.uniform(0.8, 1.6) if mixed else 1.0
        size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor)) if mixed else (640, 480)
        found.append(cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA))
    return found


def mark(rgb: np.ndarray, layout: str, alpha: float, relative: bool = False) -> np.ndarray:
    """A picture with a site's half transparent mark: tiled, centred or in a corner, of one size in px or ``relative`` to
    the picture's width.
    """
    h, w = rgb.shape[:2]
    unit = w / 640 if relative else 1.0
    layer = Image.new("L", (w, h), 0)
    draw = ImageDraw.Draw(layer)
    if layout == "tiled":
        face, step = font("DejaVuSans-Bold", round(22 * unit)), (round(170 * unit), round(90 * unit))
        for row, y in enumerate(range(0, h, step[1])):
            for x in range(-(row % 2) * step[0] // 2, w, step[0]):
                draw.text((x, y), "stockpix", 255, face)
    elif layout == "centred":
        face = font("DejaVuSans-Bold", round(56 * unit))
        draw.text((w / 2, h / 2), "stockpix", 255, face, anchor="mm")
    else:
        face = font("DejaVuSans-Bold", round(20 * unit))
        draw.text((w - round(12 * unit), h - round(10 * unit)), "© stockpix.com", 255, face, anchor="rs")
    a = alpha * np.asarray(layer, np.float32)[..., None] / 255
    return (rgb * (1 - a) + 255 * a).round().astype(np.uint8)


def again(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A clean photograph cut, scaled and encoded once more."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    a, factor = rng.uniform(0.6, 1), rng.uniform(0.6, 1.6)
    y, x = int(rng.uniform(0, 1 - a) * h), int(rng.uniform(0, 1 - a) * w)
    return jpeg(cv2.resize(rgb[y : y + int(a * h), x : x + int(a * w)], None, fx=factor, fy=factor), rng, 60)


def studio(rgb: np.ndarray, seed: int) -> np.ndarray:
    """A clean photograph whose middle stands before a plain backdrop with a camera's noise: flat, and no drawing."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    ramp = np.linspace(0, rng.uniform(0, 40), h)[:, None, None] * rng.choice([-1, 1])
    backdrop = rng.uniform(30, 250) + rng.normal(0, 25, 3) + ramp + rng.normal(0, rng.uniform(0.5, 3), (h, w, 3))
    y, x = np.mgrid[0:h, 0:w]
    inside = ((x - w / 2) / (w * rng.uniform(0.15, 0.35))) ** 2 + (
        (y - h * 0.55) / (h * rng.uniform(0.3, 0.5))
    ) ** 2 < 1
    mask = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.2)[..., None]
    return jpeg((rgb * mask + backdrop * (1 - mask)).clip(0, 255).astype(np.uint8), rng)
