# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why is this recreated? Wanted state and observed state compared, each difference by name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .applied import differences, keyed
from .disk import MountedFile
from .look import Look
from .model import Endpoint, Project, Service
from .observed import Observed
from .successor import LABEL_HASH, UPDATABLE, updatable

RECREATE = "recreate"
START = "start"
RESUME = "unpause"
WATCH = "watch"
CREATE = "create"
REMOVE = "remove"

RENAME = "rename"
NONE = "none"

SECRET = "***"
# `docker update` cannot unset anything else: a value that is not there is one that the engine never took.
_REMOVABLE = frozenset({"RestartPolicy", "PidsLimit"})
# Fields of a definition that say which networks a container is in; `definition` may be about anything.
_NETWORKING = frozenset({"networks", "network_mode", "definition"})
# The engine's words for a fixed address.
_ADDRESSES = {"ipv4_address": "IPv4Address", "ipv6_address": "IPv6Address"}
# One that the engine restarted and that has not run for longer than this may be in a crash loop: only watching tells.
_FLAPPING = 60.0


@dataclass(frozen=True)
class Drift:
    """One difference. `kind`: desired, image, baked, content, runtime, filesystem, state, missing or orphan; `action`:
    what ends it.

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
        return {
            "missing": "it does not exist",
            "orphan": "no service of that name",
            "baked": f"{self.field} is not the one in the project",
            "content": f"the content of {self.field} changed",
            "filesystem": f"{self.field} changed inside the container",
            "runtime": f"{self.field} was changed by hand",
        }.get(self.kind, f"it is {self.found}")


def needs_hashes(look: Look) -> bool:
    """Whether Compose's own hashes must be asked for: only where a container bears no label of ours."""
    return any(container.applied is None for container in look.containers)


def container_drift(
    project: Project, service: Service, container: Observed, look: Look, hashes: Mapping[str, str]
) -> list[Drift]:
    """Every difference between `service` and one of its containers."""
    defined = definition_drift(project, service, container, hashes)
    networked = any(entry.field.partition(".")[0] in _NETWORKING for entry in defined)
    return [
        *defined,
        *image_drift(service, container, look),
        *baked_drift(service, container, look),
        *content_drift(service, container, look),
        *runtime_drift(project, service, container),
        # Where the file has changed them, nobody can tell what was done by hand.
        *([] if networked else network_drift(project, service, container)),
        *filesystem_drift(service, container, look),
        *state_drift(service, container, look.taken, container.id in look.done),
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


def _short(digest: str | None) -> str | None:
    return digest and digest.rpartition(":")[2][:12]


def baked_drift(service: Service, container: Observed, look: Look) -> list[Drift]:
    """A file that was built into the image is not the one in the project any more."""
    return [
        Drift(service.name, container.name, "baked", state.path, _short(state.source), _short(state.found), RECREATE)
        for state in look.baked.get(container.id, ())
        if state.source is not None and state.source != state.found
    ]


def content_drift(service: Service, container: Observed, look: Look) -> list[Drift]:
    """A mounted file changed since the container was created, or was replaced and is still the old one in there."""
    applied = container.applied
    found = []
    for target, file in look.files.get(service.name, {}).items():
        known = applied.files.get(target) if applied else None
        inside = look.inside.get(container.id, {}).get(target)
        if applied and known and keyed(applied.key, file.digest) != known[0]:
            if not (inside in (None, file.inode) and _is_data(file, applied.key, known[0])):
                values = keyed(applied.key, file.digest)[1:13], known[0][1:13]
                found.append(Drift(service.name, container.name, "content", file.mount.field, *values, RECREATE))
        elif inside is not None and inside != file.inode:
            values = "the file on the disk", "the one that it replaced"
            found.append(Drift(service.name, container.name, "content", file.mount.field, *values, RECREATE))
    return found


def _is_data(file: MountedFile, key: str, before: str) -> bool:
    """A file that the application itself writes (a database, a log) changes all the time, and that is no drift."""
    return not file.mount.read_only and (file.binary or keyed(key, file.prefix) == before)


def runtime_drift(project: Project, service: Service, container: Observed) -> list[Drift]:
    """The live container is not as it was created: updated, renamed, connected or disconnected by hand."""
    found: list[Drift] = []
    applied = container.applied
    if (
        applied is not None
        and not container.role
        and applied.definition.get("container_name") == service.container_name
    ):
        name = service.container(project.name, container.number)
        if container.name != name:
            found.append(_runtime(service, container, "container_name", name, container.name, RENAME))
    created = container.created_with
    if created is not None:
        live = updatable(container.raw["HostConfig"])
        if created.get("Memory"):  # from which the engine derives the swap limit where none is given
            created = {"MemorySwap": 2 * created["Memory"], **created}
        found += [
            _runtime(service, container, UPDATABLE[key], *_in_units(key, created, live), RECREATE)
            for key in sorted({*created, *live})
            if created.get(key) != live.get(key) and (key in live or key in _REMOVABLE)
        ]
    return found


def _in_units(key: str, created: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[Any, Any]:
    """The value of `key` on both sides, as Compose counts it."""
    if key != "NanoCpus":
        return created.get(key), live.get(key)
    return created.get(key, 0) / 1e9 or None, live.get(key, 0) / 1e9 or None


def network_drift(project: Project, service: Service, container: Observed) -> list[Drift]:
    """Connected, disconnected or connected otherwise by hand: at another address, without a name that it must have."""
    live = (container.raw.get("NetworkSettings") or {}).get("Networks") or {}
    if service.networks is None or not live:
        return []
    found = []
    for name in sorted({*service.networks, *live}):
        wish, endpoint = service.networks.get(name), live.get(name)
        key = f"networks.{wish.key if wish else project.networks.get(name, name)}"
        if name not in live:
            found.append(_runtime(service, container, key, "connected", None, RECREATE))
        elif wish is None:
            found.append(_runtime(service, container, key, None, "connected", RECREATE))
        else:
            found += [
                _runtime(service, container, f"{key}.{field}", wanted, seen, RECREATE)
                for field, wanted, seen in _endpoint_drift(wish, endpoint or {})
            ]
    return found


def _endpoint_drift(wish: Endpoint, live: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    lost = sorted(wish.names - _names_in(live))
    if lost:
        yield "aliases", lost, None
    for field, wanted in wish.addresses.items():
        seen = (live.get("IPAMConfig") or {}).get(_ADDRESSES[field])
        if seen != wanted:
            yield field, wanted, seen


def _names_in(endpoint: Mapping[str, Any]) -> set[str]:
    return {*(endpoint.get("Aliases") or ()), *(endpoint.get("DNSNames") or ())}


def _runtime(service: Service, container: Observed, name: str, wanted: Any, found: Any, action: str) -> Drift:
    return Drift(service.name, container.name, "runtime", name, wanted, found, action)


def filesystem_drift(service: Service, container: Observed, look: Look) -> list[Drift]:
    """Something below a watched path was changed inside the container."""
    return [
        Drift(service.name, container.name, "filesystem", path, "as in the image", "changed", RECREATE)
        for path in look.changes.get(container.id, ())
    ]


def state_drift(service: Service, container: Observed, now: float = 0.0, done: bool = False) -> list[Drift]:
    """Whether it runs, or has done what it was there to do. `now` in seconds since the epoch; `done`: see completed."""
    status = container.status
    if completed(service, container, done):
        return []
    health = (container.state.get("Health") or {}).get("Status")
    if status == "running":
        if health == "unhealthy":
            return [_state(service, container, "healthy", "unhealthy", WATCH)]
        if container.restart_count and 0 <= now - container.started < _FLAPPING:
            return [_state(service, container, "running", "flapping", WATCH)]
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


def completed(service: Service, container: Observed, done: bool) -> bool:
    """A container that has done what it was there to do. `done`: it was seen to end by itself (Look.done); without that
    only one whose end somebody waits for counts, for a worker that somebody stopped politely ends with 0 as well."""
    return container.ended_well and may_complete(service, container) and (service.one_shot or done)


def _state(service: Service, container: Observed, wanted: str, found: str, action: str) -> Drift:
    return Drift(service.name, container.name, "state", "state", wanted, found, action)


def missing(service: Service, name: str) -> Drift:
    return Drift(service.name, name, "missing", "container", "running", None, CREATE)


def surplus(service: Service, container: Observed) -> Drift:
    return Drift(service.name, container.name, "desired", "scale", service.scale, container.number, REMOVE)


def orphan(container: Observed, remove: bool) -> Drift:
    action = REMOVE if remove else NONE
    return Drift(container.service, container.name, "orphan", "service", None, container.service, action)
