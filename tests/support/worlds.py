# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications and their pools as fixtures, for more suites than one; a suite with other needs has a `world` of
its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pools import Database, Server, World, make_template, sqlite


def world_of(database: Database, folder: Path) -> World:
    database.make()
    (folder / "users").mkdir()
    return World(database, folder / "users", make_template(folder / "template"))


@pytest.fixture
def light(tmp_path: Path) -> Iterator[World]:
    """An empty application in SQLite."""
    made = sqlite(tmp_path / "app.db")
    yield world_of(made, tmp_path)
    made.close()


@pytest.fixture
def heavy(pool_server: Server, tmp_path: Path) -> Iterator[World]:
    """One in PostgreSQL."""
    made = pool_server.database()
    yield world_of(made, tmp_path)
    made.close()


def codes(result: dict[str, Any], subject: str | None = None) -> list[str]:
    return [at["code"] for at in result["findings"] if subject in (None, at["subject"])]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty application."""
    if kind == "sqlite":
        database, secret = sqlite(tmp_path / "app.db"), []
    else:
        found: Server = request.getfixturevalue("pool_server")
        database, secret = found.database(), [found.password]
    database.make()
    root = tmp_path / "users"
    root.mkdir(mode=0o750)
    os.chown(root, 10001, 10002)
    yield World(database, root, make_template(tmp_path / "template"), secrets=secret)
    database.close()


@pytest.fixture
def pool(world: World) -> World:
    """One with its slots."""
    world.well()
    return world


def counts(result: dict[str, Any]) -> dict[str, int]:
    found = dict(result["slots"])
    states = {key: found[key] for key in found if key not in ("total", "wanted", "absent")}
    assert found["total"] == sum(states.values())
    return {key: value for key, value in states.items() if value}
