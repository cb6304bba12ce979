# SPDX-License-Identifier: GPL-3.0-or-later
"""What we bring up is what Compose brings up: every case of tests/corpus, played by both.

The machine's engine with the machine's Compose plays all of them. The newer Compose and Engine 20.10 play those that
concern them in every run, and all of them in the long one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpus.cases import CASES, Case
from tests.corpus.play import Stage, play
from tests.support.debs import CACHE, unpacked
from tests.support.engine import Engine, unique
from tests.support.engines import PrivateEngine

# What differs most between versions: conditions, replicas, shared namespaces, networks, volumes, builds.
TELLING = ("11-", "12-", "21-", "23-", "33-", "37-", "39-", "56-")


def cases(always: Iterable[str]) -> list[object]:
    starts = tuple(always)
    return [
        pytest.param(case, id=case.name, marks=() if case.name.startswith(starts) else pytest.mark.long)
        for case in CASES
    ]


def compare(case: Case, engine: Engine, tmp_path: Path) -> None:
    project = case.project_name or unique("fid")
    if not case.runs_on(**versions(engine)):
        pytest.skip(f"{case.name} needs {dict(case.needs)}, this is {versions(engine)}")
    try:
        complaints = list(play(Stage(case, engine, project, tmp_path / "project")))
        assert not complaints, "\n".join([f"{case.name} is not as with Compose:", *complaints])
    finally:
        engine.sweep(project)


def versions(engine: Engine) -> dict[str, str]:
    compose = engine.docker("compose", "version", "--short").stdout
    return {
        "compose": re.match(r"[\d.]+", compose.strip())[0],  # type: ignore[index]
        "api": engine.docker("version", "--format", "{{.Server.APIVersion}}").stdout.strip(),
    }


@pytest.fixture(scope="session")
def newer(engine: Engine, busybox: str) -> Engine:
    """The machine's engine with Debian's newest Compose, and the buildx that this one wants."""
    config = CACHE / "fidelity-newer"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    for package in ("docker-compose", "docker-buildx"):
        folder = {"docker-compose": "compose-newer", "docker-buildx": "buildx-newer"}[package]
        plugin = unpacked(folder, [package], ["forky"]) / "usr/libexec/docker/cli-plugins" / package
        subprocess.run(["ln", "-sfn", str(plugin), str(config / "cli-plugins" / package)], check=True)
    return replace(engine, env={"DOCKER_CONFIG": str(config)})


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_same_as_compose(case: Case, engine: Engine, busybox: str, tmp_path: Path) -> None:
    compare(case, engine, tmp_path)


@pytest.mark.parametrize("case", cases([*TELLING, *(case.name for case in CASES if "compose" in case.needs)]))
def test_same_as_a_newer_compose(case: Case, newer: Engine, tmp_path: Path) -> None:
    compare(case, newer, tmp_path)


@pytest.mark.engine2010
@pytest.mark.parametrize("case", cases(TELLING))
def test_same_on_engine_2010(case: Case, engine2010: PrivateEngine, tmp_path: Path) -> None:
    compare(case, engine2010, tmp_path)
    left = engine2010.lines("volume", "ls", "-q")
    assert not left, f"{case.name} left anonymous volumes behind: {left}"
