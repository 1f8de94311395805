"""Photographed skins lie where the mesh says, keep the tone, suit whom their names say, and are refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from manifests.assets import AnnySource
from manifests.bodies import BodyPrior
from manifests.errors import AssetError, InputError
from manifests.seeds import generator
from manifests.skins import SkinPrior
from render.assets.anny import AnnyPeople, _studio
from render.groundtruth.surface import sample_texture
from render.people.body import groups
from render.people.chart import base_places, body_chart, cavities
from render.people.skin import photographed, suited
from tests.test_skin import place, skin

pytestmark = pytest.mark.engine


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
