# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the value of each environment variable comes from, by Compose's own precedence. Pure.

`environment` of the Compose file beats `env_file`; among several env files the last that names a variable counts; what
stands in a value as ${NAME} is filled in from the environment of whoever deploys, then from `--env-file` or `.env`.
What is computed here is only believed where it agrees with what Compose itself resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..files.envread import Entry, evaluate, read, substitute

SHELL = "the environment of whoever deploys"


@dataclass(frozen=True)
class Origin:
    """What a variable of a service comes to. `place` is the env file or the Compose file that decides; `refs` maps the
    variables that its value is made of to the place that each comes from; `file` and `in_file` are the env file that
    names the variable, and what it says, whether that counts or not."""

    value: str | None
    place: str
    literal: bool  # the Compose file's `environment` decides
    refs: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    in_file: str | None = None


@dataclass(frozen=True)
class Texts:
    """The project as it is written. `document` is the unresolved project, `env_files` those that Compose interpolates
    with, `contents` what every env file holds, `shell` the environment of the process, `spoken` the Compose file."""

    document: Mapping[str, Any]
    env_files: tuple[str, ...]
    contents: Mapping[str, str]
    shell: Mapping[str, str]
    spoken: str

    def entries(self, path: str) -> list[Entry]:
        return read(path, self.contents[path]) if path in self.contents else []


@dataclass(frozen=True)
class Outside:
    """What Compose interpolates with: values, and where each comes from."""

    values: Mapping[str, str]
    places: Mapping[str, str]


def outside(texts: Texts) -> Outside:
    values: dict[str, str] = {}
    places: dict[str, str] = {}
    for path in texts.env_files:
        for name, value in evaluate(texts.entries(path), texts.shell.get).items():
            values[name], places[name] = value, path
    for name, value in texts.shell.items():
        values[name], places[name] = value, SHELL
    return Outside(values, places)


def env_file_paths(document: Mapping[str, Any], service: str, known: Outside) -> list[str]:
    """The env files of `service` in order, absolute."""
    listed = ((document.get("services") or {}).get(service) or {}).get("env_file") or []
    listed = [listed] if isinstance(listed, (str, Mapping)) else listed
    paths = [entry["path"] if isinstance(entry, Mapping) else entry for entry in listed]
    return [_filled(path, known, {}) for path in paths]


def origins(texts: Texts, service: str) -> dict[str, Origin]:
    """Every variable of `service`, and where its value comes from."""
    known = outside(texts)
    found: dict[str, Origin] = {}
    for path in env_file_paths(texts.document, service, known):
        entries = texts.entries(path)
        values = evaluate(entries, lambda name: _before(name, known, found))
        for entry in entries:
            if entry.name in values:
                refs = _refs(entry, path, known, {at.name for at in entries})
                found[entry.name] = Origin(values[entry.name], path, False, refs, path, values[entry.name])
    for name, template in _environment(texts.document, service).items():
        file, in_file = _in_files(name, found.get(name), known)
        if template is None:
            place = known.places.get(name, SHELL)
            found[name] = Origin(known.values.get(name), place, False, {name: place}, file, in_file)
            continue
        used: dict[str, str] = {}
        value = _filled(template, known, used)
        place = f"`environment` in {texts.spoken}"
        found[name] = Origin(value, place, True, used, file, in_file)
    return found


def _before(name: str, known: Outside, found: Mapping[str, Origin]) -> str | None:
    if name in known.values:
        return known.values[name]
    return found[name].value if name in found else None


def _in_files(name: str, origin: Origin | None, known: Outside) -> tuple[str, str | None]:
    if origin is not None:
        return origin.file, origin.in_file
    place = known.places.get(name, SHELL)
    return ("", None) if place == SHELL else (place, known.values[name])


def _refs(entry: Entry, path: str, known: Outside, own: set[str]) -> dict[str, str]:
    used: dict[str, str] = {}

    def note(name: str) -> str:
        used[name] = known.places.get(name, path if name in own else SHELL)
        return known.values.get(name, "x")

    if entry.value is None:
        return {entry.name: known.places.get(entry.name, SHELL)}
    entry.evaluated(note)
    return used


def _filled(template: str, known: Outside, used: dict[str, str]) -> str:
    def note(name: str) -> str | None:
        used[name] = known.places.get(name, SHELL)
        return known.values.get(name)

    try:
        return substitute(template, note)
    except ValueError:
        return template  # Compose has accepted it, so it is our reading that lacks: nothing will agree with this


def _environment(document: Mapping[str, Any], service: str) -> dict[str, str | None]:
    listed = ((document.get("services") or {}).get(service) or {}).get("environment") or {}
    if isinstance(listed, Mapping):
        return {name: None if value is None else _text(value) for name, value in listed.items()}
    pairs = [str(entry).partition("=") for entry in listed]
    return {name: value if equals else None for name, equals, value in pairs}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
