# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` while the engine is restarted, and while another run is at the same project.

The engine's own events say when to act: at its n-th deed for the project. That is a private engine where it is to be
restarted; in order (its containers are stopped) or by a crash.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import PrivateEngine, running
from tests.support.faults import Chronicle
from tests.support.modules import ModuleCall
from tests.support.stacks import codes, contract
from tests.support.story import Story, definition, told

# -- the engine is restarted -------------------------------------------------------------------------------------------

WAYS = {"restarted": signal.SIGTERM, "crashed": signal.SIGKILL}


def ended(call: ModuleCall, seconds: float = 90) -> dict[str, Any]:
    """The result of a call that nobody kills: it ends by itself, and says on one line what was wrong."""
    try:
        result = call.wait(seconds)
    finally:
        call.process.kill()
    assert not call.stderr, call.stderr
    contract(result)
    return result


def deeds(story: Story) -> int:
    """How much the engine has to do for a deploy that replaces everything."""
    story.generation += 1
    story.write(story.generation)
    with Chronicle(story.stack) as chronicle:
        story.stack.deploy()
        chronicle.fewest("db")
        story.remember()
        return len(chronicle.entries)


def restarted(story: Story, engine: PrivateEngine, at: int, how: str) -> None:
    """A deploy during which the engine goes down at its `at`-th deed and comes back, and one that heals."""
    before = {name: document["Id"] for name, document in story.stack.containers().items()}
    story.generation += 1
    story.write(story.generation)
    with Chronicle(story.stack) as chronicle:
        call = story.stack.call()
        assert chronicle.wait_for(at + 1, call), f"there were only {len(chronicle.entries)} deeds"
        engine.stop(WAYS[how])
        engine.start()
        result = ended(call)
    where = f"{how} at {at}, {chronicle.entries[at]} ({result.get('msg', 'success')})"
    after = {name: document["Id"] for name, document in story.stack.containers().items()}
    assert result["changed"] or before == after, f"{where}: not changed, but {before} -> {after}"
    story.remember()
    story.heals(where, story.generation)


@pytest.fixture
def apart(private_engine: PrivateEngine, tmp_path: Path) -> Iterator[Story]:
    """The story on an engine of its own."""
    with told(private_engine, tmp_path) as story:
        story.begin()
        yield story


@pytest.mark.parametrize("how", WAYS)
def test_the_engine_goes_down_while_replacing(apart: Story, private_engine: PrivateEngine, how: str) -> None:
    restarted(apart, private_engine, deeds(apart) // 2, how)


@pytest.mark.long
@pytest.mark.parametrize("how", WAYS)
def test_the_engine_goes_down_at_any_time(apart: Story, private_engine: PrivateEngine, how: str) -> None:
    for at in range(deeds(apart)):
        restarted(apart, private_engine, at, how)


# -- two runs at once --------------------------------------------------------------------------------------------------


class Two:
    """Two runs on one project, with the same definition or each with one of its own."""

    def __init__(self, story: Story) -> None:
        self.story, self.stack = story, story.stack

    def write(self, generation: int) -> list[str]:
        """The files of a run with this generation. One of its own: nobody's is changed while he reads it."""
        services, top = definition(generation)
        self.stack.project.write({"services": services, **top}, f"{generation}.yml")
        return [f"{generation}.yml"]

    def run(self, generation: int, **options: Any) -> ModuleCall:
        return self.stack.call(files=self.write(generation), **options)

    def beside(self, first: int, second: int, at: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both results; the second run begins at the first one's `at`-th deed, or at the same time."""
        with Chronicle(self.stack) as chronicle:
            one = self.run(first)
            assert not at or chronicle.wait_for(at, one), f"there were only {len(chronicle.entries)} deeds"
            other = self.run(second)
            return ended(one), ended(other)

    def whole(self, where: str, *generations: int) -> int:
        """The end is one of these, all of it, and nothing else; which one."""
        found = {self.generation(document) for document in self.stack.containers().values()}
        assert len(found) == 1, f"{where}: torn between {found}"
        assert found <= set(generations), f"{where}: {found}"
        (last,) = found
        services, top = definition(last)
        self.stack.write(services, **top)
        self.story.whole(where, last)
        return last

    @staticmethod
    def generation(document: dict[str, Any]) -> int:
        (said,) = [text for text in document["Config"]["Env"] if text.startswith("GENERATION=")]
        return int(said.partition("=")[2])


@pytest.fixture(scope="module")
def own_engine() -> Iterator[PrivateEngine]:
    yield from running()


@pytest.fixture
def two(own_engine: PrivateEngine, tmp_path: Path) -> Iterator[Two]:
    with told(own_engine, tmp_path) as story:
        story.begin()
        yield Two(story)


def side_by_side(two: Two, cases: list[tuple[int, bool]]) -> None:
    """The second run begins at this deed of the first, with the same definition or with another."""
    generation = two.story.generation
    for at, another in cases:
        # By twos: each generation's worker takes the volumes of the one before along, so that none is left behind.
        first = generation + 2
        second = first + 2 * another
        results = two.beside(first, second, at)
        where = f"generation {second} at deed {at} of {first}"
        for result in results:
            assert not result.get("failed"), f"{where}: {result['msg']}"
        assert [result["changed"] for result in results].count(True) == 1 + another, where
        last = two.whole(where, first, second)
        assert not at or last == second, f"{where}: the later one did not have the last word"
        generation = second


def test_two_runs_at_once(two: Two) -> None:
    side_by_side(two, [(0, True), (0, False), (9, True)])


@pytest.mark.long
def test_two_runs_at_any_time(two: Two) -> None:
    number = deeds(two.story)
    two.story.generation += 1
    two.story.write(two.story.generation)
    two.stack.deploy()
    side_by_side(two, [(at, another) for at in range(number) for another in (False, True)])


def test_who_will_not_wait_is_told_who_is_at_it(two: Two) -> None:
    with Chronicle(two.stack) as chronicle:
        first = two.run(2)
        assert chronicle.wait_for(1, first)
        begun = time.monotonic()
        refused = ended(two.run(4, wait_timeout=0))
        assert time.monotonic() - begun < 5
        assert first.process.poll() is None
        assert codes(refused) == {"deploy-running"}
        assert (refused["changed"], refused["actions"]) == (False, [])
        assert str(first.process.pid) in refused["msg"]
        assert not ended(first).get("failed")
    two.whole("refused", 2)


def test_who_waits_takes_over_from_one_that_is_killed(two: Two) -> None:
    with Chronicle(two.stack) as chronicle:
        first = two.run(2)
        assert chronicle.wait_for(6, first)
        second = two.run(4)
        time.sleep(1)
        assert second.process.poll() is None
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.communicate(timeout=20)
        assert not ended(second).get("failed")
    two.whole("taken over", 4)


def test_removal_waits_for_a_deploy(two: Two) -> None:
    """What is being removed and deployed at once would be torn."""
    two.story.remember()
    with Chronicle(two.stack) as chronicle:
        first = two.run(2)
        assert chronicle.wait_for(3, first)
        second = two.stack.call(files=two.write(2), state="absent")
        results = ended(first), ended(second)
    for result in results:
        assert not result.get("failed"), result["msg"]
    two.story.gone("removed", volumes=False)
