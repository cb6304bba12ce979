# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run costs an application's server: each statement goes there and back, and the server can be far away."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

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
        state = {"state_dir": str(tmp_path / "state")}
        assert statements(engine, pool_server, lambda: run("visitor_pool", arguments)) <= 10
        assert statements(engine, pool_server, lambda: run("visitor_pool_info", {**arguments, **state})) <= 8
    finally:
        database.close()
