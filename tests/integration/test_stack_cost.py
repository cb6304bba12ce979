# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at a project that is as it should be costs: the engine, and the target that loads our code each time."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.shipshape.deploy.tests.unit.loaded import Call
from tests.support.engine import Engine, Project
from tests.support.faults import Wire
from tests.support.stacks import Stack, service


@pytest.fixture
def options(project: Project, busybox: str) -> dict[str, Any]:
    stack = Stack(project)
    stack.write({name: service() for name in ("one", "two")})
    assert stack.run()["changed"]
    return {"project_src": str(project.folder), "project_name": project.name}


def test_the_engine_is_asked_for_nothing_twice(engine: Engine, options: dict[str, Any]) -> None:
    wire = Wire(engine)
    with wire.strung() as address:
        Call("stack_info", {**options, "docker_host": address})
    assert wire.requests.count("GET /version") == 1
    assert len(set(wire.requests)) == len(wire.requests)


def test_nothing_is_loaded_that_only_changes_need(options: dict[str, Any]) -> None:
    """See tests/unit/test_loaded.py."""
    for name, most in (("stack", 191_000), ("stack_info", 176_000)):
        call = Call(name, options)
        assert not call.result["changed"]
        call.is_cheap(most)
        assert "docker" not in call.modules
