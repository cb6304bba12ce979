# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` with tables as public applications have them (Wagtail's pages, Oscar's wish lists): what the
setup guide's application does not have, and theirs do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pools import World
from tests.support.worlds import codes

ONE_KEY = "CREATE UNIQUE INDEX one_path ON project_app_project (path)"


def with_path(world: World, path: str) -> dict[str, Any]:
    """Each project has a path of its own, as each page of Wagtail has."""
    world.sql("ALTER TABLE project_app_project ADD COLUMN path varchar(255)")
    world.sql(ONE_KEY)
    constants = {"description": "", "created_at": "now()", "updated_at": "now()", "path": path}
    world.options["schema"] = {"token": "sha256", "projects": {"constants": constants}}
    world.well()
    visit = world.visit()
    assert visit is not None
    world.save(visit[0], "thesis.tex", "precious")
    world.sign_up("alice")
    return {"state": "transferred", "slot": visit[0], "session_key": visit[1], "token": visit[2], "to_user": "alice"}


@pytest.mark.parametrize("path", ["0001{username}", "0001/{number}"])
def test_a_project_that_keeps_what_the_slots_next_one_must_have_is_not_transferred(world: World, path: str) -> None:
    wanted = with_path(world, path)
    before = world.snapshot()
    for check in (True, False):
        result = world.call(check=check, **wanted)
        assert result["failed"]
        assert codes(result, "project_app_project.path") == ["unique-in-the-way"]
        assert "uuid()" in result["msg"]
    assert world.snapshot() == before
    assert not world.well()["changed"], "all else goes on"
    world.well(state="reset")


def test_one_that_has_another_value_for_each_is(world: World) -> None:
    wanted = with_path(world, "uuid()")
    assert not world.call(**wanted).get("failed")
    assert (world.root / "alice/default-project/scitex/writer/thesis.tex").read_text() == "precious"
    assert not world.well()["changed"]
    world.is_whole()
