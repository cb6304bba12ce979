# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a project needs of the networks and volumes that the engine has: that external ones are there, and that nobody
else has the addresses which it gives its own. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ..engine.model import Project, Service, unescaped
from ..report.finding import CRITICAL
from .seen import Seen, about, seen


def external(project: Project, kind: str) -> dict[str, list[str]]:
    """The external networks or volumes (`kind`) by their names in the engine, each with the services that use it."""
    found: dict[str, list[str]] = {}
    for key, wish in (project.document.get(kind) or {}).items():
        users = [at.name for at in project.services.values() if at.scale and key in _used(at, kind)]
        if (wish or {}).get("external") and users:
            found.setdefault(unescaped(wish.get("name") or key), []).extend(users)
    return found


def _used(service: Service, kind: str) -> set[str]:
    if kind == "networks":
        return set(service.definition.get("networks") or ())
    mounts = service.definition.get("volumes") or ()
    return {str(mount.get("source")) for mount in mounts if mount.get("type") == "volume"}


def missing(project: Project, kind: str, there: Collection[str]) -> Iterator[Seen]:
    """External ones that the engine does not have. `there`: names, and for networks ids."""
    word = kind[:-1]
    for name, users in external(project, kind).items():
        if name not in there:
            what = f"{word} {name} is external to the project, and does not exist on the engine"
            remedy = f"Create it (docker {word} create {name}), or correct its name"
            yield seen(CRITICAL, about(users), "external-missing", what, remedy, users)


def subnets(project: Project) -> dict[str, list[str]]:
    """The addresses that the project gives its own networks, by their names in the engine. Those of a swarm come from
    another book."""
    sections = project.document.get("networks") or {}
    found = {}
    for name, key in project.networks.items():
        wish = sections.get(key) or {}
        ipam = wish.get("ipam") or {}
        pools = ipam.get("config") or []
        if wish.get("driver") != "overlay" and ipam.get("driver", "default") == "default":
            found[name] = [str(pool["subnet"]) for pool in pools if pool.get("subnet")]
    return {name: given for name, given in found.items() if given}


def overlapping(project: Project, there: Iterable[Mapping[str, Any]]) -> Iterator[Seen]:
    """Networks that the engine is going to refuse, for another one has some of their addresses."""
    held = {str(entry["Name"]): list(_held(entry)) for entry in there}
    for name, given in subnets(project).items():
        if name in held:
            continue  # it has its addresses already
        users = [at.name for at in project.services.values() if name in (at.networks or {})]
        for subnet in given:
            other = next((other for other, pools in held.items() if any(_overlap(subnet, at) for at in pools)), "")
            if other:
                what = f"network {name} is to have {subnet}, and network {other} of the engine has addresses of it"
                remedy = f"Give it another subnet, or remove {other} when nobody needs it (docker network rm {other})"
                yield seen(CRITICAL, about(users), "subnet-in-use", what, remedy, users)


def _held(entry: Mapping[str, Any]) -> Iterator[str]:
    ipam = entry.get("IPAM") or {}
    if entry.get("Scope", "local") != "local" or ipam.get("Driver", "default") != "default":
        return
    for pool in ipam.get("Config") or ():
        if pool.get("Subnet"):
            yield str(pool["Subnet"])


def _overlap(one: str, other: str) -> bool:
    try:
        first, second = ipaddress.ip_network(one, strict=False), ipaddress.ip_network(other, strict=False)
    except ValueError:
        return False  # the engine will say what is wrong with it
    return first.version == second.version and first.overlaps(second)
