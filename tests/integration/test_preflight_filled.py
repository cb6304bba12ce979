# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `preflight` on a project whose form is right only once its variables are filled in: Compose refuses to print
such a one unfilled, which says nothing against deploying it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.stacks import Stack, codes, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def preflight(stack: Stack) -> dict[str, Any]:
    return stack.call("preflight").wait(60)


@pytest.mark.parametrize(
    ("key", "value"),
    [("pull_policy", "${POLICY:-missing}"), ("deploy", {"update_config": {"order": "${ORDER:-start-first}"}})],
)
def test_a_variable_where_only_certain_words_may_stand(stack: Stack, key: str, value: Any) -> None:
    stack.write({"web": service(**{key: value}), "other": service(depends_on=["web"])})

    result = preflight(stack)

    assert not result.get("failed"), result["msg"]
    assert not [at for at in result["findings"] if at["severity"] == "critical"]
    stack.deploy()


def test_what_is_wrong_with_the_rest_is_still_found(stack: Stack) -> None:
    stack.write({"web": service(pull_policy="${POLICY:-missing}", volumes=["./nowhere.conf:/etc/x.conf:ro"])})
    assert "bind-source-missing" in codes(preflight(stack))

    stack.write({"web": service(pull_policy="${POLICY:-maybe}")})
    assert codes(preflight(stack)) == {"compose-file-invalid"}

    stack.write({"web": service(pull_policy="${POLICY:-missing}", environment={"A": "${NEVER_SET:?fill it in}"})})
    assert codes(preflight(stack)) == {"variable-required"}
