# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` with one request gone wrong, whichever: it ends by itself, tells the truth, and one more run heals.

The wire between module and engine counts every request, those that only read and Compose's own included. At the one it
is told to the answer is an error, or the connection breaks (before the engine hears of it, or instead of the answer),
or it is silent for longer than the module's `timeout` (the engine being slow to answer, or late to begin). The engine
is a private one, so that whatever is left over anywhere on it is a fault's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import PrivateEngine, running
from tests.support.faults import Chronicle, Fault, Wire, late, refused, reset, slow, unanswered
from tests.support.story import DATA, START_FIRST, Story, told

TIMEOUT, SILENCE = 2, 4
# A run that nobody disturbs takes 3 s. One that is may wait out a silence, and then puts everything back.
BOUND = 40
FAULTS: dict[str, Fault] = {
    "refused": refused,
    "reset": reset,
    "unanswered": unanswered,
    "slow": slow(SILENCE),
    "late": late(SILENCE),
}


@dataclass(frozen=True)
class Leg:
    """One kind of deploy, from what the leg before it has left."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    without: str = ""  # this service is not in the Compose file
    web: int = 2
    ages: bool = False  # the definition changes: every container is replaced
    broken: bool = False  # by some that do not stand: the deploy fails and puts the old ones back

    @property
    def absent(self) -> bool:
        return self.options.get("state") == "absent"


CREATE = Leg("create")
ABSENT = Leg("absent", {"state": "absent"})
CLEAR = Leg("clear", {"state": "absent", "remove_volumes": True})
REPLACE = Leg("replace", ages=True)
BREAK = Leg("break", ages=True, broken=True)
SHRINK = Leg("shrink", {"remove_orphans": True}, without="worker", web=1)
GROW = Leg("grow")
ROUNDS = {
    "replaced": (REPLACE,),
    "put back": (BREAK,),
    "created and removed": (CREATE, ABSENT),
    "created and removed with volumes": (CREATE, CLEAR),
    "scaled up and down": (SHRINK, GROW),
}
Point = tuple[int, str]


@pytest.fixture(scope="module")
def own_engine() -> Iterator[PrivateEngine]:
    yield from running()


@pytest.fixture
def story(own_engine: PrivateEngine, tmp_path: Path) -> Iterator[Story]:
    with told(own_engine, tmp_path) as found:
        yield found


class Disturbed:
    """A story whose every deploy may be disturbed."""

    def __init__(self, story: Story) -> None:
        self.story, self.stack = story, story.stack
        self.generation = 0
        self.data = False  # whether there is data that must not be lost

    def counted(self, leg: Leg) -> list[str]:
        """A run of `leg` that nobody disturbs; the requests that it takes."""
        self._write(leg)
        wire = Wire(self.stack.project.engine)
        with wire.strung() as host:
            result = self.stack.run(docker_host=host, **leg.options)
        assert bool(result.get("failed")) == leg.broken, result
        if leg.broken:
            self._heal(leg, leg.name)
        elif leg.absent:
            self.data = self.data and leg is not CLEAR
        else:
            self.story.remember()
            self._data(leg.name, leg)
        return wire.requests

    def disturbed(self, leg: Leg, at: int, mode: str, fault: Fault | None = None, timeout: int = TIMEOUT) -> bool:
        """A run of `leg` with one fault, and one without that heals; whether the first of them had succeeded."""
        before = self.story.there(running=True) - {leg.without}
        self._write(leg)
        wire = Wire(self.stack.project.engine, at, fault or FAULTS[mode])
        with Chronicle(self.stack) as chronicle:
            with wire.strung() as host:
                begun = time.monotonic()
                # What the engine does late it may do when the module has ended: nobody could tell.
                result = self.stack.run(docker_host=host, timeout=timeout, restless=mode == "late", **leg.options)
                seconds = time.monotonic() - begun
                if wire.tripped.is_set():
                    assert wire.settled.wait(60)
            where = f"{leg.name}, {wire.where(mode)} ({result.get('msg', 'success')})"
            assert seconds < BOUND + timeout, f"{where}: it took {seconds:.0f} s"
            if not result.get("failed") and mode != "late":
                wanted = set() if leg.absent else self.story.names(without=leg.without, web=leg.web)
                assert self.stack.running() == wanted, f"{where}: it is not what was asked for"
            if not leg.absent:
                assert before <= self.story.there(), f"{where}: {before - self.story.there()} lost their containers"
            if leg is REPLACE and mode != "late":
                down = before - self.story.there(running=True)
                assert not down, f"{where}: {down} are down"
            self.story.remember()
            self._heal(leg, where)
            if leg.ages and mode != "late":
                assert chronicle.fewest(START_FIRST) == 2, f"{where}: {START_FIRST} was down: {chronicle.entries}"
        return not result.get("failed")

    def _write(self, leg: Leg) -> None:
        self.generation += leg.ages
        self.story.write(self.generation, without=leg.without, web=leg.web, broken=leg.broken)

    def _heal(self, leg: Leg, where: str) -> None:
        """One run that nobody disturbs, of the same files, or of such as work."""
        if leg.broken:
            self.story.write(self.generation)
        self.stack.deploy(**leg.options)
        self._arrived(leg, where)

    def _arrived(self, leg: Leg, where: str) -> None:
        if leg.absent:
            self.story.gone(where, volumes=leg is CLEAR)
            self.data = self.data and leg is not CLEAR
        else:
            self.story.whole(where, self.generation, data=False, without=leg.without, web=leg.web)
            self._data(where, leg)

    def _data(self, where: str, leg: Leg) -> None:
        """The database's is there for good; the worker's as long as the worker is."""
        if not self.data:
            self.stack.shell("db", f"echo precious > {DATA['db']}")
            self.data = True
        self.story.data_kept(where, "db", *(["worker"] if leg.ages else []))
        if not leg.ages and not leg.without:
            self.stack.shell("worker", f"echo precious > {DATA['worker']}")


def spread(requests: Sequence[str], modes: Sequence[str]) -> list[Point]:
    """A point for each of `modes`, evenly spread over all requests and over those that change anything."""
    every = range(len(requests))
    changing = [at for at in every if not requests[at].startswith(("GET", "HEAD"))]
    pools = (every, changing)
    return [
        (pools[index % 2][int((index + 0.5) * len(pools[index % 2]) / len(modes))], mode)
        for index, mode in enumerate(modes)
    ]


def walk(story: Story, legs: Sequence[Leg], chosen: Sequence[Sequence[str]] | None) -> None:
    """The legs in turn, again and again, each disturbed in the `chosen` ways, or at every request in every way."""
    walker = Disturbed(story)
    if CREATE not in legs:
        walker.counted(CREATE)
    requests = [walker.counted(leg) for leg in legs]
    if chosen is None:
        points = [[(at, mode) for at in range(len(asked)) for mode in FAULTS] for asked in requests]
    else:
        points = [spread(asked, modes) for asked, modes in zip(requests, chosen)]
    begun, succeeded = time.monotonic(), 0
    for turn in zip_longest(*points):
        for leg, point in zip(legs, turn):
            if point is None:
                walker.counted(leg)
            else:
                succeeded += walker.disturbed(leg, *point)
    number = sum(len(entry) for entry in points)
    counts = [len(asked) for asked in requests]
    print(f"{number} points of {counts} requests in {time.monotonic() - begun:.0f} s; {succeeded} runs succeeded")


SHORT = {
    "replaced": (("reset", "refused", "slow", "unanswered", "late"),),
    "put back": (("unanswered",),),
    "created and removed": (("unanswered", "reset"), ("refused",)),
    "scaled up and down": (("reset",), ("refused",)),
}


@pytest.mark.parametrize("legs", SHORT)
def test_one_request_goes_wrong(story: Story, legs: str) -> None:
    walk(story, ROUNDS[legs], SHORT[legs])


@pytest.mark.long
@pytest.mark.parametrize("legs", ROUNDS)
def test_every_request_goes_wrong_in_every_way(story: Story, legs: str) -> None:
    walk(story, ROUNDS[legs], None)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["slow", "late"])
def test_thirty_seconds_of_silence_are_sat_out(story: Story, mode: str) -> None:
    walker = Disturbed(story)
    walker.counted(CREATE)
    requests = len(walker.counted(REPLACE))
    fault = (slow if mode == "slow" else late)(30)
    for at in range(0, requests, max(1, requests // 4)):
        assert walker.disturbed(REPLACE, at, mode, fault, timeout=60), f"{mode} at {at} failed it"
