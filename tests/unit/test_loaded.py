# SPDX-License-Identifier: GPL-3.0-or-later
"""A call that has nothing to do does not load what it would take to do something.

A bound may be raised when what every call does has become more. When it is reached because something rare has come into
a file that every call loads, it is better imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.tests.unit.loaded import Call

PRESENT, LOOK = 146_000, 130_000


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Of a pool that is whole."""
    (tmp_path / "users").mkdir()
    found = {
        "database_url": f"sqlite:///{tmp_path}/app.db",
        "schema": "builtin",
        "data_root": str(tmp_path / "users"),
        "size": 3,
    }
    assert Call("visitor_pool", found).result["changed"]
    return found


@pytest.mark.parametrize("state", ["present", "expired"])
def test_a_pool_that_is_as_it_should_be(options: dict[str, Any], state: str) -> None:
    call = Call("visitor_pool", {**options, "state": state})
    assert not call.result["changed"]
    call.is_cheap(PRESENT)
    assert not {"psycopg", "docker", "http.client"} & set(call.modules)


def test_a_look_at_a_pool(options: dict[str, Any], tmp_path: Path) -> None:
    call = Call("visitor_pool_info", {**options, "state_dir": str(tmp_path / "state")})
    call.is_cheap(LOOK)
    assert not {"psycopg", "docker", "http.client"} & set(call.modules)
