# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy that went well must look like afterwards. Pure."""

from __future__ import annotations

from ..report.finding import CRITICAL, WARNING, Finding
from .drift import RECREATE, baked_drift, container_drift, may_complete, state_drift
from .look import Look
from .model import Project
from .observed import Observed
from .order import Order


def not_running(project: Project, before: Look, seen: Look, order: Order) -> list[tuple[Observed, Finding]]:
    """Containers that were up when they were watched, and are not any more now that the others are. One whose last
    restart lies `before` all that has been watched for it. Pure."""
    found = []
    earlier = {(at.id, at.restart_count) for at in before.containers}
    for at in seen.containers:
        service = project.services.get(at.service)
        if service is None or at.service in order.optional_services:
            continue
        if at.ended_well and may_complete(service, at):
            continue  # the watcher has just accepted this very end
        for entry in state_drift(service, at, seen.taken, at.id in seen.done):
            if entry.found == "flapping" and (order.restarts_allowed or (at.id, at.restart_count) in earlier):
                continue
            what = f"container {at.name} was up when it was watched, and is {entry.found} now that the others are up"
            how = "Read its last lines (`logs` in this result), mend the service and run this again"
            found.append((at, Finding(CRITICAL, at.service, "service-not-running", what, how)))
    return found


def ran_well(project: Project, seen: Look) -> dict[str, list[str]]:
    """By service the images whose containers run, or have done their work, with nothing to be said against it. Pure."""
    found: dict[str, list[str]] = {}
    for at in seen.containers:
        service = project.services.get(at.service)
        starting = (at.state.get("Health") or {}).get("Status") == "starting"
        if service is None or at.role or starting:
            continue
        if not state_drift(service, at, seen.taken, at.id in seen.done):
            found.setdefault(at.service, []).append(at.image_id)
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
