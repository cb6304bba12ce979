# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and volumes whose definition changed: told, never replaced, and no obstacle to a deploy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.stacks import Stack, codes, kinds, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


@pytest.mark.parametrize("version", ["machine", "newest"])
def test_a_changed_definition_is_told_and_nobody_is_stopped(
    stack: Stack, compose_versions: dict[str, dict[str, str]], version: str
) -> None:
    """Compose since 2.30 would stop every container on the network, and asks whether to throw the volume away."""
    by_age = sorted(compose_versions, key=lambda text: [int(part) for part in text.split(".")])
    stack.project.engine.env.update(compose_versions[by_age[-1 if version == "newest" else 0]])

    def write(colour: str, mtu: str, team: str) -> None:
        top: dict[str, Any] = {
            "networks": {"default": {"driver_opts": {"com.docker.network.driver.mtu": mtu}}},
            "volumes": {"data": {"labels": {"team": team}}},
        }
        db = service(volumes=["data:/data"])
        stack.write({"web": service(environment={"COLOUR": colour}), "db": db}, **top)

    try:
        write("blue", "1400", "a")
        stack.deploy()
        stack.shell("db", "echo precious > /data/file")
        before, db = stack.snapshot(), stack.identities("db")
        write("red", "1300", "b")

        result = stack.deploy()

        assert kinds(result) == {("recreate", f"{stack.name}-web-1")}
        assert stack.identities("db") == db
        after = stack.snapshot()
        for name in (f"network {stack.name}_default", f"volume {stack.name}_data"):
            assert after[name] == before[name], f"{name} was replaced"
        assert stack.shell("db", "cat /data/file") == "precious\n"
        assert {"network-definition-changed", "volume-definition-changed"} <= codes(result)
        told = {at["field"]: (at["wanted"], at["found"], at["action"]) for at in result["drift"] if not at["service"]}
        assert told == {
            "networks.default.driver_opts.com.docker.network.driver.mtu": ("1300", "1400", "none"),
            "volumes.data.labels.team": ("b", "a", "none"),
        }
        again = stack.deploy()
        assert (again["changed"], again["actions"]) == (False, [])
        assert "network-definition-changed" in codes(again), "it is still so, and is said each time"

        # The way that the finding names.
        stack.deploy(state="absent", remove_volumes=True)
        stack.deploy()
        stack.unchanged()
        stack.up_finds_nothing_to_do()
    finally:
        stack.project.engine.env.clear()
