# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of module `preflight`: project, engine and registries are looked at side by side, then all is judged.

No check stops another one: what cannot be looked at is a finding too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..engine import disk
from ..engine.compose import Compose
from ..engine.connection import Connection
from ..engine.image_name import Platform, image_name
from ..engine.look import image
from ..engine.model import HEALTHY, Project, public_words, secrets_of
from ..engine.order import Order
from ..engine.registry import Registries
from ..engine.registry_login import Logins
from ..engine.registry_net import Ways
from ..report.finding import ShipshapeError
from ..report.masking import Masker, secret_values
from ..report.result import Report
from . import engine, envfiles, images, mounts, ports, project, resources, scripts, sockets, surroundings
from .images import LOCAL, PULL, Holdings, Need
from .seen import Seen, from_error, graded
from .wanted import Wanted, read

_AT_ONCE = 8
# How long the engine may take to start or stop a container whose ports it holds already or still.
_SETTLING = 15.0


@dataclass(frozen=True)
class Wishes:
    """The options that are about neither engine nor project."""

    order: Order = field(default_factory=Order)
    optional_services: tuple[str, ...] = ()
    require_env: tuple[str, ...] = ()
    disk_free: int = 0


@dataclass(frozen=True)
class Machine:
    """The engine and the machine under it."""

    version: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    containers: tuple[Mapping[str, Any], ...] = ()
    compose: str = ""

    @property
    def platform(self) -> Platform:
        return Platform.of(self.version)


class Preflight:
    """One look at everything that can be known to fail before anything is touched."""

    def __init__(self, connection: Connection, compose: Compose, logins: Callable[[], Logins], wishes: Wishes) -> None:
        self._connection = connection
        self._compose = compose
        self._open_logins = logins
        self._wishes = wishes
        self._found: list[Seen] = []

    def look(self, report: Report) -> None:
        """Fills `report`: findings, worst first, and what was found out besides."""
        with ThreadPoolExecutor(2) as readers:
            machine_awaited = readers.submit(self._machine)
            wanted = read(self._compose)
            machine = machine_awaited.result()
        self._found = [*wanted.found, *self._found]
        needs: list[Need] = []
        holdings = Holdings()
        secrets = self._secrets(wanted)
        if wanted.project is not None and machine.info:
            needs, holdings, logins = self._images(wanted.project, machine)
            secrets |= logins.secrets() if logins else set()
        judged = list(self._judged(wanted, machine, needs, holdings))
        self._found += judged
        report.masker = Masker(secrets)
        report.add(*graded(self._found, self._wishes.optional_services))
        report.values["images"] = images.described(needs, holdings)
        report.values["engine"] = {
            "version": str(machine.version.get("Version") or ""),
            "api_version": str(machine.version.get("ApiVersion") or ""),
            "compose_version": machine.compose,
            "storage_driver": str(machine.info.get("Driver") or ""),
            "platform": str(machine.platform) if machine.version else "",
            "time": str(machine.info.get("SystemTime") or ""),
        }

    # -- looking ----------------------------------------------------------------------------------------------------

    def _try(self, work: Callable[[], Any], otherwise: Any) -> Any:
        """What `work` gives; when it fails that is a finding, and `otherwise` stands for it."""
        try:
            return work()
        except ShipshapeError as error:
            self._found += from_error(error)
            return otherwise

    def _machine(self) -> Machine:
        with ThreadPoolExecutor(1) as readers:
            compose = readers.submit(self._try, self._compose.version, "")
            version = self._try(self._connection.ping, {})
            info = self._try(lambda: self._connection.get("/info"), {}) if version else {}
            listed = self._try(lambda: self._connection.get("/containers/json"), []) if info else []
            return Machine(version, info, tuple(listed), compose.result())

    def _images(self, wanted: Project, machine: Machine) -> tuple[list[Need], Holdings, Logins | None]:
        users = {at.image: at.name for at in wanted.services.values() if at.scale and image_name(at.image)}
        with ThreadPoolExecutor(_AT_ONCE) as readers:
            documents = list(
                readers.map(lambda name: self._try(lambda: image(self._connection, name, users[name]), None), users)
            )
        local = {name: document for name, document in zip(users, documents) if document is not None}
        needs = images.needs(wanted, local, self._wishes.order, machine.platform)
        asked = {need.name: need.platform for need in needs if need.source == PULL and need.name is not None}
        if not asked:
            return needs, Holdings(local), None
        logins = self._try(self._open_logins, None)
        if logins is None:
            return needs, Holdings(local), None
        awaited = {
            wish.service for at in wanted.services.values() for wish in at.depends_on if wish.condition == HEALTHY
        }
        config = [need.name for need in needs if need.name is not None and need.services & awaited]
        return needs, Holdings(local, Registries(Ways.of(machine.info), logins).ask(asked, config)), logins

    def _secrets(self, wanted: Wanted) -> set[str]:
        """Everything that was read and must not be shown."""
        found: set[str] = set()
        if wanted.project is not None:
            found |= secrets_of(wanted.project) | disk.secret_texts(wanted.project)
        for file in (*wanted.files, *wanted.filling):
            for entry in envfiles.entries(file)[0]:
                found.update(secret_values({entry.name: entry.value}))
        return found - public_words(wanted.project) if wanted.project is not None else found

    # -- judging ----------------------------------------------------------------------------------------------------

    def _judged(self, wanted: Wanted, machine: Machine, needs: list[Need], holdings: Holdings) -> Iterator[Seen]:
        yield from engine.versions(machine.version, machine.compose, self._connection.endpoint.api_version)
        yield from engine.storage(machine.info)
        environments = wanted.environments
        if wanted.project is not None:
            yield from envfiles.required(self._wishes.require_env, environments, wanted.values)
            yield from envfiles.placeholders(environments, self._wishes.require_env)
            checks = _healthchecks(needs, holdings)
            yield from project.conditions(wanted.project, checks)
            for need in needs:
                yield from images.judged(need, holdings, machine.platform)
            yield from self._of_the_machine(wanted.project, machine, needs, holdings)
            yield from project.healthchecks(wanted.project, checks)
        elif machine.info and self._connection.local:
            yield from resources.disk(_room(machine), resources.Load(), self._wishes.disk_free)

    def _of_the_machine(
        self, wanted: Project, machine: Machine, needs: list[Need], holdings: Holdings
    ) -> Iterator[Seen]:
        local = self._connection.local
        if machine.info:
            yield from ports.judged(wanted, self._taken(wanted, machine, local=local))
            yield from resources.memory(wanted, int(machine.info.get("MemTotal") or 0))
            yield from self._surroundings(wanted)
        if not local:
            return  # the disk, the files and the scripts are on another machine than this
        if machine.info:
            room = self._try(lambda: _room(machine), None)
            if room is not None:
                yield from resources.disk(room, images.load(needs, holdings), self._wishes.disk_free)
        sources = {mount.source for at in wanted.services.values() for mount in at.file_mounts}
        yield from mounts.judged(wanted, mounts.look(sources))
        yield from self._scripts(wanted, needs, holdings)

    def _taken(self, wanted: Project, machine: Machine, *, local: bool) -> list[tuple[ports.Wanted, str]]:
        """Ports that somebody else has. The engine's own proxy has one for a container; where that does not run, the
        engine is starting or stopping it (a run before this one was killed in the midst of that, say)."""
        containers: Sequence[Mapping[str, Any]] = machine.containers
        patience = time.monotonic() + _SETTLING
        while True:
            taken = _taken(wanted, containers, local=local)
            if time.monotonic() > patience or not any(sockets.PROXY in who for _wish, who in taken):
                return taken
            time.sleep(0.2)
            containers = self._try(lambda: self._connection.get("/containers/json"), containers)

    def _surroundings(self, wanted: Project) -> Iterator[Seen]:
        """Asks the engine only for what the project speaks of: few do."""
        if surroundings.external(wanted, "networks") or surroundings.subnets(wanted):
            there = self._try(lambda: self._connection.get("/networks"), None)
            if there is not None:
                known = {str(entry[key]) for entry in there for key in ("Name", "Id")}
                yield from surroundings.missing(wanted, "networks", known)
                yield from surroundings.overlapping(wanted, there)
        if surroundings.external(wanted, "volumes"):
            listed = self._try(lambda: self._connection.get("/volumes"), None)
            if listed is not None:
                names = {str(entry["Name"]) for entry in listed.get("Volumes") or ()}
                yield from surroundings.missing(wanted, "volumes", names)

    def _scripts(self, wanted: Project, needs: list[Need], holdings: Holdings) -> Iterator[Seen]:
        by_service = {service: need for need in needs for service in need.services}
        found = []
        for service in wanted.services.values():
            need = by_service.get(service.name)
            config = holdings.config(need) if need is not None else None
            found += [(need, script) for script in scripts.look(service, config or {})]
        there: dict[str, Mapping[str, bool]] = {}
        asked: dict[str, set[str]] = {}
        for need, script in found:
            if need is not None and need.image in holdings.local and script.by_name and script.interpreter:
                asked.setdefault(need.image, set()).add(script.interpreter)
        with ThreadPoolExecutor(_AT_ONCE) as readers:
            answers = readers.map(
                lambda name: self._try(
                    lambda: scripts.interpreters(self._connection, holdings.local[name], asked[name]), {}
                ),
                asked,
            )
            there = dict(zip(asked, answers))
        for need, script in found:
            has = there.get(need.image, {}).get(script.interpreter) if need is not None else None
            yield from scripts.judged(script, has)


def _healthchecks(needs: Iterable[Need], holdings: Holdings) -> dict[str, Mapping[str, Any] | None]:
    """What each service's image brings along as its healthcheck; None where that is not known."""
    found: dict[str, Mapping[str, Any] | None] = {}
    for need in needs:
        config = holdings.config(need)
        known = config is not None and (need.source == LOCAL or bool(config))
        for service in need.services:
            found[service] = (config or {}).get("Healthcheck") or {} if known else None
    return found


def _taken(wanted: Project, containers: Sequence[Mapping[str, Any]], *, local: bool) -> list[tuple[ports.Wanted, str]]:
    held = ports.holders(containers)
    listening = sockets.listening() if local else {}
    taken = []
    for wish, who in ports.conflicts(wanted, held, listening):
        inode = next((at for port, at in listening.items() if port.clashes(wish.choices[0])), 0)
        taken.append((wish, who or sockets.process(inode)))
    return taken


def _room(machine: Machine) -> resources.Room:
    path = str(machine.info.get("DockerRootDir") or "/var/lib/docker")
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    status = os.statvfs(path)
    inodes = status.f_favail if status.f_files else None
    return resources.Room(path, status.f_bavail * status.f_frsize, inodes)
