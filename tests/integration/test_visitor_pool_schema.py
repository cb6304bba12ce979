# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` against databases that are not as `schema` says, and against applications of other shapes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine, Project
from tests.support.pools import TABLES, Database, Server, World, erase, make_template, run, sqlite, told
from tests.support.stacks import Stack, contract, service

ALLOCATION = "project_app_visitorallocation"
TYPES = {"visitor_number": "integer", "allocation_token": "varchar(64)"}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = (
        sqlite(tmp_path / "app.db") if request.param == "sqlite" else request.getfixturevalue("pool_server").database()
    )
    yield made
    made.close()


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    root = tmp_path / "users"
    root.mkdir()
    return World(database, root, make_template(tmp_path / "template"))


def found(result: dict[str, Any]) -> set[tuple[str, str]]:
    return {(at["subject"], at["code"]) for at in result["findings"]}


def edited(world: World, table: str, old: str, new: str) -> None:
    """The application's tables, one of them with another definition."""
    text = TABLES[table]
    assert old in text
    TABLES[table] = text.replace(old, new)
    try:
        world.database.make()
    finally:
        TABLES[table] = text


CASES = [
    (ALLOCATION, "session_key varchar(40) NOT NULL,", "", "column-missing", "session_key"),
    (ALLOCATION, "visitor_number integer", "visitor_number varchar(9)", "column-type", "visitor_number"),
    (ALLOCATION, "visitor_number integer NOT NULL UNIQUE", "visitor_number integer NOT NULL", "not-unique",
     "visitor_number"),
    (ALLOCATION, "varchar(64) NOT NULL UNIQUE", "varchar(64) NOT NULL", "not-unique", "allocation_token"),
    (ALLOCATION, "allocation_token varchar(64)", "allocation_token varchar(32)", "column-type", "allocation_token"),
    (ALLOCATION, "expires_at {time}", "expires_at integer", "column-type", "expires_at"),
    (ALLOCATION, "session_key varchar(40) NOT NULL,", "session_key varchar(40) NOT NULL, region varchar(9) NOT NULL,",
     "column-without-value", "region"),
    ("project_app_project", "writer_initialized {bool} NOT NULL,", "", "column-missing", "writer_initialized"),
    ("auth_user", "email varchar(254) NOT NULL,", "", "column-missing", "email"),
    ("auth_user", "is_staff {bool}", "is_staff {time}", "column-type", "is_staff"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "old", "new", "code", "column"), CASES)
def test_what_differs_is_named_before_anything_is_touched(
    world: World, table: str, old: str, new: str, code: str, column: str
) -> None:
    edited(world, table, old, new)
    for check in (True, False):
        result = run("visitor_pool", world.given(), check=check)
        contract(result)
        assert result["failed"]
        assert not result["changed"]
        assert (f"{table}.{column}", code) in found(result), found(result)
        assert column in result["msg"]
    assert os.listdir(world.root) == []
    looked = run("visitor_pool_info", world.given())
    assert not looked.get("failed")
    assert looked["cause"] == "schema"
    assert "migrations" in looked["remedy"]
    assert (f"{table}.{column}", code) in found(looked)
    world.database.drop()


@pytest.mark.parametrize("column", ["visitor_number", "allocation_token"])
@pytest.mark.parametrize("flaw", [" WHERE is_active", ""], ids=["of some rows", "never finished"])
def test_an_index_that_does_not_hold_for_every_row_is_not_unique(world: World, column: str, flaw: str) -> None:
    edited(world, ALLOCATION, f"{column} {TYPES[column]} NOT NULL UNIQUE", f"{column} {TYPES[column]} NOT NULL")
    world.sql(f"CREATE UNIQUE INDEX partly ON {ALLOCATION} ({column}){flaw}")
    if not flaw and world.database.kind == "sqlite":
        pytest.skip("SQLite finishes what it begins")
    if not flaw:  # as CREATE INDEX CONCURRENTLY leaves it that has found two rows alike
        world.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'partly'::regclass")
    result = run("visitor_pool", world.given())
    assert found(result) == {(f"{ALLOCATION}.{column}", "not-unique")}
    assert result["failed"]
    world.sql("DROP INDEX partly")
    world.sql(f"CREATE UNIQUE INDEX wholly ON {ALLOCATION} ({column})")
    assert not run("visitor_pool", world.given()).get("failed")


def test_all_that_differs_is_named_at_once(world: World) -> None:
    result = run("visitor_pool", world.given())
    assert {code for _subject, code in found(result)} == {"table-missing"}
    assert {subject for subject, _code in found(result)} == set(TABLES)
    assert "migrate_command" in result["msg"]
    assert run("visitor_pool_info", world.given())["cause"] == "schema"


def test_an_application_with_names_of_its_own(world: World) -> None:
    """With names that could not be pasted into SQL."""
    quoted = 'we"ird; DROP'
    text = quoted.replace('"', '""')
    serial = "bigint GENERATED BY DEFAULT AS IDENTITY" if world.database.kind == "postgresql" else "integer"
    time = "timestamp" if world.database.kind == "postgresql" else "text"
    world.sql(
        f'CREATE TABLE "{text}" (uid {serial} PRIMARY KEY, login text UNIQUE NOT NULL, mail text UNIQUE NOT NULL)'
    )
    world.sql(f'CREATE TABLE "select" (id {serial} PRIMARY KEY, "group" bigint NOT NULL, slug text NOT NULL)')
    world.sql(
        f"CREATE TABLE seat (no integer PRIMARY KEY, session text NOT NULL, digest text UNIQUE NOT NULL,"
        f" since {time}, until {time}, taken boolean NOT NULL)"
    )
    schema = {
        "users": {
            "table": quoted,
            "columns": {
                "id": "uid",
                "username": "login",
                "password": None,
                "is_superuser": None,
                "is_staff": None,
                "is_active": None,
            },
            "constants": {"mail": "{username}@example.invalid"},
        },
        "projects": {"table": "select", "columns": {"owner_id": "group", "name": None}, "constants": {}},
        "allocations": {
            "table": "seat",
            "columns": {
                "visitor_number": "no",
                "session_key": "session",
                "allocation_token": "digest",
                "allocated_at": "since",
                "expires_at": "until",
                "is_active": "taken",
            },
        },
    }
    options = world.given(schema=schema, workspace_flag="", size=3)
    result = run("visitor_pool", options)
    assert not result.get("failed"), result
    assert result["slots"]["allocatable"] == 3
    assert not run("visitor_pool", options)["changed"]
    assert world.sql(f'SELECT mail FROM "{text}" ORDER BY uid')[2] == ("visitor-003@example.invalid",)
    assert ("select.group, slug", "not-unique") in found(result)
    world.sql("UPDATE seat SET taken = true, session = 'abc', until = '2001-01-01 00:00:00' WHERE no = 2")
    assert run("visitor_pool", {**options, "state": "expired"})["cleared"] == 1
    world.sql(f'DROP TABLE "{text}"')


def test_tables_of_our_own(world: World) -> None:
    world.options = {"schema": "builtin"}
    options = world.given()
    foretold = run("visitor_pool", options, check=True)
    result = run("visitor_pool", options)
    assert not result.get("failed"), result
    assert told(foretold) == told(result)
    assert told(result)[0][0] == "create-tables"
    assert result["slots"]["allocatable"] == 4
    again = run("visitor_pool", options)
    assert (again["changed"], again["findings"]) == (False, [])
    erase(world.root / "visitor-002")
    seen = run("visitor_pool_info", options)
    assert ("visitor-002", "user-flag-wrong") in found(seen)
    world.sql("UPDATE shipshape_visitor_user SET has_directory = false")
    assert run("visitor_pool", options)["changed"]
    assert world.sql("SELECT DISTINCT has_directory FROM shipshape_visitor_user") == [(True,)] or world.sql(
        "SELECT DISTINCT has_directory FROM shipshape_visitor_user"
    ) == [(1,)]
    assert run("visitor_pool", {**options, "state": "reset"})["cleared"] == 4


BAD = [
    ({"schema": {"user": {}}}, "schema"),
    ({"schema": "internal"}, "schema"),
    ({"schema": {"users": {"columns": {"name": "x"}}}}, "schema.users.columns"),
    ({"schema": {"users": {"columns": {"username": None}}}}, "schema.users.columns.username"),
    ({"schema": {"allocations": {"token": "md5"}}}, "schema.allocations.token"),
    ({"prefix": "../visitor-"}, "prefix"),
    ({"prefix": ".visitor-"}, "prefix"),
    ({"prefix": "a/b-"}, "prefix"),
    ({"project": ".."}, "project"),
    ({"project": "a/../../b"}, "project"),
    ({"size": -1}, "size"),
    ({"size": 2**40}, "size"),
    ({"data_root": "/srv/users\0"}, "data_root"),
    ({"data_root": "users"}, "data_root"),
    ({"database_url": "sqlite:///app.db"}, "database_url"),
    ({"database_url": "sqlite:////srv/../etc/app.db"}, "database_url"),
    ({"database_url": "mysql://u:p@h/d"}, "database_url"),
]


@pytest.mark.parametrize(("options", "subject"), BAD)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any], subject: str) -> None:
    made = sqlite(tmp_path / "app.db")
    made.make()
    root = tmp_path / "users"
    root.mkdir()
    world = World(made, root, make_template(tmp_path / "template"))
    result = run("visitor_pool", world.given(**options))
    contract(result)
    assert result["failed"]
    assert subject in {at["subject"] for at in result["findings"]}, result["findings"]
    assert os.listdir(root) == []
    made.close()


@pytest.mark.parametrize(("option", "most"), [("prefix", 64), ("project", 100)])
def test_a_name_that_is_too_long_is_told_how_long_it_may_be(tmp_path: Path, option: str, most: int) -> None:
    (tmp_path / "users").mkdir()
    world = World(sqlite(tmp_path / "app.db"), tmp_path / "users", make_template(tmp_path / "template"))
    world.database.make()
    assert not run("visitor_pool", world.given(**{option: "x" * most}), check=True).get("failed")
    assert f"at most {most}" in run("visitor_pool", world.given(**{option: "x" * (most + 1)}), check=True)["msg"]
    world.database.close()


@pytest.mark.parametrize("place", ["../outside", "/etc", "a/../../b"])
@pytest.mark.parametrize("key", ["path", "marker"])
def test_a_workspace_stays_in_its_project(tmp_path: Path, place: str, key: str) -> None:
    made = sqlite(tmp_path / "app.db")
    made.make()
    (tmp_path / "users").mkdir()
    world = World(made, tmp_path / "users", make_template(tmp_path / "template"))
    result = run("visitor_pool", world.given(workspace={key: place}))
    assert result["failed"]
    assert f"workspace.{key}" in result["msg"]
    made.close()


# -- the application's own containers ---------------------------------------------------------------------------------


def test_database_volume_and_commands_of_a_service(
    pool_server: Server, engine: Engine, project: Project, tmp_path: Path
) -> None:
    """The URL is the service's, data_root a path in its volume that no container has mounted yet, and commands run in
    containers of their own."""
    made = pool_server.database()
    name = made.url.rpartition("/")[2]
    stack = Stack(project)
    url = f"postgresql://app:{pool_server.password}@db:5432/{name}"
    keys = {
        "environment": {"DATABASE_URL": url},
        "extra_hosts": {"db": pool_server.address},
        "volumes": ["users:/data"],
    }
    stack.write({"web": service(**keys)}, volumes={"users": None})
    _make_volume(engine, stack)
    volume = Path(_place(engine, stack)).parent
    os.chown(volume, 10001, 10002)
    volume.chmod(0o2770)
    options = {
        "project_src": str(project.folder),
        "project_name": stack.name,
        "service": "web",
        "data_service": "web",
        "data_root": "/data/users",
        "size": 3,
        "workspace": {"template": str(make_template(tmp_path / "template"))},
    }
    failed = run("visitor_pool", options)
    assert "table-missing" in {at["code"] for at in failed["findings"]}
    broken = run("visitor_pool", {**options, "migrate_command": ["sh", "-c", "echo no way >&2; exit 3"]})
    assert broken["failed"]
    assert "migrate-command-failed" in {at["code"] for at in broken["findings"]}
    assert "no way" in str(broken["logs"])
    made.make()
    # A seed command that makes what the first half of the seed's did: a directory, and nothing in the database.
    seed = ["sh", "-c", "mkdir -p /data/users/visitor-002/default-project && echo x >/data/users/visitor-002/old.txt"]
    result = run("visitor_pool", {**options, "seed_command": seed})
    assert not result.get("failed"), result["msg"]
    assert told(result)[0] == ("create-directory", _place(engine, stack), "it is not in its volume yet")
    assert told(result)[1] == ("seed", "web", "the pool is not whole")
    assert ("rebuild-directory", "visitor-002", "nobody can tell whose files are in it") in told(result)
    assert result["slots"]["allocatable"] == 3
    assert pool_server.password not in str(result)
    place = Path(_place(engine, stack))
    about = [path.stat() for path in (place, place / "visitor-001")]
    assert [(at.st_uid, at.st_gid, oct(at.st_mode & 0o7777)) for at in about] == [(10001, 10002, "0o2770")] * 2
    assert sorted(os.listdir(place)) == ["visitor-001", "visitor-002", "visitor-003"]
    assert os.listdir(place / "visitor-002") == ["default-project"]
    project.compose("up", "-d")
    assert not run("visitor_pool", {**options, "seed_command": seed})["changed"]
    assert run("visitor_pool_info", options)["slots"]["allocatable"] == 3
    # What a container has put in the way leads a run of root's nowhere else.
    victim = tmp_path / "victim"
    shutil.copytree(place, victim, symlinks=True)
    place.rename(place.with_name("away"))
    place.symlink_to(victim)
    shutil.rmtree(victim / "visitor-002")
    for module in ("visitor_pool", "visitor_pool_info"):
        linked = run(module, options)
        assert linked["failed"]
        assert [(at["code"], at["subject"]) for at in linked["findings"]] == [("data-linked", str(place))]
    assert sorted(os.listdir(victim)) == ["visitor-001", "visitor-003"]
    place.unlink()
    place.with_name("away").rename(place)
    lost = run("visitor_pool", {**options, "data_root": "/srv/users"})
    assert "data-in-no-volume" in {at["code"] for at in lost["findings"]}
    made.close()


def test_a_sqlite_file_in_a_volume_is_no_link(engine: Engine, project: Project, tmp_path: Path) -> None:
    stack = Stack(project)
    keys = {"environment": {"DATABASE_URL": "sqlite:////data/app.db"}, "volumes": ["users:/data"]}
    stack.write({"web": service(**keys)}, volumes={"users": None})
    _make_volume(engine, stack)
    options = {
        "project_src": str(project.folder),
        "project_name": stack.name,
        "service": "web",
        "data_root": str(tmp_path),
        "schema": "builtin",
        "size": 1,
    }
    inside = Path(_place(engine, stack)).with_name("app.db")
    inside.symlink_to(tmp_path / "victim.db")
    (tmp_path / "victim.db").touch()
    failed = run("visitor_pool", options)
    assert [(at["code"], at["subject"]) for at in failed["findings"]] == [("data-linked", str(inside))]
    assert (tmp_path / "victim.db").read_bytes() == b""
    inside.unlink()
    inside.touch()
    assert not run("visitor_pool", options).get("failed")


def _make_volume(engine: Engine, stack: Stack) -> None:
    """As Compose makes it."""
    labels = ["com.docker.compose.volume=users", f"com.docker.compose.project={stack.name}"]
    engine.docker("volume", "create", *(f"--label={label}" for label in labels), f"{stack.name}_users")


def _place(engine: Engine, stack: Stack) -> str:
    return (
        engine.docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{stack.name}_users").stdout.strip()
        + "/users"
    )
