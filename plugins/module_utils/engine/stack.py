# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of module `stack`, in order: model, look, images, plan, successors, converge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.masking import Masker
from ..report.result import Report
from . import applied
from .compose import Compose
from .connection import Connection
from .drift import RECREATE, baked_drift, container_drift, needs_hashes, state_drift
from .health import vacuous
from .lock import locked
from .look import LABEL_HASH, Look, Observed, Wanted, containers, look
from .model import Project, Service, project_from, secrets_of
from .plan import Plan, ServicePlan, Wishes, plan, reused
from .summary import diff, services_summary
from .view_rules import Place, Scene
from .watch import last_lines

_FULL_ID = re.compile(r"\b[0-9a-f]{64}\b")
_NOT_THERE = "it is not on the engine"


@dataclass(frozen=True)
class Order:
    """What is to become of the project: the options of module `stack` that are not about which project."""

    pull: str = "policy"
    build: str = "auto"
    recreate: str = "auto"
    remove_orphans: bool = False
    remove_volumes: bool = False
    stability: float = 10.0
    wait_timeout: float = 300.0
    restarts_allowed: int = 0
    rollback: bool = True
    optional_services: tuple[str, ...] = ()
    protected_services: tuple[str, ...] = ()
    allow_protected: tuple[str, ...] = ()
    wanted: Wanted = field(default_factory=Wanted)
    check: bool = False


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
        report.values.update({"services": {}, "drift": []})

    # -- state: present ---------------------------------------------------------------------------------------------

    def present(self, order: Order) -> None:
        """Brings the project about; in check mode says what that would take."""
        project = self.model()
        if order.check:
            self._converge(project, order)
            return
        with locked(self._connection.endpoint.host, project.name, order.wait_timeout):
            self._converge(project, order)

    def _converge(self, project: Project, order: Order) -> None:
        seen = look(self._connection, project, order.wanted)
        now = self._situation(project, seen, order)
        self._tell(now)
        if now.plan.refusals:
            raise ShipshapeError(*now.plan.refusals)
        if self._provide_images(project, seen, order):
            now = self._situation(project, look(self._connection, project, order.wanted), order)
            self._tell(now)
            if now.plan.refusals:
                raise ShipshapeError(*now.plan.refusals)
        if order.check:
            for action, target, reason in now.plan.announced():
                self._report.planned(action, target, reason)
        elif now.plan.steps or now.plan.tidy or now.plan.removals:
            self._carry_out(now, order)
            self._prove(project, order)

    def _prove(self, project: Project, order: Order) -> None:
        """Looks once more, at everything: what was done must have ended the differences that it was done for."""
        seen = look(self._connection, project, order.wanted)
        self._report.values["services"] = services_summary(project, seen.containers, seen.done)
        stale = [entry for at in seen.containers for entry in stale_files(project, at, seen)]
        down = not_running(project, seen, order)
        if stale or down:
            logs = {at.name: last_lines(self._connection, at.id) for at, _ in down}
            raise ShipshapeError(*stale, *(finding for _, finding in down), logs=logs)
        self._report.add(*remaining(project, seen))

    def look_only(self, order: Order) -> None:
        """What module `stack_info` does: the same look, and nothing else."""
        project = self.model()
        self._tell(self._situation(project, look(self._connection, project, order.wanted), order))

    # -- states: stopped, absent ------------------------------------------------------------------------------------

    def take_down(self, state: str, order: Order) -> None:
        """Stops or removes the project. Its name is enough: the Compose file may be gone already."""
        from .teardown import Teardown

        source = self._compose.source
        nameable = source.name is not None and (
            source.problem() is not None or not (source.directory or source.definition)
        )
        project = Project(source.name or "", {}) if nameable else self.model()
        teardown = Teardown(self._connection, project, self._report, order.check)
        if state == "stopped":
            teardown.stopped(source.services)
        else:
            teardown.absent(source.services, order.remove_volumes)
        self._report.values["services"] = services_summary(project, containers(self._connection, project.name))

    def model(self) -> Project:
        """The wanted state. Raises what is wrong with the project's files."""
        problem = self._compose.source.problem()
        if problem:
            raise ShipshapeError(problem)
        document, warnings = self._compose.model()
        project = project_from(document)
        self._report.masker = Masker(secrets_of(project))
        self._report.add(*warnings)
        asked = set(self._compose.source.profiles) - {"*"}
        unknown = sorted(asked - set(self._compose.profiles())) if asked else []
        if unknown:
            known = ", ".join(sorted(self._compose.profiles())) or "none"
            what = f"no service has the profile {', '.join(unknown)} (profiles in this project: {known})"
            raise failure(self._compose.source.spoken, "profile-unknown", what, "Check `profiles`")
        return project

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
        return {**found, **self._recorded(asked, doubtful)} if asked else found

    def _recorded(self, services: Sequence[str], containers: Sequence[Observed]) -> dict[str, str]:
        from .recorder import Recorder

        scene = Scene({}, {}, hidden=frozenset(at.id for at in containers))
        with Recorder(self._connection, scene) as recorder:
            try:
                self._compose.create(recorder.address, services)
            except ShipshapeError as error:
                # It will be reported in full when the same thing is done in earnest.
                self._report.add(*(replace(finding, severity=WARNING) for finding in error.findings))
        return recorder.hashes

    def _tell(self, now: Situation) -> None:
        self._report.values["drift"] = [entry.as_dict() for entry in now.plan.drift]
        self._report.values["services"] = services_summary(now.project, now.look.containers, now.look.done)
        self._report.diff = diff(now.plan)
        for service in now.project.services.values():
            if vacuous(service.definition.get("healthcheck") or {}):
                what = "its healthcheck passes whatever happens, so it proves nothing"
                how = "Let it ask the service itself, as its users would"
                self._report.add(Finding(WARNING, service.name, "healthcheck-vacuous", what, how))
        for at in now.plan.orphans:
            what = f"container {at.name} belongs to no service of this project any more"
            self._report.add(Finding(WARNING, at.service, "orphan", what, "Set remove_orphans: true to remove it"))

    # -- images -----------------------------------------------------------------------------------------------------

    def _provide_images(self, project: Project, seen: Look, order: Order) -> bool:
        """Builds and pulls what is asked for or missing; whether anything was done."""
        builds = [at for at in project.in_order() if to_build(at, seen, order)]
        pulls = [at for at in project.in_order() if to_pull(at, seen, order)]
        if order.check:
            for verb, services in (("build", builds), ("pull", pulls)):
                # What is merely looked for again may well be unchanged: only a missing image is a sure change.
                for image in dict.fromkeys(at.image for at in services if at.image not in seen.images):
                    self._report.planned(verb, f"image {image}", _NOT_THERE)
            self._require_images(project, seen, without=builds + pulls)
            return False
        for verb, services, work in (("build", builds, self._compose.build), ("pull", pulls, self._compose.pull)):
            if services:
                self._fetch(verb, services, seen, work)
        self._require_images(project, seen, without=builds + pulls)
        return bool(builds or pulls)

    def _require_images(self, project: Project, seen: Look, without: Sequence[Service]) -> None:
        fetched = {at.image for at in without}
        lacking = [at for at in project.services.values() if at.scale and at.image not in {*seen.images, *fetched}]
        if lacking:
            raise ShipshapeError(*(_no_image(at) for at in lacking))

    def _fetch(self, verb: str, services: Sequence[Service], seen: Look, work: Callable[..., None]) -> None:
        import time

        begun = time.monotonic()
        with self._address() as host:
            work(host, [at.name for at in services])
        seconds = time.monotonic() - begun
        after = look(self._connection, Project("", {at.name: at for at in services}))
        for image in dict.fromkeys(at.image for at in services):
            if after.images.get(image) != seen.images.get(image):
                reason = _NOT_THERE if image not in seen.images else "there is a newer one"
                self._report.done(verb, f"image {image}", reason, seconds)

    def _address(self) -> Any:
        """An address of the engine for Compose, as a context: its socket, or a tunnel over whatever the module uses."""
        from contextlib import nullcontext

        return nullcontext(self._connection.local_address())

    # -- carrying out -----------------------------------------------------------------------------------------------

    def _carry_out(self, now: Situation, order: Order) -> None:
        from .converge import Converger, Patience, tidy
        from .injection import Injector

        self._connection.sdk()  # when that is missing it must be known before anything is touched
        tidy(self._connection, now.plan, self._report)
        scene, injected = self._successors(now)
        injector = Injector(self._connection, now.project, self._environment, injected)
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
        self._report.changed = True
        return scene, frozenset(view.injected)

    def _create(self, view: Any, services: Sequence[str]) -> None:
        """`docker compose create` through `view`. What the view refuses is an error, whatever Compose makes of it."""
        try:
            self._compose.create(view.address, services)
        except ShipshapeError:
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

        life = Lifecycle(self._connection, Project("", {}))

        def discard(container_id: str) -> None:
            try:
                life.discard(container_id)
            except ShipshapeError as error:
                self._report.changed = True
                self._report.add(*error.findings)

        for container_id in created:
            discard(container_id)

    def _environment(self) -> Mapping[str, str]:
        return self._compose.environment()


def to_build(service: Service, seen: Look, order: Order) -> bool:
    """Whether the image of `service` is built in this run."""
    if not service.builds or order.build == "never":
        return False
    if order.build == "always" or service.pull_policy == "build" or service.image not in seen.images:
        return True
    return any(
        entry.source not in (None, entry.found) for at in seen.of(service.name) for entry in seen.baked.get(at.id, ())
    )


def to_pull(service: Service, seen: Look, order: Order) -> bool:
    """Whether the image of `service` is looked for in its registry in this run."""
    policy = service.pull_policy if order.pull == "policy" else order.pull
    if service.builds or not service.scale:
        return False
    return policy == "always" or (policy != "never" and service.image not in seen.images)


def not_running(project: Project, seen: Look, order: Order) -> list[tuple[Observed, Finding]]:
    """Containers that were up when they were watched, and are not any more now that the others are. Pure."""
    found = []
    for at in seen.containers:
        service = project.services.get(at.service)
        if service is None or at.service in order.optional_services:
            continue
        for entry in state_drift(service, at, seen.taken, at.id in seen.done):
            if entry.found == "flapping" and order.restarts_allowed:
                continue
            what = f"container {at.name} was up when it was watched, and is {entry.found} now that the others are up"
            how = "Read its last lines (`logs` in this result), mend the service and run this again"
            found.append((at, Finding(CRITICAL, at.service, "service-not-running", what, how)))
    return found


def remaining(project: Project, seen: Look) -> list[Finding]:
    """Differences that are still there after a deploy that went well. Pure."""
    return [
        Finding(
            WARNING,
            entry.service,
            "drift-remains",
            f"{entry.container} was put right, and yet {entry.reason()}",
            "See who or what changes it; the next run will replace it again",
        )
        for at in seen.containers
        if at.service in project.services and at.applied is not None
        for entry in container_drift(project, project.services[at.service], at, seen, {})
        if entry.action == RECREATE
    ]


def stale_files(project: Project, container: Observed, seen: Look) -> list[Finding]:
    """Files of a container that are still not those of the project, although it was replaced. Pure."""
    service = project.services.get(container.service)
    how = "Let its image be built (build: auto), and see that the Dockerfile copies this very file"
    return [
        Finding(
            CRITICAL, container.service, "baked-file-stale", f"{container.name} still has another {entry.field}", how
        )
        for entry in (baked_drift(service, container, seen) if service else ())
    ]


def _no_image(service: Service) -> Finding:
    what = f"its image {service.image} is not on the engine, and may not be built or pulled (build, pull, pull_policy)"
    return Finding(CRITICAL, service.name, "image-not-found", what, "Allow that, or load the image onto the target")


def _unexpected(refused: Sequence[str]) -> ShipshapeError:
    asked = "; ".join(dict.fromkeys(_FULL_ID.sub(lambda found: found[0][:12], request) for request in refused))
    return failure(
        "compose",
        "compose-unexpected-request",
        f"while creating, Compose asked for more than that: {asked}. Nothing was touched",
        "A changed network or volume definition is the usual cause: Compose would stop containers to apply it. "
        "Run `docker compose up -d` by hand once, at a time when that is all right",
    )


def scene_for(now: Situation) -> Scene:
    """What Compose is to see while it creates: everything but what is replaced, removed or left over. Pure."""
    places: dict[str, dict[int, Place]] = {}
    labels: dict[str, dict[str, str]] = {}
    visible: set[str] = set()
    for entry in now.plan.services:
        again = [step.successor for step in entry.creates if step.successor is not None]
        visible |= {at.id for at in (*entry.containers, *again)}
        places[entry.service.name] = _numbered(entry)
        files = {
            target: (file.digest, file.size) for target, file in now.look.files.get(entry.service.name, {}).items()
        }
        labels[entry.service.name] = {applied.LABEL: applied.label(now.project, entry.service, files)}
    ours = {entry.service.name for entry in now.plan.services}
    hidden = frozenset(at.id for at in now.look.containers if at.service in ours) - visible
    return Scene(places, labels, hidden, created=dict(reused(now.plan.services)))


def _numbered(entry: ServicePlan) -> dict[int, Place]:
    """Places of the containers to be created, by the number that Compose will choose: the highest it sees, plus one."""
    seen = [at.number for at in entry.containers]
    seen += [step.place.number for step in entry.creates if step.successor is not None and step.place is not None]
    wanted = [step.place for step in entry.creates if step.successor is None and step.place is not None]
    return dict(enumerate(sorted(wanted, key=lambda place: place.number), max(seen, default=0) + 1))
