# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the live database is as option `schema` says: one finding for each thing that is not. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..report.finding import CRITICAL, WARNING, Finding
from .model import QUARANTINED
from .schema import ALLOCATIONS, PROJECTS, USERS, Schema, Table, renews, varies
from .store import BOOLEAN, INTEGER, JSON, LIST, OTHER, PADDED, TEXT, TIME, LiveColumn, LiveTable

MISSING_TABLE = "table-missing"
# our column: (kind, the least length that it must take)
_WANTED: Mapping[str, Mapping[str, tuple[str, int]]] = {
    USERS: {
        "username": (TEXT, 0),
        "password": (TEXT, 41),
        "is_superuser": (BOOLEAN, 0),
        "is_staff": (BOOLEAN, 0),
        "is_active": (BOOLEAN, 0),
    },
    PROJECTS: {"name": (TEXT, 0), "slug": (TEXT, 0)},
    ALLOCATIONS: {
        "visitor_number": (INTEGER, 0),
        "session_key": (TEXT, len(QUARANTINED)),
        "allocation_token": (TEXT, 64),
        "allocated_at": (TIME, 0),
        "expires_at": (TIME, 0),
        "is_active": (BOOLEAN, 0),
    },
}
# Without these two visitors can be handed one slot, or one token can fit two slots.
_UNIQUE = {
    ALLOCATIONS: ((("visitor_number",), CRITICAL), (("allocation_token",), CRITICAL)),
    USERS: ((("username",), CRITICAL),),
    PROJECTS: ((("owner_id", "slug"), WARNING),),
}
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_NOT_COMPARED = ("password", "name")
_HIDDEN = "row-level security can keep rows from the role that has logged in, and those would be taken for missing"
_ALL_ROWS = "Log in as the table's owner or a role with BYPASSRLS, or add a policy FOR ALL USING (true) for this one"
# What all the slots' rows have in common while they are free. Two moments may be the same.
_SHARED = {
    USERS: ("is_superuser", "is_staff", "is_active"),
    PROJECTS: ("name", "slug"),
    ALLOCATIONS: ("session_key", "allocated_at", "expires_at", "is_active"),
}


def differences(schema: Schema, live: Mapping[str, LiveTable | None], sqlite: bool, nowhere: str = "") -> list[Finding]:
    """`live` maps users, projects and allocations to what there is; `nowhere` says why there is nothing at all."""
    found: list[Finding] = []
    for part, table in schema.tables.items():
        there = live[part]
        if there is None:
            what = f"there is no such table, for {nowhere}" if nowhere else "there is no such table"
            remedy = f"Run the application's migrations (option `migrate_command` does), or mend schema.{part}.table"
            if nowhere:
                remedy = f"Check `database_url`. {remedy}"
            elif not sqlite and "." not in table.name:
                remedy += ": a schema that the role does not look in by itself has to be named, as schema.table"
            found.append(Finding(CRITICAL, table.name, MISSING_TABLE, what, remedy))
            continue
        if there.hidden:
            found.append(Finding(CRITICAL, table.name, "rows-hidden", _HIDDEN, _ALL_ROWS))
        flag = {USERS: schema.user_flag, PROJECTS: schema.workspace_flag}.get(part, "")
        found += _columns(part, table, there, flag, sqlite)
        found += _constants(part, table, there)
        found += _unfilled(part, table, there, flag)
        found += _unique(part, table, there, sqlite)
        found += _shared(part, table, there, flag)
    return found


def _columns(part: str, table: Table, live: LiveTable, flag: str, sqlite: bool) -> Iterator[Finding]:
    for ours, actual in table.columns.items():
        column = live.columns.get(actual)
        if column is None:
            yield _lacks(table, actual, f"Mend schema.{part}.columns.{ours}, or run the application's migrations")
        elif column.computed and ours != "id":
            yield _computed(table, actual, "Name one in `schema` that can be written")
        elif ours in _WANTED[part]:
            if column.kind == PADDED and ours in _NOT_COMPARED:
                column = replace(column, kind=TEXT)
            yield from _fits(table, actual, column, *_WANTED[part][ours], sqlite)
    if flag and flag not in live.columns:
        option = "user_flag" if part == USERS else "workspace_flag"
        yield _lacks(table, flag, f"Mend option `{option}`; an empty word means that there is no such column")
    elif flag and live.columns[flag].computed:
        yield _computed(table, flag, "Name another column as the flag, or an empty word for none")
    elif flag:
        yield from _fits(table, flag, live.columns[flag], BOOLEAN, 0, sqlite)


def _constants(part: str, table: Table, live: LiveTable) -> Iterator[Finding]:
    for name, value in table.constants.items():
        if name not in live.columns:
            yield _lacks(table, name, f"Take it out of schema.{part}.constants")
        elif live.columns[name].computed:
            yield _computed(table, name, f"Take it out of schema.{part}.constants")
        elif not _holds(live.columns[name], value):
            kind = "a list" if isinstance(value, list) else "a mapping"
            what = f"it is of type {live.columns[name].type}, and schema.{part}.constants has {kind} for it"
            yield Finding(CRITICAL, f"{table.name}.{name}", "column-type", what, "Write that value as a text")


def _lacks(table: Table, name: str, remedy: str) -> Finding:
    return Finding(CRITICAL, f"{table.name}.{name}", "column-missing", "there is no such column", remedy)


def _computed(table: Table, name: str, remedy: str) -> Finding:
    what = "the database makes its value by itself, and takes none from anybody"
    return Finding(CRITICAL, f"{table.name}.{name}", "column-type", what, remedy)


def _fits(table: Table, name: str, live: LiveColumn, kind: str, length: int, sqlite: bool) -> Iterator[Finding]:
    subject = f"{table.name}.{name}"
    if not _is(live, kind, sqlite):
        padded = ", which adds blanks to what it holds" if live.kind == PADDED else ""
        what = f"it is of type {live.type}{padded}, where the pool needs {kind}"
        yield Finding(CRITICAL, subject, "column-type", what, "Name the right column in `schema`, or change its type")
    elif live.length is not None and live.length < length:
        what = f"it takes {live.length} characters, and the pool needs {length}"
        yield Finding(CRITICAL, subject, "column-type", what, "Make it longer")


def _holds(live: LiveColumn, value: object) -> bool:
    """Whether a column can have this constant, as far as that depends on mappings and lists."""
    if isinstance(value, Mapping):
        return live.kind == JSON
    return live.kind in (JSON, LIST) if isinstance(value, list) else True


def _is(live: LiveColumn, kind: str, sqlite: bool) -> bool:
    if live.kind == kind:
        return True
    # SQLite's types are only names: whole numbers for truth, and text for times, are as common as their own names.
    return sqlite and (
        (kind == BOOLEAN and live.kind == INTEGER)
        or (kind == TIME and live.kind in (TEXT, OTHER))
        or (kind == TEXT and live.kind == OTHER)
    )


def _unfilled(part: str, table: Table, live: LiveTable, flag: str) -> Iterator[Finding]:
    empty = {name for name, value in table.constants.items() if value is None}
    known = {*table.columns.values(), *table.constants, flag} - empty
    if "id" in table.columns and table["id"] not in table.constants:
        known -= {table["id"]}
    for name, column in live.columns.items():
        if column.not_null and name not in known and (name in empty or not column.filled):
            what = f"it must not be null, and {'it is to be that' if name in empty else 'nobody gives it a value'}"
            remedy = f"Give it one in schema.{part}.constants"
            yield Finding(CRITICAL, f"{table.name}.{name}", "column-without-value", what, remedy)


def _unique(part: str, table: Table, live: LiveTable, sqlite: bool) -> Iterator[Finding]:
    for ours, severity in _UNIQUE[part]:
        columns = frozenset(table[name] for name in ours)
        if columns <= set(live.columns) and not any(unique <= columns for unique in live.unique):
            names = ", ".join(table[name] for name in ours)
            what = f"no unique index keeps two rows from having the same {names}"
            remedy = f"Add one: {_index(table.name, [table[name] for name in ours], sqlite)}"
            if live.view:
                remedy = f"It is a view, which can have none: name the table behind it in schema.{part}.table"
            yield Finding(severity, f"{table.name}.{names}", "not-unique", what, remedy)


def _index(table: str, columns: list[str], sqlite: bool) -> str:
    """The statement that makes it, to be copied."""
    where = _quoted(table) if sqlite else ".".join(_quoted(name) for name in table.split(".", 1))
    name = _quoted(f"{'_'.join(columns)}_once")
    return f"CREATE UNIQUE INDEX {name} ON {where} ({', '.join(_quoted(column) for column in columns)})"


def _quoted(name: str) -> str:
    """As an identifier in SQL, in quotes only if it needs them."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _shared(part: str, table: Table, live: LiveTable, flag: str) -> Iterator[Finding]:
    """Indexes that let only one slot be free."""
    for names in _indexes(part, table, live, flag, varies):
        what = f"a unique index lets only one row have the same {names}, which all free slots have in common"
        remedy = "Make that index one of something else, or a partial one, as of active rows only"
        yield Finding(CRITICAL, f"{table.name}.{names}", "unique-in-the-way", what, remedy)


def _indexes(part: str, table: Table, live: LiveTable, flag: str, differs: Callable[[Any], bool]) -> Iterator[str]:
    """Unique indexes of nothing but what is the same in all such rows; `differs` is true of the other constants."""
    same = {table[name] for name in _SHARED[part] if table.has(name)} | {flag}
    same |= {name for name, value in table.constants.items() if not differs(value)}
    yield from (", ".join(columns) for columns in sorted(sorted(unique) for unique in live.unique if unique <= same))


def lasting(schema: Schema, live: LiveTable | None) -> list[Finding]:
    """Indexes of projects that keep a slot from having another one while somebody has its first."""
    table, found = schema.projects, []
    for names in _indexes(PROJECTS, table, live, schema.workspace_flag, renews) if live else ():
        what = (
            f"a project that is transferred keeps its {names}, and a unique index lets the slot's next one not have it"
        )
        remedy = f"Nothing was moved. Give {names} another value for each row in schema.{PROJECTS}.constants, as uuid()"
        found.append(Finding(CRITICAL, f"{table.name}.{names}", "unique-in-the-way", what, remedy))
    return found
