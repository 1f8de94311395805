"""Skin's textures lie where the landmarks say and follow the seed; bumps change no ground truth; eyes are clear."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from manifests.bodies import BodyPrior
from manifests.frames import look_at, to_camera
from manifests.keypoints import SETS
from manifests.parts import ID
from manifests.seeds import generator
from render.groundtruth import embree
from render.groundtruth.surface import sample_texture
from render.people.body import groups
from render.people.complexion import moved_lines
from render.people.identity import IRIS_SRGB, draw_look, skin_albedo
from render.people.landmarks import anchors
from render.people.outfit import linear
from render.people.shape import EUROPEAN
from render.people.skin import FRECKLED, FROM_YEARS, LIPSTICK, draw_skin, tone_class
from render.scene import Camera
from tests import dressing

pytestmark = pytest.mark.engine


def skin(seed: int = 1, tone: int = 2, years: float = 30, sex: str = "female", **changes):
    drawn = draw_skin(generator("skin", seed), skin_albedo(tone), tone, years, sex)
    return dataclasses.replace(drawn, **changes)


@pytest.fixture(scope="module")
def face():
    # Whose eyes are open.
    found = (dressing.person((), number) for number in range(4, 20))
    return next(
        p for p in found if p.pose["expression"].startswith(("neutral/rest", "happy/delight", "emotion/surprise"))
    )


def place(body, name: str) -> np.ndarray:
    return sum(body.template[int(v)] * w for v, w in anchors()[name]["weights"].items())


def portrait(person, width: int = 150) -> Camera:
    """Straight before the face."""
    eyes = (np.array(person.bones["eye.L"]) + np.array(person.bones["eye.R"])) / 2
    across = np.array(person.bones["eye.L"]) - np.array(person.bones["eye.R"])
    ahead = np.cross(across, [0, 0, 1.0])
    ahead *= np.sign(-ahead[1]) / np.linalg.norm(ahead)
    height = width * 4 // 3
    K = np.array([[4.0 * width, 0, width / 2], [0, 4.0 * width, height / 2], [0, 0, 1]])
    return Camera(K, look_at(eyes + ahead * 1.1, eyes - [0, 0, 0.03]), width, height, "face")


def test_light_eyes_come_with_light_skin_and_european_ancestry_alone():
    dark = {linear(rgb) for rgb in IRIS_SRGB[:3]}
    looks = [draw_look(generator(3, "identity", j), BodyPrior(skin_tone={1: 1, 5: 1, 6: 1})) for j in range(300)]
    may = [look for look in looks if look.shape.skin_tone <= 5 and look.phenotype["caucasian"] > EUROPEAN]
    light = {id(look) for look in looks if look.iris not in dark}
    assert light <= {id(look) for look in may}
    assert 0.35 < len(light) / len(may) < 0.8
    assert len(looks) - len(may) > 100


def test_lips_are_red_between_their_landmarks_and_skin_is_not(body, charts):
    head = charts.materials(skin(lipstick="8f2a34", freckles=0.0, moles=0)).get("head")
    plain = charts.materials(skin(lipstick=None, freckles=0.0, moles=0)).get("head")

    def colours(material, names):
        at = np.array([charts.face.texel(np.mean([place(body, each) for each in n.split("+")], axis=0)) for n in names])
        uv = (at + 0.5) / charts.head.side
        return sample_texture(material.base_color_texture[..., :3], np.stack([uv[:, 0], 1 - uv[:, 1]], 1))

    # Midway, since lips are dark where they meet.
    middle = ("center", "midpoint_5", "midpoint_2")
    inside = [f"{m}_of_lower_inner_lip+{m}_of_lower_outer_lip" for m in middle]
    outside = ["tip_of_chin", "tip_of_nose", "bottom_center_of_nose", "center_of_glabella"]
    painted, bare = colours(head, inside), colours(plain, inside)
    assert (painted[:, 0] - painted[:, 1] > bare[:, 0] - bare[:, 1] + 10).all(), "lipstick is on the lips"
    assert np.abs(colours(head, outside) - colours(plain, outside)).max() < 1.5, "and nowhere else"
    lip, chin = colours(plain, inside), colours(plain, outside)
    assert (lip[:, 0] / lip[:, 1]).min() > (chin[:, 0] / chin[:, 1]).max()


def test_nails_are_at_the_ends_of_fingers_and_toes_on_both_sides(body, charts):
    quads = groups()["body"][charts.is_nail]
    middle = body.template[quads].mean(axis=1)
    fingers = [f"{side}_{f}4" for side in ("left", "right")
               for f in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")]  # fmt: skip
    tips = np.array([place(body, n) for n in fingers])
    on_hand = np.linalg.norm(middle[:, None] - tips[None], axis=2)
    near = on_hand.min(axis=1) < 0.02
    assert set(on_hand[near].argmin(axis=1)) == set(range(10)), "every finger has one"
    feet = middle[~near]
    assert (feet[:, 2] < body.template[:, 2].min() + 0.2).all(), "all others are on the toes"
    assert abs((feet[:, 0] > 0).mean() - 0.5) < 0.01


def test_freckles_are_the_same_by_seed_and_lie_on_nose_and_cheeks(charts):
    clear = charts.materials(skin(freckles=0.0, moles=0))["head"].base_color_texture[..., :3].astype(int)
    one = charts.materials(skin(freckles=0.8, moles=0))["head"].base_color_texture[..., :3].astype(int)
    charts.materials.cache_clear()
    again = charts.materials(skin(freckles=0.8, moles=0))["head"].base_color_texture[..., :3].astype(int)
    other = charts.materials(skin(freckles=0.8, moles=0, seed=99))["head"].base_color_texture[..., :3].astype(int)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    darker = (clear - one).sum(axis=2) > 25
    share = charts.face.freckled
    assert darker[share > 0.5].mean() > 10 * max(darker[share < 0.02].mean(), 1e-5)


def test_wrinkles_come_with_age(charts):
    def slope(years):
        old = draw_skin(generator("w", 1), skin_albedo(4), 4, years, "male")
        texture = charts.materials(dataclasses.replace(old, oil=0.5))["head"].normal_texture
        points = np.concatenate([line for _, line, _, _ in charts.face.lines[:4]]).astype(int)
        z = texture[points[:, 1], points[:, 0], 2].astype(float) / 127.5 - 1
        return np.degrees(np.arccos(np.clip(z, -1, 1))).mean()

    assert slope(8) < slope(40) < slope(80)
    assert slope(80) > slope(8) + 2


def test_a_smile_draws_the_lines_of_a_smile(charts):
    still, smiling = (
        charts.materials(skin(wrinkles=0.0), moved_lines(actions))["head"].base_color_texture[..., :3]
        for actions in ({"mouthSmileLeft": 0.1}, {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.7})
    )

    def darker(kind):
        points = np.concatenate([line for k, line, _, _ in charts.face.lines if k == kind]).astype(int)
        change = still.astype(float) - smiling
        return change[points[:, 1], points[:, 0]].mean()

    assert darker("fold") > 8
    assert darker("crow") > 1
    assert darker("forehead") == 0
    assert moved_lines({"browInnerUp": 1.0}) == (("forehead", 0.75),)


def test_bumps_turn_the_shading_normal_and_leave_depth_and_normal_as_they_are(face):
    camera = portrait(face)
    flat = dataclasses.replace(
        face,
        mesh=dataclasses.replace(
            face.mesh, materials=[dataclasses.replace(m, normal_texture=None, bump=0.0) for m in face.mesh.materials]
        ),
    )
    bumpy, smooth = (embree.cast([p], camera, True, ("normal_shading",)) for p in (face, flat))
    assert np.array_equal(bumpy.normal, smooth.normal)
    assert np.array_equal(bumpy.depth, smooth.depth)
    skin_px = bumpy.segmentation == ID["Face_Neck"]
    turned = np.degrees(np.arccos(np.clip((bumpy.normal_shading * bumpy.normal).sum(-1), -1, 1)))[skin_px]
    assert np.median(turned) > 0.3
    np.testing.assert_allclose(smooth.normal_shading[skin_px], smooth.normal[skin_px], atol=1e-5)


def test_head_and_body_meet_at_the_neck_in_one_colour(body, charts):
    made = charts.materials(skin(tone=6, lipstick=None))
    quads = groups()["body"]
    rim = np.intersect1d(quads[charts.is_head], quads[~charts.is_head])

    def at_rim(kind, mine):
        corner = np.isin(quads[mine], rim)
        return sample_texture(made[kind].base_color_texture[..., :3], np.mod(charts.uv[mine][corner], 1))

    head, below = at_rim("head", charts.is_head), at_rim("skin", ~charts.is_head)
    assert np.abs(head.mean(axis=0) - below.mean(axis=0)).max() < 2
    assert head.std(axis=0).max() < 3
    assert below.std(axis=0).max() < 3


def test_the_eye_is_seen_through_its_cornea_and_pupils_lie_where_keypoints_say(face):
    kinds = [m.name for m in face.mesh.materials]
    cornea = face.mesh.materials[kinds.index("cornea")]
    assert (cornea.alpha_mode, cornea.ior > 1) == ("blend", True)
    # Under water an iris mirrors nothing; the white shines.
    rough = face.mesh.materials[kinds.index("eyes")].roughness_texture[..., 0] / 255
    middle = len(rough) // 2
    assert (rough[middle, middle], rough[middle, 4]) == (1.0, pytest.approx(0.22, abs=0.01))
    camera = portrait(face, 300)
    caster = embree.Caster([face], camera.world_to_camera)
    names = ["l_center_of_pupil", "r_center_of_pupil"]
    points = face.keypoints[[SETS["sapiens308"].names.index(n) for n in names]]
    rays = to_camera(points, camera.world_to_camera)
    faces, z, weights = caster.first_hits(rays / rays[:, 2:])
    hit = [kinds[face.mesh.material_index[f]] for f in faces]
    assert hit == ["eyes", "eyes"], "not the cornea before it"
    assert caster.through.all()
    assert np.abs(z - rays[:, 2]).max() < 0.002
    assert caster.albedo(faces, weights).max() < 40, "a pupil is black"
    surface = embree.Caster([face], camera.world_to_camera, see_through=False)
    faces, near, _ = surface.first_hits(rays / rays[:, 2:])
    assert [kinds[face.mesh.material_index[f]] for f in faces] == ["cornea", "cornea"]
    assert (near < z).all()


def test_shares_of_freckles_and_lipstick_are_those_stated():
    drawn = [draw_look(generator("shares", j)) for j in range(700)]
    for name, share in FRECKLED.items():
        mine = [x.complexion.freckles > 0 for x in drawn if tone_class(x.shape.skin_tone) == name]
        if share == 0:
            assert not any(mine)
            continue
        assert stats.binomtest(sum(mine), len(mine), share).pvalue > 1e-3
    women = [
        x.complexion.lipstick is not None for x in drawn if x.shape.sex == "female" and x.shape.age_years >= FROM_YEARS
    ]
    assert stats.binomtest(sum(women), len(women), LIPSTICK).pvalue > 1e-3
    assert not any(x.complexion.lipstick for x in drawn if x.shape.sex == "male" or x.shape.age_years < FROM_YEARS)
