# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at a chosen instant: a wire between module and engine, and a chronicle of what the engine did.

A `Wire` passes everything on, Compose's requests included, counts the requests, and does something else at one of them:
a `Fault` takes that request over. A `Chronicle` follows the engine's events, so that a test can act at the n-th of them
without standing in the way, and can tell afterwards how many containers of a service ran at any time.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker

from tests.support.engine import Engine
from tests.support.modules import ModuleCall
from tests.support.stacks import LABEL, Stack
from tests.support.transports import PIECE, listener

CHANGING = (b"POST ", b"PUT ", b"DELETE ")
ANY = (b"GET ", b"HEAD ", *CHANGING)

# (the module's end, the engine's end) -> whether the connection goes on. The request has not been read yet.
Fault = Callable[[socket.socket, socket.socket], bool]


class Wire:
    """Between module and `engine`: at the `at`-th request among those that are `counted`, `fault` takes over."""

    def __init__(
        self, engine: Engine, at: int | None = None, fault: Fault | None = None, counted: tuple[bytes, ...] = ANY
    ) -> None:
        self.requests: list[str] = []
        self.tripped = threading.Event()  # the request has come
        self.settled = threading.Event()  # and what was to be done to it has been done
        self._target = engine.host.removeprefix("unix://")
        self._at, self._fault, self._counted = at, fault, counted
        self._lock = threading.Lock()

    @contextmanager
    def strung(self) -> Iterator[str]:
        """Address of the engine behind the wire."""
        folder = tempfile.mkdtemp(prefix="swi-")
        try:
            with listener(socket.AF_UNIX, f"{folder}/s", self._serve):
                yield f"unix://{folder}/s"
        finally:
            shutil.rmtree(folder)

    def where(self, mode: str) -> str:
        """The fault in words, for a message."""
        if self._at is None or len(self.requests) <= self._at:
            return f"{mode} at request {self._at}, which never came"
        return f"{mode} at request {self._at}, {self.requests[self._at]}"

    def _serve(self, ours: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._target)
            sources = [ours, engine]
            while True:
                for source in select.select(sources, [], [])[0]:
                    if source is ours and self._reached(ours):
                        assert self._fault is not None
                        try:
                            if not self._fault(ours, engine):
                                return
                        finally:
                            self.settled.set()
                        continue
                    piece = source.recv(PIECE)
                    if piece:
                        (engine if source is ours else ours).sendall(piece)
                    elif source is engine:
                        return
                    else:
                        sources.remove(ours)
                        engine.shutdown(socket.SHUT_WR)

    def _reached(self, ours: socket.socket) -> bool:
        # Nobody sends a request before the last one is answered, so each begins with what is read next.
        begun = ours.recv(4096, socket.MSG_PEEK)
        if not begun.startswith(self._counted):
            return False
        with self._lock:
            self.requests.append(begun.split(b" HTTP/", 1)[0].decode())
            if len(self.requests) - 1 != self._at:
                return False
        self.tripped.set()
        return True


def taken(stream: socket.socket) -> bytes:
    """One whole request."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += _more(stream)
    head = text.partition(b"\r\n\r\n")[0].lower()
    if b"transfer-encoding: chunked" in head:
        while not text.endswith(b"0\r\n\r\n"):
            text += _more(stream)
        return text
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    whole = len(head) + 4 + int(length[1] if length else 0)
    while len(text) < whole:
        text += _more(stream)
    return text


def _more(stream: socket.socket) -> bytes:
    piece = stream.recv(PIECE)
    if not piece:
        raise ConnectionError("the request ended early")
    return piece


def refused(ours: socket.socket, engine: socket.socket) -> bool:
    """An error for an answer, and the engine never hears of the request."""
    taken(ours)
    body = json.dumps({"message": "a fault that this test made up"}).encode()
    head = f"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    ours.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
    return False


def reset(ours: socket.socket, engine: socket.socket) -> bool:
    """Hung up on before the engine hears of it: a request that nobody has read makes that a reset."""
    return False


def unanswered(ours: socket.socket, engine: socket.socket) -> bool:
    """The engine does it, but hangs up instead of saying so."""
    engine.sendall(taken(ours))
    engine.recv(1)
    return False


def slow(seconds: float) -> Fault:
    """The engine does it at once, and says so late."""

    def fault(ours: socket.socket, engine: socket.socket) -> bool:
        engine.sendall(taken(ours))
        time.sleep(seconds)
        return True

    return fault


def late(seconds: float) -> Fault:
    """The engine gets round to it late, whether anybody still waits for it or not."""

    def fault(ours: socket.socket, engine: socket.socket) -> bool:
        request = taken(ours)
        time.sleep(seconds)
        engine.sendall(request)
        engine.recv(1, socket.MSG_PEEK)
        return True

    return fault


class Chronicle:
    """What the engine says it does to the containers of a project, from now on."""

    KINDS = ("create", "start", "kill", "die", "stop", "rename", "destroy")

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = docker.APIClient(base_url=stack.project.engine.host, version="auto", timeout=60)
        self._news = threading.Condition()
        self._up: dict[str, set[str]] = {}
        self.entries: list[str] = []
        self.lowest: dict[str, int] = {}  # by service: the fewest containers that ran at any time

    def __enter__(self) -> Chronicle:
        labels = [f"{LABEL}.project={self._stack.name}"]
        self._stream = self._client.events(
            decode=True, filters={"label": labels, "type": "container", "event": list(self.KINDS)}
        )
        self._up = self._running()
        self.lowest = {service: len(ids) for service, ids in self._up.items()}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._stream.close()
        self._client.close()

    def wait_for(self, count: int, call: ModuleCall) -> bool:
        """Whether `count` events have come before `call` ended."""
        with self._news:
            while len(self.entries) < count:
                if not self._news.wait(0.05) and call.process.poll() is not None:
                    return False
            return True

    def fewest(self, service: str) -> int:
        """The fewest containers of `service` that ran at any time up to now."""
        deadline = time.monotonic() + 10
        while self._up.get(service, set()) != self._running().get(service, set()):
            assert time.monotonic() < deadline, f"the events do not tell of {service} what the engine shows"
            time.sleep(0.02)
        return self.lowest.get(service, 0)

    def _running(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for document in self._stack.containers().values():
            if document["State"]["Running"]:
                found.setdefault(document["Config"]["Labels"][f"{LABEL}.service"], set()).add(document["Id"])
        return found

    def _follow(self) -> None:
        # The stream ends with the engine, or when it is closed.
        with contextlib.suppress(Exception):
            for event in self._stream:
                self._note(event["Action"], event["Actor"])

    def _note(self, action: str, actor: dict[str, Any]) -> None:
        attributes = actor["Attributes"]
        service = attributes[f"{LABEL}.service"]
        up = self._up.setdefault(service, set())
        if action == "start":
            up.add(actor["ID"])
        elif action == "die":
            up.discard(actor["ID"])
        with self._news:
            self.lowest[service] = min(self.lowest.get(service, 0), len(up))
            self.entries.append(f"{action} {attributes['name']}")
            self._news.notify_all()
