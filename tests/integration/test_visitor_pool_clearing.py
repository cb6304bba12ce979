# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` clears slots, on SQLite and a real PostgreSQL: those whose lease has ended, and those that it
is told to. Nobody else loses anything, and nothing unclean is handed out."""

from __future__ import annotations

import itertools
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, records
from tests.support.pools import World, erase, run, told
from tests.support.worlds import codes, counts, just_before

# -- expiry -----------------------------------------------------------------------------------------------------------


def test_expiry_frees_what_has_ended_and_nothing_else(pool: World) -> None:
    for _ in range(3):
        pool.visit()
    for number in (1, 2, 3):
        pool.save(number, "draft.txt", f"of {number}")
    pool.end(1)
    pool.end(2, -3600)
    before = {number: pool.row(number) for number in (2, 3, 4)}
    came = pool.row(1)["allocated_at"]
    files = {path: at for path, at in pool.files().items() if path.startswith(("visitor-002", "visitor-003"))}
    assert counts(pool.info()) == {"allocatable": 1, "leased": 2, "expired": 1}
    result = pool.well(state="expired")
    assert told(result) == [("clear-slot", "visitor-001", "its lease has ended")]
    assert result["cleared"] == 1
    assert not (pool.path(1) / "scitex/writer/draft.txt").exists()
    assert {number: pool.row(number) for number in (2, 3, 4)} == before
    assert files.items() <= pool.files().items()
    assert pool.row(1)["allocated_at"] != came  # nor does the row say when the former visitor was here
    assert pool.row(1)["allocated_at"] == pool.row(1)["expires_at"]
    pool.is_whole()
    again = pool.well(state="expired")
    assert (again["changed"], again["cleared"]) == (False, 0)


def test_what_was_being_cleaned_is_finished(pool: World) -> None:
    pool.visit()
    pool.save(1, "draft.txt", "of the one before")
    pool.sql(
        "UPDATE project_app_visitorallocation SET session_key = 'shipshape:resetting', expires_at = %s"
        " WHERE visitor_number = 1",
        [datetime(9999, 12, 31, tzinfo=timezone.utc)],
    )
    assert counts(pool.info()) == {"allocatable": 3, "resetting": 1}
    assert counts(pool.well(state="expired")) == {"allocatable": 4}
    assert not list(pool.root.rglob("draft.txt"))


def test_a_living_cleaner_is_left_alone(pool: World) -> None:
    if pool.database.kind == "sqlite":
        pytest.skip("SQLite's own lock keeps writers apart")
    pool.visit()
    pool.sql("UPDATE project_app_visitorallocation SET session_key = 'shipshape:resetting' WHERE visitor_number = 1")
    pool.sql("SELECT pg_advisory_lock(1397246288, 1)")
    result = pool.call(state="expired")
    assert not result.get("failed")
    assert counts(result) == {"allocatable": 3, "resetting": 1}
    pool.sql("SELECT pg_advisory_unlock(1397246288, 1)")
    assert counts(pool.well(state="expired")) == {"allocatable": 4}


def test_a_slot_that_cannot_be_cleaned_is_quarantined(pool: World) -> None:
    for _ in range(4):
        pool.visit()
    pool.save(1, "draft.txt", "of the one before")
    pool.end(1)
    held = pool.root / "visitor-001"
    assert os.system(f"chattr +i {held}") == 0
    try:
        result = pool.call(state="expired")
        assert result["failed"]
        assert (counts(result), result["cleared"]) == ({"leased": 3, "quarantined": 1}, 0)
        assert "visitor-001" in result["msg"]
        assert pool.visit() is None, "an unclean slot was handed out"
    finally:
        os.system(f"chattr -i {held}")
    assert counts(pool.well()) == {"allocatable": 1, "leased": 3}
    assert not list(pool.root.rglob("draft.txt"))


@pytest.mark.parametrize("well", [True, False])
def test_a_slot_that_is_put_aside_is_nobodys_to_lend_or_to_end(
    pool: World, monkeypatch: pytest.MonkeyPatch, well: bool
) -> None:
    """An application that knows nothing of it sees a lease that goes on, with a token that fits no longer."""
    visit = pool.visit()
    assert visit is not None
    token = pool.row(1)["allocation_token"]
    pool.end(1)
    seen = []

    def look() -> None:
        seen.append(pool.row(1))
        if not well:
            raise OSError("cannot be cleaned")

    just_before(monkeypatch, disk.Root, "replace", look)
    assert bool(run("visitor_pool", pool.given(state="expired")).get("failed")) is not well
    seen += [] if well else [pool.row(1)]
    for row, key in zip(seen, ("shipshape:resetting", "shipshape:quarantined")):
        assert (row["session_key"], bool(row["is_active"])) == (key, True)
        assert str(row["expires_at"]).startswith("9999-12-31")
        assert row["allocation_token"] != token


@pytest.mark.parametrize("state", ["expired", "reset"])
def test_a_slot_is_cleared_on_the_disk_before_the_database_offers_it(
    pool: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Who loses power finds what was synced: a row that is free must not lead to the former visitor's files."""
    pool.visit()
    pool.end(1)
    done: list[str] = []
    rename, fsync, free = os.rename, os.fsync, records.Records.free

    def renamed(old: str, new: str, **keys: Any) -> None:
        rename(old, new, **keys)
        done.append("cleared" if new == "visitor-001" else "renamed")

    def synced(what: int) -> None:
        fsync(what)
        done.append(f"synced {os.readlink(f'/proc/self/fd/{what}')}")

    def freed(*words: Any) -> set[int]:
        done.append("offered")
        return free(*words)

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(records.Records, "free", freed)
    assert not run("visitor_pool", pool.given(state=state)).get("failed")
    wanted = ["cleared", f"synced {pool.root}", "offered"]
    assert [at for at in done if at in wanted][:3] == wanted


def test_symbolic_links_in_a_workspace_are_not_followed(pool: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("precious")
    pool.visit()
    writer = pool.path(1) / "scitex/writer"
    (writer / "link").symlink_to(outside)
    (writer / "file").symlink_to(outside / "precious.txt")
    erase(writer / "01_manuscript")
    (writer / "01_manuscript").symlink_to(outside)
    assert "directory-blocked" in codes(pool.info(), "visitor-001")
    pool.end(1)
    deep = writer
    for _ in range(300):
        deep = deep / "deeper"
    deep.mkdir(parents=True)
    pool.well(state="expired")
    pool.is_whole()
    assert (outside / "precious.txt").read_text() == "precious"
    assert os.listdir(outside) == ["precious.txt"]


def test_a_link_in_the_place_of_a_directory_leads_nowhere(pool: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "writer").mkdir(parents=True)
    pool.visit()
    erase(pool.path(1) / "scitex")
    (pool.path(1) / "scitex").symlink_to(outside)
    [blocked] = [at for at in pool.info()["findings"] if at["code"] == "directory-blocked"]
    assert (blocked["subject"], blocked["severity"]) == ("visitor-001", "warning")
    assert "scitex is no directory" in blocked["message"]
    assert not pool.call().get("failed"), "what a visitor does to his workspace fails the deploy"
    assert os.listdir(outside / "writer") == []
    (outside / "writer/01_manuscript").mkdir()
    (outside / "writer/01_manuscript/x").write_text("x")
    assert "workspace-missing" in codes(pool.info(), "visitor-001"), "what is elsewhere is no workspace"


@pytest.mark.parametrize("row", [True, False])
def test_what_stands_in_the_place_of_a_free_slot_is_told_of_before_it_goes(pool: World, row: bool) -> None:
    """Check mode foretells that failure, too. Of a slot without a row nothing is known, so it waits for a reset."""
    place = pool.root / "visitor-002"
    erase(place)
    place.write_text("precious")
    if not row:
        pool.lose("allocation", 2)
    foretold, result = pool.call(check=True, diff=True), pool.call(diff=True)
    assert told(foretold) == told(result)
    assert [at[:2] for at in told(result)] == ([("quarantine-slot", "visitor-002")] if row else [])
    for at in (foretold, result):
        assert (at["failed"], at["changed"]) == (True, row)
        assert "visitor-002 is no directory" in at["msg"]
        assert {"directory-blocked", "slot-not-made"} <= set(codes(at, "visitor-002"))
    assert foretold["diff"] == result["diff"]
    assert place.read_text() == "precious"
    [blocked] = [at for at in result["findings"] if at["code"] == "directory-blocked"]
    assert ("puts a clean slot in its place" in blocked["remedy"]) == row
    if not row:
        assert pool.call()["failed"]
    pool.well(**({} if row else {"state": "reset", "slots": [2]}))
    pool.is_whole()


def test_who_is_quicker_keeps_his_slot(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between look and claim a lease that had ended is somebody else's."""
    pool.sql("UPDATE project_app_visitorallocation SET is_active = true WHERE visitor_number = 2")
    pool.sql("UPDATE project_app_visitorallocation SET session_key = 'old' WHERE visitor_number = 2")
    pool.end(2)
    real = records.Records.turn

    def turn(self: Any, leases: Any, *words: Any) -> set[int]:
        pool.sql("UPDATE project_app_visitorallocation SET session_key = 'new' WHERE visitor_number = 2")
        pool.save(2, "new.txt", "of the new one")
        return real(self, leases, *words)

    monkeypatch.setattr(records.Records, "turn", turn)
    result = run("visitor_pool", pool.given(state="expired"))
    assert not result.get("failed")
    assert not result["changed"]
    assert codes(result, "visitor-002") == ["slot-busy", "lease-ended"]
    assert (pool.path(2) / "scitex/writer/new.txt").read_text() == "of the new one"
    assert pool.row(2)["session_key"] == "new"


# -- reset ------------------------------------------------------------------------------------------------------------


def test_a_reset_really_clears(pool: World) -> None:
    for _ in range(2):
        pool.visit()
    pool.save(1, "leftover.txt", "x")
    (pool.root / "visitor-002/another").mkdir()
    pool.lose("directory", 4)
    [(user,)] = pool.sql("SELECT id FROM auth_user WHERE username = 'visitor-002'")
    pool.sql(
        "INSERT INTO project_app_project"
        " (owner_id, name, slug, description, created_at, updated_at, writer_initialized)"
        " VALUES (%s, 'x', 'another', '', %s, %s, false)",
        [user, datetime.now(timezone.utc), datetime.now(timezone.utc)],
    )
    result = pool.well(state="reset")
    assert result["cleared"] == 4
    assert counts(result) == {"allocatable": 4}
    pool.is_whole()
    assert not list(pool.root.rglob("leftover.txt"))
    assert not (pool.root / "visitor-002/another").exists()
    assert len(pool.sql("SELECT 1 FROM project_app_project")) == 4


def test_a_reset_of_some(pool: World) -> None:
    for _ in range(3):
        pool.visit()
        pool.save(1, "draft.txt", "x")
    rows = [pool.row(at) for at in (1, 3)]
    assert told(pool.well(state="reset", slots=[2])) == [("clear-slot", "visitor-002", "reset was asked for")]
    assert [pool.row(at) for at in (1, 3)] == rows
    pool.end(3)
    assert told(pool.well(state="reset", expired_only=True)) == [("clear-slot", "visitor-003", "reset was asked for")]
    assert pool.row(1) == rows[0]


@pytest.mark.parametrize("slots", [[0], [5], [-1], [1, 99]])
def test_a_bad_number_fails(pool: World, slots: list[int]) -> None:
    before = pool.snapshot()
    result = pool.call(state="reset", slots=slots)
    assert result["failed"]
    assert not result["changed"]
    assert "slot-unknown" in codes(result)
    assert pool.snapshot() == before


@pytest.mark.parametrize("state", ["reset", "expired"])
def test_a_number_that_is_a_persons_fails(pool: World, state: str) -> None:
    pool.sql("UPDATE auth_user SET is_superuser = true WHERE username = 'visitor-002'")
    before = pool.snapshot()
    result = pool.call(state=state, slots=[1, 2])
    assert (result["failed"], result["changed"], "slot-unknown" in codes(result)) == (True, False, True)
    assert "its user is a superuser" in result["msg"]
    assert pool.snapshot() == before


def test_production_is_not_reset_by_accident(pool: World) -> None:
    pool.visit()
    before = pool.snapshot()
    for check, environment in itertools.product(
        (True, False), ("production", "prod", "Production", "PROD", " Production\n")
    ):
        result = pool.call(check=check, state="reset", environment=environment)
        assert result["failed"]
        assert not result["changed"]
        assert "force: true" in result["msg"]
    assert pool.snapshot() == before
    assert pool.well(state="reset", environment="production", force=True)["cleared"] == 4


# -- draining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "code", "action"),
    [
        ("directory", "directory-missing", "create-directory"),
        ("workspace", "workspace-missing", "create-workspace"),
        ("flag", "project-flag-wrong", "mark-project"),
    ],
)
def test_what_a_visitor_loses_while_the_slot_drains_is_made_and_it_goes_on_draining(
    pool: World, lost: str, code: str, action: str
) -> None:
    for _ in range(2):
        pool.visit()
    pool.well(size=1)
    row = pool.row(2)
    pool.lose(lost, 2)
    assert {"slot-draining", code} <= set(codes(pool.info(size=1)))
    assert [at[:2] for at in told(pool.well(size=1))] == [(action, "visitor-002")]
    pool.is_whole(2)
    assert pool.row(2) == row
    assert pool.sql("SELECT is_active FROM auth_user WHERE username = 'visitor-002'") in ([(False,)], [(0,)])
