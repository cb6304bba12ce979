# SPDX-License-Identifier: GPL-3.0-or-later
"""Role `visitor_pool`: what its variables say reaches the module, and what the module says is the play's result."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.support.playbook import Played, play
from tests.support.pools import World, told


def played(folder: Path, options: list[str] | None = None, **variables: Any) -> Played:
    given = {f"visitor_pool_{name}": value for name, value in {"python": sys.executable, **variables}.items()}
    role = {"ansible.builtin.import_role": {"name": "shipshape.deploy.visitor_pool"}, "vars": given}
    return play(folder, role, options=options)


def test_a_pool_is_seeded_expired_and_reset(light: World, tmp_path: Path) -> None:
    given = {
        "database_url": light.database.url,
        "data_root": str(light.root),
        "size": 2,
        "workspace": {"template": str(light.template)},
    }
    before = light.snapshot()
    foretold = played(tmp_path / "play", ["--check"], **given)
    assert (foretold.rc, light.snapshot()) == (0, before), foretold.output
    seeded = played(tmp_path / "play", **given)
    assert (seeded.rc, told(seeded.last)) == (0, told(foretold.last)), seeded.output
    light.is_whole(2)
    assert played(tmp_path / "play", **given).last["changed"] is False
    for number in (1, 2):
        light.visit(size=2)
        light.save(number, "thesis.tex", f"of {number}")
    light.end(1)
    expired = played(tmp_path / "play", state="expired", **given)
    assert told(expired.last) == [("clear-slot", "visitor-001", "its lease has ended")]
    before = light.snapshot()
    refused = played(tmp_path / "play", state="reset", environment="production", **given)
    assert (refused.rc != 0, light.snapshot()) == (True, before)
    assert [at["code"] for at in refused.last["findings"]] == ["reset-refused"]
    forced = played(tmp_path / "play", state="reset", environment="production", force=True, slots=[2], **given)
    assert told(forced.last) == [("clear-slot", "visitor-002", "reset was asked for")]
    light.is_whole(2)
    flags = played(tmp_path / "play", user_flag="has_files", workspace_flag="has_notes", **given)
    assert {at["subject"] for at in flags.last["findings"]} >= {"auth_user.has_files", "project_app_project.has_notes"}


def test_names_and_places_are_those_that_were_given(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    given = {
        "database_url": f"sqlite:///{tmp_path}/own.db",
        "schema": "builtin",
        "data_root": str(tmp_path / "users"),
        "size": 1,
        "prefix": "guest-",
        "project": "work",
        "workspace": {"path": "notes", "marker": "welcome"},
    }
    seeded = played(tmp_path / "play", **given)
    assert seeded.rc == 0, seeded.output
    assert seeded.last["slots"]["allocatable"] == 1
    assert os.listdir(tmp_path / "users/guest-001/work/notes") == ["welcome"]
    wrong = played(tmp_path / "play", **{**given, "schema": {"token": "md5"}})
    assert [at["subject"] for at in wrong.last["findings"]] == ["schema.allocations.token"]
