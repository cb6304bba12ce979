# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` killed at any request that changes the engine: one more run heals, and nothing is lost.

Between module and engine stands a wire that counts the requests which change anything, Compose's own included, and
kills the module at the one it is told to: before the engine hears of it, while the engine is at it, or when it is done.
The next run gets either the same Compose file again or, as somebody does who goes back, the one before.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pytest

from tests.support.engine import SOCKET, Project
from tests.support.modules import ModuleCall
from tests.support.stacks import Stack, check, service
from tests.support.transports import PIECE, listener

CHANGING = (b"POST ", b"PUT ", b"DELETE ")
MOMENTS = ("before", "during", "after")


class Tripwire:
    """Kills `victim` at its `at`-th changing request; with `at` None it only writes down what was asked for."""

    def __init__(self, at: int | None = None, moment: str = "before") -> None:
        self.at, self.moment = at, moment
        self.requests: list[str] = []
        self.tripped = threading.Event()
        self.victim: ModuleCall | None = None
        self.connected = threading.Event()
        self._count = itertools.count()

    @contextmanager
    def strung(self) -> Iterator[str]:
        """Address of the engine behind the wire."""
        folder = tempfile.mkdtemp(prefix="skw-")
        try:
            with listener(socket.AF_UNIX, f"{folder}/s", self._serve):
                yield f"unix://{folder}/s"
        finally:
            shutil.rmtree(folder)

    def _serve(self, ours: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(SOCKET.removeprefix("unix://"))
            sources, armed = [ours, engine], False
            while True:
                for source in select.select(sources, [], [])[0]:
                    piece = source.recv(PIECE)
                    if source is ours and piece.startswith(CHANGING):
                        armed = self._reached(piece)
                    if armed and self.moment == "before":
                        return self._kill()
                    if armed and self.moment == "after" and source is engine:
                        return self._kill()
                    if piece:
                        (engine if source is ours else ours).sendall(piece)
                    elif source is engine:
                        return None
                    else:
                        sources.remove(ours)
                        engine.shutdown(socket.SHUT_WR)
                    if armed and self.moment == "during":
                        return self._kill(linger=engine)

    def _reached(self, piece: bytes) -> bool:
        self.requests.append(piece.split(b" HTTP/", 1)[0].decode())
        return next(self._count) == self.at

    def _kill(self, linger: socket.socket | None = None) -> None:
        assert self.victim is not None
        os.kill(self.victim.process.pid, signal.SIGKILL)
        self.tripped.set()
        if linger is not None:
            # The engine finishes what it was asked for, as it does for anybody who has hung up.
            linger.settimeout(20)
            with contextlib.suppress(OSError):
                linger.recv(PIECE)


def definition(generation: int) -> tuple[dict[str, Any], dict[str, Any]]:
    keys: dict[str, Any] = {"environment": {"GENERATION": str(generation)}}
    services = {
        "db": service(volumes=["data:/data"], healthcheck=check("true"), **keys),
        "web": service(depends_on={"db": {"condition": "service_healthy"}}, deploy={"replicas": 2}, **keys),
        "worker": service(volumes=["/work"], restart="unless-stopped", **keys),
    }
    return services, {"volumes": {"data": {}}}


class Story:
    """A project that is deployed again and again, and killed while it is."""

    def __init__(self, project: Project) -> None:
        self.stack = Stack(project, {"stability": 0.2, "wait_timeout": 60})
        self.generation = 0
        self.anonymous: set[str] = set()  # nobody removes them with their containers

    def write(self, generation: int) -> None:
        services, top = definition(generation)
        self.stack.write(services, **top)

    def begin(self) -> None:
        self.write(0)
        self.stack.deploy()
        self.stack.shell("db", "echo precious > /data/file")
        self.stack.shell("worker", "echo precious > /work/file")

    def requests(self, **options: Any) -> list[str]:
        """What a run asks for that nobody interrupts."""
        wire = Tripwire()
        with wire.strung() as host:
            self.stack.deploy(docker_host=host, **options)
        return wire.requests

    def killed(self, at: int, moment: str, **options: Any) -> str:
        """A run that is killed; returns at which request."""
        wire = Tripwire(at, moment)
        with wire.strung() as host:
            call = self.stack.call(docker_host=host, **options)
            wire.victim = call
            out, err = call.process.communicate(timeout=120)
            assert wire.tripped.wait(5), f"request {at} never came: {out.decode()}{err.decode()}"
            assert call.process.returncode == -signal.SIGKILL
        return f"{moment} {wire.requests[at]}"

    def heals(self, where: str, generation: int) -> None:
        """One re-run puts everything right, a further one has nothing to do, and Compose neither."""
        stack = self.stack
        gone = {"db", "web", "worker"} - {
            document["Config"]["Labels"]["com.docker.compose.service"] for document in stack.containers().values()
        }
        assert not gone, f"killed {where}: {gone} lost their containers"
        self.write(generation)
        stack.deploy()
        wanted = {f"{stack.name}-{at}" for at in ("db-1", "web-1", "web-2", "worker-1")}
        assert stack.containers().keys() == wanted == stack.running(), f"killed {where}"
        for name, document in stack.containers().items():
            assert f"GENERATION={generation}" in document["Config"]["Env"], f"killed {where}: {name} is an old one"
        assert stack.shell("db", "cat /data/file") == "precious\n", f"killed {where}"
        assert stack.shell("worker", "cat /work/file") == "precious\n", f"killed {where}"
        stack.unchanged()
        stack.up_finds_nothing_to_do()


@pytest.fixture
def story(project: Project) -> Iterator[Story]:
    found = Story(project)
    try:
        yield found
    finally:
        for volume in found.anonymous:
            with contextlib.suppress(docker.errors.NotFound):
                found.stack.api.remove_volume(volume, force=True)


def spread(points: list[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """`count` of `points`, evenly spread, with every moment in turn."""
    step = max(1, len(points) // count)
    return points[::step][:count] if step % len(MOMENTS) else points[:: step + 1][:count]


def replacement(story: Story, count: int | None) -> None:
    story.begin()
    story.write(1)
    story.generation = 1
    requests = story.requests()
    assert len(requests) >= 4 * 5, f"create, stop, start, rename, remove for each of four containers? {requests}"
    points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
    for index, (at, moment) in enumerate(points if count is None else spread(points, count)):
        story.write(story.generation + 1)
        where = story.killed(at, moment)
        story.generation += index % 2  # forward, or back to what was there
        story.heals(where, story.generation)


def test_killed_while_replacing(story: Story) -> None:
    replacement(story, 12)


@pytest.mark.long
def test_killed_while_replacing_at_every_request(story: Story) -> None:
    replacement(story, None)


def first_deploy(story: Story, count: int | None) -> None:
    story.write(0)
    requests = story.requests()
    points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
    for at, moment in points if count is None else spread(points, count):
        story.stack.deploy(state="absent", remove_volumes=True)
        assert not story.stack.snapshot()
        where = story.killed(at, moment)
        story.stack.deploy()
        assert len(story.stack.running()) == len(story.stack.containers()) == 4, f"killed {where}"
        story.stack.unchanged()
        story.stack.up_finds_nothing_to_do()


def test_killed_while_creating(story: Story) -> None:
    first_deploy(story, 3)


@pytest.mark.long
def test_killed_while_creating_at_every_request(story: Story) -> None:
    first_deploy(story, None)


def removal(story: Story, count: int | None) -> None:
    story.begin()
    story.anonymous |= {at["Name"] for at in story.stack.container("worker")["Mounts"]}
    requests = story.requests(state="absent")
    points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
    for at, moment in points if count is None else spread(points, count):
        story.stack.deploy()
        story.anonymous |= {at["Name"] for at in story.stack.container("worker")["Mounts"]}
        where = story.killed(at, moment, state="absent")
        story.stack.deploy(state="absent")
        assert story.stack.snapshot().keys() == {f"volume {story.stack.name}_data"}, f"killed {where}"
    story.stack.deploy()
    assert story.stack.shell("db", "cat /data/file") == "precious\n"


def test_killed_while_removing(story: Story) -> None:
    removal(story, 2)


@pytest.mark.long
def test_killed_while_removing_at_every_request(story: Story) -> None:
    removal(story, None)
