# SPDX-License-Identifier: GPL-3.0-or-later
"""What we bring up is what Compose brings up: every case of tests/corpus, played by both.

The machine's engine with the machine's Compose plays all of them. The newer Compose and Engine 20.10 play those that
concern them and the telling ones; the whole corpus on these is in tests/faults/test_fidelity_everywhere.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.corpus.cases import CASES, Case
from tests.corpus.plays import Plays, selected
from tests.support.debs import CACHE, unpacked
from tests.support.engine import Engine
from tests.support.engines import PrivateEngine

# Where versions differ most: conditions, restarts, shared namespaces, networks, volumes, configs, builds.
TELLING = ("11-", "12-", "21-", "23-", "33-", "37-", "39-", "56-")


Start = Callable[[pytest.FixtureRequest, Engine], Plays]


def listed(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


def is_telling(case: Case) -> bool:
    return case.name.startswith(TELLING)


def assert_same(plays: Plays, case: Case) -> None:
    complaints = plays.complaints(case)
    assert not complaints, "\n".join([f"{case.name} is not as with Compose:", *complaints])


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts, at its first call from a test function, the plays of all cases selected for that function."""
    under_way: dict[str, Plays] = {}

    def start(request: pytest.FixtureRequest, engine: Engine) -> Plays:
        name = request.node.originalname
        if name not in under_way:
            under_way[name] = Plays(engine, selected(request), tmp_path_factory.mktemp(name))
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


@pytest.mark.parametrize("case", listed(CASES))
def test_same_as_compose(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine: Engine, busybox: str
) -> None:
    assert_same(plays(request, engine), case)


@pytest.mark.parametrize("case", listed([case for case in CASES if is_telling(case) or "compose" in case.needs]))
def test_same_as_a_newer_compose(case: Case, plays: Start, request: pytest.FixtureRequest, newer: Engine) -> None:
    assert_same(plays(request, newer), case)


@pytest.mark.engine2010
@pytest.mark.parametrize("case", listed([case for case in CASES if is_telling(case)]))
def test_same_on_engine_2010(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine2010: PrivateEngine
) -> None:
    assert_same(plays(request, engine2010), case)


@pytest.mark.engine2010
def test_no_anonymous_volume_is_left_behind(engine2010: PrivateEngine) -> None:
    """Last, on the engine that is ours alone: candidates and what they replaced took their volumes along."""
    assert engine2010.lines("volume", "ls", "-q") == []
