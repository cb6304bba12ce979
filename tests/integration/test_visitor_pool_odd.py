# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` where visitors, applications and operators have left odd things: no
crash, no lie about what was changed, and nothing of a visitor's is lost."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, reconcile, records, walk
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.template import File
from tests.support.pools import BOOL, SERIAL, TABLES, TIME, World, make_template, now, run, sqlite, told
from tests.support.worlds import codes, enter, give_project, just_before, theses

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


def test_a_slot_above_the_size_is_lent_while_it_is_to_go(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def lent() -> None:
        assert [pool.visit()[0] for _ in range(3)] == [1, 2, 3]  # type: ignore[index]
        pool.save(3, "thesis.tex", "precious")

    just_before(monkeypatch, reconcile.Pool, "run", lent)
    result = run("visitor_pool", pool.given(size=2))
    assert "slot-busy" in codes(result, "visitor-003")
    assert theses(pool)
    assert pool.row(3)["is_active"]


def test_a_slot_that_drains_is_offered_again_when_the_pool_grows(pool: World) -> None:
    assert [pool.visit()[0] for _ in range(3)] == [1, 2, 3]  # type: ignore[index]
    row, kept = pool.row(3), pool.save(3, "thesis.tex", "precious")
    assert told(pool.well(size=2)) == [("drain-slot", "visitor-003", "the pool has 2 slots")]
    assert told(pool.well()) == [("activate-user", "visitor-003", "it is not active")]
    assert pool.sql("SELECT username FROM auth_user WHERE NOT is_active") == []
    assert (pool.row(3), kept.read_text()) == (row, "precious")


def test_what_is_left_of_a_slot_above_the_size_goes(pool: World) -> None:
    pool.sql(USER, [now()])
    (pool.root / "visitor-005/default-project").mkdir(parents=True)
    foretold, result = pool.call(check=True), pool.well()
    assert told(foretold) == told(result)
    assert [at[:2] for at in told(result)] == [("remove-slot", "visitor-004"), ("remove-slot", "visitor-005")]
    assert not pool.well()["changed"]
    assert len(pool.sql("SELECT 1 FROM project_app_visitorallocation")) == 3


# -- somebody else cleans, too ----------------------------------------------------------------------------------------


def test_a_slot_that_somebody_else_has_cleaned_and_lent_meanwhile(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has no locks that last over two transactions: between the claim and the work the application may do it."""
    pool.visit()
    pool.end(1)
    real = records.Records.turn

    def turn(self: Any, *words: Any) -> set[int]:
        found = real(self, *words)
        pool.sql(
            "UPDATE project_app_visitorallocation SET session_key = 'next', expires_at = '2099-01-01'"
            " WHERE session_key = 'shipshape:resetting'"
        )
        pool.save(1, "thesis.tex", "precious")
        return found

    monkeypatch.setattr(records.Records, "turn", turn)
    result = run("visitor_pool", pool.given(state="expired"))
    assert not result.get("failed"), result["msg"]
    assert theses(pool)
    assert pool.row(1)["session_key"] == "next"
    assert result["actions"] == []


def test_nobody_else_writes_while_a_slot_is_cleaned(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the application, which sees only that the slot is being cleaned, could do the same at the same moment."""
    pool.visit()
    pool.end(1)
    seen = []

    def other() -> None:
        with closing(sqlite3.connect(pool.root.parent / "app.db", timeout=0)) as connection:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                connection.execute("BEGIN IMMEDIATE")
            seen.append(True)

    just_before(monkeypatch, disk.Root, "replace", other)
    assert not run("visitor_pool", pool.given(state="expired")).get("failed")
    assert seen
    pool.is_whole()


@pytest.mark.parametrize("what", ["scitex/writer/01_manuscript", "scitex", ""])
def test_a_slot_is_looked_at_before_it_is_offered(pool: World, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Whatever has gone wrong: somebody else removes it at once, or a disk that forgets."""
    pool.visit()
    pool.end(1)
    real = disk.Root.replace

    def forgetful(self: Any, name: str, *words: Any) -> str:
        found = real(self, name, *words)
        shutil.rmtree(self.path + f"/{name}/default-project/{what}")
        return found

    monkeypatch.setattr(disk.Root, "replace", forgetful)
    result = run("visitor_pool", pool.given(state="expired"))
    assert result["failed"]
    assert "not whole" in result["msg"]
    assert ("slot-quarantined" in codes(result, "visitor-001"), result["slots"]["quarantined"]) == (True, 1)
    assert pool.visit()[0] == 2  # type: ignore[index]


def test_expired_slots_by_their_numbers(pool: World) -> None:
    for number in (1, 2, 3):
        pool.visit()
        pool.end(number)
    rows = [pool.row(at) for at in (1, 3)]
    assert told(pool.well(state="expired", slots=[2])) == [("clear-slot", "visitor-002", "its lease has ended")]
    assert [pool.row(at) for at in (1, 3)] == rows
    assert pool.call(state="expired", slots=[4])["failed"]
    assert pool.call(slots=[1])["failed"], "state: present knows no slots, and says so"
    assert [pool.row(at) for at in (1, 3)] == rows


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


@pytest.mark.parametrize("links", [True, False])
def test_a_visitor_saves_the_very_file_that_is_made(pool: World, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """It was not there when it was looked for, and what is built for it is a template's."""
    pool.visit()
    for name in ("01_manuscript/abstract.tex", "README.md"):
        (pool.path(1) / "scitex/writer" / name).unlink()

    def save() -> None:
        pool.save(1, "README.md", "precious")

    def no_links(*_words: Any, **_keys: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    real = disk.Root._built

    def built(self: Any, scratch: int, node: Any) -> str:
        if isinstance(node, File) and node.content == b"A manuscript.\n":
            save()
        return real(self, scratch, node)

    monkeypatch.setattr(disk.Root, "_built", built)
    if not links:
        monkeypatch.setattr(walk.os, "link", no_links)
    result = run("visitor_pool", pool.given())
    assert not result.get("failed"), result["msg"]
    assert (pool.path(1) / "scitex/writer/README.md").read_text() == "precious"
    assert "slot-busy" in codes(result, "visitor-001")


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


@pytest.mark.parametrize("path", ["/", "//", "/srv/.."])
def test_the_whole_file_system_is_no_data_root(pool: World, path: str) -> None:
    result = run("visitor_pool", {**pool.given(), "data_root": path}, check=True)
    assert result["failed"]
    assert codes(result) == ["option-invalid"]
    assert "data_root" in result["msg"]


def test_a_file_where_the_scratch_directory_should_be(pool: World) -> None:
    (pool.root / ".visitor-pool").write_text("x")
    for module in ("visitor_pool", "visitor_pool_info"):
        result = run(module, pool.given())
        assert result["failed"]
        assert codes(result) == ["data-root-refused"]


def test_what_others_have_in_the_scratch_directory_is_theirs_for_an_hour(pool: World) -> None:
    scratch = pool.root / ".visitor-pool"
    for name in ("app-visitor-001.new", "app-visitor-002", "transfer-of-mine"):
        (scratch / name).mkdir(parents=True)
        if not name.endswith("new"):
            os.utime(scratch / name, (time.time() - 3700, time.time() - 3700))
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert sorted(os.listdir(scratch)) == ["app-visitor-001.new", "transfer-of-mine"]  # a journal is never too old
    assert not pool.call()["changed"]


def test_modes_are_those_of_data_root_whatever_the_umask(world: World) -> None:
    world.root.chmod(0o3770)
    before = os.umask(0o077)
    try:
        world.well()
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(about[0]) for path, about in world.files().items()}
    assert {mode for path, mode in found.items() if path.endswith(".tex")} == {0o660}
    assert {mode for path, mode in found.items() if (world.root / path).is_dir()} == {0o3770}


def test_a_database_of_our_own_is_the_applications_too(tmp_path: Path) -> None:
    """It gets what its directory says of owner, group and mode."""
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 10001, 10002)
    folder.chmod(0o2775)
    (tmp_path / "users").mkdir()
    options = {"database_url": f"sqlite:///{folder}/pool.db", "data_root": str(tmp_path / "users"), "size": 1}
    assert not run("visitor_pool", {**options, "schema": "builtin"}).get("failed")
    about = (folder / "pool.db").stat()
    assert (about.st_uid, about.st_gid, oct(about.st_mode & 0o7777)) == (10001, 10002, "0o660")


@pytest.mark.parametrize("which", ["world", "heavy"])
def test_a_row_with_nothing_in_it_is_known_again(request: pytest.FixtureRequest, which: str) -> None:
    """NULL is like no other NULL, and still the row is the one that was seen."""
    world: World = request.getfixturevalue(which)
    kind = world.database.kind
    world.sql("DROP TABLE project_app_visitorallocation")
    text = TABLES["project_app_visitorallocation"].replace("expires_at {time} NOT NULL", "expires_at {time}")
    world.sql(text.format(serial=SERIAL[kind], time=TIME[kind], bool=BOOL[kind]))
    world.well()
    world.visit()
    world.sql("UPDATE project_app_visitorallocation SET expires_at = NULL WHERE visitor_number = 1")
    assert codes(world.call(), "visitor-001") == ["lease-endless"]
    assert world.well(state="reset", slots=[1])["cleared"] == 1


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
