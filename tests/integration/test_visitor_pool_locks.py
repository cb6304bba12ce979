# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` and an application that keep out of each other's way on PostgreSQL: by the advisory locks that
the README of role visitor_pool tells of, and by changing no row that is not as it was seen."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, journals, operate, postgresql, records
from tests.support.pools import World, now, run, told
from tests.support.stacks import contract
from tests.support.worlds import codes, just_before, theses

SHIP = 1397246288
README = Path(__file__).resolve().parents[2] / "roles/visitor_pool/README.md"


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def pool(three: World) -> World:
    three.well()
    return three


def is_free(pool: World, number: int, kind: str = "") -> bool:
    """Whether another session could have the lock."""
    [(mine,)] = pool.sql(f"SELECT pg_try_advisory_lock{kind}(%s, %s)", [SHIP, number])
    if mine:
        pool.sql(f"SELECT pg_advisory_unlock{kind}(%s, %s)", [SHIP, number])
    return bool(mine)


def test_an_application_sees_who_is_at_work_and_where(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.visit()
    pool.end(1)
    seen = []

    def look() -> None:
        seen.append((is_free(pool, 0, "_shared"), is_free(pool, 1), is_free(pool, 2)))

    just_before(monkeypatch, disk.Root, "replace", look)
    just_before(monkeypatch, operate, "tell", look)  # still at work, but no longer at that slot
    assert not run("visitor_pool", pool.given(state="expired")).get("failed")
    look()
    assert seen == [(False, False, True), (False, True, True), (True, True, True)]


def test_an_application_that_is_at_work_on_the_pool_is_waited_for(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_PATIENCE", 0.3)
    pool.sql("SELECT pg_advisory_lock(%s, 0)", [SHIP])
    result = pool.call()
    assert (result["failed"], codes(result)) == (True, ["pool-busy"])
    assert not pool.call(check=True).get("failed"), "a look waits for nobody"
    pool.sql("SELECT pg_advisory_unlock(%s, 0)", [SHIP])
    assert not pool.well()["changed"]


def test_a_slot_that_was_freed_and_lent_while_it_was_cleaned_is_its_new_visitors(
    pool: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an application that knows nothing of the locks."""
    pool.visit()
    pool.end(1)

    def lent() -> None:
        pool.sql("UPDATE project_app_visitorallocation SET session_key = 'next' WHERE visitor_number = 1")

    just_before(monkeypatch, records.Records, "free", lent)
    run("visitor_pool", pool.given(state="expired"))
    assert (pool.row(1)["session_key"], pool.row(1)["is_active"]) == ("next", True)


def cut(pool: World) -> None:
    """Ends the module's session, as a server does that fails over. Its locks are gone then."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    pool.sql(f"SELECT pg_terminate_backend(pid) {others}")
    deadline = time.monotonic() + 20
    while pool.sql(f"SELECT pid {others}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("lost", [True, False])
def test_a_slot_that_was_finished_and_lent_after_our_locks_were_gone_is_its_new_visitors(
    pool: World, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    for number in (1, 2):
        pool.visit()
        pool.end(number)
    real, built = disk.Root._built, []

    def lent(*words: Any) -> str:
        found = real(*words)
        built.append(found)
        if len(built) == 2:  # the directory of slot 2 is built, and not yet in its place
            if lost:
                cut(pool)
                assert is_free(pool, 0, "_shared")
                assert is_free(pool, 2)
            pool.sql("UPDATE project_app_visitorallocation SET session_key = 'next' WHERE visitor_number = 2")
            pool.save(2, "thesis.tex", "precious")
        return found

    monkeypatch.setattr(disk.Root, "_built", lent)
    result = run("visitor_pool", pool.given(state="expired"))
    contract(result)
    assert (len(built), bool(result.get("failed"))) == (2, lost)
    assert ("database-unreachable" if lost else "slot-busy") in codes(result)
    monkeypatch.undo()
    assert not pool.call(state="expired").get("failed")
    assert theses(pool) == ["visitor-002/default-project/scitex/writer/thesis.tex"]
    assert pool.row(2)["session_key"] == "next"
    pool.is_whole()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_row_that_changes_at_this_moment_is_busy_at_every_level_of_isolation(pool: World, level: str) -> None:
    """Which the server, the database or the role may have by itself."""
    for number in (1, 2):
        pool.visit()
        pool.end(number)
    [(name,)] = pool.sql("SELECT current_database()")
    pool.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    with ThreadPoolExecutor(1) as worker, psycopg.connect(pool.database.url) as other:
        other.execute("UPDATE project_app_visitorallocation SET session_key = 'next' WHERE visitor_number = 1")
        running = worker.submit(run, "visitor_pool", pool.given(state="expired"))
        deadline = time.monotonic() + 20
        while not pool.sql("SELECT pid FROM pg_locks WHERE NOT granted"):
            assert time.monotonic() < deadline
            assert not running.done(), running.result()
            time.sleep(0.01)
        other.commit()
        result = running.result()
    assert not result.get("failed"), result["msg"]
    assert told(result) == [("clear-slot", "visitor-002", "its lease has ended")]
    assert "slot-busy" in codes(result, "visitor-001")
    assert pool.row(1)["session_key"] == "next"


def visitor(pool: World) -> dict[str, Any]:
    visit = pool.visit()
    assert visit is not None
    pool.save(1, "thesis.tex", "precious")
    pool.sign_up("alice")
    return {"state": "transferred", "slot": 1, "session_key": visit[1], "token": visit[2], "to_user": "alice"}


def test_nothing_is_moved_out_of_a_slot_that_somebody_is_at(pool: World) -> None:
    options = visitor(pool)
    pool.sql("SELECT pg_advisory_lock(%s, 1)", [SHIP])
    before = pool.snapshot()
    result = pool.call(**options)
    assert (result["failed"], codes(result)[0]) == (True, "transfer-refused")
    assert pool.snapshot() == before
    pool.sql("SELECT pg_advisory_unlock(%s, 1)", [SHIP])
    assert not pool.call(**options).get("failed")


def test_nothing_is_healed_in_a_slot_that_somebody_is_at(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    options = visitor(pool)
    with monkeypatch.context() as patch:
        patch.setattr(disk.Root, "move", lambda *_words: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run("visitor_pool", pool.given(**options))
    journal = pool.root / ".visitor-pool/transfer-1.json"
    assert journal.exists()
    assert "transfer-unfinished" in codes(pool.info(), "visitor-001")
    pool.sql("SELECT pg_advisory_lock(%s, 1)", [SHIP])
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert (told(result), "slot-busy" in codes(result, "visitor-001"), journal.exists()) == ([], True, True)
    again = pool.call(**options)  # who asks for the transfer is not told that it was done
    assert (again["failed"], "transfer-refused" in codes(again), journal.exists()) == (True, True, True)
    pool.sql("SELECT pg_advisory_unlock(%s, 1)", [SHIP])
    assert told(pool.call())[0][0] == "heal-transfer"
    assert not journal.exists()
    assert theses(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
    assert journals.SCRATCH not in {path.name for path in pool.root.iterdir()}


def lent(pool: World, session: str) -> list[int]:
    """By the very statement that the README gives to applications."""
    [statement] = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    return [number for (number,) in pool.sql(statement.replace("…", "%s"), [session, f"token {session}", now(), now()])]


def test_the_statement_of_the_readme_lends_the_lowest_free_slot_that_does_not_drain(pool: World) -> None:
    pool.sql("UPDATE auth_user SET is_active = false WHERE username = 'visitor-002'")
    assert [lent(pool, session) for session in "abc"] == [[1], [3], []]
    pool.sql("UPDATE project_app_visitorallocation SET session_key = 'left', is_active = false")
    assert lent(pool, "d") == [], "nobody has cleared them"


def test_the_statement_of_the_readme_knows_the_thousandth_slot(pool: World) -> None:
    pool.sql("UPDATE project_app_visitorallocation SET visitor_number = 1000 WHERE visitor_number = 3")
    pool.sql("UPDATE auth_user SET username = 'visitor-1000' WHERE username = 'visitor-003'")
    pool.sql("UPDATE auth_user SET username = 'visitor-100', is_active = false WHERE username = 'visitor-002'")
    assert [lent(pool, session) for session in "ab"] == [[1], [1000]]
