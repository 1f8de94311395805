"""Skin below the neck: nails and their polish, freckles, moles and spots of age; what of skin an engine is told; lenses by the job."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from manifests import plan
from manifests.frames import look_at
from manifests.job import RenderStage
from manifests.parts import ID
from manifests.seeds import generator
from render.lighting import draw_lighting, environments
from render.people.complexion import SUBSURFACE
from render.people.identity import skin_albedo
from render.people.outfit import linear
from render.people.skin import FROM_YEARS, POLISH, draw_skin
from render.scene import Camera, Scene
from tests import bodies, dressing

pytestmark = pytest.mark.engine
CLEAR = {"freckles": 0.0, "moles": 0, "weather": 0.2, "wrinkles": 0.0, "lipstick": None, "polish": None}


def skin(years: float = 30, tone: int = 2, seed: int = 3, **changes):
    drawn = draw_skin(generator("skin", 1), skin_albedo(tone), tone, years, "female")
    return dataclasses.replace(drawn, **{**CLEAR, "seed": seed, **changes})


def below(charts, made) -> np.ndarray:
    return charts.materials(made)["skin"].base_color_texture[..., :3].astype(int)


def test_nails_have_the_polish_or_the_skins_own_pink(charts):
    bare, painted = (charts.materials(skin(polish=p))["nails"] for p in (None, "3b5a7a"))
    assert painted.base_color == linear("3b5a7a")
    assert painted.roughness < bare.roughness, "polish shines"
    for tone in (1, 5, 10):
        r, g, b = charts.materials(skin(tone=tone))["nails"].base_color
        assert r > g > b
        assert (np.array([r, g, b]) > 0.6 * np.array(skin_albedo(tone))).all()
    drawn = [draw_skin(generator("polish", j), skin_albedo(3), 3, 10 + j % 40, "female") for j in range(400)]
    assert not any(s.polish for s in drawn if s.age_years < FROM_YEARS)
    grown = [s.polish is not None for s in drawn if s.age_years >= FROM_YEARS]
    assert abs(np.mean(grown) - POLISH) < 4 * (POLISH * (1 - POLISH) / len(grown)) ** 0.5


def test_pores_are_finer_on_children(charts):
    def slope(years):
        texture = charts.materials(skin(years, wrinkles=0.0))["head"].normal_texture.astype(float)
        z = texture[charts.face.masks["cheeks"] > 0.5][:, 2] / 127.5 - 1
        return np.degrees(np.arccos(np.clip(z, -1, 1))).mean()

    assert slope(4) < 0.5 * slope(30)


def test_the_light_that_scatters_under_skin_reaches_blenders_material(charts):
    from render.blender.materials import build_material

    for kind, share in (("head", SUBSURFACE), ("skin", SUBSURFACE), ("nails", 0.1)):
        made = build_material(charts.materials(skin())[kind])
        shader = next(n for n in made.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
        assert shader.inputs["Subsurface Weight"].default_value == pytest.approx(share)
        red, green, blue = (shader.inputs["Subsurface Radius"].default_value[i] for i in range(3))
        assert 0.01 > red > green > blue > 0, "metres, red reaching deepest"


def test_freckles_lie_on_arms_and_shoulders_by_the_seed_and_leave_palms_and_trunk(charts):
    clear = below(charts, skin())
    one, other = below(charts, skin(freckles=0.9)), below(charts, skin(freckles=0.9, seed=4))
    charts._body.cache_clear()
    charts.materials.cache_clear()
    assert np.array_equal(one, below(charts, skin(freckles=0.9)))
    darker = (clear - one).sum(axis=2) > 15
    assert not np.array_equal(darker, (below(charts, skin(seed=4)) - other).sum(axis=2) > 15)
    where = charts.below
    for mask in (where.arms > 0.5, where.shoulders > 0.7):
        assert darker[mask].mean() > 0.02
    assert darker[where.palms > 0.5].mean() == 0
    assert darker[charts.body.place[..., 2] < 0.2].mean() < 0.01


def test_spots_of_age_come_after_fifty_to_the_backs_of_light_hands(charts):
    def spots(years, tone=3, **changes):
        young, old = (below(charts, skin(y, tone, **changes)) for y in (30, years))
        return ndimage.label(((young - old).sum(axis=2) > 20) & (charts.below.backs > 0.4))[1]

    assert spots(45) == 0
    assert 0 < spots(62) < spots(84)
    assert spots(84, tone=10) < spots(84) / 2
    assert spots(84, weather=0.0) < spots(84, weather=0.9)


def test_moles_are_as_many_as_the_skin_has_on_any_skin(charts, tmp_path):
    file = tmp_path / "young_female.png"
    Image.new("RGB", (256, 256), (170, 130, 110)).save(file)
    for photo in (None, str(file)):
        plain, marked = (below(charts, skin(moles=n, photo=photo)) for n in (0, 3))
        found = ndimage.label((plain - marked).sum(axis=2) > 12)[1]
        assert 10 <= found <= 18, photo


def test_blush_and_tired_eyes_show_on_a_photographed_skin_weakly(charts, tmp_path):
    file = tmp_path / "young_female.png"
    Image.new("RGB", (256, 256), (170, 130, 110)).save(file)

    def shade(mask, photo, **changes):
        texture = charts.materials(skin(photo=photo, **changes))["head"].base_color_texture[..., :3].astype(float)
        return texture[charts.face.masks[mask] > 0.6].mean(axis=0)

    pale, red = (shade("nose", str(file), blush=b) for b in (0.3, 1.0))
    assert 1 < (red[0] - red[1]) - (pale[0] - pale[1]) < 12
    rested, tired = ([shade("under_eye", p, tired=t).sum() for p in (str(file), None)] for t in (0.0, 1.0))
    assert 0 < rested[0] - tired[0] < rested[1] - tired[1]


def test_a_lens_is_looked_through_or_at_by_the_jobs_word(tmp_path):
    from render.stage import Renderer

    someone = dataclasses.replace(dressing.person((dressing.thing("eyewear", "glasses"),), 3), strands=[])
    eyes = (np.array(someone.bones["eye.L"]) + np.array(someone.bones["eye.R"])) / 2
    across = np.array(someone.bones["eye.L"]) - np.array(someone.bones["eye.R"])
    ahead = np.cross(across, [0, 0, 1.0])
    ahead *= np.sign(-ahead[1]) / np.linalg.norm(ahead)
    K = np.array([[300.0, 0, 48], [0, 300.0, 32], [0, 0, 1]])
    camera = Camera(K, look_at(eyes + 0.6 * ahead, eyes), 96, 64, "face")
    depth = {}
    for word in ("see_through", "surface"):
        stage = RenderStage.model_validate(
            {"samples": 1, "transparent": word, "engine": {"samples": 1, "denoiser": "none", "device": "cpu"}}
        )
        light = draw_lighting(stage.lighting, environments(stage.lighting, Path()), generator(1))
        spec = plan.sample_spec(stage, "d" * 64, bodies.Pool().planned(), 0)
        sample = Renderer(stage, tmp_path, 1).shoot(spec, Scene([someone], camera, light, 1))
        depth[word] = sample.depth
        glass = sample.segmentation == ID["Eyeglass"]
    nearer = (depth["surface"] < depth["see_through"] - 0.003) & (depth["surface"] > 0)
    assert nearer.sum() > 150
    assert glass[nearer].mean() > 0.95
    assert np.abs(depth["surface"] - depth["see_through"])[~nearer & (depth["see_through"] > 0)].max() < 0.003
