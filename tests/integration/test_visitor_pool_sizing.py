# SPDX-License-Identifier: GPL-3.0-or-later
"""The size that `visitor_pool_info` recommends, tried on a real pool: days of visits pass on a clock of the test's own,
each of them takes a slot in the database, and the real module frees it when the visit is over."""

from __future__ import annotations

import heapq
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.pools import MEMORY, World, make_template, run, sqlite

# What the option session_hours promises: at most one visitor in 100 finds no slot.
PROMISED = 0.01
BATCH = 50  # visits


@dataclass(frozen=True)
class Visit:
    """When somebody comes, how long the slot is kept, both in hours, and whether an account is the end of it."""

    at: float
    stays: float
    signs_up: bool


def visits(count: int, per_day: float, hours: float, conversion: float, lease: str, seed: int = 29) -> list[Visit]:
    """People come whenever they like. A lease lasts its hours, or those on average; who signs up does it at any moment
    of it."""
    chance = random.Random(seed)
    found, now = [], 0.0
    for _ in range(count):
        now += chance.expovariate(per_day / 24)
        stays = chance.expovariate(1 / hours) if lease == "exponential" else hours
        signs_up = chance.random() < conversion
        found.append(Visit(now, stays * chance.random() if signs_up else stays, signs_up))
    return found


@dataclass(order=True)
class Stay:
    """Somebody who has a slot, until `ends`."""

    ends: float
    slot: int
    session: str = field(compare=False)
    token: str = field(compare=False)
    signs_up: bool = field(compare=False)


@dataclass
class Days:
    """The days in which a pool is visited."""

    pool: World
    inside: list[Stay] = field(default_factory=list)
    accounts: int = 0
    cleared: int = 0

    def refused(self, coming: list[Visit]) -> list[bool]:
        """Of each visit, whether it found no slot."""
        return [self._comes(visit) for visit in coming]

    def _comes(self, visit: Visit) -> bool:
        self._free(visit.at)
        got = self.pool.visit()
        # The pool refuses when every slot is held, and only then; what it lends is nobody else's.
        assert (got is None) == (len(self.inside) == self.pool.size)
        if got is None:
            return True
        assert got[0] not in {stay.slot for stay in self.inside}
        heapq.heappush(self.inside, Stay(visit.at + visit.stays, *got, visit.signs_up))
        return False

    def _free(self, now: float) -> None:
        """The module frees what has ended since somebody last came: nobody could have seen it before."""
        ended = 0
        while self.inside and self.inside[0].ends <= now:
            stay = heapq.heappop(self.inside)
            if stay.signs_up:
                self._sign_up(stay)
            else:
                self.pool.end(stay.slot)
                ended += 1
        if ended:
            result = run("visitor_pool", self.pool.given(state="expired"))
            assert result["cleared"] == ended, result
            self.cleared += ended

    def _sign_up(self, stay: Stay) -> None:
        self.accounts += 1
        name = f"account-{self.pool.size}-{self.accounts}"
        self.pool.sign_up(name)
        who = {"slot": stay.slot, "session_key": stay.session, "token": stay.token, "to_user": name}
        result = run("visitor_pool", self.pool.given(state="transferred", **who))
        assert result["changed"], result


@pytest.fixture
def world() -> Iterator[World]:
    """An empty application."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        database = sqlite(folder / "app.db")
        database.make()
        (folder / "users").mkdir(mode=0o750)
        yield World(database, folder / "users", make_template(folder / "template"))
        database.close()


def days(world: World, size: int) -> Days:
    """A pool of that size, and nobody in it."""
    world.size = size
    result = run("visitor_pool", world.given(state="reset"))
    assert result["slots"]["allocatable"] == result["slots"]["total"] == size, result
    return Days(world)


def told(refused: list[bool]) -> tuple[float, float]:
    """The part that was refused, and its standard error. Refusals come in crowds, so each is no evidence of its own:
    the error is that of batches, each of them many sessions long. Two of it: in 200 other seeds nothing but a wrong
    size failed."""
    parts = [statistics.fmean(refused[at : at + BATCH]) for at in range(0, len(refused), BATCH)]
    return statistics.fmean(refused), statistics.stdev(parts) / len(parts) ** 0.5


@pytest.mark.parametrize(
    ("per_day", "hours", "conversion", "lease"),
    [(40, 2.0, 0.2, "fixed"), (60, 2.0, 0.0, "exponential")],
    ids=["leases of one length, some sign up", "sessions of any length"],
)
def test_a_pool_of_the_recommended_size_turns_at_most_one_in_a_hundred_away(
    world: World, per_day: float, hours: float, conversion: float, lease: str
) -> None:
    wanted = {"visitors_per_day": per_day, "session_hours": hours, "conversion": conversion}
    size = world.info(**wanted)["recommended_size"]
    full = days(world, size)
    part, error = told(full.refused(visits(1500, per_day, hours, conversion, lease)))
    assert part <= PROMISED + 2 * error, f"{part:.2%} +- {error:.2%} with {size} slots"
    counted = world.info()["slots"]
    assert (counted["leased"], counted["allocatable"]) == (len(full.inside), size - len(full.inside))
    assert full.cleared > 1000
    assert (full.accounts > 200) == bool(conversion)

    half = days(world, size // 2)
    part, error = told(half.refused(visits(200, per_day, hours, conversion, lease)))
    assert part - 2 * error > 5 * PROMISED, f"{part:.2%} +- {error:.2%} with {size // 2} slots"
