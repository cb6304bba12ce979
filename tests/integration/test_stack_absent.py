# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` with `state: absent`: what goes, and what stays because it holds data or is somebody else's."""

from __future__ import annotations

import pytest

from tests.support.engine import BUSYBOX, Engine, Project
from tests.support.stacks import Stack, codes, job, kinds, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def test_absent_keeps_volumes_until_it_is_told_otherwise(stack: Stack) -> None:
    services = {"web": service(volumes=["data:/data"], depends_on=["db"]), "db": service(), "job": job("true")}
    stack.write(services, volumes={"data": {}})
    stack.deploy()
    stack.project.compose("run", "--detach", "web", "sleep", "600")
    stack.predicted(state="absent")
    assert stack.snapshot().keys() == {f"volume {stack.name}_data"}

    stack.deploy()
    (stack.project.folder / "compose.yml").unlink()
    done, _ = stack.predicted(state="absent", remove_volumes=True, project_src=None)
    assert ("remove", f"volume {stack.name}_data") in kinds(done)
    assert not stack.snapshot()


def test_absent_where_the_directory_is_gone(stack: Stack) -> None:
    stack.write({"web": service()})
    stack.deploy()
    (stack.project.folder / "compose.yml").unlink()
    stack.predicted(state="absent")
    assert not stack.snapshot()


def test_volumes_without_a_name_are_foretold_and_named_by_their_place(stack: Stack) -> None:
    """One that its container still is the first to have, and one that was carried over from its predecessor."""
    stack.write({"cache": service(volumes=["/data"]), "db": service(volumes=["/data"])})
    stack.deploy()
    stack.write({"cache": service(volumes=["/data"]), "db": service(volumes=["/data"], environment={"NEW": "1"})})
    stack.deploy()
    done, _ = stack.predicted(state="absent", remove_volumes=True)
    volumes = {target for _action, target in kinds(done) if target.startswith("volume ")}
    assert volumes == {f"volume /data of {stack.name}-{name}-1" for name in ("cache", "db")}
    assert not stack.snapshot()


def test_absent_leaves_neighbours_alone(stack: Stack) -> None:
    """A project whose name starts with ours, and networks that only look as if they were ours."""
    neighbour = Stack(Project(f"{stack.name}1", stack.project.folder, stack.project.engine))
    foreign = f"{stack.name}_foreign"
    stack.api.create_network(foreign)
    stack.api.create_volume(f"{stack.name}_foreign")
    top = {"volumes": {"data": {}, "shared": {"external": True, "name": foreign}}}
    top["networks"] = {"default": {}, "outside": {"external": True, "name": foreign}}  # type: ignore[dict-item]
    stack.write({"web": service(volumes=["data:/data", "shared:/s"], networks=["default", "outside"])}, **top)
    stack.deploy()
    neighbour.deploy()
    before = neighbour.snapshot()
    stack.predicted(state="absent", remove_volumes=True)
    assert not {name: at for name, at in stack.snapshot().items() if not name.startswith("image")}
    assert neighbour.snapshot() == before
    assert stack.api.networks(names=[foreign])
    assert stack.api.inspect_volume(foreign)


def test_absent_with_a_stranger_on_the_network(stack: Stack, engine: Engine) -> None:
    stranger = f"{stack.name}-stranger"
    stack.write({"web": service()})
    stack.deploy()
    network = f"{stack.name}_default"
    engine.docker("run", "-d", "--name", stranger, "--network", network, BUSYBOX, "sleep", "600")
    result = stack.fails(state="absent")
    assert "network-in-use" in codes(result)
    assert network in result["msg"]
    assert stranger in result["msg"], "the message does not say who is in the way"
    assert stack.api.inspect_container(stranger)["State"]["Running"]
    stack.api.remove_container(stranger, force=True)
    stack.predicted(state="absent")
    assert not stack.snapshot()
