# SPDX-License-Identifier: GPL-3.0-or-later
"""A filtered view of the engine, asked without Compose, and an engine of our own making behind it, which counts every
byte and waits at any point.

Fixture: `fake_engine` (its address)."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import Connection
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import Endpoint
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view import View
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Scene
from tests.support.engine import SOCKET
from tests.support.modules import TREE

MEGABYTE = 1 << 20
PIECE = bytes(range(256)) * 4096  # 1 MB in which no two neighbouring bytes are equal


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("view", timeout=60)
        self.path = address.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """(status, JSON of the answer) of one request."""
    connection = UnixConnection(address)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else None
    finally:
        connection.close()


def view_of(host: str = SOCKET, scene: Scene | None = None) -> View:
    return View(Connection(Endpoint(host=host)), scene or Scene({}, {}))


@contextmanager
def view_process(host: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A view in a process of its own, so that its memory can be measured and its death arranged."""
    script = (
        "import sys\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import Connection\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import Endpoint\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view import View\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Scene\n"
        "with View(Connection(Endpoint(host=sys.argv[1])), Scene({}, {})) as view:\n"
        "    print(view.address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        if process.poll() is None:
            process.communicate(timeout=20)


def peak(process: subprocess.Popen[str]) -> int:
    """The most memory that the process ever held, in bytes."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as handle:
        [line] = [line for line in handle if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


class FakeEngine(BaseHTTPRequestHandler):
    """Digests what it is sent, sends what it is asked for, and speaks freely after an upgrade."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        if "upgrade" in self.headers.get("Connection", "").lower():
            self._upgraded()
            return
        digest, total = hashlib.sha256(), 0
        for piece in self._body():
            digest.update(piece)
            total += len(piece)
        self._json({"sha256": digest.hexdigest(), "bytes": total, "headers": dict(self.headers.items())})

    def do_GET(self) -> None:
        what, _, number = self.path.strip("/").partition("/")
        if what == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(number)):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            self.wfile.write(b"0\r\n\r\n")
        elif what == "sized":
            self.send_response(200)
            self.send_header("Content-Length", str(int(number) * len(PIECE)))
            self.end_headers()
            for _ in range(int(number)):
                self.wfile.write(PIECE)
        elif what == "slow":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            self.go_on.wait(30)
            self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")
        elif what == "break":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        elif what == "drop":
            self.close_connection = True

    def _upgraded(self) -> None:
        """Repeats in capitals what it hears, and has the last word when the other side has ended."""
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.end_headers()
        self.close_connection = True
        while piece := self.rfile.read1(65536):  # type: ignore[attr-defined]
            self.wfile.write(piece.upper())
        self.wfile.write(b"<END>")

    def _body(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                piece = self.rfile.read(min(left, 65536))
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(self, document: Any) -> None:
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class FakeServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def fake_engine() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="sv-")
    FakeEngine.go_on.clear()
    server = FakeServer(f"{folder}/s", FakeEngine)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"unix://{folder}/s"
    finally:
        FakeEngine.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
        shutil.rmtree(folder)
