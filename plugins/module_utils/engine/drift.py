# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why is this recreated? Wanted state and observed state compared, each difference by name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .applied import differences
from .look import LABEL_HASH, Look, Observed
from .model import Project, Service

RECREATE = "recreate"
START = "start"
RESUME = "unpause"
WATCH = "watch"
CREATE = "create"
REMOVE = "remove"

SECRET = "***"


@dataclass(frozen=True)
class Drift:
    """One difference. `kind`: desired, image, state, missing or orphan; `action`: what ends it.

    `wanted` and `found` are in Compose's words; a value that may be secret is `***` on both sides.
    """

    service: str
    container: str
    kind: str
    field: str
    wanted: Any
    found: Any
    action: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def reason(self) -> str:
        """The difference in few words, for an action's `reason`."""
        if self.kind == "desired":
            if self.field == "definition":
                return "the definition changed"
            change = "added" if self.found is None else "removed" if self.wanted is None else "changed"
            return f"{self.field} {change}"
        if self.kind == "image":
            return f"{self.field} now means another image"
        return {"missing": "it does not exist", "orphan": "no service of that name"}.get(
            self.kind, f"it is {self.found}"
        )


def needs_hashes(look: Look) -> bool:
    """Whether Compose's own hashes must be asked for: only where a container bears no label of ours."""
    return any(container.applied is None for container in look.containers)


def container_drift(
    project: Project, service: Service, container: Observed, look: Look, hashes: Mapping[str, str]
) -> list[Drift]:
    """Every difference between `service` and one of its containers."""
    return [
        *definition_drift(project, service, container, hashes),
        *image_drift(service, container, look),
        *state_drift(service, container),
    ]


def definition_drift(project: Project, service: Service, container: Observed, hashes: Mapping[str, str]) -> list[Drift]:
    applied = container.applied
    if applied is None:
        wanted, found = hashes.get(service.name, ""), container.labels.get(LABEL_HASH, "")
        if wanted == found:
            return []  # plain Compose made it, from this very definition
        return [Drift(service.name, container.name, "desired", "definition", wanted, found, RECREATE)]
    return [
        Drift(
            service.name,
            container.name,
            "desired",
            difference.field,
            _shown(difference.wanted, difference.secret),
            _shown(difference.found, difference.secret),
            RECREATE,
        )
        for difference in differences(project, service, applied)
    ]


def _shown(value: Any, secret: bool) -> Any:
    return SECRET if secret and value is not None else value


def image_drift(service: Service, container: Observed, look: Look) -> list[Drift]:
    now = look.images.get(service.image)
    if now is None or now == container.image_id:
        return []
    return [
        Drift(service.name, container.name, "image", service.image, _short(now), _short(container.image_id), RECREATE)
    ]


def _short(image_id: str) -> str:
    return image_id.rpartition(":")[2][:12]


def state_drift(service: Service, container: Observed) -> list[Drift]:
    """Whether it runs, or has done what it was there to do."""
    status = container.status
    if completed(service, container):
        return []
    health = (container.state.get("Health") or {}).get("Status")
    if status == "running":
        if health == "unhealthy":
            return [_state(service, container, "healthy", "unhealthy", WATCH)]
        return []
    if status == "restarting":
        return [_state(service, container, "running", "restarting", WATCH)]
    if status == "paused":
        return [_state(service, container, "running", "paused", RESUME)]
    if status in ("dead", "removing"):
        return [_state(service, container, "running", status, RECREATE)]
    found = f"exited ({container.state.get('ExitCode')})" if status == "exited" else status
    return [_state(service, container, "running", found, START)]


def may_complete(service: Service, container: Observed) -> bool:
    """Whether ending with exit code 0 is what the container is there for.

    A server without a restart policy ends with 0 as well when somebody stops it: one that serves is never "done".
    """
    return service.one_shot or not (service.serves or container.restarts or container.has_healthcheck)


def completed(service: Service, container: Observed) -> bool:
    ended = container.status == "exited" and container.state.get("ExitCode") == 0
    return ended and may_complete(service, container)


def _state(service: Service, container: Observed, wanted: str, found: str, action: str) -> Drift:
    return Drift(service.name, container.name, "state", "state", wanted, found, action)


def missing(service: Service, name: str) -> Drift:
    return Drift(service.name, name, "missing", "container", "running", None, CREATE)


def surplus(service: Service, container: Observed) -> Drift:
    return Drift(service.name, container.name, "desired", "scale", service.scale, container.number, REMOVE)


def orphan(container: Observed) -> Drift:
    return Drift(container.service, container.name, "orphan", "service", None, container.service, REMOVE)
