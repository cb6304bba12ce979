# SPDX-License-Identifier: GPL-3.0-or-later
"""The filtered view of the engine passes on what it does not touch, whole and as it comes: bodies, chunks, upgrades."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Engine, Project
from tests.support.views import MEGABYTE, PIECE, FakeEngine, UnixConnection, ask, peak, view_of, view_process


def sent(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def test_large_bodies_pass_through_whole_and_are_not_held_in_memory(fake_engine: str) -> None:
    count = 300
    digest = hashlib.sha256()
    for piece in sent(count):
        digest.update(piece)
    wanted = {"sha256": digest.hexdigest(), "bytes": count * MEGABYTE}
    with view_process(fake_engine) as (address, process):
        assert ask(address, "POST", "/build")[0] == 200
        idle = peak(process)
        connection = UnixConnection(address)
        for headers in ({"Content-Length": str(count * MEGABYTE)}, {"Transfer-Encoding": "chunked"}):
            connection.putrequest("POST", "/images/load")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent(count), encode_chunked="Transfer-Encoding" in headers)
            got = json.loads(connection.getresponse().read())
            assert {name: got[name] for name in wanted} == wanted
            assert headers.items() <= got["headers"].items()
        for kind in ("sized", "chunked"):
            connection.request("GET", f"/{kind}/{count}")
            answer, down = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(MEGABYTE):
                down.update(piece)
            assert down.hexdigest() == wanted["sha256"], kind
        connection.close()
        grown = (peak(process) - idle) // MEGABYTE
        assert grown < 80, f"{grown} MB more for a body of {count} MB"


def test_answers_are_passed_on_as_they_come(fake_engine: str) -> None:
    with view_of(fake_engine) as view:
        connection = UnixConnection(view.address)
        connection.request("GET", "/slow")
        answer = connection.getresponse()
        assert answer.read1(100) == b"first", "the beginning was kept back until the end had come"
        FakeEngine.go_on.set()
        assert answer.read() == b"second"
        connection.close()


def test_an_engine_that_breaks_off_is_an_error_and_not_a_short_answer(fake_engine: str) -> None:
    with view_of(fake_engine) as view:
        status, said = ask(view.address, "GET", "/drop")
        assert status == 502
        assert "engine" in said["message"]
        connection = UnixConnection(view.address)
        connection.request("GET", "/break")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()
        connection.close()


def test_after_an_upgrade_both_sides_speak_freely(fake_engine: str) -> None:
    with view_of(fake_engine) as view:
        connection = UnixConnection(view.address)
        connection.putrequest("POST", "/session")
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Content-Length", "0")):
            connection.putheader(name, value)
        connection.endheaders()
        stream = connection.sock
        # What is said at once after the request must not be lost.
        stream.sendall(b"hello ")
        reader = stream.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"upgrade: h2c" in head.lower()
        assert reader.read(6) == b"HELLO "
        big = b"abcdefgh" * MEGABYTE
        threading.Thread(target=lambda: (stream.sendall(big), stream.shutdown(socket.SHUT_WR)), daemon=True).start()
        assert reader.read(len(big)) == big.upper()
        assert reader.read() == b"<END>", "the other side has the last word after ours has ended"
        stream.close()


def test_sixty_at_once(engine: Engine) -> None:
    """Compose asks for all services side by side, each over a connection of its own."""
    count = 60
    barrier = threading.Barrier(count)
    answers: list[Any] = []

    def one() -> None:
        connection = UnixConnection(view.address)
        barrier.wait()
        for _ in range(3):
            connection.request("GET", "/containers/json?limit=1")
            answer = connection.getresponse()
            answers.append((answer.status, isinstance(json.loads(answer.read()), list)))
        connection.close()

    with view_of() as view:
        threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert answers == [(200, True)] * (3 * count)


def test_docker_itself_works_through_an_empty_view(engine: Engine, project: Project) -> None:
    """Load, an image out of BuildKit, and a listing: with the real command line, as Compose does it."""
    (project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY big /big\n", encoding="utf-8")
    (project.folder / "big").write_bytes(os.urandom(24 * MEGABYTE))
    image = f"{project.name}-built:1"
    project.write({"services": {"web": {"image": image, "build": "."}}})
    with view_of() as view:
        through = Engine(host=view.address)
        assert through.docker("version", "--format", "{{.Server.Version}}").stdout
        through.compose(project.folder, "--project-name", project.name, "build", "--quiet")
        saved = project.folder / "image.tar"
        through.docker("save", "-o", str(saved), image)
        engine.docker("rmi", image)
        through.docker("load", "-i", str(saved))
        assert view.refused == []
    assert saved.stat().st_size > 24 * MEGABYTE
    assert engine.docker("run", "--rm", image, "wc", "-c", "/big").stdout.split()[0] == str(24 * MEGABYTE)
    classic = Engine(env={"DOCKER_BUILDKIT": "0"})
    with view_of() as view:
        classic.host = view.address
        classic.docker("build", "-q", "-t", f"{project.name}-classic:1", str(project.folder))
    assert engine.docker("image", "inspect", f"{project.name}-classic:1").returncode == 0
