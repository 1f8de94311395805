"""Strand hair: two engines that agree on it, alpha that is right, smooth normals, no bald patches, fewer strands for far heads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from manifests import frames
from manifests.assets import AnnySource
from manifests.bodies import FAMILIES, BodyPrior, PosePrior
from manifests.hair import HairPrior
from manifests.job import Engine, Verify
from manifests.parts import ID
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.groundtruth import coverage, embree, verify
from render.groundtruth.fibres import Fibres
from render.people import hair as barber
from render.people.hair_grow import Head
from render.people.hair_look import WHITE
from render.people.identity import draw_look
from render.placement import moved
from render.scene import EMPTY, Camera, Lighting, PersonMesh, Scene, Strands
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


def test_alpha_is_that_of_a_thousand_samples_where_hair_ends(long_haired, shoot, monkeypatch):
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
    # Threads change no bit, here of a few rows.
    strand[85:] = False
    monkeypatch.setattr(coverage, "AT_ONCE", 50 * coverage.RAYS)
    assert np.array_equal(*(coverage.refined(few, strand, camera, caster, n) for n in (1, 3)))


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
