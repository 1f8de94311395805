"""Roots on a head and a style -> strands: grown step by step along a comb's flow and gravity, outside body and cloth.

Legend: N strands, K points of each. Frame of the head: x left, y backwards, z up, metres; `at` is in head coordinates.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

VOXEL_M, REACH_M = 0.006, 0.035
# A comb's hold on a strand falls to a third in this length.
COMB_M = 0.09
# And it keeps its direction over about this length.
STIFF_M = 0.018
# Share of hairs that no lock holds, and how much of its way a lock bends aside, over BEND_M and from SHORT_M on.
STRAY, BENT, BEND_M, SHORT_M = 0.03, 0.022, 0.11, 0.03
# How much the thickness of the layer differs over a head, as a logarithm.
TUFTS = 0.3


@dataclasses.dataclass(frozen=True)
class Style:
    """How hair is cut and combed. Lengths in metres on a head of 0.12 m from eyes to crown.

    ``top``, ``side``, ``back``, ``front``: lengths. ``lift``: how steeply hair leaves the skin, 0 to 1. ``comb``, ``fall``:
    pull of the comb and of gravity. ``volume``: thickness of the layer. ``part``: where hair parts, x in head
    coordinates. ``sweep``: front hair is combed back (1), aside (0) or forward (-1). ``curl``, ``pitch``: radius and length
    of a turn. ``frizz``: how far single hairs stray. ``clump``: how much locks draw together. ``gather``: "", "bun",
    "top_bun", "ponytail", "braids". ``points``: K. ``count``: N. ``width``: thickness of a strand, for 5 hairs.

    Hair that is gathered goes by ``back``, the length from the tie on, ``volume``, the layer on the head, and ``curl``,
    ``pitch`` and ``frizz`` from the tie on, where it is not plaited; ``lift``, ``comb``, ``fall``, ``part``, ``sweep`` and
    ``clump`` have no say in it.
    """

    top: float
    side: float
    back: float
    front: float
    lift: float = 0.35
    comb: float = 1.0
    fall: float = 0.6
    volume: float = 0.012
    part: float = 0.0
    sweep: float = 0.0
    curl: float = 0.0
    pitch: float = 0.05
    frizz: float = 0.12
    clump: float = 0.5
    gather: str = ""
    points: int = 14
    count: int = 14000
    width: float = 0.00025


class Room:
    """How far points are outside a body and its cloth, on a grid round them."""

    def __init__(self, points: np.ndarray, normals: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """``points``, ``normals``: (P, 3) of the surfaces. ``low``, ``high``: (3,) corners of the room."""
        self._low = low
        size = np.ceil((high - low) / VOXEL_M).astype(int) + 1
        near = ((points > low - REACH_M) & (points < high + REACH_M)).all(axis=1) & (np.abs(normals).sum(axis=1) > 0)
        surface, normals = points[near], normals[near]
        # One point of the surface a voxel; every other voxel measures from the plane through the nearest of them.
        cell = np.clip(np.rint((surface - low) / VOXEL_M).astype(int), 0, size - 1)
        owner = np.full(size, -1)
        owner[tuple(cell.T)] = np.arange(len(surface))
        far, nearest = distance_transform_edt(owner < 0, return_indices=True)
        i = owner[tuple(nearest)]
        axes = np.meshgrid(*(low[c] + np.arange(size[c]) * VOXEL_M for c in range(3)), indexing="ij", sparse=True)
        gap = [axes[c] - surface[i, c] for c in range(3)]
        side = gap[0] * normals[i, 0] + gap[1] * normals[i, 1] + gap[2] * normals[i, 2]
        length = np.sqrt(gap[0] ** 2 + gap[1] ** 2 + gap[2] ** 2)
        # Near a point its plane is the better measure, far from it the point itself.
        value = np.where(length < 2 * VOXEL_M, side, np.sign(side) * length)
        value = np.where(far * VOXEL_M < REACH_M, np.clip(value, -REACH_M, REACH_M), np.sign(side) * REACH_M)
        self.distance = gaussian_filter(value.astype(np.float32), 1.0)
        self._gradient = np.stack(np.gradient(self.distance, VOXEL_M))

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) metres outside, and (N, 3) unit directions away from the body."""
        where = ((points - self._low) / VOXEL_M).T
        value = map_coordinates(self.distance, where, order=1, mode="nearest")
        away = np.stack([map_coordinates(g, where, order=1, mode="nearest") for g in self._gradient], axis=1)
        # Out of reach of the body there is no way from it.
        return value, away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 0.3)

    def out(self, points: np.ndarray, floor: np.ndarray | float) -> np.ndarray:
        """``points`` (N, 3) brought at least ``floor`` metres outside."""
        value, away = self(points)
        return points + np.maximum(floor - value, 0)[:, None] * away


@dataclasses.dataclass
class Head:
    """``eye``: (3,), ``size``: metres from it to the crown. ``room``: what hair stays out of. ``down``: (3,) gravity."""

    eye: np.ndarray
    size: float
    room: Room
    down: np.ndarray

    def at(self, points: np.ndarray) -> np.ndarray:
        """Head coordinates of (..., 3) metres."""
        return (points - self.eye) / self.size


def grow(style: Style, head: Head, roots: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, K, 3) metres from ``roots`` (N, 3) with skin ``normals`` (N, 3)."""
    n, k = len(roots), style.points
    at = head.at(roots)
    length = lengths(style, at) * head.size / 0.12 * np.clip(rng.normal(1, 0.12, n), 0.5, 1.4)
    step = (length / (k - 1))[:, None]
    # Strands lie in layers: those underneath close to the skin.
    layer = rng.random(n)
    # Fly-aways lie over the others, up to twice as far out; short hair has none.
    stray = (rng.random(n) < STRAY) & (length > SHORT_M)
    # No head of hair is equally thick all over: as thick as a cap, it looks like one.
    layer *= np.exp(np.clip(TUFTS * smooth_noise(rng, at, 0.13, 1)[:, 0], -0.6, 0.6) - TUFTS**2 / 2)
    layer[stray] = 1 + rng.random(stray.sum()) ** 2
    lean = smooth_noise(rng, at, 0.22, 3) * 0.35 + smooth_noise(rng, at, 0.06, 3) * 0.25
    flow = _flow(style, at, normals)
    d = unit(normals * style.lift + flow * (1 - style.lift) + lean * 0.5)
    p, out = roots.copy(), [roots]
    for i in range(1, k):
        t = i / (k - 1)
        _, away = head.room(p)
        flow = _flow(style, head.at(p), away)
        # The comb holds over the skull; gravity takes over along a strand.
        held = np.exp(-(i * step / (COMB_M * head.size / 0.12)))
        pull = style.comb * held * flow + style.fall * (0.3 + 1.2 * (1 - held)) * head.down
        pull += style.lift * held**2 * 0.8 * away + lean * held * (0.3 + 0.4 * style.frizz)
        pull += _clear_of_face(style, head.at(p))
        # A strand turns over centimetres, however many steps it is grown in.
        stiff = np.exp(-step / (STIFF_M * head.size / 0.12))
        d = unit(d * stiff + pull * (1 - stiff) + rng.normal(0, style.frizz * 0.1, (n, 3)))
        p = p + step * d
        floor = 0.0012 + style.volume * layer * min(1.0, 3 * t) * head.size / 0.12
        value, away = head.room(p)
        p = p + np.maximum(floor - value, 0)[:, None] * away
        inward = np.einsum("nc,nc->n", d, away)
        d = unit(d - np.where(value < floor, np.minimum(inward, 0), 0)[:, None] * away)
        out.append(p)
    strands = np.stack(out, axis=1)
    if style.sweep < -0.9:
        strands = _trimmed(strands, head.at(strands), rng)
    strands = np.where(stray[:, None, None], strands, _clumped(style, strands, at, rng))
    strands = _bent(strands, at, stray, rng)
    strands = curled(style, strands, rng)
    flat = strands[:, 1:].reshape(-1, 3)
    # On the shoulders hair lies some millimetres thick, and cloth has less detail than the room: thinner, half of it sank in.
    past = np.clip(step * np.arange(1, k) / (head.size / 0.12) / 0.06 - 1.7, 0, 1)
    floor = 0.0008 + past * (0.003 + 0.006 * layer[:, None])
    strands[:, 1:] = head.room.out(flat, floor.ravel()).reshape(n, k - 1, 3)
    return strands


def lengths(style: Style, at: np.ndarray) -> np.ndarray:
    """(N,) metres, by where on the head (N, 3) a root is."""
    top = np.clip((at[:, 2] - 0.35) / 0.35, 0, 1)
    back = np.clip((at[:, 1] - 0.7) / 0.4, 0, 1)
    front = np.clip((0.30 - at[:, 1]) / 0.25, 0, 1) * np.clip((at[:, 2] - 0.3) / 0.2, 0, 1)
    around = style.side + (style.back - style.side) * back
    found = around + (style.top - around) * top
    return found + (style.front - found) * front


def _flow(style: Style, at: np.ndarray, away: np.ndarray) -> np.ndarray:
    """(N, 3) unit: where a comb leads hair at head coordinates ``at``, along the skin whose normal is ``away``."""
    # Hair flows away from the parting, a line from the forehead to the crown.
    start, end = np.array([style.part, -0.1, 0.72]), np.array([0.6 * style.part, 0.80, 1.05])
    t = np.clip((at - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    flow = unit(at - (start + t[:, None] * (end - start)))
    # A fringe is combed forward from further back: the hairline's own hair is too thin for one.
    deep = 0.45 if style.sweep > -0.9 else 0.75
    front = np.clip((deep - at[:, 1]) / 0.5, 0, 1) * np.clip((at[:, 2] - 0.25) / 0.3, 0, 1)
    side = np.sign(at[:, 0] - style.part) * np.minimum(np.abs(at[:, 0] - style.part) * 4 + 0.15, 1)
    wanted = np.stack(
        [side * (1 - abs(style.sweep)), np.full(len(at), style.sweep), np.zeros(len(at)) - 0.2 * (1 - style.sweep)],
        axis=1,
    )
    # Hair combed back goes back at the sides too: parted there, it stood out like wings.
    back = max(style.sweep, 0.0)
    flow = flow * (1 - 0.8 * back) + (front[:, None] * 1.6 + back) * wanted
    return unit(flow - np.einsum("nc,nc->n", flow, away)[:, None] * away)


def _clear_of_face(style: Style, at: np.ndarray) -> np.ndarray:
    """(N, 3): hair that is not a fringe goes round the face instead of over it."""
    if style.sweep < -0.5:
        return np.zeros_like(at)
    before = np.clip((0.36 - at[:, 1]) / 0.25, 0, 1) * np.clip((0.55 - at[:, 2]) / 0.3, 0, 1) * (at[:, 2] > -1.1)
    aside = np.clip((0.70 - np.abs(at[:, 0])) / 0.2, 0, 1) * np.sign(at[:, 0])
    return before[:, None] * np.stack([0.7 * aside, np.full(len(at), 0.9), np.zeros(len(at))], axis=1)


def _trimmed(strands: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands before the face cut at the brows, as a fringe is; ``at``: (N, K, 3) in head coordinates."""
    n, k = strands.shape[:2]
    before = (at[..., 1] < 0.22) & (np.abs(at[..., 0]) < 0.52)
    line = 0.20 + 0.25 * np.abs(at[..., 0]) ** 2 * -1 + rng.normal(0, 0.025, (n, 1))
    low = before & (at[..., 2] < line)
    cut = np.where(low.any(axis=1), low.argmax(axis=1), k - 1)
    # The last step before the line, then to the line itself.
    upper, lower = at[np.arange(n), np.maximum(cut - 1, 0), 2], at[np.arange(n), cut, 2]
    share = np.clip((upper - line[np.arange(n), cut]) / np.maximum(upper - lower, 1e-6), 0, 1)
    end = np.where(low.any(axis=1), cut - 1 + share, k - 1)
    return shortened(strands, np.maximum(end, 0.5) / (k - 1))


def shortened(strands: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(N, K, 3): of each strand (N, K, 3) the first ``share`` (N,) of its points' way."""
    n, k = strands.shape[:2]
    where = np.linspace(0, k - 1, k) * share[:, None]
    i = np.minimum(where.astype(int), k - 2)
    f = (where - i)[..., None]
    rows = np.arange(n)[:, None]
    return strands[rows, i] * (1 - f) + strands[rows, i + 1] * f


def _clumped(style: Style, strands: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands drawn to the lock they belong to, more towards their tips."""
    n, k = strands.shape[:2]
    if style.clump <= 0:
        return strands
    out = strands
    t = np.linspace(0, 1, k)
    for share, amount in ((90, 0.55), (22, 0.8)):
        count = max(n // share, 8)
        # Neighbours over a parting go different ways: where they end counts too.
        key = np.concatenate([at, 0.8 * (strands[:, -1] - strands[:, 0]) / np.ptp(strands[:, 0], axis=0).max()], axis=1)
        lock = cKDTree(key[:count]).query(key)[1]
        weight = style.clump * amount * t**1.3 * np.clip(rng.normal(1, 0.25, (n, 1)), 0, 1.2)
        toward = out[lock] - out
        # A lock keeps some of its width.
        out = out + toward * np.minimum(weight, 0.95)[..., None]
    return out


def _bent(strands: np.ndarray, at: np.ndarray, stray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands (N, K, 3) that bend aside and back as they hang, those of a neighbourhood alike, ``stray`` (N,) ones by themselves."""
    along, one, two = _frames(strands)
    phase = np.where(stray[:, None], rng.uniform(0, 2 * np.pi, (len(at), 2)), 2.2 * smooth_noise(rng, at, 0.14, 2))
    turns = 2 * np.pi * along / (BEND_M * np.exp(0.35 * smooth_noise(rng, at, 0.1, 1)))
    wide = BENT * np.maximum(along - SHORT_M, 0) * np.where(stray, 2.5, 1.0)[:, None]
    first, second = (np.sin(turns + phase[:, c : c + 1]) - np.sin(phase[:, c : c + 1]) for c in (0, 1))
    return strands + (wide * first)[..., None] * one + (wide * second)[..., None] * two


def curled(style: Style, strands: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands wound into helices round their own paths; those of a lock in step."""
    n = len(strands)
    if style.curl <= 0:
        return strands
    along, one, two = _frames(strands)
    root = strands[:, 0]
    centres = root[: max(n // 45, 4)]
    lock = cKDTree(centres).query(root)[1]
    phase = rng.uniform(0, 2 * np.pi, len(centres))[lock] + rng.normal(0, 0.3, n)
    pitch = style.pitch * np.clip(rng.normal(1, 0.12, len(centres)), 0.6, 1.5)[lock]
    radius = style.curl * np.clip(rng.normal(1, 0.2, len(centres)), 0.5, 1.6)[lock]
    angle = phase[:, None] + 2 * np.pi * along / pitch[:, None]
    grown = radius[:, None] * np.clip(along / 0.02, 0, 1)
    return strands + grown[..., None] * (np.cos(angle)[..., None] * one + np.sin(angle)[..., None] * two)


def _frames(strands: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, K) metres from the root along ``strands`` (N, K, 3), and two (N, K, 3) unit directions across them."""
    along = np.linalg.norm(np.diff(strands, axis=1, prepend=strands[:, :1]), axis=2).cumsum(axis=1)
    tangent = unit(np.gradient(strands, axis=1))
    one = unit(np.cross(tangent, [0.31, 0.87, 0.38]))
    return along, one, np.cross(tangent, one)


def smooth_noise(rng: np.random.Generator, at: np.ndarray, wavelength: float, channels: int) -> np.ndarray:
    """(N, channels) of about unit spread that changes over ``wavelength`` head units."""
    waves = rng.normal(0, 1 / wavelength, (12, 3))
    phase, weight = rng.uniform(0, 2 * np.pi, 12), rng.normal(0, 1 / np.sqrt(6), (12, channels))
    return np.sin(at @ waves.T + phase) @ weight


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)
