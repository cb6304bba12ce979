# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From differences to ordered actions. Pure: check mode prints the plan, the converger runs the same object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..report.finding import CRITICAL, Finding
from .drift import (
    CREATE,
    RECREATE,
    RENAME,
    RESUME,
    START,
    WATCH,
    Drift,
    container_drift,
    missing,
    orphan,
    surplus,
)
from .look import Look
from .model import Dependency, Project, Service
from .observed import Observed, place_name
from .resource_drift import resource_drift
from .successor import Inherited, Place, Successor, temporary_name

RESTART = "restart"
REMOVE = "remove"

# What an unfinished replacement left is put right before anything else is done.
LEFT_BEHIND = "left by an interrupted run"


@dataclass(frozen=True)
class Step:
    """One action on one container. `container` is the one that exists, None where one is to be created.

    `place` is where a created one belongs; `successor` is set where an interrupted run has created it already.
    """

    action: str
    target: str
    reason: str
    container: Observed | None = None
    place: Place | None = None
    successor: Observed | None = None

    @property
    def existing(self) -> Observed:
        """The container that exists, for steps that have one."""
        if self.container is None:
            raise ValueError(f"{self.action} {self.target}: a step on no container")
        return self.container

    @property
    def brings_new_container(self) -> bool:
        return self.action in (CREATE, RECREATE)


@dataclass(frozen=True)
class ServicePlan:
    """The steps of one service, and what it waits for. Services without steps are in the plan to be waited for."""

    service: Service
    steps: tuple[Step, ...] = ()
    containers: tuple[Observed, ...] = ()  # those that stay

    @property
    def creates(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.brings_new_container)


@dataclass(frozen=True)
class Plan:
    """Everything that is to be done, in order: tidy, images, networks and volumes, services, removals."""

    project: Project
    tidy: tuple[Step, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    services: tuple[ServicePlan, ...] = ()
    removals: tuple[Step, ...] = ()
    drift: tuple[Drift, ...] = ()
    resource_drift: tuple[Drift, ...] = ()  # of networks and volumes: in `drift` as well
    orphans: tuple[Observed, ...] = ()
    refusals: tuple[Finding, ...] = ()  # why nothing of this may be done

    @property
    def empty(self) -> bool:
        return not (self.tidy or self.networks or self.volumes or self.steps or self.removals)

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for entry in self.services for step in entry.steps)

    def announced(self) -> list[tuple[str, str, str]]:
        """(action, target, reason) of everything, in the order in which it is done."""
        return [
            *((step.action, step.target, step.reason) for step in self.tidy),
            *(("create", f"network {name}", "it does not exist") for name in self.networks),
            *(("create", f"volume {name}", "it does not exist") for name in self.volumes),
            *((step.action, step.target, step.reason) for step in self.steps if step.action != WATCH),
            *((step.action, step.target, step.reason) for step in self.removals),
        ]


@dataclass(frozen=True)
class Wishes:
    """What the caller asks for beyond the project itself: the options of module `stack`."""

    recreate: str = "auto"
    remove_orphans: bool = False
    protected: frozenset[str] = frozenset()  # services whose containers may not be replaced
    partial: bool = False  # only some services were asked for: nothing is said about the others
    known_services: frozenset[str] = frozenset()  # every service of every profile: what is not among them is an orphan


@dataclass
class _Grouped:
    """A service's containers, told apart."""

    standing: list[Observed] = field(default_factory=list)
    successors: dict[str, Observed] = field(default_factory=dict)  # by final name
    tidy: list[Step] = field(default_factory=list)
    unproven: set[str] = field(default_factory=set)  # ids of standing ones that an interrupted run was watching


def plan(project: Project, look: Look, hashes: Mapping[str, str], wishes: Wishes) -> Plan:
    """The plan that brings `project` about from what `look` saw. `hashes`: see drift.needs_hashes."""
    drift: list[Drift] = []
    entries: dict[str, ServicePlan] = {}
    tidy: list[Step] = []
    removals: list[Step] = []
    for service in project.in_order():
        group = _grouped(service, look)
        entry, found, removed, unused = _service_plan(project, service, group, look, hashes, wishes, entries)
        tidy += group.tidy + unused
        removals = removed + removals  # dependents go before what they depend on
        drift += found
        entries[service.name] = entry
    orphans = () if wishes.partial else _orphans(project, look, wishes)
    drift += [orphan(container, wishes.remove_orphans) for container in orphans]
    if wishes.remove_orphans:
        removals = [Step(REMOVE, at.name, orphan(at, True).reason(), at) for at in orphans] + removals
    creates = any(entry.creates for entry in entries.values())
    changed = resource_drift(project, look)
    return Plan(
        project=project,
        tidy=tuple(tidy),
        # Compose makes networks and volumes on its way to a container, and only then.
        networks=tuple(sorted(set(project.networks).difference(look.networks))) if creates else (),
        volumes=tuple(sorted(set(project.volumes).difference(look.volumes))) if creates else (),
        services=tuple(entries.values()),
        removals=tuple(removals),
        drift=tuple(drift + changed),
        resource_drift=tuple(changed),
        orphans=orphans,
        refusals=(*_protected(entries.values(), removals, wishes), *_two_at_once(entries.values())),
    )


def _protected(entries: Iterable[ServicePlan], removals: Sequence[Step], wishes: Wishes) -> list[Finding]:
    """What would be done to services that nothing may be done to unasked."""
    steps = [(entry.service.name, step) for entry in entries for step in entry.steps]
    steps += [(step.container.service, step) for step in removals if step.container is not None]
    return [
        Finding(
            CRITICAL,
            service,
            "protected-service-drift",
            f"{step.target} would have to be {_PAST[step.action]} ({step.reason}), and its service is protected",
            f"Put it back to what it was, or name it for this one run: allow_protected: [{service}]",
        )
        for service, step in steps
        if service in wishes.protected and step.action in _PAST
    ]


_PAST = {RECREATE: "replaced", RESTART: "restarted", REMOVE: "removed"}


def _two_at_once(entries: Iterable[ServicePlan]) -> list[Finding]:
    """Services that want the new container beside the old one, but publish a port that only one of them can have."""
    return [
        Finding(
            CRITICAL,
            entry.service.name,
            "start-first-port",
            f"update_config.order is start-first, but only one container at a time can hold port "
            f"{', '.join(entry.service.published)} of the host",
            "Put a proxy before the service and publish the port there, or use order: stop-first",
        )
        for entry in entries
        if entry.service.update.order == "start-first"
        and entry.service.published
        and any(step.action == RECREATE for step in entry.steps)
    ]


def _grouped(service: Service, look: Look) -> _Grouped:
    """What stands in its place, and what an interrupted replacement (ours or Compose's) has left to put right."""
    group = _Grouped()
    by_name: dict[str, dict[str, Observed]] = {}
    for container in look.of(service.name):
        by_name.setdefault(place_name(container), {})[container.role] = container
    for name, roles in sorted(by_name.items(), key=lambda entry: min(at.number for at in entry[1].values())):
        if _serves_alone(service, roles):
            # Going back to the old one would leave a moment in which neither runs.
            group.tidy.append(Step(REMOVE, roles["old"].name, LEFT_BEHIND, roles.pop("old")))
            group.unproven.add(roles[""].id)
        if "old" in roles and "" in roles:
            # Whether the new one has been proven is not known, and the old one is still there: the names go back, so
            # that the new one is watched again before the old one goes. It keeps running meanwhile.
            if "new" in roles:
                group.tidy.append(Step(REMOVE, roles["new"].name, LEFT_BEHIND, roles["new"]))
            group.tidy.append(Step(RENAME, temporary_name(name), LEFT_BEHIND, roles[""]))
            roles["new"] = roles.pop("")
        standing = roles.get("") or roles.get("old") or roles.get("compose")
        if standing is not None and standing.role:
            # Its successor never took over, so this is still the one that was proven last.
            group.tidy.append(Step(RENAME, name, LEFT_BEHIND, standing))
        if standing is not None:
            group.standing.append(standing)
        if roles.get("compose") not in (None, standing):
            group.tidy.append(Step(REMOVE, roles["compose"].name, LEFT_BEHIND, roles["compose"]))
        if "new" in roles and standing is None:
            group.tidy.append(Step(REMOVE, roles["new"].name, LEFT_BEHIND, roles["new"]))
        elif "new" in roles:
            group.successors[name] = roles["new"]
    return group


def _serves_alone(service: Service, roles: Mapping[str, Observed]) -> bool:
    """Whether a new container was left that runs where the old one does not any more: start-first, that is stopped only
    when the new one is proven."""
    if service.update.order != "start-first" or not {"", "old"} <= roles.keys():
        return False
    return roles[""].status == "running" != roles["old"].status


def _service_plan(
    project: Project,
    service: Service,
    group: _Grouped,
    look: Look,
    hashes: Mapping[str, str],
    wishes: Wishes,
    before: Mapping[str, ServicePlan],
) -> tuple[ServicePlan, list[Drift], list[Step], list[Step]]:
    """(plan, drift, removals, successors that are of no use) of one service."""
    found = {at.id: container_drift(project, service, at, look, hashes) for at in group.standing}
    forced = _forced(service, wishes, before)
    # When there are too many, those go first that must be replaced anyway, then those that do not run, then the newest.
    ranked = sorted(
        group.standing,
        key=lambda at: (any(d.action == RECREATE for d in found[at.id]), bool(found[at.id]), at.number),
    )
    kept = sorted(ranked[: service.scale], key=lambda at: at.number)
    given_up = ranked[service.scale :]
    drift = [entry for at in kept for entry in found[at.id]] + [surplus(service, at) for at in given_up]
    removals = [Step(REMOVE, at.name, surplus(service, at).reason(), at) for at in given_up]
    steps: list[Step] = []
    used: set[str] = set()
    for at in kept:
        counted = [entry for entry in found[at.id] if wishes.recreate != "never" or entry.action != RECREATE]
        step = _step(project, service, at, counted, forced, look, before)
        if step is not None and step.action == RECREATE:
            successor = group.successors.get(step.target)
            if successor is not None and _fits(project, service, successor, look, hashes):
                step = replace(step, successor=successor)
                used.add(successor.id)
        if step is None and at.id in group.unproven:
            step = Step(WATCH, at.name, LEFT_BEHIND, at)
        if step is not None:
            steps.append(step)
    numbers = [at.number for at in kept]
    for number in range(max(numbers, default=0) + 1, max(numbers, default=0) + 1 + service.scale - len(kept)):
        name = service.container(project.name, number)
        drift.append(missing(service, name))
        steps.append(Step(CREATE, name, "it does not exist", place=Place(number, name)))
    unused = [
        Step(REMOVE, temporary_name(name), LEFT_BEHIND, at)
        for name, at in group.successors.items()
        if at.id not in used
    ]
    replaced = {step.container.id for step in steps if step.action == RECREATE and step.container}
    staying = tuple(at for at in kept if at.id not in replaced)
    return ServicePlan(service, tuple(steps), staying), drift, removals, unused


def _forced(service: Service, wishes: Wishes, before: Mapping[str, ServicePlan]) -> str:
    """Why the whole service is replaced although nothing about it differs; '' when it is not."""
    if wishes.recreate == "always":
        return "recreate: always"
    if wishes.recreate == "never":
        return ""
    for name in sorted(service.shares_with):
        if name in before and before[name].creates:
            return f"it shares a namespace or volumes with {name}, which gets a new container"
    return ""


def _step(
    project: Project,
    service: Service,
    container: Observed,
    drift: Sequence[Drift],
    forced: str,
    look: Look,
    before: Mapping[str, ServicePlan],
) -> Step | None:
    reason = ", ".join(dict.fromkeys(entry.reason() for entry in drift))
    actions = {entry.action for entry in drift}
    # A name that somebody gave it by hand is not kept; one that an older Compose gave it is.
    name = service.container(project.name, container.number) if container.applied else place_name(container)
    if forced or RECREATE in actions:
        why = ", ".join(dict.fromkeys(entry.reason() for entry in drift if entry.action == RECREATE))
        mounts = inherited(container, look.image_volumes.get(service.image, frozenset()))
        place = Place(container.number, name, container.id, mounts)
        return Step(RECREATE, name, forced or why, container, place)
    if START in actions:
        return Step(START, name, reason, container)
    if RESUME in actions:
        return Step(RESUME, name, reason, container)
    renewed = [wish.service for wish in service.depends_on if _asks_restart(service, wish, before)]
    if renewed and container.status == "running":
        return Step(RESTART, name, f"{', '.join(sorted(renewed))} is replaced or restarted", container)
    if RENAME in actions:
        return Step(RENAME, name, reason, container)
    if WATCH in actions:
        return Step(WATCH, name, reason, container)
    return None


def _asks_restart(service: Service, wish: Dependency, before: Mapping[str, ServicePlan]) -> bool:
    steps = before[wish.service].steps if wish.service in before else ()
    bound = wish.restart or wish.service in service.shares_with
    return bound and any(step.action in (CREATE, RECREATE, START, RESTART) for step in steps)


def _fits(project: Project, service: Service, successor: Observed, look: Look, hashes: Mapping[str, str]) -> bool:
    """Whether what an interrupted run created is what would be created now."""
    drift = container_drift(project, service, successor, look, hashes)
    return not any(entry.action == RECREATE for entry in drift) and successor.status in ("created", "running")


def inherited(container: Observed, declared: frozenset[str]) -> tuple[Inherited, ...]:
    """The mounts that a successor may take along (see view_rules.with_inherited_volumes)."""
    return tuple(
        Inherited(
            type=mount["Type"],
            source=mount.get("Name") or mount.get("Source", ""),
            target=mount["Destination"],
            read_only=not mount.get("RW", True),
            declared=mount["Destination"] in declared,
        )
        for mount in container.raw.get("Mounts") or []
        if mount["Type"] != "tmpfs"
    )


def _orphans(project: Project, look: Look, wishes: Wishes) -> tuple[Observed, ...]:
    known = wishes.known_services | set(project.services)
    return tuple(at for at in look.containers if at.service not in known)


def reused(entries: Sequence[ServicePlan]) -> dict[str, Successor]:
    """Successors that an interrupted run left and that fit, as the view must know them: by id."""
    return {
        step.successor.id: Successor(step.successor.id, entry.service.name, step.place, step.successor.name)
        for entry in entries
        for step in entry.steps
        if step.successor is not None and step.place is not None
    }
