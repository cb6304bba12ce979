# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` when the network to its database goes away while an answer is waited for: no packet says so."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import postgresql as store
from tests.support.engine import Engine
from tests.support.pools import World, make_template, postgresql, run


def test_a_network_that_is_gone_is_missed(
    engine: Engine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store._ALIVE["keepalives_idle"] <= 60
    quick = {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 2, "tcp_user_timeout": 4_000}
    monkeypatch.setattr(store, "_ALIVE", {**store._ALIVE, **quick})
    (tmp_path / "server").mkdir()
    (tmp_path / "users").mkdir()
    with postgresql(engine, tmp_path / "server") as server:
        database = server.database()
        database.make()
        world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
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
