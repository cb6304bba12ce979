# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` hands a project over, and is killed at each step of what it does: one more run heals."""

from __future__ import annotations

import contextlib
import gc
import hmac
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils._internal._json import _profiles

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, postgresql, records, sqlite, transfer
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.store import Change
from tests.support.pools import MEMORY, World, make_template, run, told
from tests.support.pools import sqlite as sqlite_database


@pytest.fixture(params=["sqlite", "postgresql"])
def pool(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = request.param
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        top = Path(name)
        made = (
            sqlite_database(top / "app.db") if kind == "sqlite" else request.getfixturevalue("pool_server").database()
        )
        made.make()
        (top / "users").mkdir(mode=0o750)
        world = World(made, top / "users", make_template(top / "template"), size=3)
        world.well()
        yield world
        made.close()


class Visitor:
    """Somebody with a slot, some work, and an account that he has just made."""

    def __init__(self, pool: World, name: str = "alice") -> None:
        self.pool, self.name = pool, name
        visit = pool.visit()
        assert visit is not None
        self.slot, self.session, self.token = visit
        self.work = pool.save(self.slot, "sections/abstract.tex", f"work of {name}")
        self.work.chmod(0o604)
        (self.work.parent / "link").symlink_to("abstract.tex")
        self.account = pool.sign_up(name)
        self.files = pool.files(f"visitor-{self.slot:03d}/default-project")

    @property
    def options(self) -> dict[str, Any]:
        return {
            "state": "transferred",
            "slot": self.slot,
            "session_key": self.session,
            "token": self.token,
            "to_user": self.name,
        }

    def has_it_all(self) -> None:
        assert without_top(self.pool.files(f"{self.name}/default-project")) == without_top(self.files)
        rows = self.pool.sql(
            "SELECT slug, writer_initialized FROM project_app_project WHERE owner_id = %s", [self.account]
        )
        assert [(slug, bool(flag)) for slug, flag in rows] == [("default-project", True)]

    def still_holds_it(self) -> None:
        assert without_top(self.pool.files(f"visitor-{self.slot:03d}/default-project")) == without_top(self.files)
        row = self.pool.row(self.slot)
        assert (row["session_key"], bool(row["is_active"])) == (self.session, True)
        assert self.pool.sql("SELECT 1 FROM project_app_project WHERE owner_id = %s", [self.account]) == []


def without_top(files: dict[str, Any]) -> dict[str, Any]:
    return {path: about for path, about in files.items() if path != "."}


def test_a_project_moves_whole_and_the_slot_is_made_anew(pool: World) -> None:
    visitor = Visitor(pool)
    others = {path: at for path, at in pool.files().items() if path.startswith(("visitor-002", "visitor-003"))}
    result = pool.call(check=True, **visitor.options)
    done = pool.call(**visitor.options)
    assert not done.get("failed"), done["msg"]
    assert told(result) == told(done)
    assert [at[0] for at in told(done)] == ["transfer-project", "clear-slot", "create-project"]
    visitor.has_it_all()
    pool.is_whole()
    assert not (pool.path(1) / "scitex/writer/sections").exists()
    assert others.items() <= pool.files().items()
    row = pool.row(1)
    assert (row["session_key"], bool(row["is_active"])) == ("", False)
    assert visitor.token not in str(done)
    again = pool.well(**visitor.options)  # whoever did not get the answer asks once more
    assert not again["changed"]
    bob = pool.sign_up("bob")
    pool.sql("UPDATE project_app_project SET owner_id = %s WHERE owner_id = %s", [bob, visitor.account])
    refused(pool, **{**visitor.options, "to_user": "bob"})  # who was never given it
    pool.sql("DELETE FROM project_app_project WHERE owner_id = %s", [bob])
    assert pool.call(**visitor.options)["failed"], "what was once done is not so any more"


WRONG: list[tuple[str, Callable[[Visitor], dict[str, Any]]]] = [
    ("forged", lambda at: {"token": "0" * 64}),
    ("truncated", lambda at: {"token": at.token[:-1]}),
    ("no text", lambda at: {"token": at.token[:-1] + "\udcff"}),
    ("session that is no text", lambda at: {"session_key": "\ud800"}),
    ("empty", lambda at: {"token": ""}),
    ("stored", lambda at: {"token": at.pool.row(at.slot)["allocation_token"]}),
    ("other session", lambda at: {"session_key": "f" * 32}),
    ("other slot", lambda at: {"slot": 2}),
    ("no slot", lambda at: {"slot": 99}),
    ("our own session", lambda at: {"session_key": "shipshape:resetting"}),
    ("path", lambda at: {"to_user": "../alice"}),
    ("hidden", lambda at: {"to_user": ".visitor-pool"}),
    ("a slot", lambda at: {"to_user": "visitor-003"}),
    ("nobody", lambda at: {"to_user": "bob"}),
]


@pytest.mark.parametrize("wrong", [at[1] for at in WRONG], ids=[at[0] for at in WRONG])
def test_nobody_else_gets_it(
    pool: World, wrong: Callable[[Visitor], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a target nobody looks whether options are text. Where the controller's code is loaded, as for other tests of
    # the same process, it would.
    monkeypatch.setattr(_profiles, "_string_encoding_check_enabled", lambda: False)
    visitor = Visitor(pool)
    pool.visit()
    before = pool.snapshot()
    result = pool.call(**{**visitor.options, **wrong(visitor)})
    assert result["failed"]
    assert not result["changed"]
    assert pool.snapshot() == before


def refused(pool: World, **options: Any) -> None:
    before = pool.snapshot()
    result = pool.call(**options)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "transfer-refused" in {at["code"] for at in result["findings"]}
    assert pool.snapshot() == before


def test_a_lease_that_has_ended_moves_nothing(pool: World) -> None:
    visitor = Visitor(pool)
    pool.end(visitor.slot)
    refused(pool, **visitor.options)


@pytest.mark.parametrize("change", ["is_superuser = true", "is_staff = true", "password = 'pbkdf2$x'"])
def test_what_an_operator_has_made_his_own_is_not_given_away(pool: World, change: str) -> None:
    visitor = Visitor(pool)
    pool.sql(f"UPDATE auth_user SET {change} WHERE username = 'visitor-001'")
    refused(pool, **visitor.options)


# Rows of which no visitor can be the owner, where tokens are kept as they are: what the row says can be shown to it.
NOBODYS = [
    ("is_active = false", {}),
    ("allocation_token = ''", {"token": ""}),
    ("session_key = ''", {"session_key": ""}),
    ("session_key = 'shipshape:quarantined'", {"session_key": "shipshape:quarantined"}),
]


@pytest.mark.parametrize(("change", "shown"), NOBODYS, ids=[at[0] for at in NOBODYS])
def test_a_row_that_is_nobodys_moves_nothing(pool: World, change: str, shown: dict[str, str]) -> None:
    pool.options = {"schema": {"token": "plain"}}
    visitor = Visitor(pool)
    pool.sql("UPDATE project_app_visitorallocation SET allocation_token = %s WHERE visitor_number = 1", [visitor.token])
    pool.sql(f"UPDATE project_app_visitorallocation SET {change} WHERE visitor_number = 1")
    refused(pool, **{**visitor.options, **shown})
    if not shown:
        pool.sql("UPDATE project_app_visitorallocation SET is_active = true WHERE visitor_number = 1")
        assert not pool.call(**visitor.options).get("failed")


def test_a_lease_whose_end_cannot_be_read_moves_nothing(pool: World) -> None:
    if pool.database.kind == "postgresql":
        pytest.skip("PostgreSQL's own types keep other things out")
    visitor = Visitor(pool)
    pool.sql("UPDATE project_app_visitorallocation SET expires_at = 'next week' WHERE visitor_number = 1")
    refused(pool, **visitor.options)


def test_a_project_that_is_somebody_elses_by_now_is_not_given_away(
    pool: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(pool)
    bob = pool.sign_up("bob")
    real = records.Records.give

    def give(self: Any, *words: Any) -> bool:
        self.store.update("project_app_project", "id", [Change({"id": words[0]}, {"owner_id": bob})])
        return real(self, *words)

    monkeypatch.setattr(records.Records, "give", give)
    result = run("visitor_pool", pool.given(**visitor.options))
    assert "transfer-refused" in {at["code"] for at in result["findings"]}
    visitor.still_holds_it()


def test_what_is_shown_is_compared_in_constant_time(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token and session key each, also when there is nothing to compare with."""
    visitor = Visitor(pool)
    compared: list[Any] = []
    real = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(transfer.hmac, "compare_digest", compare)
    for wrong in ({"token": "0" * 64}, {"session_key": "f" * 32}, {"slot": 2}, {"slot": 99}):
        compared.clear()
        refused(pool, **{**visitor.options, **wrong})
        assert len(compared) == 2, wrong
        assert visitor.token not in str(compared)


@pytest.mark.parametrize("where", ["disk", "database", "link"])
def test_an_existing_project_is_never_overwritten(pool: World, where: str, tmp_path: Path) -> None:
    visitor = Visitor(pool)
    if where == "disk":
        (pool.root / "alice/default-project").mkdir(parents=True)
        (pool.root / "alice/default-project/mine.txt").write_text("mine")
    elif where == "link":
        (pool.root / "alice").symlink_to(tmp_path)
    else:
        pool.sql(
            "INSERT INTO project_app_project"
            " (owner_id, name, slug, description, created_at, updated_at, writer_initialized)"
            " VALUES (%s, 'x', 'default-project', '', %s, %s, true)",
            [visitor.account, datetime.now(timezone.utc), datetime.now(timezone.utc)],
        )
    before = pool.snapshot()
    result = pool.call(**visitor.options)
    assert result["failed"]
    code = "transfer-refused" if where == "link" else "transfer-target-exists"
    assert code in {at["code"] for at in result["findings"]}
    assert pool.snapshot() == before
    assert not (pool.root / ".visitor-pool").exists() or os.listdir(pool.root / ".visitor-pool") == []


@pytest.mark.parametrize("committed", [False, True])
def test_what_the_applications_own_transfer_has_left(pool: World, committed: bool) -> None:
    """It marks the account's directory before it moves anything, and takes the mark away after its commit."""
    visitor = Visitor(pool)
    account = pool.root / "alice"
    account.mkdir()
    (account / ".from-visitor-001").touch()
    pool.path(1).rename(account / "default-project")
    if committed:
        pool.sql("UPDATE project_app_project SET owner_id = %s WHERE owner_id ="
                 " (SELECT id FROM auth_user WHERE username = 'visitor-001')", [visitor.account])  # fmt: skip
        pool.sql(
            "UPDATE project_app_visitorallocation SET session_key = 'shipshape:resetting' WHERE visitor_number = 1"
        )
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    pool.is_whole()
    if committed:
        visitor.has_it_all()
    else:
        visitor.still_holds_it()
    assert told(result)[0][:2] == ("heal-transfer", "visitor-001")
    assert not (account / ".from-visitor-001").exists()


# A step is some runs of the module, and there are many: all but the quickest of these are for `make faults`.
ON_BOTH = pytest.mark.parametrize("pool", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
BEFORE_AND_AFTER = pytest.mark.parametrize(
    "after", [pytest.param(False, id="before"), pytest.param(True, id="after", marks=pytest.mark.long)]
)


class Killed(BaseException):
    """Not an Exception: nothing in the code under test may catch it, as nothing catches a SIGKILL."""


class Steps:
    """Ends the process, so to speak, at the n-th thing that it does to disk or database: before it, or just after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.after = 0, -1, False
        for module, name in (
            (disk.os, "rename"), (disk.os, "mkdir"), (disk.os, "unlink"), (disk.os, "rmdir"), (disk.os, "fsync"),
            (records.Records, "turn"), (records.Records, "give"), (records.Records, "free"),
            (records.Records, "add_projects"), (records.Records, "remove_projects"),
            (sqlite.SqliteStore, "update"), (postgresql.PostgresqlStore, "update"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self._stepping(getattr(module, name)))

    def _stepping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **keys: Any) -> Any:
            if self.at < 0:
                return real(*words, **keys)
            self.count += 1
            if self.count == self.at and not self.after:
                raise Killed
            found = real(*words, **keys)
            if self.count == self.at:
                raise Killed
            return found

        return step

    def kill(self, world: World, at: int, after: bool, **options: Any) -> bool:
        """Whether there was such a step; False when it had come to its end before."""
        self.count, self.at, self.after = 0, at, after
        with contextlib.suppress(Killed):
            run("visitor_pool", world.given(**options))
        self.at = -1
        return self.count >= at


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def reopened(pool: World) -> None:
    """A killed process's connections are closed by the system; in here nobody closes them but the collector."""
    gc.collect()


@ON_BOTH
@BEFORE_AND_AFTER
def test_a_transfer_killed_at_each_step(pool: World, steps: Steps, after: bool) -> None:
    at = 0
    while True:
        at += 1
        visitor = Visitor(pool, f"user{at}")
        killed = steps.kill(pool, at, after, **visitor.options)
        reopened(pool)
        if not killed:
            visitor.has_it_all()
            break
        text = [path for path in pool.root.rglob("abstract.tex") if path.read_text() == f"work of user{at}"]
        assert len(text) == 1, f"step {at}: {text}"
        if at % 2:
            result = pool.call()  # whatever runs next heals
            assert not result.get("failed"), f"step {at}: {result['msg']}"
            owned = pool.sql("SELECT 1 FROM project_app_project WHERE owner_id = %s", [visitor.account])
            visitor.has_it_all() if owned else visitor.still_holds_it()
            if not owned:
                assert not pool.call(**visitor.options).get("failed"), f"step {at}"
        else:
            assert not pool.call(check=True, **visitor.options).get("failed"), f"step {at}"
            result = pool.call(**visitor.options)
            assert not result.get("failed"), f"step {at}: {result['msg']}"
        visitor.has_it_all()
        pool.is_whole()
        assert not pool.call()["changed"]
    assert at > 20, "the steps were not seen"


@pytest.mark.parametrize("state", ["expired", "reset", "present"])
@ON_BOTH
@BEFORE_AND_AFTER
def test_the_other_states_killed_at_each_step(pool: World, steps: Steps, state: str, after: bool) -> None:
    at = 0
    while True:
        at += 1
        visit = pool.visit()
        assert visit is not None
        pool.save(visit[0], "secret.txt", "of the one before")
        if state == "present":
            pool.lose("user", 2)
            pool.lose("workspace", 3)
            pool.sql("UPDATE project_app_visitorallocation SET session_key = '' WHERE visitor_number = 1")
        else:
            pool.end(visit[0])
        killed = steps.kill(pool, at, after, state=state)
        reopened(pool)
        offered = [number for number in range(1, 4) if _is_offered(pool, number)]
        for number in offered:
            assert not (pool.path(number) / "scitex/writer/secret.txt").exists(), f"step {at}: {number} is not clean"
        result = pool.call(state=state)
        assert not result.get("failed"), f"step {at}: {result['msg']}"
        pool.is_whole()
        assert not list(pool.root.rglob("secret.txt")), f"step {at}"
        assert not pool.call()["changed"], f"step {at}"
        if not killed:
            break
    assert at > 5, "the steps were not seen"


def _is_offered(pool: World, number: int) -> bool:
    rows = pool.sql("SELECT is_active FROM project_app_visitorallocation WHERE visitor_number = %s", [number])
    return bool(rows) and not rows[0][0]
