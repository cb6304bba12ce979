# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' own helpers: a helper that lies makes every suite above it lie."""

from __future__ import annotations

import signal

import pytest

from tests.support.debs import mirror
from tests.support.engine import Engine, Project, unique
from tests.support.engines import PrivateEngine

DEB822 = """Types: deb
# a comment
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Signed-By: /k/security.gpg

Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Signed-By: /k/debian.gpg
"""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([DEB822], ("http://mirror.example/debian", "/k/debian.gpg")),
        (["", "deb http://mirror.example/debian bookworm main\n"], ("http://mirror.example/debian", "")),
        (["deb [arch=amd64] http://m.example/debian/ bookworm main\n"], ("http://m.example/debian", "")),
    ],
)
def test_the_mirror_is_read_from_apts_own_files(texts: list[str], expected: tuple[str, str]) -> None:
    assert mirror(texts) == expected


def test_a_machine_without_a_debian_mirror_is_named() -> None:
    with pytest.raises(RuntimeError, match="no Debian mirror"):
        mirror(["deb http://mirror.example/other stable main\n"])


def test_sweep_removes_what_bears_the_prefix_and_nothing_else(engine: Engine, busybox: str) -> None:
    mine, other = unique("stm"), unique("sto")
    for name in (mine, other):
        engine.docker("run", "-d", "--name", f"{name}-box", busybox, "sleep", "600")
        engine.docker("network", "create", f"{name}-net")
        engine.docker("volume", "create", f"{name}-vol")
        engine.docker("tag", busybox, f"{name}:1")
    try:
        engine.sweep(mine)
        assert engine.leftovers(mine) == {}
        assert {kind: len(names) for kind, names in engine.leftovers(other).items()} == {
            "container": 1,
            "network": 1,
            "volume": 1,
            "image": 1,
        }
    finally:
        engine.sweep(other)


def test_a_project_is_what_compose_makes_of_it(project: Project, busybox: str) -> None:
    project.write({"services": {"web": {"image": busybox, "command": ["sleep", "600"], "init": True}}})
    project.compose("up", "-d")
    [container] = project.containers("web")
    assert container["State"]["Running"]
    assert container["Name"] == f"/{project.name}-web-1"


@pytest.mark.engine2010
def test_engine_2010_is_that_engine_and_runs_a_container(engine2010: PrivateEngine, busybox: str) -> None:
    version = engine2010.docker("version", "--format", "{{.Server.Version}}").stdout
    assert version.startswith("20.10.")
    assert engine2010.docker("run", "--rm", busybox, "echo", "here").stdout == "here\n"


def test_a_private_engine_can_be_killed_and_started_again(private_engine: PrivateEngine, busybox: str) -> None:
    options = ["--name", "box", "--restart", "always", "--stop-timeout", "1"]
    private_engine.docker("run", "-d", *options, busybox, "sleep", "600")
    private_engine.stop(signal.SIGKILL)
    assert private_engine.docker("ps", check=False).returncode != 0
    private_engine.start()
    assert "box" in private_engine.lines("ps", "-a", "--format", "{{.Names}}")


def test_two_compose_versions_are_at_hand(compose_versions: dict[str, dict[str, str]]) -> None:
    for version, env in compose_versions.items():
        assert version in Engine(env=env).docker("compose", "version").stdout
