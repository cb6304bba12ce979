# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` and rows and disks that are not as they should be. Nothing of a visitor's is lost, nothing
unclean is handed out, and what cannot be known is not guessed."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pools import PROJECT, World, now, told
from tests.support.worlds import codes, give_project, theses


@pytest.fixture
def world(three: World) -> World:
    return three


def fill_disk(path: Path, chunk: int) -> None:
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * chunk)


# -- rows that are not as they should be ------------------------------------------------------------------------------


def test_a_lease_whose_end_cannot_be_read_goes_on(pool: World) -> None:
    if pool.database.kind == "postgresql":
        pytest.skip("PostgreSQL's own types keep other things out")
    pool.visit()
    pool.save(1, "thesis.tex", "precious")
    pool.sql("UPDATE project_app_visitorallocation SET expires_at = 'next week' WHERE visitor_number = 1")
    assert "lease-unreadable" in codes(pool.info(), "visitor-001")
    for state in ("present", "expired"):
        result = pool.call(state=state)
        assert "lease-unreadable" in codes(result, "visitor-001")
    assert theses(pool)
    assert pool.row(1)["is_active"]


def test_a_lease_without_an_end_goes_on(pool: World) -> None:
    if pool.database.kind == "sqlite":
        pytest.skip("a column of SQLite cannot be made nullable afterwards")
    pool.sql("ALTER TABLE project_app_visitorallocation ALTER COLUMN expires_at DROP NOT NULL")
    pool.visit()
    pool.save(1, "thesis.tex", "precious")
    pool.sql("UPDATE project_app_visitorallocation SET expires_at = NULL WHERE visitor_number = 1")
    for state in ("present", "expired"):
        assert codes(pool.call(state=state), "visitor-001") == ["lease-endless"]
    assert theses(pool)
    assert pool.well(state="reset", slots=[1])["cleared"] == 1


def test_another_prefix_takes_nobodys_lease(pool: World) -> None:
    pool.visit()
    pool.save(1, "thesis.tex", "precious")
    before = pool.snapshot()
    for state in ("present", "expired", "reset"):
        result = pool.call(prefix="guest-", state=state)
        assert result["failed"]
        assert codes(result) == ["prefix-doubtful"]
        assert "visitor-001" in result["msg"]
    assert pool.snapshot() == before


@pytest.mark.parametrize("state", ["present", "expired"])
def test_a_slot_freed_by_somebody_who_did_not_clear_it(pool: World, state: str) -> None:
    pool.visit()
    pool.save(1, "thesis.tex", "of the one before")
    pool.sql("UPDATE project_app_visitorallocation SET is_active = false WHERE visitor_number = 1")
    looked = pool.info()
    assert "slot-not-cleared" in codes(looked, "visitor-001")
    assert (looked["slots"]["allocatable"], looked["slots"]["expired"]) == (2, 1)
    pool.well(state=state)
    assert not theses(pool)
    pool.is_whole()


@pytest.mark.parametrize("state", ["expired", "reset"])
def test_rows_of_a_cleared_slot_say_nothing_of_the_former_visitor(pool: World, state: str) -> None:
    pool.visit()
    mine = "(SELECT id FROM auth_user WHERE username = 'visitor-001')"
    pool.sql(f"UPDATE project_app_project SET name = 'My thesis', description = 'secret' WHERE owner_id = {mine}")
    pool.sql("UPDATE auth_user SET first_name = 'Ada', email = 'ada@example.org' WHERE username = 'visitor-001'")
    pool.end(1)
    pool.well(state=state)
    assert pool.sql(f"SELECT name, description FROM project_app_project WHERE owner_id = {mine}") == [(PROJECT, "")]
    [(first, email)] = pool.sql("SELECT first_name, email FROM auth_user WHERE username = 'visitor-001'")
    assert (first, "ada" in email) == ("", False)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(pool: World) -> Iterator[World]:
    """The pool on a disk of two megabytes."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0750", "none", pool.root], check=True)
    try:
        assert not pool.call()["slots"]["missing"]
        yield pool
    finally:
        subprocess.run(["umount", "-l", pool.root], check=True)


def test_who_fills_the_disk_does_not_end_the_pool(small_disk: World) -> None:
    pool = small_disk
    for _ in range(3):
        pool.visit()
    fill_disk(pool.save(1, "thesis.tex", ""), 65536)
    for number in (1, 2, 3):
        pool.end(number)
    result = pool.call(state="expired")
    assert not result.get("failed"), result["msg"]
    assert result["slots"]["allocatable"] == 3
    assert not theses(pool)


def test_a_full_disk_is_said_and_moves_nothing(small_disk: World) -> None:
    pool = small_disk
    visit = pool.visit()
    assert visit is not None
    pool.sign_up("alice")
    fill_disk(pool.save(1, "thesis.tex", ""), 4096)
    options = {"state": "transferred", "slot": 1, "session_key": visit[1], "token": visit[2], "to_user": "alice"}
    result = pool.call(**options)
    if result.get("failed"):
        assert "No space left" in result["msg"]
        assert theses(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
    else:
        assert theses(pool) == ["alice/default-project/scitex/writer/thesis.tex"]


@pytest.mark.skipif(shutil.which("chattr") is None, reason="no chattr here")
def test_a_file_that_cannot_be_removed_keeps_no_others_files(pool: World) -> None:
    for number in (1, 2):
        pool.visit()
        pool.save(number, "thesis.tex", "of the one before")
        pool.end(number)
    kept = pool.root / "visitor-001/default-project/scitex/writer/thesis.tex"
    if subprocess.run(["chattr", "+i", kept], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        result = pool.call(state="expired")
        assert "leftovers-kept" in codes(result)
        assert len(list(pool.root.rglob("thesis.tex"))) == 1
    finally:
        for path in pool.root.rglob("thesis.tex"):
            subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.skipif(shutil.which("chattr") is None, reason="no chattr here")
def test_a_file_that_cannot_be_removed_is_said_every_time(pool: World) -> None:
    pool.visit()
    kept = pool.save(1, "thesis.tex", "of the one before")
    if subprocess.run(["chattr", "+i", kept], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files")
    pool.end(1)
    try:
        result = pool.call(state="expired")
        assert "leftovers-kept" in codes(result)
        assert pool.row(1)["is_active"] in (0, False)
        pool.call()
        again = pool.call()
        assert "leftovers-kept" in codes(again)
        assert not again["changed"]
    finally:
        for path in pool.root.rglob("thesis.tex"):
            subprocess.run(["chattr", "-i", path], check=True)
    pool.call()
    pool.is_whole()


def test_a_file_in_the_place_of_the_scratch_directory(pool: World) -> None:
    (pool.root / ".visitor-pool").write_text("in its way")
    pool.lose("directory", 1)
    result = pool.call()
    assert result["failed"]
    assert codes(result) == ["data-root-refused"]
    assert ".visitor-pool" in result["msg"]


def test_a_template_that_is_not_there_is_said_in_check_mode(world: World) -> None:
    shutil.rmtree(world.template)
    for check in (True, False):
        result = world.call(check=check)
        assert result["failed"]
        assert "template-missing" in codes(result)


def test_strays_do_not_hide_a_pool_that_is_nearly_full(pool: World) -> None:
    for _ in range(3):
        pool.visit()
    for number in (77, 78):
        (pool.root / f"visitor-{number:03d}").mkdir()
    looked = pool.info()
    assert (looked["cause"], looked["utilisation"], looked["alert"]["active"]) == ("saturated", 1.0, True)


def test_a_persons_account_is_no_slot_under_another_prefix(pool: World) -> None:
    """Though he has a project and a directory, and a row of the same number has no user."""
    pool.visit()
    pool.lose("user", 1)
    pool.sign_up("team-001")
    give_project(pool, "team-001")
    (pool.root / "team-001").mkdir()
    assert pool.well()["slots"]["allocatable"] == 3


@pytest.mark.parametrize("password", ["!", "*", "*locked*", ""])
def test_words_that_are_no_password_make_nobody_a_person(pool: World, password: str) -> None:
    pool.sql("UPDATE auth_user SET password = %s WHERE username = 'visitor-001'", [password])
    assert pool.info()["findings"] == []
    assert pool.well()["slots"]["allocatable"] == 3


def test_rows_with_numbers_that_no_slot_has_go(pool: World) -> None:
    """Slots begin with 1, and an application could hand these out."""
    rows = [pool.row(number) for number in (1, 2, 3)]
    for number in (0, -3):
        pool.sql(
            "INSERT INTO project_app_visitorallocation (visitor_number, session_key, allocation_token, allocated_at,"
            " expires_at, is_active) VALUES (%s, '', %s, %s, %s, false)",
            [number, f"of {number}", now(), now()],
        )
    assert sorted(at["subject"] for at in pool.info()["findings"]) == ["row -3", "row 0"]
    assert sorted(told(pool.well())) == [
        ("remove-allocation", "row -3", "slots begin with 1"),
        ("remove-allocation", "row 0", "slots begin with 1"),
    ]
    assert [pool.row(number) for number in (1, 2, 3)] == rows
    assert pool.info()["findings"] == []


def test_descriptors_are_given_back(pool: World) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert not pool.call(state="reset").get("failed")
    gc.collect()
    # Fewer is possible: a thread of an earlier test may hang up at this moment.
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("state", ["present", "reset"])
def test_sqlite_ends_the_whole_transaction_of_one_statement(pool: World, state: str) -> None:
    """As it does on a full disk. Nothing more is done then, for anybody could come between, and why is what is said."""
    if pool.database.kind == "postgresql":
        pytest.skip("PostgreSQL keeps what was done before a savepoint")
    event = "DELETE ON project_app_project" if state == "present" else "UPDATE ON auth_user"
    pool.sql(f"CREATE TRIGGER full BEFORE {event} BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END")
    users, files = pool.sql("SELECT id, username FROM auth_user"), set(pool.files())
    wanted: dict[str, Any] = {"state": state, "size": pool.size - 1 if state == "present" else pool.size}
    for _again in range(2):
        result = pool.call(**wanted)
        assert result["failed"]
        assert "database or disk is full" in result["msg"]
        assert "no transaction" not in result["msg"]
    assert pool.sql("SELECT id, username FROM auth_user") == users
    assert {path for path in pool.files() if ".visitor-pool" not in path} == files, "the next run sweeps the rest"
    pool.sql("DROP TRIGGER full")
    pool.call(**wanted)
    pool.well(size=wanted["size"])
    pool.is_whole(int(wanted["size"]))
