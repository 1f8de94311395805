"""A stand-in for the Hugging Face Hub on loopback: it speaks the part of its API that a push uses, and keeps each commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """``commits``: one list of operations per commit. ``files``: name -> bytes as of the last one. ``fail``: statuses by path."""

    def __init__(self) -> None:
        self.commits: list[list[dict]] = []
        self.files: dict[str, bytes] = {}
        self.repos: dict[str, dict] = {}
        self.fail: dict[str, int] = {}
        blobs: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?")[0]
                for pattern, status in hub.fail.items():
                    if pattern in path:
                        self._answer({"error": "refused by the test"}, status)
                        return
                if path == "/api/repos/create":
                    asked = json.loads(body)
                    name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
                    hub.repos[name] = asked
                    self._answer({"url": f"{self._base()}/datasets/{name}", "name": name})
                elif "/tree/" in path:
                    self._answer(
                        [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in hub.files.items()]
                    )
                elif "/preupload/" in path:
                    modes = [
                        {
                            "path": f["path"],
                            "uploadMode": "lfs" if re.search(r"\.(arrow|parquet)$", f["path"]) else "regular",
                            "shouldIgnore": False,
                        }
                        for f in json.loads(body)["files"]
                    ]
                    self._answer({"files": modes})
                elif path.endswith("/info/lfs/objects/batch"):
                    objects = [
                        {**o, "actions": {"upload": {"href": f"{self._base()}/lfs/{o['oid']}"}}}
                        for o in json.loads(body)["objects"]
                    ]
                    self._answer({"transfer": "basic", "objects": objects})
                elif path.startswith("/lfs/"):
                    assert hashlib.sha256(body).hexdigest() == path[5:]
                    blobs[path[5:]] = body
                    self._answer({})
                elif "/commit/" in path:
                    operations = [json.loads(line) for line in body.splitlines() if line]
                    for o in operations:
                        value = o["value"]
                        if o["key"] == "file":
                            hub.files[value["path"]] = base64.b64decode(value["content"])
                        elif o["key"] == "lfsFile":
                            hub.files[value["path"]] = blobs[value["oid"]]
                        elif o["key"] == "deletedFile":
                            del hub.files[value["path"]]
                    hub.commits.append(operations)
                    oid = f"{len(hub.commits):040x}"
                    self._answer({"commitUrl": f"{self._base()}/datasets/tester/people/commit/{oid}", "commitOid": oid})
                else:
                    self._answer({"siblings": [{"rfilename": n} for n in hub.files], "id": "x", "sha": "0" * 40})

            def _base(self) -> str:
                return f"http://127.0.0.1:{self.server.server_address[1]}"

            def _answer(self, value: object, status: int = 200) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_HEAD = _serve

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
