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


WRONG = [
    ("users", {"email": "{username}@" + "x" * 300}, "value too long for type character varying(254)"),
    ("users", {"date_joined": "no time"}, "invalid input syntax for type timestamp with time zone"),
    ("projects", {"key": "uuid()"}, "value too long for type character varying(6)"),
    ("projects", {"created_at": "now()", "updated_at": "{number}-{number}"}, "invalid input syntax for type timestamp"),
]


@pytest.mark.parametrize(("part", "constants", "why"), WRONG)
def test_a_value_that_the_database_would_not_take_is_foretold_and_said_once(
    heavy: World, part: str, constants: dict[str, str], why: str
) -> None:
    heavy.sql("ALTER TABLE project_app_project ADD COLUMN key varchar(6)")
    usual: dict[str, dict[str, str]] = {
        "users": {"email": "", "first_name": "", "last_name": "", "date_joined": "now()"},
        "projects": {"description": "", "created_at": "now()", "updated_at": "now()"},
    }
    for check in (True, False):
        schema = {"token": "sha256", part: {"constants": {**usual[part], **constants}}}
        result = heavy.call(check=check, schema=schema)
        assert result["failed"]
        assert not result["changed"]
        assert result["msg"].count(why) == 1
        assert [at["code"] for at in result["findings"] if at["severity"] == "critical"] == ["database-refused"]
    heavy.well()


def test_a_name_that_the_database_would_not_take_is_foretold(heavy: World) -> None:
    heavy.sql("ALTER TABLE auth_user ALTER username TYPE varchar(11)")
    for check in (True, False):
        result = heavy.call(check=check, prefix="anonymous-")
        assert result["failed"]
        assert not result["changed"]
        assert result["msg"].count("character varying(11)") == 1
    heavy.well()


def test_nothing_is_no_value_for_a_column_that_must_have_one(world: World) -> None:
    world.options["schema"] = {"projects": {"constants": {"description": None, "created_at": None, "updated_at": None}}}
    world.sql("ALTER TABLE project_app_project ADD COLUMN filled varchar(9) NOT NULL DEFAULT 'x'")
    world.options["schema"]["projects"]["constants"]["filled"] = None
    for check in (True, False):
        result = world.call(check=check)
        assert result["failed"]
        assert codes(result, "project_app_project.created_at") == ["column-without-value"]
        assert codes(result, "project_app_project.filled") == ["column-without-value"]
