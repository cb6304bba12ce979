# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` beside an application that goes on meanwhile, and after a transfer that was killed. Nothing of
a visitor's is lost, and what cannot be known is not guessed."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import disk, opening, reconcile, rows
from tests.support.pools import PROJECT, World, now, run
from tests.support.stacks import contract
from tests.support.worlds import codes, enter, give_project, just_before, theses


@pytest.fixture
def world(three: World) -> World:
    return three


def called(world: World, **options: Any) -> dict[str, Any]:
    """A run during which others change things, too."""
    result = run("visitor_pool", world.given(**options))
    contract(result)
    return result


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
    just_before(monkeypatch, rows.Rows, "leases", rebuilt)
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


def test_a_slot_that_somebody_else_begins_to_clean_is_not_offered(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something else of it is mended, by an application that knows nothing of the locks."""
    pool.visit()
    pool.lose("flag", 1)

    def begun() -> None:
        pool.sql(
            "UPDATE project_app_visitorallocation SET session_key = 'shipshape:resetting' WHERE visitor_number = 1"
        )

    just_before(monkeypatch, reconcile.Pool, "_in_database", begun)
    assert not run("visitor_pool", pool.given()).get("failed")
    assert (pool.row(1)["session_key"], bool(pool.row(1)["is_active"])) == ("shipshape:resetting", True)
