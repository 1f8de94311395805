"""Datasets -> a page on this machine to look at their samples: pictures, depth, normals, parts, keypoints, points that turn.

Listens on 127.0.0.1 alone, answers GET alone, and opens no path that a request names: a request gives numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from manifests import codecs, photo, view
from manifests.dataset import Dataset
from manifests.errors import MaquetteError, StorageError
from manifests.export_tables import plain
from manifests.frames import camera_rays
from manifests.index import BLOBS
from manifests.sample import RenderedSample

PAGE = Path(__file__).with_name("browse.html")
MAX_POINTS = 60_000
PANEL_ROWS, THUMBNAIL_ROWS = 512, 96
LISTED = ("sample_id", "split", "framing", "people", "width", "height")
CHOICES = ("split", "framing", "environment")
# Nothing from elsewhere is loaded, and no other site may frame the page.
POLICY = "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"


class Browser:
    """What the page asks for, by dataset and row number. Raises IndexError on numbers that do not exist."""

    def __init__(self, datasets: list[Dataset]) -> None:
        self.datasets = datasets
        self.sample = lru_cache(maxsize=8)(lambda d, i: datasets[d].sample(i))

    def overview(self) -> list[dict[str, Any]]:
        """Name, kind, rows and the values to filter by of each dataset."""
        return [
            {
                "name": d.url,
                "kind": d.kind,
                "rows": len(d),
                "choices": {c: sorted({v for v in d.labels.table[c].to_pylist() if v is not None}) for c in CHOICES},
            }
            for d in self.datasets
        ]

    def rows(self, dataset: int, first: int, count: int, labels: dict[str, str]) -> dict[str, Any]:
        """``count`` rows from the ``first`` of those whose labels equal ``labels``, and how many there are."""
        whole = self.datasets[dataset]
        keep = np.ones(len(whole), bool)
        for name, value in labels.items():
            keep &= np.array([str(v) == value for v in whole.labels.table[name].to_pylist()], bool)
        found = np.flatnonzero(keep)
        listed = [int(i) for i in found[first : first + min(count, 200)]]
        labelled = [whole.labels[i] for i in listed]
        return {
            "total": len(found),
            "rows": [{"row": i, **{k: r[k] for k in LISTED}} for i, r in zip(listed, labelled)],
        }

    def details(self, dataset: int, row: int) -> dict[str, Any]:
        """The row without its blobs, and the names of its pictures."""
        found = self.datasets[dataset][row]
        names = list(self.panels(dataset, row, 16))
        blobs = {k: len(v["bytes"] if isinstance(v, dict) else v) for k in BLOBS if (v := found.get(k)) is not None}
        plain = {k: v for k, v in found.items() if k not in BLOBS}
        return {"row": plain, "bytes": blobs, "panels": names, "points": self.datasets[dataset].kind == "rendered"}

    def panels(self, dataset: int, row: int, height: int) -> dict[str, np.ndarray]:
        """name -> (H, W, 3) uint8 picture, ``height`` rows at most."""
        source = self.datasets[dataset]
        if source.kind == "rendered":
            return view.panels(self.sample(dataset, row), height)
        found = source[row]
        # Photographs are strangers' bytes: they go through the decoder that expects the worst.
        picture = photo.decode(found["image"]["bytes"])[0].copy()
        boxed = picture.copy()
        for box in found["boxes"] or []:
            view.draw_box(boxed, np.asarray(box["xyxy"]), view.CLAY)
        return {"image": view.thumbnail(picture, height), "boxes": view.thumbnail(boxed, height)}

    def points(self, dataset: int, row: int) -> bytes:
        """Foreground points of a rendered row: N x 3 float32 metres about their centre, then N x 3 uint8 colours."""
        sample = self.sample(dataset, row)
        return points_of(sample, MAX_POINTS)


def points_of(sample: RenderedSample, limit: int) -> bytes:
    """(N, 3) float32 camera-frame points less their median, then (N, 3) uint8 sRGB; N at most ``limit``, evenly thinned."""
    h, w = sample.mask.shape
    at = np.flatnonzero(sample.mask)
    at = at[:: max(1, -(-len(at) // limit))]
    xyz = (camera_rays(sample.K, w, h).reshape(-1, 3)[at] * sample.depth.reshape(-1, 1)[at]).astype(np.float32)
    if len(xyz):
        xyz = xyz - np.median(xyz, axis=0)
    return xyz.astype("<f4").tobytes() + sample.image.reshape(-1, 3)[at].tobytes()


def server(datasets: list[Dataset], port: int = 0) -> ThreadingHTTPServer:
    """The server, bound and not yet running; ``server_address`` has the port. Raises StorageError when it is taken."""
    browser = Browser(datasets)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Another site's page may point its own name at this address; its requests carry that name.
            if self.headers.get("Host") not in (f"127.0.0.1:{bound}", f"localhost:{bound}"):
                self._answer(403, "text/plain", b"this page answers to 127.0.0.1 only")
                return
            try:
                kind, body = answer(browser, self.path)
            except (IndexError, KeyError, ValueError):
                self._answer(404, "text/plain", b"no such thing here")
            except MaquetteError as error:
                self._answer(500, "text/plain", str(error).encode())
            else:
                self._answer(200, kind, body)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            for key, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", POLICY),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Requests are not news."""

    try:
        made = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise StorageError(f"port {port}: {error.strerror}; give another --port, or 0 for a free one") from None
    bound = made.server_address[1]
    made.daemon_threads = True
    return made


def answer(browser: Browser, path: str) -> tuple[str, bytes]:
    """(content type, body) for a request's path. Raises IndexError, KeyError or ValueError where there is nothing."""
    url = urlsplit(path)
    asked = {k: v[-1] for k, v in parse_qs(url.query).items()}
    if url.path == "/":
        return "text/html; charset=utf-8", PAGE.read_bytes()
    if url.path == "/datasets":
        return _json(browser.overview())
    match = re.fullmatch(r"/(rows|row|points|picture|thumbnail)/(\d+)(?:/(\d+))?(?:/([a-z]+))?", url.path)
    if match is None:
        raise ValueError(path)
    what, dataset, row, name = match[1], int(match[2]), int(match[3] or 0), match[4]
    if what == "rows":
        labels = {k: asked[k] for k in CHOICES if asked.get(k)}
        return _json(browser.rows(dataset, int(asked.get("first", 0)), int(asked.get("count", 60)), labels))
    if what == "row":
        return _json(browser.details(dataset, row))
    if what == "points":
        return "application/octet-stream", browser.points(dataset, row)
    if what == "thumbnail":
        picture = browser.panels(dataset, row, THUMBNAIL_ROWS)["image"]
        return "image/jpeg", codecs.encode_image(picture, "jpeg", 85)
    return "image/png", codecs.encode_image(browser.panels(dataset, row, PANEL_ROWS)[str(name)], "png")


def serve(datasets: list[Dataset], port: int, started: Callable[[str], None]) -> None:
    """Serve until interrupted; ``started`` is told the page's address."""
    with server(datasets, port) as running:
        started(f"http://127.0.0.1:{running.server_address[1]}/")
        running.serve_forever()


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(plain(value), default=str, allow_nan=False).encode()
