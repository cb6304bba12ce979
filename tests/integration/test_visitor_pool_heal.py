# SPDX-License-Identifier: GPL-3.0-or-later
"""What killed transfers have left, in pools where the world has gone on since: nobody's work reaches anybody else, what
cannot be settled is said and left, and keeps nobody from the other slots."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import data_root, disk, journals, transfer
from tests.support.pools import PROJECT, World, now, run, told

ABSTRACT = "01_manuscript/abstract.tex"


class KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def pool(three: World) -> World:
    three.well()
    return three


def codes(result: dict[str, Any]) -> list[str]:
    return [at["code"] for at in result["findings"]]


def where(pool: World, name: str = "thesis.tex") -> list[str]:
    return sorted(str(path.relative_to(pool.root)) for path in pool.root.rglob(name))


def begin(pool: World) -> dict[str, Any]:
    """A visitor with work, and the transfer that he is about to be given."""
    visit = pool.visit()
    assert visit is not None
    pool.save(1, "thesis.tex", "private work of A")
    pool.sign_up("alice")
    return {"state": "transferred", "slot": 1, "session_key": visit[1], "token": visit[2], "to_user": "alice"}


def killed(pool: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool) -> dict[str, Any]:
    options = begin(pool)
    real = getattr(owner, name)

    def kill(*words: Any) -> Any:
        if after:
            real(*words)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(KilledError):
            run("visitor_pool", pool.given(**options))
    return options


def in_between(pool: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Killed when the directory is the account's, and the database has not been told."""
    return killed(pool, monkeypatch, disk.Root, "move", after=True)


def free(pool: World) -> None:
    """The application frees and clears slot 1 by itself."""
    table = "project_app_visitorallocation"
    pool.sql(
        f"UPDATE {table} SET is_active = false, session_key = '', expires_at = %s WHERE visitor_number = 1", [now()]
    )
    pool.save(1, ABSTRACT, "An abstract.")


def mark(pool: World) -> None:
    """What an application's own transfer leaves when it is killed half-way."""
    account = pool.root / "alice"
    account.mkdir()
    pool.path(1).rename(account / PROJECT)
    (account / ".from-visitor-001").touch()


ALICES = ["alice/default-project/scitex/writer/thesis.tex"]


def test_the_next_visitor_never_gets_it(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    options = in_between(pool, monkeypatch)
    free(pool)
    other = pool.visit()
    assert other is not None
    assert other[0] == 1
    pool.save(1, "b.tex", "work of B")
    for state in ("present", "expired", "present"):
        foretold = pool.call(check=True, state=state)
        result = pool.call(state=state)
        assert not result.get("failed"), result["msg"]
        assert told(foretold) == told(result) == []
        [finding] = [at for at in result["findings"] if at["code"] == "transfer-mark-old"]
        assert finding["subject"] == "alice"
        assert "transfer-1.json" in finding["remedy"]
        assert where(pool) == ALICES
        assert where(pool, "b.tex") == ["visitor-001/default-project/scitex/writer/b.tex"]
    # Nobody else's transfer of that slot hides it.
    pool.sign_up("bob")
    its_visitors = {**options, "session_key": other[1], "token": other[2], "to_user": "bob"}
    for asked in (options, its_visitors):
        refused = pool.call(**asked)
        assert refused["failed"]
        assert "transfer-refused" in codes(refused)
        assert where(pool) == ALICES
    # Settled by hand, all is well.
    (pool.root / "alice" / PROJECT).rename(pool.root / "settled")
    (pool.root / ".visitor-pool/transfer-1.json").unlink()
    assert "transfer-mark-old" not in codes(pool.well())


def test_a_project_that_the_account_has_made_itself_stays_its_own(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before anything was moved; what lies there since then is no visitor's."""
    killed(pool, monkeypatch, disk.Root, "move", after=False)
    own = pool.root / "alice" / PROJECT / "own.tex"
    own.parent.mkdir(parents=True)
    own.write_text("alice's own")
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert own.read_text() == "alice's own"
    assert where(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
    assert not (pool.root / ".visitor-pool").exists()


def test_a_move_that_fails_is_as_if_it_had_not_been_asked_for(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    options = begin(pool)
    before = pool.snapshot()

    def fails(*_words: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(disk.Root, "move", fails)
        result = pool.call(**options)
    assert (result["failed"], result["changed"], "transfer-failed" in codes(result)) == (True, False, True)
    assert pool.snapshot() == before
    assert not (pool.root / ".visitor-pool").exists()
    assert not (pool.root / "alice").exists()


def test_an_account_that_was_renamed_since(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(pool, monkeypatch, journals, "end", after=False)
    assert pool.visit()[0] == 1  # type: ignore[index]
    pool.sql("UPDATE auth_user SET username = 'alice2' WHERE username = 'alice'")
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert where(pool) == ALICES


@pytest.mark.parametrize("key", ["shipshape:quarantined", "shipshape:resetting"])
def test_a_mark_of_a_slot_that_is_no_visitors_now(pool: World, key: str) -> None:
    begin(pool)
    mark(pool)
    pool.sql("UPDATE project_app_visitorallocation SET session_key = %s WHERE visitor_number = 1", [key])
    result = pool.call()
    assert not result.get("failed"), result["msg"]
    assert "transfer-mark-old" in codes(result)
    assert where(pool) == ALICES


def test_what_the_visitor_did_meanwhile_comes_along(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    options = in_between(pool, monkeypatch)
    pool.save(1, ABSTRACT, "made by the application")
    pool.save(1, "second.tex", "hours of work")
    result = pool.call(**options)
    assert not result.get("failed"), result["msg"]
    assert where(pool) == ALICES
    [kept] = where(pool, "second.tex")
    assert kept.startswith("alice/default-project.")
    [finding] = [at for at in result["findings"] if at["code"] == "transfer-two-projects"]
    assert "/".join(kept.split("/")[:2]) in finding["message"]
    assert not pool.well()["changed"]


def test_a_slot_that_drains_goes_with_its_transfer(pool: World) -> None:
    visits = [pool.visit() for _ in range(3)]
    assert visits[2] is not None
    pool.call(size=2)
    pool.sign_up("alice")
    options = {"state": "transferred", "slot": 3, "session_key": visits[2][1], "token": visits[2][2]}
    foretold = pool.call(check=True, size=2, to_user="alice", **options)
    result = pool.call(size=2, to_user="alice", **options)
    assert told(foretold) == told(result)
    assert told(result)[-1][:2] == ("remove-slot", "visitor-003")
    assert pool.visit(size=3) is None
    assert not pool.call(size=2)["changed"]


@pytest.mark.parametrize("journal", [True, False])
def test_the_slots_directory_is_gone(pool: World, monkeypatch: pytest.MonkeyPatch, journal: bool) -> None:
    if journal:
        in_between(pool, monkeypatch)
    else:
        begin(pool)
        mark(pool)
    pool.path(1).parent.rmdir()
    pool.visit()
    pool.end(2)
    result = pool.call(state="expired")
    assert not result.get("failed"), result["msg"]
    assert result["cleared"] == 1
    assert where(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]


def test_one_that_cannot_be_healed_keeps_nobody_from_the_others(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(pool)
    mark(pool)
    pool.visit()
    pool.end(2)
    place = pool.path(1).parent
    place.rmdir()
    place.write_text("in the way")
    for check in (True, False):
        result = pool.call(state="expired", check=check)
        assert check or result["failed"]
    assert result["cleared"] == 1
    assert not pool.row(2)["is_active"]
    assert where(pool) == ALICES
    place.unlink()
    assert not pool.call().get("failed")
    assert where(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]


def test_one_that_cannot_be_brought_to_its_end(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(pool, monkeypatch, transfer.Transfer, "_finish", after=False)
    pool.visit()
    pool.end(2)
    place = pool.path(1).parent
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)  # nothing can be renamed away from there
    try:
        result = pool.call(state="expired")
        assert result["failed"]
        assert (result["cleared"], pool.row(2)["is_active"]) == (1, False)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert not pool.call().get("failed")
    assert where(pool) == ALICES


def test_check_mode_foretells_what_is_left_alone(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (pool.root / "alice" / PROJECT).mkdir(parents=True)
    (pool.root / "alice/.from-visitor-001").touch()
    foretold, result = pool.call(check=True), pool.call()
    assert told(foretold) == told(result) == []
    assert "transfer-mark-old" in codes(foretold)
    assert os.listdir(pool.root / "alice/default-project") == []


def test_check_mode_foretells_what_is_healed(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    in_between(pool, monkeypatch)
    foretold, result = pool.call(check=True), pool.call()
    assert told(foretold) == told(result)
    assert [action for action, _, _ in told(result)] == ["heal-transfer"]


def test_a_transfer_that_ends_while_somebody_looks(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    in_between(pool, monkeypatch)
    real = data_root.DataRoot.inode

    def gone(root: data_root.DataRoot, *parts: str) -> int:
        if parts[-1].startswith("transfer-"):
            (pool.root / ".visitor-pool" / parts[-1]).unlink()
        return real(root, *parts)

    monkeypatch.setattr(data_root.DataRoot, "inode", gone)
    result = run("visitor_pool_info", pool.given())
    assert not result.get("failed"), result["msg"]
    assert "transfer-unfinished" not in codes(result)


FORGED: dict[str, Any] = {
    "slot": 1, "user": "visitor-001", "to": "alice", "inode": 1, "project_id": 1, "made": True, "proof": "", "lease": ""
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        json.dumps({**FORGED, "to": "../elsewhere"}),
        json.dumps({**FORGED, "user": ".."}),
        json.dumps({**FORGED, "slot": 2}),
        json.dumps({**FORGED, "inode": "x"}),
        json.dumps({"slot": 1}),
        "fifo",
        "link",
    ],
)
def test_a_journal_that_somebody_else_has_written(pool: World, text: str) -> None:
    """Containers can write in data_root; what they put there leads root nowhere, and stops no other slot."""
    pool.visit()
    pool.save(1, "thesis.tex", "precious")
    pool.visit()
    pool.end(2)
    place = pool.root / ".visitor-pool/transfer-1.json"
    place.parent.mkdir()
    if text == "fifo":
        os.mkfifo(place)
    elif text == "link":
        outside = pool.root.with_name("outside")
        outside.write_text(json.dumps(FORGED))
        place.symlink_to(outside)
    else:
        place.write_text(text)
    elsewhere = pool.root.with_name("elsewhere") / PROJECT
    elsewhere.mkdir(parents=True)
    result = pool.call(state="expired")
    assert result["failed"]
    assert "transfer-journal-unreadable" in codes(result)
    assert result["cleared"] == 1
    assert elsewhere.is_dir()
    assert where(pool) == ["visitor-001/default-project/scitex/writer/thesis.tex"]
    place.unlink()
    assert not pool.call().get("failed")


def test_one_that_cannot_be_healed_is_not_begun_anew(pool: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says where the work is."""
    options = in_between(pool, monkeypatch)
    journal = pool.root / ".visitor-pool/transfer-1.json"
    before = pool.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(disk.Root, "move", lambda *_words: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        result = pool.call(**options)
    assert (result["failed"], told(result), journal.exists()) == (True, [], True)
    assert pool.snapshot() == before
    foretold = pool.call(check=True, **options)  # what comes after, only a run can know
    assert (foretold.get("failed"), [at[0] for at in told(foretold)]) == (None, ["heal-transfer"])
    result = pool.call(**options)
    assert not result.get("failed"), result["msg"]
    assert where(pool) == ["alice/default-project/scitex/writer/thesis.tex"]


@pytest.mark.parametrize("name", ["../alice", ".visitor-pool", "visitor-003"])
def test_an_account_that_is_no_persons_gets_nothing(pool: World, name: str) -> None:
    """Though it is there and has no project: one leads out of data_root, one is our own, one is a slot's."""
    options = begin(pool)
    if name == "visitor-003":
        for artefact in ("project", "directory"):
            pool.lose(artefact, 3)
    else:
        pool.sign_up(name)
    before = pool.snapshot()
    result = pool.call(**{**options, "to_user": name})
    assert (result["failed"], result["changed"], "transfer-refused" in codes(result)) == (True, False, True)
    assert pool.snapshot() == before
    assert not (pool.root.parent / "alice").exists()
