# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool's rows in the database, read as slots' parts."""

from __future__ import annotations

from collections.abc import Mapping

from .model import Lease, Project, Settings, User
from .schema import Schema
from .store import Row, Store

_UNUSABLE = ("!", "*")


class Rows:
    """Users, projects and allocations of one pool."""

    def __init__(self, store: Store, schema: Schema, settings: Settings) -> None:
        self.store, self.schema, self.settings = store, schema, settings

    def users(self) -> dict[int, User]:
        table, flag = self.schema.users, self.schema.user_flag
        columns = [*table.columns.values(), *([flag] if flag else [])]
        found = {}
        for row in self.store.starting(table.name, columns, table["username"], self.settings.prefix):
            number = self.settings.number(str(row[table["username"]]))
            if number is not None:
                found[number] = self._user(row)
        return found

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
            if row[table["slug"]] == self.settings.project:
                found[number] = Project(row[table["id"]], bool(row[flag]) if flag else None)
            else:
                others[number] = others.get(number, 0) + 1
        return found, others

    def leases(self) -> list[Lease]:
        table = self.schema.allocations
        rows = self.store.select(table.name, list(table.columns.values()))
        return [self._lease(row) for row in rows if row[table["visitor_number"]] is not None]

    def _lease(self, row: Row) -> Lease:
        table = self.schema.allocations
        until, odd = None, ""
        try:
            until = self.store.time(row[table["expires_at"]])
        except ValueError:
            odd = str(row[table["expires_at"]])
        return Lease(
            int(row[table["visitor_number"]]),
            str(row[table["session_key"]] or ""),
            str(row[table["allocation_token"]] or ""),
            until,
            bool(row[table["is_active"]]),
            row,
            odd,
        )

    def slots_called(self, names: Mapping[str, int]) -> dict[str, int]:
        """Those of the names that are accounts nobody can log in to, with a project like a slot's."""
        table = self.schema.users
        rows = self.store.select(table.name, list(table.columns.values()), table["username"], list(names))
        users = {user.id: user.name for user in map(self._user, rows) if not user.protected}
        projects, owner = self.schema.projects, self.schema.projects["owner_id"]
        owned = self.store.select(projects.name, [owner, projects["slug"]], owner, list(users))
        ours = self.settings.project
        return {users[at[owner]]: names[users[at[owner]]] for at in owned if at[projects["slug"]] == ours}
