# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications and their pools as fixtures, for more suites than one; a suite with other needs has a `world` of
its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pools import PROJECT, Database, Server, World, make_template, now, sqlite


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
def three(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """One whose pool is to have three slots, and whose files are root's."""
    database = sqlite(tmp_path / "app.db") if kind == "sqlite" else request.getfixturevalue("pool_server").database()
    database.make()
    (tmp_path / "users").mkdir(mode=0o750)
    yield World(database, tmp_path / "users", make_template(tmp_path / "template"), size=3)
    database.close()


@pytest.fixture
def pool(world: World) -> World:
    """The application that the file has as `world`, with its slots."""
    world.well()
    return world


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


def counts(result: dict[str, Any]) -> dict[str, int]:
    found = dict(result["slots"])
    states = {key: found[key] for key in found if key not in ("total", "wanted", "absent")}
    assert found["total"] == sum(states.values())
    return {key: value for key, value in states.items() if value}


def theses(world: World) -> list[str]:
    return [str(path.relative_to(world.root)) for path in world.root.rglob("thesis.tex")]


def just_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: Callable[[], None]) -> None:
    """Has something happen once, when the module is about to do `name`."""
    real, todo = getattr(owner, name), [what]

    def go(*words: Any, **keys: Any) -> Any:
        if todo:
            todo.pop()()
        return real(*words, **keys)

    monkeypatch.setattr(owner, name, go)


def enter(world: World, number: int) -> None:
    """The application makes a slot of its own accord."""
    name = f"visitor-{number:03d}"
    world.sql(
        "INSERT INTO auth_user (password, is_superuser, username, last_name, email, is_staff, is_active, date_joined,"
        " first_name) VALUES ('!x', false, %s, '', '', false, true, %s, '')",
        [name, now()],
    )
    give_project(world, name)
    world.save(number, "01_manuscript/abstract.tex", "An abstract.")
    world.sql(
        "INSERT INTO project_app_visitorallocation (visitor_number, session_key, allocation_token, allocated_at,"
        " expires_at, is_active) VALUES (%s, '', %s, %s, %s, false)",
        [number, f"{number:064d}", now(), now()],
    )


def give_project(world: World, user: str) -> None:
    world.sql(
        "INSERT INTO project_app_project (owner_id, name, slug, description, created_at, updated_at,"
        " writer_initialized) SELECT id, %s, %s, '', %s, %s, true FROM auth_user WHERE username = %s",
        [PROJECT, PROJECT, now(), now(), user],
    )
