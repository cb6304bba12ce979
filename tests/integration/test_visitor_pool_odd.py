# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` where visitors, applications and operators have left odd things: no
crash, no lie about what was changed, and nothing of a visitor's is lost."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import reconcile
from tests.integration.test_visitor_pool_meanwhile import codes, enter, give_project, just_before
from tests.support.pools import World, make_template, now, run, sqlite, told

USER = (
    "INSERT INTO auth_user (password, is_superuser, username, last_name, email, is_staff, is_active, date_joined,"
    " first_name) VALUES ('!x', false, 'visitor-004', '', '', false, true, %s, '')"
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = sqlite(tmp_path / "app.db")
    database.make()
    (tmp_path / "users").mkdir(mode=0o750)
    yield World(database, tmp_path / "users", make_template(tmp_path / "template"), size=3)
    database.close()


@pytest.fixture
def pool(world: World) -> World:
    world.well()
    return world


def theses(world: World) -> list[str]:
    return [str(path.relative_to(world.root)) for path in world.root.rglob("thesis.tex")]


# -- a pool that somebody else makes larger at this moment -----------------------------------------------------------


def test_a_slot_above_the_size_is_entered_while_its_directory_is_to_go(
    pool: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pool.root / "visitor-004").mkdir()

    def grown() -> None:
        for _ in range(3):
            assert pool.visit()
        enter(pool, 4)
        assert pool.visit(size=4)[0] == 4  # type: ignore[index]
        pool.save(4, "thesis.tex", "precious")

    just_before(monkeypatch, reconcile.Pool, "run", grown)
    result = run("visitor_pool", pool.given())
    assert codes(result, "visitor-004")[0] == "slot-busy"
    assert theses(pool)
    assert pool.row(4)["is_active"]


def test_a_slot_above_the_size_is_entered_while_its_user_is_to_go(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.sql(USER, [now()])

    def grown() -> None:
        give_project(pool, "visitor-004")
        pool.save(4, "thesis.tex", "precious")
        pool.sql(
            "INSERT INTO project_app_visitorallocation (visitor_number, session_key, allocation_token, allocated_at,"
            " expires_at, is_active) VALUES (4, 'somebody', 'token', %s, '2099-01-01', true)",
            [now()],
        )

    just_before(monkeypatch, reconcile.Pool, "run", grown)
    result = run("visitor_pool", pool.given())
    assert "slot-busy" in codes(result, "visitor-004")
    assert theses(pool)


def test_what_is_left_of_a_slot_above_the_size_goes(pool: World) -> None:
    pool.sql(USER, [now()])
    (pool.root / "visitor-005/default-project").mkdir(parents=True)
    foretold, result = pool.call(check=True), pool.well()
    assert told(foretold) == told(result)
    assert [at[:2] for at in told(result)] == [("remove-slot", "visitor-004"), ("remove-slot", "visitor-005")]
    assert not pool.well()["changed"]
    assert len(pool.sql("SELECT 1 FROM project_app_visitorallocation")) == 3


# -- what visitors have put in the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leased", [True, False])
def test_an_empty_file_where_the_marker_should_be(pool: World, leased: bool) -> None:
    if leased:
        pool.visit()
    marker = pool.path(1) / "scitex/writer/01_manuscript"
    shutil.rmtree(marker)
    marker.touch()
    foretold, result = pool.call(check=True), pool.call()
    assert told(foretold) == told(result)
    assert not result.get("failed"), result["msg"]
    assert marker.is_dir()
    assert not pool.well()["changed"]


def test_an_empty_directory_where_the_template_has_a_file(pool: World) -> None:
    pool.visit()
    workspace = pool.path(1) / "scitex/writer"
    shutil.rmtree(workspace / "01_manuscript")
    (workspace / "README.md").unlink(missing_ok=True)
    file = next(path.name for path in pool.template.iterdir() if path.is_file())
    (workspace / file).unlink(missing_ok=True)
    (workspace / file).mkdir()
    pool.well()
    assert (workspace / file).is_file()


def test_what_was_added_before_it_failed_is_a_change(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.visit()
    shutil.rmtree(pool.path(1) / "scitex/writer/01_manuscript")
    real = reconcile.Root.add

    def half(*words: object) -> None:
        real(*words)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reconcile.Root, "add", half)
    result = run("visitor_pool", pool.given())
    assert result["failed"]
    assert result["changed"]


# -- odd things --------------------------------------------------------------------------------------------------------


def test_a_file_where_the_scratch_directory_should_be(pool: World) -> None:
    (pool.root / ".visitor-pool").write_text("x")
    for module in ("visitor_pool", "visitor_pool_info"):
        result = run(module, pool.given())
        assert result["failed"]
        assert codes(result) == ["data-root-refused"]


def test_a_name_that_is_no_text(pool: World) -> None:
    pool.visit()
    pool.lose("user", 1)
    os.mkdir(os.fsencode(str(pool.root)) + b"/caf\xe9-001")
    assert not pool.call().get("failed")


def test_a_part_of_the_schema_that_is_no_mapping(pool: World) -> None:
    result = pool.call(schema={"allocations": ["x"]})
    assert codes(result) == ["schema-invalid"]


@pytest.mark.parametrize("left", [False, True], ids=["closed", "killed"])
def test_a_look_leaves_no_files_of_a_write_ahead_log(tmp_path: Path, left: bool) -> None:
    """Whoever is not their owner could leave them, and the application could not write any more."""
    made = sqlite(tmp_path / "app.db")
    made.make()
    made.run("PRAGMA journal_mode = WAL")
    (tmp_path / "users").mkdir()
    world = World(made, tmp_path / "users", make_template(tmp_path / "template"), size=3)
    run("visitor_pool", world.given())
    if left:  # an application that was killed has not emptied its log
        made.run("UPDATE auth_user SET email = 'x'")
        for name in ("app.db", "app.db-wal", "app.db-shm"):
            shutil.copy(tmp_path / name, tmp_path / f"copy{name[3:]}")
        world.options["database_url"] = f"sqlite:///{tmp_path}/copy.db"
    else:
        made.close()

    def kept() -> dict[str, bytes]:
        names = (at for at in tmp_path.iterdir() if ".db" in at.name and not at.name.endswith("-shm"))
        return {at.name: at.read_bytes() for at in names}

    before = kept()
    for name, more in (("visitor_pool_info", {"state_dir": str(tmp_path)}), ("visitor_pool", {})):
        result = run(name, {**world.given(size=5), **more}, check=True)
        gc.collect()
        assert result["slots"]["allocatable"] == 3
        assert kept() == before
        assert (tmp_path / "app.db-shm").exists() is left
    assert run("visitor_pool", world.given(size=5))["changed"]
    made.close()


def test_a_database_file_that_is_not_there(world: World, tmp_path: Path) -> None:
    result = run("visitor_pool", world.given(database_url=f"sqlite:///{tmp_path}/ap.db"))
    assert f"for there is no file {tmp_path}/ap.db" in result["msg"]
    assert "Check `database_url`" in result["msg"]
    assert not (tmp_path / "ap.db").exists()


def test_a_row_without_a_number_is_no_slot(world: World) -> None:
    world.sql("DROP TABLE project_app_visitorallocation")
    world.sql(
        "CREATE TABLE project_app_visitorallocation (id integer PRIMARY KEY, visitor_number integer UNIQUE,"
        " session_key varchar(40) NOT NULL, allocation_token varchar(64) NOT NULL UNIQUE,"
        " allocated_at datetime NOT NULL, expires_at datetime NOT NULL, is_active bool NOT NULL)"
    )
    world.sql("INSERT INTO project_app_visitorallocation VALUES (1, NULL, '', 'x', '2024-01-01', '2024-01-01', false)")
    assert world.call()["slots"]["allocatable"] == 3


@pytest.mark.parametrize(
    "line", ["[VisitorPool] Project ID: {}", "[VisitorPool] Allocated: v-{}", "[v-{}] [writer] x",
             "=== Visitor Pool Status ===\nTotal slots: {0}\nAllocated: {0}\nFree: {0}\nExpired: {0}"]
)  # fmt: skip
def test_a_number_that_nobody_counts_to(line: str) -> None:
    result = run("visitor_pool_info", {"parse": line.format("1" * 5000)})
    assert not result.get("failed")
    assert result["events"] == []
