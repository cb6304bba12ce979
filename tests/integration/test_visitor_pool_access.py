# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` where the application runs as somebody to whom a directory is closed:
after an image with another user, or where somebody has worked as root. The witness is the application's container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.pools import World, make_template, sqlite, told
from tests.support.stacks import Stack, service
from tests.support.worlds import codes

APP = 1234


class Closed:
    """A pool of three in a container that runs as APP."""

    def __init__(self, world: World, project: Project) -> None:
        self.world, self.project = world, project

    def start(self, **keys: Any) -> None:
        stack = Stack(self.project)
        stack.write({"web": service(**{"user": f"{APP}:{APP}", **keys}, volumes=[f"{self.world.root}:/data"])})
        self.project.compose("up", "-d", "--force-recreate", "-t", "0")
        self.world.options.update(project_src=str(self.project.folder), project_name=self.project.name)
        self.world.options.update(data_service="web", data_root="/data")

    def works(self, number: int) -> bool:
        """Whether the application can save in a slot."""
        place = f"/data/visitor-{number:03d}/default-project/scitex/writer"
        script = f"ls {place}/01_manuscript >/dev/null && echo x >{place}/probe && rm {place}/probe"
        words = ("exec", f"{self.project.name}-web-1", "sh", "-c", script)
        return self.project.engine.docker(*words, check=False).returncode == 0

    def close(self, number: int, below: str = "", mode: int = 0o700) -> Path:
        path = self.world.root / f"visitor-{number:03d}" / below
        os.chown(path, 0, 0)
        path.chmod(mode)
        return path


@pytest.fixture
def closed(project: Project, tmp_path: Path) -> Iterator[Closed]:
    database = sqlite(tmp_path / "app.db")
    database.make()
    (tmp_path / "users").mkdir()
    os.chown(tmp_path / "users", APP, APP)
    found = Closed(World(database, tmp_path / "users", make_template(tmp_path / "template"), size=3), project)
    found.start()
    found.world.well()
    assert all(found.works(number) for number in (1, 2, 3))
    yield found
    database.close()


@pytest.mark.parametrize(
    ("below", "mode"), [("", 0o700), ("default-project", 0o750), ("default-project/scitex/writer", 0o755)]
)
def test_a_slot_that_is_closed_to_the_application_is_not_counted_and_made_anew(
    closed: Closed, below: str, mode: int
) -> None:
    path = closed.close(2, below, mode)
    assert not closed.works(2)
    looked = closed.world.info()
    assert looked["slots"]["allocatable"] == 2
    assert looked["slots"]["missing"] == 1
    assert looked["health"] == "degraded"
    assert codes(looked, "visitor-002") == ["directory-denied"]
    [said] = [at["message"] for at in looked["findings"] if at["code"] == "directory-denied"]
    assert f"runs as user {APP}" in said
    assert f"{path.relative_to(closed.world.root)} is 0:0, mode {mode:04o}" in said
    others = [(closed.world.root / f"visitor-{number:03d}").stat() for number in (1, 3)]
    result = closed.world.well()
    assert [at[:2] for at in told(result)] == [("clear-slot", "visitor-002")]
    assert all(closed.works(number) for number in (1, 2, 3))
    assert others == [(closed.world.root / f"visitor-{number:03d}").stat() for number in (1, 3)]
    assert closed.world.info()["health"] == "ok"


def test_a_visitors_directory_is_not_touched(closed: Closed) -> None:
    visit = closed.world.visit()
    assert visit is not None
    number = visit[0]
    closed.world.save(number, "thesis.tex", "precious")
    closed.close(number)
    looked = closed.world.info()
    assert looked["slots"]["leased"] == 1
    [said] = [at for at in looked["findings"] if at["code"] == "directory-denied"]
    assert said["severity"] == "warning"
    assert "chown" in said["remedy"]
    assert not closed.world.call()["changed"]


def test_a_data_root_that_is_closed_fails_before_anything_is_done(closed: Closed) -> None:
    os.chown(closed.world.root, 0, 0)
    closed.world.root.chmod(0o700)
    looked = closed.world.info()
    assert looked["slots"]["allocatable"] == 0
    assert looked["health"] == "failed"
    assert codes(looked, "pool") == ["data-root-denied"]
    for check in (True, False):
        result = closed.world.call(check=check)
        assert result["failed"]
        assert not result["changed"]
        assert f"the application runs as user {APP}" in result["msg"]
        assert "chown" in result["msg"]
    os.chown(closed.world.root, APP, APP)
    assert not closed.world.well()["changed"]


def test_what_would_be_closed_is_not_made(closed: Closed) -> None:
    """The slots are open, and with owner and mode of data_root new ones would not be."""
    os.chown(closed.world.root, 0, 0)
    closed.world.root.chmod(0o755)
    assert closed.world.info()["health"] == "ok"
    assert not closed.world.well()["changed"]
    for check in (True, False):
        result = closed.world.call(check=check, size=4)
        assert result["failed"]
        assert not result["changed"]
        assert codes(result, str(closed.world.root)) == ["data-root-denied"]


def test_another_image_has_another_user(closed: Closed) -> None:
    closed.start(user="4321:4321")
    closed.world.root.chmod(0o777)
    for path in closed.world.root.rglob("*"):
        path.chmod(0o700)
    looked = closed.world.info()
    assert looked["slots"]["allocatable"] == 0
    assert looked["cause"] == "unprovisioned"
    os.chown(closed.world.root, 4321, 4321)
    assert {action for action, _, _ in told(closed.world.well())} == {"clear-slot"}
    assert all(closed.works(number) for number in (1, 2, 3))


def test_to_root_everything_is_open_unless_it_may_not(closed: Closed) -> None:
    for number in (1, 2, 3):
        (closed.world.root / f"visitor-{number:03d}").chmod(0o700)
    closed.start(user="0:0")
    assert closed.works(1)
    assert closed.world.info()["slots"]["allocatable"] == 3
    closed.start(user="0:0", cap_drop=["ALL"])
    assert not closed.works(1)
    assert closed.world.info()["slots"]["allocatable"] == 0


def test_nobody_is_judged_who_does_not_run(closed: Closed) -> None:
    closed.close(2)
    closed.project.compose("stop", "-t", "0")
    assert closed.world.info()["slots"]["allocatable"] == 3
