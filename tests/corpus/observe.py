# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads off the engine what a project really is: its containers, networks and volumes as `docker inspect` shows."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def still_running(self) -> dict[str, tuple[str, str]]:
        running = {name for name, document in self.containers.items() if document["State"]["Status"] == "running"}
        return {name: identity for name, identity in self.identities().items() if name in running}


def observe(engine: Engine, project: str, look: Iterable[str] = ()) -> Observed:
    found: dict[str, dict[str, Document]] = {}
    for kind, listing in {
        "container": ["ps", "-aq", "--no-trunc"],
        "network": ["network", "ls", "-q", "--no-trunc"],
        "volume": ["volume", "ls", "-q"],
    }.items():
        ids = engine.lines(*listing, "--filter", f"label={LABEL}={project}")
        documents = json.loads(engine.docker(kind, "inspect", *ids).stdout) if ids else []
        found[kind] = {document["Name"].lstrip("/"): document for document in documents}
    containers = found["container"]
    kept = {f"{name}:{mount['Destination']}": _marker(mount).exists() for name, mount in _anonymous(containers)}
    files = {f"{name}:{path}": _file(engine, name, path) for name, path in _wanted(containers, look)}
    return Observed(containers, found["network"], found["volume"], kept, files)


def _wanted(containers: dict[str, Document], look: Iterable[str]) -> list[tuple[str, str]]:
    services = [line.split(":", 1) for line in look]
    return [
        (name, path)
        for name, document in containers.items()
        for service, path in services
        if document["Config"]["Labels"]["com.docker.compose.service"] == service
    ]


def _file(engine: Engine, container: str, path: str) -> str:
    words = ["docker", "cp", f"{container}:{path}", "-"]
    done = subprocess.run(words, env=engine.environment, capture_output=True)
    if done.returncode:
        return done.stderr.decode().strip()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
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
