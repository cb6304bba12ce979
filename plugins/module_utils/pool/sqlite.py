# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool in SQLite, by the standard library. Its rows are next door: one statement a row is no round trip."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from ..report.finding import Finding, ShipshapeError, failure
from .store import (
    BOOLEAN,
    INTEGER,
    JSON,
    OTHER,
    TEXT,
    TIME,
    Change,
    LiveColumn,
    LiveTable,
    Row,
    chunks,
    quoted,
    refused,
)

if TYPE_CHECKING:
    from .references import References

_PATIENCE = 60.0
_VARIABLES = 500  # older SQLite takes 999 in a statement
_KINDS = (("BOOL", BOOLEAN), ("INT", INTEGER), ("DATE", TIME), ("TIME", TIME), ("JSON", JSON))
_TEXTS = ("CHAR", "TEXT", "CLOB")
_LENGTH = re.compile(r"\((\d+)\)")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# First, last and how many a second: seconds of 1973 to 9999, milliseconds up to 2286, and those of the year 5138 to
# 9999, which stand for "never". Between them a number is rather a date that is written as 20300102100000.
_EPOCHS = ((10**8, 253402300800, 1), (253402300800, 10**13, 1000), (10**14, 253402300800000, 1000))
_NUMBER = re.compile(r"\d{1,18}(?:\.\d+)?", re.ASCII)
_TEXT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d)(?P<seconds>:\d\d)?(?:[.,](?P<fraction>\d+))?"
    r"(?: ?(?:(?P<utc>Z|z|UTC|GMT)|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)(?: [A-Z]{1,5})?)?"
    r"(?: m=\S+)?)?",  # Go's own clock
    re.ASCII,
)


class SqliteStore:
    """See store.Store. Without `write` nothing of it is changed, and a file that is not there is an empty database."""

    own_lock = True
    closed = ""
    doubts: Sequence[Finding] = ()

    def __init__(self, path: str, *, write: bool) -> None:
        self.spoken = path
        self._path, self._write = path, write
        self._depth = 0
        self._undone: ShipshapeError | None = None  # what made SQLite end the transaction that we are in
        self._absent = False
        self._watched: References | None = None
        self._connect()

    def _connect(self) -> None:
        self._watched = None
        self._absent = not os.path.exists(self._path)
        self.nowhere = f"there is no file {self._path}" if self._absent else ""
        mode = "rw" if self._write or _leaves_files(self._path) else "ro"
        where = "file::memory:" if self._absent else f"file:{quote(self._path)}?mode={mode}"
        try:
            self._connection = sqlite3.connect(where, uri=True, timeout=_PATIENCE, isolation_level=None)
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute(f"PRAGMA query_only = {'OFF' if self._write else 'ON'}")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            remedy = "Check the path in `database_url`, and that this user may read and write the file"
            raise failure(self._path, "database-unreachable", f"cannot be opened: {error}", remedy) from error

    def close(self) -> None:
        self._connection.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def describe(self, tables: Collection[str]) -> dict[str, LiveTable | None]:
        if self._absent and os.path.exists(self._path):
            self._connect()  # a migration has made it
        return {table: self._described(table) for table in tables}

    def _described(self, table: str) -> LiveTable | None:
        found = self._rows("look at a table", f"PRAGMA table_xinfo({quoted(table)})")
        if not found:
            return None
        keys = [name for _cid, name, _kind, _null, _default, key, _hidden in found if key]
        columns = {}
        for _cid, name, declared, not_null, default, key, hidden in found:
            by_itself = default is not None or hidden > 1 or (keys == [name] and declared.upper() == "INTEGER")
            length = _LENGTH.search(declared)
            needed = bool(not_null) or bool(key)
            columns[name] = LiveColumn(
                _kind(declared), declared.lower(), int(length[1]) if length else None, needed, by_itself, hidden > 1
            )
        unique = {frozenset(keys)} if keys else set()
        for entry in self._rows("look at indexes", f"PRAGMA index_list({quoted(table)})"):
            partial = len(entry) > 4 and entry[4]
            if entry[2] and not partial:
                held = self._rows("look at an index", f"PRAGMA index_info({quoted(entry[1])})")
                unique.add(frozenset(str(at[2]) for at in held))
        text = "SELECT type FROM sqlite_master WHERE lower(name) = lower(?)"
        view = ("view",) in self._rows("look at a table", text, (table,))
        return LiveTable(columns, frozenset(unique), view=view)

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def time(self, value: Any) -> datetime | None:
        """SQLite has no type for times: they are what the application writes, see moment()."""
        return moment(value)

    def select(self, table: str, columns: Sequence[str], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        text = f"SELECT {_list(columns)} FROM {quoted(table)}"
        if not where:
            return _named(columns, self._rows("read", text))
        found: list[Row] = []
        for part in chunks(list(values), _VARIABLES):
            marks = ", ".join("?" * len(part))
            found += _named(columns, self._rows("read", f"{text} WHERE {quoted(where)} IN ({marks})", part))
        return found

    def starting(self, table: str, columns: Sequence[str], column: str, prefix: str) -> list[Row]:
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        text = f"SELECT {_list(columns)} FROM {quoted(table)} WHERE {quoted(column)} LIKE ? ESCAPE '\\'"
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
            text = f"INSERT INTO {quoted(table)} ({_list(names)}) VALUES ({marks})"
            with self._level(whole=not self._depth):
                self._references.watch_added(table)
                self._many(f"add rows to {table}", text, [[_plain(row[name]) for name in names] for row in rows])

    def rehearse(self, table: str, row: Row) -> None:
        """Its columns take anything."""

    def update(self, table: str, key: str, changes: Sequence[Change]) -> set[Any]:
        changed = set()
        with self._level(whole=not self._depth):
            for change in changes:
                assigned = ", ".join(f"{quoted(name)} = ?" for name in change.new)
                holds = " AND ".join(f"{quoted(name)} IS ?" for name in change.old)
                text = f"UPDATE {quoted(table)} SET {assigned} WHERE {holds}"
                values = [_plain(value) for value in (*change.new.values(), *change.old.values())]
                if self._run(f"change rows of {table}", text, values):
                    changed.add(change.old[key])
        return changed

    def delete(self, table: str, column: str, values: Collection[Any]) -> None:
        text = f"DELETE FROM {quoted(table)} WHERE {quoted(column)} = ?"
        with self._level(whole=not self._depth):
            self._references.watch_removed(table)
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
        with self._level(whole=True):
            yield

    @contextmanager
    def _level(self, *, whole: bool) -> Iterator[None]:
        """A transaction, or a savepoint inside of one. After a `whole` one nothing may refer to what is not there."""
        name = f"level{self._depth}"
        begin, end, undo = (
            (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}")
            if self._depth
            else ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        )
        self._run("begin", begin)
        if not self._depth:
            self._references.begin()
        self._depth += 1
        try:
            yield
            if whole:
                self._refer()
            self._run("commit", end)
        except BaseException as error:
            if self._connection.in_transaction:
                self._run("roll back", undo)
            elif isinstance(error, ShipshapeError):  # the whole of it, not only this level: a full disk, say
                self._undone = error
            raise
        finally:
            self._depth, self._undone = self._depth - 1, self._undone if self._depth > 1 else None

    @property
    def _references(self) -> References:
        if self._watched is None:
            from .references import References

            self._watched = References(self._connection)
        return self._watched

    def _refer(self) -> None:
        found = [f"rows of {table} refer to rows of {to} that are gone" for table, to in self._references.violated()]
        if found:
            words = f"FOREIGN KEY constraint failed: {'; '.join(found)}"
            raise refused(self.spoken, "commit", words, rows=True)

    # -- locks: whoever writes is alone -----------------------------------------------------------------------------

    @contextmanager
    def run_lock(self) -> Iterator[None]:
        yield

    @contextmanager
    def slot_locks(self, numbers: Collection[int]) -> Iterator[set[int]]:
        yield set(numbers)

    # -- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _refusing(self, doing: str) -> Iterator[None]:
        """Without its transaction what is left of it would be done by itself, and anybody could come between."""
        if self._undone is not None:
            raise ShipshapeError(*self._undone.findings)
        try:
            yield
        except sqlite3.Error as error:
            raise refused(self.spoken, doing, error, rows=isinstance(error, sqlite3.IntegrityError)) from error

    def _rows(self, doing: str, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._refusing(doing):
            return self._connection.execute(text, values).fetchall()

    def _run(self, doing: str, text: str, values: Sequence[Any] = ()) -> int:
        with self._refusing(doing):
            return self._connection.execute(text, values).rowcount

    def _many(self, doing: str, text: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._refusing(doing):
            self._connection.executemany(text, rows)


def _leaves_files(path: str) -> bool:
    """Whether who only reads would make the files of a write-ahead log, and must not remove them: it is kept by this
    database, and nobody has it open."""
    with suppress(OSError), open(path, "rb") as stream:
        return stream.read(20)[18:] == b"\2\2" and not os.path.exists(f"{path}-wal")
    return False


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


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
    if isinstance(value, (Mapping, list)):
        return json.dumps(value, default=_plain)
    return value.hex if isinstance(value, UUID) else str(value)  # as Django writes them


def moment(value: Any) -> datetime | None:
    """`value` as a time, in UTC unless it says otherwise; None only for None and an empty text. Seconds or
    milliseconds since 1970 are times, too. Raises ValueError for what cannot be read as one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        text = value.strip()
        return _since_1970(float(text), value) if _NUMBER.fullmatch(text) else _written(text)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _since_1970(value, value)
    raise _unreadable(value)


def _since_1970(number: float, value: Any) -> datetime:
    for first, end, a_second in _EPOCHS:
        if first <= number < end:
            return _EPOCH + timedelta(seconds=number / a_second)
    raise _unreadable(value)


def _written(text: str) -> datetime:
    """Not by `fromisoformat` alone, which reads little of this before Python 3.11."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise _unreadable(text)
    clock = f"{found['clock'] or '00:00'}{found['seconds'] or ':00'}.{(found['fraction'] or '')[:6]:0<6}"
    zone = f"{found['sign']}{found['hours']}:{found['minutes'] or '00'}" if found["sign"] else "+00:00"
    try:
        return datetime.fromisoformat(f"{found['date']}T{clock}{zone}")
    except ValueError as error:
        raise _unreadable(text) from error


def _unreadable(value: Any) -> ValueError:
    return ValueError(f"{value!r} is no time")
