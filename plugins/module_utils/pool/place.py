# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in the engine the pool's application has its files, and commands of the application's own."""

from __future__ import annotations

import posixpath
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.finding import ShipshapeError, failure
from .access import Worker, worker
from .walk import HostPath

if TYPE_CHECKING:
    from ..engine.compose import Compose
    from ..engine.connection import Connection
    from ..engine.look import Observed
    from ..engine.model import Project

_SHOWN = 120  # of a command that failed: one may be a whole script
# The options that hold commands: the code of one that fails.
_FAILED = {"migrate_command": "migrate-command-failed", "seed_command": "seed-command-failed"}


class Application:
    """One Compose project, as it is written and as it runs."""

    def __init__(
        self, connection: Connection, compose: Compose, project: Project, containers: Sequence[Observed]
    ) -> None:
        self._connection, self._compose = connection, compose
        self._project, self._containers = project, containers

    def host_path(self, service: str, path: str, option: str) -> HostPath:
        """The place on this machine of `path` in the containers of `service`: in a volume, or in a bind mount."""
        self.need(service, option)
        if not self._connection.local:
            what = f"the engine is on another machine, and so is {path} of service {service}"
            raise failure(service, "data-elsewhere", what, "Run this on the machine of the engine")
        path = posixpath.normpath(path)
        mounts = self._mounted(service) or self._defined(service)
        found = covering(mounts, path)
        if found is None:
            held = ", ".join(sorted(mounts)) or "nothing"
            what = f"{path} is in no volume of service {service} (it mounts {held}), so it goes with the container"
            raise failure(service, "data-in-no-volume", what, f"Mount a volume at {path}, or check `{option}`")
        return found

    def worker(self, services: Sequence[str], path: str) -> Worker | None:
        """The process that works in `path`, a path on this machine: of the first of the services with a container that
        runs and has it mounted to write. None when there is none, or when its processes are not seen here."""
        held = [at for service in services for at in self._containers if at.service == service]
        running = [at.raw for at in held if at.status == "running"] if self._connection.local else []
        for raw in running:
            mounts = raw.get("Mounts") or []
            if covering({at["Source"]: "" for at in mounts if at.get("Source") and at.get("RW")}, path):
                return worker(int(raw["State"]["Pid"]), str(raw["Id"]))
        return None

    def need(self, service: str, option: str) -> None:
        if service not in self._project.services:
            known = ", ".join(sorted(self._project.services))
            what = f"the project has no service {service} (it has {known})"
            raise failure(service, "service-unknown", what, f"Check `{option}`, `services` and `profiles`")

    def run(self, service: str, command: Sequence[str], option: str) -> None:
        """Runs `command` once in a container of its own, which is gone afterwards. Raises when it fails."""
        self.need(service, option)
        try:
            self._compose.run_once(self._connection.local_address(), service, command)
        except ShipshapeError as error:
            spoken = textwrap.shorten(" ".join(command), _SHOWN, placeholder=" ...")
            what = f"{spoken} failed in a container of service {service}: {error.findings[0].message}"
            remedy = "Its last lines are in `logs`; mend the cause and run this again"
            raise failure(service, _FAILED[option], what, remedy, error.logs) from error

    def _mounted(self, service: str) -> dict[str, str]:
        """Target to source of what the service's container mounts; a running one tells best."""
        held = [at for at in self._containers if at.service == service]
        held.sort(key=lambda at: at.status != "running")
        mounts: Sequence[Mapping[str, Any]] = held[0].raw.get("Mounts") or [] if held else []
        return {str(at["Destination"]): str(at["Source"]) for at in mounts if at.get("Source")}

    def _defined(self, service: str) -> dict[str, str]:
        """The same from the Compose file, for a service that has no container yet."""
        found = {}
        for mount in self._project.services[service].definition.get("volumes") or []:
            if mount.get("type") == "bind" and mount.get("source"):
                found[str(mount["target"])] = str(mount["source"])
            elif mount.get("type") == "volume" and mount.get("source"):
                place = self._volume(str(mount["source"]))
                found.update({str(mount["target"]): place} if place else {})
        return found

    def _volume(self, key: str) -> str:
        from ..engine.connection import EngineRefusedError, path_segment

        names = {ours: name for name, ours in self._project.volumes.items()}
        entry = (self._project.document.get("volumes") or {}).get(key) or {}
        name = names.get(key) or entry.get("name") or key
        try:
            return str(self._connection.get(f"/volumes/{path_segment(name)}")["Mountpoint"])
        except EngineRefusedError as refused:
            if refused.status != 404:
                raise
            what = f"its volume {name} is not there yet"
            remedy = "Deploy the project first, or create its containers (docker compose create)"
            raise failure(key, "volume-missing", what, remedy) from refused


def covering(mounts: Mapping[str, str], path: str) -> HostPath | None:
    """Where `path` is, given target and source of each mount; None when it is in none of them. Pure."""
    for target in sorted(mounts, key=len, reverse=True):
        base = target.rstrip("/") or "/"
        if path == base or path.startswith(base.rstrip("/") + "/"):
            rest = path[len(base) :].strip("/")
            return HostPath(mounts[target], rest)
    return None
