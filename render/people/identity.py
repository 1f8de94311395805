"""An identity's generator -> who it is: body, skin, eyes, hair, clothes and accessories, drawn once and kept for all its samples."""

from __future__ import annotations

import dataclasses

import numpy as np

from manifests.accessories import AccessoriesPrior
from manifests.assets import Detail
from manifests.bodies import BodyPrior
from manifests.clothes import ClothesPrior
from manifests.hair import HairPrior
from manifests.seeds import generator
from render.people.accessories import Thing, draw_accessories
from render.people.cap import Cap, draw_cap
from render.people.hair_look import HairLook, draw_hair
from render.people.outfit import Outfit, draw_outfit, linear
from render.people.shape import EUROPEAN, Shape, draw_shape
from render.people.skin import Skin, draw_skin, photographed

# CIELAB lightness of the Monk scale's ten published swatches, lightest first. They are what a photograph may show, and as
# albedo would be chalk and coal: lightness is brought into the range that spectrophotometers find on faces, with the redness
# and yellowness they find there (about 28 to 70, a* 9 to 10.5, b* 12 to 16; Xiao et al. 2017, Skin Research and Technology);
# b* of the dark is 3 lower, since by theirs dark faces came out yellower than photographs (16 for 11), and the light ones' is
# theirs: 5 lower, it gave 11 where photographs have 17.
MONK_LIGHTNESS = (94.1, 92.1, 92.9, 87.5, 77.8, 55.1, 42.4, 30.6, 21.0, 14.6)
SKIN_LAB = np.array([[28.0, 10.0, 8.0], [70.0, 11.0, 15.0]])
# Brown, amber, hazel, green, blue, grey: the last four for the five lighter tones alone, where most ancestors are European
# (OCA2-HERC2; Eiberg et al. 2008, Human Genetics 123).
IRIS_SRGB = ["2c1810", "3b2314", "5a3a1e", "6b5a2e", "6b7a4b", "4f6f8f", "7d8a94"]


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything that stays the same about one person. Colours are linear RGB. ``pupil``: its radius over 2.9 mm.

    ``detail``: as the job's asset says; ``hair`` is worn with full detail, ``cap`` without.
    """

    shape: Shape
    skin: tuple[float, float, float]
    hair: HairLook
    cap: Cap
    iris: tuple[float, float, float]
    outfit: Outfit
    complexion: Skin
    pupil: float
    things: tuple[Thing, ...] = ()
    detail: Detail = "full"

    @property
    def phenotype(self) -> dict[str, float]:
        """anny's labels in [0, 1]; gender 0 is male, 1 female."""
        return self.shape.phenotype


def draw_look(
    rng: np.random.Generator,
    prior: BodyPrior | None = None,
    clothes: ClothesPrior | None = None,
    textures: tuple[str, ...] = (),
    accessories: AccessoriesPrior | None = None,
    detail: Detail = "full",
    hair: HairPrior | None = None,
    skins: tuple[str, ...] = (),
) -> Look:
    """A person of ``prior``'s people; without one every age, sex, build and skin tone is equally frequent.

    ``textures``, ``skins``: files of the user's fabrics and skins.
    """
    shape = draw_shape(rng, prior or BodyPrior())
    outfit = draw_outfit(rng, shape.age_years, shape.sex, clothes, textures)
    if detail == "mannequin":
        outfit = bare_of_fashion(outfit)
    fair = shape.skin_tone <= 5 and shape.phenotype["caucasian"] > EUROPEAN
    iris = linear(str(rng.choice(IRIS_SRGB[: 7 if fair else 3])))
    # What is drawn from here on has a stream of its own: more traits there leave the others as they are.
    own = generator(int(rng.integers(2**31)), "looks")
    skin = skin_albedo(shape.skin_tone)
    carried = generator(int(own.integers(2**31)), "things")
    hat = outfit.of("hat") is not None
    things = draw_accessories(carried, accessories or AccessoriesPrior(), shape.age_years, shape.sex, hat)
    look = Look(
        shape=shape,
        skin=skin,
        hair=draw_hair(generator(int(rng.integers(2**31)), "hair"), shape, hat, hair or HairPrior()),
        cap=draw_cap(generator(int(own.integers(2**31)), "cap"), shape.age_years, shape.sex, shape.skin_tone),
        iris=iris,
        outfit=outfit,
        complexion=draw_skin(own, skin, shape.skin_tone, shape.age_years, shape.sex),
        pupil=float(own.uniform(0.55, 0.95)),
        things=things if detail == "full" else (),
        detail=detail,
    )
    return dataclasses.replace(look, complexion=photographed(look.complexion, skins, shape.sex))


def bare_of_fashion(outfit: Outfit) -> Outfit:
    """The close clothes of a shop's dummy: without room for folds, without a hat."""
    shoes = tuple(dataclasses.replace(w, name="trainers") for w in outfit.wears if w.slot == "shoes")
    worn = next(w for w in outfit.wears if w.slot == "top")
    close = (("bottom", "leggings"), ("top", "t_shirt"))
    return Outfit(
        shoes
        + tuple(
            dataclasses.replace(worn, slot=slot, name=name, fit=0.0, pattern="plain", fabric="jersey", texture=None)
            for slot, name in close
        )
    )


def skin_albedo(tone: int) -> tuple[float, float, float]:
    """Linear RGB of skin of Monk ``tone`` 1 to 10."""
    share = (MONK_LIGHTNESS[tone - 1] - min(MONK_LIGHTNESS)) / (max(MONK_LIGHTNESS) - min(MONK_LIGHTNESS))
    lightness, a, b = SKIN_LAB[0] + share * (SKIN_LAB[1] - SKIN_LAB[0])
    # CIE 15: Lab to XYZ under D65, then IEC 61966-2-1's matrix to linear RGB.
    f = np.array([a / 500, 0.0, -b / 200]) + (lightness + 16) / 116
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * [0.95047, 1.0, 1.08883]
    r, g, b = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]) @ xyz
    return float(r), float(g), float(b)
