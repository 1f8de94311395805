"""A stand-in for Google's object store on loopback: the few requests of its XML API that a dataset makes."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Server:
    """``objects``: key -> (bytes, seconds since 1970 of the last write), of the one bucket it serves."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        lock, objects = threading.Lock(), self.objects

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _key(self) -> str:
                return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

            def do_PUT(self) -> None:
                body, key = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self._key()
                with lock:
                    if self.headers.get("x-goog-if-generation-match") == "0" and key in objects:
                        self._answer(412)
                        return
                    if source := self.headers.get("x-goog-copy-source"):
                        body = objects[unquote(source).lstrip("/").partition("/")[2]][0]
                    objects[key] = (body, time.time())
                self._answer(200, b"<CopyObjectResult/>" if source else b"", body)

            def do_GET(self) -> None:
                asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                if "list-type" in asked:
                    self._list(asked.get("prefix", ""), asked.get("delimiter", ""))
                elif self._key() not in objects:
                    self._answer(404)
                else:
                    data, when = objects[self._key()]
                    extra, status, part = {"Last-Modified": email.utils.formatdate(when, usegmt=True)}, 200, data
                    if span := self.headers.get("Range"):
                        first, _, last = span.removeprefix("bytes=").partition("-")
                        part = data[int(first) : int(last) + 1]
                        extra["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                        status = 206
                    self._answer(status, part, data, extra)

            do_HEAD = do_GET

            def do_DELETE(self) -> None:
                self._answer(204 if objects.pop(self._key(), None) else 404)

            def _list(self, prefix: str, delimiter: str) -> None:
                found, folders = "", set()
                for key, (data, when) in sorted(objects.items()):
                    if not key.startswith(prefix):
                        continue
                    head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                    if cut:
                        folders.add(prefix + head + cut)
                        continue
                    stamp = datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()
                    found += (
                        f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified><ETag>x</ETag>"
                        f"<Size>{len(data)}</Size></Contents>"
                    )
                found += "".join(
                    f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)
                )
                body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
                self._answer(200, body.encode())

            def _answer(
                self, status: int, body: bytes = b"", data: bytes = b"", extra: dict[str, str] | None = None
            ) -> None:
                self.send_response(status)
                tag = hashlib.md5(data).hexdigest()
                for key, value in {"ETag": f'"{tag}"', "x-goog-generation": "1", **(extra or {})}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def credentials(self, path: Path) -> Path:
        """Write a service account file that leads Google's clients here."""
        account = {
            "gcs_base_url": self.endpoint,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        path.write_text(json.dumps(account))
        return path

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
