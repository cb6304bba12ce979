# SPDX-License-Identifier: GPL-3.0-or-later
"""What we bring up is what Compose brings up: every case of tests/corpus, played by both.

The machine's engine with the machine's Compose plays all of them. The newer Compose and Engine 20.10 play those that
concern them and the telling ones; the whole corpus on these is in tests/faults/test_fidelity_everywhere.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.cases import CASES, Case, Definition
from tests.corpus.play import Stage, play, play_adopted
from tests.corpus.plays import Start, assert_same, is_telling, listed, played
from tests.support.engine import Engine, unique
from tests.support.engines import PrivateEngine

pytest_plugins = ["tests.corpus.fixtures"]
TELLING = [case for case in CASES if is_telling(case)]


@pytest.mark.parametrize("case", listed(CASES))
def test_same_as_compose(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine: Engine, busybox: str
) -> None:
    assert_same(plays(request, engine), case)


@pytest.mark.parametrize("case", listed([case for case in TELLING if "compose" not in case.needs]))
def test_a_change_of_what_compose_has_made(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine: Engine, busybox: str
) -> None:
    assert_same(plays(request, engine, play_adopted), case)


@pytest.mark.parametrize("case", listed(TELLING))
def test_same_as_a_newer_compose(case: Case, plays: Start, request: pytest.FixtureRequest, newer: Engine) -> None:
    assert_same(plays(request, newer), case)


@pytest.mark.engine2010
@pytest.mark.parametrize("case", listed([case for case in TELLING if "compose" not in case.needs]))
def test_same_on_engine_2010(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine2010: PrivateEngine
) -> None:
    assert_same(plays(request, engine2010), case)


class Tampering(Stage):
    """Someone who deploys something else than what is asked for."""

    def ours(self, definition: Definition, **options: Any) -> dict[str, Any]:
        assert self.case.changed
        return super().ours(self.case.changed, **options)


def test_a_difference_is_told(engine: Engine, busybox: str, tmp_path: Path) -> None:
    """What all the others rest on: were we not the same as Compose, this is where it would be seen."""
    case = next(case for case in CASES if case.name.startswith("01-"))
    told = "\n".join(played(play, Tampering(case, engine, unique("fid"), tmp_path / "project")))
    for words in (
        r"ours after Compose: changed=True",
        r"ours after Compose: replaced or restarted",
        r"ours against Compose's: containers\.\S+-web-1\.Args: \['3600'\] became \['3601'\]",
        r"Compose after ours: Container \S+-web-1: Recreate",
    ):
        assert re.search(words, told), told


@pytest.mark.engine2010
def test_a_replacement_leaves_no_volume_behind(engine2010: PrivateEngine, tmp_path: Path) -> None:
    """On the engine that is ours alone: as many volumes as before, and with the project they are gone."""
    case = next(case for case in CASES if case.name.startswith("33-"))
    stage = Stage(case, engine2010, unique("fid"), tmp_path / "project")
    before = set(engine2010.lines("volume", "ls", "-q"))
    try:
        stage.set_up()
        stage.ours(case.first)
        first = set(engine2010.lines("volume", "ls", "-q"))
        assert case.changed
        case.changed.write(stage.folder)
        stage.ours(case.changed)
        assert set(engine2010.lines("volume", "ls", "-q")) == first
        stage.ours(case.changed, state="absent", remove_volumes=True)
        assert set(engine2010.lines("volume", "ls", "-q")) == before
    finally:
        engine2010.sweep(stage.project)
