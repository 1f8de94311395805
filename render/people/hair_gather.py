"""Hair that is tied -> strands drawn along the head to a tie, and what hangs, winds or is plaited from there.

Legend: N strands, K points of each. Frame of the head: x left, y backwards, z up, metres.
"""

from __future__ import annotations

import numpy as np

from render.people.hair_grow import Head, Style, curled, unit

# Points of a strand up to the tie, where the rest of them are for its turns.
ALONG = 12


def gathered(style: Style, head: Head, roots: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, K, 3) metres from ``roots`` (N, 3) by ``style.gather``: "bun", "top_bun", "ponytail" or "braids"; ``normals`` as in ``grow``."""
    n, k = len(roots), style.points
    side = np.where(head.at(roots)[:, 0] > 0, 1.0, -1.0)
    at = np.array(TIES[style.gather])
    tie = head.eye + head.size * np.stack([side * at[0], np.full(n, at[1]), np.full(n, at[2])], axis=1)
    curly = style.curl > 0 and style.gather in LOOSE
    drawn = min(ALONG, k // 2) if curly else k // 2
    path = _along_head(head, roots, tie, drawn, style, rng)
    if style.gather == "braids":
        rest = _braids(style, head, tie, side, k - drawn, rng)
    else:
        rest = LOOSE[style.gather](style, head, path, tie, k - drawn, rng)
    if curly:
        # Over the skull it is drawn tight, from the tie on it curls.
        rest = curled(style, np.concatenate([path[:, -1:], rest], axis=1), rng)[:, 1:]
        rest = head.room.out(rest.reshape(-1, 3), 0.003).reshape(rest.shape)
    return np.concatenate([path, rest], axis=1)


def _along_head(
    head: Head,
    roots: np.ndarray,
    tie: np.ndarray,
    count: int,
    style: Style,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, count, 3): from each root over the skull to the tie."""
    centre = head.eye + head.size * np.array([0.0, 0.55, 0.25])
    a, b = roots - centre, tie - centre
    ra, rb = (np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    ua, ub = a / ra, b / rb
    angle = np.arccos(np.clip(np.einsum("nc,nc->n", ua, ub), -0.98, 1))[:, None]
    t = np.linspace(0, 1, count)
    layer = rng.random(len(roots))
    spread = rng.normal(0, 0.006, (len(roots), 3)) * head.size / 0.12
    out = []
    for s in t:
        # Great circles round the skull's middle.
        way = np.where(
            angle > 1e-3, (np.sin((1 - s) * angle) * ua + np.sin(s * angle) * ub) / np.sin(np.maximum(angle, 1e-3)), ub
        )
        p = centre + way * (ra * (1 - s) + rb * s) + spread * s
        p = head.room.out(p, 0.0012 + style.volume * (0.25 + 0.75 * layer) * np.sin(np.pi * min(s + 0.12, 0.5)))
        out.append(roots if s == 0 else p)
    return np.stack(out, axis=1)


def _bun(style: Style, head: Head, path, tie, count: int, rng) -> np.ndarray:
    """Wound round a ball at the tie."""
    n = len(path)
    radius = 0.26 * head.size * (style.back / 0.4) ** 0.4
    outward = unit(tie - (head.eye + head.size * np.array([0, 0.55, 0.3])))
    one = unit(np.cross(outward, [0.1, 0.3, 1.0]))
    two = np.cross(outward, one)
    start, turns = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.9, 1.6, n)
    tilt, shell = rng.uniform(0.25, 1.0, n), rng.uniform(0.78, 1.0, n) ** 0.5
    out = []
    for t in np.linspace(0.06, 1, count):
        angle = start + 2 * np.pi * turns * t
        ring = np.cos(angle)[:, None] * one + np.sin(angle)[:, None] * two
        rise = (tilt * np.sin(np.pi * t) + 0.1)[:, None]
        grow = min(1.0, 4 * t)
        p = tie + radius * grow * shell[:, None] * (
            ring * np.sqrt(np.maximum(1 - rise**2, 0.05)) + outward * (rise * 0.9 + 0.25)
        )
        out.append(p)
    return np.stack(out, axis=1)


def _ponytail(style: Style, head: Head, path, tie, count: int, rng) -> np.ndarray:
    """Hanging from the tie: a sheaf that first stands off the head."""
    n = len(path)
    length = style.back * head.size / 0.12 * np.clip(rng.normal(1, 0.1, n), 0.6, 1.2)
    outward = unit(tie - (head.eye + head.size * np.array([0, 0.55, 0.2])))
    spread = rng.normal(0, 1, (n, 3))
    p, d, out = path[:, -1], outward, []
    for i in range(1, count + 1):
        t = i / count
        d = unit(d + head.down * (0.55 + 0.5 * t) + spread * 0.05 + rng.normal(0, 0.06 * style.frizz, (n, 3)))
        p = p + d * (length / count)[:, None]
        middle = p.mean(axis=0)
        p = p + (middle - p) * 0.10 * (1 - t) + spread * 0.0016 * np.sin(np.pi * min(t + 0.15, 1)) * head.size / 0.12
        p = head.room.out(p, 0.003)
        out.append(p)
    return np.stack(out, axis=1)


def _braids(style: Style, head: Head, tie, side, count: int, rng) -> np.ndarray:
    """Two plaits over the shoulders: three locks, each on a figure of eight across the plait."""
    n = len(tie)
    length = style.back * head.size / 0.12
    lines: dict[float, np.ndarray] = {}
    for s in (-1.0, 1.0):
        p, d, plait = tie[side == s][:1], np.array([[0.5 * s, -0.15, -1.0]]), []
        for _ in range(count):
            d = unit(d + 0.6 * head.down + [0.05 * s, -0.12, 0])
            p = head.room.out(p + d * length / count, 0.013)
            plait.append(p[0])
        lines[s] = np.array(plait)
    lock = rng.integers(3, size=n)
    thin = np.linspace(1, 0.45, count)
    turns = length / 0.035
    phase = 2 * np.pi * (turns * np.arange(1, count + 1) / count)
    wide = 0.0085 * head.size / 0.12
    own = rng.normal(0, 0.0022, (n, 3))
    out = np.empty((n, count, 3))
    for s, line in lines.items():
        mine = np.flatnonzero(side == s)
        tangent = unit(np.gradient(line, axis=0))
        _, away = head.room(line)
        across = unit(np.cross(tangent, away))
        angle = phase[None] + 2 * np.pi / 3 * lock[mine, None]
        x, y = np.sin(angle) * wide * thin, np.sin(2 * angle) * 0.5 * wide * thin
        out[mine] = line + x[..., None] * across + y[..., None] * away + own[mine, None] * thin[:, None]
    return out


# Head coordinates of the tie; x is the side's, where hair is tied on both.
TIES = {
    "bun": (0.0, 1.42, 0.35),
    "top_bun": (0.0, 0.85, 1.08),
    "ponytail": (0.0, 1.40, 0.50),
    "braids": (0.42, 1.12, -0.42),
}
# From the tie on, where hair is not plaited.
LOOSE = {"bun": _bun, "top_bun": _bun, "ponytail": _ponytail}
