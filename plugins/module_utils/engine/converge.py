# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a plan: a small interpreter of its steps.

Each service is one job of its own. A job waits for what its service depends on, then replaces or starts its containers,
watches them, and either lets the new ones take over or puts everything back. A service that fails stops those that
depend on it, and nobody else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError
from ..report.result import Report
from .connection import Connection
from .drift import RENAME, RESUME, WATCH, may_complete
from .injection import Injector, written_at_creation
from .lifecycle import Lifecycle
from .look import mark_done
from .model import COMPLETED, HEALTHY, Dependency, Service
from .plan import REMOVE, RESTART, Plan, ServicePlan, Step
from .replace import Hands, best_effort, replace_all
from .successor import Successor
from .watch import FAILED, Watched, sample, until_stable, verdict

# Enough to keep every core of the engine's host at work; beyond that they only hinder each other.
_AT_ONCE = 32


@dataclass(frozen=True)
class Patience:
    """How long to look before something counts as stable, and how long to wait for it to get there, in seconds."""

    stability: float = 10.0
    wait_timeout: float = 300.0
    restarts_allowed: int = 0
    rollback: bool = True
    optional: frozenset[str] = frozenset()  # services whose failure is a warning and stops nobody


@dataclass
class _Progress:
    """What the others need to know of a service: its containers once they are started, or that it failed."""

    started: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    containers: list[tuple[str, str]] = field(default_factory=list)  # (id, name)
    failed: bool = False


class DependencyFailedError(Exception):
    """A required dependency did not come up; it has been reported where it failed."""


class Converger:
    """Carries out one plan against one engine."""

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        successors: Sequence[Successor],
        injector: Injector,
        patience: Patience,
        report: Report,
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._patience = patience
        self._report = report
        self._injector = injector
        self._life = Lifecycle(connection, plan.project, report)
        self._successors = {entry.place.name: entry for entry in successors}
        self._new = frozenset(entry.id for entry in successors)
        self._touched = frozenset(entry.service.name for entry in plan.services if entry.steps)
        self._progress = {entry.service.name: _Progress() for entry in plan.services}
        self._gate = threading.BoundedSemaphore(_AT_ONCE)
        self._errors: list[ShipshapeError] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """All services, then the removals. Raises one ShipshapeError with everything that went wrong."""
        with ThreadPoolExecutor(max(1, len(self._plan.services))) as jobs:
            for outcome in [jobs.submit(self._job, entry) for entry in self._plan.services]:
                outcome.result()
        if not self._errors:
            for step in self._plan.removals:
                with self._reported(step):
                    self._life.remove(step.container, stop=True)
        if self._errors:
            raise merged(self._errors)

    # -- one service ------------------------------------------------------------------------------------------------

    def _job(self, entry: ServicePlan) -> None:
        progress = self._progress[entry.service.name]
        try:
            if self._may_begin(entry):
                self._carry_out(entry, progress)
            else:
                progress.failed = True
        except ShipshapeError as error:
            progress.failed = not self._tolerated(entry, error)
        finally:
            progress.started.set()
            progress.finished.set()

    def _may_begin(self, entry: ServicePlan) -> bool:
        """Waits for what the service depends on; when that fails, what was created for the service goes again."""
        try:
            self._await_dependencies(entry)
        except DependencyFailedError:
            self._discard(entry)
            return False
        except ShipshapeError:
            self._discard(entry)
            raise
        return True

    def _tolerated(self, entry: ServicePlan, error: ShipshapeError) -> bool:
        """Takes an error down; whether the others may go on as if it had not happened."""
        if entry.service.name in self._patience.optional:
            self._report.warn(error)
            return True
        with self._lock:
            self._errors.append(error)
        return False

    def _carry_out(self, entry: ServicePlan, progress: _Progress) -> None:
        service = entry.service
        new = [step for step in entry.steps if step.brings_new_container]
        progress.containers = [(at.id, at.name) for at in entry.containers]
        put_right = [self._put_right(service, step) for step in entry.steps if not step.brings_new_container]

        def started(watched: Sequence[Watched]) -> None:
            known = dict(progress.containers)
            progress.containers += [(at.id, at.name) for at in watched if at.id not in known]
            progress.started.set()

        hands = Hands(self._life, self._report, self._successors, self._start_new, self._until_stable)
        others = [watched for watched in put_right if watched is not None]
        replace_all(service, new, hands, others=others, rollback=self._patience.rollback, started=started)

    def _until_stable(self, service: Service, watched: Sequence[Watched]) -> None:
        window = self._patience.stability if service.update.monitor is None else service.update.monitor
        if window > 0:
            self._connection.load_sdk()  # there is time now; when something fails its logs are wanted at once
        patience = self._patience
        ended = until_stable(self._connection, watched, window, patience.wait_timeout, patience.restarts_allowed)
        for container in ended:
            if not service.one_shot:  # what somebody waits for is known to end
                mark_done(self._connection, container)

    def _put_right(self, service: Service, step: Step) -> Watched | None:
        """Starts, restarts, resumes, renames or merely watches a container that stays."""
        container = step.existing
        if step.action == WATCH:
            return self._watch(service, container.id, step.target)
        with self._reported(step), self._gate:
            if step.action == RENAME:
                self._life.rename(container.id, step.target)
                return None
            if step.action == RESUME:
                self._life.unpause(container)
            elif step.action == RESTART:
                self._life.stop(container)
                self._life.start(service, container.id, step.target)
            else:
                # One that has run before has its files already: they are in its own layer.
                if container.status == "created" and not written_at_creation(container.labels):
                    self._injector.inject(service, container.id)
                self._life.start(service, container.id, step.target)
        return self._watch(service, container.id, step.target)

    def _start_new(self, service: Service, step: Step) -> Watched:
        successor = self._successors[step.target]
        with self._gate:
            self._injector.inject(service, successor.id)
            self._life.start(service, successor.id, step.target)
        return self._watch(service, successor.id, step.target)

    def _watch(self, service: Service, container_id: str, name: str) -> Watched:
        first, container = sample(self._connection, container_id)
        ends = container is not None and may_complete(service, container)
        # A container that has already been restarted once when it is first seen has failed once since it was created.
        baseline = replace(first, restarts=0) if container_id in self._new else first
        return Watched(container_id, name, service.name, baseline, time.monotonic(), ends, first)

    def _discard(self, entry: ServicePlan) -> None:
        """Its dependency failed: what was created for it is of no use, what runs is left alone."""
        for step in entry.creates:
            with best_effort(self._report):
                self._life.discard(self._successors[step.target].id)
        if entry.steps:
            self._report.add(
                Finding(
                    WARNING,
                    entry.service.name,
                    "service-skipped",
                    "it was left as it is, because something that it depends on failed",
                    "Mend the dependency and run this again",
                )
            )

    # -- dependencies -----------------------------------------------------------------------------------------------

    def _await_dependencies(self, entry: ServicePlan) -> None:
        if not entry.steps:
            return  # nothing of this service is touched, so it waits for nobody
        for wish in entry.service.depends_on:
            progress = self._progress.get(wish.service)
            if progress is None:
                continue  # optional, and not in the selected profiles
            progress.started.wait()
            if progress.failed:
                if wish.required:
                    raise DependencyFailedError(wish.service)
                continue
            self._await_condition(entry.service, wish, progress)

    def _await_condition(self, service: Service, wish: Dependency, progress: _Progress) -> None:
        if wish.condition not in (HEALTHY, COMPLETED):
            return
        deadline = time.monotonic() + self._patience.wait_timeout
        for container_id, name in progress.containers:
            problem = self._unmet(wish, container_id, deadline, progress)
            if problem and wish.service in self._touched:
                progress.finished.wait()  # whoever watches it has the better words for what went wrong
            if problem and progress.failed and wish.required:
                raise DependencyFailedError(wish.service)
            if problem and wish.service not in self._patience.optional:
                self._dependency_problem(service, wish, name, problem)

    def _unmet(self, wish: Dependency, container_id: str, deadline: float, progress: _Progress) -> str:
        """Waits for one container to meet the condition; says why it did not, or ''."""
        pause = 0.05
        while True:
            now, _dummy = sample(self._connection, container_id)
            if wish.condition == COMPLETED:
                if now.status == "exited":
                    return "" if now.exit_code == 0 else f"it ended with exit code {now.exit_code}"
            elif now.health == "healthy":
                return ""
            elif now.status == "running" and not now.health:
                return "it has no healthcheck, so it can never become healthy"
            said = verdict(now, now, 0.0, 0.0, False)
            if said.outcome == FAILED:
                return said.reason
            if progress.failed:
                return "it failed"
            if time.monotonic() > deadline:
                return f"{self._patience.wait_timeout:g} s were not enough for it to get there"
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _dependency_problem(self, service: Service, wish: Dependency, name: str, problem: str) -> None:
        finding = Finding(
            CRITICAL if wish.required else WARNING,
            service.name,
            "dependency-unmet",
            f"it waits for {wish.service} ({wish.condition}), but of container {name}: {problem}",
            f"Mend {wish.service}, then run this again",
        )
        if wish.required:
            raise ShipshapeError(finding)
        self._report.add(finding)

    # -- reporting --------------------------------------------------------------------------------------------------

    @contextmanager
    def _reported(self, step: Step) -> Iterator[None]:
        with self._report.doing(step.action, step.target, step.reason):
            yield


def tidy(connection: Connection, plan: Plan, report: Report) -> None:
    """What an interrupted run left is put right before anything new is begun."""
    life = Lifecycle(connection, plan.project, report)
    for step in plan.tidy:
        with report.doing(step.action, step.target, step.reason):
            if step.action == RENAME:
                life.rename(step.existing.id, step.target)
            elif step.action == REMOVE:
                # What never ran holds no data: the volumes that were made for it alone would be nobody's.
                life.remove(step.container, stop=True, volumes=step.existing.status == "created")


def merged(errors: Sequence[ShipshapeError]) -> ShipshapeError:
    """Several services failed: one error with all that they said."""
    logs: dict[str, list[str]] = {}
    for error in errors:
        logs.update(error.logs)
    return ShipshapeError(*(finding for error in errors for finding in error.findings), logs=logs)
