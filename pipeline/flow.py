"""A funnel -> a Sankey drawing: one stream of inputs, from which each reason's share branches off, as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT, TOP = 1080, 380, 14
# A branch of a few inputs among a million must still be seen.
THINNEST = 1.5
LEAST_GAP = 17


def sankey(steps: Sequence[tuple[str, int, int]]) -> str:
    """SVG of (reason, came in, went on) in order; steps that lost nothing are left out."""
    lost = [(name, came, went) for name, came, went in steps if came > went]
    if not steps or not steps[0][1]:
        return ""
    total = steps[0][1]
    thick = 0.5 * HEIGHT / total
    column = (WIDTH - 250) / max(1, len(lost))
    parts, x, came = [], 90.0, total
    last_y = 0.0
    for i, (name, came, went) in enumerate(lost):
        left, right = TOP + came * thick, TOP + went * thick
        x1 = x + column
        parts.append(_band(x, TOP, left, x1, TOP, right, "flow"))
        width = max(THINNEST, (came - went) * thick)
        # The branch leaves the stream's lower edge and ends where its name has room.
        end_x = x + 0.75 * column
        end_y = max(HEIGHT * 0.62 + LEAST_GAP * (i % 7), last_y if i % 7 else 0)
        last_y = end_y + width
        parts.append(_band(x, left - width, left, end_x, end_y, end_y + width, "out"))
        label = f"{html.escape(name)} {came - went:,}"
        parts.append(f'<text x="{end_x + 5:.1f}" y="{end_y + width / 2 + 4:.1f}">{label}</text>')
        x, came = x1, went
    kept = steps[-1][2]
    if kept:
        parts.append(_band(x, TOP, TOP + kept * thick, WIDTH - 110, TOP, TOP + kept * thick, "kept"))
    parts.append(f'<text x="0" y="{TOP + total * thick / 2 + 4:.1f}">{total:,} inputs</text>')
    parts.append(
        f'<text x="{WIDTH - 102}" y="{TOP + max(8.0, kept * thick / 2) + 4:.1f}" class="b">{kept:,} kept</text>'
    )
    return (
        f'<svg class="sankey" viewBox="0 0 {WIDTH} {HEIGHT + 150}" role="img" aria-label="inputs by reason">'
        + "".join(parts)
        + "</svg>"
    )


def _band(x0: float, a0: float, b0: float, x1: float, a1: float, b1: float, kind: str) -> str:
    """A ribbon from the stretch a0..b0 at x0 to a1..b1 at x1."""
    m = (x0 + x1) / 2
    path = f"M{x0:.1f} {a0:.1f}C{m:.1f} {a0:.1f} {m:.1f} {a1:.1f} {x1:.1f} {a1:.1f}"
    path += f"L{x1:.1f} {b1:.1f}C{m:.1f} {b1:.1f} {m:.1f} {b0:.1f} {x0:.1f} {b0:.1f}Z"
    return f'<path class="{kind}" d="{path}"/>'
