# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in the engine the pool's application has its files, and commands of the application's own."""

from __future__ import annotations

import os
import posixpath
import stat
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..report.finding import ShipshapeError, failure
from ..report.result import Report
from .access import Worker, worker
from .walk import DIRECTORY, HostPath, descend

if TYPE_CHECKING:
    from ..engine.compose import Compose
    from ..engine.connection import Connection
    from ..engine.model import Project
    from ..engine.observed import Observed

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
        mounted = self._mounted(service)
        defined = {} if mounted else self._defined(service)
        target = above([*mounted, *defined], path)
        if target is None:
            held = ", ".join(sorted([*mounted, *defined])) or "nothing"
            what = f"{path} is in no volume of service {service} (it mounts {held}), so it goes with the container"
            raise failure(service, "data-in-no-volume", what, f"Mount a volume at {path}, or check `{option}`")
        place = mounted[target] if mounted else self._place(defined[target])
        return HostPath(place.mount, _part(posixpath.join(place.inside, posixpath.relpath(path, target))))

    def workers(self, services: Sequence[str], path: str) -> list[Worker]:
        """The processes that work in `path`, a path on this machine: those of the services' containers that run and
        have it mounted to write. Nobody when one of these services does not run, or its processes are not seen here:
        it may be the one that works there, and the others read or save what it has made."""
        found = []
        for service in services if self._connection.local else ():
            held = [at.raw for at in self._containers if at.service == service and at.status == "running"]
            if not held and self._is_to_write(service, path):
                return []
            for raw in held:
                mount = above(_to_write(raw), path)
                process = worker(int(raw["State"]["Pid"]), str(raw["Id"])) if mount else None
                if mount and process is None:
                    return []
                found += [replace(process, mount=mount)] if mount and process else []
        return found

    def _is_to_write(self, service: str, path: str) -> bool:
        """Whether a service that does not run has `path` mounted when it does."""
        held = [at.raw for at in self._containers if at.service == service]
        sources = [mount for raw in held for mount in _to_write(raw)]
        for mount in [] if held else self._defined(service).values():
            with suppress(ShipshapeError):  # a volume that is not there is not that of `path`
                sources += [] if mount.get("read_only") else [str(self._place(mount))]
        return above(sources, path) is not None

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

    def _mounted(self, service: str) -> dict[str, HostPath]:
        """What the service's container mounts, by target; a running one tells best."""
        held = [at for at in self._containers if at.service == service]
        held.sort(key=lambda at: at.status != "running")
        return {str(at["Destination"]): place for at, place in _mounts(held[0].raw)} if held else {}

    def _defined(self, service: str) -> dict[str, Mapping[str, Any]]:
        """The same as the Compose file has it, for a service that has no container yet."""
        project_service = self._project.services.get(service)
        mounts = (project_service.definition.get("volumes") if project_service else None) or []
        held = [at for at in mounts if at.get("source") and at.get("type") in ("bind", "volume")]
        return {posixpath.normpath(str(at["target"])): at for at in held}

    def _place(self, mount: Mapping[str, Any]) -> HostPath:
        source = str(mount["source"])
        if mount["type"] == "bind":
            return HostPath(source)
        return HostPath(self._volume(source), _part((mount.get("volume") or {}).get("subpath")))

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


def provide_root(place: HostPath, report: Report, *, check: bool) -> None:
    """A data_root that is missing in a volume is made, with owner and mode of the directory that it is in: a new volume
    is empty. On the target itself nobody but its owner knows who shall have it."""
    path, parts = str(place), place.parts
    if not parts or os.path.lexists(path):
        return
    try:
        parent = descend(place.mount, parts[:-1])
    except OSError:
        return  # who opens it says what is wrong
    try:
        if check:
            what, remedy = "is not in its volume yet, so what follows is not known", "Nothing to do: a run makes it"
            raise failure(path, "data-root-missing", what, remedy)
        with report.doing("create-directory", path, "it is not in its volume yet"):
            _make_root(parent, parts[-1])
    finally:
        os.close(parent)


def _make_root(parent: int, name: str) -> None:
    about = os.fstat(parent)
    os.mkdir(name, 0o700, dir_fd=parent)
    made = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        os.fchown(made, about.st_uid, about.st_gid)
        os.fchmod(made, stat.S_IMODE(about.st_mode))
    finally:
        os.close(made)


def above(places: Iterable[str], path: str) -> str | None:
    """The deepest of the places that `path` is, or is below; None when it is in none of them. Pure."""
    held = [at for at in places if path == at or path.startswith(at.rstrip("/") + "/")]
    return max(held, key=len, default=None)


def _mounts(raw: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], HostPath]]:
    """What a container mounts, and where that is here. Of a part of a volume the engine tells only the volume's place;
    which part is in what the container was made with."""
    made = (raw.get("HostConfig") or {}).get("Mounts") or []
    parts = {posixpath.normpath(at["Target"]): (at.get("VolumeOptions") or {}).get("Subpath") for at in made}
    for mount in raw.get("Mounts") or []:
        if mount.get("Source"):
            part = parts.get(posixpath.normpath(mount["Destination"]))
            yield mount, HostPath(str(mount["Source"]), _part(part))


def _to_write(raw: Mapping[str, Any]) -> list[str]:
    return [str(place) for mount, place in _mounts(raw) if mount.get("RW")]


def _part(path: str | None) -> str:
    """Below a mount; '' for all of it."""
    below = posixpath.normpath(path or ".").strip("/")
    return "" if below == "." else below
