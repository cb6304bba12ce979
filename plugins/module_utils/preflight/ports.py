# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports of the host the services want, and who has them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine.model import Project, Service
from ..report.finding import CRITICAL
from .seen import Seen, about, seen

_ANYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Port:
    """One port of the host. `address` is '' for all of its addresses."""

    address: str
    number: int
    protocol: str = "tcp"

    def clashes(self, other: Port) -> bool:
        """Whether only one of the two can be had."""
        if (self.number, self.protocol) != (other.number, other.protocol):
            return False
        # Whoever listens on all addresses of one family keeps the other's to themselves as well, by default.
        return self.address == other.address or self.address in _ANYWHERE or other.address in _ANYWHERE

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.number}/{self.protocol}".lstrip(":")


@dataclass(frozen=True)
class Wanted:
    """A port that a service publishes: one of `choices` will do."""

    service: str
    choices: tuple[Port, ...]

    def __str__(self) -> str:
        first, last = self.choices[0], self.choices[-1]
        return str(first) if first == last else f"{str(first).partition('/')[0]}-{last.number}/{last.protocol}"


@dataclass(frozen=True)
class Holder:
    """Who has a port. `who` names it for a message; `project` and `service` are '' for what is no container of ours."""

    port: Port
    who: str
    project: str = ""
    service: str = ""


def wanted(services: Iterable[Service]) -> list[Wanted]:
    """The fixed ports of services that are to have a container."""
    found = []
    for service in services:
        for entry in service.definition.get("ports") or [] if service.scale else []:
            numbers = _numbers(str(entry.get("published") or ""))
            protocol, address = str(entry.get("protocol") or "tcp"), str(entry.get("host_ip") or "")
            if numbers:
                found.append(Wanted(service.name, tuple(Port(address, number, protocol) for number in numbers)))
    return found


def _numbers(published: str) -> range:
    first, _dash, last = published.partition("-")
    if not first.isdigit() or not (last or first).isdigit() or int(first) == 0:
        return range(0)
    return range(int(first), int(last or first) + 1)


def holders(containers: Iterable[Mapping[str, Any]]) -> list[Holder]:
    """The ports that running containers publish, out of the engine's list of them."""
    found = []
    for entry in containers:
        labels = entry.get("Labels") or {}
        project = labels.get("com.docker.compose.project", "")
        service = labels.get("com.docker.compose.service", "")
        name = (entry.get("Names") or ["/?"])[0].lstrip("/")
        who = f"container {name}" + (f" of project {project}" if project else "")
        for port in entry.get("Ports") or []:
            if port.get("PublicPort"):
                at = Port(str(port.get("IP") or ""), int(port["PublicPort"]), str(port.get("Type") or "tcp"))
                found.append(Holder(at, who, project, service))
    return found


def conflicts(project: Project, held: Collection[Holder], sockets: Collection[Port]) -> Iterator[tuple[Wanted, str]]:
    """What cannot be had, with who has it; '' for a process, which only its socket is known of.

    What containers of this very project hold they will give up or keep, as the deploy wants it.
    """
    own = [holder.port for holder in held if holder.project == project.name]
    others = [holder for holder in held if holder.project != project.name]
    for wish in wanted(project.services.values()):
        blocked = {port: _who(port, own, others, sockets) for port in wish.choices}
        holders = [who for who in blocked.values() if who is not None]
        if holders and len(holders) == len(blocked):
            yield wish, holders[0]


def _who(port: Port, own: Collection[Port], others: Collection[Holder], sockets: Collection[Port]) -> str | None:
    for holder in others:
        if holder.port.clashes(port):
            return holder.who
    # The engine's own proxy listens on what a container publishes.
    if any(mine.clashes(port) for mine in own):
        return None
    return "" if any(socket.clashes(port) for socket in sockets) else None


def judged(project: Project, taken: Iterable[tuple[Wanted, str]]) -> Iterator[Seen]:
    """Findings: ports that others have, and ports that the project's own services take from each other."""
    for wish, who in taken:
        what = f"port {wish} of the host, which it publishes, is held by {who}"
        how = "Stop that, or publish another port"
        yield seen(CRITICAL, wish.service, "port-in-use", what, how)
    wishes = [wish for wish in wanted(project.services.values()) if len(wish.choices) == 1]
    for at, wish in enumerate(wishes):
        for other in wishes[at + 1 :]:
            if other.service != wish.service and wish.choices[0].clashes(other.choices[0]):
                both = {wish.service, other.service}
                what = f"both publish port {wish} of the host, which only one can have"
                yield seen(CRITICAL, about(both), "port-conflict", what, "Publish another port for one of them", both)
    for wish in wanted(project.services.values()):
        count = project.services[wish.service].scale
        if count > len(wish.choices):
            what = f"its {count} containers all publish port {wish} of the host, which only one can have"
            how = "Publish a range (8000-8010:80) or no fixed port, and put a proxy before them"
            yield seen(CRITICAL, wish.service, "port-conflict", what, how)
