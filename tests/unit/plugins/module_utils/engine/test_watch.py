# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine import watch
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import EngineRefusedError
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.watch import (
    FAILED,
    STABLE,
    WAIT,
    Sample,
    Watched,
    begun_anew,
    until_stable,
    verdict,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import BEGUN, container

FIRST = Sample("running", 0, "begun", 0)
WINDOW = 10.0


@pytest.mark.parametrize(
    ("now", "elapsed", "may_complete", "outcome", "code"),
    [
        ({}, 10.0, False, STABLE, ""),
        ({}, 9.9, False, WAIT, "container-not-ready"),
        ({}, 10.0, True, STABLE, ""),
        ({"health": "healthy"}, 10.0, False, STABLE, ""),
        ({"health": "healthy"}, 1.0, False, WAIT, "container-not-ready"),
        ({"health": "starting"}, 1.0, False, WAIT, "container-not-ready"),
        ({"health": "starting"}, 100.0, False, WAIT, "container-not-ready"),
        ({"health": "unhealthy"}, 1.0, False, FAILED, "container-unhealthy"),
        ({"status": "created"}, 1.0, False, WAIT, "container-not-ready"),
        ({"status": "created"}, 100.0, False, WAIT, "container-not-ready"),
        ({"status": "paused"}, 1.0, False, FAILED, "container-paused"),
        ({"status": "dead"}, 1.0, False, FAILED, "container-dead"),
        ({"status": "removing"}, 1.0, False, FAILED, "container-removing"),
        ({"status": "gone", "started_at": ""}, 1.0, False, FAILED, "container-gone"),
        ({"status": "exited"}, 1.0, False, FAILED, "container-exited"),
        ({"status": "exited"}, 1.0, True, STABLE, ""),
        ({"status": "exited", "exit_code": 1}, 1.0, True, FAILED, "container-exited"),
        ({"status": "exited", "exit_code": 1}, 1.0, False, FAILED, "container-exited"),
        ({"status": "restarting"}, 1.0, False, FAILED, "container-restarting"),
        ({"status": "restarting"}, 1.0, True, FAILED, "container-restarting"),
        ({"restarts": 1}, 100.0, False, FAILED, "container-restarting"),
        ({"restarts": 1, "status": "exited"}, 100.0, True, FAILED, "container-restarting"),
        ({"restarts": 1, "health": "healthy"}, 100.0, False, FAILED, "container-restarting"),
        ({"started_at": "again"}, 100.0, False, FAILED, "container-restarting"),
        ({"started_at": "again", "health": "healthy"}, 100.0, False, FAILED, "container-restarting"),
    ],
)
def test_every_branch(now, elapsed, may_complete, outcome, code):
    said = verdict(FIRST, replace(FIRST, **now), elapsed, WINDOW, may_complete)
    assert (said.outcome, said.code) == (outcome, code)
    assert bool(said.reason) == (outcome != STABLE)


def test_what_was_restarted_or_started_again_is_never_stable():
    statuses = ["created", "running", "paused", "restarting", "removing", "exited", "dead", "gone"]
    changes = [{"restarts": 1}, {"restarts": 7}, {"started_at": "again"}, {"restarts": 2, "started_at": "again"}]
    for status, health, code, change, before, may_complete, elapsed in itertools.product(
        statuses, ["", "starting", "healthy", "unhealthy"], [0, 1], changes, [0, 3], [False, True], [0.0, 9.0, 1e6]
    ):
        first = replace(FIRST, restarts=before)
        now = replace(first, status=status, health=health, exit_code=code, **change)
        said = verdict(first, now, elapsed, WINDOW, may_complete)
        assert said.outcome != STABLE, (first, now, elapsed, may_complete)


def test_running_is_stable_exactly_when_the_window_is_over():
    for elapsed, window in itertools.product([0.0, 0.1, 9.99, 10.0, 11.0], [0.0, 0.1, 10.0]):
        assert (verdict(FIRST, FIRST, elapsed, window, False).outcome == STABLE) == (elapsed >= window)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"restarts": 1, "exit_code": 3}, "it restarted 1 time within 4.0 s; last exit code 3"),
        ({"restarts": 1}, "it restarted 1 time within 4.0 s"),
        ({"restarts": 1, "status": "restarting"}, "it restarted 1 time within 4.0 s; last exit code 0"),
        ({"restarts": 2, "exit_code": 3}, "it restarted 2 times within 4.0 s; last exit code 3"),
        (
            {"status": "restarting", "exit_code": 127},
            "it is being restarted by the engine within 4.0 s; last exit code 127",
        ),
        ({"status": "exited", "exit_code": 1}, "it exited with code 1"),
        ({"status": "exited", "exit_code": 137, "error": "no such device"}, "it exited with code 137 (no such device)"),
        ({"status": "dead", "error": "driver busy"}, "it is dead (driver busy)"),
        ({"started_at": "again"}, "it was started again within 4.0 s"),
        ({"status": "created"}, "it is created"),
        ({"health": "starting"}, "it is still starting"),
    ],
)
def test_reasons(now, reason):
    assert verdict(FIRST, replace(FIRST, **now), 4.0, WINDOW, False).reason == reason


def test_a_count_that_went_back_is_told_without_negative_numbers():
    """Somebody else's `docker start` sets the count back to 0."""
    said = verdict(replace(FIRST, restarts=3), replace(FIRST, started_at="again"), 4.0, WINDOW, False)
    assert said.outcome == FAILED
    assert "-" not in said.reason


@pytest.mark.parametrize(
    ("state", "sample"),
    [
        ({}, Sample("running", 0, BEGUN, 0)),
        ({"health": "healthy"}, Sample("running", 0, BEGUN, 0, "healthy")),
        ({"health": "none"}, Sample("running", 0, BEGUN, 0, "")),
        (
            {"status": "exited", "code": 3, "restarts": 2, "Error": "why"},
            Sample("exited", 2, BEGUN, 3, error="why"),
        ),
        # A health that was reported before the healthcheck was switched off says nothing.
        ({"Health": {"Status": "unhealthy"}}, Sample("running", 0, BEGUN, 0, "")),
    ],
)
def test_a_sample_of_a_container(state, sample):
    assert Sample.of(container(**state)) == sample


def watched(first=FIRST, since=100.0):
    return Watched("id", "p-web-1", "web", first, since, False)


@pytest.mark.parametrize(
    ("now", "allowed", "anew"),
    [
        ({}, 1, False),
        ({"restarts": 1, "started_at": "again"}, 1, True),
        ({"restarts": 2, "started_at": "again"}, 2, True),
        ({"restarts": 2, "started_at": "again"}, 1, False),
        ({"restarts": 1, "started_at": "again"}, 0, False),
        ({"restarts": 1, "started_at": "again", "status": "restarting"}, 1, False),
        # Somebody else's doing is no restart of the engine's.
        ({"started_at": "again"}, 1, False),
    ],
)
def test_a_restart_that_is_allowed_begins_the_window_anew(now, allowed, anew):
    before, sample = watched(), replace(FIRST, **now)
    after = begun_anew(before, sample, 107.0, allowed)
    assert after == (replace(before, first=replace(sample, restarts=0), since=107.0) if anew else before)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_exactly_so_many_restarts_are_no_failure(allowed):
    entry, clock = watched(since=0.0), 0.0
    for restarts in range(4):
        clock += 3.0
        now = replace(FIRST, restarts=restarts, started_at=f"start {restarts}" if restarts else FIRST.started_at)
        entry = begun_anew(entry, now, clock, allowed)
        early = verdict(entry.first, now, clock - entry.since, WINDOW, False, allowed)
        late = verdict(entry.first, now, clock - entry.since + WINDOW, WINDOW, False, allowed)
        assert (early.outcome, late.outcome) == ((WAIT, STABLE) if restarts <= allowed else (FAILED, FAILED))


def test_between_two_allowed_restarts_it_is_waited_for():
    now = replace(FIRST, status="restarting", restarts=1, exit_code=1)
    assert verdict(FIRST, now, 1.0, WINDOW, False, 1).outcome == WAIT
    assert verdict(FIRST, now, 1.0, WINDOW, False, 0).outcome == FAILED


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Engine:
    """Containers by id, each a list of (second from which it holds, what it looks like then)."""

    def __init__(self, clock, **stories):
        self._clock, self._stories, self.asked = clock, stories, 0

    def get(self, path, **query):
        self.asked += 1
        passed = self._clock.now - 1000.0
        state = [state for since, state in self._stories[path.split("/")[2]] if passed >= since][-1]
        if state is None:
            raise EngineRefusedError(404, path, "No such container")
        return container(**state).raw

    def sdk(self):
        return self

    def logs(self, container_id, **options):
        return f"first of {container_id}\nlast of {container_id}\n".encode()


def looked(monkeypatch, *stories, window=10.0, timeout=60.0, allowed=0, may_complete=False):
    """How watching containers with these stories ends: (seconds, names of those that ended well or the finding)."""
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    names = [f"c{number}" for number in range(len(stories))]
    engine = Engine(clock, **dict(zip(names, stories)))
    entries = [Watched(name, name, "web", Sample("running", 0, BEGUN, 0), 1000.0, may_complete) for name in names]
    try:
        ended = until_stable(engine, entries, window, timeout, allowed)
    except ShipshapeError as error:
        (finding,) = error.findings
        return clock.now - 1000.0, (finding.code, finding.message, error.logs)
    assert engine.asked < 2000
    return clock.now - 1000.0, [entry.name for entry in ended]


def test_all_that_run_on_are_stable_when_the_window_is_over(monkeypatch):
    seconds, ended = looked(monkeypatch, [(0, {})], [(0, {})])
    assert 10.0 <= seconds <= 10.6
    assert ended == []


def test_one_that_becomes_healthy_late_is_waited_for(monkeypatch):
    seconds, _ = looked(monkeypatch, [(0, {"health": "starting"}), (40, {"health": "healthy"})])
    assert 40.0 <= seconds <= 40.6


@pytest.mark.parametrize(
    ("story", "code", "at"),
    [
        ([(0, {}), (3, {"status": "exited", "code": 3})], "container-exited", 3),
        ([(0, {}), (3, {"restarts": 1})], "container-restarting", 3),
        ([(0, {}), (3, {"health": "unhealthy"})], "container-unhealthy", 3),
        ([(0, {}), (3, None)], "container-gone", 3),
        ([(0, {"health": "starting"})], "container-not-ready", 70),
        ([(0, {"status": "created"})], "container-not-ready", 70),
    ],
)
def test_one_that_does_not_stand_is_told_at_once_with_its_last_lines(monkeypatch, story, code, at):
    seconds, (found, message, logs) = looked(monkeypatch, [(0, {})], story)
    assert found == code
    assert at <= seconds <= at + 0.6
    assert message.startswith("container c1: ")
    assert message.endswith("it said last: last of c1")
    assert logs["c1"] == ["first of c1", "last of c1"]


def test_what_a_healthcheck_said_last_is_part_of_the_log(monkeypatch):
    log = [{"Output": "an older one"}, {"Output": "one\ntwo\nthree\nconnection refused\n"}]
    state = {"health": "unhealthy", "Health": {"Status": "unhealthy", "Log": log}}
    _, (_, message, logs) = looked(monkeypatch, [(0, state)])
    assert logs["c0"][-3:] == ["healthcheck: two", "healthcheck: three", "healthcheck: connection refused"]
    assert "connection refused" in message


def test_one_that_has_done_its_work_is_told(monkeypatch):
    job = [(0, {}), (2, {"status": "exited", "code": 0})]
    seconds, ended = looked(monkeypatch, job, may_complete=True)
    assert seconds < 3
    assert len(ended) == 1
    assert looked(monkeypatch, job)[1][0] == "container-exited"


def test_an_allowed_restart_makes_the_window_begin_anew(monkeypatch):
    story = [(0, {}), (3, {"status": "restarting"}), (5, {"restarts": 1, "StartedAt": "again"})]
    seconds, _ = looked(monkeypatch, story, allowed=1)
    assert 15.0 <= seconds <= 16.0
    assert looked(monkeypatch, story)[1][0] == "container-restarting"


@pytest.mark.parametrize("dead", [{"status": "exited", "code": 1}, {"status": "restarting"}, {"restarts": 4}, None])
def test_one_that_dies_while_others_are_waited_for(monkeypatch, dead):
    slow = [(0, {"health": "starting"}), (40, {"health": "healthy"})]
    _, outcome = looked(monkeypatch, [(0, {}), (20, dead)], slow)
    assert outcome, "the first was stable at 10 s and is down at 20 s: the end must not be well"
    assert outcome[0].startswith("container-")
    assert "c0" in outcome[1]


def test_logs_that_cannot_be_had_do_not_hide_the_failure(monkeypatch):
    monkeypatch.setattr(Engine, "logs", lambda *_, **__: 1 / 0)
    _, (code, message, logs) = looked(monkeypatch, [(0, {"status": "exited", "code": 3})])
    assert (code, message, logs) == ("container-exited", "container c0: it exited with code 3", {"c0": []})
