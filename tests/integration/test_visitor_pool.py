# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` on SQLite and a real PostgreSQL: seeding, repair, size, how full it
is. Every call is checked for what must be true of any: see tests/support/pools.py."""

from __future__ import annotations

import itertools
import os
import stat
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.support.pools import World, erase, run, told
from tests.support.worlds import codes, counts

ARTEFACTS = ["user", "project", "directory", "workspace", "allocation", "flag"]
PAIRS = [*itertools.combinations(ARTEFACTS, 2)]


# -- seeding ----------------------------------------------------------------------------------------------------------


def test_a_pool_is_seeded_once(world: World) -> None:
    empty = world.info()
    assert (empty["slots"]["total"], empty["slots"]["absent"]) == (0, 4)
    assert empty["cause"] == "unprovisioned"
    assert "state: present" in empty["remedy"]
    result = world.well()
    assert told(result) == [("create-slot", f"visitor-{at:03d}", "nothing of it is there") for at in range(1, 5)]
    assert counts(result) == {"allocatable": 4}
    world.is_whole()
    again = world.well()
    assert (again["changed"], again["actions"], again["findings"]) == (False, [], [])
    assert world.info()["cause"] == ""


def test_entries_have_owner_and_mode_of_data_root(pool: World) -> None:
    for path, (mode, uid, gid, _when, _held) in pool.files().items():
        assert (uid, gid) == (10001, 10002), path
        runs = path.endswith("compile.sh")
        assert stat.S_IMODE(mode) == (0o750 if stat.S_ISDIR(mode) or runs else 0o640), path
    assert (pool.path(2) / "scitex/writer/01_manuscript/abstract.tex").read_text() == "An abstract.\n"


def test_no_password_and_no_token_fits(pool: World) -> None:
    passwords = {password for (password,) in pool.sql("SELECT password FROM auth_user")}
    assert len(passwords) == 4
    assert all(at.startswith("!") and len(at) == 41 for at in passwords)
    tokens = {pool.row(at)["allocation_token"] for at in range(1, 5)}
    assert len(tokens) == 4
    assert all(len(at) == 64 for at in tokens)


def test_an_undersized_pool_hands_out_no_more_than_it_has(world: World) -> None:
    world.well(size=2)
    assert [bool(world.visit()) for _ in range(4)] == [True, True, False, False]
    found = world.info(size=2)
    assert (counts(found), found["cause"]) == ({"leased": 2}, "saturated")
    assert len(world.sql("SELECT 1 FROM project_app_visitorallocation")) == 2


# -- repair -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [[at] for at in ARTEFACTS] + [list(at) for at in PAIRS], ids="-".join)
def test_what_is_lost_is_named_and_made_again(pool: World, lost: list[str]) -> None:
    number = 3
    others = {path: about for path, about in pool.files().items() if not path.startswith("visitor-003") and path != "."}
    for artefact in lost:
        pool.lose(artefact, number)
    seen = pool.info()
    assert seen["health"] == "degraded"
    assert {at["subject"] for at in seen["findings"]} == {"visitor-003"}
    for artefact in lost:
        named = "project-flag-wrong" if artefact == "flag" else f"{artefact}-missing"
        # A flag that is not there cannot be wrong, and one that says no is right when there is nothing on disk.
        assert named in codes(seen) or (artefact == "flag" and set(lost) & set(ARTEFACTS[:4])), codes(seen)
    result = pool.well()
    assert {at["target"] for at in result["actions"]} == {"visitor-003"}
    assert result["findings"] == []
    assert result["health"] == "ok"
    pool.is_whole()
    left = {path: about for path, about in pool.files().items() if not path.startswith("visitor-003") and path != "."}
    assert left == others
    assert not pool.well()["changed"]


def test_two_directories_of_many(world: World) -> None:
    """R12: projects whose directories are gone; those two are made, and nothing else is touched."""
    world.size = 32
    world.well()
    for number in (5, 17):
        world.lose("directory", number)
    lost = ("visitor-005", "visitor-017", ".")
    others = {path: about for path, about in world.files().items() if not path.startswith(lost)}
    result = world.well()
    assert [at[:2] for at in told(result)] == [("create-directory", "visitor-005"), ("create-directory", "visitor-017")]
    assert {path: about for path, about in world.files().items() if not path.startswith(lost)} == others
    world.is_whole()


def test_a_leased_slot_is_only_added_to(pool: World) -> None:
    visit = pool.visit()
    assert visit is not None
    number, session, _token = visit
    kept = pool.save(number, "notes.txt", "mine")
    erase(pool.path(number) / "scitex/writer/01_manuscript")
    row = pool.row(number)
    assert counts(pool.info()) == {"allocatable": 3, "leased": 1}
    result = pool.well()
    assert told(result) == [("create-workspace", "visitor-001", "it is missing")]
    assert kept.read_text() == "mine"
    assert pool.row(number) == row
    assert row["session_key"] == session
    pool.is_whole()


def test_a_flag_that_says_too_much(pool: World) -> None:
    erase(pool.path(2) / "scitex/writer/01_manuscript")
    (pool.path(2) / "scitex/writer/01_manuscript").mkdir()
    assert codes(pool.info(), "visitor-002") == ["workspace-missing", "project-flag-wrong"]
    pool.well()
    pool.is_whole()


def test_leftovers_of_a_wiped_database_are_not_reused(pool: World) -> None:
    pool.save(2, "leftover.txt", "somebody's")
    for table in ("project_app_visitorallocation", "project_app_project", "auth_user"):
        pool.sql(f"DELETE FROM {table}")
    found = pool.info()
    assert (counts(found), found["cause"]) == ({"missing": 4}, "unprovisioned")
    pool.well()
    pool.is_whole()
    assert not list(pool.root.rglob("leftover.txt"))


@pytest.mark.parametrize("slot", [1, 3])
def test_one_visit_before_seeding(world: World, slot: int) -> None:
    world.sql(
        "INSERT INTO project_app_visitorallocation"
        " (visitor_number, session_key, allocation_token, allocated_at, expires_at, is_active)"
        " VALUES (%s, 'abc', 'def', %s, %s, true)",
        [slot, datetime.now(timezone.utc), datetime(2999, 1, 1, tzinfo=timezone.utc)],
    )
    seen = world.info()
    assert counts(seen) == {"missing": 1}
    assert "lease-phantom" in codes(seen)
    assert counts(world.well()) == {"allocatable": 4}
    world.is_whole()
    assert [world.visit() is not None for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize("change", ["session_key = ''", "allocation_token = ''"])
def test_leases_that_no_session_can_own(pool: World, change: str) -> None:
    pool.visit()
    pool.save(1, "secret.txt", "of the visitor before")
    pool.sql(f"UPDATE project_app_visitorallocation SET {change} WHERE visitor_number = 1")
    assert "lease-phantom" in codes(pool.info(), "visitor-001")
    assert counts(pool.well()) == {"allocatable": 4}
    assert not list(pool.root.rglob("secret.txt"))


def test_real_people_are_not_touched(world: World) -> None:
    for name, change in (
        ("visitor-001", "is_superuser = true"),
        ("visitor-002", "is_staff = true"),
        ("visitor-003", ""),
    ):
        world.sign_up(name)
        if change:
            world.sql(f"UPDATE auth_user SET {change}, password = '!x' WHERE username = %s", [name])
    people = world.sql("SELECT * FROM auth_user ORDER BY id")
    (world.root / "visitor-003/default-project").mkdir(parents=True)
    (world.root / "visitor-003/default-project/thesis.tex").write_text("years of work")
    result = world.well(size=4)
    assert told(result) == [("create-slot", "visitor-004", "nothing of it is there")]
    assert codes(result) == ["user-not-a-visitor"] * 3
    assert world.well(state="reset")["cleared"] == 1
    assert world.call(state="reset", slots=[3])["failed"]
    world.well(size=0)
    assert world.sql("SELECT * FROM auth_user ORDER BY id") == people
    assert (world.root / "visitor-003/default-project/thesis.tex").read_text() == "years of work"
    assert os.listdir(world.root / "visitor-003/default-project") == ["thesis.tex"]


def test_an_account_that_became_a_persons_is_not_handed_out(pool: World) -> None:
    pool.sql("UPDATE auth_user SET is_superuser = true WHERE username = 'visitor-001'")
    result = pool.well()
    assert told(result) == [("quarantine-slot", "visitor-001", "its user is a superuser")]
    assert result["diff"]["after"] == "visitor-001: quarantined\n"
    assert result["slots"]["total"] == 3
    visit = pool.visit()
    assert visit is not None
    assert visit[0] == 2


# -- what cannot be made ----------------------------------------------------------------------------------------------


def test_a_slot_that_cannot_be_made_leaves_no_halves(world: World) -> None:
    (world.root / "visitor-002").write_text("something else")
    result = world.call()
    assert result["failed"]
    assert "visitor-002" in result["msg"]
    assert counts(result) == {"allocatable": 3, "missing": 1}
    assert world.sql("SELECT username FROM auth_user WHERE username = 'visitor-002'") == []
    assert (world.root / "visitor-002").read_text() == "something else"
    (world.root / "visitor-002").unlink()
    world.well()
    world.is_whole()


def test_a_slot_that_cannot_be_repaired_is_not_handed_out(pool: World, tmp_path: Path) -> None:
    erase(pool.root / "visitor-001")
    (pool.root / "visitor-001").symlink_to(tmp_path)
    result = pool.call()
    assert result["failed"]
    assert counts(result) == {"allocatable": 3, "quarantined": 1}
    visit = pool.visit()
    assert visit is not None
    assert visit[0] == 2
    # It was kept back because of that link, which the next run replaces by a clean slot.
    assert pool.well()["cleared"] == 1
    assert not (pool.root / "visitor-001").is_symlink()
    assert tmp_path.is_dir()
    pool.is_whole()


def test_a_database_that_refuses_one_slot(world: World) -> None:
    if world.database.kind == "sqlite":
        world.sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON auth_user WHEN NEW.username = 'visitor-003'"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    else:
        world.sql("ALTER TABLE auth_user ADD CONSTRAINT refuse CHECK (username <> 'visitor-003')")
    result = world.call()
    assert result["failed"]
    assert "visitor-003" in result["msg"]
    assert counts(result) == {"allocatable": 3}
    assert not (world.root / "visitor-003").exists()
    assert not (world.root / ".visitor-pool").exists()


# -- size -------------------------------------------------------------------------------------------------------------


def test_growing_over_live_leases(pool: World) -> None:
    visits = [pool.visit() for _ in range(4)]
    assert pool.visit() is None
    rows = [pool.row(at) for at in range(1, 5)]
    files = {path: about for path, about in pool.files().items() if path != "."}
    result = pool.well(size=8)
    assert counts(result) == {"allocatable": 4, "leased": 4}
    assert [pool.row(at) for at in range(1, 5)] == rows
    assert files.items() <= pool.files().items()
    fifth = pool.visit(size=8)
    assert fifth is not None
    assert fifth[0] == 5
    assert None not in visits
    pool.is_whole(8)


def test_shrinking_drains(pool: World) -> None:
    pool.sql("UPDATE project_app_visitorallocation SET is_active = true WHERE visitor_number < 4")
    visit = pool.visit()
    assert visit is not None
    assert visit[0] == 4
    pool.sql("UPDATE project_app_visitorallocation SET is_active = false WHERE visitor_number < 4")
    kept = pool.save(4, "draft.txt", "still at it")
    result = pool.well(size=2)
    assert told(result) == [(f"{what}-slot", name, "the pool has 2 slots") for what, name in
                            (("remove", "visitor-003"), ("drain", "visitor-004"))]  # fmt: skip
    assert pool.sql("SELECT username FROM auth_user WHERE NOT is_active") == [("visitor-004",)]
    assert counts(result) == {"allocatable": 2, "leased": 1}
    assert codes(result) == ["slot-draining"]
    assert kept.read_text() == "still at it"
    assert not (pool.root / "visitor-003").exists()
    pool.end(4)
    assert told(pool.well(size=2)) == [("remove-slot", "visitor-004", "the pool has 2 slots")]
    assert sorted(os.listdir(pool.root)) == ["visitor-001", "visitor-002"]
    assert len(pool.sql("SELECT 1 FROM auth_user")) == len(pool.sql("SELECT 1 FROM project_app_visitorallocation")) == 2


# -- how full it is ---------------------------------------------------------------------------------------------------


def test_the_alert_is_raised_once_and_cleared(world: World) -> None:
    world.size = 5
    world.well()
    for _ in range(4):
        world.visit()
    assert world.info()["alert"] == {"active": False, "raised": False, "cleared": False}  # exactly 80 %
    world.visit()
    given = {**world.given(), "state_dir": f"{world.root}-state"}
    assert run("visitor_pool_info", given, check=True)["alert"]["raised"], "and check mode remembers nothing"
    assert world.info()["alert"] == {"active": True, "raised": True, "cleared": False}
    found = world.info()
    assert found["alert"] == {"active": True, "raised": False, "cleared": False}
    assert (found["utilisation"], found["cause"], found["health"]) == (1.0, "saturated", "degraded")
    assert "pool-nearly-full" in codes(found)
    world.end(1)
    assert world.info()["alert"] == {"active": False, "raised": False, "cleared": True}
    assert world.info()["alert"] == {"active": False, "raised": False, "cleared": False}


def test_a_size_of_nothing(world: World) -> None:
    assert world.well(size=0)["slots"]["total"] == 0
    found = world.info(size=0)
    assert (found["utilisation"], found["alert"]["active"]) == (0.0, False)
