# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The env files of a project, and the variables that must be in them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..files.envread import Entry, read
from ..report.finding import CRITICAL, INFO, WARNING, Finding, ShipshapeError
from ..report.masking import secret_values
from .seen import Seen, about, from_error, seen

# What people write where a value is to be filled in. The password in a URL counts as well.
_PLACEHOLDER = re.compile(
    r"change[ _-]?(me|this|it)\W*|<[^<>]*>|todo\b.*|fixme\b.*|tbd|x{3,}|replace[ _-]?(me|this|with\b.*)|"
    r"placeholder|your[ _-].+|insert[ _-].+|put[ _-].+[ _-]here|\*{3,}",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"^[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<password>[^\s@]+)@", re.IGNORECASE)
_LARGEST = 4 << 20


@dataclass(frozen=True)
class EnvFile:
    """One env file. `services` are those that are given its variables; none for one that fills in the Compose file.
    `text` is None for a file that is not there or cannot be read (`problem` says why)."""

    path: str
    required: bool = True
    services: frozenset[str] = frozenset()
    text: str | None = field(default=None, repr=False)
    mode: int = 0o600
    problem: str = ""


def named(raw: Mapping[str, Any], chosen: Collection[str]) -> dict[str, tuple[bool, frozenset[str]]]:
    """The env files of the services that are meant: whether each must be there, and whose it is. Pure."""
    found: dict[str, tuple[bool, frozenset[str]]] = {}
    for name in sorted(chosen):
        entries = (raw["services"].get(name) or {}).get("env_file") or []
        for entry in [entries] if isinstance(entries, (str, Mapping)) else entries:
            path = str(entry.get("path") if isinstance(entry, Mapping) else entry)
            required = bool(entry.get("required", True)) if isinstance(entry, Mapping) else True
            if "$" not in path:  # what is filled in there, only Compose can tell
                before, users = found.get(path, (False, frozenset[str]()))
                found[path] = (before or required, users | {name})
    return found


def look(path: str, required: bool, services: frozenset[str]) -> EnvFile:
    """The file as it lies there."""
    try:
        with open(path, "rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read(_LARGEST).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return EnvFile(path, required, services, problem="does not exist")
    except OSError as error:
        return EnvFile(path, required, services, problem=f"cannot be read: {error.strerror}")
    return EnvFile(path, required, services, text, mode)


def entries(file: EnvFile) -> tuple[list[Entry], list[Finding]]:
    """The variables of the file, and why Compose refuses it."""
    try:
        return (read(file.path, file.text) if file.text is not None else []), []
    except ShipshapeError as error:
        return [], list(error.findings)


def lacking(files: Iterable[EnvFile]) -> frozenset[str]:
    """Files that Compose cannot go on without, or stumbles over."""
    return frozenset(file.path for file in files if file.problem or entries(file)[1])


def judged(file: EnvFile) -> Iterator[Seen]:
    """What is wrong with one file. Never a value."""
    users = file.services
    if file.text is None:
        if file.required:
            what, how = file.problem, "Bring the file there (deploy_env of deploy.yml), or mark it required: false"
            yield seen(CRITICAL, file.path, "env-file-missing", what, how, users)
        return
    found, refused = entries(file)
    for finding in refused:
        yield from from_error(ShipshapeError(finding), users)
    yield from _readable_by_all(file, found)
    if "\r\n" in file.text:
        what = "its lines end with CR and LF: whoever reads it without Compose takes the CR for part of the value"
        yield seen(WARNING, file.path, "env-file-crlf", what, "Save it with Unix line endings (dos2unix)", users)
    yield from _twice(file, found)
    spaced = [entry for entry in found if not entry.quote and re.search(r"\s", entry.value or "")]
    if spaced:
        what = f"{_places(spaced)} has a space in it without quotes, which a shell reads otherwise than Compose"
        yield seen(WARNING, file.path, "env-file-unquoted-space", what, "Put the value in single quotes", users)


def _readable_by_all(file: EnvFile, found: Collection[Entry]) -> Iterator[Seen]:
    if not file.mode & stat.S_IROTH:
        return
    secret = [entry for entry in found if any(secret_values({entry.name: entry.value}))]
    what = f"everybody on the target can read it (mode {file.mode:04o})"
    what += f", and it holds {_places(secret)}" if secret else ""
    severity = WARNING if secret else INFO
    yield seen(severity, file.path, "env-file-world-readable", what, f"chmod 600 {file.path}", file.services)


def _twice(file: EnvFile, found: Iterable[Entry]) -> Iterator[Seen]:
    lines: dict[str, list[Entry]] = {}
    for entry in found:
        lines.setdefault(entry.name, []).append(entry)
    for name, several in lines.items():
        if len(several) > 1:
            where = ", ".join(str(entry.line) for entry in several)
            same = len({entry.value for entry in several}) == 1
            what = f"{name} stands in lines {where}{', with the same value' if same else ': the last one counts'}"
            severity = INFO if same else WARNING
            yield seen(severity, file.path, "env-file-duplicate", what, "Keep one of them", file.services)


def _places(found: Collection[Entry]) -> str:
    listed = [f"{entry.name} (line {entry.line})" for entry in found]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def placeholder(value: str) -> bool:
    """Whether `value` was never filled in."""
    url = _URL_PASSWORD.match(value)
    return bool(_PLACEHOLDER.fullmatch(value.strip()) or (url and _PLACEHOLDER.fullmatch(url["password"])))


Environments = Mapping[str, "Mapping[str, str | None]"]


def required(wishes: Iterable[str], environments: Environments, filling: Mapping[str, str]) -> Iterator[Seen]:
    """Option `require_env`: NAME must have a value somewhere and wherever it is named, SERVICE:NAME in that service.
    `environments`: what each service is given; `filling`: what the Compose file is filled in with."""
    for wish in wishes:
        service, _colon, name = wish.rpartition(":")
        if service and service not in environments:
            continue  # it is not deployed this time
        within = {service: environments[service]} if service else environments
        holders = {at: given[name] for at, given in within.items() if name in given}
        users = [service] if service else []
        if not service and name in filling and all(value is None for value in holders.values()):
            holders = {"": filling[name]}
        values = {at: value for at, value in holders.items() if value is not None}
        where = about(values) if any(values) else service or "environment"
        how = f"Set {name} in the service's env file" if service else f"Set {name} in an env file"
        if not values:
            what = f"{name} is required (require_env) and set nowhere"
            yield seen(CRITICAL, service or "environment", "env-missing", what, how, users)
        for code, wrong, words in (
            ("env-empty", [at for at, value in values.items() if not value.strip()], "is empty"),
            ("env-placeholder", [at for at, value in values.items() if placeholder(value)], "was never filled in"),
        ):
            if wrong:
                what = f"{name} is required (require_env) and {words}"
                yield seen(CRITICAL, about(wrong) if any(wrong) else where, code, what, how, [at for at in wrong if at])


def placeholders(environments: Environments, asked: Collection[str]) -> Iterator[Seen]:
    """Variables that were never filled in, and that nobody has named as required."""
    known = {wish.rpartition(":")[2] for wish in asked}
    found: dict[str, list[str]] = {}
    for service, given in environments.items():
        for name, value in given.items():
            if name not in known and value is not None and placeholder(value):
                found.setdefault(name, []).append(service)
    for name, users in sorted(found.items()):
        what = f"{name} looks as if it was never filled in"
        yield seen(WARNING, about(users), "env-placeholder", what, "Give it its real value", users)
