"""The report over a small made-up run: self-contained, complete, honest about what is absent, readable in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from manifests import commit, job, shards, view
from manifests.errors import InputError
from manifests.frames import look_at, project, to_camera
from manifests.sample import Person, RenderedSample
from pipeline import figures, report, report_render, variety
from pipeline.diversity import azimuth_deg
from pipeline.report_train import read_jsonl, training_section
from tests import browser

WIDTH, HEIGHT, DIGEST = 96, 128, "d" * 64
# A doll of 17 points in world metres, facing -y: enough for a skeleton to be drawn.
JOINTS = np.array(
    [
        *([0, -0.1, 1.65], [-0.03, -0.1, 1.7], [0.03, -0.1, 1.7], [-0.08, 0, 1.68], [0.08, 0, 1.68]),
        *([-0.2, 0, 1.4], [0.2, 0, 1.4], [-0.25, 0, 1.1], [0.25, 0, 1.1], [-0.25, -0.05, 0.85], [0.25, -0.05, 0.85]),
        *([-0.12, 0, 0.9], [0.12, 0, 0.9], [-0.12, 0, 0.5], [0.12, 0, 0.5], [-0.12, 0, 0.08], [0.12, 0, 0.08]),
    ],
    np.float32,
)


def doll(index: int) -> RenderedSample:
    """A sphere of 0.5 m around the middle of the doll, seen from 4 m; exact depth and normals."""
    angle = np.radians(40.0 * index - 60)
    centre = np.array([0, 0, 0.9])
    world_to_camera = look_at(centre + 4 * np.array([np.sin(angle), -np.cos(angle), 0.1]), centre)
    K = np.array([[150.0, 0, WIDTH / 2], [0, 150.0, HEIGHT / 2], [0, 0, 1]])
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = np.stack([(xs - K[0, 2]) / K[0, 0], (ys - K[1, 2]) / K[1, 1], np.ones_like(xs)], axis=-1)
    middle = to_camera(centre[None], world_to_camera)[0]
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - 0.25
    root = b**2 - a * c
    mask = (root > 0).astype(np.uint8)
    depth = np.where(mask, (b - np.sqrt(np.maximum(root, 0))) / a, 0).astype(np.float32)
    normal = np.where(mask[..., None], (rays * depth[..., None] - middle) / 0.5, 0).astype(np.float32)
    shade = np.clip(-normal[..., 2:], 0, 1) * [210, 150, 110]
    image = np.where(mask[..., None], shade, [[[70, 82, 96]]]).astype(np.uint8)
    points, _ = project(JOINTS.astype(float), K, world_to_camera)
    rows, columns = np.nonzero(mask)
    person = Person(
        asset_id=f"anny/{index % 4:06d}",
        box=np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32),
        visible_fraction=1.0,
        keypoint_set="coco17",
        keypoints=points.astype(np.float32),
        keypoints_3d=JOINTS,
        visibility=np.where(np.arange(17) % 3, 2, 1).astype(np.uint8),
        phenotype={
            **{"age_years": 30.0 + 4 * (index % 4), "sex": "female" if index % 2 else "male", "height_m": 1.7},
            **{"hair": ("bob", "crop")[index % 2], "beard": "none", "outfit": ["jeans", "shirt"]},
            # Everyone owns glasses; every third pose has no room for them.
            **{"accessories": ["glasses"], "face": {"chin-width": 0.1 * (index % 4)}},
            "pose": {"expression": "happy/smile", "source": "a/b", "worn": ["glasses"] if index % 3 else []},
        },
    )
    rights = [
        {
            "id": person.asset_id,
            "source": "anny 0.6.2",
            "licence": "CC0-1.0",
            "consent": "not a person",
            "redistributable": True,
        },
        {
            "id": f"hall{index}",
            "source": "own <b>folder</b>",
            "licence": "LicenseRef-unknown",
            "consent": "unknown",
            "redistributable": False,
        },
    ]
    return RenderedSample(
        sample_id=f"{DIGEST[:12]}-{index:08d}",
        stage_digest=DIGEST,
        index=index,
        split="test" if index % 4 == 3 else "train",
        image=image,
        depth=depth,
        normal=normal,
        alpha=mask * 255,
        mask=mask,
        people=[person],
        K=K,
        world_to_camera=world_to_camera,
        framing=("face", "upper", "full")[index % 3],
        lighting={"environment": f"hall{index % 2}", "yaw_deg": 10.0, "strength": 1.0},
        rights=rights,
        agreement={"opaque": 1 - 1e-5 * index, "strand": 0.95 - 0.01 * index if index < 4 else None},
        engine={"renderer": "cycles", "version": "4.5", "samples": 4, "denoiser": "fast"},
    )


def rendered(folder: Path, count: int = 9) -> None:
    """A committed dataset of ``count`` dolls, and two samples that were not written."""
    task = f"00000000+{count + 2}"
    with shards.ShardWriter(folder, task, "rendered") as writer:
        for i in range(count):
            writer.append(shards.row_of(doll(i)))
        written = writer.close()
    outcomes = [commit.Outcome(f"{DIGEST[:12]}-{i:08d}", i, "done", "", 3.0 + 0.2 * i, 1) for i in range(count)]
    outcomes.append(commit.Outcome("lost-1", count, "rejected", "only 98.2 % of the foreground agrees", 3.1, 1))
    outcomes.append(commit.Outcome("lost-2", count + 1, "failed", "worker died <script>alert(1)</script>", 9.0, 2))
    commit.write_receipt(folder, commit.Receipt(task, DIGEST, written, outcomes, {}))
    commit.fold(folder, "rendered", DIGEST)


def trained(run: Path) -> None:
    """The logs of a pre-training that was killed once, and an evaluation in which one model wins and one loses."""
    for name, start in (("pretrain", 1.0), ("finetune/depth", 0.4), ("finetune/normal", 0.8)):
        (run / name).mkdir(parents=True)
        rows = [
            {
                "step": s,
                "loss": start * (0.3 + 0.7 * np.exp(-s / 60)),
                "lr": 1e-3,
                "images_per_s": 80.0,
                "data_wait_ms": 0.4,
                "seconds": 0.1,
            }
            for s in [*range(1, 130), *range(100, 201)]
        ]
        (run / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 2')


def write_job(run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    tree = {"name": "small-run", "render": {}, "report": {"samples": 6}}
    (run / "job.yaml").write_text(job.dump(job.check(tree)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small-run"
    write_job(folder)
    events = [
        {"time": 1.7e9, "event": "stage_finished", "stage": "render", "seconds": 41.5},
        {"time": 1.7e9 + 9, "event": "warning", "message": "asset old/1: height 3 m <is> outside"},
        {"time": 1.7e9 + 9, "event": "run_finished", "seconds": 75.0, "failures": 1},
    ]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    rendered(folder / "render")
    trained(folder)
    return folder


@pytest.fixture(scope="module")
def page(run) -> str:
    return report.build(run).read_text()


class Links(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values and tag == "section" else []
        self.loads += [
            v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "poster", "action") and v
        ]


def parse(page: str) -> Links:
    links = Links()
    links.feed(page)
    return links


def test_the_page_loads_nothing_from_elsewhere(page):
    links = parse(page)
    assert links.loads
    assert all(v.startswith(("data:", "#")) for v in links.loads)
    assert not {"script", "iframe", "object", "embed"} & set(links.tags)
    assert not re.search(r"@import|url\((?!#)", page)


def test_text_from_the_run_is_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "own &lt;b&gt;folder&lt;/b&gt;" in page


def test_every_section_with_data_is_there_and_no_other(page):
    assert parse(page).ids == ["renders", "distributions", "trust", "training", "rights", "biases", "warnings", "job"]


def test_contact_sheet_shows_all_channels_of_as_many_samples_as_asked(page):
    assert page.count('class="strip"') == 6
    for channel in ("image of", "alpha of", "normals of", "keypoints of"):
        assert page.count(f'alt="{channel}') == 6
    assert "parts of" not in page


def test_rejected_and_failed_samples_are_named_with_their_reason(page):
    assert "only 98.2 % of the foreground agrees" in page
    assert "worker died" in page


def cells(page: str) -> list[list[str]]:
    """The text of every table row."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [[re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)] for row in rows]


def test_the_page_counts_who_was_drawn_what_was_worn_and_who_is_alike(page):
    found = {row[0]: row[2:] for row in cells(page) if len(row) == 5}
    assert found["identities"][:2] == ["4", "9"]
    assert found["outfits"] == ["1", "4", "jeans + shirt 4"]
    assert found["accessories"] == ["2", "9", "glasses 6, none 3"], "worn, not owned"
    assert found["hair styles"] == ["2", "4", "bob 2, crop 2"]
    assert found["beards"] == ["1", "4", "none 4"]
    # Of one sex and hair, 8 years apart; no identity twice.
    pairs = re.findall(r"(anny/\d+) and (anny/\d+), ([\d.]+) apart; alike in ([a-z, ]+)\.", page)
    assert {pair[:2] for pair in pairs} == {("anny/000000", "anny/000002"), ("anny/000001", "anny/000003")}
    assert "hair" in pairs[0][3]
    assert page.count('<img src="data:') >= 4
    assert "Compared are" not in page


def test_the_page_shows_the_agreement_on_strands_apart(page):
    assert "Agreeing strand pixels in 4 samples: lowest 92.00 %, median 93.50 %; limit 90 %" in page


def test_the_page_says_what_it_left_out_of_counts_and_pairs(run, page, monkeypatch):
    monkeypatch.setattr(variety, "MOST_PEOPLE", 2)
    assert "Compared are the first 2 by name of 4 identities." in report.build(run).read_text()
    monkeypatch.undo()
    monkeypatch.setattr(report_render, "MAX_ROWS", 5)
    cut = report.build(run).read_text()
    assert "Counted over the same 5 samples: the set may hold more." in cut
    assert "Only identities in 5 of the 9 samples are looked at." in cut
    monkeypatch.undo()
    assert report.build(run).read_text() == page


def test_building_twice_gives_the_same_bytes(run, page):
    assert report.build(run).read_text() == page


def test_a_run_with_nothing_but_a_job_says_only_the_job(tmp_path):
    write_job(tmp_path)
    assert parse(report.build(tmp_path).read_text()).ids == ["job"]


def test_a_folder_without_job_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no job\.yaml"):
        report.build(tmp_path)


def test_rows_written_again_after_a_resume_count_once_and_a_cut_line_is_ignored(run):
    entry = training_section(run)[0]
    assert entry["steps"] == 200
    assert len(read_jsonl(run / "pretrain" / "metrics.jsonl")) == 230


def test_contact_sheet_deals_framings_in_turn():
    def label(framing, person):
        return {"framing": framing, "assets": [person]}

    labels = [label("full", "a")] * 5 + [label("face", "a"), label("full", "b"), label("upper", "a")]
    assert view.spread(labels, 5) == [5, 7, 0, 6, 1]


def test_azimuth_is_zero_in_front_and_ninety_to_the_side():
    def row(eye):
        pose = look_at(np.array(eye, float), np.zeros(3))
        return {"camera": {"world_to_camera": list(pose.ravel())}, "people": []}

    assert azimuth_deg(row([0, -3, 0])) == pytest.approx(0, abs=1e-9)
    assert azimuth_deg(row([3, 0, 0])) == pytest.approx(90)


def test_depth_colour_is_bright_near_and_black_outside():
    depth = np.array([[1.0, 2.0, 0.0]], np.float32)
    near, far, outside = view.depth_colour(depth, np.array([[1, 1, 0]], np.uint8))[0].astype(int).sum(axis=1)
    assert near > far > outside == 0


def test_normals_facing_the_camera_are_blue():
    colour = view.normal_colour(np.array([[[0, 0, -1.0]]]), np.ones((1, 1), np.uint8))[0, 0]
    assert tuple(colour) == (128, 128, 255)


def test_smooth_keeps_a_constant_and_the_length():
    assert np.allclose(figures.smooth(np.full(57, 3.0)), 3.0)


def test_charts_follow_the_ink_of_the_page():
    svg = figures.histogram([1.0, 2.0, 2.0], "metres <m>")
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert figures.INK not in svg
    assert "metres &lt;m&gt;" in svg


@pytest.mark.parametrize(("width", "height"), [(1280, 3000), (420, 3000)])
def test_a_browser_draws_the_page_without_sideways_scrolling(run, page, tmp_path, width, height):
    probe = tmp_path / "probe.html"
    # The probe is the page plus one line that writes the measured widths where --dump-dom shows them.
    script = (
        "<script>document.title = [document.documentElement.scrollWidth, innerWidth,"
        " [...document.images].every(i => i.naturalWidth > 0)].join('/')</script>"
    )
    probe.write_text(page.replace("</body>", script + "</body>"))
    shown = browser.dom(probe.as_uri(), tmp_path / "profile", width=width, height=height)
    title = re.search(r"<title>(\d+)/(\d+)/(true|false)</title>", shown)
    assert title is not None, shown[-2000:]
    assert int(title.group(1)) <= int(title.group(2))
    assert title.group(3) == "true"
