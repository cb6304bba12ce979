# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine did to a project's containers, and when, in its own words and by its own clock.

The stream of events misses nothing that lies between two looks: that an old container was gone before the new one had
proven itself, say, or which of two was started first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import docker

from tests.support.stacks import LABEL, Stack


@dataclass(frozen=True)
class Event:
    """One thing that happened to one container. `at`: seconds since the epoch; `name`: as it was called then."""

    at: float
    action: str
    id: str
    name: str
    service: str
    code: int | None  # of `die`: what the container ended with
    signal: int | None  # of `kill`: what it was sent


class Events:
    """The events of one project while the block runs; read them when it has ended."""

    def __init__(self, stack: Stack) -> None:
        self._name, self._host = stack.name, stack.project.engine.host
        self._reader = threading.Thread(target=self._read)
        self.all: list[Event] = []

    def __enter__(self) -> Events:
        wanted = {"type": "container", "label": f"{LABEL}.project={self._name}"}
        # What happens between the request and its answer comes as well.
        client = docker.APIClient(base_url=self._host, version="auto", timeout=600)
        self._stream = client.events(since=f"{time.time():.6f}", filters=wanted, decode=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        seen = -1
        while seen != len(self._deeds()):
            seen = len(self._deeds())
            time.sleep(0.2)
        self._stream.close()
        self._reader.join(10)

    def _deeds(self) -> list[Event]:
        """Without what healthchecks do: those of a container that is asked often never pause."""
        return [event for event in self.all if not event.action.startswith(("exec_", "health_status"))]

    def _read(self) -> None:
        for raw in self._stream:
            self.all.append(_event(raw))

    def of(self, *actions: str, ids: Iterable[str] | None = None, service: str | None = None) -> list[Event]:
        wanted = None if ids is None else set(ids)
        return [
            event
            for event in self.all
            if (not actions or event.action in actions)
            and (wanted is None or event.id in wanted)
            and (service is None or event.service == service)
        ]

    def one(self, action: str, container_id: str) -> Event:
        """The first time that this happened to a container."""
        found = self.of(action, ids=[container_id])
        assert found, f"no {action} of {container_id[:12]}: {self.of(ids=[container_id])}"
        return found[0]

    def running(self, before: Iterable[str], service: str) -> Iterator[tuple[float, frozenset[str]]]:
        """After each start and end: when, and which containers of `service` ran; `before`: those that ran already."""
        now = set(before)
        for event in self.of("start", "die", service=service):
            (now.add if event.action == "start" else now.discard)(event.id)
            yield event.at, frozenset(now)


def _event(raw: dict[str, Any]) -> Event:
    said = raw["Actor"]["Attributes"]
    code, signal = said.get("exitCode"), said.get("signal")
    return Event(
        raw["timeNano"] / 1e9,
        str(raw["Action"]),
        raw["Actor"]["ID"],
        said.get("name", ""),
        said.get(f"{LABEL}.service", ""),
        None if code is None else int(code),
        int(signal) if signal and str(signal).isdigit() else None,
    )
