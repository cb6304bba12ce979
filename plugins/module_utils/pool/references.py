# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys in SQLite, looked at while rows are changed."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import suppress
from typing import Any

from .store import quoted

_DEFERRED = re.compile(r"\bINITIALLY\s+DEFERRED\b", re.IGNORECASE)


class References:
    """Foreign keys that SQLite looks at only when all is committed, as Django makes them: a savepoint is released all
    the same, so one slot that something else refers to would make all the others fail with it. Looked at are only
    tables that have such keys and that a change can have an effect on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.begin()

    def begin(self) -> None:
        """From here on nobody else writes."""
        self._parents: dict[str, set[tuple[str, bool]]] | None = None  # to what, and whether its rows go with that
        self._deferred: set[str] = set()
        self._before: dict[str, Counter[tuple[Any, ...]]] = {}
        self._changed = False

    def watch_added(self, table: str) -> None:
        """To be called first: what refers to nothing already is not the change's fault."""
        self._watch({table.lower()})

    def watch_removed(self, table: str) -> None:
        """The same; rows of other tables may go with these, and others refer to them."""
        gone, concerned, left = {table.lower()}, {table.lower()}, [table.lower()]
        while left:
            parent = left.pop()
            for child, goes in self._referring(parent):
                concerned.add(child)
                if goes and child not in gone:
                    gone.add(child)
                    left.append(child)
        self._watch(concerned)

    def violated(self) -> list[tuple[str, str]]:
        """Tables with rows that refer to nothing now, and to which table."""
        if not self._changed:
            return []
        new = [row for table, before in self._before.items() for row in self._dangling(table) - before]
        self._changed = bool(new)
        return sorted({(str(row[0]), str(row[2])) for row in new})

    def _watch(self, tables: set[str]) -> None:
        self._look()
        concerned = tables & self._deferred
        self._before.update({table: self._dangling(table) for table in concerned - self._before.keys()})
        self._changed = self._changed or bool(concerned)

    def _referring(self, parent: str) -> list[tuple[str, bool]]:
        return [(child, goes) for child, to in self._look().items() for name, goes in to if name == parent]

    def _look(self) -> dict[str, set[tuple[str, bool]]]:
        if self._parents is None:
            self._parents = {}
            for name, text in self._rows("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
                keys = self._rows(f"PRAGMA foreign_key_list({quoted(name)})")
                self._parents[name.lower()] = {(str(key[2]).lower(), key[6] == "CASCADE") for key in keys}
                self._deferred |= {name.lower()} if _DEFERRED.search(text or "") else set()
        return self._parents

    def _dangling(self, table: str) -> Counter[tuple[Any, ...]]:
        return Counter(self._rows(f"PRAGMA foreign_key_check({quoted(table)})"))

    def _rows(self, text: str) -> list[tuple[Any, ...]]:
        with suppress(sqlite3.Error):  # what cannot be looked at now is found at the end, by SQLite itself
            return self._connection.execute(text).fetchall()
        return []
