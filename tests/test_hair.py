"""Strand hair: two engines that agree on it, alpha that is right, smooth normals, no bald patches, and who has what hair."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from manifests import frames
from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.hair import BEARDS, STYLES, HairPrior
from manifests.job import Engine, Verify
from manifests.parts import ID
from manifests.seeds import generator
from render.assets.anny import AnnyPeople, _studio
from render.groundtruth import coverage, embree, verify
from render.groundtruth.fibres import Fibres
from render.people import hair as barber
from render.people import hair_look
from render.people.body import groups
from render.people.hair_gather import gathered
from render.people.hair_grow import Head, Room, grow
from render.people.hair_look import POINTS_A_TURN, WAVE_M, WHITE, _cut, draw_hair
from render.people.hair_scalp import Scalp, eyes_and_size, hairline
from render.people.hair_styles import BEARDS as CUTS
from render.people.hair_styles import STYLES as GROOMS
from render.people.identity import draw_look
from render.people.shape import draw_shape
from render.people.shell import normals_of
from render.placement import moved
from render.scene import EMPTY, Camera, Lighting, Material, PersonMesh, Scene, Strands
from render.strands import merged, merging, solid
from tests import bodies

pytestmark = pytest.mark.engine
STANDING = PosePrior(**dict.fromkeys(FAMILIES, 0.0) | {"standing": 1.0})


def one(style: str, sex: str = "female", beard: str = "none") -> PersonMesh:
    """A bareheaded adult in a style."""
    source = AnnySource(
        count=1,
        body=BodyPrior(age_years={"20-40": 1}, sex={sex: 1.0}),
        pose=STANDING,
        hair=HairPrior(**{sex: {style: 1}}, beards={beard: 1}, balding=0, greying=0),
        clothes={"hats": {"none": 1}},
    )
    return AnnyPeople(source, 7).load("0", generator(1, "pose", 0))


def close_up(person: PersonMesh, width: int = 96, height: int = 128, azimuth: float = 0.4) -> Camera:
    """The head from 1 m away, filling the frame."""
    middle = (person.landmarks["head_top"] + person.landmarks["chin"]) / 2
    eye = middle + np.array([np.sin(azimuth), -np.cos(azimuth), 0.1])
    focal = 2.6 * height
    return Camera(
        np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
        frames.look_at(eye, middle),
        width,
        height,
        "face",
    )


@pytest.fixture(scope="module")
def long_haired() -> PersonMesh:
    return one("long")


@pytest.fixture(scope="module")
def bearded() -> PersonMesh:
    return one("curly_short", "male", "full")


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Lighting:
    import cv2

    path = tmp_path_factory.mktemp("sky") / "sky.hdr"
    cv2.imwrite(str(path), np.full((16, 32, 3), 0.5, np.float32))
    return Lighting("sky", str(path), 0.0, 1.0, {})


@pytest.fixture(scope="module")
def shoot(light, tmp_path_factory):
    from render.blender.engine import BlenderEngine

    engine = BlenderEngine(Engine(samples=16, denoiser="none"), 1, tmp_path_factory.mktemp("engine"))

    def taken(people: list[PersonMesh], camera: Camera, samples: int, box=None, shadows: bool = False):
        import bpy

        bpy.context.scene.cycles.samples = samples
        scene = Scene(people, camera, light, 3, shadows=shadows)
        return engine.render(scene, None if shadows else box or embree.region(people, camera))

    return taken


def test_a_straight_strand_is_a_round_rod():
    points = np.array([[[-0.1, 0, 1.0], [0.0, 0, 1.0], [0.1, 0, 1.0], [0.2, 0, 1.0]]])
    rod = Fibres(points, np.full((1, 4), 0.002))
    y = np.linspace(-0.003, 0.003, 61)
    rays = np.stack([np.full(61, 0.05), y, np.ones(61)], axis=1)
    strand, z = rod.first_hits(np.zeros(3), rays, np.full(61, np.inf))
    # A ray (0.05, s, 1) z meets y^2 + (z - 1)^2 = r^2 where (1 + s^2) z^2 - 2 z + 1 - r^2 = 0.
    root = 1 - (1 + y**2) * (1 - 0.002**2)
    assert np.array_equal(strand >= 0, root >= 0)
    on = root >= 0
    assert on.sum() == 41 or on.sum() == 39
    assert np.abs(z[on] - (1 - np.sqrt(root[on])) / (1 + y[on] ** 2)).max() < 2e-6
    assert np.array_equal(rod.covered(np.zeros(3), rays), on)
    # What is nearer hides it.
    assert (rod.first_hits(np.zeros(3), rays, np.full(61, 0.9))[0] == -1).all()


@pytest.mark.parametrize("who", ["long_haired", "bearded"])
def test_both_engines_meet_the_same_strands(who, request, shoot):
    person = request.getfixturevalue(who)
    camera = close_up(person)
    frame, truth = shoot([person], camera, 1), embree.cast([person], camera)
    either = truth.strand | frame.strand
    assert either.sum() > 1500
    assert ((truth.strand != frame.strand) & ~truth.layered).sum() < 0.01 * either.sum()
    opaque, strand = verify.check("s", truth.depth, truth.mask, frame.depth, Verify(), truth.layered, either)
    assert opaque >= 0.999
    assert strand is not None
    assert strand >= 0.95
    # A frame whose strands lie elsewhere is refused, though its skin agrees.
    off = np.where(either, frame.depth + 2e-4, frame.depth).astype(np.float32)
    with pytest.raises(Exception, match="strands' pixels"):
        verify.check("s", truth.depth, truth.mask, off, Verify(), truth.layered, either)


def test_strands_keep_their_own_depth_class_and_person(long_haired):
    camera = close_up(long_haired)
    truth = embree.cast([long_haired], camera)
    bare = embree.cast([dataclasses.replace(long_haired, strands=[])], camera)
    both = truth.strand & (bare.mask > 0)
    assert (truth.depth[both] <= bare.depth[both] + 1e-6).all()
    assert set(np.unique(truth.segmentation[truth.strand])) <= {ID["Hair"], ID["Face_Neck"]}
    assert (truth.segmentation[truth.strand] == ID["Hair"]).mean() > 0.9
    assert (truth.mask[truth.strand] == 1).all()
    # Another person's index, and the same place after a move.
    two = embree.cast([moved(long_haired, 0.0, np.array([3.0, 0.0])), long_haired], camera)
    assert (two.mask[two.strand] == 2).all()
    assert np.array_equal(two.strand, truth.strand)


def test_alpha_is_that_of_a_thousand_samples_where_hair_ends(long_haired, shoot):
    camera = close_up(long_haired, 120, 160)
    strand = embree.cast([long_haired], camera).strand
    # An edge of the hair is enough: a thousand samples are dear.
    box = (0, 60, 50, 100)
    few, many = (np.clip(shoot([long_haired], camera, n, box).coverage, 0, 1) for n in (16, 1024))
    caster = embree.Caster([long_haired], camera.world_to_camera)
    found = coverage.refined(few, strand, camera, caster)
    part = np.zeros(strand.shape, bool)
    part[62:98, 2:48] = (coverage.band(many, strand) & (many > 0.005) & (many < 0.995))[62:98, 2:48]
    assert part.sum() > 60
    error, raw = (np.abs(alpha - many)[part].mean() for alpha in (found, few))
    assert error < 0.02, (error, raw)
    assert error < 0.6 * raw
    outside = ~coverage.band(few, strand)
    assert np.array_equal(found[outside], few[outside])


def test_hair_normals_turn_slowly_from_pixel_to_pixel(long_haired, bearded):
    for person in (long_haired, bearded):
        truth = embree.cast([person], close_up(person, 384, 512))
        n, hair = truth.normal.astype(np.float64), truth.strand & (truth.segmentation == ID["Hair"])
        assert np.abs(np.linalg.norm(n[hair], axis=1) - 1).max() < 1e-5
        for a, b in (((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
                     ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))):  # fmt: skip
            pair = hair[a] & hair[b]
            turn = np.degrees(np.arccos(np.clip((n[a][pair] * n[b][pair]).sum(-1), -1, 1)))
            assert pair.sum() > 5000
            assert np.median(turn) < 5
            assert np.quantile(turn, 0.9) < 5


def test_no_scalp_shows_where_hair_grows(long_haired, bearded):
    import cv2

    for person in (long_haired, bearded):
        bare = dataclasses.replace(person, strands=[])
        for azimuth in (0.3, 2.0, 3.6):
            camera = close_up(person, 96, 128, azimuth)
            under, whole = embree.cast([bare], camera), embree.cast([person], camera)
            layer = under.segmentation == ID["Hair"]
            assert layer.sum() > 300
            # The tinted layer has no holes through which skin comes; at its ragged edge skin may.
            filled = cv2.morphologyEx(layer.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
            inner = cv2.erode(filled, np.ones((5, 5), np.uint8)) > 0
            assert (inner & ~layer).sum() <= 0.015 * inner.sum()
            # And strands alone cover most of it, thin as they are at the hairline and the parting.
            assert whole.strand[inner].mean() > 0.68


def area(s: Strands) -> float:
    """Half of what their sides cover, m2."""
    length = np.linalg.norm(np.diff(s.points, axis=1), axis=2)
    return float(((s.radius[:, 1:] + s.radius[:, :-1]) / 2 * length).sum())


def test_merged_strands_cover_the_same_with_fewer(long_haired):
    far = dataclasses.replace(close_up(long_haired), K=np.array([[60.0, 0, 48], [0, 60.0, 64], [0, 0, 1]]))
    near = dataclasses.replace(close_up(long_haired), K=np.array([[6000.0, 0, 48], [0, 6000.0, 64], [0, 0, 1]]))
    assert merging([long_haired], near) == ((1,) * len(long_haired.strands),)
    times = merging([long_haired], far)
    assert times[0][0] >= 4
    few = merged([long_haired], times)[0]
    for a, b, n in zip(long_haired.strands, few.strands, times[0]):
        assert len(b.points) == -(-len(a.points) // n)
        assert area(b) == pytest.approx(area(a), rel=0.01)
        assert b.color.mean(axis=0) == pytest.approx(a.color.mean(axis=0), rel=0.02)
        # One that stands for many is as grey as they are together.
        assert b.color.std(axis=0).max() < a.color.std(axis=0).max()
    camera = close_up(long_haired)
    whole, thin = (embree.cast([p], camera).strand for p in (long_haired, few))
    assert (whole & thin).sum() > 0.7 * (whole | thin).sum()
    assert thin.sum() == pytest.approx(whole.sum(), rel=0.15)


def test_a_strand_is_as_grey_as_the_hairs_it_stands_for():
    grown = np.linspace(0, 0.1, 4000)[:, None, None] + np.arange(3)[None, :, None] * [0, 0, 0.01]
    look = dataclasses.replace(draw_look(generator(0, "grey")).hair, color=(0.02, 0.01, 0.01))
    nothing = lambda p: (np.ones(len(p)), None)  # noqa: E731
    head = Head(np.zeros(3), 0.12, nothing, np.array([0, 0, -1.0]))

    def made(grey: float) -> np.ndarray:
        hair, rng = dataclasses.replace(look, grey=grey), np.random.default_rng(3)
        return barber._strands("hair", grown, 1e-4, 3, hair, head, lambda p: p, rng).color[:, 0]

    half, white = made(0.5), made(1.0)
    assert half.mean() == pytest.approx(0.5 * (WHITE[0] + 0.02), rel=0.05)
    # Black and white threads would spread by `threads`, the mean of n of them by 1 / sqrt(n) of it; locks' shade comes on top.
    threads = 0.5 * (WHITE[0] - 0.02)
    share = 0.25 * (1 + 1 / barber.HAIRS["hair"])
    assert np.sqrt(half.var() - share * white.var()) == pytest.approx(threads / np.sqrt(barber.HAIRS["hair"]), rel=0.1)


def test_the_surface_stands_for_strands_where_there_are_none(long_haired):
    shown = solid(long_haired)
    assert shown.strands == []
    extra = sum(len(s.proxy.faces) for s in long_haired.strands)
    assert len(shown.mesh.faces) == len(long_haired.mesh.faces) + extra
    assert shown.mesh.material_index.max() == len(shown.mesh.materials) - 1
    camera = close_up(long_haired)
    strands, surface = embree.cast([long_haired], camera), embree.cast([shown], camera)
    hair = strands.strand & (strands.segmentation == ID["Hair"])
    assert (hair & (surface.segmentation == ID["Hair"])).sum() > 0.9 * hair.sum()
    # Strands are seen at all depths of the volume, and few but strays before it (one in 80, with their whole length); of
    # straight hair 0.056 to 0.077 by person, slight waves add 0.002.
    gap = (strands.depth - surface.depth)[hair & (surface.mask > 0)]
    assert np.median(gap) < 0.03
    assert (gap < -0.003).mean() < 0.09


@pytest.fixture(scope="module")
def head():
    """The template's head, and roots on it."""
    body, _ = _studio()
    scalp = Scalp(body.template, groups(), body.skull)
    points = scalp.matrix @ body.template
    normals = normals_of(points, scalp.quads)
    eye, size = eyes_and_size(body.template, groups())
    used = points[scalp.used]
    room = Room(used, normals[scalp.used], used.min(0) - 0.14, used.max(0) + 0.14)
    roots = scalp.roots(np.random.default_rng(0), 800, np.clip(hairline(scalp.at) / 0.05, 0, 1))
    return Head(eye, size, room, np.array([0, 0, -1.0])), scalp.on(roots, points), scalp.on(roots, normals)


def test_every_style_grows_outside_the_head_from_its_roots(head):
    where, roots, normals = head
    grown = {}
    for name, style in GROOMS.items():
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
    assert len(GROOMS) >= 12
    assert tuple(GROOMS) == STYLES
    assert tuple(CUTS) == BEARDS


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


def test_strands_count_as_people_where_shadows_fall(shoot):
    """With a ground the film's alpha holds shadows too: the people's own coverage must hold strands."""
    line = np.linspace(0, 1, 6)[None, :, None] * [0.0, 0.0, 0.3] + [0.0, 0.0, 1.0]
    fan = line + np.stack([np.linspace(-0.3, 0.3, 40), np.zeros(40), np.zeros(40)], axis=1)[:, None]
    fan = fan.astype(np.float32)
    strands = Strands("fan", fan, np.full((40, 6), 0.003, np.float32), np.full((40, 3), 0.1, np.float32), 4, EMPTY)
    person = dataclasses.replace(bodies.person("egg", bodies.egg(np.random.default_rng(0))), strands=[strands])
    K = np.array([[120.0, 0, 48], [0, 120.0, 64], [0, 0, 1]])
    camera = Camera(K, frames.look_at(np.array([0.0, -2.5, 1.1]), np.array([0, 0, 1.0])), 96, 128, "full")
    plain, shaded = shoot([person], camera, 32), shoot([person], camera, 32, shadows=True)
    assert plain.strand.sum() > 100
    assert np.abs(shaded.coverage - plain.coverage).max() < 0.25
    assert np.abs(shaded.coverage - plain.coverage).mean() < 0.005


def test_long_straight_hair_waves_with_points_enough_and_a_bald_head_draws_as_much_as_any():
    def rng() -> np.random.Generator:
        return np.random.default_rng(4)

    after = []
    for name in ("bald", "crop", "bob", "long"):
        drawn = rng()
        _cut(drawn, GROOMS[name], 30.0, 0.0)
        after.append(drawn.random())
    assert len(set(after)) == 1
    waved = [
        s for s in (_cut(np.random.default_rng(k), GROOMS["long"], 30.0, 0.0) for k in range(200)) if s is not None
    ]
    assert len(waved) == 200
    assert all(0 < s.curl <= WAVE_M for s in waved)
    turns = [max(s.top, s.side, s.back) / s.pitch for s in waved]
    assert min((s.points - 1) / t for s, t in zip(waved, turns)) >= POINTS_A_TURN
    crop = _cut(rng(), GROOMS["crop"], 30.0, 0.0)
    assert crop is not None
    assert crop.curl == 0
