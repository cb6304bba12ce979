# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` killed in each of its states, at each system call that changes something: one more run heals.

strace kills a process of its own before the n-th call of a kind: what is done to the disk, to SQLite's file, or sent to
PostgreSQL. Then nobody's work is lost, and no slot on offer holds somebody else's. One run of the same call later the
pool is whole, and the next run finds nothing to do. (The integration tests do the like by exceptions: quick, but there
the connections, locks and half-written files of the killed one live on.)
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.modules import ModuleCall
from tests.support.pools import MARKER, TABLES, World, erase, make_template, sqlite

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user"),
]

CHANGING = (
    *("rename", "renameat", "renameat2", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "symlinkat"),
    *("chown", "fchown", "fchownat", "fchmod", "fchmodat", "ftruncate", "fsync", "fdatasync", "write", "pwrite64"),
    "sendto",
)
# What is only read is left out: a kill before that is a kill before the next call that changes something.
CHANGING_SQL = re.compile(r"BEGIN|COMMIT|INSERT|UPDATE|DELETE")
# The moment that decides. Just before it the disk is ahead of the database.
COMMIT = re.compile(r"COMMIT|-journal")
APPLICATION = (10001, 10002)


class Place(NamedTuple):
    """A system call, the how manieth of its name, and whether it commits a transaction."""

    name: str
    number: int
    commits: bool


class Scene:
    """A pool of three slots before the call that is killed. Visitor 2 keeps his slot, whatever is done to the others;
    visitor 1 moves or has to go; `former` is what nobody may find afterwards."""

    def __init__(self, world: World, state: str) -> None:
        self.world, self.state = world, state
        self.offered = inside("default-project/scitex/writer", texts(world.template))
        self.leases: dict[int, tuple[str, str]] = {}
        self.former: set[bytes] = set()
        os.chown(world.root, *APPLICATION)
        world.well()
        self.visit(1)
        self.visit(2)
        self.options = {"state": state, **ARRANGE[state](self)}
        for path in world.root.rglob("*"):
            os.chown(path, *APPLICATION, follow_symlinks=False)
        self.kept = self._saved_by(2)
        self.moving = self._project("visitor-001")
        self._rows = world.database.dump()
        self._copy = world.root.with_name("copy")
        subprocess.run(["cp", "-a", world.root, self._copy], check=True)

    def visit(self, number: int) -> None:
        """Somebody takes a slot, and works in it."""
        found = self.world.visit()
        assert found is not None
        assert found[0] == number
        self.leases[number] = found[1:]
        self.world.save(number, "sections/abstract.tex", f"new of visitor {number}").chmod(0o604)
        self.world.save(number, "README.md", f"changed by visitor {number}")
        (self.world.path(number) / "scitex/writer/sections/link").symlink_to("abstract.tex")

    def leave(self, *numbers: int) -> None:
        self.former |= {work for number in numbers for work in works(number)}

    def restore(self) -> None:
        """All is as it was before the call."""
        erase(self.world.root)
        subprocess.run(["cp", "-a", self._copy, self.world.root], check=True)
        for name in reversed(TABLES):
            self.world.sql(f"DELETE FROM {name}")
        for name in TABLES:
            for row in self._rows[name]:
                self.world.sql(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(row))})", row)

    # -- the module as a process of its own -------------------------------------------------------------------------

    def places(self) -> list[Place]:
        """Each call of an undisturbed run that changes something, in order."""
        self.restore()
        log = self.world.root.with_name("strace.log")
        code, out = self._run("-o", str(log), "-e", f"trace={','.join(f'?{name}' for name in CHANGING)}")
        assert code == 0, out
        self._is_healed()
        made: Counter[str] = Counter()
        found, threads = [], set()
        for thread, name, words in re.findall(r"^(\d+) +(\w+)\((.*)", log.read_text(errors="replace"), re.MULTILINE):
            made[name] += 1
            threads.add(thread)
            if name != "sendto" or CHANGING_SQL.search(words):
                found.append(Place(name, made[name], bool(COMMIT.search(words))))
        assert len(threads) == 1, "strace counts by thread"
        return found

    def killed(self, place: Place) -> None:
        name, number, _commits = place
        self.restore()
        code, out = self._run(
            "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"
        )
        assert code == -signal.SIGKILL, f"not killed: {code} {out}"
        self._nothing_is_lost()
        self._nothing_is_shown()
        result = self.world.call(**self.options)
        assert not result.get("failed"), result["msg"]
        self._is_healed()
        again = self.world.call()  # not the same call: a reset clears again what is clean
        assert (again["changed"], again.get("failed", False)) == (False, False), again

    def _run(self, *words: str) -> tuple[int, str]:
        strace = ["strace", "-f", "-qq", "-s", "100", *words]
        env = {"PYTHONDONTWRITEBYTECODE": "1"}  # which would be other calls each time
        process = ModuleCall("visitor_pool", self.world.given(**self.options), env=env, prefix=strace).process
        out, err = process.communicate(timeout=120)
        if self.world.database.kind == "postgresql":
            self._sessions_end()
        return process.returncode, (out + err).decode()

    def _sessions_end(self) -> None:
        """The server does what it was sent by a client that is gone, and only then lets go of its locks."""
        gc.collect()  # the sessions of runs in this process
        text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        deadline = time.monotonic() + 20
        while self.world.sql(f"{text} AND backend_type = 'client backend'") != [(0,)]:
            assert time.monotonic() < deadline, "the session of a process that was killed goes on"
            time.sleep(0.01)

    # -- what must be true ------------------------------------------------------------------------------------------

    def _nothing_is_lost(self) -> None:
        """Who keeps his slot has all that he saved; who moves has it once, at the one place or at the other."""
        assert self._holds(2)
        assert self.kept.items() <= self._saved_by(2).items(), "work of somebody who was not concerned"
        if self.state != "transferred":
            return
        for work in works(1):
            assert len(self._copies(work)) == 1, self._copies(work)
        moved = self._copies(works(1)[0])[0].startswith("alice/")
        assert self._project("alice" if moved else "visitor-001") == self.moving
        held, owned = self._holds(1), self._owned("alice")
        assert held == (not owned), f"the lease holds: {held}; the account owns {owned}"
        assert held or moved, "his work is in a slot that is not his any more"

    def _nothing_is_shown(self) -> None:
        """A slot that can be had holds the template, and nothing else."""
        for number, taken in self.world.sql("SELECT visitor_number, is_active FROM project_app_visitorallocation"):
            name = f"visitor-{number:03d}"
            if not taken and self.world.sql("SELECT 1 FROM auth_user WHERE username = %s AND is_active", [name]):
                assert texts(self.world.root / name) == self.offered, f"{name} is on offer"

    def _is_healed(self) -> None:
        """All is as after a run that was not killed."""
        self.world.is_whole()
        self._nothing_is_lost()
        self._nothing_is_shown()
        numbers = range(1, self.world.size + 1)
        for number in numbers:
            row = self.world.row(number)
            assert number == 2 or (row["session_key"], bool(row["is_active"])) == ("", False), (number, row)
        names = {f"visitor-{number:03d}" for number in numbers}
        if self.state == "transferred":
            names.add("alice")
            assert self._owned("alice") == [("default-project", True)]
        assert set(os.listdir(self.world.root)) == names
        assert {name for (name,) in self.world.sql("SELECT username FROM auth_user")} == names
        assert self.world.sql("SELECT count(*) FROM project_app_project") == [(len(names),)]
        assert self.world.sql("SELECT count(*) FROM project_app_visitorallocation") == [(self.world.size,)]
        assert [path for work in self.former for path in self._copies(work)] == []
        self._is_the_applications()

    def _is_the_applications(self) -> None:
        """It is no superuser: what has another owner or another mode is of no use to it."""
        files = self.world.files()
        assert {path: about[1:3] for path, about in files.items() if about[1:3] != APPLICATION} == {}
        folders = {path: about[0] for path, about in files.items() if stat.S_ISDIR(about[0]) and "sections" not in path}
        assert set(folders.values()) == {files["."][0]}, folders

    def _holds(self, number: int) -> bool:
        session, token = self.leases[number]
        row = self.world.row(number)
        seen = (row["session_key"], row["allocation_token"], bool(row["is_active"]))
        return seen == (session, hashlib.sha256(token.encode()).hexdigest(), True)

    def _owned(self, name: str) -> list[tuple[str, bool]]:
        text = "SELECT slug, writer_initialized FROM project_app_project JOIN auth_user u ON u.id = owner_id"
        return [(slug, bool(flag)) for slug, flag in self.world.sql(f"{text} WHERE username = %s", [name])]

    def _project(self, name: str) -> dict[str, Any]:
        found = self.world.files(f"{name}/default-project")
        return {path: about for path, about in found.items() if path != "."}

    def _saved_by(self, number: int) -> dict[str, Any]:
        """A visitor's files, with mode, owner and time; his directories may be added to."""
        found = self.world.files(f"visitor-{number:03d}")
        return {path: about for path, about in found.items() if not stat.S_ISDIR(about[0])}

    def _copies(self, content: bytes) -> list[str]:
        return [path for path, held in texts(self.world.root).items() if held == content]


def works(number: int) -> tuple[bytes, bytes]:
    """What visitor `number` has written."""
    return b"new of visitor %d" % number, b"changed by visitor %d" % number


def texts(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def inside(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{path}": content for path, content in files.items()}


# -- the states: what there is to do, and the options of the call -----------------------------------------------------


def transferred(scene: Scene) -> dict[str, Any]:
    scene.world.sign_up("alice")
    session, token = scene.leases[1]
    return {"slot": 1, "session_key": session, "token": token, "to_user": "alice"}


def expired(scene: Scene) -> dict[str, Any]:
    scene.visit(3)
    scene.world.end(1)
    scene.world.end(3)
    scene.leave(1, 3)
    return {}


def reset(scene: Scene) -> dict[str, Any]:
    """One lease that holds and one that has ended."""
    scene.visit(3)
    scene.world.end(3)
    scene.leave(1, 3)
    return {"slots": [1, 3]}


def present(scene: Scene) -> dict[str, Any]:
    """A lease of nobody, a slot without an account in which files lie, a damaged workspace in use, and growth."""
    scene.visit(3)
    scene.world.sql("UPDATE project_app_visitorallocation SET session_key = '' WHERE visitor_number = 1")
    scene.world.sql("UPDATE project_app_visitorallocation SET is_active = false WHERE visitor_number = 3")
    scene.world.lose("user", 3)
    erase(scene.world.path(2) / MARKER)
    scene.world.lose("flag", 2)
    scene.leave(1, 3)
    scene.world.size = 4
    return {}


ARRANGE: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "transferred": transferred,
    "expired": expired,
    "reset": reset,
    "present": present,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(ARRANGE))
def scene(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    made = sqlite(tmp_path / "app.db") if kind == "sqlite" else request.getfixturevalue("pool_server").database()
    made.make()
    (tmp_path / "users").mkdir(mode=0o750)
    yield Scene(World(made, tmp_path / "users", make_template(tmp_path / "template"), size=3), request.param)
    made.close()


def some(every: list[Place], count: int) -> list[Place]:
    """Those that commit, the last one, and others between them, evenly; not the first, for nothing was done before."""
    commits = [place for place in every if place.commits]
    others = [place for place in every if not place.commits]
    count -= len(commits)
    return commits + [others[at * (len(others) - 1) // count] for at in range(1, count + 1)]


def killed_at(scene: Scene, places: list[Place]) -> None:
    place = places[0]
    try:
        for place in places:
            scene.killed(place)
    except Exception as error:
        error.add_note(f"killed at {place}")
        raise


def test_killed_at_some_calls(scene: Scene, kind: str) -> None:
    every = scene.places()
    assert len(every) > 40, f"the calls were not seen: {every}"
    assert any(place.commits for place in every)
    killed_at(scene, some(every, 8 if kind == "sqlite" else 4))


@pytest.mark.long
def test_killed_at_every_call(scene: Scene) -> None:
    killed_at(scene, scene.places())
