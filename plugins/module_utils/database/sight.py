# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a project as it is written and as it runs, to know what its services' variables hold and mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..engine.compose import Compose
from ..engine.connection import Connection
from ..engine.model import Project, public_words, secrets_of, unescaped
from ..engine.observed import Observed, containers
from ..engine.resolve import resolved
from ..report.finding import ShipshapeError
from ..report.masking import Masker
from ..report.result import Report
from .address import Address, locate
from .known import can_log_in
from .known import resolved as resolved_name
from .places import Origin, Texts, env_file_paths, origins, outside
from .url import parse


@dataclass(frozen=True)
class Seen:
    """The project, as it is written and as it runs."""

    project: Project
    texts: Texts
    containers: tuple[Observed, ...]

    def origins(self, service: str) -> dict[str, Origin]:
        return origins(self.texts, service)

    def resolved(self, service: str) -> dict[str, str]:
        """What Compose says that the next container of `service` gets."""
        given = self.project.services[service].definition.get("environment") or {}
        return {name: unescaped(str(value)) for name, value in given.items() if value is not None}

    def running(self, service: str) -> list[Observed]:
        return [at for at in self.containers if at.service == service and at.status in ("running", "restarting")]


class Looker:
    """Looks at the project. What it reads is hidden in the report from then on."""

    def __init__(self, connection: Connection, compose: Compose, report: Report) -> None:
        self.connection, self.compose, self.report = connection, compose, report
        self._secrets: set[str] = set()
        self._public: set[str] = set()

    def look(self) -> Seen:
        """Two calls of Compose side by side, one list and one inspect a container."""
        self.compose.read_ahead()
        with ThreadPoolExecutor(1) as reader:
            asked = reader.submit(self._unresolved)
            project = resolved(self.compose, self.report)
            self._secrets |= secrets_of(project)
            self._public = public_words(project)
            found = containers(self.connection, project.name)
            document = asked.result()
        texts = self._texts(project, document)
        self.hide_read(value for text in texts.contents.values() for value in _secret_words(text))
        return Seen(project, texts, found)

    def _unresolved(self) -> Mapping[str, Any]:
        try:
            return self.compose.unresolved()
        except ShipshapeError:
            return {}  # what is wrong with it the resolved project tells; without this only the places are not known

    def _texts(self, project: Project, document: Mapping[str, Any]) -> Texts:
        source = self.compose.source
        base = source.directory or ""
        names = source.env_files or ((".env",) if os.path.exists(os.path.join(base, ".env")) else ())
        env_files = tuple(os.path.abspath(os.path.join(base, name)) for name in names)
        contents = {path: text for path in env_files if (text := text_of(path)) is not None}
        texts = Texts(document, env_files, contents, dict(os.environ), source.spoken or "definition")
        known = outside(texts)
        paths = {path for service in project.services for path in env_file_paths(document, service, known)}
        contents.update({path: text for path in paths - set(contents) if (text := text_of(path)) is not None})
        return texts

    def hide_read(self, values: Iterable[str]) -> None:
        """As `hide`, of what was read: a service called like its careless password would be hidden with it."""
        self.hide(set(values) - self._public)

    def hide(self, values: Iterable[str]) -> None:
        """What must not be shown from here on."""
        self._secrets |= {value for value in values if value}
        self.report.masker = Masker(self._secrets)

    def address(self, value: str, seen: Seen, service: str) -> tuple[Any, Address] | None:
        """The URL in `value` and where to log in; None for what cannot be logged in with."""
        parsed = parse(value)
        if parsed.url is None or parsed.fatal:
            return None
        if not can_log_in(parsed.url):
            return parsed.url, Address(why=f"{parsed.url.scheme}:// is compared only")
        if parsed.url.socket:
            return parsed.url, Address(why="it goes through a Unix socket, where TCP logins prove nothing")
        if not self.connection.local:
            return parsed.url, Address(
                why="the engine is on another machine, whose networks cannot be reached from here"
            )
        at = locate(parsed.url.host or "localhost", seen.project.services[service], seen.project, seen.containers)
        if at.ip and not at.container:
            ip = resolved_name(at.ip)
            why = f"nobody knows the name {parsed.url.host}"
            remedy = "Name the database's service, or see that the name can be resolved"
            at = replace(at, ip=ip) if ip else Address(why=why, remedy=remedy)
        return parsed.url, at


def text_of(path: str) -> str | None:
    """An env file as text; what is no UTF-8 in it survives."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except OSError:
        return None


def _secret_words(text: str) -> set[str]:
    from ..files.envread import read
    from ..report.masking import secret_values

    try:
        entries = read("", text)
    except ShipshapeError:
        return {line.partition("=")[2].strip() for line in text.splitlines() if "=" in line}
    return set(secret_values({entry.name: entry.value for entry in entries if entry.value}))
