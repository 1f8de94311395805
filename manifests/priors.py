"""What a scene may hold and look like: the ranges and shares that every sample's draws come from."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from manifests.model import Model

Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
# Width of the film that 35 mm equivalent focal lengths refer to.
FULL_FRAME_MM = 36.0
# A face is looked at from the front more often than a body is: azimuths of the face framing are halved.
FACE_AZIMUTH = 0.5


class SplitShares(Model):
    """Shares of identities; held-out always means held-out identities."""

    train: Share = 0.7
    val: Share = 0.1
    test: Share = 0.2

    @pydantic.model_validator(mode="after")
    def _sum(self) -> SplitShares:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, got {self.train + self.val + self.test:g}")
        return self


class PeoplePrior(Model):
    """How many people a scene holds, and how they stand to each other."""

    counts: list[Annotated[float, Field(ge=0)]] = Field(
        [1.0], min_length=1, max_length=16, description="shares of scenes with 1, 2, 3 ... people; normalised"
    )
    gap_m: Range = Field((0.05, 0.8), description="clear distance between neighbours")
    same_way: Share = Field(0.6, description="share of companions that face about where the first person faces")

    @pydantic.model_validator(mode="after")
    def _some(self) -> PeoplePrior:
        if sum(self.counts) <= 0:
            raise ValueError("at least one count needs a share above 0")
        if not 0 < self.gap_m[0] <= self.gap_m[1]:
            raise ValueError("gap_m must be a range above 0")
        return self


class FramingShares(Model):
    """Shares of samples by framing; normalised."""

    face: float = Field(1.0, ge=0)
    upper: float = Field(1.0, ge=0)
    full: float = Field(1.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _some(self) -> FramingShares:
        if self.face + self.upper + self.full <= 0:
            raise ValueError("at least one framing needs a share above 0")
        return self


class CameraPrior(Model):
    """Ranges the camera is drawn from, each uniformly but the roll, which is normal."""

    focal_mm: Range = Field((35.0, 85.0), description="35 mm equivalent of the longer image side")
    azimuth_deg: Range = (-180.0, 180.0)
    elevation_deg: Range = (-15.0, 25.0)
    roll_deg: float = Field(4.0, ge=0, description="standard deviation")
    margin: Range = Field((1.05, 1.35), description="frame size over subject size")
    off_centre: float = Field(
        0.05, ge=0, le=0.3, description="largest shift of the subject, as a share of the frame; never over its edge"
    )
    truncated: Share = Field(0.0, description="share of samples whose subject is pushed over the frame's edge")
    occluded: Share = Field(0.0, description="share of samples with company in which someone stands before the subject")
    response: Literal["srgb", "photographic"] = Field(
        "srgb", description="the sRGB curve alone, or with the contrast and saturation of photographs"
    )
    exposure: Literal["scene", "subject"] = Field(
        "scene",
        description="by the light's own strength, or, where the environment is the background, for each view by what falls "
        "on surfaces that face its camera, whatever lighting.strength says",
    )
    exposure_ev: Range = Field(
        (0.0, 0.0),
        description="stops more or less than `exposure: subject` finds, as photographs are seldom exposed alike; like that, "
        "where the environment is the background",
    )
    white_balance: Literal["scene", "subject"] = Field(
        "scene",
        description="colours as the light makes them, or, where the environment is the background, nearly as in white light, "
        "for each view by what falls on surfaces that face its camera",
    )
    min_visible: Share = Field(0.2, description="least visible share of the subject's pixels inside the frame")

    @pydantic.model_validator(mode="after")
    def _exposed(self) -> CameraPrior:
        if self.exposure_ev[0] > self.exposure_ev[1]:
            raise ValueError("exposure_ev must be a range, lowest first")
        if max(abs(ev) for ev in self.exposure_ev) > 4:
            raise ValueError("exposure_ev beyond 4 stops leaves pictures black or white")
        if self.exposure_ev != (0.0, 0.0) and self.exposure != "subject":
            raise ValueError("exposure_ev is counted from what `exposure: subject` finds; ask for that too")
        return self


class SunPrior(Model):
    """A sun lamp beside the environment."""

    share: Share = Field(0.0, description="share of samples that have one")
    strength: Range = Field((1.0, 4.0), description="irradiance, W/m2")
    elevation_deg: Range = (15.0, 75.0)
    angle_deg: Range = Field((0.3, 4.0), description="apparent diameter: larger is softer")


class AreaPrior(Model):
    """Square lamps round the group, pointing at it."""

    share: Share = Field(0.0, description="share of samples that have any")
    count: tuple[int, int] = (1, 3)
    power_w: Range = (20.0, 150.0)
    size_m: Range = (0.2, 1.5)
    distance_m: Range = (1.5, 4.0)


class LightPrior(Model):
    """Environments: `bundled` are the CC0 maps inside the bpy wheel; else a folder of .exr/.hdr files."""

    environments: str = "bundled"
    strength: Range = (0.7, 1.4)
    sun: SunPrior = SunPrior()
    area: AreaPrior = AreaPrior()
    licence: str = Field("LicenseRef-unknown", description="SPDX id of a folder's maps; bundled ones are CC0-1.0")
    redistributable: bool = False


class BackgroundPrior(Model):
    """What is behind the people: the environment itself, or photographs without people; and the shadows on the ground."""

    photos: str | None = Field(None, description="folder of photographs; none = the environment is the background")
    share: Share = Field(1.0, description="share of samples before a photograph, when there is a folder")
    estimate_light: bool = Field(True, description="light the people by what the photograph shows")
    ground_shadows: bool = Field(False, description="people cast shadows on the ground they stand on")
    licence: str = Field("LicenseRef-unknown", description="SPDX id of the photographs")
    redistributable: bool = False
