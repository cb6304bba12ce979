# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool's rows in the database, changed a set at a time."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from .model import FOREVER, QUARANTINED, RESETTING, Lease, Project, User
from .receipts import octets
from .rows import Rows
from .schema import PROJECTS, SHA256, USERS
from .store import Change, Row


class Records(Rows):
    """Users, projects and allocations of one pool, which are to be changed."""

    # -- looking at one ---------------------------------------------------------------------------------------------

    def user(self, name: str) -> User | None:
        """Anybody's account."""
        table = self.schema.users
        rows = self.store.select(table.name, list(table.columns.values()), table["username"], [name])
        return self._user(rows[0]) if len(rows) == 1 else None

    def lease(self, number: int) -> Lease | None:
        """A slot's row as it is now."""
        table = self.schema.allocations
        rows = self.store.select(table.name, list(table.columns.values()), table["visitor_number"], [number])
        return self._lease(rows[0]) if len(rows) == 1 else None

    def since(self, lease: Lease) -> datetime | None:
        """When it was taken; None when that cannot be read."""
        try:
            return self.store.time(lease.seen[self.schema.allocations["allocated_at"]])
        except ValueError:
            return None

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
        return hashlib.sha256(octets(token)).hexdigest() if self.schema.token == SHA256 else token

    # -- making -----------------------------------------------------------------------------------------------------

    def rehearse(self, number: int, now: datetime, parts: Collection[str]) -> None:
        """Raises for what the database would not take of these parts of the slot."""
        rows = {USERS: self._user_row(number, now), PROJECTS: self._project_row(number, now)}
        for part in parts:
            self.store.rehearse(self.schema.tables[part].name, rows[part])

    def add_users(self, numbers: Collection[int], now: datetime) -> None:
        self.store.insert(self.schema.users.name, [self._user_row(number, now) for number in sorted(numbers)])

    def _user_row(self, number: int, now: datetime) -> dict[str, Any]:
        table, flag, name = self.schema.users, self.schema.user_flag, self.settings.name(number)
        row = {**table.filled(now, name, number), table["username"]: name}
        if table.has("password"):
            row[table["password"]] = f"!{secrets.token_hex(20)}"
        row.update({table[column]: False for column in ("is_superuser", "is_staff") if table.has(column)})
        row.update({table["is_active"]: True} if table.has("is_active") else {})
        return {**row, **({flag: True} if flag else {})}

    def activate(self, users: Collection[Any], active: bool) -> None:
        """Has the application offer the slots of these users, or not."""
        table = self.schema.users
        if table.has("is_active"):
            key, column = table["id"], table["is_active"]
            self.store.update(table.name, key, [Change({key: at}, {column: active}) for at in users])

    def ids(self, numbers: Iterable[int]) -> dict[int, Any]:
        table = self.schema.users
        names = {self.settings.name(number): number for number in numbers}
        rows = self.store.select(table.name, [table["id"], table["username"]], table["username"], list(names))
        return {names[row[table["username"]]]: row[table["id"]] for row in rows}

    def entered(self, numbers: Collection[int]) -> set[int]:
        """Those of the slots that have a user or a row of the table of allocations by now."""
        return self.listed(numbers) | set(self.ids(numbers))

    def listed(self, numbers: Collection[int]) -> set[int]:
        """Those of the slots that have a row of the table of allocations by now."""
        table = self.schema.allocations
        key = table["visitor_number"]
        return {int(row[key]) for row in self.store.select(table.name, [key], key, sorted(numbers))}

    def whole(self, numbers: Collection[int]) -> set[int]:
        """Those of the slots that have a user and a project by now."""
        ids = self.ids(numbers) if numbers else {}
        table, owner = self.schema.projects, self.schema.projects["owner_id"]
        rows = self.store.select(table.name, [owner, table["slug"]], owner, list(ids.values()))
        owners = {row[owner] for row in rows if row[table["slug"]] == self.settings.project}
        return {number for number, user in ids.items() if user in owners}

    def add_projects(self, owners: Mapping[int, Any], now: datetime) -> None:
        table = self.schema.projects
        rows = [{**self._project_row(at, now), table["owner_id"]: owner} for at, owner in sorted(owners.items())]
        self.store.insert(table.name, rows)

    def _project_row(self, number: int, now: datetime) -> dict[str, Any]:
        """Without its owner."""
        table, flag, project = self.schema.projects, self.schema.workspace_flag, self.settings.project
        row = {**table.filled(now, self.settings.name(number), number), table["slug"]: project}
        row.update({table["name"]: project} if table.has("name") else {})
        return {**row, **({flag: True} if flag else {})}

    def add_allocations(self, numbers: Collection[int], now: datetime, *, resetting: bool = False) -> None:
        """Free ones, or ones that nobody may have yet."""
        table = self.schema.allocations
        row = self._row(RESETTING, now, FOREVER, active=True) if resetting else {}
        rows = [
            {
                **table.filled(now, self.settings.name(number), number),
                table["visitor_number"]: number,
                **(row or self._row("", now, now, active=False)),
                table["allocated_at"]: now,
            }
            for number in sorted(numbers)
        ]
        self.store.insert(table.name, rows)

    def forget(self, cleared: Iterable[tuple[int, User | None, Project | None]], now: datetime) -> None:
        """Takes what a visitor may have written out of the rows that the next one gets: they say what those of a new
        slot say. Their times stay."""
        users, projects, project = self.schema.users, self.schema.projects, self.settings.project
        people, works = [], []
        for number, user, own in cleared:
            name = self.settings.name(number)
            if user is not None:
                people.append(Change({users["id"]: user.id}, _plain(users.filled(now, name, number))))
            if own is not None:
                row = _plain(projects.filled(now, name, number))
                row.update({projects["name"]: project} if projects.has("name") else {})
                works.append(Change({projects["id"]: own.id}, row))
        for table, changes in ((users, people), (projects, works)):
            if changes and changes[0].new:
                self.store.update(table.name, table["id"], changes)

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
        columns = [table["visitor_number"], table["session_key"]]
        rows = self.store.select(table.name, columns, table["visitor_number"], sorted(numbers))
        return {int(row[table["visitor_number"]]) for row in rows if row[table["session_key"]] == RESETTING}

    # -- removing ---------------------------------------------------------------------------------------------------

    def remove_projects(self, owners: Collection[Any], *, keep: bool) -> None:
        """The projects of these users; with `keep` all but the slots' own."""
        table = self.schema.projects
        columns = [table["id"], table["slug"]]
        rows = self.store.select(table.name, columns, table["owner_id"], list(owners))
        ids = [row[table["id"]] for row in rows if not keep or row[table["slug"]] != self.settings.project]
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


def _plain(row: Row) -> dict[str, Any]:
    """Without what differs from one making to the next: times, and keys made on the spot."""
    return {name: value for name, value in row.items() if not isinstance(value, (datetime, UUID))}
