# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` at the edges of a database: connections that are lost or pooled,
columns of unusual types, rows that something else refers to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import operate, reconcile
from tests.support.databases import provide_others
from tests.support.engine import Engine
from tests.support.pools import Server, World, run, told
from tests.support.stacks import contract
from tests.support.worlds import codes

ALLOCATION = "project_app_visitorallocation"


@pytest.fixture(params=["light", "heavy"])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(request.param)
    return found


# -- connections that are lost ----------------------------------------------------------------------------------------


def cut(world: World) -> None:
    """Ends every session of the module, as a server does that is restarted."""
    with psycopg.connect(world.database.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'shipshape.deploy'"
        )


def cutting(world: World, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, works: bool = True) -> None:
    """The connection is lost after what `owner.name` does, or instead of it."""
    real = getattr(owner, name)

    def lost(*words: Any, **keys: Any) -> Any:
        found = real(*words, **keys) if works else []
        cut(world)
        return found

    monkeypatch.setattr(owner, name, lost)


def test_a_connection_that_is_lost_says_so(heavy: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy.well()
    heavy.visit()
    heavy.end(1)
    with monkeypatch.context() as patched:
        cutting(heavy, patched, reconcile.Pool, "_throw_away")
        result = run("visitor_pool", heavy.given(state="expired"))
    contract(result)
    assert result["failed"]
    [finding] = [at for at in result["findings"] if at["severity"] == "critical"]
    assert finding["code"] == "database-unreachable"
    assert "the connection was lost while" in finding["message"]
    assert "run this again" in finding["remedy"]
    assert told(result) == [("clear-slot", "visitor-001", "its lease has ended")]
    assert not heavy.well(state="expired")["changed"]
    heavy.is_whole()


def test_a_connection_that_is_lost_when_all_is_done_is_no_failure(
    heavy: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutting(heavy, monkeypatch, operate.Operation, "_accounts", works=False)
    result = run("visitor_pool", heavy.given(git_url="http://127.0.0.1:9"))
    contract(result)
    assert not result.get("failed"), result
    heavy.is_whole()


def test_what_failed_first_stays_what_is_reported(heavy: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy.well()
    (heavy.root / "visitor-005").write_text("something else")
    cutting(heavy, monkeypatch, operate.Operation, "_accounts", works=False)
    result = run("visitor_pool", heavy.given(size=5, git_url="http://127.0.0.1:9"))
    contract(result)
    assert result["failed"]
    assert "slot-not-made" in codes(result, "visitor-005")
    assert "database-unreachable" not in codes(result)


# -- names and numbers ------------------------------------------------------------------------------------------------


def test_numbers_that_no_slot_has(world: World) -> None:
    world.sign_up("visitor-99999999999999999999")
    world.sign_up("visitor-2147483648")
    world.sql("UPDATE auth_user SET password = '!x'")  # else they would be left alone as real people
    (world.root / "visitor-99999999999999999999").mkdir()
    assert world.well()["slots"]["total"] == 4
    assert (world.root / "visitor-99999999999999999999").is_dir()
    assert len(world.sql("SELECT 1 FROM auth_user")) == 6


def test_an_account_whose_name_is_too_long_for_a_directory(light: World) -> None:
    light.well()
    found = light.visit()
    assert found is not None
    number, session, token = found
    light.sign_up("ä" * 150)
    options = {"state": "transferred", "slot": number, "session_key": session, "token": token, "to_user": "ä" * 150}
    result = light.call(**options)
    assert result["failed"]
    assert "transfer-refused" in codes(result)
    light.sign_up("ä" * 100)
    assert not light.call(**{**options, "to_user": "ä" * 100}).get("failed")


# -- columns ----------------------------------------------------------------------------------------------------------


def constants(**more: Any) -> dict[str, Any]:
    given = {"description": "", "created_at": "now()", "updated_at": "now()", **more}
    return {"schema": {"projects": {"constants": given}}}


@pytest.mark.parametrize("kind", ["json", "jsonb"])
@pytest.mark.parametrize(
    "value", [{"theme": "dark", "of": ["{username}", 2]}, '{"theme": "dark", "of": ["{username}", 2]}']
)
def test_a_constant_may_be_an_object(world: World, kind: str, value: Any) -> None:
    default = "" if world.database.kind == "postgresql" else " DEFAULT ''"
    world.sql(f"ALTER TABLE project_app_project ADD settings {kind} NOT NULL{default}")
    world.options = constants(settings=value)
    world.well()
    for _ in range(2):
        [(found,)] = world.sql("SELECT settings FROM project_app_project ORDER BY id LIMIT 1")
        assert (found if isinstance(found, dict) else json.loads(found)) == {"theme": "dark", "of": ["visitor-001", 2]}
        # Cleared, it says the same again.
        world.sql("UPDATE project_app_project SET settings = %s", ['{"theme": "mine"}'])
        assert world.well(state="reset", environment="test")["cleared"]


def test_a_list_is_one_for_an_array_too(heavy: World) -> None:
    heavy.sql("ALTER TABLE project_app_project ADD tags text[] NOT NULL, ADD notes jsonb NOT NULL")
    heavy.options = constants(tags=["a", "{number}"], notes="[draft")
    heavy.well()
    found = heavy.sql("SELECT tags, notes FROM project_app_project ORDER BY id LIMIT 1")
    assert found == [(["a", "1"], "[draft")]


@pytest.mark.parametrize("value", [{}, []])
def test_an_object_is_no_text(world: World, value: Any) -> None:
    world.options = constants(description=value)
    result = world.call()
    assert result["failed"]
    assert codes(result) == ["column-type"]
    assert "description" in result["msg"]
    assert os.listdir(world.root) == []


@pytest.mark.parametrize("column", ["session_key", "allocation_token"])
def test_text_that_is_padded(heavy: World, column: str) -> None:
    heavy.sql(f"ALTER TABLE {ALLOCATION} ALTER {column} TYPE char(64)")
    result = heavy.call()
    assert result["failed"]
    assert codes(result) == ["column-type"]
    assert "adds blanks" in result["msg"]
    assert os.listdir(heavy.root) == []


def test_an_index_that_includes_more_is_unique_all_the_same(heavy: World) -> None:
    heavy.sql(f"ALTER TABLE {ALLOCATION} DROP CONSTRAINT {ALLOCATION}_visitor_number_key")
    heavy.sql(f"CREATE UNIQUE INDEX ON {ALLOCATION} (visitor_number) INCLUDE (is_active)")
    heavy.sql(f"CREATE UNIQUE INDEX narrow ON {ALLOCATION} (session_key) INCLUDE (visitor_number)")
    assert codes(heavy.call()) == ["unique-in-the-way"]
    heavy.sql("DROP INDEX narrow")
    assert heavy.well()["findings"] == []


@pytest.mark.parametrize("columns", ["session_key", "is_active, expires_at"])
def test_an_index_that_lets_one_slot_be_free(world: World, columns: str) -> None:
    world.sql(f"CREATE UNIQUE INDEX narrow ON {ALLOCATION} ({columns})")
    result = world.call()
    assert result["failed"]
    assert codes(result) == ["unique-in-the-way"]
    assert os.listdir(world.root) == []
    looked = world.info()
    assert looked["cause"] == "schema"
    world.sql("DROP INDEX narrow")
    world.sql(f"CREATE UNIQUE INDEX narrow ON {ALLOCATION} ({columns}) WHERE is_active")
    assert world.well()["findings"] == []


def test_a_constant_that_must_be_unique(world: World) -> None:
    world.sql("CREATE UNIQUE INDEX narrow ON auth_user (email)")
    assert "unique-in-the-way" in codes(world.call(), "auth_user.email")
    names = {"first_name": "", "last_name": "", "date_joined": "now()"}
    world.options = {"schema": {"users": {"constants": {**names, "email": "{username}@example.invalid"}}}}
    assert world.well()["findings"] == []


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
@pytest.mark.parametrize("late", ["infinity", "20000-01-01 00:00:00+00"])
def test_times_that_python_has_no_value_for(heavy: World, kind: str, late: str) -> None:
    heavy.sql(f"ALTER TABLE {ALLOCATION} ALTER expires_at TYPE {kind}, ALTER allocated_at TYPE {kind}")
    heavy.well()
    for number in (1, 2, 3):
        assert heavy.visit()
        heavy.save(number, "draft.txt", "x")
    change = f"UPDATE {ALLOCATION} SET expires_at = %s WHERE visitor_number = %s"
    for number, value in ((1, late), (2, "-infinity"), (3, "0044-03-15 00:00:00+00 BC")):
        heavy.sql(change, [value, number])
    found = run("visitor_pool_info", heavy.given())
    assert (found["slots"]["leased"], found["slots"]["expired"]) == (1, 2)
    assert run("visitor_pool", heavy.given(state="expired"))["cleared"] == 2
    assert (heavy.path(1) / "scitex/writer/draft.txt").exists()
    result = run("visitor_pool", heavy.given(state="reset", slots=[1]))
    assert (result["cleared"], codes(result)) == (1, [])
    heavy.is_whole()


# -- rows that something else refers to -------------------------------------------------------------------------------


def refer(world: World, number: int, more: str = "") -> None:
    """A table of the application, as Django makes it, refers to a slot's user."""
    world.sql(
        "CREATE TABLE note (id integer PRIMARY KEY, owner_id bigint NOT NULL"
        f" REFERENCES auth_user (id){more} DEFERRABLE INITIALLY DEFERRED)"
    )
    world.sql("INSERT INTO note SELECT 1, id FROM auth_user WHERE username = %s", [f"visitor-{number:03d}"])


def test_what_is_referred_to_keeps_nothing_else_from_going(world: World) -> None:
    world.well()
    refer(world, 3)
    result = world.call(size=1)
    assert result["failed"]
    assert sorted(codes(result, "visitor-003")) == ["slot-not-made", "slot-quarantined"]
    [why] = [at["message"] for at in result["findings"] if at["code"] == "slot-not-made"]
    assert "note" in why
    assert sorted(os.listdir(world.root)) == ["visitor-001", "visitor-003"]
    assert [at for (at,) in world.sql(f"SELECT visitor_number FROM {ALLOCATION} ORDER BY 1")] == [1, 3]
    again = world.call(size=1)  # its row is taken and kept back once more
    assert (again["failed"], again["changed"], told(again)) == (True, True, [("quarantine-slot", "visitor-003", why)])
    world.sql("DELETE FROM note")
    world.well(size=1)
    assert os.listdir(world.root) == ["visitor-001"]


def test_what_goes_with_a_user_is_referred_to(light: World) -> None:
    light.well()
    refer(light, 3, " ON DELETE CASCADE")
    light.sql("CREATE TABLE page (note_id integer REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)")
    light.sql("INSERT INTO page VALUES (1)")
    result = light.call(size=1)
    [why] = [at["message"] for at in result["findings"] if at["code"] == "slot-not-made"]
    assert "rows of page refer to rows of note" in why
    assert sorted(os.listdir(light.root)) == ["visitor-001", "visitor-003"]


def test_what_referred_to_nothing_before_is_let_be(light: World) -> None:
    light.well()
    refer(light, 3)
    light.sql("PRAGMA foreign_keys = OFF")
    light.sql("UPDATE note SET owner_id = 999")
    light.sql("PRAGMA foreign_keys = ON")
    light.well(size=1)
    assert light.sql("SELECT owner_id FROM note") == [(999,)]


def test_a_constant_that_refers_to_nothing(light: World) -> None:
    light.sql("CREATE TABLE plan (id integer PRIMARY KEY)")
    light.sql("ALTER TABLE project_app_project ADD plan_id bigint REFERENCES plan (id) DEFERRABLE INITIALLY DEFERRED")
    light.options = constants(plan_id=7)
    result = light.call()
    assert result["failed"]
    assert "rows of project_app_project refer to rows of plan" in result["msg"]
    light.sql("INSERT INTO plan VALUES (7)")
    light.well()
    light.is_whole()


# -- TLS as the operator wants it -------------------------------------------------------------------------------------


def test_what_an_operator_says_of_tls_holds(heavy: World) -> None:
    """The server has no TLS."""
    plain = heavy.database.url
    for words in ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "sslmode=require", "sslmode=no-such-mode"):
        heavy.database.url = f"{plain}?{words}"
        result = heavy.call()
        assert codes(result) == ["database-unreachable"], words
    assert "no-such-mode" in result["msg"]


# -- a pooler ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bouncer(engine: Engine, heavy: World, pool_server: Server) -> Iterator[str]:
    """The same database through PgBouncer, which gives each transaction another session if it likes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [
        "[databases]",
        f"* = host={pool_server.address} user=app password={pool_server.password}",
        "[pgbouncer]",
        f"listen_port = {port}",
        "listen_addr = 127.0.0.1",
        "unix_socket_dir =",
        "auth_type = any",
        "pool_mode = transaction",
    ]
    script = "cat >/tmp/bouncer.ini && exec su -s /bin/sh nobody -c 'exec pgbouncer /tmp/bouncer.ini'"
    image = provide_others(engine)
    flags = ["--rm", "-i", "--init", "--network", "host", "--name", f"bouncer-{port}", "--entrypoint", "sh"]
    command = ["docker", "run", *flags, image, "-c", script]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdin is not None
    running.stdin.write("\n".join(lines) + "\n")
    running.stdin.close()
    url = heavy.database.url.replace(f"@{pool_server.address}/", f"@127.0.0.1:{port}/")
    until(lambda: psycopg.connect(url, connect_timeout=2).close() or True)
    yield url
    engine.docker("rm", "-f", f"bouncer-{port}", check=False)
    running.wait(30)


def test_a_pooler_is_named_and_works_as_far_as_it_can(heavy: World, bouncer: str) -> None:
    for module in ("visitor_pool", "visitor_pool_info"):
        result = run(module, heavy.given(database_url=bouncer))
        assert not result.get("failed"), result["msg"]
        [found] = [at for at in result["findings"] if at["code"] == "database-pooled"]
        assert found["severity"] == "warning"
    again = run("visitor_pool", heavy.given(database_url=bouncer))
    assert (again["changed"], again["slots"]["allocatable"]) == (False, 4)
    heavy.is_whole()
    assert "database-pooled" not in {at["code"] for at in heavy.info()["findings"]}


def until(looks: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if looks():
                return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
        time.sleep(0.2)
