# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of module `stack`, in order: model, look, images, plan, successors, converge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from . import applied, history
from .compose import Compose
from .connection import Connection, with_short_ids
from .drift import needs_hashes
from .look import Look, look
from .model import Project
from .notices import notices
from .observed import Observed, containers
from .order import Order
from .plan import Plan, ServicePlan, Wishes, plan, reused
from .resolve import resolved
from .successor import LABEL_HASH, Place
from .summary import diff, services_summary

if TYPE_CHECKING:
    from .aftermath import Traces
    from .view_rules import Scene


@dataclass(frozen=True)
class Situation:
    """Wanted and observed state, and the plan that leads from one to the other."""

    project: Project
    look: Look
    plan: Plan


class Stack:
    """One project on one engine."""

    def __init__(self, connection: Connection, compose: Compose, report: Report) -> None:
        self._connection = connection
        self._compose = compose
        self._report = report
        self._before: Traces | None = None  # what was there when we came
        self._foretelling = False
        report.values.update({"services": {}, "drift": []})

    # -- state: present ---------------------------------------------------------------------------------------------

    def present(self, order: Order) -> None:
        """Brings the project about; in check mode says what that would take."""
        project = self.model()
        if order.check:
            self._converge(project, order)
            return
        from .lock import locked

        with locked(self._connection.endpoint.host, project.name, order.wait_timeout):
            try:
                self._converge(project, order)
            except ShipshapeError:
                self._look_at_the_end(project, order)
                raise

    def foretell(self, project: Project, order: Order) -> None:
        """What it would take to bring about `project`, whose files are not written yet."""
        self._foretelling = True
        self._converge(project, replace(order, check=True))

    def _converge(self, project: Project, order: Order) -> None:
        now = self._planned(project, order)
        if not order.check:
            self._remember(project, now.look)
        from .images import Images

        if Images(self._connection, self._compose, self._report).provide(project, now.look, order):
            now = self._planned(project, order)
        if order.check:
            for action, target, reason in now.plan.announced():
                self._report.planned(action, target, reason)
        elif now.plan.steps or now.plan.tidy or now.plan.removals:
            self._carry_out(now, order)
            self._prove(project, now.look, order)

    def _planned(self, project: Project, order: Order) -> Situation:
        """Looks, plans and tells. Raises when the plan holds what may not be done."""
        from .aftermath import Traces

        now = self._situation(project, look(self._connection, project, order.wanted), order)
        self._before = self._before or Traces.of(now.look, project)
        self._tell(now)
        if now.plan.refusals:
            raise ShipshapeError(*now.plan.refusals)
        return now

    def _prove(self, project: Project, before: Look, order: Order) -> None:
        """Looks once more, at everything: what was done must have ended the differences that it was done for."""
        from .proof import not_running, remaining, stale_files

        seen = look(self._connection, project, order.wanted)
        self._report.values["services"] = services_summary(project, seen.containers, seen.done)
        stale = [entry for at in seen.containers for entry in stale_files(project, at, seen)]
        down = not_running(project, before, seen, order)
        if stale or down:
            from .watch import last_lines

            logs = {at.name: last_lines(self._connection, at.id) for at, _dummy in down}
            raise ShipshapeError(*stale, *(finding for _dummy, finding in down), logs=logs)
        self._report.add(*remaining(project, seen))
        self._remember(project, seen)

    def _remember(self, project: Project, seen: Look) -> None:
        """Which images ran well: they are not to be pruned."""
        from .proof import ran_well

        known = seen.known
        for service, images in ran_well(project, seen).items():
            known = known.with_ran(service, images)
        if known != seen.known and not history.write(self._connection.endpoint.host, project.name, known):
            self._report.add(history.not_kept(project.name))

    def _look_at_the_end(self, project: Project, order: Order) -> None:
        """After a failure: what is there now, and whether that is anything else than before."""
        if order.check or self._before is None:
            return
        try:
            seen = look(self._connection, project)
        except ShipshapeError:
            return  # what was asked for may have happened: `changed` stays as it is
        from .aftermath import Traces

        self._report.values["services"] = services_summary(project, seen.containers, seen.done)
        fetched = any(action.action in ("pull", "build") for action in self._report.actions)
        self._report.changed = fetched or Traces.of(seen, project).differ_from(self._before)

    def look_only(self, order: Order) -> None:
        """What module `stack_info` does: the same look, and nothing else."""
        project = self.model()
        self._tell(self._situation(project, look(self._connection, project, order.wanted), order))

    # -- states: stopped, absent ------------------------------------------------------------------------------------

    def take_down(self, state: str, order: Order) -> None:
        """Stops or removes the project. Its name is enough: the Compose file may be gone already."""
        source = self._compose.source
        nameable = source.name is not None and (
            source.problem() is not None or not (source.directory or source.definition)
        )
        project = Project(source.name or "", {}) if nameable else self.model()
        from .lock import locked

        host = self._connection.endpoint.host
        # What is deployed and removed at the same time would end as neither.
        with nullcontext() if order.check else locked(host, project.name, order.wait_timeout):
            self._take_down(state, project, order)

    def _take_down(self, state: str, project: Project, order: Order) -> None:
        from .teardown import Teardown

        services = self._compose.source.services
        teardown = Teardown(self._connection, project, self._report, order.check)
        before = teardown.traces()
        try:
            if state == "stopped":
                teardown.stopped(services)
            else:
                teardown.absent(services, order.remove_volumes)
        except ShipshapeError:
            with suppress(ShipshapeError):  # an engine that does not answer: what was asked for may have happened
                self._report.changed = teardown.traces().differ_from(before)
            raise
        finally:
            with suppress(ShipshapeError):
                left = containers(self._connection, project.name)
                self._report.values["services"] = services_summary(project, left)

    def model(self) -> Project:
        """The wanted state. Raises what is wrong with the project's files."""
        return resolved(self._compose, self._report)

    def _situation(self, project: Project, seen: Look, order: Order) -> Situation:
        known = frozenset(project.services)
        partial = bool(self._compose.source.services)
        if not partial and any(at.service not in known for at in seen.containers):
            known |= frozenset(self._compose.all_services())
        hashes = self._hashes(project, seen)
        protected = frozenset(order.protected_services) - frozenset(order.allow_protected)
        wishes = Wishes(order.recreate, order.remove_orphans, protected, partial, known)
        return Situation(project, seen, plan(project, seen, hashes, wishes))

    def _hashes(self, project: Project, seen: Look) -> Mapping[str, str]:
        """Compose's own hash of each service that has a container without our label; {} where all have one."""
        if not needs_hashes(seen):
            return {}
        try:
            found = self._compose.hashes(project.document)
        except ShipshapeError:
            found = {}  # Compose cannot read back all that it writes: the recorder below does without
        doubtful = [
            at for at in seen.containers if at.applied is None and at.labels.get(LABEL_HASH) != found.get(at.service)
        ]
        asked = sorted({at.service for at in doubtful} & set(project.services))
        if self._foretelling:
            return found  # Compose itself would read the files as they still are
        return {**found, **self._recorded(asked, doubtful)} if asked else found

    def _recorded(self, services: Sequence[str], containers: Sequence[Observed]) -> dict[str, str]:
        from .recorder import Recorder
        from .view_rules import Scene

        scene = Scene({}, {}, hidden=frozenset(at.id for at in containers))
        with Recorder(self._connection, scene) as recorder:
            try:
                self._compose.create(recorder.address, services)
            except ShipshapeError as error:
                # It will be reported in full when the same thing is done in earnest.
                self._report.add(*(replace(finding, severity=WARNING) for finding in error.findings))
        return recorder.hashes

    def _tell(self, now: Situation) -> None:
        shown = now.plan
        if shown.drift or any(at.role for at in now.look.containers):
            from .veil import old_secrets, veiled

            masker = self._report.masker.knowing(old_secrets(now.project, now.look, shown.drift))
            shown = replace(shown, drift=tuple(veiled(entry, masker) for entry in shown.drift))
            self._report.masker = masker
        self._report.values["drift"] = [entry.as_dict() for entry in shown.drift]
        self._report.values["services"] = services_summary(now.project, now.look.containers, now.look.done)
        self._report.diff = diff(shown)
        self._report.add(*notices(now.plan))

    # -- carrying out -----------------------------------------------------------------------------------------------

    def _carry_out(self, now: Situation, order: Order) -> None:
        from .converge import Converger, Patience, tidy
        from .injection import Injector

        self._connection.need_sdk()  # when it is missing that must be known before anything is touched
        tidy(self._connection, now.plan, self._report)
        scene, injected = self._successors(now)
        injector = Injector(self._connection, now.project, self._compose.environment, injected)
        patience = Patience(
            order.stability,
            order.wait_timeout,
            order.restarts_allowed,
            order.rollback,
            frozenset(order.optional_services),
        )
        successors = list(scene.created.values())
        Converger(self._connection, now.plan, successors, injector, patience, self._report).run()

    def _successors(self, now: Situation) -> tuple[Scene, frozenset[str]]:
        """Has Compose create every new container, beside what runs."""
        scene = scene_for(now)
        names = [entry.service.name for entry in now.plan.services if entry.creates]
        if not any(step.successor is None for entry in now.plan.services for step in entry.creates):
            return scene, frozenset()
        from .view import View

        before = set(scene.created)
        self._report.changed = True  # once a request is on its way nobody can say that nothing changed
        with View(self._connection, scene) as view:
            try:
                self._create(view, names)
                self._check_created(now, scene)
            except ShipshapeError:
                self._undo(set(scene.created) - before)
                raise
            finally:
                for resource in scene.resources:
                    self._report.done("create", resource, "it does not exist", 0.0)
        return scene, frozenset(view.injected)

    def _create(self, view: Any, services: Sequence[str]) -> None:
        """`docker compose create` through `view`. What the view refuses is an error, whatever Compose makes of it."""
        try:
            self._compose.create(view.address, services)
        except ShipshapeError as error:
            if view.scene.rejected:
                raise ShipshapeError(*(_rejected(*entry) for entry in view.scene.rejected)) from error
            if not view.refused:
                raise
        if view.refused:
            raise _unexpected(view.refused)

    def _check_created(self, now: Situation, scene: Scene) -> None:
        """Compose said that it had created everything: look whether it has."""
        made = {successor.place.name for successor in scene.created.values()}
        lacking = sorted({step.target for entry in now.plan.services for step in entry.creates} - made)
        if lacking:
            what = f"Compose reported success, but did not create {', '.join(lacking)}"
            raise failure(
                now.project.name, "container-not-created", what, "Run `docker compose create` by hand and look"
            )

    def _undo(self, created: set[str]) -> None:
        from .lifecycle import Lifecycle
        from .replace import best_effort

        life = Lifecycle(self._connection, Project("", {}), self._report)
        for container_id in created:
            with best_effort(self._report):
                life.discard(container_id)


def _rejected(service: str, words: str) -> Finding:
    """The engine did not accept a service's container: Compose's own message does not say whose."""
    from .compose_words import classified

    code, remedy = classified(words)
    if code == "compose-failed":
        code, remedy = "container-rejected", "Correct that in the definition, or give the engine what it lacks"
    return Finding(CRITICAL, service, code, f"the engine does not create its container: {words}", remedy)


def _unexpected(refused: Sequence[str]) -> ShipshapeError:
    asked = "; ".join(dict.fromkeys(with_short_ids(request) for request in refused))
    return failure(
        "compose",
        "compose-unexpected-request",
        f"while creating, Compose asked for more than that: {asked}. Nothing was touched",
        "A changed network or volume definition is the usual cause: Compose would stop containers to apply it. "
        "Run `docker compose up -d` by hand once, at a time when that is all right",
    )


def scene_for(now: Situation) -> Scene:
    """What Compose is to see while it creates: everything but what is replaced, removed or left over. Pure."""
    from .view_rules import Scene

    places: dict[str, dict[int, Place]] = {}
    labels: dict[str, dict[str, str]] = {}
    visible: set[str] = set()
    for entry in now.plan.services:
        again = [step.successor for step in entry.creates if step.successor is not None]
        visible |= {at.id for at in (*entry.containers, *again)}
        places[entry.service.name] = _numbered(entry)
        # An image that was not built in this run may be older than the files that lie there now.
        image_id = now.look.images.get(entry.service.image)
        build = now.look.known.built_from(entry.service.name, image_id) or now.look.builds.get(entry.service.name, "")
        files = {
            target: (file.digest, file.size) for target, file in now.look.files.get(entry.service.name, {}).items()
        }
        labels[entry.service.name] = {applied.LABEL: applied.label(now.project, entry.service, files, build)}
    ours = {entry.service.name for entry in now.plan.services}
    hidden = frozenset(at.id for at in now.look.containers if at.service in ours) - visible
    return Scene(places, labels, hidden, created=dict(reused(now.plan.services)))


def _numbered(entry: ServicePlan) -> dict[int, Place]:
    """Places of the containers to be created, by the number that Compose will choose: the highest it sees, plus one."""
    seen = [at.number for at in entry.containers]
    seen += [step.place.number for step in entry.creates if step.successor is not None and step.place is not None]
    wanted = [step.place for step in entry.creates if step.successor is None and step.place is not None]
    return dict(enumerate(sorted(wanted, key=lambda place: place.number), max(seen, default=0) + 1))
