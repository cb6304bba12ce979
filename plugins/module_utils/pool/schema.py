# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables and columns of the application are the pool's: option `schema`. Pure.

What is not said is as in the setup guide's Django application. Columns go by their names there, whatever they are
called in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from ..report.finding import ShipshapeError, failure

USERS, PROJECTS, ALLOCATIONS = "users", "projects", "allocations"
SHA256, PLAIN = "sha256", "plain"
NOW, UUID = "now()", "uuid()"

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    USERS: ("id", "username", "password", "is_superuser", "is_staff", "is_active"),
    PROJECTS: ("id", "owner_id", "name", "slug"),
    ALLOCATIONS: ("visitor_number", "session_key", "allocation_token", "allocated_at", "expires_at", "is_active"),
}
# What an application need not have.
_OPTIONAL = {USERS: {"password", "is_superuser", "is_staff", "is_active"}, PROJECTS: {"name"}, ALLOCATIONS: set[str]()}
_TABLES = {USERS: "auth_user", PROJECTS: "project_app_project", ALLOCATIONS: "project_app_visitorallocation"}
_CONSTANTS: Mapping[str, Mapping[str, Any]] = {
    USERS: {"email": "", "first_name": "", "last_name": "", "date_joined": NOW},
    PROJECTS: {"description": "", "created_at": NOW, "updated_at": NOW},
    ALLOCATIONS: {},
}
_BUILTIN = {
    USERS: "shipshape_visitor_user",
    PROJECTS: "shipshape_visitor_project",
    ALLOCATIONS: "shipshape_visitor_allocation",
}


@dataclass(frozen=True)
class Table:
    """One table. `columns` maps our names to the application's; what the application lacks is not in it."""

    name: str
    columns: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def has(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> str:
        return self.columns[column]

    def filled(self, now: datetime, username: str, number: int) -> dict[str, Any]:
        """The constants of one new row."""
        return {name: _filled(value, now, username, number) for name, value in self.constants.items()}


@dataclass(frozen=True)
class Schema:
    """`user_flag` and `workspace_flag`: columns of users and of projects that say whether directory and workspace are
    on disk; '' for none."""

    users: Table
    projects: Table
    allocations: Table
    token: str = SHA256
    user_flag: str = ""
    workspace_flag: str = ""
    builtin: bool = False

    @property
    def tables(self) -> dict[str, Table]:
        return {USERS: self.users, PROJECTS: self.projects, ALLOCATIONS: self.allocations}


def schema(given: Any, user_flag: str, workspace_flag: str) -> Schema:
    """Option `schema` as it was given: None, `builtin`, or a mapping. Raises for what is not understood."""
    if given == "builtin":
        users, projects, rows = (_table(part, {"table": _BUILTIN[part], "constants": {}}) for part in _COLUMNS)
        return Schema(users, projects, rows, SHA256, "has_directory", "writer_initialized", builtin=True)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise _bad("schema", f"{given!r} is neither a mapping nor the word builtin")
    _known("schema", given, (*_COLUMNS, "token"))
    users, projects, rows = (_table(part, given.get(part) or {}) for part in _COLUMNS)
    token = given.get("token", (given.get(ALLOCATIONS) or {}).get("token", SHA256))
    if token not in (SHA256, PLAIN):
        raise _bad("schema.allocations.token", f"{token!r} is neither {SHA256} nor {PLAIN}")
    return Schema(users, projects, rows, token, user_flag, workspace_flag)


def _table(part: str, given: Any) -> Table:
    where = f"schema.{part}"
    if not isinstance(given, Mapping):
        raise _bad(where, f"{given!r} is no mapping")
    allowed = ("table", "columns", "constants", *(["token"] if part == ALLOCATIONS else []))
    _known(where, given, allowed)
    name = _identifier(f"{where}.table", given.get("table", _TABLES[part]))
    listed = given.get("columns") or {}
    if not isinstance(listed, Mapping):
        raise _bad(f"{where}.columns", f"{listed!r} is no mapping")
    _known(f"{where}.columns", listed, _COLUMNS[part])
    columns = {}
    for column in _COLUMNS[part]:
        actual = listed.get(column, column)
        if actual is None and column in _OPTIONAL[part]:
            continue
        columns[column] = _identifier(f"{where}.columns.{column}", actual)
    if len(set(columns.values())) < len(columns):
        raise _bad(f"{where}.columns", "names one column of the database twice")
    constants = given.get("constants", _CONSTANTS[part]) or {}
    if not isinstance(constants, Mapping):
        raise _bad(f"{where}.constants", f"{constants!r} is no mapping")
    for column in constants:
        _identifier(f"{where}.constants", column)
        if column in columns.values() and column != columns.get("id"):
            raise _bad(f"{where}.constants.{column}", "is a column that the pool fills itself")
    return Table(name, columns, dict(constants))


def _known(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise _bad(where, f"does not know {', '.join(unknown)}", f"It knows {', '.join(known)}")


def _identifier(where: str, name: Any) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise _bad(where, f"{name!r} is no name")
    return name


def _bad(where: str, what: str, remedy: str = "") -> ShipshapeError:
    return failure(where, "schema-invalid", what, remedy or "The documentation of option `schema` has an example")


def _filled(value: Any, now: datetime, username: str, number: int) -> Any:
    if value == NOW:
        return now
    if value == UUID:
        return uuid4()
    if isinstance(value, str):
        return value.replace("{username}", username).replace("{number}", str(number))
    if isinstance(value, Mapping):
        return {key: _filled(entry, now, username, number) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, now, username, number) for entry in value]
    return value


def varies(value: Any) -> bool:
    """Whether two rows get different values of this constant, or none at all (NULL is like no other)."""
    return _any_text(value, lambda text: text == UUID or "{username}" in text or "{number}" in text)


def renews(value: Any) -> bool:
    """Whether the next row of the same slot gets another value of this constant, or none at all."""
    return _any_text(value, lambda text: text in (NOW, UUID))


def _any_text(value: Any, holds: Callable[[str], bool]) -> bool:
    """Whether that is so of a text in a constant, or there is a null."""
    if isinstance(value, str):
        return holds(value)
    if isinstance(value, Mapping):
        return any(_any_text(entry, holds) for entry in value.values())
    return any(_any_text(entry, holds) for entry in value) if isinstance(value, list) else value is None
