# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States `stopped` and `absent`: what belongs to the project, told by Compose's own labels, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..report.finding import ShipshapeError, failure
from ..report.result import Report
from .aftermath import Traces
from .connection import Connection, EngineRefusedError, path_segment
from .lifecycle import Lifecycle, refused
from .model import Project
from .observed import LABEL_DEPENDS_ON, LABEL_PROJECT, Observed, containers

_AT_ONCE = 8
_GONE = 404
_ANONYMOUS = re.compile(r"^[0-9a-f]{64}$")
_REASON = "the project is to be absent"


def waves(found: Sequence[Observed]) -> list[list[Observed]]:
    """Containers in the order in which they are stopped: each wave only after everything that depends on it. Pure.

    The order is that of Compose's label on the containers, so that it is known even when the Compose file is gone.
    """
    needs: dict[str, set[str]] = {}
    for at in found:  # one started by `docker compose run` may lack the label that the others of its service have
        needs.setdefault(at.service, set()).update(_needs(at))
    depth: dict[str, int] = {}

    def visit(service: str, below: int, path: tuple[str, ...]) -> None:
        if service in path or service not in needs:
            return  # a circle cannot be ordered, and Compose would not have started it
        if below <= depth.get(service, -1):
            return  # there is a longer way to it, so its needs are known already
        depth[service] = below
        for needed in needs[service]:
            visit(needed, below + 1, (*path, service))

    for service in needs:
        visit(service, 0, ())
    return [[at for at in found if depth[at.service] == level] for level in sorted(set(depth.values()))]


def _needs(container: Observed) -> set[str]:
    entries = container.labels.get(LABEL_DEPENDS_ON, "")
    return {entry.partition(":")[0] for entry in entries.split(",") if entry}


def anonymous_volumes(found: Iterable[Observed]) -> dict[str, str]:
    """Volumes that have no name but the engine's, and what to call them instead. The engine removes one with the
    container that it was made for, but not with one that has it from a predecessor. Pure."""
    return {
        mount["Name"]: f"{mount['Destination']} of {at.name}"
        for at in sorted(found, key=lambda at: at.name, reverse=True)
        for mount in at.raw.get("Mounts") or []
        if mount["Type"] == "volume" and _ANONYMOUS.match(mount.get("Name", ""))
    }


class Teardown:
    """Stops or removes one project."""

    def __init__(self, connection: Connection, project: Project, report: Report, check: bool) -> None:
        self._connection = connection
        self._project = project
        self._report = report
        self._check = check
        self._life = Lifecycle(connection, project, report)

    def stopped(self, services: Iterable[str]) -> None:
        """Nothing of the project runs any more; everything is still there."""
        running = [at for at in self._found(services) if at.status in ("running", "restarting", "paused")]
        self._wave_by_wave("stop", running, self._life.stop)

    def absent(self, services: Iterable[str], volumes: bool) -> None:
        """Containers and networks of the project are gone; its volumes too when `volumes` is true."""
        asked = list(services)
        found = self._found(asked, one_off=True)
        anonymous = anonymous_volumes(found) if volumes else {}
        self._wave_by_wave("remove", found, lambda at: self._life.remove(at, stop=True, volumes=volumes))
        if not asked:  # otherwise the networks are still those of the other services
            for name in self._owned("/networks"):
                self._remove("network", name)
        if volumes:
            for name in [] if asked else self._owned("/volumes"):
                self._remove("volume", name)
            there = self._all_volumes()
            for name, spoken in sorted(anonymous.items(), key=lambda entry: entry[1]):
                if name in there:
                    self._remove("volume", name, spoken)
                else:  # it went with its container
                    self._report.done("remove", f"volume {spoken}", _REASON, 0.0)

    def traces(self) -> Traces:
        """What there is of the project, whether its Compose file still says so or not."""
        networks = {f"network {name}" for name in self._owned("/networks")}
        volumes = {f"volume {name}" for name in self._owned("/volumes")}
        return Traces(containers(self._connection, self._project.name, one_off=True), frozenset(networks | volumes))

    def _found(self, services: Iterable[str], *, one_off: bool = False) -> list[Observed]:
        asked = set(services)
        found = containers(self._connection, self._project.name, one_off=one_off)
        return [at for at in found if not asked or at.service in asked]

    def _wave_by_wave(self, action: str, found: Sequence[Observed], work: Callable[[Observed], None]) -> None:
        reason = f"the project is to be {'stopped' if action == 'stop' else 'absent'}"

        def one(container: Observed) -> ShipshapeError | None:
            try:
                with self._report.doing(action, container.name, reason):
                    work(container)
            except ShipshapeError as error:
                return error
            return None

        for wave in waves(found):
            if self._check:
                for container in wave:
                    self._report.planned(action, container.name, reason)
                continue
            with ThreadPoolExecutor(_AT_ONCE) as hands:
                errors = [error for error in hands.map(one, wave) if error is not None]
            if errors:
                raise errors[0]

    def _all_volumes(self) -> set[str]:
        return {entry["Name"] for entry in self._connection.get("/volumes").get("Volumes") or []}

    def _owned(self, path: str) -> list[str]:
        label = {"label": [f"{LABEL_PROJECT}={self._project.name}"]}
        answer = self._connection.get(path, filters=label)
        entries = answer.get("Volumes") or [] if isinstance(answer, dict) else answer
        return sorted(
            entry["Name"] for entry in entries if (entry.get("Labels") or {}).get(LABEL_PROJECT) == self._project.name
        )

    def _users(self, kind: str, name: str) -> str:
        """Who holds on to a network or volume, by name."""
        if kind == "network":
            found = [at["Name"] for at in (self._connection.get(f"/networks/{name}").get("Containers") or {}).values()]
        else:
            listed = self._connection.get("/containers/json", all="1", filters={"volume": [name]})
            found = [at["Names"][0].lstrip("/") for at in listed]
        return f"container {', '.join(sorted(found))}" if found else "something"

    def _remove(self, kind: str, name: str, spoken: str = "") -> None:
        target = f"{kind} {spoken or name}"
        if self._check:
            self._report.planned("remove", target, _REASON)
            return
        try:
            with self._report.doing("remove", target, _REASON):
                self._connection.delete(f"/{kind}s/{path_segment(name)}")
        except EngineRefusedError as error:
            said = error.words
            if error.status == _GONE:
                return
            if "active endpoints" in said or "in use" in said:
                who = self._users(kind, name)
                what = f"{target} is used by {who}, which does not belong to project {self._project.name}"
                remedy = f"Find it with docker {kind} inspect {name}, disconnect or remove it, then run this again"
                raise failure(self._project.name, f"{kind}-in-use", what, remedy) from error
            raise refused("remove", target, self._project.name, said) from error
