# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` killed at any request that changes the engine: one more run heals, and nothing is lost.

Between module and engine stands a wire that counts the requests which change anything, Compose's own included, and
kills the module at the one it is told to: before the engine hears of it, while the engine is at it, or when it is done.
The next run gets either the same Compose file again or, as somebody does who goes back, the one before. All the while
the service that is replaced start-first serves: at no time do fewer of its containers run than it is to have.
The engine is a private one, so that whatever is left over anywhere on it is a killed run's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import PrivateEngine, running
from tests.support.faults import CHANGING, Chronicle, Wire, taken
from tests.support.modules import ModuleCall
from tests.support.story import START_FIRST, Story, told
from tests.support.transports import PIECE

MOMENTS = ("before", "during", "after")


@dataclass
class Kill:
    """Kills `victim` before the engine hears of the request, while it is at it, or when it is done."""

    moment: str
    victim: ModuleCall | None = None

    def __call__(self, ours: socket.socket, engine: socket.socket) -> bool:
        assert self.victim is not None
        if self.moment != "before":
            engine.sendall(taken(ours))
        if self.moment == "after":
            engine.recv(PIECE)
        os.kill(self.victim.process.pid, signal.SIGKILL)
        if self.moment == "during":
            # The engine finishes what it was asked for, as it does for anybody who has hung up.
            engine.settimeout(20)
            with contextlib.suppress(OSError):
                engine.recv(PIECE)
        return False


def changing(story: Story, **options: Any) -> list[str]:
    """The changing requests of a run that nobody interrupts."""
    wire = Wire(story.stack.project.engine, counted=CHANGING)
    with wire.strung() as host:
        story.stack.deploy(docker_host=host, **options)
    return wire.requests


def killed(story: Story, at: int, moment: str, **options: Any) -> str:
    """A run that is killed; returns at which request."""
    kill = Kill(moment)
    wire = Wire(story.stack.project.engine, at, kill, CHANGING)
    with wire.strung() as host:
        call = story.stack.call(docker_host=host, **options)
        kill.victim = call
        out, err = call.process.communicate(timeout=120)
        assert wire.tripped.wait(5), f"request {at} never came: {out.decode()}{err.decode()}"
        assert call.process.returncode == -signal.SIGKILL
    return wire.where(f"killed {moment}")


@pytest.fixture(scope="module")
def own_engine() -> Iterator[PrivateEngine]:
    yield from running()


@pytest.fixture
def story(own_engine: PrivateEngine, tmp_path: Path) -> Iterator[Story]:
    with told(own_engine, tmp_path) as found:
        yield found


def spread(points: list[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """`count` of `points`, evenly spread, with every moment in turn."""
    step = max(1, len(points) // count)
    return points[::step][:count] if step % len(MOMENTS) else points[:: step + 1][:count]


def replacement(story: Story, count: int | None) -> None:
    story.begin()
    story.write(1)
    story.generation = 1
    with Chronicle(story.stack) as chronicle:
        requests = changing(story)
        story.remember()
        assert len(requests) >= 4 * 5, f"create, stop, start, rename, remove for each of four containers? {requests}"
        points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
        for index, (at, moment) in enumerate(points if count is None else spread(points, count)):
            story.write(story.generation + 1)
            where = killed(story, at, moment)
            story.remember()
            story.generation += index % 2  # forward, or back to what was there
            story.heals(where, story.generation)
            assert chronicle.fewest(START_FIRST) == 2, f"{where}: {START_FIRST} was down; {chronicle.entries[-80:]}"


def test_killed_while_replacing(story: Story) -> None:
    replacement(story, 12)


@pytest.mark.long
def test_killed_while_replacing_at_every_request(story: Story) -> None:
    replacement(story, None)


def first_deploy(story: Story, count: int | None) -> None:
    story.write(0)
    requests = changing(story)
    points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
    for at, moment in points if count is None else spread(points, count):
        story.stack.deploy(state="absent", remove_volumes=True)
        assert not story.stack.snapshot()
        where = killed(story, at, moment)
        story.stack.deploy()
        story.whole(where, 0, data=False)


def test_killed_while_creating(story: Story) -> None:
    first_deploy(story, 3)


@pytest.mark.long
def test_killed_while_creating_at_every_request(story: Story) -> None:
    first_deploy(story, None)


def removal(story: Story, count: int | None) -> None:
    story.begin()
    requests = changing(story, state="absent")
    points = [(at, moment) for at in range(len(requests)) for moment in MOMENTS]
    for at, moment in points if count is None else spread(points, count):
        story.stack.deploy()
        story.remember()
        where = killed(story, at, moment, state="absent")
        story.stack.deploy(state="absent")
        story.gone(where, volumes=False)
    story.stack.deploy()
    story.data_kept("removed", "db")


def test_killed_while_removing(story: Story) -> None:
    removal(story, 2)


@pytest.mark.long
def test_killed_while_removing_at_every_request(story: Story) -> None:
    removal(story, None)
