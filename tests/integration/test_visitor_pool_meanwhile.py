# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` beside an application that goes on meanwhile, and rows and disks that are not as they should
be. Nothing of a visitor's is lost, nothing unclean is handed out, and what cannot be known is not guessed."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, opening, reconcile, records
from tests.support.pools import PROJECT, World, make_template, now, run, sqlite
from tests.support.stacks import contract


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    kind = request.param
    database = sqlite(tmp_path / "app.db") if kind == "sqlite" else request.getfixturevalue("pool_server").database()
    database.make()
    (tmp_path / "users").mkdir(mode=0o750)
    yield World(database, tmp_path / "users", make_template(tmp_path / "template"), size=3)
    database.close()


@pytest.fixture
def pool(world: World) -> World:
    world.well()
    return world


def codes(result: dict[str, Any], subject: str | None = None) -> list[str]:
    return [at["code"] for at in result["findings"] if subject in (None, at["subject"])]


def just_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: Callable[[], None]) -> None:
    """Has something happen once, when the module is about to do `name`."""
    real, todo = getattr(owner, name), [what]

    def go(*words: Any, **keys: Any) -> Any:
        if todo:
            todo.pop()()
        return real(*words, **keys)

    monkeypatch.setattr(owner, name, go)


def enter(world: World, number: int) -> None:
    """The application makes a slot of its own accord."""
    name = f"visitor-{number:03d}"
    world.sql(
        "INSERT INTO auth_user (password, is_superuser, username, last_name, email, is_staff, is_active, date_joined,"
        " first_name) VALUES ('!x', false, %s, '', '', false, true, %s, '')",
        [name, now()],
    )
    give_project(world, name)
    world.save(number, "01_manuscript/abstract.tex", "An abstract.")
    world.sql(
        "INSERT INTO project_app_visitorallocation (visitor_number, session_key, allocation_token, allocated_at,"
        " expires_at, is_active) VALUES (%s, '', %s, %s, %s, false)",
        [number, f"{number:064d}", now(), now()],
    )


def give_project(world: World, user: str) -> None:
    world.sql(
        "INSERT INTO project_app_project (owner_id, name, slug, description, created_at, updated_at,"
        " writer_initialized) SELECT id, %s, %s, '', %s, %s, true FROM auth_user WHERE username = %s",
        [PROJECT, PROJECT, now(), now(), user],
    )


def called(world: World, **options: Any) -> dict[str, Any]:
    """A run during which others change things, too."""
    result = run("visitor_pool", world.given(**options))
    contract(result)
    return result


def fill_disk(path: Path, chunk: int) -> None:
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * chunk)


def theses(world: World) -> list[str]:
    return [str(path.relative_to(world.root)) for path in world.root.rglob("thesis.tex")]


# -- what happens between the look and the deed -----------------------------------------------------------------------


def test_the_application_seeds_at_the_same_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded() -> None:
        for number in (1, 2, 3):
            enter(world, number)
        visit = world.visit()
        assert visit is not None
        world.save(visit[0], "thesis.tex", "precious")

    just_before(monkeypatch, reconcile.Pool, "run", seeded)
    result = called(world)
    assert not result.get("failed"), result["msg"]
    assert theses(world) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
    assert "slot-busy" in codes(result)
    world.is_whole()


def test_the_application_seeds_while_directories_are_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded() -> None:
        for number in (1, 2, 3):
            enter(world, number)
        assert world.visit()
        world.save(1, "thesis.tex", "precious")

    just_before(monkeypatch, reconcile.Pool, "_in_database", seeded)
    result = called(world)
    assert not result.get("failed"), result["msg"]
    assert theses(world), "a directory that the application has taken for its own was removed"
    world.is_whole()


def test_a_visitor_saves_while_the_directory_is_made(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.visit()
    pool.lose("directory", 1)
    just_before(monkeypatch, reconcile.Pool, "run", lambda: bool(pool.save(1, "thesis.tex", "precious")))
    result = called(pool)
    assert theses(pool)
    assert "slot-busy" in codes(result, "visitor-001")
    assert not pool.call().get("failed")
    pool.is_whole()
    assert theses(pool)


def test_a_visitor_saves_while_the_workspace_is_made(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.visit()
    pool.lose("workspace", 1)
    just_before(monkeypatch, disk, "put", lambda: bool(pool.save(1, "thesis.tex", "precious")))
    called(pool)
    assert theses(pool)


@pytest.mark.parametrize("module", ["visitor_pool", "visitor_pool_info"])
def test_a_transfer_ends_and_the_next_visitor_comes_while_we_look(
    pool: World, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    assert pool.visit()
    alice = pool.sign_up("alice")
    mine = "(SELECT id FROM auth_user WHERE username = 'visitor-001')"
    pool.sql(f"UPDATE project_app_project SET owner_id = %s WHERE owner_id = {mine}", [alice])
    pool.sql("UPDATE project_app_visitorallocation SET session_key = 'shipshape:resetting' WHERE visitor_number = 1")
    (pool.root / "alice").mkdir()
    os.rename(pool.path(1), pool.root / "alice" / PROJECT)

    def rebuilt() -> None:
        try:
            give_project(pool, "visitor-001")
        except Exception:  # SQLite lets no writer in while somebody reads; then the order is another
            return
        pool.save(1, "01_manuscript/abstract.tex", "An abstract.")
        pool.sql(
            "UPDATE project_app_visitorallocation SET session_key = '', is_active = false WHERE visitor_number = 1"
        )
        assert pool.visit()
        pool.save(1, "thesis.tex", "of the next one")

    if pool.database.kind == "sqlite":
        pool.sql("PRAGMA busy_timeout = 0")
    just_before(monkeypatch, records.Records, "leases", rebuilt)
    result = run(module, pool.given())
    contract(result)
    assert "lease-phantom" not in codes(result)
    if pool.database.kind == "postgresql":
        assert theses(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
        assert pool.row(1)["is_active"]


def test_a_lease_that_is_mended_before_it_is_ended(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.visit()
    pool.save(1, "thesis.tex", "precious")
    pool.lose("project", 1)
    just_before(monkeypatch, reconcile.Pool, "run", lambda: give_project(pool, "visitor-001"))
    result = called(pool)
    assert theses(pool)
    assert "slot-busy" in codes(result, "visitor-001")


@pytest.mark.parametrize(
    ("how", "owner", "name"),
    [("ln -s", reconcile.Pool, "run"), ("mount --bind", reconcile.Pool, "run"), ("ln -s", opening.Opened, "provide")],
)
def test_one_pool_under_two_names(
    pool: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, owner: Any, name: str
) -> None:
    """The second run waits for the first one, whatever path it has come by, and before tables are made."""
    other = tmp_path / "other"
    if how.startswith("mount"):
        other.mkdir()
    subprocess.run([*how.split(), pool.root, other], check=True)
    refused: list[str] = []

    def second() -> None:
        monkeypatch.setattr("ansible_collections.shipshape.deploy.plugins.module_utils.pool.operate._PATIENCE", 0.1)
        result = run("visitor_pool", pool.given(data_root=str(other), state="expired"))
        refused.extend(codes(result))

    just_before(monkeypatch, owner, name, second)
    pool.lose("directory", 2)
    try:
        assert not called(pool).get("failed")
    finally:
        subprocess.run(["umount", other], check=how.startswith("mount"), capture_output=True)
    assert refused == ["deploy-running"]


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


# -- transfers that were not brought to their end ---------------------------------------------------------------------


def interrupted(pool: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A transfer killed after the directory was moved and before the commit; the options to run it again."""
    visit = pool.visit()
    assert visit is not None
    pool.save(1, "thesis.tex", "precious")
    pool.sign_up("alice")
    options = {"state": "transferred", "slot": 1, "session_key": visit[1], "token": visit[2], "to_user": "alice"}

    class Killed(BaseException):
        pass

    def killed(root: Any, source: str, target: str) -> None:
        real(root, source, target)
        raise Killed

    real = disk.Root.move
    with monkeypatch.context() as patch:
        patch.setattr(disk.Root, "move", killed)
        with pytest.raises(Killed):
            run("visitor_pool", pool.given(**options))
    assert theses(pool) == ["alice/default-project/scitex/writer/thesis.tex"]
    return options


@pytest.mark.parametrize("state", ["present", "expired", "transferred"])
def test_the_visitor_goes_on_before_an_interrupted_transfer_is_healed(
    pool: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    options = interrupted(pool, monkeypatch)
    pool.save(1, "01_manuscript/abstract.tex", "a workspace of the application's, with a sentence in it")
    result = pool.call(**(options if state == "transferred" else {"state": state}))
    assert not result.get("failed"), result["msg"]
    assert "transfer-two-projects" in codes(result)
    owner = "alice" if state == "transferred" else "visitor-001"
    assert theses(pool) == [f"{owner}/default-project/scitex/writer/thesis.tex"]
    if state != "transferred":
        kept = [path for path in pool.path(1).parent.iterdir() if path.name != PROJECT]
        assert "a sentence in it" in (kept[0] / "scitex/writer/01_manuscript/abstract.tex").read_text()


def test_one_transfer_that_is_stuck_keeps_nobody_from_the_other_slots(
    pool: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(pool, monkeypatch)
    pool.path(1).parent.rmdir()
    pool.path(1).parent.write_text("in its way")
    pool.visit()
    pool.end(2)
    result = pool.call(state="expired")
    assert result["failed"]
    assert "transfer-stuck" in codes(result, "visitor-001")
    assert not pool.row(2)["is_active"], "slot 2 was not freed"
    assert theses(pool) == ["alice/default-project/scitex/writer/thesis.tex"]


@pytest.mark.parametrize("moved", [False, True])
def test_the_mark_of_an_earlier_lease_moves_nothing(pool: World, moved: bool) -> None:
    """Of a transfer that was killed before its rename, or whose work is nobody's now."""
    alice = pool.root / "alice"
    (alice / PROJECT).mkdir(parents=True) if moved else alice.mkdir()
    (alice / ".from-visitor-001").touch()
    old = now() - timedelta(hours=3)
    os.utime(alice / ".from-visitor-001", (old.timestamp(), old.timestamp()))
    pool.visit()
    pool.lose("directory", 1)
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert ("transfer-mark-old" in codes(result)) == moved
    assert (alice / PROJECT).exists() == moved
    assert (alice / ".from-visitor-001").exists() == moved
    pool.is_whole()


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


def test_descriptors_are_given_back(pool: World) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert not pool.call(state="reset").get("failed")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
