# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, stops, renames and removes containers through the Docker SDK, and says in words why one of these failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..report.finding import ShipshapeError, failure
from .connection import Connection, with_short_ids
from .look import Observed
from .model import Project, Service, unescaped

_ALREADY = 304  # the engine's answer to "start" and "stop" when there is nothing to do
_GONE = 404
# What the engine says to a renaming of a container that waits for its next start.
_BETWEEN_RESTARTS = re.compile(r"sandbox \w+ not found")
_PORT = re.compile(r"(?:port is already allocated|address already in use)")
_PORT_NUMBER = re.compile(r"(?:Bind for|listen \w+4?) (?P<address>\S+:\d+)")
_MISSING_BINARY = re.compile(r"exec: \\?\"(?P<path>[^\"\\]+)\\?\": (?:stat [^:]+: )?(?P<why>[^:]+)")


class Lifecycle:
    """What can be done to one project's containers. Every method raises ShipshapeError."""

    def __init__(self, connection: Connection, project: Project) -> None:
        self._connection = connection
        self._services = project.services

    def start(self, service: Service, container_id: str, name: str) -> None:
        """Starts a container and runs its post_start hooks, as Compose does."""
        with self._explained("start", name, service.name):
            self._sdk.start(container_id)
            self._run_hooks(container_id, service.definition.get("post_start") or [])

    def restore(self, container: Observed, name: str) -> None:
        """Puts a retired container back: its name, and that it runs if it ran. What holds already is left alone."""
        with self._explained("restore", name, container.service):
            now = self._sdk.inspect_container(container.id)
            if now["Name"].lstrip("/") != name:
                self._rename(container.id, name)
        self.revive(container)

    def revive(self, container: Observed) -> None:
        """Starts a container that ran, if it does not run any more, whatever its name is by now."""
        with self._explained("restore", container.name, container.service):
            if container.status in ("running", "restarting"):
                self._sdk.start(container.id)

    def stop(self, container: Observed | None) -> None:
        """Stops a container, giving it the time that it asks for (stop_grace_period), after its pre_stop hooks."""
        if container is None or container.status not in ("running", "restarting", "paused"):
            return
        service = self._services.get(container.service)
        with self._explained("stop", container.name, container.service):
            if service is not None and container.status == "running":
                self._run_hooks(container.id, service.definition.get("pre_stop") or [])
            self._sdk.stop(container.id, timeout=container.stop_seconds)

    def unpause(self, container: Observed) -> None:
        with self._explained("unpause", container.name, container.service):
            self._sdk.unpause(container.id)

    def rename(self, container_id: str, name: str) -> None:
        with self._explained("rename", name, name):
            self._rename(container_id, name)

    def _rename(self, container_id: str, name: str) -> None:
        from docker.errors import APIError

        try:
            self._sdk.rename(container_id, name)
        except APIError as error:
            if not _BETWEEN_RESTARTS.search(str(error.explanation or error)):
                raise
            # It is in a crash loop and serves nobody; the engine lets it be renamed once it is at rest.
            self._sdk.stop(container_id, timeout=1)
            self._sdk.rename(container_id, name)

    def remove(self, container: Observed | None, *, stop: bool = False, volumes: bool = False) -> None:
        """Removes a container; its anonymous volumes only with `volumes`, for a successor may use them."""
        if container is None:
            return
        if stop:
            self.stop(container)
        with self._explained("remove", container.name, container.service):
            self._sdk.remove_container(container.id, v=volumes, force=True)

    def discard(self, container_id: str) -> None:
        """Removes a new container that is not to be used, running or not, with what it alone has mounted."""
        with self._explained("remove", container_id[:12], container_id[:12]):
            self._sdk.remove_container(container_id, v=True, force=True)

    @property
    def _sdk(self) -> Any:
        return self._connection.sdk()

    def _run_hooks(self, container_id: str, hooks: Sequence[Mapping[str, Any]]) -> None:
        for hook in hooks:
            command = [unescaped(str(word)) for word in hook["command"]]
            variables = (hook.get("environment") or {}).items()
            environment = {key: unescaped(str(value)) for key, value in variables if value is not None}
            created = self._sdk.exec_create(
                container_id,
                command,
                user=hook.get("user", ""),
                privileged=bool(hook.get("privileged")),
                environment=environment,
                workdir=hook.get("working_dir"),
            )
            output = self._sdk.exec_start(created["Id"])
            code = self._sdk.exec_inspect(created["Id"])["ExitCode"]
            if code:
                said = output.decode("utf-8", "replace").strip().splitlines()
                raise _HookFailedError(f"the hook {' '.join(command)!r} ended with exit code {code}", said)

    @contextmanager
    def _explained(self, doing: str, name: str, subject: str) -> Iterator[None]:
        self._connection.sdk()  # says in words when the SDK is missing, which the imports below would not
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            yield
        except _HookFailedError as hook:
            remedy = "Mend the hook's command, then run this again"
            logs = {name: hook.said} if hook.said else None
            raise failure(subject, "hook-failed", f"container {name}: {hook}", remedy, logs) from hook
        except APIError as error:
            status = error.response.status_code if error.response is not None else 0
            if status == _ALREADY or (status == _GONE and doing in ("stop", "remove")):
                return
            raise refused(doing, name, subject, str(error.explanation or error)) from error
        except (RequestException, DockerException, OSError) as error:
            what = f"while asking it to {doing} container {name}, the engine did not answer: {type(error).__name__}"
            remedy = "See that the engine runs, then run this again: it finishes what was begun"
            raise failure(subject, "engine-unreachable", what, remedy) from error


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
