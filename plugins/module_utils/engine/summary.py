# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What module `stack` returns about services, and its diff, in the words of the Compose file. Pure."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from typing import Any

from .drift import NONE, Drift, completed
from .model import Project, Service
from .observed import Observed
from .plan import Plan


def services_summary(
    project: Project, containers: Iterable[Observed], done: Container[str] = frozenset()
) -> dict[str, Any]:
    """Per service of the project its state and its containers. `done`: see Look."""
    found: dict[str, list[Observed]] = {name: [] for name in project.services}
    for at in containers:
        if at.service in found:
            found[at.service].append(at)
    return {
        name: {"state": _state(service, found[name], done), "containers": [_container(at) for at in found[name]]}
        for name, service in project.services.items()
    }


def _state(service: Service, containers: list[Observed], done: Container[str]) -> str:
    """The state of the worst-off container: a service with one of three replicas down is not running."""
    states = ["completed" if completed(service, at, at.id in done) else _with_health(at) for at in containers]
    states += ["missing"] * (service.scale - len(containers))
    worst = (
        "missing",
        "dead",
        "removing",
        "restarting",
        "exited",
        "created",
        "paused",
        "unhealthy",
        "starting",
        "running",
    )
    return next((state for state in worst if state in states), states[0] if states else "scaled to 0")


def _with_health(container: Observed) -> str:
    health = (container.state.get("Health") or {}).get("Status")
    return str(health) if container.status == "running" and health in ("unhealthy", "starting") else container.status


def _container(container: Observed) -> dict[str, Any]:
    state = container.state
    return {
        "name": container.name,
        "id": container.id[:12],
        "state": container.status,
        "health": (state.get("Health") or {}).get("Status", "") if container.has_healthcheck else "",
        "restarts": container.restart_count,
        "started_at": state.get("StartedAt", ""),
        "log_since": container.log_since,
        "exit_code": int(state.get("ExitCode", 0)),
        "image": container.raw["Config"].get("Image", ""),
        "image_id": container.image_id.rpartition(":")[2][:12],
    }


def diff(plan: Plan) -> dict[str, str]:
    """Before and after, a line for each difference: `web-1 environment.DEBUG: '1'`."""
    before, after = [], []
    for entry in (entry for entry in plan.drift if entry.kind != "orphan" and entry.action != NONE):
        head = f"{entry.container} {entry.field}" if entry.kind != "image" else f"{entry.container} image {entry.field}"
        # A value that may not be shown still has to differ on both sides, or the change would be invisible.
        found, wanted = _written(entry, entry.found), _written(entry, entry.wanted)
        if found == wanted:
            found, wanted = f"{found} (as applied)", f"{wanted} (changed)"
        before += [f"{head}: {found}"] if entry.found is not None else []
        after += [f"{head}: {wanted}"] if entry.wanted is not None else []
    before += [f"{target}: present" for action, target, _dummy in plan.announced() if action == "remove"]
    after += [
        f"{target}: present" for action, target, _dummy in plan.announced() if action == "create" and " " in target
    ]
    return {"before": "".join(f"{line}\n" for line in before), "after": "".join(f"{line}\n" for line in after)}


def _written(entry: Drift, value: Any) -> str:
    return value if isinstance(value, str) and entry.kind != "desired" else json.dumps(value, ensure_ascii=False)
