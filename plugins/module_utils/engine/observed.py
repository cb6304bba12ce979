# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A project's containers, as the engine reports them: one list, then one inspect a container, side by side."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .connection import Connection, EngineRefusedError
from .successor import LABEL_CREATED, LABEL_NUMBER, LABEL_SERVICE, final_name

if TYPE_CHECKING:
    from .applied import Applied

LABEL_PROJECT = "com.docker.compose.project"
LABEL_ONEOFF = "com.docker.compose.oneoff"
LABEL_DEPENDS_ON = "com.docker.compose.depends_on"
LABEL_REPLACE = "com.docker.compose.replace"

# More threads than this gain nothing: the engine answers an inspect in less time than a thread takes to be scheduled.
_READERS = 4
# How much earlier than StartedAt a container may have said its first line.
_HEAD_START = 200_000_000
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?")
# A recreate that plain Compose did not finish leaves its new container under such a name.
_COMPOSE_TEMPORARY = re.compile(r"^[0-9a-f]{12}_(?P<name>.+)$")


def nanoseconds(timestamp: object) -> int:
    """An engine's timestamp since the epoch, 0 when it is none; what has never happened lies long before it."""
    found = _TIMESTAMP.match(str(timestamp or ""))
    if not found:
        return 0
    seconds = calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S"))
    return seconds * 10**9 + int(f"{found[2] or '0':0<9}"[:9])


def since_last_start(state: Mapping[str, Any]) -> str:
    """From when on the lines of a log are of the last start, as the engine takes it: seconds and nanoseconds. Pure.

    The engine writes StartedAt down when the process runs already and has perhaps said its first line. Halfway from the
    end of the run before it is late enough for the old one's last words and early enough for the new one's first."""
    ended, started = nanoseconds(state.get("FinishedAt")), nanoseconds(state.get("StartedAt"))
    if ended <= 0:
        return "0"
    moment = (ended + started) // 2 if ended < started else started - _HEAD_START
    return f"{moment // 10**9}.{moment % 10**9:09}"


@dataclass(frozen=True)
class Observed:
    """One container as the engine reports it. `role` is '' for one that stands in its place; 'new' and 'old' are a
    successor and a predecessor of an unfinished replacement."""

    id: str
    name: str
    service: str
    number: int
    role: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.raw["Config"].get("Labels") or {}

    @property
    def state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = self.raw["State"]
        return state

    @property
    def status(self) -> str:
        """created, running, paused, restarting, removing, exited or dead."""
        return str(self.state["Status"])

    @property
    def image_id(self) -> str:
        return str(self.raw["Image"])

    @cached_property
    def applied(self) -> Applied | None:
        from .applied import LABEL, read

        return read(self.labels.get(LABEL))

    @property
    def created_with(self) -> Mapping[str, Any] | None:
        """What it was created with, as far as it can be updated; None for one that plain Compose made."""
        try:
            document = json.loads(self.labels[LABEL_CREATED])
        except (KeyError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    @property
    def restart_count(self) -> int:
        return int(self.raw.get("RestartCount", 0))

    @property
    def ended_well(self) -> bool:
        return self.status == "exited" and self.state.get("ExitCode") == 0

    @property
    def finished_at(self) -> str:
        return str(self.state.get("FinishedAt", ""))

    @property
    def started(self) -> float:
        """When it was started last, in seconds since the epoch; 0.0 when that cannot be told."""
        return nanoseconds(self.state.get("StartedAt")) // 10**9

    @property
    def log_since(self) -> str:
        return since_last_start(self.state)

    @property
    def restarts(self) -> bool:
        """Whether the engine starts it again when it has ended well."""
        return self.raw["HostConfig"].get("RestartPolicy", {}).get("Name") in ("always", "unless-stopped")

    @property
    def has_healthcheck(self) -> bool:
        test = (self.raw["Config"].get("Healthcheck") or {}).get("Test") or []
        return bool(test) and test[0] != "NONE"

    @property
    def stop_seconds(self) -> int:
        """How long it is given to end by itself; 10 s is the engine's own default."""
        wanted = self.raw["Config"].get("StopTimeout")
        return 10 if wanted is None else int(wanted)


def observed(raw: Mapping[str, Any]) -> Observed:
    """One container from its inspect document."""
    labels = raw["Config"].get("Labels") or {}
    name = raw["Name"].lstrip("/")
    role = final_name(name)[1]
    if not role and LABEL_REPLACE in labels and _COMPOSE_TEMPORARY.match(name):
        role = "compose"
    number = labels.get(LABEL_NUMBER, "")
    return Observed(raw["Id"], name, labels.get(LABEL_SERVICE, ""), int(number) if number.isdigit() else 0, role, raw)


def place_name(container: Observed) -> str:
    """A container's name without what an unfinished replacement, ours or Compose's, has added to it."""
    found = _COMPOSE_TEMPORARY.match(container.name) if container.role == "compose" else None
    return found["name"] if found else final_name(container.name)[0]


def containers(connection: Connection, project: str, *, one_off: bool = False) -> tuple[Observed, ...]:
    """The project's containers, running or not; those of `docker compose run` only when asked for."""
    listed = connection.get("/containers/json", all="1", filters={"label": [f"{LABEL_PROJECT}={project}"]})
    ids = [
        entry["Id"]
        for entry in listed
        # The engine matches a label exactly; this guards against one that would not.
        if (entry.get("Labels") or {}).get(LABEL_PROJECT) == project
        and (one_off or (entry.get("Labels") or {}).get(LABEL_ONEOFF, "False") != "True")
    ]
    inspected = side_by_side(lambda at: or_none(connection, f"/containers/{at}/json"), ids)
    found = [observed(raw) for raw in inspected if raw is not None]
    return tuple(sorted(found, key=lambda entry: (entry.service, entry.number, entry.name)))


def or_none(connection: Connection, path: str) -> Any:
    try:
        return connection.get(path)
    except EngineRefusedError as refused:
        if refused.status == 404:
            return None  # gone between list and inspect, or never there
        raise


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    todo = list(items)
    if len(todo) < 4:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(work, todo))
