"""Hair without a picture: what a style's parameters do to strands, and who has which style, colour, grey and baldness."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import manifests.hair
from manifests.bodies import BodyPrior
from manifests.hair import HairPrior
from manifests.seeds import generator
from render.assets.anny import _studio
from render.groundtruth.fibres import Fibres
from render.people import hair as barber
from render.people import hair_look
from render.people.body import groups
from render.people.hair import cover
from render.people.hair_gather import TIES, gathered
from render.people.hair_grow import Head, Room, grow
from render.people.hair_look import DENSITY, POINTS_A_TURN, WAVE_M, HairLook, _cut, _dense, _grey, draw_hair
from render.people.hair_scalp import Scalp, eyes_and_size, hairline
from render.people.hair_styles import BEARDS, STYLES
from render.people.shape import draw_shape
from render.people.shell import normals_of
from render.scene import Material

pytestmark = pytest.mark.engine
# Least share of the skin where hair is at its full density that strands hide from eyes round it, for styles that stand for
# the others; what shows between them is tinted. A buzz cut is 5 to 7 mm long: most of what is seen of it is the tint.
HIDDEN = {"buzz": 0.3} | dict.fromkeys(
    ("crop", "side_part", "coils", "afro", "bob", "wavy", "ponytail", "braids"), 0.88
)


@pytest.fixture(scope="module")
def scalp() -> Scalp:
    return Scalp(_studio()[0].template, groups(), _studio()[0].skull)


@pytest.fixture(scope="module")
def head(scalp):
    """The template's head, and 1500 roots on it with their normals."""
    points = scalp.matrix @ _studio()[0].template
    normals = normals_of(points, scalp.quads)
    eye, size = eyes_and_size(_studio()[0].template, groups())
    used = points[scalp.used]
    room = Room(used, normals[scalp.used], used.min(0) - 0.14, used.max(0) + 0.14)
    roots = scalp.roots(np.random.default_rng(0), 1500, np.clip(hairline(scalp.at) / 0.05, 0, 1))
    return Head(eye, size, room, np.array([0, 0, -1.0])), scalp.on(roots, points), scalp.on(roots, normals)


def grown(head, name: str, **changed) -> np.ndarray:
    """(N, K, 3) of a style in head coordinates."""
    style = STYLES[name]
    assert style is not None
    style = dataclasses.replace(style, **changed)
    return head[0].at((gathered if style.gather else grow)(style, *head, np.random.default_rng(1)))


@pytest.mark.parametrize("name", ["fringe_bob", "long_fringe"])
def test_a_fringe_ends_at_the_brows_and_leaves_the_eyes_free(head, name):
    strands = grown(head, name)
    # Those that end before the forehead; brows are at 0.10 to 0.21, the eyes at 0.
    ends = strands[:, -1]
    fringe = ends[(ends[:, 1] < 0.1) & (np.abs(ends[:, 0]) < 0.45) & (ends[:, 2] > -0.5)]
    assert len(fringe) > 60
    assert 0.1 < np.median(fringe[:, 2]) < 0.3
    assert (fringe[:, 2] > 0.02).mean() > 0.97
    bare = grown(head, "bob")[:, -1]
    assert ((bare[:, 1] < 0.1) & (np.abs(bare[:, 0]) < 0.45) & (bare[:, 2] > -0.5)).sum() < 0.1 * len(fringe)


def test_hair_parts_where_the_style_says(head):
    for part in (0.28, -0.28):
        strands = grown(head, "side_part", part=part)
        root = strands[:, 0]
        # On the top, behind the forelock and before the crown, where the parting runs.
        top = (root[:, 2] > 0.7) & (root[:, 1] > 0.15) & (root[:, 1] < 0.6) & (np.abs(root[:, 0]) < 0.5)
        assert top.sum() > 100

        def crossing(line: float, s=strands[top]) -> float:
            middle = line * (1 - 0.4 * np.clip((s[..., 1] + 0.1) / 0.9, 0, 1))
            return float((np.sign(s[:, 0, 0] - middle[:, 0]) != np.sign(s[:, -1, 0] - middle[:, -1])).mean())

        assert crossing(part) < 0.08, crossing(part)
        assert crossing(-part) > 3 * crossing(part), "hair crosses where the parting is not"


@pytest.mark.parametrize("name", ["wavy", "curly_short", "ponytail", "bun"])
def test_waves_are_as_wide_as_curl(head, name):
    extra = {"points": 60, "pitch": 0.035} if STYLES[name].gather else {}

    def wide(curl: float) -> float:
        """Mean distance, metres, of the second halves of strands from the same without curl."""
        strands, straight = grown(head, name, curl=curl, **extra), grown(head, name, curl=1e-9, **extra)
        k = strands.shape[1] // 2
        return float(np.linalg.norm(strands[:, k:] - straight[:, k:], axis=2).mean() * head[0].size)

    one, two = wide(0.004), wide(0.008)
    assert one == pytest.approx(0.004, rel=0.25)
    assert two == pytest.approx(2 * one, rel=0.2)


def test_hair_of_african_shape_curls_when_it_is_tied_and_plaits_do_not_change():
    for name in ("ponytail", "bun", "top_bun"):
        curly, straight = (_cut(np.random.default_rng(2), STYLES[name], 30.0, a) for a in (1.0, 0.0))
        assert straight.curl == 0 < curly.curl
        assert (curly.points - 12) * curly.pitch / curly.back >= 5, "points enough for its turns"
        # No more than half again as dear as an afro, which has the most points.
        assert curly.points * curly.count < 1.5 * STYLES["afro"].points * STYLES["afro"].count
    assert _cut(np.random.default_rng(2), STYLES["braids"], 30.0, 1.0) == _cut(
        np.random.default_rng(2), STYLES["braids"], 30.0, 0.0
    )


def test_tied_hair_hangs_from_its_tie_and_lengths_go_by_style(head):
    tail, braids = grown(head, "ponytail"), grown(head, "braids")
    assert tail[:, -1, 1].min() > 1.0
    assert (tail[:, -1, 2] < TIES["ponytail"][2] - 1).mean() > 0.9
    ends = braids[:, -1]
    assert (ends[:, 2] < TIES["braids"][2] - 1).mean() > 0.95
    # One plait a side, of the roots on that side.
    assert (np.sign(ends[:, 0]) == np.sign(braids[:, 0, 0])).mean() > 0.95
    reach = [np.linalg.norm(np.diff(grown(head, n), axis=1), axis=2).sum(axis=1).mean() for n in ORDER]
    assert (np.diff(reach) > 0).all(), dict(zip(ORDER, reach))


ORDER = ("buzz", "crop", "pixie", "bob", "long")


def test_each_has_a_density_of_their_own_that_changes_nothing_else():
    style = STYLES["long"]
    assert style is not None
    made = [_dense(np.random.default_rng(i), style, 30.0) for i in range(300)]
    share = np.array([m.count for m in made]) / style.count
    assert share.mean() < 1
    assert share.std() > 0.07
    assert DENSITY[0] - 0.001 <= share.min() < 0.82
    assert 1.1 < share.max() <= DENSITY[1] + 0.001
    # Fewer are thicker: the cut area stays, so that no scalp shows.
    area = [m.count * m.width**2 for m in made]
    assert area == pytest.approx(np.full(300, style.count * style.width**2), rel=1e-3)
    old = [_dense(np.random.default_rng(i), style, 80.0).count for i in range(300)]
    assert np.mean(old) == pytest.approx(0.88 * np.mean([m.count for m in made]), rel=0.01)
    assert all(dataclasses.replace(m, count=style.count, width=style.width) == style for m in made)


def someone(style: str) -> tuple[HairLook, object]:
    shape = draw_shape(generator(3, "identity", 0), BodyPrior(age_years={"20-40": 1}, sex={"female": 1}))
    look = draw_hair(generator(4, "hair", 0), shape, False, HairPrior(female={style: 1}))
    look = dataclasses.replace(look, style=STYLES[style], recede=0.0)
    return look, _studio()[0].posed(shape.phenotype, {}, shape.changes)


def hidden(scalp: Scalp, name: str, rays: int = 1000) -> float:
    """Share of the skin with all its hair that strands hide, seen from six sides at eye level and six from above."""
    look, posed = someone(name)
    (hair, *_) = _studio()[1]._barber.groom(look, posed, [], None)
    assert hair.name == "hair"
    points = scalp.matrix @ posed.vertices
    normals = normals_of(points, scalp.quads)
    roots = scalp.roots(np.random.default_rng(0), rays, (cover(look, scalp.at) > 0.95).astype(float))
    at, n = scalp.on(roots, points), scalp.on(roots, normals)
    # Rays are exact near their origin alone: 1.2 m away.
    middle = at.mean(axis=0)
    fibres = Fibres(hair.points - middle, hair.radius)
    met = []
    for azimuth in np.arange(6) * np.pi / 3:
        for elevation in (0.05, 0.6):
            eye = 1.2 * np.array(
                [*(np.array([np.sin(azimuth), -np.cos(azimuth)]) * np.cos(elevation)), np.sin(elevation)]
            )
            ways = at - middle - eye
            ways = ways[np.einsum("nc,nc->n", n, ways) < -0.3 * np.linalg.norm(ways, axis=1)]
            met.append(fibres.first_hits(eye, ways, np.ones(len(ways)))[0] >= 0)
    return float(np.concatenate(met).mean())


@pytest.mark.parametrize("name", HIDDEN)
def test_strands_hide_the_scalp(scalp, name, monkeypatch):
    none = np.zeros((0, 3)), np.zeros((0, 4), np.int32), np.zeros((0, 3))
    monkeypatch.setattr(barber, "hull", lambda *_: none)
    assert hidden(scalp, name) > HIDDEN[name]
    if name == "bob":
        # And of the thinnest hair, with its thicker strands, nearly as much.
        share = DENSITY[0]
        thin = dataclasses.replace(
            STYLES[name], count=round(STYLES[name].count * share), width=STYLES[name].width / share**0.5
        )
        monkeypatch.setitem(STYLES, name, thin)
        assert hidden(scalp, name) > HIDDEN[name] - 0.05


def test_grey_is_as_common_and_as_much_as_was_counted():
    """Panhard et al. 2012, of 4192 people; some grey: more than one hair in a hundred."""
    rng = np.random.default_rng(0)

    def of(low: float, high: float) -> tuple[float, float, float]:
        share = np.array([_grey(rng, rng.uniform(low, high), 1.0) for _ in range(4000)])
        some = share > 0.01
        return some.mean(), share[some].mean(), (share >= 0.5).mean()

    some, much, _ = of(45, 65)
    assert some == pytest.approx(0.74, abs=0.04)
    assert much == pytest.approx(0.27, abs=0.03)
    assert of(56, 60)[0] == pytest.approx(0.86, abs=0.04)
    assert of(61, 65)[1] == pytest.approx(0.40, abs=0.05)
    assert 0.05 < of(50, 50.1)[2] < 0.23
    assert of(20, 30)[0] < 0.08
    some, much, half = of(80, 90)
    assert some > 0.97
    assert min(much, half) > 0.65
    assert _grey(rng, 17.0, 1.0) == 0
    assert _grey(rng, 90.0, 0.0) == 0


def test_every_style_grows_outside_the_head_from_its_roots(head):
    where, roots, normals = head
    grown = {}
    for name, style in STYLES.items():
        if style is None:
            continue
        make = gathered if style.gather else grow
        strands = make(style, where, roots, normals, np.random.default_rng(1))
        assert np.isfinite(strands).all(), name
        assert np.abs(strands[:, 0] - roots).max() < 1e-9, name
        # The template ends at the neck, and with it what hair has to stay out of.
        points = strands[:, 1:].reshape(-1, 3)
        inside = where.room(points[where.at(points)[:, 2] > -0.9])[0] < -0.002
        assert inside.mean() < 0.02, (name, inside.mean())
        grown[name] = strands
    reach = {k: float(np.linalg.norm(s[:, -1] - s[:, 0], axis=1).mean()) for k, s in grown.items()}
    assert reach["buzz"] < 0.01 < reach["crop"] < reach["bob"] < reach["long"]
    ends = {k: s[:, -1] - where.eye for k, s in grown.items()}
    # An afro stands off all round; long hair hangs; what is tied ends in one place.
    assert np.ptp(ends["afro"][:, 0]) > np.ptp(ends["crop"][:, 0]) + 0.06
    assert np.median(ends["long"][:, 2]) < -0.15
    assert ends["bun"].std(axis=0).max() < 0.05
    assert len(STYLES) >= 12
    assert tuple(STYLES) == manifests.hair.STYLES
    assert tuple(BEARDS) == manifests.hair.BEARDS


def drawn(count: int, prior: HairPrior | None = None, **body):
    bodies_prior = BodyPrior(**body)
    shapes = [draw_shape(generator(3, "identity", j), bodies_prior) for j in range(count)]
    return [(s, draw_hair(generator(4, "hair", j), s, False, prior or HairPrior())) for j, s in enumerate(shapes)]


def test_hair_goes_by_age_and_sex_and_seed():
    people = drawn(600)
    again = drawn(5)
    assert [h for _, h in people[:5]] == [h for _, h in again]
    for shape, hair in people:
        if hair.beard is not None:
            assert shape.sex == "male"
            assert shape.age_years >= 18
        if shape.age_years < 18:
            assert hair.style is not None
            assert hair.grey == 0
        if shape.sex == "female":
            assert hair.crown == 0
        if shape.age_years < 14:
            assert hair.color == hair.own_color
    grey = lambda low, high: np.mean([h.own_grey for s, h in people if low <= s.age_years < high])  # noqa: E731
    assert grey(0, 30) < 0.1 < grey(45, 60) < grey(70, 90)
    men = [(s, h) for s, h in people if s.sex == "male"]
    loss = lambda low, high: np.mean([h.recede for s, h in men if low <= s.age_years < high])  # noqa: E731
    assert loss(18, 30) < loss(40, 60) < loss(65, 90)
    adults = [h for s, h in people if s.age_years >= 14]
    dyed = np.mean([h.color != h.own_color for h in adults])
    assert 0.02 < dyed < 0.09
    assert len({h.name for _, h in people}) >= 16


def test_baldness_goes_from_the_crown_over_the_forelock_and_leaves_a_wreath():
    # Head coordinates: the crown, the forelock, and above both ears.
    at = np.array([[0.0, 0.75, 0.95], [0.0, 0.1, 0.85], [0.62, 0.85, 0.2], [-0.62, 0.85, 0.2]])
    (_, someone), *_ = drawn(1, sex={"male": 1}, age_years={"60-61": 1})
    left = np.array([barber.cover(dataclasses.replace(someone, recede=0.0, crown=c), at) for c in (0.0, 0.3, 0.6, 1.0)])
    assert (np.diff(left[:, :2], axis=0) <= 0).all()
    assert left[0, :2].min() > 0.9
    assert left[1, 0] < 0.1 < 0.9 < left[1, 1], "the crown goes first"
    assert left[3, :2].max() < 0.1
    assert left[:, 2:].min() > 0.9


def test_what_is_left_round_a_bare_crown_is_short_and_no_denser_than_hair_was(monkeypatch):
    crop = HairPrior(male={"crop": 1}, beards={"none": 1})
    found = {}
    for crown in (0.0, 0.5, 1.0):
        monkeypatch.setattr(hair_look, "_loss", lambda *_, crown=crown: (0.2, crown))
        ((shape, someone),) = drawn(1, crop, sex={"male": 1}, age_years={"60-61": 1})
        posed = _studio()[0].posed(shape.phenotype, {}, shape.changes)
        (hair, *_) = _studio()[1]._barber.groom(someone, posed, [], None)
        assert hair.name == "hair"
        found[crown] = someone.style, len(hair.points)
    whole, half, wreath = (found[c] for c in (0.0, 0.5, 1.0))
    for name in ("top", "side", "back", "front", "volume"):
        assert getattr(wreath[0], name) < 0.5 * getattr(whole[0], name)
    assert whole[1] == whole[0].count
    assert 0.5 * whole[1] < half[1] < 0.95 * whole[1]
    assert 0.2 * whole[1] < wreath[1] < 0.6 * whole[1]


def test_a_shaven_head_shows_its_roots_where_hair_would_grow():
    charts = _studio()[1].complexions
    people = drawn(40, HairPrior(male={"bald": 1}, beards={"none": 1}), sex={"male": 1}, age_years={"20-30": 1})
    _, someone = next((s, h) for s, h in people if s.skin_tone <= 3 and h.crown == 0 and max(h.own_color) < 0.2)
    skin = Material("head", (1, 1, 1))
    skin.base_color_texture = np.full((*charts.at.shape[:2], 4), 200, np.uint8)
    skin.roughness_texture = np.full_like(skin.base_color_texture, 128)
    shown = barber.tinted(skin, someone, charts.at).base_color_texture[..., 0].astype(float)
    above = hairline(charts.at.reshape(-1, 3), someone.recede).reshape(shown.shape)
    low = (charts.at[..., 2] > 0.2) & (charts.at[..., 1] < 0.1) & (above < -0.1) & (charts.at[..., 2] < 0.5)
    grown = (above > 0.2) & (charts.at[..., 1] < 1.2) & (charts.at[..., 2] > 0.5)
    assert min(low.sum(), grown.sum()) > 200
    assert 110 < np.median(shown[grown]) < 185, "a shadow, no hair"
    assert (shown[low] == 200).mean() > 0.97


def test_shares_are_what_the_job_asked():
    from scipy import stats

    prior = HairPrior(female={"bob": 3, "long": 1}, beards={"none": 1, "full": 1})
    women = drawn(400, prior, sex={"female": 1}, age_years={"20-40": 1}, ancestry={"asian": 1})
    names = [h.name for _, h in women]
    assert stats.chisquare([names.count("bob"), names.count("long")], [300, 100]).pvalue > 1e-3
    men = drawn(400, prior, sex={"male": 1}, age_years={"18-60": 1})
    full = sum(h.beard_name == "full" for _, h in men)
    assert abs(full - 200) < 40
    with pytest.raises(ValueError, match="mohawk"):
        HairPrior(male={"mohawk": 1})


def test_long_straight_hair_waves_with_points_enough_and_a_bald_head_draws_as_much_as_any():
    def rng() -> np.random.Generator:
        return np.random.default_rng(4)

    after = []
    for name in ("bald", "crop", "bob", "long"):
        drawn = rng()
        _cut(drawn, STYLES[name], 30.0, 0.0)
        after.append(drawn.random())
    assert len(set(after)) == 1
    waved = [
        s for s in (_cut(np.random.default_rng(k), STYLES["long"], 30.0, 0.0) for k in range(200)) if s is not None
    ]
    assert len(waved) == 200
    assert all(0 < s.curl <= WAVE_M for s in waved)
    turns = [max(s.top, s.side, s.back) / s.pitch for s in waved]
    assert min((s.points - 1) / t for s, t in zip(waved, turns)) >= POINTS_A_TURN
    crop = _cut(rng(), STYLES["crop"], 30.0, 0.0)
    assert crop is not None
    assert crop.curl == 0
