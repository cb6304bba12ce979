# SPDX-License-Identifier: GPL-3.0-or-later
"""The example's visitor pool as plain Compose runs it, and what the module says of it: figures of the seed, literally.

One stack for all; each test begins with the pool that it asks for.
"""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.pools import run
from tests.support.studios import Studio, deployed, until

ROWS = "SELECT * FROM project_app_visitorallocation ORDER BY visitor_number"


class Pool:
    """The stack's pool. `folder` is where its data root is on this machine."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        mounts = studio.container("web")["Mounts"]
        self.folder = next(Path(at["Source"]) for at in mounts if at["Destination"] == "/data/users")

    def manage(self, *words: str, check: bool = True) -> tuple[int, str]:
        command = ["exec", "-T", "web", "python", "manage.py", *words]
        done = self.studio.compose(*command, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.returncode, done.stdout

    def make(self, size: int) -> None:
        """A pool of just that size, in which nobody is."""
        self.manage("reset_visitor_pool", "--force")
        self.manage("create_visitor_pool", "--size", str(size))
        assert self.status() == {"total": size, "allocated": 0, "free": size, "expired": 0}

    def status(self) -> dict[str, int]:
        [seen] = [
            at for at in self.events(self.manage("create_visitor_pool", "--status")[1]) if at["event"] == "status"
        ]
        return {name: seen[name] for name in ("total", "allocated", "free", "expired")}

    def visits(self, count: int) -> list[int]:
        """The status that each of so many new browsers gets."""
        return [self._visit() for _ in range(count)]

    def _visit(self) -> int:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        try:
            return int(browser.open(f"{self.studio.url}/writer/", timeout=15).status)
        except urllib.error.HTTPError as error:
            return error.code

    def rows(self) -> list[str]:
        """Straight from the database."""
        words = ["psql", "-qtAX", "-U", "studio", "-d", "studio", "-c", ROWS]
        return self.studio.compose("exec", "-T", "db", *words).stdout.splitlines()

    def files(self) -> dict[str, tuple[int, int, int]]:
        found = [self.folder, *sorted(self.folder.rglob("*"))]
        seen = [(str(path.relative_to(self.folder)), path.lstat()) for path in found]
        return {name: (at.st_ino, at.st_mode, at.st_mtime_ns) for name, at in seen}

    def info(self, **options: Any) -> dict[str, Any]:
        asked = {"service": "web", "data_service": "web", "data_root": "/data/users"}
        source = {"project_src": str(self.studio.folder), "project_name": self.studio.name}
        found = run("visitor_pool_info", {**source, **asked, **options})
        assert not found.get("failed"), found["msg"]
        return found

    def events(self, text: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run("visitor_pool_info", {"parse": text})["events"]
        return found


@pytest.fixture(scope="module")
def pool(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with deployed(tmp_path_factory.mktemp("studio")) as stack:
        yield Pool(stack)


def at(container: dict[str, Any], what: str) -> datetime:
    return datetime.fromisoformat(container["State"][what][:26].rstrip("Z") + "+00:00")


def test_migrated_then_seeded_then_served_and_a_restart_repeats_nothing(pool: Pool) -> None:
    """R20: the order of a start, by the engine's own times; what was made is not made again."""
    pool.make(4)
    assert pool.visits(1) == [200]
    rows, files = pool.rows(), pool.files()
    pool.studio.compose("up", "-d", "--force-recreate", "migrate", "pool", "web")
    until(pool.studio.well)
    migrate, seeded, web = (pool.studio.container(name) for name in ("migrate", "pool", "web"))
    assert at(migrate, "FinishedAt") < at(seeded, "StartedAt")
    assert at(seeded, "FinishedAt") < at(web, "StartedAt")
    assert [seeded["State"]["ExitCode"], migrate["State"]["ExitCode"]] == [0, 0]
    assert (pool.rows(), pool.files()) == (rows, files)
    said = [event["event"] for event in pool.events(pool.studio.compose("logs", "pool").stdout)]
    assert said == ["initializing", "ready"]


def test_sixteen_slots_serve_sixteen_visits(pool: Pool) -> None:
    """R08."""
    pool.make(16)
    assert Counter(pool.visits(20)) == {200: 16, 503: 4}
    assert len(pool.rows()) == 16
    assert "High Traffic: saturated" in pool.studio.compose("logs", "--no-log-prefix", "web").stdout
    assert pool.manage("check_visitor_pool_health", check=False)[0] == 0
    pool.studio.compose("up", "-d", "--force-recreate", "pool")
    until(lambda: pool.studio.container("pool")["State"]["Status"] == "exited")
    assert pool.status() == {"total": 16, "allocated": 16, "free": 0, "expired": 0}


def test_sixty_four_over_thirty_two_leases(pool: Pool) -> None:
    """R09: the 33rd visit is served, and nobody who was there notices anything."""
    pool.make(32)
    assert Counter(pool.visits(33)) == {200: 32, 503: 1}
    rows, files = pool.rows(), pool.files()
    pool.manage("create_visitor_pool", "--size", "64")
    assert pool.rows()[:32] == rows
    assert {name: seen for name, seen in pool.files().items() if name in files and name != "."} == {
        name: seen for name, seen in files.items() if name != "."
    }
    assert pool.status() == {"total": 64, "allocated": 32, "free": 32, "expired": 0}
    assert pool.visits(1) == [200]
    assert pool.status()["allocated"] == 33


def test_two_directories_that_are_lost_are_the_two_that_are_made(pool: Pool) -> None:
    """R12."""
    pool.make(32)
    lost = ("visitor-005", "visitor-017")
    kept = {name: seen for name, seen in pool.files().items() if not name.startswith(lost) and name != "."}
    for name in lost:
        shutil.rmtree(pool.folder / name)
    code, said = pool.manage("check_visitor_pool_health", "--fix")
    assert code == 0
    assert [line.split()[1] for line in said.splitlines() if line.startswith("found")] == [f"{name}:" for name in lost]
    assert {name: seen for name, seen in pool.files().items() if not name.startswith(lost) and name != "."} == kept
    for name in lost:
        assert os.listdir(pool.folder / name / "default-project/scitex/writer/01_manuscript")


def test_command_and_module_say_the_same_and_the_log_can_be_read(pool: Pool) -> None:
    """R22, R30."""
    pool.make(8)
    pool.visits(3)
    said = pool.manage("create_visitor_pool", "--status")[1]
    seen = pool.info(size=8)
    assert seen["status_text"] == said
    assert said.startswith("\n=== Visitor Pool Status ===\nTotal slots: 8\nAllocated: 3\nFree: 5\nExpired: 0")
    assert seen["slots"]["leased"] == 3
    assert seen["health"] == "ok"
    events = pool.events(pool.studio.compose("logs", "--timestamps", "web").stdout)
    lent = [event for event in events if event["event"] == "allocated"][-3:]
    assert [(event["user"], event["slot"]) for event in lent] == [(f"visitor-00{at}", at) for at in (1, 2, 3)]
    follow = [event["event"] for event in events[-9:]]
    assert follow == ["allocated", "project-id", "project"] * 3
