# SPDX-License-Identifier: GPL-3.0-or-later
"""Many a project's example has a password that is its own name, or the database's. Masked wherever it occurs, the
report would tell of a service `***` of a project `***-self-hosted`: that hides nothing, and nobody finds the container.
"""

from __future__ import annotations

import pytest

from tests.support.engine import BUSYBOX, Project, unique
from tests.support.stacks import Stack, leaks, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def test_a_password_that_is_a_part_of_a_name_hides_no_name(stack: Stack) -> None:
    word = stack.name.split("-")[1]
    stack.write({"web": service(environment={"AWS_SECRET_KEY": word, "OTHER_PASSWORD": "not-in-any-name"})})

    result = stack.deploy()

    assert [action["target"] for action in result["actions"]][-1] == f"{stack.name}-web-1"
    assert not leaks(["not-in-any-name"], *stack.printed)


@pytest.mark.parametrize("module", ["preflight", "credentials"])
def test_nor_does_one_of_an_env_file(stack: Stack, module: str) -> None:
    name = unique("database")
    (stack.project.folder / "app.env").write_text(f"DB_PASSWORD={name}\nAPI_TOKEN=not-in-any-name\n", encoding="utf-8")
    web = {
        "image": BUSYBOX,
        "env_file": "app.env",
        "environment": {"DATABASE_URL": f"postgres://app:{name}@{name}/app"},
    }
    stack.write({"web": web, name: service(healthcheck={"disable": True})})

    call = stack.call(module)
    result = call.wait(120)

    assert name in call.stdout
    assert not leaks(["not-in-any-name"], call.stdout, call.stderr)
    assert "***" not in {finding["subject"] for finding in result["findings"]}
