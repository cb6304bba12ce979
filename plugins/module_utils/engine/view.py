# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filtered view of the engine: a small HTTP server on a private socket that Compose takes for the engine.

It lives as long as the `with` block around it. Every connection from Compose has one connection of its own to the real
engine, over whatever transport that is; bodies are streamed, only those that are rewritten are held in memory.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qsl, urlencode

from ..report.finding import ShipshapeError
from .connection import Connection, words
from .successor import Successor
from .view_rules import Rule, Scene, UnexpectedCreationError, as_wanted, creation, rule, with_alias

# Compose asks for all services at once, and a full backlog makes its connections fail: it must exceed their number.
_BACKLOG = 1024
_PIECE = 64 * 1024
_LARGEST_REFUSED = 1 << 20
_PREFIX = "shipshape-view-"
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
)


V = TypeVar("V", bound="View")
Answer = tuple[int, list[tuple[str, str]], bytes]  # status, headers, body


class View:
    """Serves `scene` to Compose. `address` is for DOCKER_HOST; `refused` lists the requests that were turned down."""

    @property
    def handler(self) -> type[Handler]:
        return Handler

    def __init__(self, connection: Connection, scene: Scene) -> None:
        self.connection = connection
        self.scene = scene
        self.refused: list[str] = []
        self.injected: set[str] = set()
        self._told: dict[str, Answer] = {}
        self._asking = threading.Lock()

    def lasting(self, method: str, path: str, ask: Callable[[str], http.client.HTTPResponse]) -> Answer:
        """An answer that holds as long as this view: Compose looks at its image again for each container."""
        with self._asking:
            key = f"{method} {path}"
            if key not in self._told:
                answer = ask(path)
                self._told[key] = (answer.status, answer.getheaders(), answer.read())
            return self._told[key]

    def __enter__(self: V) -> V:
        _sweep()
        self._directory = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_short_tempdir())
        path = os.path.join(self._directory, "s")
        self.address = f"unix://{path}"
        handler = type("Handler", (self.handler,), {"view": self})
        self._server = _Server(path, handler)
        # 0.02 s: how long the end of the block may wait for the server to notice.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        threading.Thread(target=self._prepare, daemon=True).start()
        return self

    def _prepare(self) -> None:
        """Compose begins with a question that takes the engine 0.1 s (it runs its helpers to ask for their versions);
        by the time Compose has started the answer is here."""
        with suppress(OSError, http.client.HTTPException, ShipshapeError), closing(self.connection.stream()) as stream:

            def ask(path: str) -> http.client.HTTPResponse:
                stream.request("GET", path, headers={"Host": "docker"})
                return stream.getresponse()

            self.lasting("GET", f"/v{self.connection.api_version}/info", ask)

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _short_tempdir() -> str:
    """A socket's path may have 107 bytes, and a configured TMPDIR can be longer than that."""
    directory = tempfile.gettempdir()
    return directory if len(directory) < 60 else "/tmp"


def _sweep() -> None:
    """Removes what views of killed processes left."""
    directory = _short_tempdir()
    for name in os.listdir(directory):
        if name.startswith(_PREFIX):
            pid = name[len(_PREFIX) :].partition("-")[0]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = _BACKLOG
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # The directory is 0700 already; the socket itself is closed to others as well from its first instant.
        before = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(before)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is Compose's to report; a traceback here would end up in the module's output."""


class Handler(BaseHTTPRequestHandler):
    """One connection from Compose. `view` is set by the view that serves it."""

    view: View
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.upstream = self.view.connection.stream()

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the base class named it)
        """Nothing: standard error belongs to the module."""

    def _decide(self, path: str) -> tuple[Rule, str]:
        return rule(self.command, path)

    def _serve(self) -> None:
        self._answering = self._body_read = False
        path, _dummy, query = self.path.partition("?")
        what, subject = self._decide(path)
        try:
            self._deal_with(what, path, query, subject)
        except UnexpectedCreationError as unexpected:
            self._refuse(f"creation of {unexpected}")
        except (OSError, http.client.HTTPException) as error:
            if self._answering:
                self.close_connection = True  # the head is out: breaking off is the only way to say that it failed
                return
            self._answer(502, {"message": f"the engine did not answer: {error or type(error).__name__}"})

    def _deal_with(self, what: Rule, path: str, query: str, subject: str) -> None:
        work: dict[Rule, Callable[[], None]] = {
            Rule.FORWARD: self._forward,
            Rule.LASTING: lambda: self._respond(*self.view.lasting(self.command, self.path, self._ask)),
            Rule.CREATE: lambda: self._create(path, query),
            Rule.LIST: lambda: self._rewritten(self.view.scene.listed),
            Rule.RESOURCES: lambda: self._rewritten(as_wanted),
            Rule.INSPECT: lambda: self._inspect(subject),
            Rule.CONNECT: self._connect,
            Rule.RESOURCE: lambda: self._resource(subject),
            Rule.INJECT: lambda: self._inject(subject),
            Rule.REFUSE: lambda: self._refuse(f"{self.command} {path}"),
        }
        work[what]()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815  (the base class looks for these)

    def _refuse(self, request: str) -> None:
        self.view.refused.append(request)
        if not self._body_read:
            # Who still writes its body would otherwise be cut off before it can read the answer.
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(min(length, _LARGEST_REFUSED))
        self._answer(403, {"message": f"shipshape.deploy lets Compose create, and nothing else: {request} refused"})

    def _answer(self, status: int, document: Any) -> None:
        # A request body that nobody read would be taken for the next request.
        self.close_connection = True
        self.respond(status, document)

    def respond(self, status: int, document: Any) -> None:
        """An answer of our own to a request whose body has been read."""
        self._respond(status, [("Content-Type", "application/json")], json.dumps(document).encode())

    def _respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # -- the request on its way up ----------------------------------------------------------------------------------

    def _ask(self, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """Sends the request on, with `body` in place of its own when one is given."""
        upgrade = "upgrade" in self.headers.get("Connection", "").lower()
        self.upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if (name.lower() not in _HOP_BY_HOP or upgrade) and not (body is not None and name == "Content-Length"):
                self.upstream.putheader(name, value)
        if body is not None:
            self.upstream.putheader("Content-Length", str(len(body)))
            self.upstream.endheaders(body)
        elif "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.upstream.putheader("Transfer-Encoding", "chunked")
            self.upstream.endheaders(_chunks(self.rfile), encode_chunked=True)
        else:
            self.upstream.endheaders(_pieces(self.rfile, int(self.headers.get("Content-Length") or 0)))
        return self.upstream.getresponse()

    def body(self) -> bytes:
        self._body_read = True
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(_chunks(self.rfile))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # -- the answer on its way down ---------------------------------------------------------------------------------

    def _forward(self) -> None:
        answer = self._ask(self.path)
        if answer.status == 101:
            self._tunnel(answer)
            return
        self._answering = True
        self.send_response_only(answer.status)
        length = answer.getheader("Content-Length")
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if length is None and not bodiless:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if bodiless:
            answer.read()
            return
        passed = 0
        while piece := answer.read1(_PIECE):
            passed += len(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
        if length is None:
            self.wfile.write(b"0\r\n\r\n")
        elif passed < int(length):
            self.close_connection = True  # the engine broke off, and whoever reads must not wait for the rest
        # read1() does not notice the end by itself, and the connection would take no further request.
        answer.close()

    def _tunnel(self, answer: http.client.HTTPResponse) -> None:
        """After an upgrade both sides speak as they like (BuildKit does): bytes to and fro until one of them ends."""
        self.send_response_only(101, answer.reason)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        _exchange((self.rfile, self.connection), (answer.fp, self.upstream.sock))

    def _rewritten(self, change: Any) -> None:
        answer = self._ask(self.path)
        body = answer.read()
        if answer.status == 200 and self.command == "GET":
            body = json.dumps(change(json.loads(body))).encode()
        self._respond(answer.status, answer.getheaders(), body)

    def _inspect(self, _container_id: str) -> None:
        self._rewritten(self.view.scene.inspected)

    def _inject(self, container_id: str) -> None:
        if container_id not in self.view.scene.created:
            self._refuse(f"{self.command} {self.path.partition('?')[0]}")
            return
        self.view.injected.add(container_id)
        self._forward()

    def _create(self, path: str, query: str) -> None:
        options = dict(parse_qsl(query))
        name, body, service, place = creation(self.view.scene, options.get("name", ""), json.loads(self.body()))
        answer = self._ask(f"{path}?{urlencode({**options, 'name': name})}", json.dumps(body).encode())
        reply = answer.read()
        if answer.status == 201:
            created: Mapping[str, Any] = json.loads(reply)
            self.view.scene.created[created["Id"]] = Successor(created["Id"], service, place, name)
        elif answer.status >= 400:
            self.view.scene.rejected.append((service, words(reply)))
        self._respond(answer.status, answer.getheaders(), reply)

    def _resource(self, kind: str) -> None:
        body = self.body()
        answer = self._ask(self.path, body)
        if answer.status == 201:
            self.view.scene.resources.append(f"{kind} {json.loads(body).get('Name', '')}")
        self._respond(answer.status, answer.getheaders(), answer.read())

    def _connect(self) -> None:
        """Engines before API 1.44 take further networks one by one: the same renaming as at creation."""
        body = json.loads(self.body())
        successor = self.view.scene.created.get(body.get("Container", ""))
        if successor is None:
            self._refuse(f"{self.command} {self.path}")
            return
        asked = f"{successor.place.name.rpartition('-')[0]}-"
        endpoint = body.get("EndpointConfig") or {}
        for alias in endpoint.get("Aliases") or []:
            if alias.startswith(asked) and alias[len(asked) :].isdigit():
                endpoint = with_alias(endpoint, alias, successor.place.name) or {}
        answer = self._ask(self.path, json.dumps({**body, "EndpointConfig": endpoint}).encode())
        self._respond(answer.status, answer.getheaders(), answer.read())


def _pieces(source: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = source.read(min(_PIECE, length))
        if not piece:
            raise ConnectionError("the request ended early")
        length -= len(piece)
        yield piece


def _chunks(source: Any) -> Iterator[bytes]:
    """The decoded pieces of a chunked request body."""
    while True:
        size = int(source.readline(_PIECE).split(b";")[0], 16)
        if size:
            yield from _pieces(source, size)
        while source.readline(_PIECE).strip():
            pass  # the line end after a chunk, or trailers after the last one
        if not size:
            return


def _exchange(ours: tuple[Any, socket.socket], theirs: tuple[Any, Any]) -> None:
    """Copies bytes both ways. Each side is (buffered reader that may hold bytes already read, socket)."""

    def pump(reader: BinaryIO, sink: socket.socket) -> None:
        try:
            while piece := reader.read1(_PIECE):  # type: ignore[attr-defined]  # both readers are buffered
                sink.sendall(piece)
        except (OSError, ValueError):
            pass
        finally:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    for _dummy, stream in (ours, theirs):
        stream.settimeout(None)
    back = threading.Thread(target=pump, args=(theirs[0], ours[1]), daemon=True)
    back.start()
    pump(ours[0], theirs[1])
    back.join()


class Tunnel(View):
    """A view that shows and allows everything: an engine that is not on this machine, as a socket that is."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, Scene({}, {}))

    @property
    def handler(self) -> type[Handler]:
        return _Through

    def _prepare(self) -> None:
        """Nothing: who will ask for what is not known."""


class _Through(Handler):
    def _decide(self, _path: str) -> tuple[Rule, str]:
        return Rule.FORWARD, ""
