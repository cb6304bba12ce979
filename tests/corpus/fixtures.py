# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the suites on the corpus: `pytest_plugins = ["tests.corpus.fixtures"]`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.corpus.play import play
from tests.corpus.plays import Plays, Start, Story, selected
from tests.support.debs import CACHE, unpacked
from tests.support.engine import Engine


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts, at its first call from a test function, the plays of all cases selected for that function."""
    under_way: dict[str, Plays] = {}

    def start(request: pytest.FixtureRequest, engine: Engine, story: Story = play) -> Plays:
        name = request.node.originalname
        if name not in under_way:
            under_way[name] = Plays(engine, selected(request), tmp_path_factory.mktemp(name), story)
        return under_way[name]

    yield start
    for each in under_way.values():
        each.close()


@pytest.fixture(scope="session")
def newer(engine: Engine, busybox: str) -> Engine:
    """The machine's engine with Debian's newest Compose, and the buildx that this one wants."""
    config = CACHE / "fidelity-newer"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    for package, folder in (("docker-compose", "compose-newer"), ("docker-buildx", "buildx-newer")):
        plugin = unpacked(folder, [package], ["forky"]) / "usr/libexec/docker/cli-plugins" / package
        subprocess.run(["ln", "-sfn", str(plugin), str(config / "cli-plugins" / package)], check=True)
    return replace(engine, env={"DOCKER_CONFIG": str(config)})
