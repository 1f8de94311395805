"""Rows of a rendered dataset and the job they came from -> each quantity's distribution beside the one asked for."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests.assets import AnnySource
from manifests.bodies import FACES
from manifests.frames import camera_centre
from manifests.job import RenderStage
from manifests.keypoints import subset
from manifests.priors import FACE_AZIMUTH, FULL_FRAME_MM, Range
from manifests.sample import FRAMINGS

BINS = 12
# A person of whom less than this is visible inside the frame counts as occluded.
OCCLUDED_BELOW = 0.9


@dataclasses.dataclass(frozen=True)
class Marginal:
    """One quantity over a dataset. ``names``: N labels, or N + 1 edges in ``unit``. ``got``: (N,) int counts.

    ``asked``: (N,) float shares, or None where the job leaves it open. ``note``: what a reader must know to compare them.
    """

    title: str
    unit: str
    names: list[str] | list[float]
    got: np.ndarray
    asked: np.ndarray | None = None
    note: str = ""

    @property
    def labelled(self) -> bool:
        """Names, not edges."""
        return len(self.names) == len(self.got)

    @property
    def gap(self) -> float | None:
        """Share of what is counted that would have to move for got to be as asked (total variation distance)."""
        if self.asked is None or not self.got.sum():
            return None
        return float(np.abs(self.got / self.got.sum() - self.asked).sum() / 2)


def marginals(rows: Sequence[dict[str, Any]], stage: RenderStage) -> list[Marginal]:
    """What ``rows`` (of one render stage; pixels are not read) hold, each quantity against ``stage``."""
    camera, light = stage.camera, stage.lighting
    shares = stage.framing.model_dump()
    turned = camera.occluded > 0 and len(stage.people.counts) > 1
    found = [
        _named("Framing", {f: sum(_framing(r) == f for r in rows) for f in FRAMINGS}, [shares[f] for f in FRAMINGS]),
        _named(
            "People per sample",
            {str(n): sum(len(r["people"]) == n for r in rows) for n in range(1, len(stage.people.counts) + 1)},
            stage.people.counts,
        ),
        _azimuths(rows, stage, asked=not turned),
        _uniform("Elevation of the camera", "degrees", [elevation_deg(r) for r in rows], camera.elevation_deg),
        _normal("Roll", "degrees", [roll_deg(r) for r in rows], camera.roll_deg),
        _uniform("Focal length, 35 mm equivalent", "mm", [focal_mm(r) for r in rows], camera.focal_mm),
        _free("Height of a person's box", "px", [p["box"][3] - p["box"][1] for r in rows for p in r["people"]]),
        _free("Visible fraction of each person", "share", [p["visible_fraction"] for r in rows for p in r["people"]]),
        _yes_no(
            "Subject cut by the frame",
            [_touches(r) for r in rows if _framing(r) == "full"],
            camera.truncated,
            "full framings alone: the others always cut",
        ),
        _yes_no(
            "Subject partly hidden",
            [
                r["people"][0]["visible_fraction"] < OCCLUDED_BELOW
                for r in rows
                if len(r["people"]) > 1 and _framing(r) == "full" and not _touches(r)
            ],
            camera.occluded,
            "full framings with company; others may hide the subject without being asked to",
        ),
        _environments(rows),
        _yes_no("Sun", [any(x["kind"] == "sun" for x in _lamps(r)) for r in rows], light.sun.share),
        _yes_no("Area lamps", [any(x["kind"] == "area" for x in _lamps(r)) for r in rows], light.area.share),
    ]
    if stage.background.photos is not None:
        got = [r["lighting"]["backdrop"] is not None for r in rows]
        found.append(_yes_no("Photograph behind", got, stage.background.share))
    found += [_expressions(rows, stage), _identities(rows)]
    return [m for m in found if m.got.sum() and (m.asked is None or (m.asked > 0).sum() > 1 or m.gap)]


def forward(row: dict[str, Any]) -> np.ndarray:
    """(3,) unit world direction the camera looks along."""
    return np.asarray(row["camera"]["world_to_camera"], float).reshape(4, 4)[2, :3]


def azimuth_deg(row: dict[str, Any]) -> float:
    """Side the first person is seen from, degrees: 0 the front (the first one faces -y), 90 its left (world +x)."""
    x, y, _ = forward(row)
    return math.degrees(math.atan2(-x, y))


def elevation_deg(row: dict[str, Any]) -> float:
    """How far the camera looks down, degrees."""
    return math.degrees(math.asin(-forward(row)[2]))


def roll_deg(row: dict[str, Any]) -> float:
    """Turn of the camera about its axis, degrees; 0 = the horizon is level."""
    right = np.asarray(row["camera"]["world_to_camera"], float).reshape(4, 4)[0, :3]
    level = np.cross(forward(row), [0.0, 0.0, 1.0])
    level /= max(float(np.linalg.norm(level)), 1e-12)
    return math.degrees(math.atan2(float(right @ np.cross(level, forward(row))), float(right @ level)))


def focal_mm(row: dict[str, Any]) -> float:
    """35 mm equivalent focal length of the longer image side, mm."""
    camera = row["camera"]
    return float(camera["K"][0]) * FULL_FRAME_MM / max(camera["width"], camera["height"])


def distance_m(row: dict[str, Any], person: dict[str, Any]) -> float:
    """From the camera to the middle of a person's keypoints (COCO's, where they are among them), metres."""
    eye = camera_centre(np.asarray(row["camera"]["world_to_camera"], float).reshape(4, 4))
    points = np.asarray(person["keypoints_3d"], float).reshape(-1, 3)
    chosen = subset(person["keypoint_set"], "coco17")
    points = points if chosen is None else points[chosen]
    return float(np.nanmedian(np.linalg.norm(points - eye, axis=1)))


def _framing(row: dict[str, Any]) -> str:
    return str(row["camera"]["framing"])


def _touches(row: dict[str, Any]) -> bool:
    x0, y0, x1, y1 = row["people"][0]["box"]
    return bool(x0 <= 0 or y0 <= 0 or x1 >= row["camera"]["width"] or y1 >= row["camera"]["height"])


def _lamps(row: dict[str, Any]) -> list[dict[str, Any]]:
    told = row["lighting"].get("lamps")
    return json.loads(told) if told else []


def _named(
    title: str, counts: dict[str, int], asked: Sequence[float] | None, note: str = "", unit: str = "samples"
) -> Marginal:
    shares = None if asked is None else np.asarray(asked, float) / np.sum(asked)
    return Marginal(title, unit, list(counts), np.array(list(counts.values())), shares, note)


def _yes_no(title: str, got: list[bool], share: float, note: str = "") -> Marginal:
    return _named(title, {"yes": sum(got), "no": len(got) - sum(got)}, [share, 1 - share], note)


def _uniform(title: str, unit: str, values: list[float], asked: Range) -> Marginal:
    low, high = asked
    if high - low < 1e-9:
        return _free(title, unit, values)
    edges = np.linspace(low, high, BINS + 1)
    got, _ = np.histogram(np.clip(values, low, high), edges)
    return Marginal(title, unit, edges.tolist(), got, np.full(BINS, 1 / BINS))


def _normal(title: str, unit: str, values: list[float], deviation: float) -> Marginal:
    if deviation <= 0:
        return _free(title, unit, values)
    # Even in the quantity, open at both ends.
    edges = np.linspace(-2.5, 2.5, 11) * deviation
    got, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    below = np.array([0.5 * (1 + math.erf(e / deviation / math.sqrt(2))) for e in edges])
    below[0], below[-1] = 0.0, 1.0
    return Marginal(title, unit, edges.tolist(), got, np.diff(below), "the outermost bars hold all beyond")


def _azimuths(rows: Sequence[dict[str, Any]], stage: RenderStage, asked: bool) -> Marginal:
    low, high = stage.camera.azimuth_deg
    title = "Azimuth of the camera, 0 = frontal"
    values = [azimuth_deg(r) for r in rows]
    if not asked or high - low < 1e-9:
        return _free(title, "degrees", values)
    edges = np.linspace(min(low, FACE_AZIMUTH * low), max(high, FACE_AZIMUTH * high), BINS + 1)
    shares = stage.framing.model_dump()
    face = shares["face"] / sum(shares.values())
    full = np.diff(np.clip((edges - low) / (high - low), 0, 1))
    half = np.diff(np.clip((edges - FACE_AZIMUTH * low) / (FACE_AZIMUTH * (high - low)), 0, 1))
    got, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Marginal(
        title, "degrees", edges.tolist(), got, (1 - face) * full + face * half, "faces keep to half the range"
    )


def _environments(rows: Sequence[dict[str, Any]]) -> Marginal:
    lit = Counter(r["lighting"]["environment"] for r in rows)
    drawn = {name: lit[name] for name in sorted(lit) if not name.startswith("estimated/")}
    if estimated := sum(lit.values()) - sum(drawn.values()):
        drawn["by the photograph"] = estimated
        return _named("Environment", drawn, None)
    return _named("Environment", drawn, [1] * len(drawn))


def _expressions(rows: Sequence[dict[str, Any]], stage: RenderStage) -> Marginal:
    """Families of the expressions that drawn people show; open where their sources ask for different ones."""
    poses = [json.loads(p["phenotype"] or "{}").get("pose") or {} for r in rows for p in r["people"]]
    shown = Counter(str(pose["expression"]).split("/")[0] for pose in poses if pose.get("expression"))
    asked = [a.pose.faces for a in stage.assets if isinstance(a, AnnySource)]
    alike = bool(asked) and all(a == asked[0] for a in asked)
    shares = [asked[0].get(name, 0.0) for name in FACES] if alike else None
    return _named("Facial expression", {name: shown[name] for name in FACES}, shares, unit="people")


def _identities(rows: Sequence[dict[str, Any]]) -> Marginal:
    """How often each identity is the subject."""
    uses = Counter(r["people"][0]["asset_id"] for r in rows if r["people"])
    often = Counter(uses.values())
    counts = {f"{n}x": often[n] for n in sorted(often)}
    return Marginal(
        "Identities by how often they are the subject", "identities", list(counts), np.array([*counts.values()])
    )


def _free(title: str, unit: str, values: list[float]) -> Marginal:
    if not values:
        return Marginal(title, unit, [0.0, 1.0], np.zeros(1, int))
    got, edges = np.histogram(np.asarray(values, float), bins=18)
    return Marginal(title, unit, edges.tolist(), got)
