"""A run's report and audit sheet in a browser: the funnel adds up, pictures lie on their side of the line, labels come back."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from manifests.errors import InputError
from pipeline import audit
from tests import browser, overlays, photos, runs
from tests.photos import measured, settings
from tests.test_curation import NONE

# What a person would do: press a button under every picture, `wrong` under each fifth.
CLICKS = """<script>
document.querySelectorAll(".tile").forEach((t, i) => t.querySelector(`[data-answer=${i % 5 ? "right" : "wrong"}]`).click());
</script></body>"""
PROBE = """<script>document.title = [document.images.length,
  [...document.images].every(i => { i.loading = "eager"; return i.complete && i.naturalWidth > 0 }),
  document.documentElement.scrollWidth <= innerWidth].join("/")</script></body>"""


def clicked(page, folder) -> dict:
    """What the sheet would save after CLICKS."""
    probe = folder / "clicked.html"
    probe.write_text(page.read_text().replace("</body>", CLICKS))
    said = re.search(r'id="labels">(.*?)</script>', browser.dom(probe.as_uri(), folder / "profile"), re.DOTALL)
    return json.loads(said.group(1))


@pytest.fixture
def decisions():
    from curation.decide import decide

    good = [((0, 0, 400, 400), 0.95)]
    rows = [
        measured(f"s/{i:03d}", good if i % 3 else [((0, 0, 400, 400), 0.3)], drawn=float(i % 5 == 0)) for i in range(40)
    ]
    return decide(photos.table(rows), settings(), NONE)


def test_labels_pressed_in_a_browser_come_back_as_precision(tmp_path, decisions):
    page = audit.sheet(tmp_path, decisions, 10, 0)
    saved = clicked(page, tmp_path)
    first = {d["uri"]: d["first_fail"] or "kept" for d in decisions.to_pylist()}
    assert len(saved["labels"]) == sum(min(10, list(first.values()).count(r)) for r in set(first.values()))
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(saved))
    found = {r["reason"]: r for r in audit.read_labels(path, decisions)["reasons"]}
    assert set(found) == set(first.values())
    for reason, row in found.items():
        own = [a for uri, a in saved["labels"].items() if first[uri] == reason]
        assert row["precision"] == pytest.approx(own.count("right") / len(own))
        assert row["low"] < row["precision"] < row["high"] or row["precision"] in (0, 1)


def test_the_draw_is_the_same_for_any_order_and_another_for_another_seed(decisions):
    def drawn(table, seed):
        return {r: [x["uri"] for x in rows] for r, rows in audit.samples(table, 5, seed).items()}

    order = np.random.default_rng(0).permutation(len(decisions))
    assert drawn(decisions, 0) == drawn(decisions.take(order), 0)
    assert drawn(decisions, 0) != drawn(decisions, 1)


def test_labels_of_other_decisions_and_other_files_are_refused(tmp_path, decisions):
    path = tmp_path / "labels.json"
    with pytest.raises(InputError, match="save them"):
        audit.read_labels(path, decisions)
    path.write_text(json.dumps({"of": "0" * 16, "labels": {}}))
    with pytest.raises(InputError, match="other decisions"):
        audit.read_labels(path, decisions)
    path.write_text(json.dumps({"of": audit.of(decisions), "labels": {"nobody": "right"}}))
    with pytest.raises(InputError, match="nobody"):
        audit.read_labels(path, decisions)


@pytest.mark.engine
@pytest.mark.parametrize(
    "n", [pytest.param(20), pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]
)
def test_a_runs_report_adds_up_and_its_audit_comes_back(tmp_path, shared, cluster, n):
    folder = tmp_path / "photos"
    folder.mkdir()
    some = [cv2.imread(str(p))[..., ::-1].copy() for p in sorted((shared / "photos/img").glob("*.jpg"))]
    for i in range(n):
        rgb = overlays.again(some[i % len(some)], i)
        change = {1: overlays.banner, 4: overlays.strokes, 7: overlays.posterised}.get(i % 10)
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), (change(rgb, i) if change else rgb)[..., ::-1])
    detector = {"kind": "onnx", "weights": str(shared / "weights/yolox_nano.onnx"), "looks": 1}
    stage = {
        "sources": [{"path": "photos"}],
        "detector": detector,
        "min_box_px": 60,
        "min_side_px": 150,
        "preset": "sapiens",
    }
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"name": "a", "runs": str(tmp_path / "runs"), "curate": stage, "report": {}}))
    code, said = runs.maquette("run", job, "--address", cluster)
    assert code == 0, said
    assert "skipped" in said, "rules without weights are named"
    run = tmp_path / "runs/a"
    page = run / "report/index.html"
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("</body>", PROBE))
    seen = browser.dom(probe.as_uri(), tmp_path / "profile")
    images, whole, fits = re.search(r"<title>(\d+)/(true|false)/(true|false)</title>", seen).groups()
    assert int(images) > 10
    assert (whole, fits) == ("true", "true")
    # Each row of the funnel: in, out, dropped; what goes on is what comes in next, and the last is what is kept.
    funnel = seen[seen.index('id="curation"') : seen.index('class="sankey"')]
    rows = [[int(v) for v in re.findall(r'<td class="n">(\d+)</td>', row)[-3:]] for row in funnel.split("<tr")[2:]]
    rows = [r for r in rows if len(r) == 3]
    table = pq.read_table(run / "curate/decisions/decisions.parquet")
    assert rows[0][0] == n
    assert all(came - went == lost for came, went, lost in rows)
    assert all(a[1] == b[0] for a, b in zip(rows, rows[1:]))  # noqa: RUF007
    assert rows[-1][1] == sum(table["kept"].to_pylist())
    # Pictures near the line: on their own side of it, nearest first.
    from pipeline.near import lines

    for line in lines(table, 4):
        at = float(line["threshold"])
        for side in ("passed", "failed"):
            away = [abs(float(r["near"].split()[-1]) - at) for r in line[side]]
            assert away == pytest.approx(sorted(away), rel=1e-2, abs=1e-2)
    assert f"{rows[-1][1]:,} kept</text>" in seen
    code, said = runs.here("audit", run, "--count", "5")
    assert code == 0, said
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(clicked(run / "report/audit.html", tmp_path)))
    code, said = runs.here("audit", run, "--labels", labels)
    assert code == 0, said
    assert re.search(r"kept +[01]\.\d{3}  \(95 %: ", said), said
    code, said = runs.here("report", run)
    assert code == 0, said
    assert "Audited by people" in page.read_text()
