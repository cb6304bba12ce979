# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run that has nothing to do costs: an application's server, which can be far away, and the target."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from ansible_collections.shipshape.deploy.tests.unit.loaded import Call
from tests.support.engine import Engine
from tests.support.pools import Server, World, make_template, run

STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]+): ")


def statements(engine: Engine, server: Server, call: Any) -> int:
    """How many the server was sent while `call` was running, by its own log."""
    before = _logged(engine, server)
    assert not call().get("failed")
    time.sleep(0.5)  # the engine passes on what is written
    return _logged(engine, server) - before


def _logged(engine: Engine, server: Server) -> int:
    done = engine.docker("logs", f"{server.name}-db-1")
    return len(STATEMENT.findall(done.stdout + done.stderr))


def test_an_unchanged_run_takes_few_statements_however_large_the_pool_is(
    engine: Engine, pool_server: Server, tmp_path: Path
) -> None:
    database = pool_server.database()
    try:
        database.make()
        database.run(f"ALTER DATABASE {database.url.rpartition('/')[2]} SET log_statement = 'all'")
        root = tmp_path / "users"
        root.mkdir()
        world = World(database, root, make_template(tmp_path / "template"), size=40)
        arguments = world.given()
        assert run("visitor_pool", arguments)["changed"]
        assert statements(engine, pool_server, lambda: run("visitor_pool", arguments)) <= 10
        look = {**arguments, "state_dir": str(tmp_path / "state")}
        assert statements(engine, pool_server, lambda: run("visitor_pool_info", look)) <= 8
    finally:
        database.close()


def test_nothing_is_loaded_that_only_changes_need(pool_server: Server, tmp_path: Path) -> None:
    """See tests/unit/test_loaded.py, where this is with SQLite."""
    database = pool_server.database()
    try:
        database.make()
        (tmp_path / "users").mkdir()
        arguments = World(database, tmp_path / "users", make_template(tmp_path / "template")).given()
        assert run("visitor_pool", arguments)["changed"]
        Call("visitor_pool", arguments).is_cheap(177_000)
        Call("visitor_pool_info", {**arguments, "state_dir": str(tmp_path / "state")}).is_cheap(163_000)
    finally:
        database.close()
