# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays many cases side by side: most of a case is waiting for the engine, so three at once take half the time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from tests.corpus.cases import Case
from tests.corpus.play import Stage, play
from tests.support.engine import Engine, unique

AT_ONCE = 3
# Where versions differ most: conditions, restarts, shared namespaces, networks, volumes, builds.
TELLING = ("12-", "21-", "23-", "33-", "56-", "59-")


# play() or play_adopted(): yields every way in which Compose and we are not the same.
Story = Callable[[Stage], Iterable[str]]


class Plays:
    """The cases that one test function is to play on one engine, started together, asked for one by one."""

    def __init__(self, engine: Engine, cases: Iterable[Case], folder: Path, story: Story = play) -> None:
        self.versions = versions(engine)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._plays: dict[str, Future[list[str]]] = {
            case.name: self._pool.submit(played, story, Stage(case, engine, project_name(case), folder / case.name))
            for case in cases
            if case.runs_on(**self.versions)
        }

    def complaints(self, case: Case) -> list[str]:
        if case.name not in self._plays:
            pytest.skip(f"{case.name} needs {dict(case.needs)}, this is {self.versions}")
        return self._plays[case.name].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Start(Protocol):
    """What the fixture `plays` gives: the plays of the test function that asks, all started by its first case."""

    def __call__(self, request: pytest.FixtureRequest, engine: Engine, story: Story = play) -> Plays: ...


def played(story: Story, stage: Stage) -> list[str]:
    """Every way in which Compose and we are not the same; whatever happens, nothing of the case is left."""
    try:
        return list(story(stage))
    finally:
        stage.engine.sweep(stage.project)


def project_name(case: Case) -> str:
    return case.project_name or unique("fid")


def versions(engine: Engine) -> dict[str, str]:
    compose = re.match(r"[\d.]+", engine.docker("compose", "version", "--short").stdout.strip())
    assert compose
    return {"compose": compose[0], "api": engine.docker("version", "--format", "{{.Server.APIVersion}}").stdout.strip()}


def selected(request: pytest.FixtureRequest) -> list[Case]:
    """The cases that this run of pytest has selected for the test function that asks."""
    name = request.node.originalname
    items = [item for item in request.session.items if getattr(item, "originalname", None) == name]
    return [item.callspec.params["case"] for item in items if item.path == request.node.path]  # type: ignore[attr-defined]


def listed(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


def is_telling(case: Case) -> bool:
    """Whether every `make test` plays this case on other versions too."""
    return case.name.startswith(TELLING) or "compose" in case.needs


def assert_same(plays: Plays, case: Case) -> None:
    complaints = plays.complaints(case)
    assert not complaints, "\n".join([f"{case.name} is not as with Compose:", *complaints])
