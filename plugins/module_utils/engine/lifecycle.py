# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, stops, renames and removes containers, and says in words why one of these failed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..report.finding import WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from .connection import Connection, EngineRefusedError, with_short_ids
from .model import Project, Service, unescaped
from .observed import Observed

_GONE = 404
_KILLED = 137  # 128 + SIGKILL
# What the engine says to a renaming of a container that waits for its next start.
_BETWEEN_RESTARTS = re.compile(r"sandbox \w+ not found")
_PORT = re.compile(r"(?:port is already allocated|address already in use)")
_PORT_NUMBER = re.compile(r"(?:Bind for|listen \w+4?) (?P<address>\S+:\d+)")
_MISSING_BINARY = re.compile(r"exec: \\?\"(?P<path>[^\"\\]+)\\?\": (?:stat [^:]+: )?(?P<why>[^:]+)")


class Lifecycle:
    """What can be done to one project's containers. Every method raises ShipshapeError."""

    def __init__(self, connection: Connection, project: Project, report: Report) -> None:
        self._connection = connection
        self._services = project.services
        self._report = report

    def start(self, service: Service, container_id: str, name: str) -> None:
        """Starts a container and runs its post_start hooks, as Compose does."""
        with self._explained("start", name, service.name):
            self._connection.act(f"/containers/{container_id}/start")
            self._run_hooks(container_id, service.definition.get("post_start") or [])

    def restore(self, container: Observed, name: str) -> None:
        """Puts a retired container back: its name, and that it runs if it ran. What holds already is left alone."""
        with self._explained("restore", name, container.service):
            now = self._connection.get(f"/containers/{container.id}/json")
            if now["Name"].lstrip("/") != name:
                self._rename(container.id, name)
        self.revive(container)

    def revive(self, container: Observed) -> None:
        """Starts a container that ran, if it does not run any more, whatever its name is by now."""
        with self._explained("restore", container.name, container.service):
            if container.status in ("running", "restarting"):
                self._connection.act(f"/containers/{container.id}/start")

    def stop(self, container: Observed | None) -> None:
        """Stops a container, giving it the time that it asks for (stop_grace_period), after its pre_stop hooks."""
        if container is None or container.status not in ("running", "restarting", "paused"):
            return
        service = self._services.get(container.service)
        with self._explained("stop", container.name, container.service):
            if service is not None and container.status == "running":
                self._run_hooks(container.id, service.definition.get("pre_stop") or [])
            began = time.monotonic()
            self._stop(container.id, container.stop_seconds)
            if 0 < container.stop_seconds <= time.monotonic() - began:
                self._tell_if_killed(container)

    def _tell_if_killed(self, container: Observed) -> None:
        """Its time was over: whether it ended in the last moment or was killed, only its exit code tells."""
        state = self._connection.get(f"/containers/{container.id}/json")["State"]
        if state["ExitCode"] == _KILLED and not state["Running"]:
            what = f"container {container.name} did not end within {container.stop_seconds} s and was killed"
            how = (
                "Let PID 1 be the server itself (`exec` in the entrypoint, or `init: true`) and end on SIGTERM; or set "
                "stop_signal or a longer stop_grace_period"
            )
            self._report.add(Finding(WARNING, container.service, "container-killed", what, how))

    def _stop(self, container_id: str, seconds: int) -> None:
        self._connection.act(f"/containers/{container_id}/stop", t=seconds, patience=seconds)

    def unpause(self, container: Observed) -> None:
        with self._explained("unpause", container.name, container.service):
            self._connection.act(f"/containers/{container.id}/unpause")

    def rename(self, container_id: str, name: str) -> None:
        with self._explained("rename", name, name):
            self._rename(container_id, name)

    def _rename(self, container_id: str, name: str) -> None:
        path = f"/containers/{container_id}/rename"
        try:
            self._connection.act(path, name=name)
        except EngineRefusedError as refusal:
            if not _BETWEEN_RESTARTS.search(refusal.words):
                raise
            # It is in a crash loop and serves nobody; the engine lets it be renamed once it is at rest.
            self._stop(container_id, 1)
            self._connection.act(path, name=name)

    def remove(self, container: Observed | None, *, stop: bool = False, volumes: bool = False) -> None:
        """Removes a container; its anonymous volumes only with `volumes`, for a successor may use them."""
        if container is None:
            return
        if stop:
            self.stop(container)
        with self._explained("remove", container.name, container.service):
            self._connection.delete(f"/containers/{container.id}", v=volumes, force=True)

    def discard(self, container_id: str) -> None:
        """Removes a new container that is not to be used, running or not, with what it alone has mounted."""
        with self._explained("remove", container_id[:12], container_id[:12]):
            self._connection.delete(f"/containers/{container_id}", v=True, force=True)

    def _run_hooks(self, container_id: str, hooks: Sequence[Mapping[str, Any]]) -> None:
        for hook in hooks:
            command = [unescaped(str(word)) for word in hook["command"]]
            code, output = self._ran(container_id, command, hook)
            if code:
                said = output.decode("utf-8", "replace").strip().splitlines()
                raise _HookFailedError(f"the hook {' '.join(command)!r} ended with exit code {code}", said)

    def _ran(self, container_id: str, command: list[str], hook: Mapping[str, Any]) -> tuple[int, bytes]:
        """Exit code and output of a hook, which the SDK tells apart from the stream's framing."""
        client = self._connection.sdk()
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        variables = (hook.get("environment") or {}).items()
        try:
            created = client.exec_create(
                container_id,
                command,
                user=hook.get("user", ""),
                privileged=bool(hook.get("privileged")),
                environment={key: unescaped(str(value)) for key, value in variables if value is not None},
                workdir=hook.get("working_dir"),
            )
            output: bytes = client.exec_start(created["Id"])
            return client.exec_inspect(created["Id"])["ExitCode"], output
        except APIError as error:
            status = error.response.status_code if error.response is not None else 0
            raise EngineRefusedError(status, "exec", str(error.explanation or error)) from error
        except (RequestException, DockerException) as error:
            raise self._connection.unreachable(error) from error

    @contextmanager
    def _explained(self, doing: str, name: str, subject: str) -> Iterator[None]:
        try:
            yield
        except _HookFailedError as hook:
            remedy = "Mend the hook's command, then run this again"
            logs = {name: hook.said} if hook.said else None
            raise failure(subject, "hook-failed", f"container {name}: {hook}", remedy, logs) from hook
        except EngineRefusedError as refusal:
            if refusal.status == _GONE and doing in ("stop", "remove"):
                return
            raise refused(doing, name, subject, refusal.words) from refusal
        except ShipshapeError as error:
            what = f"while it was asked to {doing} container {name}, {error.findings[0].message}"
            remedy = "See that the engine runs, then run this again: it finishes what was begun"
            raise failure(subject, error.findings[0].code, what, remedy) from error


class _HookFailedError(Exception):
    def __init__(self, message: str, said: list[str]) -> None:
        super().__init__(message)
        self.said = said


def refused(doing: str, name: str, subject: str, words: str) -> ShipshapeError:
    """The engine's refusal as an error: the usual causes by name, anything else in the engine's words. Pure."""
    said = with_short_ids(words)
    if _PORT.search(said):
        port = _PORT_NUMBER.search(said)
        what = f"container {name} cannot be started: {port['address'] if port else 'a published port'} is in use"
        remedy = "Find who listens there (ss -ltnp, docker ps) and stop it, or publish another port"
        return failure(subject, "port-in-use", what, remedy)
    binary = _MISSING_BINARY.search(said)
    if binary:
        what = f"container {name} cannot be started: {binary['path']}: {binary['why'].strip()}"
        remedy = "Check command and entrypoint, and that the file is in the image, executable, with its interpreter"
        return failure(subject, "command-not-executable", what, remedy)
    if "no space left on device" in said:
        remedy = "Free space on the engine's data root (docker system df), then run this again"
        return failure(subject, "disk-full", f"could not {doing} container {name}: the engine's disk is full", remedy)
    remedy = "The engine's own log (journalctl -u docker) may say more; mend the cause and run this again"
    return failure(subject, "engine-refused", f"could not {doing} container {name}: {said}", remedy)
