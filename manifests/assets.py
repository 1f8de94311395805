"""What a job may say about where its people come from: one section per kind of library, told apart by `source`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manifests.accessories import AccessoriesPrior
from manifests.bodies import BodyPrior, PosePrior
from manifests.clothes import ClothesPrior
from manifests.hair import HairPrior
from manifests.model import Model
from manifests.skins import SkinPrior

Unit = Literal["auto", "m", "cm", "mm", "inch"]
Axis = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
KeypointSet = Literal["coco17", "wholebody133", "sapiens308"]
Degrees = tuple[float, float, float]
Detail = Literal["mannequin", "simple", "full"]


class AnnySource(Model):
    """Parametric people: a pool of `count` identities drawn from Philox(people seed, j)."""

    source: Literal["anny"] = "anny"
    count: int = Field(12, ge=1, description="identities in the pool")
    body: BodyPrior = BodyPrior()
    pose: PosePrior = PosePrior()
    clothes: ClothesPrior = ClothesPrior()
    hair: HairPrior = HairPrior()
    accessories: AccessoriesPrior = AccessoriesPrior()
    skins: SkinPrior = SkinPrior()
    detail: Detail = Field(
        "full",
        description="full; simple: plain skin, a cap of hair, nothing carried; mannequin: grey, close clothes, no hair",
    )
    keypoints: KeypointSet = Field("sapiens308", description="which points a row lists; absent ones have visibility 0")


class ScanSource(Model):
    """What every library of scans may say. NAME.keypoints.yaml beside a scan marks its keypoints."""

    source: str
    paths: list[str] = Field(min_length=1, description="files, folders or globs, relative to the job file")
    unit: Unit = "auto"
    up: Axis = "auto"
    height_gate_m: tuple[float, float] = (0.4, 2.5)
    missing_colour: Literal["skip", "grey"] = Field(
        "skip", description="an asset whose colour texture is missing is skipped, or goes grey there"
    )
    scanned: str | None = Field(
        None,
        description="assets.arrow that `maquette assets scan` wrote with the same unit and up: what it bars is left out",
    )
    licence: str = Field("LicenseRef-unknown", description="SPDX id")
    consent: str = "unknown"
    redistributable: bool = False


class FilesSource(ScanSource):
    """Scan files by path: GLB, glTF, OBJ, FBX, PLY or USD; rigged ones may be posed."""

    source: Literal["files"] = "files"
    clip: str | None = Field(None, description="animation to pose rigged files from, by name")
    frame: int = Field(1, description="frame of `clip`, counted as Blender does; glTF is read at 24 a second")
    bones: dict[str, Degrees] = Field({}, description="bone: [rx, ry, rz] degrees about its own axes, after `clip`")


class RenderPeopleSource(ScanSource):
    """RenderPeople's posed scans: folders rp_NAME_posed_NNN_OBJ, centimetres, y up."""

    source: Literal["renderpeople"] = "renderpeople"
    licence: str = Field("LicenseRef-RenderPeople", description="SPDX id")


class ThumanSource(ScanSource):
    """THuman2.x scans: folders NNNN with NNNN.obj, y up, no unit: metres come from the SMPL-X fit of each."""

    source: Literal["thuman"] = "thuman"
    fits: str | None = Field(None, description="folder of the fits, NNNN/smplx_param.pkl; default: looked for beside")
    licence: str = Field("LicenseRef-THuman2", description="SPDX id")


AssetSource = Annotated[AnnySource | FilesSource | RenderPeopleSource | ThumanSource, Field(discriminator="source")]
SOURCES: tuple[type[Model], ...] = (AnnySource, FilesSource, RenderPeopleSource, ThumanSource)
SOURCE_NAMES = tuple(s.model_fields["source"].default for s in SOURCES)
