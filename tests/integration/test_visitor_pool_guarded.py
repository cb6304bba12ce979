# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` in databases that do more than they are told: triggers, row-level security, domains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path
from unittest import mock

import pytest

from tests.support.engine import Engine
from tests.support.pools import TABLES, Database, Server, World, make_template, now, postgresql, run, sqlite
from tests.support.worlds import codes

ALLOCATION, PROJECTS = "project_app_visitorallocation", "project_app_project"


@pytest.fixture(scope="module")
def server(engine: Engine, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(engine, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = sqlite(tmp_path / "app.db") if request.param == "sqlite" else request.getfixturevalue("server").database()
    yield made
    made.close()


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    database.make()
    root = tmp_path / "users"
    root.mkdir()
    return World(database, root, make_template(tmp_path / "template"))


def ignore(world: World, event: str, table: str) -> None:
    """The database does not do it, and says nothing."""
    if world.database.kind == "sqlite":
        world.sql(f"CREATE TRIGGER quiet BEFORE {event} ON {table} BEGIN SELECT RAISE(IGNORE); END")
        return
    world.sql("CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    world.sql(f"CREATE TRIGGER quiet BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION quiet()")


@pytest.mark.parametrize("table", TABLES)
def test_rows_that_a_trigger_does_away_with_make_no_slot(world: World, table: str) -> None:
    ignore(world, "INSERT", table)
    before = world.snapshot()
    result = world.call()
    assert result["failed"]
    told = {(at["subject"], at["code"]) for at in result["findings"] if at["severity"] == "critical"}
    assert told == {(f"visitor-{number:03d}", "slot-not-made") for number in range(1, 5)}
    assert f"added to {table}" in result["msg"]
    assert "trigger" in result["msg"]
    assert (result["actions"], result["slots"]["absent"]) == ([], 4)
    assert world.snapshot() == before


def test_a_user_whose_name_a_trigger_changes_makes_no_slot(server: Server, tmp_path: Path) -> None:
    database = server.database()
    database.make()
    (tmp_path / "users").mkdir()
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
    body = "'BEGIN NEW.username := upper(NEW.username); RETURN NEW; END'"
    world.sql(f"CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS {body}")
    world.sql("CREATE TRIGGER loud BEFORE INSERT ON auth_user FOR EACH ROW EXECUTE FUNCTION loud()")
    before = world.snapshot()
    result = world.call()
    assert "added to auth_user" in result["msg"]
    assert world.snapshot() == before
    database.close()


def test_a_slot_whose_user_a_trigger_keeps_is_not_said_to_be_removed(world: World) -> None:
    world.well()
    ignore(world, "DELETE", "auth_user")
    for _run in range(2):
        result = world.call(size=3)
        assert [(at["action"], at["target"]) for at in result["actions"]] == [("quarantine-slot", "visitor-004")]
        assert result["msg"].startswith("visitor-004: its rows were removed and are still there: a trigger or rule")
        assert (result["slots"]["allocatable"], result["slots"]["quarantined"]) == (3, 1)
    world.sql("DROP TRIGGER quiet" + (" ON auth_user" if world.database.kind == "postgresql" else ""))
    world.well(size=3)
    assert world.info(size=3)["slots"]["total"] == 3


@pytest.fixture
def guarded(server: Server, tmp_path: Path) -> Iterator[World]:
    """A pool that a role works at who owns none of its tables."""
    database = server.database()
    database.make()
    (tmp_path / "users").mkdir()
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
    role = f"deployer_{database.url.rpartition('/')[2]}"
    world.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'Deployer-1'")
    world.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    world.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    world.options["database_url"] = database.url.replace(f"app:{server.password}", f"{role}:Deployer-1")
    yield world
    database.close()


@pytest.mark.parametrize("table", TABLES)
def test_rows_that_are_hidden_from_the_role_are_not_taken_for_missing(guarded: World, table: str) -> None:
    guarded.well()
    held = guarded.visit()
    assert held is not None
    guarded.save(held[0], "mine.txt", "his work")
    guarded.sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    before = guarded.snapshot()
    for state in ("present", "expired", "reset"):
        result = guarded.call(state=state)
        assert [(at["subject"], at["code"]) for at in result["findings"]] == [(table, "rows-hidden")]
        assert result["failed"]
    assert guarded.snapshot() == before
    info = guarded.info()
    assert (info["cause"], [at["code"] for at in info["findings"]]) == ("schema", ["rows-hidden"])
    guarded.sql(f"CREATE POLICY mine ON {table} FOR ALL USING (id > 1)")
    assert guarded.call()["failed"]
    guarded.sql(f"CREATE POLICY everything ON {table} FOR ALL USING (true)")
    assert guarded.call()["changed"] is False
    guarded.sql(f"CREATE POLICY fewer ON {table} AS RESTRICTIVE FOR ALL USING (id > 1)")
    assert "rows-hidden" in {at["code"] for at in guarded.call()["findings"]}
    guarded.sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    assert guarded.call(state="expired")["changed"] is False
    assert (guarded.path(held[0]) / "scitex/writer/mine.txt").read_text() == "his work"


def test_a_server_that_takes_no_changes_is_told_before_anything_is_done(guarded: World) -> None:
    """A replica, or a database that was set so."""
    name = guarded.database.url.rpartition("/")[2]
    for number in (0, 1):  # nothing is there yet; and a lease has ended
        guarded.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        before = guarded.files()
        for state in ("present", "expired"):
            for check in (True, False):
                result = run("visitor_pool", guarded.given(state=state), check=check)
                told = [at["code"] for at in result["findings"]]
                assert (told, result["changed"], result["actions"]) == (["database-read-only"], False, [])
        assert guarded.files() == before
        info = run("visitor_pool_info", guarded.given(state_dir=f"{guarded.root}-state"))
        assert (info["slots"]["total"], info["slots"]["expired"]) == (4 * number, number)
        guarded.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        guarded.call()
        guarded.visit()
        guarded.end(1)


@pytest.mark.parametrize("state", ["expired", "present"])
def test_what_the_role_may_not_change_is_no_change(guarded: World, state: str) -> None:
    """To end a lease it must change rows of allocations, and to drain a slot those of users."""
    guarded.well()
    for _number in range(4):
        guarded.visit()
    if state == "expired":
        guarded.end(1)
        guarded.end(2)
    table = {"expired": ALLOCATION, "present": "auth_user"}[state]
    role = guarded.options["database_url"].split("//")[1].split(":")[0]
    guarded.sql(f"REVOKE UPDATE ON {table} FROM {role}")
    result = guarded.call(state=state, size={"expired": 4, "present": 0}[state])
    assert (result["failed"], result["changed"], codes(result)) == (True, False, ["database-refused"])
    assert "permission denied" in result["msg"]


def test_a_schema_that_the_role_does_not_look_in(guarded: World) -> None:
    guarded.sql("CREATE SCHEMA studio")
    for table in TABLES:
        guarded.sql(f"ALTER TABLE {table} SET SCHEMA studio")
    result = run("visitor_pool", guarded.given())
    assert {at["code"] for at in result["findings"]} == {"table-missing"}
    assert all("schema.table" in at["remedy"] for at in result["findings"])


def test_a_server_that_repeats_what_it_was_sent(server: Server, tmp_path: Path) -> None:
    database = server.database()
    database.make()
    name = database.url.rpartition("/")[2]
    database.run(f"ALTER DATABASE {name} SET log_parameter_max_length_on_error = -1")
    (tmp_path / "users").mkdir()
    world = World(
        database, tmp_path / "users", make_template(tmp_path / "template"), options={"schema": {"token": "plain"}}
    )
    world.well()
    held = world.visit()
    assert held is not None
    stored = world.row(held[0])["allocation_token"]
    world.secrets += [held[1], stored]
    world.end(held[0])
    database.run(f"ALTER TABLE {ALLOCATION} ADD CHECK (session_key <> 'shipshape:resetting')")
    result = world.call(state="expired")
    assert result["failed"]
    assert "violates check constraint" in result["msg"]
    database.close()


def test_domains_that_take_no_null(server: Server, tmp_path: Path) -> None:
    """What the pool does not speak of gets its default, and is not set to null on the way."""
    database = server.database()
    database.run("CREATE DOMAIN moment AS timestamptz NOT NULL")
    database.run("CREATE DOMAIN nick AS varchar(150) NOT NULL CHECK (VALUE ~ '^[a-z0-9-]+$')")
    database.make()
    database.run(f"ALTER TABLE {PROJECTS} ADD opened moment DEFAULT now()")
    database.run(f"ALTER TABLE {ALLOCATION} ADD opened moment DEFAULT now()")
    database.run("ALTER TABLE auth_user ALTER username TYPE nick")
    database.run("CREATE DOMAIN low AS nick")  # one over another, two deep
    database.run("CREATE DOMAIN lower AS low")
    database.run(f"ALTER TABLE {PROJECTS} ALTER slug TYPE lower, ADD maker lower DEFAULT 'pool'")
    database.run("CREATE DOMAIN place AS varchar(40) NOT NULL DEFAULT 'here'")
    database.run(f"ALTER TABLE {ALLOCATION} ADD place place")
    (tmp_path / "users").mkdir()
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
    world.well()
    world.visit()
    world.well(state="reset")
    world.is_whole()
    database.close()


DOMAINS = [("varchar(10)", "column-type"), ("integer", "column-type"), ("varchar(40)", "column-without-value")]


@pytest.mark.parametrize(("base", "code"), DOMAINS)
def test_what_a_domain_over_a_domain_is_made_of(server: Server, tmp_path: Path, base: str, code: str) -> None:
    database = server.database()
    database.make()
    database.run(f"CREATE DOMAIN inner_one AS {base} NOT NULL")
    database.run("CREATE DOMAIN outer_one AS inner_one")
    added = code == "column-without-value"
    change = "ADD region outer_one" if added else "ALTER session_key TYPE outer_one USING NULL"
    database.run(f"ALTER TABLE {ALLOCATION} {change}")
    (tmp_path / "users").mkdir()
    result = World(database, tmp_path / "users", make_template(tmp_path / "template")).info()
    column = "region" if added else "session_key"
    assert codes(result, f"{ALLOCATION}.{column}") == [code]
    database.close()


def test_columns_without_a_zone_hold_utc_wherever_the_database_is(server: Server, tmp_path: Path) -> None:
    """So Django has them, and so does whoever else uses such columns at more than one place."""
    database = server.database()
    database.run(f"ALTER DATABASE {database.url.rpartition('/')[2]} SET TimeZone TO 'Asia/Kathmandu'")
    database.run("SET TIME ZONE 'UTC'")
    database.make()
    for column in ("allocated_at", "expires_at"):
        database.run(f"ALTER TABLE {ALLOCATION} ALTER {column} TYPE timestamp")
    (tmp_path / "users").mkdir()
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
    world.well()
    held = world.visit(hours=1)
    assert held is not None
    assert world.info()["slots"]["leased"] == 1
    world.end(held[0], 60)
    assert world.info()["slots"]["expired"] == 1
    world.well(state="expired")
    for number in (1, 2):
        assert abs(world.row(number)["allocated_at"].replace(tzinfo=timezone.utc) - now()) < timedelta(hours=1)
    database.close()


def test_names_with_the_marks_of_a_placeholder(server: Server, tmp_path: Path) -> None:
    database = server.database()
    database.make()
    database.run(f'ALTER TABLE {PROJECTS} RENAME slug TO "100%"')
    database.run(f'ALTER TABLE {ALLOCATION} RENAME allocation_token TO "%s{{0}}"')
    database.run(f'ALTER TABLE {ALLOCATION} RENAME TO "rows %(name)s"')
    (tmp_path / "users").mkdir()
    options = {
        "projects": {"columns": {"slug": "100%"}},
        "allocations": {"table": "rows %(name)s", "columns": {"allocation_token": "%s{0}"}},
    }
    given = {"schema": {"token": "sha256", **options}}
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"), options=given)
    database.run(f'CREATE VIEW {ALLOCATION} AS SELECT * FROM "rows %(name)s"')  # for the snapshots
    world.well()
    world.well(state="reset")
    world.well(size=2)
    assert database.run('SELECT count(*) FROM "rows %(name)s"') == [(2,)]
    database.close()


def test_an_index_that_lets_a_session_have_one_slot_only(world: World) -> None:
    """All slots that are being cleaned have one session key, so such an index lets only one be cleaned at a time."""
    world.sql(f"CREATE UNIQUE INDEX one_each ON {ALLOCATION} (session_key) WHERE is_active")
    world.well()
    for number in (1, 2, 3):
        assert world.visit() is not None
        world.end(number)
    world.visit()
    assert world.well(state="expired")["cleared"] == 3
    assert world.well(state="reset")["slots"]["allocatable"] == 4
    world.is_whole()


def test_a_slot_that_the_database_lets_nobody_clean_keeps_no_other_from_it(world: World) -> None:
    world.well()
    if world.database.kind == "sqlite":
        when = "NEW.visitor_number = 2 AND NEW.session_key LIKE 'shipshape:%'"
        then = "BEGIN SELECT RAISE(ABORT, 'held'); END"
        world.sql(f"CREATE TRIGGER held BEFORE UPDATE ON {ALLOCATION} WHEN {when} {then}")
    else:
        holds = "visitor_number <> 2 OR session_key NOT LIKE 'shipshape:%'"
        world.sql(f"ALTER TABLE {ALLOCATION} ADD CONSTRAINT held CHECK ({holds})")
    for number in (1, 2, 3):
        world.visit()
        world.end(number)
    result = world.call(state="expired")
    assert result["failed"]
    assert (result["slots"]["allocatable"], result["slots"]["expired"], result["cleared"]) == (3, 1, 2)
    assert codes(result, "visitor-002") == ["lease-ended", "slot-not-made"]
    assert "held" in result["msg"]
    again = world.call(state="expired")
    assert (again["failed"], again["changed"]) == (True, False)


@pytest.mark.parametrize(
    ("table", "column"), [(PROJECTS, "slug"), (PROJECTS, "description"), (ALLOCATION, "is_active")]
)
def test_a_column_that_the_database_computes_is_named_before_anything_is_touched(
    database: Database, tmp_path: Path, table: str, column: str
) -> None:
    value = {"slug": "'default-project'", "description": "'none'"}.get(column, "(session_key <> '')")
    text = TABLES[table]
    for kind in ("varchar(200)", "text", "{bool}"):
        text = text.replace(f"{column} {kind} NOT", f"{column} {kind} GENERATED ALWAYS AS ({value}) STORED NOT")
    with mock.patch.dict(TABLES, {table: text}):
        database.make()
    (tmp_path / "users").mkdir()
    world = World(database, tmp_path / "users", make_template(tmp_path / "template"))
    for check in (True, False):
        result = world.call(check=check)
        assert (result["failed"], result["changed"]) == (True, False)
        assert codes(result, f"{table}.{column}") == ["column-type"]
        assert "the database makes its value by itself" in result["msg"]


def test_a_view_is_told_from_a_table(world: World) -> None:
    world.sql(f"ALTER TABLE {ALLOCATION} RENAME TO slots")
    world.sql(f"CREATE VIEW {ALLOCATION} AS SELECT * FROM slots")
    result = run("visitor_pool", world.given())
    assert result["failed"]
    assert "It is a view, which can have none: name the table behind it in schema.allocations.table" in result["msg"]
    world.options["schema"] = {"allocations": {"table": "slots"}}
    assert not run("visitor_pool", world.given()).get("failed")
