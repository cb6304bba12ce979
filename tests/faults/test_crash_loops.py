# SPDX-License-Identifier: GPL-3.0-or-later
"""Crash loops, with the module's own default for `stability`: none of them passes for a success, ever.

The engine calls a container in a crash loop "running" all the time, `docker compose up -d --wait` calls it healthy 30
of 30 times, and two looks 7 s apart pass for 25 to 91 % of them (PEERS). All projects run side by side, each in a
thread of its own: what takes time here is waiting for containers to crash.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine, Project
from tests.support.events import Events
from tests.support.stacks import Stack, codes, contract, job, service

DELAYS = (0, 0.5, 2, 5, 9)
POLICIES = ("always", "on-failure", "unless-stopped")
AT_ONCE = 16
# What a verdict may take beside the crash itself: the engine's word, our look at it, the last lines; 16 at a time.


@dataclass(frozen=True)
class Seen:
    """What one run made of a crash loop. `seconds`: from the container's first start to the end of the module."""

    result: dict[str, Any]
    seconds: float
    left: frozenset[str]  # containers afterwards

    @property
    def said(self) -> str:
        return str(self.result.get("msg") or f"it reported success: {self.result['services']}")

    @property
    def found(self) -> frozenset[str]:
        """As what it was found before anything was done."""
        return frozenset(str(at["found"]) for at in self.result["drift"])


class Loops:
    """Many projects at once, each with a service in a crash loop. `network_mode`: there are only so many subnets."""

    def __init__(self, engine: Engine, prefix: str, folder: Path) -> None:
        self._engine, self._prefix, self._folder = engine, prefix, folder
        self._numbers = itertools.count()

    def _project(self, delay: float, policy: str, **others: Any) -> Stack:
        name = f"{self._prefix}-{next(self._numbers)}"
        folder = self._folder / name
        folder.mkdir()
        stack = Stack(Project(name, folder, self._engine), {"wait_timeout": 60})
        loop = job(f"sleep {delay}; echo cannot go on; exit 1", restart=policy)
        stack.write({at: {**keys, "network_mode": "none"} for at, keys in {"loop": loop, **others}.items()})
        return stack

    def made(self, delay: float, policy: str) -> Seen:
        """The first deploy of one that cannot but crash."""
        stack = self._project(delay, policy)
        with Events(stack) as events:
            result = self._ran(stack)
            ended = time.time()
        return Seen(result, ended - events.of("start")[0].at, frozenset(stack.containers()))

    def met(self, delay: float, policy: str, seconds: float) -> list[Seen]:
        """Runs on one that has been in its loop for a while, at random moments over `seconds`."""
        stack = self._project(delay, policy, web=service())
        stack.project.compose("up", "-d")
        while not stack.container("loop")["RestartCount"]:
            time.sleep(0.1)
        before = {name: at["Id"] for name, at in stack.containers().items()}
        seen: list[Seen] = []
        until = time.monotonic() + seconds
        while not seen or time.monotonic() < until:
            time.sleep(random.uniform(0, 3))
            begun = time.time()
            seen.append(Seen(self._ran(stack), time.time() - begun, frozenset(stack.containers())))
            assert {name: at["Id"] for name, at in stack.containers().items()} == before
        assert stack.identities("web") == {f"{stack.name}-web-1": (before[f"{stack.name}-web-1"], self._started(stack))}
        stack.project.compose("down", "-t", "0")
        return seen

    @staticmethod
    def _started(stack: Stack) -> str:
        return str(stack.container("web")["State"]["StartedAt"])

    @staticmethod
    def _ran(stack: Stack) -> dict[str, Any]:
        call = stack.call()
        try:
            result = call.wait(120)
        finally:
            call.process.kill()
        assert not call.stderr, call.stderr
        contract(result)
        return result


def played(loops: Loops, runs: int, seconds: float) -> tuple[dict[float, list[Seen]], dict[float, list[Seen]]]:
    """By delay: `runs` first deploys, and the runs on a loop that is there already."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: dict[float, list[Future[Seen]]] = {delay: [] for delay in DELAYS}
        # The slowest first, so that nobody waits for them alone in the end.
        met = {delay: pool.submit(loops.met, delay, random.choice(POLICIES), seconds) for delay in reversed(DELAYS)}
        for number, delay in itertools.product(range(runs), reversed(DELAYS)):
            begun[delay].append(pool.submit(loops.made, delay, POLICIES[number % len(POLICIES)]))
        made = {delay: [at.result() for at in futures] for delay, futures in begun.items()}
        return made, {delay: future.result() for delay, future in met.items()}


def table(made: dict[float, list[Seen]], met: dict[float, list[Seen]]) -> str:
    lines = ["", "exit delay   new: runs  called ok  seconds from first start    met: runs  called ok  found as"]
    for delay in DELAYS:
        took = sorted(at.seconds for at in made[delay])
        found = ", ".join(sorted({state for at in met[delay] for state in at.found}))
        lines.append(
            f"{delay:>8g} s {len(made[delay]):>12} {passed(made[delay]):>10}"
            f"   {took[0]:>7.1f} .. {took[len(took) // 2]:.1f} .. {took[-1]:.1f}"
            f"{len(met[delay]):>20} {passed(met[delay]):>10}  {found}"
        )
    return "\n".join(lines)


def passed(seen: Sequence[Seen]) -> int:
    return sum(not at.result.get("failed") for at in seen)


def judged(made: dict[float, list[Seen]], met: dict[float, list[Seen]]) -> None:
    for delay in DELAYS:
        for seen in (*made[delay], *met[delay]):
            assert seen.result.get("failed"), f"{delay} s: {seen.said}"
            assert codes(seen.result) & {"container-restarting", "container-exited"}, seen.said
            assert "cannot go on" in seen.said
        for seen in made[delay]:
            assert delay <= seen.seconds, f"{delay} s: found after {seen.seconds:.1f} s"
            assert not seen.left, "a candidate that failed was left behind"
        for seen in met[delay]:
            assert seen.result["changed"] is False
            assert seen.found <= {"flapping", "restarting"}
            assert seen.found, "it was not even named"


@pytest.fixture
def loops(engine: Engine, busybox: str, prefix: str, tmp_path: Path) -> Loops:
    return Loops(engine, prefix, tmp_path)


def test_crash_loops(loops: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    made, met = played(loops, 2, 12)
    with capsys.disabled():
        print(table(made, met))
    judged(made, met)


@pytest.mark.long
def test_crash_loops_twenty_times_each(loops: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    made, met = played(loops, 20, 90)
    with capsys.disabled():
        print(table(made, met))
    judged(made, met)
