# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers are to hold and to have said: the version of what they start with, and texts in their files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..report.finding import CRITICAL, WARNING, Finding
from .baked import Layers, ServiceFiles
from .connection import Connection, EngineRefusedError
from .contents import Content, Reader, found_version, read_one
from .observed import Observed

# An entrypoint says its version when it starts: what comes after this much has nothing to do with it.
_SEARCHED = 4 << 20
_PATIENCE = 5.0
_HEADER = 8

_LOOK = "See that the line is in the source, then build the image and replace the container (module stack)"


@dataclass(frozen=True)
class Said:
    """What a container's log tells since its last start: the version, None where it names none; `problem`: why it
    could not be read."""

    version: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Required:
    """One entry of option `required_patterns`."""

    service: str
    path: str
    pattern: str


# -- versions ----------------------------------------------------------------------------------------------------------


def versioned(at: ServiceFiles) -> list[Layers]:
    """The files of a service that name a version, in whatever layer."""
    return [seen for seen in at.files if any(_version(content) for content in _contents(seen))]


def _contents(seen: Layers) -> list[Content | None]:
    return [seen.source, seen.image, *seen.containers.values()]


def _version(content: Content | None) -> str | None:
    return content.version if content else None


def version_findings(at: ServiceFiles, said: Mapping[str, Said], severity: str = CRITICAL) -> list[Finding]:
    """Where the version is missing, or another one than in the source. `said`: by container; `severity`: how bad it is
    that a container lags behind."""
    found = []
    for seen in versioned(at):
        wanted = _version(seen.source)
        if wanted is None:
            what = f"{seen.path} names no version in its source {seen.file.source}, and does in an older layer"
            found.append(Finding(CRITICAL, at.service, "version-missing", what, _LOOK))
            continue
        layers = [("its image", seen.image, CRITICAL)] if at.image_id else []
        layers += [(f"container {name}", content, severity) for name, content in seen.containers.items()]
        for where, content, how_bad in layers:
            found += _compared(at.service, seen.path, wanted, where, _version(content), how_bad)
        for name, line in said.items():
            found += _logged(at.service, name, wanted, line, severity)
    return found


def _compared(service: str, path: str, wanted: str, where: str, version: str | None, severity: str) -> list[Finding]:
    if version == wanted:
        return []
    if version is None:
        what = f"{path} in {where} names no version; its source says {wanted}"
        return [Finding(severity, service, "version-missing", what, _LOOK)]
    what = f"{path} in {where} says version {version}; its source says {wanted}"
    return [Finding(severity, service, "version-mismatch", what, _LOOK)]


def _logged(service: str, container: str, wanted: str, said: Said, severity: str) -> list[Finding]:
    how = "Have the script print its version when it starts; `docker logs` shows what it does print"
    if said.problem:
        what = f"the log of container {container} cannot be read: {said.problem}"
        return [Finding(WARNING, service, "log-unreadable", what, "Use a logging driver that can be read")]
    if said.version is None:
        what = f"container {container} has named no version in its log since its last start; the source says {wanted}"
        return [Finding(severity, service, "version-not-logged", what, how)]
    if said.version != wanted:
        what = f"container {container} said version {said.version} when it started; the source says {wanted}"
        return [Finding(severity, service, "version-mismatch", what, _LOOK)]
    return []


def version_summary(at: ServiceFiles, said: Mapping[str, Said]) -> list[dict[str, Any]]:
    """What module `image` returns about the versions of one service."""
    return [
        {
            "path": seen.path,
            "source": _version(seen.source),
            "image": _version(seen.image),
            "containers": {name: _version(content) for name, content in seen.containers.items()},
            "logs": {name: line.version for name, line in said.items()},
        }
        for seen in versioned(at)
    ]


def read_log(connection: Connection, container: Observed, marker: re.Pattern[str], wanted: Iterable[str]) -> Said:
    """What version the log names since the container's last start. Where `marker` finds nothing in it (it may be made
    for the file), a line that has one of `wanted` in it as a word of its own will do."""
    literal = re.compile("|".join(rf"(?<![\w.]){re.escape(text)}(?![\w])(?!\.\w)" for text in wanted) or r"(?!)")
    has_header = not container.raw["Config"].get("Tty")

    def take(stream: BinaryIO) -> Said:
        plain, deadline, done = "", time.monotonic() + _PATIENCE, 0
        for line in _lines(stream, has_header):
            version = found_version(marker, line)
            if version is not None:
                return Said(version)
            said = literal.search(line)
            plain = plain or (said[0] if said else "")
            done += len(line)
            if done > _SEARCHED or time.monotonic() > deadline:
                break
        return Said(plain or None)

    try:
        said: Said = connection.read(
            f"/containers/{container.id}/logs", take, stdout="1", stderr="1", since=container.log_since
        )
    except EngineRefusedError as refused:
        return Said(problem=refused.findings[0].message)
    return said


def _lines(stream: BinaryIO, has_header: bool) -> Iterable[str]:
    """The lines of a log. Without a terminal each piece comes with a header: which stream, and how long."""
    if not has_header:
        for raw in stream:
            yield raw.decode("utf-8", "replace")
        return
    while len(header := stream.read(_HEADER)) == _HEADER:
        yield stream.read(int.from_bytes(header[4:], "big")).decode("utf-8", "replace")


# -- required patterns -------------------------------------------------------------------------------------------------


def required_findings(
    connection: Connection, wanted: Sequence[Required], containers: Sequence[Observed]
) -> list[Finding]:
    """What the containers lack. That there is none, that it does not run, that there is no such file and that the file
    lacks the pattern are four different things."""
    found = []
    reader = Reader(keeping=True)
    for entry in wanted:
        own = [at for at in containers if at.service == entry.service and not at.role]
        if not own:
            what = f"it has no container: whether {entry.path} has the pattern {entry.pattern!r} cannot be told"
            found.append(Finding(CRITICAL, entry.service, "container-missing", what, "Deploy it (module stack)"))
        for at in own:
            if at.status != "running":
                found.append(_not_running(entry, at))
            else:
                found += _absent(entry, at, read_one(connection, at.id, entry.path, reader))
    return found


def _not_running(entry: Required, container: Observed) -> Finding:
    what = f"container {container.name} is {container.status}: nothing runs that could follow {entry.path}"
    how = f"Start it (module stack), and see why it ended: docker logs {container.name}"
    return Finding(CRITICAL, entry.service, "container-not-running", what, how)


def _absent(entry: Required, container: Observed, content: Content | None) -> list[Finding]:
    if content is None:
        what = f"container {container.name} has no file {entry.path}"
        return [Finding(CRITICAL, entry.service, "file-missing", what, "Check `path`, and the Dockerfile's COPY lines")]
    if re.search(entry.pattern, content.text, re.MULTILINE):
        return []
    what = f"{entry.path} in container {container.name} ({content.spoken}) does not have the pattern {entry.pattern!r}"
    how = "Build the image and replace the container (module stack); state: verified says which layer is stale"
    return [Finding(CRITICAL, entry.service, "pattern-missing", what, how)]
