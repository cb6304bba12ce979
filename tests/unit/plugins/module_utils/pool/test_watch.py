# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asked whether a server still lives, with connections that are sockets and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import watch


class Fake:
    """A connection with the first of two servers; `frozen` ones let nobody in, and say nothing for all of LOGIN."""

    frozen: tuple[str, ...] = ()
    asked: list[dict[str, Any]] = []

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.info = SimpleNamespace(host="one", hostaddr="192.0.2.1", port=5433)

    @classmethod
    def connect(cls, **keywords: Any) -> Fake:
        cls.asked.append(keywords)
        for address in keywords["hostaddr"].split(","):
            if address not in cls.frozen:
                return cls()
            time.sleep(watch.LOGIN)
        raise TimeoutError

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()

    def fileno(self) -> int:
        return self.ours.fileno()

    def wait(self, steps: Any, patience: float = 5) -> str:
        self.ours.settimeout(patience)
        return "answered" if self.ours.recv(1) else "hung up"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(watch, "PATIENCE", 0.1)
    monkeypatch.setattr(watch, "LOGIN", 1)
    monkeypatch.setattr(Fake, "asked", [])
    return Fake


BOTH = {"host": "one,two", "hostaddr": "192.0.2.1,192.0.2.2", "port": "5433,5434", "user": "app"}


def test_the_server_that_it_is_connected_with_is_asked_and_not_its_successor(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "frozen", ("192.0.2.1",))
    connection = watch.watched(fake, BOTH)()
    assert connection.wait(None) == "hung up"
    one = {"host": "one", "hostaddr": "192.0.2.1", "port": 5433, "user": "app", "connect_timeout": 1}
    assert fake.asked == [one]


def test_what_happens_to_its_successor_is_no_matter(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "frozen", ("192.0.2.2",))
    connection = watch.watched(fake, BOTH)()
    threading.Timer(1, connection.theirs.send, [b"x"]).start()
    assert connection.wait(None) == "answered"
    assert len(fake.asked) > 2


def test_where_no_thread_can_be_had_it_is_waited_without_a_watch(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    connection = watch.watched(fake, BOTH)()
    connection.theirs.send(b"x")
    monkeypatch.setattr(threading.Thread, "start", none)
    assert connection.wait(None) == "answered"


def test_one_thread_looks_after_all_statements_of_a_connection_and_ends_with_it(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, start = [], threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    connection = watch.watched(fake, BOTH)()
    for _statement in range(20):
        connection.theirs.send(b"x")
        assert connection.wait(None) == "answered"
    [thread] = begun
    assert thread.daemon
    connection.close()
    thread.join(1)
    assert not thread.is_alive()


def test_each_statement_has_all_of_its_time(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the connection has been idle, and however much the statements before it have taken."""
    monkeypatch.setattr(watch, "PATIENCE", 0.6)
    connection = watch.watched(fake, BOTH)()
    for pause in (0.4, 0.4, 0.4):
        threading.Timer(pause, connection.theirs.send, [b"x"]).start()
        assert connection.wait(None) == "answered"
        time.sleep(0.4)
    assert fake.asked == []
    threading.Timer(1, connection.theirs.send, [b"x"]).start()
    assert connection.wait(None) == "answered"
    assert len(fake.asked) == 1


def test_a_later_statement_is_looked_after_as_the_first_one(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = watch.watched(fake, BOTH)()
    threading.Timer(0.3, connection.theirs.send, [b"x"]).start()
    assert connection.wait(None) == "answered"
    time.sleep(0.3)
    asked = len(fake.asked)
    assert asked
    monkeypatch.setattr(fake, "frozen", ("192.0.2.1",))
    assert connection.wait(None) == "hung up"
    assert len(fake.asked) == asked + 1
