# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool's rows in the database: read as slots' parts, and changed a set at a time."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .model import FOREVER, QUARANTINED, RESETTING, Lease, Project, Settings, User
from .schema import SHA256, Schema
from .store import Change, Row, Store

_UNUSABLE = ("!", "*")


class Records:
    """Users, projects and allocations of one pool."""

    def __init__(self, store: Store, schema: Schema, settings: Settings) -> None:
        self.store, self.schema, self._settings = store, schema, settings

    # -- looking ----------------------------------------------------------------------------------------------------

    def users(self) -> dict[int, User]:
        table, flag = self.schema.users, self.schema.user_flag
        columns = [*table.columns.values(), *([flag] if flag else [])]
        found = {}
        for row in self.store.starting(table.name, columns, table["username"], self._settings.prefix):
            number = self._settings.number(str(row[table["username"]]))
            if number is not None:
                found[number] = self._user(row)
        return found

    def user(self, name: str) -> User | None:
        """Anybody's account."""
        table = self.schema.users
        rows = self.store.select(table.name, list(table.columns.values()), table["username"], [name])
        return self._user(rows[0]) if len(rows) == 1 else None

    def _user(self, row: Row) -> User:
        table, flag = self.schema.users, self.schema.user_flag
        why = ""
        if table.has("is_superuser") and row[table["is_superuser"]]:
            why = "is a superuser"
        elif table.has("is_staff") and row[table["is_staff"]]:
            why = "is staff"
        elif table.has("password") and (row[table["password"]] or "!")[0] not in _UNUSABLE:
            why = "can log in with a password"
        said = bool(row[flag]) if flag and flag in row else None
        active = bool(row[table["is_active"]]) if table.has("is_active") else None
        return User(row[table["id"]], str(row[table["username"]]), why, said, active)

    def projects(self, users: Mapping[int, User]) -> tuple[dict[int, Project], dict[int, int]]:
        """Each slot's project, and how many others its user has."""
        table, flag = self.schema.projects, self.schema.workspace_flag
        numbers = {user.id: number for number, user in users.items()}
        columns = [table["id"], table["owner_id"], table["slug"], *([flag] if flag else [])]
        found: dict[int, Project] = {}
        others: dict[int, int] = {}
        for row in self.store.select(table.name, columns, table["owner_id"], list(numbers)):
            number = numbers[row[table["owner_id"]]]
            if row[table["slug"]] == self._settings.project:
                found[number] = Project(row[table["id"]], bool(row[flag]) if flag else None)
            else:
                others[number] = others.get(number, 0) + 1
        return found, others

    def leases(self) -> list[Lease]:
        table = self.schema.allocations
        return [self._lease(row) for row in self.store.select(table.name, list(table.columns.values()))]

    def _lease(self, row: Row) -> Lease:
        table = self.schema.allocations
        return Lease(
            int(row[table["visitor_number"]]),
            str(row[table["session_key"]] or ""),
            str(row[table["allocation_token"]] or ""),
            self.store.time(row[table["expires_at"]]),
            bool(row[table["is_active"]]),
            row,
        )

    def project_ids(self, owner: Any) -> set[Any]:
        """Of all projects of somebody."""
        table = self.schema.projects
        return {row[table["id"]] for row in self.store.select(table.name, [table["id"]], table["owner_id"], [owner])}

    def slugs(self, owner: Any) -> set[str]:
        table = self.schema.projects
        rows = self.store.select(table.name, [table["slug"]], table["owner_id"], [owner])
        return {str(row[table["slug"]]) for row in rows}

    def stored(self, token: str) -> str:
        """How the table of allocations keeps a token."""
        return hashlib.sha256(token.encode()).hexdigest() if self.schema.token == SHA256 else token

    # -- making -----------------------------------------------------------------------------------------------------

    def add_users(self, numbers: Collection[int], now: datetime) -> None:
        table, flag = self.schema.users, self.schema.user_flag
        rows = []
        for number in sorted(numbers):
            name = self._settings.name(number)
            row = {**table.filled(now, name, number), table["username"]: name}
            if table.has("password"):
                row[table["password"]] = f"!{secrets.token_hex(20)}"
            row.update({table[column]: False for column in ("is_superuser", "is_staff") if table.has(column)})
            row.update({table["is_active"]: True} if table.has("is_active") else {})
            rows.append({**row, **({flag: True} if flag else {})})
        self.store.insert(table.name, rows)

    def activate(self, users: Collection[Any], active: bool) -> None:
        """Has the application offer the slots of these users, or not."""
        table = self.schema.users
        if table.has("is_active"):
            key, column = table["id"], table["is_active"]
            self.store.update(table.name, key, [Change({key: at}, {column: active}) for at in users])

    def ids(self, numbers: Iterable[int]) -> dict[int, Any]:
        table = self.schema.users
        names = {self._settings.name(number): number for number in numbers}
        rows = self.store.select(table.name, [table["id"], table["username"]], table["username"], list(names))
        return {names[row[table["username"]]]: row[table["id"]] for row in rows}

    def add_projects(self, owners: Mapping[int, Any], now: datetime) -> None:
        table, flag, project = self.schema.projects, self.schema.workspace_flag, self._settings.project
        rows = []
        for number, owner in sorted(owners.items()):
            row = {**table.filled(now, self._settings.name(number), number), table["slug"]: project}
            row[table["owner_id"]] = owner
            row.update({table["name"]: project} if table.has("name") else {})
            rows.append({**row, **({flag: True} if flag else {})})
        self.store.insert(table.name, rows)

    def add_allocations(self, numbers: Collection[int], now: datetime) -> None:
        """Free ones."""
        table = self.schema.allocations
        rows = [
            {
                **table.filled(now, self._settings.name(number), number),
                table["visitor_number"]: number,
                **self._row("", now, now, active=False),
                table["allocated_at"]: now,
            }
            for number in sorted(numbers)
        ]
        self.store.insert(table.name, rows)

    def mark(self, users: Collection[Any], projects: Collection[Any]) -> None:
        """Sets the flags of these users and projects, by id."""
        for table, flag, ids in (
            (self.schema.users, self.schema.user_flag, users),
            (self.schema.projects, self.schema.workspace_flag, projects),
        ):
            if flag:
                key = table["id"]
                self.store.update(table.name, key, [Change({key: at}, {flag: True}) for at in ids])

    # -- leases -----------------------------------------------------------------------------------------------------

    def turn(self, leases: Sequence[Lease], key: str, now: datetime) -> set[int]:
        """Turns rows that still are as they were seen into RESETTING or QUARANTINED; gives their numbers. An owner's
        token fits no longer."""
        changes = [Change(lease.seen, self._row(key, now, FOREVER, active=True)) for lease in leases]
        table = self.schema.allocations
        return self.store.update(table.name, table["visitor_number"], changes)

    def free(self, numbers: Collection[int], now: datetime) -> set[int]:
        """Offers slots that were being cleaned."""
        return self._from_resetting(numbers, self._row, "", now, now, active=False)

    def quarantine(self, numbers: Collection[int], now: datetime) -> set[int]:
        """Keeps slots back that were being cleaned."""
        return self._from_resetting(numbers, self._row, QUARANTINED, now, FOREVER, active=True)

    def _from_resetting(self, numbers: Collection[int], row: Any, *words: Any, **keys: Any) -> set[int]:
        table = self.schema.allocations
        number, session = table["visitor_number"], table["session_key"]
        changes = [Change({number: at, session: RESETTING}, row(*words, **keys)) for at in sorted(numbers)]
        return self.store.update(table.name, number, changes)

    def _row(self, key: str, now: datetime, until: datetime, *, active: bool) -> dict[str, Any]:
        """What a row says that stands for no visitor. Its token is one that nobody has ever seen."""
        table = self.schema.allocations
        return {
            table["session_key"]: key,
            table["allocation_token"]: secrets.token_hex(32),
            table["expires_at"]: until,
            table["is_active"]: active,
            **({} if active else {table["allocated_at"]: now}),
        }

    def resetting(self, numbers: Collection[int]) -> set[int]:
        """Those of the slots whose rows are being cleaned, looked at again."""
        table = self.schema.allocations
        columns = [table["visitor_number"], table["session_key"], table["is_active"]]
        rows = self.store.select(table.name, columns, table["visitor_number"], sorted(numbers))
        return {
            int(row[table["visitor_number"]])
            for row in rows
            if row[table["is_active"]] and row[table["session_key"]] == RESETTING
        }

    # -- removing ---------------------------------------------------------------------------------------------------

    def remove_projects(self, owners: Collection[Any], *, keep: bool) -> None:
        """The projects of these users; with `keep` all but the slots' own."""
        table = self.schema.projects
        columns = [table["id"], table["slug"]]
        rows = self.store.select(table.name, columns, table["owner_id"], list(owners))
        ids = [row[table["id"]] for row in rows if not keep or row[table["slug"]] != self._settings.project]
        self.store.delete(table.name, table["id"], ids)

    def remove(self, users: Collection[Any], numbers: Collection[int]) -> None:
        """Users and rows of the table of allocations."""
        self.store.delete(self.schema.users.name, self.schema.users["id"], users)
        self.remove_rows(numbers)

    def remove_rows(self, numbers: Collection[int]) -> None:
        self.store.delete(self.schema.allocations.name, self.schema.allocations["visitor_number"], numbers)

    def give(self, project_id: Any, old: Any, new: Any) -> bool:
        """Makes a project somebody else's; False when it was not `old`'s."""
        table = self.schema.projects
        change = Change({table["id"]: project_id, table["owner_id"]: old}, {table["owner_id"]: new})
        return bool(self.store.update(table.name, table["id"], [change]))
