# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what is stable, by looking at a container more than once.

The engine calls a container in a crash loop "running" all the time, so its word is never enough: a container is stable
when over a whole window neither its RestartCount nor its StartedAt has changed, and its healthcheck, if any, passes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..report.finding import CRITICAL, Finding, ShipshapeError
from .connection import Connection, EngineRefusedError
from .observed import Observed, observed

WAIT = "wait"
STABLE = "stable"
FAILED = "failed"

# Often enough to find a crash within a second, rarely enough to cost nothing with 100 containers.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
LOG_LINES = 20


@dataclass(frozen=True)
class Sample:
    """What one look at a container says. `health` is '' where there is no healthcheck."""

    status: str
    restarts: int
    started_at: str
    exit_code: int
    health: str = ""
    error: str = ""

    @classmethod
    def of(cls, container: Observed) -> Sample:
        state = container.state
        health = (state.get("Health") or {}).get("Status", "") if container.has_healthcheck else ""
        return cls(
            container.status,
            container.restart_count,
            str(state.get("StartedAt", "")),
            int(state.get("ExitCode", 0)),
            "" if health == "none" else health,
            str(state.get("Error", "")),
        )


@dataclass(frozen=True)
class Verdict:
    outcome: str
    code: str = ""
    reason: str = ""


def verdict(first: Sample, now: Sample, elapsed: float, window: float, may_complete: bool, allowed: int = 0) -> Verdict:
    """What `now` says of a container first seen as `first`, `elapsed` seconds ago. Pure; all times in seconds.

    Up to `allowed` restarts are no failure; the caller begins the window anew with each (see begun_anew).
    """
    times = now.restarts - first.restarts
    if times > allowed or times < 0 or (now.status == "restarting" and not allowed):
        again = f"restarted {times} time{'s' if times > 1 else ''}" if times > 0 else "is being restarted by the engine"
        # While it runs again the engine says 0, whatever it ended with.
        ended = "" if now.status == "running" and not now.exit_code else f"; last exit code {now.exit_code}"
        return Verdict(FAILED, "container-restarting", f"it {again} within {elapsed:.1f} s{ended}")
    if now.started_at != first.started_at and now.status in ("running", "exited"):
        return Verdict(FAILED, "container-restarting", f"it was started again within {elapsed:.1f} s")
    if now.status == "exited":
        if now.exit_code == 0 and may_complete:
            return Verdict(STABLE)
        return Verdict(FAILED, "container-exited", f"it exited with code {now.exit_code}{_because(now)}")
    if now.status in ("dead", "removing", "gone", "paused"):
        return Verdict(FAILED, f"container-{now.status}", f"it is {now.status}{_because(now)}")
    if now.health == "unhealthy":
        return Verdict(FAILED, "container-unhealthy", "its healthcheck fails")
    if now.status != "running" or now.health == "starting":
        return Verdict(
            WAIT, "container-not-ready", "it is still starting" if now.status == "running" else f"it is {now.status}"
        )
    return Verdict(STABLE) if elapsed >= window else Verdict(WAIT, "container-not-ready", "the window is not over")


def _because(sample: Sample) -> str:
    return f" ({sample.error})" if sample.error else ""


GONE = Sample("gone", 0, "", 0)


def sample(connection: Connection, container_id: str) -> tuple[Sample, Observed | None]:
    try:
        raw: Mapping[str, Any] = connection.get(f"/containers/{container_id}/json")
    except EngineRefusedError as refused:
        if refused.status == 404:
            return GONE, None
        raise
    container = observed(raw)
    return Sample.of(container), container


@dataclass(frozen=True)
class Watched:
    """One container to watch. `first` is what it looked like right after it was started."""

    id: str
    name: str
    service: str
    first: Sample
    since: float  # time.monotonic()
    may_complete: bool
    seen: Sample | None = None  # the look that `first` was made from


def until_stable(
    connection: Connection,
    watched: Sequence[Watched],
    window: float,
    timeout: float,
    restarts_allowed: int = 0,
) -> list[Observed]:
    """Returns when every container of `watched` is stable: those among them that have done their work.

    Raises ShipshapeError for those that are not, at once for the first that fails, or when `timeout` seconds are over.
    Up to `restarts_allowed` restarts only begin a container's window anew."""
    entries = list(watched)
    if window <= 0 and all(_stands(entry) for entry in entries):
        return []  # nothing is to be watched, and what was seen right after the start is enough
    begun, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        # All of them every time: one that was stable may have died while another was still starting.
        seen = []
        for at, known in enumerate(entries):
            now, container = sample(connection, known.id)
            entry = entries[at] = begun_anew(known, now, time.monotonic(), restarts_allowed)
            elapsed = time.monotonic() - entry.since
            said = verdict(entry.first, now, elapsed, window, entry.may_complete, restarts_allowed)
            if said.outcome == FAILED:
                raise failed(connection, entry.service, entry.id, entry.name, said, container)
            seen.append((entry, said, container))
        late = next((look for look in seen if look[1].outcome == WAIT), None)
        if late is None:
            return [container for _one, _said, container in seen if container is not None and container.ended_well]
        if time.monotonic() - begun > timeout + window:
            entry, said, container = late
            too_late = Verdict(FAILED, "container-not-ready", f"after {timeout:g} s {said.reason}")
            raise failed(connection, entry.service, entry.id, entry.name, too_late, container)
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _stands(entry: Watched) -> bool:
    """Whether the look that was had when it was started is enough to call it stable."""
    now = entry.seen
    if now is None or now.status != "running":
        return False  # what has ended already is for the caller to know
    return verdict(entry.first, now, 0.0, 0.0, False).outcome == STABLE


def begun_anew(entry: Watched, now: Sample, at: float, allowed: int) -> Watched:
    """`entry` after a restart that is allowed: its window begins again, its count of restarts does not. Pure."""
    again = now.status == "running" and now.started_at != entry.first.started_at
    if not again or now.restarts - entry.first.restarts > allowed:
        return entry
    if now.restarts == entry.first.restarts:
        return entry  # started again by somebody else: no restart of the engine's
    return replace(entry, first=replace(now, restarts=entry.first.restarts), since=at)


def failed(
    connection: Connection, service: str, container_id: str, name: str, said: Verdict, container: Observed | None
) -> ShipshapeError:
    """The error for a container that did not stand, with its last lines and its last healthcheck's output."""
    lines = last_lines(connection, container_id)
    checks = ((container.state.get("Health") or {}).get("Log") or []) if container else []
    if said.code == "container-unhealthy" and checks:
        lines += [f"healthcheck: {line}" for line in str(checks[-1].get("Output", "")).strip().splitlines()[-3:]]
    message = f"container {name}: {said.reason}"
    if lines:
        message += f"; it said last: {lines[-1].strip()}"
    remedy = "Read its last lines (`logs` in this result), mend the service and run this again"
    return ShipshapeError(Finding(CRITICAL, service, said.code, message, remedy), logs={name: lines})


def last_lines(connection: Connection, container_id: str, number: int = LOG_LINES) -> list[str]:
    """A container's last lines of output, standard error included; empty when the engine cannot give them."""
    try:
        text = connection.sdk().logs(container_id, stdout=True, stderr=True, tail=number)
    except Exception:  # the logs are an extra: whatever hinders them must not hide the failure that they belong to
        return []
    return [line.rstrip() for line in text.decode("utf-8", "replace").splitlines()]
