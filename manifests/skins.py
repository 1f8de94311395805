"""What a job may say about photographed skins for made people."""

from __future__ import annotations

from pydantic import Field

from manifests.model import Model


class SkinPrior(Model):
    """A folder of skins, each a picture on the base mesh's own map, as MakeHuman's (CC0) are; none = procedural."""

    textures: str | None = Field(
        None,
        description="folder of skins (.png, .jpg) on the base mesh's map; `young`, `middleage` or `old`, `male` or `female`, "
        "`lightskinned` or `darkskinned` in a name say whom it suits",
    )
    licence: str = Field("LicenseRef-unknown", description="SPDX id of the folder's skins")
    consent: str = Field("unknown", description="of the people whose skin it was")
    redistributable: bool = False
