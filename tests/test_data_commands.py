"""Every dataset command does what it says, says what it did, and ends with its exit code."""

from __future__ import annotations

import json

import pytest

from manifests.dataset import Dataset
from manifests.verify import verify
from tests import runs, samples

SPLITS = ("train", "train", "val", "test")


def test_the_commands_work_together(tmp_path):
    """One road through all of them, each checked by what it left behind."""

    def ok(*arguments: object, expected: int = 0) -> str:
        code, said = runs.here(*map(str, arguments))
        assert code == expected, said
        assert "Traceback" not in said
        return said

    run = tmp_path / "run"
    folder = samples.dataset(run / "render", 12, per_task=2, splits=SPLITS)
    assert "12 shards" not in ok("inspect", run)
    found = json.loads(ok("stats", folder, "--where", "split=train"))
    assert found[0]["rows"] == 6
    assert found[0]["counts"]["framing"] == {"face": 2, "upper": 2, "full": 2}
    assert 1.0 < found[0]["sampled"]["depth_m"][1] < 3.0
    assert "7 rows" in ok("filter", run, "--out", tmp_path / "f", "--where", "index>=5")
    assert "rows" in ok("split", tmp_path / "f", "--out", tmp_path / "parts", "--by", "split")
    assert "7 rows" in ok("merge", *sorted((tmp_path / "parts").iterdir()), "--out", tmp_path / "m")
    assert "only_a 0" in ok("diff", tmp_path / "f", tmp_path / "m")
    said = ok("diff", folder, tmp_path / "m", expected=1)
    assert "only_a 5: ball-0000" in said
    assert "shards replaced" in ok("compact", run)
    assert "files removed" in ok("gc", run, "--older-than", "0")
    assert "1 samples withdrawn" in ok("withdraw", run, "--asset", "ball/3", "--why", "asked")
    (folder / "README.md").unlink()
    assert "README.md" in ok("card", run)
    assert "11 rows" in (folder / "README.md").read_text()
    assert "sound" in ok("verify", run)
    assert "sound" in ok("verify", run, "--quick")
    shard = sorted((folder / "data").iterdir())[0]
    raw = bytearray(shard.read_bytes())
    raw[raw.index(Dataset(folder).filter(shard=f"data/{shard.name}")[0]["depth"]) + 30] ^= 8
    shard.write_bytes(raw)
    assert "not what was written" in ok("verify", run, expected=3)
    said = ok("repair", run, expected=1)
    assert "lost ball-" in said
    assert verify(folder) == []
    assert len(Dataset(folder)) == 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["filter", "D", "--out", "X", "--where", "colour=red"], "no label colour"),
        (["filter", "D", "--out", "X", "--where", "people"], "expected LABEL=VALUE"),
        (["filter", "D", "--out", "X", "--where", "people=many"], "holds int values"),
        (["filter", "D", "--out", "X", "--where", "people>9"], "no row is left"),
        (["split", "D", "--out", "X", "--by", "sample_ids"], "no such label"),
        (["diff", "D", "nowhere"], "no such folder"),
        (["merge", "D", "D", "--out", "X"], "comes twice"),
        (["withdraw", "D", "--why", "x", "--sample", "nobody"], "holds none of nobody"),
        (["stats", "nowhere"], "no such folder"),
        (["stats", "D", "--where", "split=trian"], "no row has split=trian"),
        (["inspect", "D", "--sheet", "x.xyz"], "name a .jpg or a .png"),
        (["inspect", "D", "--row", "99"], "rows 0 to 3"),
    ],
)
def test_mistakes_end_in_one_paragraph_and_exit_2(tmp_path, arguments, expected):
    folder = samples.dataset(tmp_path / "d", 4)
    places = {"D": str(folder), "X": str(tmp_path / "x")}
    code, said = runs.here(*[places.get(a, a) for a in arguments])
    assert code == 2, said
    assert expected in said
    assert "Traceback" not in said


def test_a_dataset_whose_job_asks_for_more_is_not_called_sound(tmp_path):
    folder = samples.dataset(tmp_path / "run/render", 12, per_task=2)
    (folder / "stage.json").write_text("{}")
    (tmp_path / "run/job.yaml").write_text("name: r\nrender: {samples: 20, assets: [{source: anny, count: 2}]}\n")
    for command in ("verify", "repair"):
        code, said = runs.here(command, str(tmp_path / "run"))
        assert (code, "sound, but 8 samples are not there yet" in said) == (1, True), said
