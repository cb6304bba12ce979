# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filtered view of the engine does with each request: pure decisions and rewritings, no I/O.

While `docker compose create` runs against the view, the containers that are to be replaced are hidden from it, so it
creates their successors as if there were none. Everything that Compose may need for creating is let through; everything
that would touch what already runs is refused, because a Compose that does that is one whose behaviour nobody has seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .successor import (
    LABEL_CREATED,
    LABEL_HASH,
    LABEL_NUMBER,
    LABEL_SERVICE,
    Inherited,
    Place,
    Successor,
    temporary_name,
    updatable,
)


class Rule(Enum):
    """What to do with one request."""

    FORWARD = "forward"
    LIST = "list containers"
    INSPECT = "inspect a container"
    LASTING = "what does not change meanwhile"
    CREATE = "create a container"
    CONNECT = "connect a network"
    INJECT = "write into a container"
    RESOURCE = "create a network or volume"
    RESOURCES = "look at networks or volumes"
    REFUSE = "refuse"


_VERSION = re.compile(r"^/v\d+\.\d+(?=/)")
_INSPECT = re.compile(r"^/containers/(?P<id>[^/]+)/json$")
_ARCHIVE = re.compile(r"^/containers/(?P<id>[^/]+)/archive$")
_CONNECT = re.compile(r"^/networks/(?P<id>[^/]+)/connect$")
# What creating may need beside the container itself.
_RESOURCE = re.compile(r"^/(?P<kind>network|volume)s/create$")
_RESOURCES = re.compile(r"^/(networks|volumes)(/[^/]+)?$")
_LASTING = re.compile(r"^/(info|images/.+/json)$")
_IMAGES = re.compile(r"^/(images/create|images/load|build|session|grpc|auth)$")


def rule(method: str, path: str) -> tuple[Rule, str]:
    """(rule, what the path names: a container's or network's id, a kind of resource, or ''). `path` has no query."""
    path = _VERSION.sub("", path)
    if method in ("GET", "HEAD"):
        if path == "/containers/json":
            return Rule.LIST, ""
        if _RESOURCES.match(path):
            return Rule.RESOURCES, ""
        if _LASTING.match(path):
            return Rule.LASTING, ""
        found = _INSPECT.match(path)
        return (Rule.INSPECT, found["id"]) if found else (Rule.FORWARD, "")
    if method == "POST":
        if path == "/containers/create":
            return Rule.CREATE, ""
        if _IMAGES.match(path):
            return Rule.FORWARD, ""
        found = _RESOURCE.match(path)
        if found:
            return Rule.RESOURCE, found["kind"]
        found = _CONNECT.match(path)
        if found:
            return Rule.CONNECT, found["id"]
    if method == "PUT":
        found = _ARCHIVE.match(path)
        if found:
            return Rule.INJECT, found["id"]
    return Rule.REFUSE, ""


@dataclass
class Scene:
    """What Compose is to see and what becomes of what it creates. Filled by the planner, used by the view.

    `places`: per service, by the container number that Compose will choose on its own.
    `labels`: per service, the labels to add. `hidden`: ids that Compose must not see.
    """

    places: Mapping[str, Mapping[int, Place]]
    labels: Mapping[str, Mapping[str, str]]
    hidden: frozenset[str] = frozenset()
    created: dict[str, Successor] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)  # (service, the engine's words)
    resources: list[str] = field(default_factory=list)  # "network NAME", "volume NAME", as they were created

    def listed(self, containers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """A container list without the hidden ones, successors under the names that they are going to have."""
        seen = []
        for container in containers:
            if container["Id"] in self.hidden:
                continue
            successor = self.created.get(container["Id"])
            seen.append({**container, "Names": [f"/{successor.place.name}"]} if successor else container)
        return seen

    def inspected(self, container: Mapping[str, Any]) -> Mapping[str, Any]:
        successor = self.created.get(container.get("Id", ""))
        return {**container, "Name": f"/{successor.place.name}"} if successor else container


def as_wanted(answer: Any) -> Any:
    """Networks and volumes without the hash of their definition. Compose since 2.30 replaces those whose hash is not
    the one that it would give them now, and stops containers for that; without one it takes them as they are."""
    if isinstance(answer, list):
        return [as_wanted(entry) for entry in answer]
    if answer.get("Labels"):
        return {**answer, "Labels": {key: value for key, value in answer["Labels"].items() if key != LABEL_HASH}}
    return {**answer, "Volumes": as_wanted(answer["Volumes"])} if answer.get("Volumes") else answer


class UnexpectedCreationError(Exception):
    """Compose asks for a container that the plan does not know."""


def creation(scene: Scene, name: str, body: Mapping[str, Any]) -> tuple[str, dict[str, Any], str, Place]:
    """The request that the engine gets instead of Compose's: (name, body, service, place)."""
    labels = dict(body.get("Labels") or {})
    service = labels.get(LABEL_SERVICE, "")
    try:
        place = scene.places[service][int(labels[LABEL_NUMBER])]
    except (KeyError, ValueError):
        raise UnexpectedCreationError(f"container {name!r} of service {service!r}") from None
    added = {**scene.labels.get(service, {}), LABEL_NUMBER: str(place.number), LABEL_CREATED: created_with(body)}
    changed = {**body, "Labels": {**labels, **added}}
    networking = body.get("NetworkingConfig") or {}
    endpoints = networking.get("EndpointsConfig") or {}
    if name != place.name and endpoints:
        renamed = {network: with_alias(endpoint, name, place.name) for network, endpoint in endpoints.items()}
        changed["NetworkingConfig"] = {**networking, "EndpointsConfig": renamed}
    if place.replaces:
        changed["HostConfig"] = with_inherited_volumes(changed, place.mounts)
    return (temporary_name(place.name) if place.replaces else place.name), changed, service, place


def created_with(body: Mapping[str, Any]) -> str:
    """The updatable part of a creation, for LABEL_CREATED."""
    return json.dumps(updatable(body.get("HostConfig") or {}), separators=(",", ":"), sort_keys=True)


def with_alias(endpoint: Mapping[str, Any] | None, before: str, after: str) -> Mapping[str, Any] | None:
    """Endpoint settings in which the container's own name, which Compose adds as an alias, is its final one."""
    if not endpoint or not endpoint.get("Aliases"):
        return endpoint
    return {**endpoint, "Aliases": [after if alias == before else alias for alias in endpoint["Aliases"]]}


def with_inherited_volumes(body: Mapping[str, Any], mounts: Sequence[Inherited]) -> dict[str, Any]:
    """HostConfig with the replaced container's data, where the new one would otherwise get fresh anonymous volumes.

    That is, as in Compose: at a path that the service mounts without naming a source, and at a path that the image
    declares a volume and the service leaves alone.
    """
    host = dict(body.get("HostConfig") or {})
    free = {mount.target: mount for mount in mounts}
    result = []
    for mount in host.get("Mounts") or []:
        before = free.pop(mount.get("Target"), None)
        anonymous = mount.get("Type") == "volume" and not mount.get("Source")
        result.append(before.as_mount() if before and anonymous else mount)
    for target in [_bind_target(bind) for bind in host.get("Binds") or []] + list(host.get("Tmpfs") or {}):
        free.pop(target, None)
    result += [mount.as_mount() for mount in free.values() if mount.declared]
    if result:
        host["Mounts"] = result
    return host


def _bind_target(bind: str) -> str:
    parts = bind.split(":")
    return parts[1] if len(parts) > 1 else parts[0]
