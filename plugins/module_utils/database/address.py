# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which address a host name means to a service: that of the container which answers to it on a shared network. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.model import Project, Service
from ..engine.observed import Observed

_SELF = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})


@dataclass(frozen=True)
class Address:
    """Where to log in. `ip` is empty when it cannot be told, and `why` says so; `coming`: the server is a service of
    the project whose container does not run, so that a deploy may well be what brings it up. `container` and `service`
    name the server where it is one of the project."""

    ip: str = ""
    why: str = ""
    remedy: str = ""
    coming: bool = False
    container: str = ""
    service: str = ""


def locate(host: str, service: Service, project: Project, containers: Sequence[Observed]) -> Address:
    """What `host` means to a container of `service`. An `ip` that is a name is for this machine's resolver."""
    name = host.lower().rstrip(".")
    owner = _namespace(service, project)
    mode = str(owner.definition.get("network_mode") or "")
    if name in _SELF:
        return _own(host, owner, mode, containers)
    if name in _extra_hosts(owner):
        return Address(_extra_hosts(owner)[name])
    if mode in ("host", "none") or mode.startswith("container:"):
        return Address(host)
    networks = set(owner.networks or ())
    name = _links(owner).get(name, name)
    known = [at for at in containers if name in _names(at, networks) or _ip_of(at, networks) == name]
    running = [at for at in known if at.status == "running" and _ip_of(at, networks)]
    if running:
        return Address(_ip_of(running[0], networks), container=running[0].name, service=running[0].service)
    if known:
        return _down(known[0])
    if _is_ip(name):
        return Address(name)
    return _by_definition(host, name, owner, networks, project, containers)


def _by_definition(
    host: str, name: str, owner: Service, networks: set[str], project: Project, containers: Sequence[Observed]
) -> Address:
    """No container answers to `host` on the service's networks: perhaps one is to come, or is on another network."""
    named = [
        at
        for at in project.services.values()
        if name in {at.name.lower(), (at.container_name or "").lower()}
        or any(name in endpoint.names for endpoint in (at.networks or {}).values())
    ]
    for server in named:
        theirs = set(server.networks or ())
        if networks and not networks & theirs:
            ours, other = ", ".join(sorted(networks)), ", ".join(sorted(theirs)) or "none"
            why = f"service {server.name} shares no network with {owner.name} ({other}; {owner.name} is on {ours})"
            return Address(why=why, remedy="Give both a network in common", service=server.name)
        held = [at for at in containers if at.service == server.name]
        if not held:
            why = f"service {server.name} has no container yet"
            return Address(why=why, remedy="A deploy brings it up", coming=True, service=server.name)
        if held[0].status != "running":
            return _down(held[0])
        why = f"container {held[0].name} is not on the network that the Compose file puts it on"
        return Address(why=why, remedy="A deploy puts it there", coming=True, service=server.name)
    return Address(host)


def _down(container: Observed) -> Address:
    why = f"container {container.name} is {container.status}"
    remedy = f"Look at its log (docker logs {container.name}) and start it"
    return Address(why=why, remedy=remedy, coming=True, container=container.name, service=container.service)


def _own(host: str, owner: Service, mode: str, containers: Sequence[Observed]) -> Address:
    if mode == "host":
        return Address("127.0.0.1" if host.lower() in _SELF else host)
    held = next((at for at in containers if at.service == owner.name and at.status == "running"), None)
    ip = _ip_of(held, set(owner.networks or ())) if held else ""
    if held is None or not ip:
        why = f"{host} is the container of {owner.name} itself, which does not run"
        return Address(why=why, remedy="Name the database's service", coming=True)
    return Address(ip, container=held.name, service=held.service)


def _namespace(service: Service, project: Project) -> Service:
    """The service whose network namespace `service` uses."""
    for _step in range(len(project.services)):
        kind, _dummy, name = str(service.definition.get("network_mode") or "").partition(":")
        if kind != "service" or name not in project.services:
            break
        service = project.services[name]
    return service


def _extra_hosts(service: Service) -> dict[str, str]:
    listed = service.definition.get("extra_hosts") or {}
    if isinstance(listed, Mapping):
        pairs = [(name, value[0] if isinstance(value, list) else value) for name, value in listed.items()]
    else:
        pairs = [entry.replace("=", ":", 1).partition(":")[::2] for entry in listed]
    return {name.lower(): "127.0.0.1" if value == "host-gateway" else value for name, value in pairs}


def _links(service: Service) -> dict[str, str]:
    pairs = [str(entry).partition(":") for entry in service.definition.get("links") or []]
    return {alias.lower(): target.lower() for target, _dummy, alias in pairs if alias}


def _attached(container: Observed, networks: set[str]) -> Iterator[Mapping[str, Any]]:
    seen = (container.raw.get("NetworkSettings") or {}).get("Networks") or {}
    for name in sorted(seen):
        if name in networks:
            yield seen[name] or {}


def _names(container: Observed, networks: set[str]) -> set[str]:
    found: set[str] = set()
    for endpoint in _attached(container, networks):
        found |= {container.name.lower(), container.id[:12]}
        for key in ("Aliases", "DNSNames"):
            found |= {str(entry).lower() for entry in endpoint.get(key) or ()}
    if not found and container.status != "running" and container.service:
        found.add(container.service.lower())  # a container that was never started is on no network yet
    return found


def _ip_of(container: Observed, networks: set[str]) -> str:
    for endpoint in _attached(container, networks):
        ip = endpoint.get("IPAddress") or endpoint.get("GlobalIPv6Address")
        if ip:
            return str(ip)
    return ""


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
