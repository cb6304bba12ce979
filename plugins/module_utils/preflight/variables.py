# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that a Compose file is filled in with: which are nowhere set, or set to nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..report.finding import CRITICAL, WARNING
from .seen import Seen, about, seen

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
# Stands in an image's name, a port or a path for what is not known, so that the rest can still be looked at.
UNKNOWN = "shipshape-unknown"


@dataclass(frozen=True)
class Reference:
    """One use of a variable. `operator` is '' for a plain one, `text` the whole expression, `after` what follows the
    operator (a default, a message)."""

    name: str
    operator: str
    text: str
    after: str = ""


@dataclass(frozen=True)
class Use:
    """A reference and where it stands: a service (or a section such as networks), and the field in it."""

    reference: Reference
    place: str
    field: str


def references(text: str) -> Iterator[Reference]:
    """The variables in one value, also in the defaults of others. `$$` is a dollar."""
    at = 0
    while (at := text.find("$", at)) >= 0:
        rest = text[at + 1 :]
        name = _NAME.match(rest.removeprefix("{") if rest.startswith("{") else rest)
        if rest.startswith("$") or name is None:
            at += 2 if rest.startswith("$") else 1
        elif not rest.startswith("{"):
            yield Reference(name[0], "", f"${name[0]}")
            at += 1 + len(name[0])
        else:
            length = _closing(rest)
            inner = rest[1 + len(name[0]) : length - 1]
            operator = _OPERATOR.match(inner)
            after = inner[operator.end() :] if operator else ""
            yield Reference(name[0], operator[0] if operator else "", "$" + rest[:length], after)
            yield from references(after if operator and "?" not in operator[0] else "")
            at += 1 + length


def _closing(text: str) -> int:
    """How long the expression in braces at the beginning of `text` is."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return at + 1
    return len(text)


def uses(raw: Mapping[str, Any], chosen: Collection[str]) -> list[Use]:
    """Every use of a variable in the services that are meant, and in the sections that they share."""
    found: list[Use] = []
    for section, entries in raw.items():
        if section == "services":
            for name in sorted(set(entries) & set(chosen)):
                found += [Use(at, name, field) for field, at in _below(entries[name], "")]
        elif not section.startswith("x-"):
            found += [Use(at, section, field) for field, at in _below(entries, "")]
    return found


def _below(value: Any, field: str) -> Iterator[tuple[str, Reference]]:
    if isinstance(value, str):
        for reference in references(value):
            yield field, reference
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _below(entry, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from _below(entry, field)


def judged(found: Collection[Use], values: Mapping[str, str]) -> Iterator[Seen]:
    """One finding a variable: required and missing, unset, or empty where nothing says that it may be."""
    by_name: dict[tuple[str, str], list[Use]] = {}
    for use in found:
        code = _code(use.reference, values)
        if code:
            by_name.setdefault((code, use.reference.name), []).append(use)
    for (code, name), places in sorted(by_name.items()):
        services = {use.place for use in places}
        where = ", ".join(dict.fromkeys(f"{use.place} ({use.field})" if use.field else use.place for use in places[:4]))
        message, remedy = _WORDS[code]
        said = next((use.reference.after for use in places if code == "variable-required"), "")
        quoted = f": {said}" if said else ""
        severity = CRITICAL if code == "variable-required" else WARNING
        text = message.format(name=name, where=where) + quoted
        yield seen(severity, about(services), code, text, remedy.format(name=name), services)


_WORDS = {
    "variable-required": ("variable {name} is required by {where} and has no value", "Set {name} in an env file"),
    "variable-unset": (
        "variable {name} is not set, and an empty text stands in its place in {where}",
        "Set {name} in an env file, or write ${{{name}:-}} where empty is meant",
    ),
    "variable-empty": (
        "variable {name} is set, but empty, in {where}",
        "Give {name} a value, or write ${{{name}:-}} where empty is meant",
    ),
}


def _code(reference: Reference, values: Mapping[str, str]) -> str:
    value = values.get(reference.name)
    if reference.operator in ("?", ":?"):
        missing = value is None or (reference.operator == ":?" and not value)
        return "variable-required" if missing else ""
    if reference.operator:
        return ""
    return "variable-unset" if value is None else "variable-empty" if not value else ""


def stand_ins(found: Collection[Use], values: Mapping[str, str]) -> dict[str, str]:
    """Expressions that Compose would give up at, with what can be put in their place."""
    return {use.reference.text: UNKNOWN for use in found if _code(use.reference, values) == "variable-required"}
