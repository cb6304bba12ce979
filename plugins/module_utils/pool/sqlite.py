# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool in SQLite, by the standard library. Its rows are next door: one statement a row is no round trip."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote
from uuid import UUID

from ..report.finding import failure
from .store import BOOLEAN, INTEGER, OTHER, TEXT, TIME, Change, LiveColumn, LiveTable, Row, chunks, refused

_PATIENCE = 60.0
_VARIABLES = 500  # older SQLite takes 999 in a statement
_KINDS = (("BOOL", BOOLEAN), ("INT", INTEGER), ("DATE", TIME), ("TIME", TIME))
_TEXTS = ("CHAR", "TEXT", "CLOB")
_LENGTH = re.compile(r"\((\d+)\)")


class SqliteStore:
    """See store.Store. Without `write` nothing of it is changed, and a file that is not there is an empty database."""

    own_lock = True

    def __init__(self, path: str, *, write: bool) -> None:
        self.spoken = path
        self._path, self._write = path, write
        self._depth = 0
        self._absent = False
        self._connect()

    def _connect(self) -> None:
        self._absent = not os.path.exists(self._path)
        mode = "rw" if self._write else "ro"
        where = "file::memory:" if self._absent else f"file:{quote(self._path)}?mode={mode}"
        try:
            self._connection = sqlite3.connect(where, uri=True, timeout=_PATIENCE, isolation_level=None)
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            remedy = "Check the path in `database_url`, and that this user may read and write the file"
            raise failure(self._path, "database-unreachable", f"cannot be opened: {error}", remedy) from error

    def close(self) -> None:
        self._connection.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def describe(self, table: str) -> LiveTable | None:
        if self._absent and os.path.exists(self._path):
            self._connect()  # a migration has made it
        found = self._rows("look at a table", f"PRAGMA table_xinfo({_quoted(table)})")
        if not found:
            return None
        keys = [name for _cid, name, _kind, _null, _default, key, _hidden in found if key]
        columns = {}
        for _cid, name, declared, not_null, default, key, hidden in found:
            by_itself = default is not None or hidden > 1 or (keys == [name] and declared.upper() == "INTEGER")
            length = _LENGTH.search(declared)
            needed = bool(not_null) or bool(key)
            columns[name] = LiveColumn(
                _kind(declared), declared.lower(), int(length[1]) if length else None, needed, by_itself
            )
        unique = {frozenset(keys)} if keys else set()
        for entry in self._rows("look at indexes", f"PRAGMA index_list({_quoted(table)})"):
            partial = len(entry) > 4 and entry[4]
            if entry[2] and not partial:
                held = self._rows("look at an index", f"PRAGMA index_info({_quoted(entry[1])})")
                unique.add(frozenset(str(at[2]) for at in held))
        return LiveTable(columns, frozenset(unique))

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def time(self, value: Any) -> datetime | None:
        """SQLite has no type for times: they are text, in UTC unless they say otherwise."""
        if not isinstance(value, str) or not value:
            return None
        text = value.strip().replace("Z", "+00:00")
        try:
            found = datetime.fromisoformat(_six_digits(text))
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)

    def select(self, table: str, columns: Sequence[str], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        text = f"SELECT {_list(columns)} FROM {_quoted(table)}"
        if not where:
            return _named(columns, self._rows("read", text))
        found: list[Row] = []
        for part in chunks(list(values), _VARIABLES):
            marks = ", ".join("?" * len(part))
            found += _named(columns, self._rows("read", f"{text} WHERE {_quoted(where)} IN ({marks})", part))
        return found

    def starting(self, table: str, columns: Sequence[str], column: str, prefix: str) -> list[Row]:
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        text = f"SELECT {_list(columns)} FROM {_quoted(table)} WHERE {_quoted(column)} LIKE ? ESCAPE '\\'"
        return _named(columns, self._rows("read", text, (f"{escaped}%",)))

    # -- changing ---------------------------------------------------------------------------------------------------

    def create(self, statements: Sequence[str]) -> None:
        if self._absent:
            self._make_file()
        with self.transaction():
            for statement in statements:
                self._run("create tables", statement)

    def _make_file(self) -> None:
        """With the owner of its directory, so that the application can write to it as well."""
        folder = os.stat(os.path.dirname(os.path.abspath(self._path)) or "/")
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if (folder.st_uid, folder.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
                os.fchmod(descriptor, folder.st_mode & 0o660)
            finally:
                os.close(descriptor)
        except OSError as error:
            what = f"cannot be made: {error.strerror}"
            raise failure(self._path, "database-unreachable", what, "Check the path in `database_url`") from error
        self._connect()

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            names = list(rows[0])
            marks = ", ".join("?" * len(names))
            text = f"INSERT INTO {_quoted(table)} ({_list(names)}) VALUES ({marks})"
            with self.transaction():
                self._many(f"add rows to {table}", text, [[_plain(row[name]) for name in names] for row in rows])

    def update(self, table: str, key: str, changes: Sequence[Change]) -> set[Any]:
        changed = set()
        with self.transaction():
            for change in changes:
                assigned = ", ".join(f"{_quoted(name)} = ?" for name in change.new)
                holds = " AND ".join(f"{_quoted(name)} IS ?" for name in change.old)
                text = f"UPDATE {_quoted(table)} SET {assigned} WHERE {holds}"
                values = [_plain(value) for value in (*change.new.values(), *change.old.values())]
                if self._run(f"change rows of {table}", text, values):
                    changed.add(change.old[key])
        return changed

    def delete(self, table: str, column: str, values: Collection[Any]) -> None:
        text = f"DELETE FROM {_quoted(table)} WHERE {_quoted(column)} = ?"
        with self.transaction():
            self._many(f"remove rows from {table}", text, [[value] for value in values])

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._run("begin", "BEGIN")
        try:
            yield
        finally:
            self._run("end", "ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        name = f"level{self._depth}"
        begin, end, undo = (
            (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}")
            if self._depth
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        self._run("begin", begin)
        self._depth += 1
        try:
            yield
            self._run("commit", end)
        except BaseException:
            if self._connection.in_transaction:
                self._run("roll back", undo)
            raise
        finally:
            self._depth -= 1

    # -- locks: whoever writes is alone -----------------------------------------------------------------------------

    @contextmanager
    def run_lock(self) -> Iterator[None]:
        yield

    @contextmanager
    def slot_locks(self, numbers: Collection[int]) -> Iterator[set[int]]:
        yield set(numbers)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _rows(self, doing: str, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise refused(self.spoken, doing, error) from error

    def _run(self, doing: str, text: str, values: Sequence[Any] = ()) -> int:
        try:
            return self._connection.execute(text, values).rowcount
        except sqlite3.Error as error:
            raise refused(self.spoken, doing, error) from error

    def _many(self, doing: str, text: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(text, rows)
        except sqlite3.Error as error:
            raise refused(self.spoken, doing, error) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _named(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Row]:
    return [dict(zip(columns, row)) for row in rows]


def _kind(declared: str) -> str:
    upper = declared.upper()
    if any(word in upper for word in _TEXTS):
        return TEXT
    return next((kind for word, kind in _KINDS if word in upper), OTHER)


def _plain(value: Any) -> Any:
    """Times as Django writes them: comparable as text with what it writes itself."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(" ")
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    return value.hex if isinstance(value, UUID) else str(value)  # as Django writes them


def _six_digits(text: str) -> str:
    """Python before 3.11 reads fractions of three or six digits only."""
    found = re.match(r"(.*:\d\d\.)(\d+)(.*)$", text)
    return f"{found[1]}{found[2][:6]:0<6}{found[3]}" if found else text
