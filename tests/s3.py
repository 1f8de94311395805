"""A real S3 server process on loopback, and a proxy before it that fails in the ways that networks and stores do."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "maquette-test"


class Server:
    """moto's S3 server in a process of its own; ``endpoint`` is its address."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                assert self._process.poll() is None, "the S3 server ended at once; is moto[server] installed?"
                assert time.monotonic() < deadline
                time.sleep(0.1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")):
            pass

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def environment(endpoint: str) -> dict[str, str]:
    """What points every S3 client of a process at ``endpoint``."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


class Faults:
    """A proxy to ``port`` that fails a share of requests: ``done`` counts each kind of failure it caused."""

    KINDS = ("500", "slow_down", "delay", "cut", "lost")

    def __init__(self, port: int, share: float, seed: int) -> None:
        self.done: Counter[str] = Counter()
        chance, lock = random.Random(seed), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    fault = chance.choice(Faults.KINDS) if chance.random() < share else ""
                    outer.done[fault] += 1
                if fault in ("500", "slow_down"):
                    self._answer(500 if fault == "500" else 503, {}, b"<Error><Code>SlowDown</Code></Error>")
                    return
                if fault == "delay":
                    time.sleep(0.3)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                kept = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                upstream.request(self.command, self.path, body or None, kept)
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                if fault == "lost":
                    # The store did it, and its answer never arrives.
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                told = {k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
                if fault == "cut" and len(data) > 1:
                    self.close_connection = True
                    self._answer(answer.status, told, data[: len(data) // 2], len(data))
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._answer(answer.status, told, data)

            def _answer(self, status: int, headers: dict[str, str], data: bytes, said: int | None = None) -> None:
                self.send_response_only(status)
                for key, value in headers.items():
                    if key.lower() != "content-length":
                        self.send_header(key, value)
                # A HEAD's length is the object's, not the empty body's.
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(said or len(data))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

            def log_message(self, *arguments: object) -> None:
                """Silent: failures are counted, not printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
