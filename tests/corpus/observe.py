# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads off the engine what a project really is: its containers, networks and volumes as `docker inspect` shows."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.engine import Engine

Document = dict[str, Any]
LABEL = "com.docker.compose.project"
MARKER = "written-before"


@dataclass(frozen=True)
class Observed:
    """The inspect documents by name.

    `kept` tells of each anonymous volume whether it has what was written before; `files` has what Compose put into
    a container (contents of configs and secrets), with owner and mode.
    """

    containers: dict[str, Document]
    networks: dict[str, Document]
    volumes: dict[str, Document]
    kept: dict[str, bool]
    files: dict[str, str]

    def identities(self) -> dict[str, tuple[str, str]]:
        """What changes when a container is replaced or restarted."""
        return {name: (document["Id"], document["State"]["StartedAt"]) for name, document in self.containers.items()}


class Socket(http.client.HTTPConnection):
    """The engine's own socket: a look takes a dozen requests, and a process for each would cost more than the look."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("engine", timeout=60)
        self._path = engine.host.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def read(self, resource: str, **query: str) -> bytes:
        self.request("GET", f"/{resource}?{urlencode(query)}")
        answer = self.getresponse()
        body = answer.read()
        assert answer.status == 200, f"GET /{resource}: {answer.status} {body.decode()}"
        return body

    def listed(self, path: str, key: str, project: str) -> list[Document]:
        """What `path` lists for the project (under `key`, where the engine wraps it), each inspected by its own id."""
        filters = json.dumps({"label": [f"{LABEL}={project}"]})
        found = json.loads(self.read(path, filters=filters, all="1"))
        entries = found.get(key) or [] if isinstance(found, dict) else found
        one = "containers/{}/json" if path == "containers/json" else path + "/{}"
        return [json.loads(self.read(one.format(entry.get("Id") or entry["Name"]))) for entry in entries]


def observe(engine: Engine, project: str, look: Iterable[str] = ()) -> Observed:
    with closing(Socket(engine)) as api:
        containers, networks, volumes = (
            {document["Name"].lstrip("/"): document for document in api.listed(path, key, project)}
            for path, key in (("containers/json", ""), ("networks", ""), ("volumes", "Volumes"))
        )
        files = {f"{name}:{path}": _file(api, name, path) for name, path in _wanted(containers, look)}
    kept = {f"{name}:{mount['Destination']}": _marker(mount).exists() for name, mount in _anonymous(containers)}
    return Observed(containers, networks, volumes, kept, files)


def _wanted(containers: dict[str, Document], look: Iterable[str]) -> list[tuple[str, str]]:
    services = [line.split(":", 1) for line in look]
    return [
        (name, path)
        for name, document in containers.items()
        for service, path in services
        if document["Config"]["Labels"]["com.docker.compose.service"] == service
    ]


def _file(api: Socket, container: str, path: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(api.read(f"containers/{container}/archive", path=path))) as tar:
        member = tar.getmembers()[0]
        content = tar.extractfile(member)
        return f"{member.mode:o} {member.uid}:{member.gid} {content.read().decode() if content else member.type!r}"


def mark(observed: Observed) -> None:
    """Writes to every anonymous volume, so that a later look tells whether it is still the same."""
    for name, mount in _anonymous(observed.containers):
        _marker(mount).write_text(name, encoding="utf-8")


def replaced(before: Observed, after: Observed) -> set[str]:
    """The containers that are new, gone or another than before."""
    old, new = before.identities(), after.identities()
    return {name for name in old.keys() | new.keys() if old.get(name, ("",))[0] != new.get(name, ("",))[0]}


def is_anonymous(mount: Document) -> bool:
    name = mount.get("Name", "")
    return mount.get("Type") == "volume" and len(name) == 64 and set(name) <= set("0123456789abcdef")


def _anonymous(containers: dict[str, Document]) -> list[tuple[str, Document]]:
    return [
        (name, mount)
        for name, document in sorted(containers.items())
        for mount in document["Mounts"]
        if is_anonymous(mount)
    ]


def _marker(mount: Document) -> Path:
    return Path(mount["Source"]) / MARKER
