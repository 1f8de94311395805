"""Bodies: drawn people are the people that the job asked for, and their meshes are what their rows say."""

from __future__ import annotations

import functools

import numpy as np
import pydantic
import pytest
import trimesh
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from manifests.assets import AnnySource
from manifests.bodies import BUILDS, SEXES, TONES, BodyPrior
from manifests.keypoints import SETS
from manifests.seeds import generator
from render.assets.anny import AnnyPeople, _studio
from render.people import builds, face, joints, shape
from render.people.anchors_face import Face
from render.people.body import groups
from render.people.features import inner_pieces
from render.people.landmarks import landmarks
from render.people.teeth import enamel

PEOPLE = 2000
SKEWED = BodyPrior(
    age_years={"0-3": 1, "3-18": 2, "18-65": 5, "65-90": 2},
    sex={"female": 3, "male": 1},
    build={"slim": 1, "average": 6, "heavy": 2},
    skin_tone={1: 1, 5: 2, 10: 4},
    muscle={"0.2-0.5": 1, "0.5-0.6": 1},
    correlations={"age_years,proportions": -0.6, "age_years,muscle": -0.5},
)


@functools.cache
def pool(balanced: bool) -> list[shape.Shape]:
    return drawn(BodyPrior() if balanced else SKEWED)


def drawn(prior: BodyPrior, count: int = PEOPLE) -> list[shape.Shape]:
    return [shape.draw_shape(generator(11, "identity", j), prior) for j in range(count)]


def chance(counts: list[int], shares: list[float]) -> float:
    """How likely counts as far off as these are; exact 0 where something came that was given no share."""
    expected = np.array(shares) / sum(shares) * sum(counts)
    assert not any(c for c, e in zip(counts, expected) if e == 0)
    kept = expected > 0
    return float(stats.chisquare(np.array(counts)[kept], expected[kept]).pvalue)


@pytest.mark.parametrize("balanced", [True, False])
def test_drawn_people_have_the_shares_of_the_job(balanced):
    prior, people = BodyPrior() if balanced else SKEWED, pool(balanced)
    ages = sorted((*map(float, name.split("-")), share) for name, share in prior.age_years.items())
    counts = [sum(low <= p.age_years < high for p in people) for low, high, _ in ages]
    assert sum(counts) == PEOPLE
    assert chance(counts, [share for _, _, share in ages]) > 1e-3
    for trait, names in (("sex", SEXES), ("build", BUILDS), ("skin_tone", TONES)):
        found = [getattr(p, trait) for p in people]
        asked = getattr(prior, trait)
        assert chance([found.count(n) for n in names], [asked.get(n, 0) for n in names]) > 1e-3, trait


def test_traits_go_together_as_the_job_says():
    people = pool(False)
    # A Gaussian copula of correlation r has rank correlation 6/pi asin(r/2), whatever the marginals.
    asked = 6 / np.pi * np.arcsin(-0.6 / 2)
    ages = [p.age_years for p in people]
    got = stats.spearmanr(ages, [p.phenotype["proportions"] for p in people]).statistic
    assert got == pytest.approx(asked, abs=0.05)
    # Men and women too slight for their muscle give some of it up, and with it some of what it goes together with.
    assert -0.55 < stats.spearmanr(ages, [p.phenotype["muscle"] for p in people]).statistic < -0.35
    free = pool(True)
    assert abs(stats.spearmanr([p.age_years for p in free], [p.skin_tone for p in free]).statistic) < 0.08
    assert abs(stats.spearmanr([p.sex == "male" for p in free], [p.bmi for p in free]).statistic) < 0.08


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"age_years": {"20-10": 1}}, "ends before it begins"),
        ({"age_years": {"0-20": 1, "10-30": 1}}, "may not overlap"),
        ({"age_years": {"young": 1}}, "is no band"),
        ({"age_years": {"0-120": 1}}, "within 0 and 90"),
        ({"sex": {"female": 0}}, "at least one share"),
        ({"sex": {"other": 1}}, "female"),
        ({"skin_tone": {11: 1}}, "less than or equal to 10"),
        ({"correlations": {"age_years,hair": 0.5}}, "is no pair of"),
        (
            {"correlations": {"sex,height": 0.9, "height,muscle": 0.9, "sex,muscle": -0.9}},
            "contradict each other",
        ),
    ],
)
def test_a_prior_that_cannot_be_drawn_is_refused_with_its_reason(wrong, why):
    with pytest.raises(pydantic.ValidationError, match=why):
        BodyPrior(**wrong)


def test_who_is_drawn_depends_on_the_generator_and_the_prior_alone():
    assert drawn(SKEWED, 3) == drawn(SKEWED, 3)
    assert drawn(SKEWED, 3) != drawn(BodyPrior(), 3)
    one, other = AnnyPeople(AnnySource(count=2), 5), AnnyPeople(AnnySource(count=2, body=SKEWED), 5)
    assert [i[2] for i in one.identities()] != [i[2] for i in other.identities()]


@pytest.mark.engine
def test_bodies_weigh_what_was_asked():
    body, _ = _studio()
    off, skin = [], groups()["body"]
    for one in drawn(BodyPrior(), 24):
        bmi, height = builds.measured_bmi(body.figure(one.phenotype, one.changes).rest, skin)
        off.append(abs(bmi - one.bmi))
        assert 0.4 < height < 2.3
    assert max(off) < 3.0
    assert np.median(off) < 1.0


@pytest.mark.engine
@pytest.mark.parametrize(
    # Median heights in metres: WHO growth standards and reference (5, 10 years), NCD-RisC world means (adults).
    ("years", "sex", "metres"),
    [(5, "male", 1.10), (5, "female", 1.094), (10, "male", 1.378), (10, "female", 1.386), (30, "male", 1.74), (30, "female", 1.62)],
)  # fmt: skip
def test_the_middle_of_each_age_is_as_tall_as_people_are(years, sex, metres):
    body, _ = _studio()
    age = float(np.interp(years, shape.YEARS, shape.ANNY_AGE))
    height = shape.percentile_height(age, sex, 0.5)
    rest = body.figure({"age": age, "gender": float(sex == "female"), "height": height}).rest
    assert builds.measured_bmi(rest, groups()["body"])[1] == pytest.approx(metres, rel=0.07)


@pytest.mark.engine
def test_men_and_women_are_not_exchanged():
    body, _ = _studio()
    skin = groups()["body"]
    tall = {}
    for sex in SEXES:
        prior = BodyPrior(age_years={"30-40": 1}, sex={sex: 1})
        people = drawn(prior, 12)
        assert {p.sex for p in people} == {sex}
        tall[sex] = [builds.measured_bmi(body.figure(p.phenotype, p.changes).rest, skin)[1] for p in people]
    assert np.mean(tall["male"]) - np.mean(tall["female"]) > 0.06


# Millimetres between landmarks of men and of women of 20 to 40: round figures amid those published of many peoples (as
# Farkas et al. 2005 compare them), not the means of one.
MEASURES = {
    ("center_of_nose_root", "tip_of_chin"): (120, 110),
    ("bottom_center_of_nose", "tip_of_chin"): (70, 63),
    ("l_outer_end_of_upper_lash_line", "r_outer_end_of_upper_lash_line"): (90, 86),
    ("l_inner_end_of_upper_lash_line", "r_inner_end_of_upper_lash_line"): (34, 33),
    ("l_centerpoint_of_upper_lash_line", "l_centerpoint_of_lower_lash_line"): (10.3, 10.5),
    ("r_outer_corner_of_nose", "l_outer_corner_of_nose"): (38, 34),
    ("r_outer_corner_of_mouth", "l_outer_corner_of_mouth"): (52.5, 49.5),
    ("left_acromion", "right_acromion"): (415, 365),
}


@functools.cache
def faces_of(sex: str, years: str) -> np.ndarray:
    """(12, 308, 3) metres: keypoints of faces at rest."""
    prior = BodyPrior(age_years={years: 1}, sex={sex: 1}, build={"average": 1})
    body, found = _studio()[0], []
    for j in range(12):
        drawn_one = shape.draw_shape(generator(5, sex, j), prior)
        at = body.posed(drawn_one.phenotype, {}, drawn_one.changes, {})
        found.append(landmarks("sapiens308")(at.vertices, at.keypoints))
    return np.stack(found)


def between(places: np.ndarray, a: str, b: str) -> float:
    """Mean millimetres."""
    i, j = (SETS["sapiens308"].names.index(name) for name in (a, b))
    return 1e3 * float(np.linalg.norm(places[:, i] - places[:, j], axis=1).mean())


@pytest.mark.engine
@pytest.mark.parametrize("sex", ["male", "female"])
def test_faces_and_shoulders_have_the_proportions_of_people(sex):
    places = faces_of(sex, "20-40")
    for (a, b), norms in MEASURES.items():
        assert between(places, a, b) == pytest.approx(norms[sex == "female"], rel=0.1), (a, b)


@pytest.mark.engine
def test_childrens_faces_are_not_small_adults():
    children, adults = faces_of("male", "4-8"), faces_of("male", "20-40")

    def share(places, a, b):
        return between(places, a, b) / between(places, "l_center_of_iris", "r_center_of_iris")

    eye = ("l_centerpoint_of_upper_lash_line", "l_centerpoint_of_lower_lash_line")
    # Eyes are nearly grown at six, noses and jaws far from it. On anny's own face of that age: 1.31, 0.84 and 0.92.
    assert share(children, *eye) > 1.34 * share(adults, *eye)
    nose, jaw = ("center_of_nose_root", "tip_of_nose"), ("bottom_center_of_nose", "tip_of_chin")
    assert share(children, *nose) < 0.78 * share(adults, *nose)
    assert share(children, *jaw) < 0.88 * share(adults, *jaw)


def test_children_still_differ_from_each_other():
    # Two standard deviations of a newborn's variety fit inside the limit of a change; all beyond would be alike.
    two = 2 * 0.5 * BodyPrior().variety
    for name in shape.CHILD:
        assert abs(shape.MEAN.get(name, 0.0) + shape.CHILD[name]) + two <= shape.SIDED_LIMIT, name


@pytest.mark.engine
def test_asymmetry_is_what_sets_left_and_right_apart():
    body, _ = _studio()
    used = np.unique(groups()["body"])
    twin = mirror_of(body.template, used)
    apart = {}
    for spread in (0.0, 0.1):
        one = shape.draw_shape(generator(3, "identity", 1), BodyPrior(asymmetry=spread))
        rest = body.figure(one.phenotype, one.changes).rest[used]
        apart[spread] = float(np.abs(rest * (-1, 1, 1) - rest[twin]).max())
    assert apart[0.0] < 0.001
    assert apart[0.1] > 0.002


def mirror_of(template: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(N,) place in ``used`` of each vertex's mirror image on the template; every one has its own."""
    away, twin = cKDTree(template[used] * (-1, 1, 1)).query(template[used])
    assert away.max() < 1e-4
    assert len(np.unique(twin)) == len(twin)
    return twin


@pytest.mark.engine
def test_an_open_jaw_takes_the_lower_teeth_along_and_shut_eyes_their_lashes():
    body, _ = _studio()
    plain = {"age": 0.67, "gender": 0.5}
    still = body.posed(plain, {})
    seam = Face(body.template, groups()).upper_seam()
    kinds = {p.kind: p for p in inner_pieces(still, seam)}
    assert set(kinds) == {"teeth", "tongue", "lashes"}
    assert all(len(p.quads) > 40 for p in kinds.values())
    open_jaw = body.posed(plain, {}, face={"jawOpen": 1.0}).vertices - still.vertices
    upper, lower = (np.unique(groups()[f"helper-{row}-teeth"]) for row in ("upper", "lower"))
    assert open_jaw[lower, 2].mean() < -0.015
    assert np.abs(open_jaw[upper]).max() < 0.001
    shut = body.posed(plain, {}, face={"eyeBlinkLeft": 1.0}).vertices - still.vertices
    left, right = (
        np.unique(np.concatenate([groups()[f"helper-{side}-eyelashes-{row}"] for row in "12"])) for side in "lr"
    )
    assert shut[left, 2].min() < -0.005
    assert np.abs(shut[right]).max() < 0.001


@pytest.mark.engine
@pytest.mark.parametrize("row", ["upper", "lower"])
def test_teeth_are_as_wide_as_teeth_are_and_end_in_gums(row):
    body, _ = _studio()
    posed = body.posed({"age": 0.67, "gender": 0.5}, {})
    pieces = inner_pieces(posed, Face(body.template, groups()).upper_seam())
    teeth = next(p for p in pieces if p.kind == "teeth")
    mine = np.isin(teeth.quads, np.unique(groups()[f"helper-{row}-teeth"])).all(axis=1)
    uv, at = teeth.uv[mine].reshape(-1, 2), posed.rest[teeth.quads[mine]].reshape(-1, 3)
    picture = enamel(30.0, 5).base_color_texture[..., :3].astype(float)
    high, wide = picture.shape[:2]
    assert ((uv >= 0) & (uv <= 1)).all()
    half = (uv[:, 1] > 0.5) == (row == "upper")
    assert half.all(), "each row has its own half of the picture"
    # Along the front, what the picture's gaps enclose is as wide as in Wheeler's tables, mm, give or take a quarter.
    line = picture[round(high * (0.5 - 0.12 if row == "upper" else 0.5 + 0.12))].mean(axis=1)
    gaps = [k for k in range(2, wide - 2) if line[k] == line[k - 2 : k + 3].min() and line[k] < 0.8 * np.median(line)]
    middle = min(range(len(gaps)), key=lambda k: abs(gaps[k] - wide / 2))
    outer = at[:, 1] < np.quantile(at[:, 1], 0.35)
    order = np.argsort(uv[outer, 0])
    across = 1e3 * np.interp(np.array(gaps[middle - 2 : middle + 3]) / wide, uv[outer, 0][order], at[outer, 0][order])
    incisor = {"upper": 8.5, "lower": 5.0}[row]
    assert len(gaps) >= 13
    assert np.diff(across)[1:3] == pytest.approx(incisor, rel=0.25)
    # Red at the roots, hardly so at the edge.
    redness = picture[..., 0] / picture[..., 2]
    root, edge = (0.05, 0.45) if row == "upper" else (0.95, 0.55)
    assert np.median(redness[round(high * root)]) > 1.6 > 1.25 > np.median(redness[round(high * edge)])


@pytest.mark.engine
def test_upper_teeth_come_to_the_lips_and_through_nothing_however_the_face_moves():
    body, _ = _studio()
    seam = Face(body.template, groups()).upper_seam()
    upper, lower = (np.unique(groups()[f"helper-{row}-teeth"]) for row in ("upper", "lower"))
    quads = groups()["body"]
    skin = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
    rng = np.random.default_rng(5)
    faces = [mix for family in ("neutral", "happy", "speech") for mix in face.MIXES[family].values()]
    came, low = [], []
    for k, mix in enumerate(faces * 2):
        actions = {f"{a}{s}": v for a, v in mix.items() for s in (("Left", "Right") if a in face.SIDED else ("",))}
        phenotype = {"age": rng.uniform(0.15, 1), "gender": rng.random(), **dict.fromkeys(("african", "asian"), 0.5)}
        posed = body.posed(phenotype, {"head": rng.uniform(-0.7, 0.7, 3)}, face=actions)
        teeth = next(p for p in inner_pieces(posed, seam) if p.kind == "teeth").vertices
        assert np.array_equal(teeth[lower], posed.vertices[lower])
        moved = (teeth - posed.vertices)[upper]
        far = np.linalg.norm(moved, axis=1)
        assert far.max() < 0.0095
        # Seen from the head, whatever the pose: as far down for the whole row, and none goes aside or back.
        rigid = np.concatenate([upper, *(np.unique(groups()[f"helper-{s}-eye"]) for s in "lr")])
        now, rest = (at[rigid] - at[rigid].mean(axis=0) for at in (posed.vertices, posed.rest))
        turn, _ = Rotation.align_vectors(now, rest)
        aside, back, up = turn.apply(moved, inverse=True).T
        assert np.abs(aside).max() < 5e-4
        assert back.max() < 5e-4
        assert up.max() < 5e-4
        # Beside one another on the row, from root to edge: no tooth tilts.
        row = posed.rest[upper]
        beside = np.abs(row[:, None, :2] - row[None, :, :2]).max(axis=2) < 0.001
        assert np.abs((back[:, None] - back)[beside]).max() < 0.002
        # Down, then forward: what bites meets no skin on either way, and roots go at most a little into the lip.
        solid = trimesh.Trimesh(posed.vertices, skin, process=False)
        down = turn.apply(np.stack([aside, 0 * back, up], axis=1))
        edge = row[:, 2] < row[:, 2].min() + 0.3 * np.ptp(row[:, 2])
        gum = np.where(edge, 0.0, 0.004)
        ways = ((posed.vertices[upper][edge], down[edge], gum[edge]), (posed.vertices[upper] + down, moved - down, gum))
        for start, way, into in ways:
            far = np.linalg.norm(way, axis=1)
            goes = far > 1e-4
            hits, ray, _ = solid.ray.intersects_location(start[goes], way[goes] / far[goes, None])
            gap = np.linalg.norm(hits - start[goes][ray], axis=1)
            assert (gap > (far - into)[goes][ray]).all(), (k, mix)
        # Molars keep their bite.
        molar = row[:, 1] > row[:, 1].min() + 0.032
        assert np.abs(up[molar]).max() < 5e-4
        came.append(-back.min())
        low.append(-up.min())
    assert np.median(came) > 0.0035
    assert np.median(low) > 0.004
    assert np.mean(np.array(low) > 0.002) > 0.7


@pytest.mark.engine
@pytest.mark.parametrize(("left", "down"), [(25.0, 0.0), (-25.0, 0.0), (0.0, 20.0), (0.0, -15.0)])
def test_eyes_look_where_they_are_told_and_lids_follow(left, down):
    body, wardrobe = _studio()
    rig = joints.rig_of(body)
    angles = np.zeros(len(joints.ANGLES))
    for k, value in face.look(left, down).items():
        angles[k] = value
    turned = rig.local(rig.bones(joints.turns(angles)))
    straight = body.posed({"age": 0.67, "gender": 0.5}, rig.local(rig.bones({})))
    looking = body.posed({"age": 0.67, "gender": 0.5}, turned, face=face.lids(left, down))
    for name in ("helper-l-eye", "helper-r-eye"):
        quads = groups()[name]
        pupil = np.unique(quads[wardrobe._face.iris[name] == 2])
        ball = np.unique(quads)
        gaze = [p.vertices[pupil].mean(0) - p.vertices[ball].mean(0) for p in (straight, looking)]
        a, b = (g / np.linalg.norm(g) for g in gaze)
        yaw = np.degrees(np.arctan2(b[0], -b[1]) - np.arctan2(a[0], -a[1]))
        pitch = np.degrees(np.arcsin(a[2]) - np.arcsin(b[2]))
        assert yaw == pytest.approx(left, abs=3)
        assert pitch == pytest.approx(down, abs=3)
    if down:
        lids = np.unique(groups()["helper-l-eyelashes-1"])
        moved = (looking.vertices - straight.vertices)[lids, 2].mean()
        assert np.sign(moved) == -np.sign(down)


def test_a_row_tells_who_it_is_in_plain_terms():
    one = AnnyPeople(AnnySource(count=3), 5).load("1", generator(1, "pose", 0))
    who = one.phenotype
    assert 0 <= who["age_years"] <= 90
    assert who["sex"] in SEXES
    assert who["build"] in BUILDS
    assert who["monk_skin_tone"] in TONES
    assert set(who["anny"]) >= {"age", "gender", "muscle", "weight", "height", "proportions", "african", "asian"}
    assert 10 < who["bmi"] < 42
    assert one.pose is not None
    assert one.pose["deepest_mm"] <= 10
