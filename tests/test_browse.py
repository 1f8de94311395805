"""The page of `inspect --serve` shows every channel, turns the points, and serves nothing but the dataset, to nobody else."""

from __future__ import annotations

import http.client
import json
import re
import threading

import cv2
import numpy as np
import psutil
import pytest

from manifests.dataset import Dataset
from manifests.errors import StorageError
from pipeline import browse
from tests import browser, runs, samples


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = samples.dataset(tmp_path_factory.mktemp("browse") / "d", 6, per_task=3, splits=("train", "test"))
    with browse.server([Dataset(folder)]) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1], Dataset(folder)
        running.shutdown()


def get(port: int, path: str, host: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def test_rows_details_pictures_and_points_are_those_of_the_dataset(page):
    port, ds = page
    assert json.loads(get(port, "/datasets")[1])[0]["rows"] == 6
    found = json.loads(get(port, "/rows/0?split=test")[1])
    assert found["total"] == 3
    assert [r["row"] for r in found["rows"]] == [1, 3, 5]
    details = json.loads(get(port, "/row/0/4")[1])
    assert details["row"]["sample_id"] == "ball-0004"
    assert {"image", "depth", "normals", "alpha"} <= set(details["panels"])
    assert "depth" not in details["row"]
    status, png = get(port, "/picture/0/4/depth")
    assert status == 200
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape == (128, 96, 3)
    sample = ds.sample(4)
    raw = get(port, "/points/0/4")[1]
    n = int((sample.mask > 0).sum())
    assert len(raw) == 15 * n
    xyz = np.frombuffer(raw[: 12 * n], "<f4").reshape(-1, 3)
    # All points lie on the ball: their distance from its centre is one radius, wherever the origin was put.
    a = np.c_[2 * xyz, np.ones(n)]
    solved = np.linalg.lstsq(a, (xyz.astype(np.float64) ** 2).sum(1), rcond=None)[0]
    radii = np.linalg.norm(xyz - solved[:3], axis=1)
    assert radii.std() < 1e-4


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/picture/0/4/../../etc", "/row/0/99", "/row/7/0", "/picture/0/1/secret", "/%2e%2e/x", "/README.md",
     "/row/0/-1", "/rows/0?first=x"],
)  # fmt: skip
def test_nothing_outside_the_dataset_is_served(page, path):
    status, body = get(page[0], path)
    assert status == 404
    assert body == b"no such thing here"


def test_other_names_other_addresses_and_other_methods_are_turned_away(page):
    port, _ = page
    assert get(port, "/datasets", host="evil.example")[0] == 403
    assert get(port, "/datasets", host=f"localhost:{port}")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/datasets", b"x")
    assert connection.getresponse().status == 501
    connection.close()
    heard = [
        c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN" and c.laddr.port == port
    ]
    assert heard == ["127.0.0.1"]
    with pytest.raises(StorageError, match="another --port"):
        browse.server([], port)


def test_a_browser_shows_every_panel_and_turns_the_points(page, tmp_path):
    port, ds = page
    url = f"http://127.0.0.1:{port}/#0/4"
    dom = browser.dom(url, tmp_path, "virtual-time-budget=10000")
    assert 'data-shown="4"' in dom, dom[-2000:]
    assert "ball-0004" in dom
    assert set(re.findall(r'src="/picture/0/4/(\w+)"', dom)) == {"image", "alpha", "depth", "normals"}
    assert len(re.findall(r'src="/thumbnail/0/\d+"', dom)) == 6
    canvas = dict(re.findall(r'data-(\w+)="([\d.]+)"', re.search(r"<canvas[^>]*>", dom).group()))
    assert int(canvas["points"]) == (ds.sample(4).mask > 0).sum()
    assert int(canvas["frames"]) > 5
    assert int(canvas["lit"]) > 2000
    assert float(canvas["yaw"]) > 0.44, "it turns"


def test_the_command_says_where_and_ends_with_ctrl_c(tmp_path):
    import signal

    process = runs.start("inspect", samples.dataset(tmp_path, 2), "--serve")
    line = process.stdout.readline()
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line).group(1))
    assert get(port, "/")[0] == 200
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
