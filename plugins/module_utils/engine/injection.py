# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configs and secrets that are no files: their content is written into the container before it starts.

Compose 2.26 does this when it creates a container, newer ones when they start it. Since we start the containers, we
write what Compose has not written yet, exactly as Compose does (pkg/compose/secrets.go).
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..report.finding import failure
from .connection import Connection
from .model import Project, Service, unescaped

_LABEL_VERSION = "com.docker.compose.version"


@dataclass(frozen=True)
class Content:
    """One file to be written: absolute `target`, octal `mode`, numeric owner ('' where none is asked for)."""

    target: str
    data: bytes
    mode: int = 0o444
    uid: str = ""
    gid: str = ""

    def as_tar(self) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            entry = tarfile.TarInfo(self.target)
            entry.size, entry.mode, entry.mtime = len(self.data), self.mode, int(time.time())
            entry.uid, entry.gid = int(self.uid or 0), int(self.gid or 0)
            archive.addfile(entry, io.BytesIO(self.data))
        return stream.getvalue()


def contents(project: Project, service: Service, environment: Callable[[], Mapping[str, str]]) -> list[Content]:
    """What is to be written into a container of `service`; `environment` is asked only when a variable is a source."""
    found = []
    for section, entries, directory in (
        ("secrets", project.secrets, "/run/secrets/"),
        ("configs", project.configs, "/"),
    ):
        for use in service.definition.get(section) or []:
            text = _text(service, section, use["source"], entries.get(use["source"]) or {}, environment)
            if text:
                found.append(_content(service, use, directory, text))
    return found


def _text(
    service: Service,
    section: str,
    name: str,
    entry: Mapping[str, Any],
    environment: Callable[[], Mapping[str, str]],
) -> str:
    if entry.get("content"):
        return unescaped(str(entry["content"]))
    variable = entry.get("environment")
    if not variable:
        return ""
    known = environment()
    if variable not in known:
        raise failure(
            service.name,
            "variable-required",
            f"{section[:-1]} {name} comes from the variable {variable}, which is not set",
            f"Set {variable} in an env file or in the environment of the task",
        )
    return known[variable]


def _content(service: Service, use: Mapping[str, Any], directory: str, text: str) -> Content:
    target = use.get("target") or use["source"]
    mode = use.get("mode")
    return Content(
        target=target if target.startswith("/") else directory + target,
        data=text.encode("utf-8", "surrogateescape"),
        mode=0o444 if mode is None else mode if isinstance(mode, int) else _number(service, use, "mode", 8),
        uid=str(_number(service, use, "uid") if use.get("uid") else ""),
        gid=str(_number(service, use, "gid") if use.get("gid") else ""),
    )


def _number(service: Service, use: Mapping[str, Any], key: str, base: int = 10) -> int:
    try:
        return int(str(use[key]), base)
    except ValueError:
        what = f"{use['source']} is to be written with {key} {use[key]!r}, which is not a number"
        raise failure(service.name, "compose-file-invalid", what, f"Give {key} as a number") from None


def written_at_creation(labels: Mapping[str, str]) -> bool:
    """Whether the Compose that created a container wrote these files then, as all did that cannot tell us the variables
    (`config --environment` came with 2.28). Writing them twice does no harm."""
    numbers = re.findall(r"\d+", labels.get(_LABEL_VERSION, ""))
    return tuple(int(number) for number in numbers[:2]) < (2, 28)


class Injector:
    """Writes what is missing. `done` holds the ids of the containers that Compose has served itself."""

    def __init__(
        self,
        connection: Connection,
        project: Project,
        environment: Callable[[], Mapping[str, str]],
        done: frozenset[str] = frozenset(),
    ) -> None:
        self._connection = connection
        self._project = project
        self._environment = environment
        self._done = done

    def inject(self, service: Service, container_id: str) -> None:
        if container_id in self._done:
            return
        for content in contents(self._project, service, self._environment):
            owned = {"copyUIDGID": "true"} if content.uid or content.gid else {}
            self._connection.put(f"/containers/{container_id}/archive", content.as_tar(), path="/", **owned)
