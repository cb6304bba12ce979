# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `preflight` on what a project needs of the engine's networks and volumes, and on ports that the engine holds
for a container which it is starting."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.support.engine import Project, unique
from tests.support.stacks import Stack, codes, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def critical(stack: Stack) -> dict[str, str]:
    found: list[dict[str, Any]] = stack.call("preflight").wait(60)["findings"]
    return {at["code"]: f"{at['subject']}: {at['message']}" for at in found if at["severity"] == "critical"}


def test_external_networks_and_volumes_must_be_there(stack: Stack) -> None:
    name = unique("outside")
    stack.write(
        {"web": service(networks=["front"], volumes=["data:/data"]), "other": service()},
        networks={"front": {"external": True, "name": name}, "unused": {"external": True}},
        volumes={"data": {"external": True, "name": name}},
    )
    found = stack.call("preflight").wait(60)
    told = {at["message"] for at in found["findings"] if at["code"] == "external-missing"}
    assert told == {
        f"{kind} {name} is external to the project, and does not exist on the engine" for kind in ("network", "volume")
    }
    assert f"docker network create {name}" in str(found["findings"])
    stack.api.create_network(name)
    stack.api.create_volume(name)
    try:
        assert critical(stack) == {}
        stack.deploy()
    finally:
        stack.run(state="absent")
        stack.api.remove_network(name)
        stack.api.remove_volume(name)


def test_addresses_that_another_network_has(stack: Stack) -> None:
    other, subnet = unique("other"), "10.213.7.0/24"
    made = stack.api.create_network(other, ipam={"Config": [{"Subnet": "10.213.0.0/16"}]})
    try:
        stack.write({"web": service()}, networks={"default": {"ipam": {"config": [{"subnet": subnet}]}}})
        [(code, said)] = critical(stack).items()
        assert code == "subnet-in-use"
        assert said.startswith("web: ")
        assert f"{stack.name}_default" in said
        assert subnet in said
        assert other in said
        assert codes(stack.fails()) == {"subnet-in-use"}
    finally:
        stack.api.remove_network(made["Id"])
    stack.deploy()
    assert critical(stack) == {}, "its own network"


def test_a_port_that_the_engine_holds_for_a_container_it_is_starting(stack: Stack) -> None:
    """A run that was killed while the engine started a container is run again: the engine's proxy listens already, and
    the container does not run yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stack.write({"web": service(ports=[f"127.0.0.1:{port}:80"])})
    script = (
        "import ctypes, socket, sys, time; ctypes.CDLL(None).prctl(15, b'docker-proxy', 0, 0, 0); "
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); "
        "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('listens', flush=True); time.sleep(3)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(port)], stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()
        begun = time.monotonic()
        assert critical(stack) == {}, "it was only to wait a moment"
        assert time.monotonic() - begun < 10
