"""Numbers -> charts as inline SVG that take the page's ink, so that one file reads in light and in dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.diversity import Marginal

# matplotlib cannot write `currentColor`; this ink never occurs otherwise and is swapped for it afterwards.
INK = "#010203"
SERIES = ("#c96442", "#3f8cb5", "#7a9a4c", "#a678b8", "#c9992e")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "maquette",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}
SIZE = (4.4, 2.5)


def histogram(values: Sequence[float], label: str, bins: int | Sequence[float] = 18) -> str:
    """SVG of how often ``values`` occur. ``label``: quantity with its unit."""
    figure, axes = _new()
    axes.hist(np.asarray(values, float), bins=bins, color=SERIES[0], alpha=0.85, rwidth=0.94)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, f"histogram: {label}")


def against(values: np.ndarray, threshold: float, label: str) -> str:
    """SVG of how often ``values`` (N,) occur, NaN left out, and a line at ``threshold``; the far hundredth is cut off."""
    figure, axes = _new()
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [0.5, 99.5])
    low, high = min(low, threshold), max(high, threshold)
    pad = 0.04 * (high - low) or 1.0
    axes.hist(known, bins=np.linspace(low - pad, high + pad, 29), color=SERIES[0], alpha=0.85, rwidth=0.94)
    axes.axvline(threshold, color=INK, linewidth=1.4)
    axes.set_xlabel(f"{label}, line at {threshold:g}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, f"histogram: {label}, threshold {threshold:g}")


def bars(counts: Mapping[str, float], label: str, asked: np.ndarray | None = None) -> str:
    """SVG of one horizontal bar per name, the number at its end; ``asked``: (N,) shares of the sum, marked by lines."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], max(1.2, 0.38 * len(counts) + 0.6)))
        axes = figure.subplots()
    names = list(counts)[::-1]
    drawn = axes.barh(names, [counts[n] for n in names], color=SERIES[0], alpha=0.85, height=0.62)
    axes.bar_label(drawn, padding=4, fmt="%g", color=INK)
    if asked is not None:
        middle = np.arange(len(names))[::-1]
        axes.vlines(asked * sum(counts.values()), middle - 0.4, middle + 0.4, color=INK, linewidth=1.6)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.14)
    return _svg(figure, f"bars: {label}")


def marginal(m: Marginal) -> str:
    """SVG of what was got as bars, with what was asked as an outline over them."""
    if m.labelled:
        return bars({str(n): int(c) for n, c in zip(m.names, m.got)}, m.unit, m.asked)
    figure, axes = _new()
    edges = np.asarray(m.names, float)
    axes.bar(edges[:-1], m.got, np.diff(edges) * 0.94, align="edge", color=SERIES[0], alpha=0.85)
    if m.asked is not None:
        axes.stairs(m.asked * m.got.sum(), edges, color=INK, linewidth=1.4)
    axes.set_xlabel(m.unit)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, f"histogram: {m.title}, {m.unit}")


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, log: bool = False) -> str:
    """SVG of smoothed lines over their raw values. ``lines``: name -> (x values, y values)."""
    figure, axes = _new()
    for (name, (at, values)), colour in zip(lines.items(), SERIES * len(lines)):
        axes.plot(at, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(at, smooth(np.asarray(values, float)), color=colour, linewidth=1.6, label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if log:
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend()
    return _svg(figure, f"curve: {y} over {x}")


def laws(series: Mapping[str, tuple[Sequence[tuple[float, float]], Any]], x: str, y: str) -> str:
    """SVG of measured points, and of the power law through each series with the band of its interval, both axes logarithmic.

    ``series``: name -> ((x, y) points, the law's `scale`, `exponent`, `floor` and `band` of (x, low, high), or None).
    """
    figure, axes = _new()
    for (name, (points, law)), colour in zip(series.items(), SERIES * len(series)):
        at, values = np.array(points, float).T
        axes.plot(at, values, "o", color=colour, markersize=3.5, alpha=0.7, label=name)
        if law is not None:
            grid = np.geomspace(at.min(), at.max(), 40)
            axes.plot(grid, law["floor"] + law["scale"] * grid ** -law["exponent"], color=colour, linewidth=1.4)
            if law["band"]:
                places, low, high = np.array(law["band"]).T
                axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    every = np.concatenate([np.array(p, float) for p, _ in series.values()])
    sizes = sorted(set(every[:, 0]))
    axes.set_xticks(sizes, [f"{s:g}" for s in sizes])
    ticks = np.geomspace(every[:, 1].min(), every[:, 1].max(), 4)
    axes.set_yticks(ticks, [f"{t:.3g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    return _svg(figure, f"power law: {y} over {x}")


def smooth(values: np.ndarray, window: int = 0) -> np.ndarray:
    """Centred running mean, (N,) float; ``window`` 0: a twentieth of the length. Edges average what they have."""
    width = window or max(1, len(values) // 20)
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _new() -> tuple[Figure, matplotlib.axes.Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        return figure, figure.subplots()


def _svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element: no document type, no metadata with outside addresses, ink = the text's colour."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.04)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    # matplotlib numbers its groups from 1 in every figure; nothing refers to them.
    text = re.sub(r'<g id="\w+_\d+"', "<g", text)
    # The page's own fonts and width: the size in points would fix it.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{html.escape(title)}"', text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
