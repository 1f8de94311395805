"""Skin's textures lie where the landmarks say and follow the seed; bumps change no ground truth; eyes are clear."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from manifests.assets import AnnySource
from manifests.bodies import BodyPrior
from manifests.errors import AssetError, InputError
from manifests.frames import look_at, to_camera
from manifests.keypoints import SETS
from manifests.parts import ID
from manifests.seeds import generator
from manifests.skins import SkinPrior
from render.assets.anny import AnnyPeople, _studio
from render.groundtruth import embree
from render.groundtruth.surface import sample_texture
from render.people.body import groups
from render.people.chart import base_places, body_chart, cavities
from render.people.complexion import moved_lines
from render.people.identity import IRIS_SRGB, draw_look, skin_albedo
from render.people.landmarks import anchors
from render.people.outfit import linear
from render.people.shape import EUROPEAN
from render.people.skin import FRECKLED, FROM_YEARS, LIPSTICK, draw_skin, photographed, suited, tone_class
from render.scene import Camera
from tests import dressing

pytestmark = pytest.mark.engine


def skin(seed: int = 1, tone: int = 2, years: float = 30, sex: str = "female", **changes):
    drawn = draw_skin(generator("skin", seed), skin_albedo(tone), tone, years, sex)
    return dataclasses.replace(drawn, **changes)


@pytest.fixture(scope="module")
def charts():
    return _studio()[1].complexions


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


def test_a_photographed_skin_lies_where_the_mesh_says_and_keeps_the_tone(charts, tmp_path):
    # A red spot on the left cheek of the base mesh's own map; all else is one brown.
    cheek = np.abs(charts.head.place - place(_studio()[0], "tip_of_nose") - [0.035, 0.02, -0.01]).sum(axis=2).argmin()
    at = base_places(charts.head).reshape(-1, 2)[cheek]
    side = 512
    y, x = np.mgrid[0:side, 0:side]
    spot = np.hypot(x + 0.5 - at[0] * side, y + 0.5 - (1 - at[1]) * side) < 5
    picture = np.where(spot[..., None], [150, 20, 20], [120, 90, 70]).astype(np.uint8)
    file = tmp_path / "young_female.png"
    Image.fromarray(picture).save(file)
    bare = {"freckles": 0.0, "moles": 0, "weather": 0.1, "lipstick": None, "blush": 0.3}
    for tone in (2, 9):
        drawn = skin(tone=tone, photo=str(file), **bare)
        texture = charts.materials(drawn)["head"].base_color_texture[..., :3].astype(float)
        inside = texture.reshape(-1, 3)[cheek]
        round_it = np.median(texture.reshape(-1, 3)[np.abs(charts.head.place.reshape(-1, 3)[:, 0]) < 0.03], axis=0)
        assert inside[1] < 0.6 * round_it[1], "the spot shows"
        assert inside[0] > 1.5 * inside[1]
        painted = charts.materials(dataclasses.replace(drawn, photo=None))["head"].base_color_texture[..., :3]
        m = charts.face.masks["cheeks"][..., None] > 0.5
        assert (texture * m).sum() == pytest.approx((painted * m).sum(), rel=0.15), "tone is the person's"


def painted(body, file, colour) -> str:
    """A picture on the base mesh's own map, of which ``colour`` (..., 3) of template places is what everyone's skin shows."""
    at = body_chart(body.template, groups()["body"], 1024).place
    Image.fromarray(np.clip(colour(at), 0, 255).astype(np.uint8)).save(file)
    return str(file)


def test_a_photographed_skin_goes_on_from_the_head_to_the_body(body, charts, tmp_path):
    # Greener to the left, redder upwards: a centimetre is ten levels aside.
    def colour(at):
        return 150 + np.stack([300 * (at[..., 2] - 0.6), 1000 * at[..., 0], np.zeros(at.shape[:2])], axis=-1)

    made = charts.materials(skin(tone=4, lipstick=None, photo=painted(body, tmp_path / "skin.png", colour)))
    quads = groups()["body"]
    rim = np.intersect1d(quads[charts.is_head], quads[~charts.is_head])

    def at_rim(kind, mine):
        corner = np.isin(quads[mine], rim)
        texture = made[kind].base_color_texture[..., :3]
        found = sample_texture(texture, np.mod(charts.uv[mine][corner], 1))
        return np.array([np.mean(found[quads[mine][corner] == v], axis=0) for v in rim])

    head, below = at_rim("head", charts.is_head), at_rim("skin", ~charts.is_head)
    # Farther out, on the shoulders, the head's chart is as thin as a texel.
    across = body.template[rim, 0]
    neck = np.abs(across) < 0.06
    assert neck.sum() > 30
    assert np.corrcoef(across[neck], head[neck, 1])[0, 1] > 0.99, "the border shows the picture"
    assert np.abs(head - below)[neck].max() < 8
    trunk = charts.body.place
    low = made["skin"].base_color_texture[..., 1].astype(float)[np.abs(trunk[..., 2] - 0.2) < 0.05]
    assert np.corrcoef(low, trunk[np.abs(trunk[..., 2] - 0.2) < 0.05][:, 0])[0, 1] > 0.9, "so does the trunk"


def test_the_red_of_mouth_and_sockets_stays_inside(body, charts, tmp_path):
    inner = cavities(charts.head, charts.body.quads)
    at = charts.head.place[inner]
    eyes = np.mean([body.template[np.unique(groups()[f"helper-{s}-eye"])].mean(axis=0) for s in "lr"], axis=0)
    assert np.abs(at[:, 0]).max() < 0.06, "of the mouth and of both sockets"
    assert (at[:, 2] < eyes[2] + 0.03).all()
    file = tmp_path / "skin.png"
    side = 1024
    picture = np.full((side, side, 3), (150, 120, 100), np.uint8)
    places = base_places(charts.head)[inner]
    columns, rows = (places[:, 0] * side).astype(int), ((1 - places[:, 1]) * side).astype(int)
    picture[rows.clip(0, side - 1), columns.clip(0, side - 1)] = (230, 0, 0)
    Image.fromarray(picture).save(file)
    bare = {"freckles": 0.0, "moles": 0, "weather": 0.0, "lipstick": None, "blush": 0.0, "tired": 0.0, "wrinkles": 0.0}
    texture = charts.materials(skin(photo=str(file), **bare))["head"].base_color_texture.astype(float)
    red = texture[..., 0] / texture[..., 1]
    assert np.median(red[inner]) > 1.3 * np.median(red[~inner])
    # What a renderer reads at the edge is the mean of four texels.
    beside = ndimage.binary_dilation(inner, iterations=2) & ~ndimage.binary_erosion(inner, border_value=1)
    assert red[beside].max() < 1.2 * np.median(red[~inner])


def test_pictures_that_are_no_skins_are_refused_by_name_before_any_work(tmp_path):
    folder = tmp_path / "skins"
    folder.mkdir()
    prior = SkinPrior(textures="skins")

    def said() -> str:
        with pytest.raises(InputError) as found:
            AnnyPeople(AnnySource(count=2, skins=prior), 5, tmp_path).identities()
        return str(found.value)

    night, cut, tiny = (folder / f"{name}.png" for name in ("night", "cut", "tiny"))
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(night)
    assert "night.png" in said()
    assert "black where cheeks" in said()
    night.unlink()
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(100, 140, (300, 300, 3), np.uint8)).save(cut)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert "cut.png" in said()
    cut.unlink()
    Image.new("RGB", (300, 60), (150, 120, 100)).save(tiny)
    assert "tiny.png: too_small: 300x60 pixels, 256 needed; take it out of the folder" in said()


def test_a_skin_that_goes_while_people_are_made_costs_who_wears_it_alone(tmp_path):
    (tmp_path / "skins").mkdir()
    file = tmp_path / "skins" / "young_male.png"
    Image.new("RGB", (256, 256), (150, 120, 100)).save(file)
    body = BodyPrior(age_years={"20-30": 1}, sex={"male": 1})
    pool = AnnyPeople(AnnySource(count=2, body=body, skins=SkinPrior(textures="skins")), 5, tmp_path)
    file.unlink()
    with pytest.raises(AssetError, match=r"anny/000001: a fabric or skin .*young_male\.png.*put it back"):
        pool.load("1", generator(1, "pose"))


def test_a_skins_picture_is_the_same_in_every_mode_and_size(charts, tmp_path):
    def cheeks(file) -> np.ndarray:
        texture = charts.materials(skin(photo=str(file)))["head"].base_color_texture[..., :3]
        return texture[charts.face.masks["cheeks"] > 0.5].mean(axis=0)

    modes = {"L": 120, "RGBA": (120, 120, 120, 255), "I;16": 120 * 257, "RGB": (120, 120, 120)}
    found = []
    for mode, colour in modes.items():
        file = tmp_path / f"{mode[0]}{len(mode)}.png"
        Image.new(mode, (260, 300), colour).save(file)
        found.append(cheeks(file))
    Image.new("RGB", (33_000, 256), modes["RGB"]).save(tmp_path / "wide.png")
    found.append(cheeks(tmp_path / "wide.png"))
    assert np.ptp(found, axis=0).max() < 1


def test_dark_peoples_palms_are_pale_under_a_photographed_skin_too(body, charts, tmp_path):
    flat = painted(body, tmp_path / "young_male.png", lambda at: np.broadcast_to([120.0, 90, 70], at.shape))
    inner, back = charts.below.palms > 0.9, charts.below.palms < 0.01
    for tone, least in ((10, 2.5), (2, 0.95)):
        made = [
            charts.materials(skin(tone=tone, photo=photo))["skin"].base_color_texture[..., 0].astype(float)
            for photo in (flat, None)
        ]
        shades = [(texture[inner] / 255).mean() ** 2.2 / (texture[back] / 255).mean() ** 2.2 for texture in made]
        assert min(shades) > least, (tone, shades)


def test_a_mans_picture_on_a_woman_has_no_beard(body, charts, tmp_path):
    high = place(body, "tip_of_nose")[2] - 0.02
    masks = charts.face.masks
    low = (masks["beard"] > 0.8) & (masks["lips"] < 0.01) & (charts.head.place[..., 2] < high)

    def colour(at):
        return np.where(at[..., 2:] < high, (70, 62, 60), (170, 130, 110))

    file = painted(body, tmp_path / "young_male.png", colour)
    shades = {}
    for sex, years in (("male", 30), ("female", 30), ("male", 9)):
        drawn = photographed(skin(years=years, lipstick=None, shadow=0.0), (file,), sex)
        texture = charts.materials(drawn)["head"].base_color_texture[..., :3].astype(float)
        cheeks = charts.face.masks["cheeks"] > 0.6
        shades[sex, years] = texture[low].mean() / texture[cheeks].mean()
    assert shades["male", 30] < 0.7
    assert min(shades["female", 30], shades["male", 9]) > 0.8


def test_users_skins_go_to_whom_their_names_suit_with_their_licence(tmp_path):
    files = ("a/old_lightskinned_male_diffuse.png", "a/young_darkskinned_male.png", "a/young_lightskinned_female2.png")
    assert suited(files, skin(tone=9, years=70, sex="male"), "male") == files[1]
    assert suited(files, skin(tone=2, years=70, sex="female"), "female") == files[2]
    assert suited(files, skin(tone=2, years=70, sex="male"), "male") == files[0]
    assert suited((*files, "a/anyone.png"), skin(tone=2, years=30, sex="male"), "male") == "a/anyone.png"
    assert suited((), skin(), "female") is None
    folder = tmp_path / "skins"
    folder.mkdir()
    Image.new("RGB", (256, 256), (160, 120, 100)).save(folder / "young_female.png")
    prior = SkinPrior(textures="skins", licence="CC-BY-4.0", consent="given")
    body = BodyPrior(age_years={"20-30": 1}, skin_tone={2: 1})
    pool, plain = (AnnyPeople(AnnySource(count=2, body=body, skins=s), 5, tmp_path) for s in (prior, SkinPrior()))
    assert pool.identities()[0][2] != plain.identities()[0][2], "what it is drawn from is told by the hash"
    worn, bare = (p.load("0", generator(1, "pose")) for p in (pool, plain))
    assert worn.rights["licence"] == "CC0-1.0 AND CC-BY-4.0"
    assert worn.rights["consent"] == "given"
    assert not worn.rights["redistributable"]
    assert bare.rights["licence"] == "CC0-1.0"
    assert bare.rights["consent"] == "not a person"
    # Nothing else about the person changes.
    assert np.array_equal(worn.mesh.vertices, bare.mesh.vertices)
    assert worn.phenotype == bare.phenotype
    with pytest.raises(InputError, match=r"skins\.textures: no \.png or \.jpg in nowhere"):
        AnnyPeople(AnnySource(skins=SkinPrior(textures="nowhere")), 5, tmp_path)
