"""The report's counts of different people, outfits, hair, accessories and expressions, and its pairs most alike."""

from __future__ import annotations

import json

import pytest

from manifests.assets import AnnySource
from manifests.bodies import PosePrior
from manifests.job import RenderStage
from pipeline import diversity, variety


def row(name: str, expression: str = "happy/smile", worn: list[str] | None = None, **traits) -> dict:
    told = {"age_years": 30.0, "height_m": 1.7, "bmi": 22.0, "monk_skin_tone": 3, "sex": "female", **traits}
    pose = {"expression": expression, "source": "a/b"} | ({} if worn is None else {"worn": worn})
    return {"people": [{"asset_id": name, "phenotype": json.dumps(told | {"pose": pose})}]}


def test_identities_are_counted_once_and_what_a_pose_decides_every_time():
    rows = [
        row("a", worn=[], outfit=["jeans", "shirt"], accessories=["scarf"], hair="long", beard="full"),
        row(
            "a", "neutral/rest", ["scarf"], outfit=["jeans", "shirt"], accessories=["scarf"], hair="long", beard="full"
        ),
        row("b", outfit=["jeans", "shirt"], accessories=["glasses"], hair="bun"),
        row("c", outfit=["dress"], accessories=["glasses"], hair="long"),
    ]
    found = {line["title"]: line for line in variety.counts(rows)}
    assert (found["identities"]["different"], found["identities"]["told"]) == (3, 4)
    assert (found["outfits"]["different"], found["outfits"]["told"]) == (2, 3)
    assert found["accessories"]["most"] == "glasses 2, none 1, scarf 1"
    assert (found["hair styles"]["different"], found["expressions"]["different"]) == (2, 2)
    assert (found["beards"]["different"], found["beards"]["told"]) == (1, 1)


def test_expressions_stand_beside_the_families_asked_for():
    rows = [row("a"), row("b", "happy/grin"), row("c", "speech/aa"), row("d", "neutral/rest")]

    def found(*faces: dict[str, float]) -> diversity.Marginal:
        sources = [AnnySource(pose=PosePrior(faces=f)) for f in faces]
        return diversity._expressions(rows, RenderStage(assets=sources))

    alike = found({"happy": 3, "speech": 1}, {"happy": 3, "speech": 1})
    assert dict(zip(alike.names, alike.got)) == {"neutral": 1, "happy": 2, "speech": 1, "emotion": 0, "habit": 0}
    assert alike.asked.tolist() == pytest.approx([0, 0.75, 0.25, 0, 0])
    assert alike.gap == pytest.approx(0.25)
    assert alike.unit == "people"
    assert found({"happy": 1}, {"speech": 1}).asked is None
    assert found({"happy": 1}, {"happy": 1}).gap == pytest.approx(0.5)


def test_what_no_row_tells_is_left_out():
    rows = [{"people": [{"asset_id": "scan/1", "phenotype": None}]}]
    assert [line["title"] for line in variety.counts(rows)] == ["identities"]
    assert variety.nearest(rows) == []


def test_the_nearest_pair_is_the_one_that_differs_least():
    rows = [
        row("young", age_years=12.0, height_m=1.4, hair="long"),
        row("twin", age_years=40.0, hair="bun"),
        row("other", age_years=41.0, hair="bun"),
        row("tall", age_years=43.0, height_m=2.0, hair="crop"),
    ]
    first, *rest = variety.nearest(rows, 2)
    assert first.ids == ("other", "twin")
    assert "hair" in first.same
    assert rest[0].ids == ("tall", "young")
    assert rest[0].distance > first.distance
    assert [rows[i]["people"][0]["asset_id"] for i in first.rows] == list(first.ids)


def test_faces_set_apart_who_is_otherwise_equal():
    flat = dict.fromkeys(("chin-width", "nose-hump", "mouth-trans-up"), 0.0)
    rows = [row("a", face=flat), row("b", face=flat), row("c", face=dict.fromkeys(flat, 0.3)), row("d")]
    assert variety.nearest(rows, 1)[0].ids == ("a", "b")
    # A face that differs as strangers' do is a difference of 1 in FACE_TRAITS traits, beside 4 numbers that are equal.
    apart = variety.nearest([rows[0], rows[2]])[0].distance
    assert apart == pytest.approx((variety.FACE_TRAITS / (variety.FACE_TRAITS + 4)) ** 0.5)


def test_equal_people_are_no_distance_apart():
    assert variety.nearest([row("a"), row("b")])[0].distance == pytest.approx(0)
