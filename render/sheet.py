"""Pictures and words -> one sheet: tiles with captions, and a library of scans upright, to one scale, by a ruler.

Pictures are (H, W, 3) uint8 sRGB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from manifests.assets import FilesSource
from manifests.frames import look_at
from render.assets import library as scans
from render.assets.files import named
from render.assets.scan import SUFFIXES, quick
from render.raster import Raster, over, studio
from render.scene import Camera, Mesh, PersonMesh

PAPER, INK, FAINT, CLAY = (250, 249, 246), (40, 38, 35), (222, 218, 210), (176, 74, 42)
FONT_PX, LINE_PX, PAD_PX = 12, 15, 8
RULE_M = 0.5
# So far away that perspective changes a person's size by less than 1 %.
DISTANCE_M = 60.0
# Sheets wider than this are hard to look at; more assets make more rows.
SHEET_PX = 1600


@dataclasses.dataclass
class Tile:
    """``picture``: None for an empty tile. ``words``: the title, then one line or more for each thing to say."""

    picture: np.ndarray | None
    words: list[str]
    alarm: bool = False


def library(folder: Path, pixels_per_m: int = 200, most: int | None = None) -> np.ndarray:
    """A sheet of every scan below ``folder``, or of the first ``most``. Raises InputError."""
    raster = Raster()
    tiles = [asset_tile(row, mesh, raster, pixels_per_m) for row, mesh in islice(looked(folder), most)]
    heights = [_rows(t.picture) for t in tiles if t.picture is not None]
    tall = max(heights, default=pixels_per_m) + PAD_PX
    for tile in tiles:
        if tile.picture is not None:
            tile.picture = tile.picture[-tall:]
    return grid(tiles, tall, tiles_width(tiles), pixels_per_m)


def looked(folder: Path) -> Iterator[tuple[dict[str, Any], Mesh | None]]:
    """Each scan below ``folder``: its row of library.SCHEMA, and its mesh where it can be drawn. Raises InputError.

    trimesh reads what it can; the rest is first read by Blender in a process of its own, then taken from the cache.
    """
    found = [(s, name, path) for s in scans.sources(folder, {}, quick) for name, path in s.paths]
    with scans.Reading(folder) as reading:
        for source, name, path in found:
            if path.suffix.lower() in SUFFIXES:
                yield scans.examine(source, folder, name, path)
                continue
            row = reading.row(source.source, name, path)
            yield (row, None) if row["bounds_m"] is None else scans.examine(source, folder, name, path)
    plain = FilesSource(paths=[str(folder)])
    for name, path in named("files", scans.foreign(folder)):
        yield scans.strange(plain, folder, name, path), None


def tiles_width(tiles: list[Tile]) -> int:
    """Columns of the widest picture, or room for words."""
    return max(150, *(t.picture.shape[1] for t in tiles if t.picture is not None), 0)


def asset_tile(row: dict[str, Any], mesh: Mesh | None, raster: Raster, pixels_per_m: int) -> Tile:
    """One scan as it would stand in a scene, the problems of its row in words; empty where it could not be read."""
    words = [row["files"][0], *(p["what"] for p in row["problems"])]
    if mesh is None:
        return Tile(None, words, True)
    height = row["height_m"]
    facts = f"{height:.2f} m, {len(mesh.faces):,} faces" + (", rigged: as modelled" if row["bones"] else "")
    words.insert(1, facts)
    if any(p["code"] == "height" for p in row["problems"]):
        # What is 17 m tall is to be seen all the same.
        words.insert(2, "not drawn to scale")
        mesh = dataclasses.replace(mesh, vertices=mesh.vertices * np.float32(1.7 / max(height, 1e-9)))
    return Tile(draw(mesh, raster, pixels_per_m), words, not row["usable"])


def draw(mesh: Mesh, raster: Raster, pixels_per_m: int) -> np.ndarray:
    """(H, W, 3): the mesh from the front on ruled paper; the lowest row is the ground, ``pixels_per_m`` everywhere."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    # People are seldom wider than tall; what is, is cut at the sides.
    half_m = min(max(-float(low[0]), float(high[0]), 0.3), 1.5) + 0.04
    width, height = 2 * round(half_m * pixels_per_m), round((float(high[2]) + 0.04) * pixels_per_m)
    focal = pixels_per_m * DISTANCE_M
    # The principal point stands on the ground line: a lens shift, so that feet and head are at one scale.
    K = np.array([[focal, 0, width / 2], [0, focal, height], [0, 0, 1]])
    pose = look_at(np.array([0.0, -DISTANCE_M, 0.0]), np.zeros(3))
    rgba, _ = raster.layers([PersonMesh("scan", mesh, {}, {})], Camera(K, pose, width, height, "full"), studio)
    return over(rgba, ruled(height, width, pixels_per_m).astype(np.float32))


def ruled(height: int, width: int, pixels_per_m: int) -> np.ndarray:
    """(H, W, 3) uint8 paper with a faint line every RULE_M, counted from the lowest row."""
    paper = np.full((height, width, 3), PAPER, np.uint8)
    for i in range(int(height / pixels_per_m / RULE_M) + 1):
        row = height - 1 - round(i * RULE_M * pixels_per_m)
        if row >= 0:
            paper[row] = FAINT
    return paper


def grid(tiles: list[Tile], tall: int, wide: int, pixels_per_m: int | None = None) -> np.ndarray:
    """Tiles in rows on paper, words below; with ``pixels_per_m`` a ruler stands at the left of every row."""
    font = ImageFont.load_default(FONT_PX)
    ruler = 44 if pixels_per_m else 0
    columns = min(len(tiles), max(1, (SHEET_PX - ruler) // (wide + PAD_PX)))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    lines = [[wrap(t.words, wide, font) for t in row] for row in rows]
    heights = [tall + PAD_PX + LINE_PX * max(map(len, said)) + PAD_PX for said in lines]
    sheet = Image.new("RGB", (ruler + columns * (wide + PAD_PX) + PAD_PX, sum(heights) + PAD_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = PAD_PX
    for row, said, height in zip(rows, lines, heights):
        if pixels_per_m:
            paper = ruled(tall, sheet.width - ruler, pixels_per_m)
            sheet.paste(Image.fromarray(paper), (ruler, top))
            for i in range(int(tall / pixels_per_m / RULE_M) + 1):
                y = top + tall - 1 - round(i * RULE_M * pixels_per_m)
                pen.text((4, max(y - 7, 0)), f"{i * RULE_M:g} m", INK, font)
        for i, (tile, text) in enumerate(zip(row, said)):
            x = ruler + PAD_PX + i * (wide + PAD_PX)
            if tile.picture is None:
                pen.rectangle((x, top, x + wide - 1, top + tall - 1), outline=CLAY)
            else:
                at = (x + (wide - tile.picture.shape[1]) // 2, top + tall - tile.picture.shape[0])
                sheet.paste(Image.fromarray(tile.picture), at)
            for j, (line, title) in enumerate(text):
                colour = INK if title else CLAY if tile.alarm else (110, 105, 98)
                pen.text((x, top + tall + PAD_PX + j * LINE_PX), line, colour, font)
        top += height
    return np.array(sheet)


def wrap(words: list[str], wide: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[tuple[str, bool]]:
    """(line, belongs to the title) no wider than ``wide`` px, a word longer than that being cut."""
    return [(line, i == 0) for i, text in enumerate(words) for line in _lines(text, wide, font)]


def _lines(text: str, wide: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= wide:
            line = longer
            continue
        if line:
            yield line
        while font.getlength(word) > wide:
            fits = next(n for n in range(len(word) - 1, 0, -1) if font.getlength(word[:n]) <= wide)
            yield word[:fits]
            word = word[fits:]
        line = word
    if line:
        yield line


def _rows(picture: np.ndarray) -> int:
    return int(picture.shape[0])
