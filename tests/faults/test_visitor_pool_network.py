# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` when its database stops answering: no packet says so when the network is gone, and a kernel
goes on answering for a server that is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import postgresql as store
from ansible_collections.shipshape.deploy.plugins.module_utils.pool import reconcile, watch
from tests.support.engine import Engine
from tests.support.pools import Server, World, make_template, postgresql, run
from tests.support.worlds import just_before


@contextmanager
def own_server(engine: Engine, folder: Path) -> Iterator[tuple[Server, World]]:
    """A server that no other test uses, and a pool in it."""
    (folder / "server").mkdir()
    (folder / "users").mkdir()
    with postgresql(engine, folder / "server") as server:
        database = server.database()
        database.make()
        yield server, World(database, folder / "users", make_template(folder / "template"))


def test_a_network_that_is_gone_is_missed(
    engine: Engine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store._ALIVE["keepalives_idle"] <= 60
    quick = {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 2, "tcp_user_timeout": 4_000}
    monkeypatch.setattr(store, "_ALIVE", {**store._ALIVE, **quick})
    with own_server(engine, tmp_path) as (server, world):
        database = world.database
        select, begun = store.PostgresqlStore.select, time.monotonic()

        def cut_off(self: store.PostgresqlStore, *words: object) -> object:
            """Somebody has the table for himself, and then the cable is pulled."""
            if not database.connection.closed:
                database.connection.autocommit = False
                database.connection.execute("LOCK TABLE project_app_project")
                engine.docker("network", "disconnect", f"{server.name}_default", f"{server.name}-db-1")
                database.connection.pgconn.finish()
            return select(self, *words)  # type: ignore[arg-type]

        monkeypatch.setattr(store.PostgresqlStore, "select", cut_off)
        result = run("visitor_pool", world.given())
        assert time.monotonic() - begun < 60
        assert result["failed"]
        assert {at["code"] for at in result["findings"]} == {"database-unreachable"}, result["msg"]
        assert "connection was lost" in result["msg"]
        with pytest.raises(psycopg.OperationalError):
            database.connection.execute("SELECT 1")


class Frozen:
    """A server of its own that a test stops while its machine goes on."""

    def __init__(self, engine: Engine, server: Server, world: World) -> None:
        self.engine, self.server, self.world = engine, server, world
        self.container = f"{server.name}-db-1"

    def freeze(self) -> None:
        """Its processes stop, the first one before the others so that it makes no more. (Where `docker pause` meets a
        healthcheck that is just being started, neither ends, nor does what the engine is asked about it.)"""
        self._signal_first("STOP")
        self._signal_others("STOP")

    def thaw(self) -> None:
        self._signal_others("CONT")
        self._signal_first("CONT")

    def _signal_first(self, name: str) -> None:
        self.engine.docker("kill", "--signal", name, self.container)

    def _signal_others(self, name: str) -> None:
        each = f"for at in /proc/[1-9]*; do grep -qx postgres $at/comm && kill -{name} ${{at#/proc/}}; done; true"
        self.engine.docker("exec", self.container, "sh", "-c", each)


@pytest.fixture
def frozen(engine: Engine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Frozen]:
    monkeypatch.setattr(watch, "PATIENCE", 1.0)
    monkeypatch.setattr(watch, "LOGIN", 3)
    with own_server(engine, tmp_path) as (server, world):
        found = Frozen(engine, server, world)
        try:
            yield found
        finally:
            found.thaw()
            world.database.close()


def test_a_server_that_is_stopped_is_missed_and_one_re_run_heals(
    frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel goes on answering for it, so no timeout of TCP ends that."""
    with monkeypatch.context() as patched:
        just_before(patched, reconcile.Pool, "_complete", frozen.freeze)
        begun = time.monotonic()
        result = run("visitor_pool", frozen.world.given())
        assert time.monotonic() - begun < 20
    assert result["failed"]
    assert {at["code"] for at in result["findings"] if at["severity"] == "critical"} == {"database-unreachable"}
    assert "connection was lost" in result["msg"]
    frozen.thaw()
    assert not run("visitor_pool", frozen.world.given()).get("failed")
    frozen.world.is_whole()


@pytest.mark.parametrize("full", [False, True])
def test_a_statement_that_only_takes_long_is_waited_for(
    frozen: Frozen, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Longer than it takes to find that a server does not answer; also when it lets nobody else in at that time."""
    name = frozen.world.database.url.rpartition("/")[2]
    held, release = frozen.server.connect(name), threading.Event()

    def allow(everybody: bool) -> None:
        with frozen.server.connect("app") as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(everybody).lower()}")

    def lock() -> None:
        held.autocommit = False
        held.execute("LOCK TABLE project_app_project")
        if full:
            allow(False)
        threading.Timer(7, lambda: (held.commit(), allow(True), release.set())).start()

    just_before(monkeypatch, reconcile.Pool, "_complete", lock)
    begun = time.monotonic()
    result = run("visitor_pool", frozen.world.given())
    assert not result.get("failed"), result["msg"]
    assert time.monotonic() - begun >= 7
    assert release.wait(20)
    frozen.world.is_whole()
    held.close()
