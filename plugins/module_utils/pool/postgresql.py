# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool in PostgreSQL, by psycopg: every operation is one statement, however many rows it is about.

Rows travel as JSON and are taken apart by the server, with the types that it has told, so that each value gets the type
of the very column that it is for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from ..report.finding import WARNING, Finding, ShipshapeError, failure
from .model import MOST
from .store import (
    BOOLEAN,
    INTEGER,
    JSON,
    LIST,
    OTHER,
    PADDED,
    TEXT,
    TIME,
    Change,
    LiveColumn,
    LiveTable,
    Row,
    lost,
    refused,
)
from .times import Far, read_any_time
from .watch import watched

# The class of our advisory locks: "SHIP". Applications use the same (see the README of role visitor_pool).
LOCK_CLASS = 0x53484950
# A server whose machine or network is gone is missed after half a minute; by default the kernel waits for hours.
_ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_WHOLE_ROWS = ("23502", "23514")  # a null or a value that a constraint does not let in
_PATIENCE = 60.0
_PAUSE = 0.1
_POOLED = (
    "what answers there is no server but a pooler in front of one; where each transaction gets another session, the "
    "locks that keep the application off a slot while it is cleaned hold nothing, or are held for good"
)
_CLOSED = "it takes no changes: it is a copy of another server, or was set to read only (default_transaction_read_only)"
_DIRECTLY = "Give the server's own address in `database_url`, or let the pooler keep sessions (pool_mode = session)"
_KINDS = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric"), INTEGER),
    **dict.fromkeys(("text", "varchar", "citext"), TEXT),
    **dict.fromkeys(("json", "jsonb"), JSON),
    "bpchar": PADDED,
    **dict.fromkeys(("timestamptz", "timestamp"), TIME),
    "bool": BOOLEAN,
}
# Classes of errors that come of what is in the rows: data, constraints, views that check, and what triggers raise.
_OF_ROWS = ("22", "23", "27", "44", "P0")
# Of each of some tables: whether rows may be hidden, whether it is a view, its columns, those of its unique indexes. In
# one statement, as a server can be far away, and each goes there and back.
# Where row-level security holds for the role that has logged in, only a policy that is true of all rows shows them all.
_TABLES = """
SELECT w.number,
    row_security_active(c.oid) AND (
        EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive)
        OR NOT EXISTS (
            SELECT FROM pg_policy p CROSS JOIN LATERAL unnest(p.polroles) AS r(role)
            WHERE p.polrelid = c.oid AND p.polcmd = '*' AND pg_get_expr(p.polqual, p.polrelid) = 'true'
              AND CASE WHEN r.role = 0 THEN true ELSE pg_has_role(r.role, 'USAGE') END)),
    c.relkind IN ('v', 'm'),
    (SELECT json_agg(json_build_array(
            a.attname, t.typname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN t.typname IN ('varchar', 'bpchar') AND d.modifier > 4 THEN d.modifier - 4 END,
            a.attnotnull OR d.not_null, a.atthasdef OR a.attidentity <> '' OR d.filled,
            a.attidentity = 'a' OR COALESCE(to_jsonb(a) ->> 'attgenerated', '') <> '') ORDER BY a.attnum)
     FROM pg_attribute a CROSS JOIN LATERAL (
        WITH RECURSIVE domain AS (
            SELECT a.atttypid AS type, a.atttypmod AS modifier, false AS not_null, false AS filled, 0 AS depth
            UNION ALL
            SELECT p.typbasetype, CASE WHEN d.modifier < 0 THEN p.typtypmod ELSE d.modifier END,
                   d.not_null OR p.typnotnull, d.filled OR p.typdefault IS NOT NULL, d.depth + 1
            FROM domain d JOIN pg_type p ON p.oid = d.type WHERE p.typtype = 'd')
        SELECT * FROM domain ORDER BY depth DESC LIMIT 1) d
     JOIN pg_type t ON t.oid = d.type
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT json_agg(u.columns) FROM (
        SELECT json_agg(a.attname) AS columns FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS key(number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND key.place <= COALESCE((to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)
        GROUP BY i.indexrelid) u)
FROM unnest(%s::text[]) WITH ORDINALITY AS w(name, number) JOIN pg_class c ON c.oid = to_regclass(w.name)
"""
# Columns without a zone hold UTC; psycopg reads times in no other style; a row that somebody else has just changed is
# not as it was seen, which at other levels of isolation is an error.
_SESSION = """
SELECT set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO, MDY', false),
    set_config('default_transaction_isolation', 'read committed', false),
    pg_backend_pid(), current_setting('transaction_read_only')::bool
"""


class PostgresqlStore:
    """See store.Store. `keywords` are libpq's."""

    own_lock = False
    nowhere = ""

    def __init__(self, keywords: Mapping[str, str], spoken: str) -> None:
        try:
            import psycopg
            from psycopg import sql
        except ImportError as error:
            what = "the Python library psycopg, which speaks to PostgreSQL, is not on the target"
            remedy = "Install psycopg[binary]; role shipshape.deploy.engine makes an environment that has it"
            raise failure("target", "database-library-missing", what, remedy) from error
        self.spoken = spoken
        self._sql, self._error = sql, psycopg.Error
        self._repeatable = psycopg.IsolationLevel.REPEATABLE_READ
        self._json: dict[str, list[str]] = {}  # of each table that was described: its columns of JSON
        self._types: dict[str, dict[str, str]] = {}  # and the types of all
        given = {name: value for name, value in keywords.items() if value}
        try:
            asked = {**_ALIVE, **given}
            self._connection = watched(psycopg.Connection, asked).connect(autocommit=True, **asked)
            [(*_set, process, closed)] = self._rows("begin", _SESSION)
            pooled = process != self._connection.info.backend_pid
            read_any_time(self._connection)
        except psycopg.Error as error:
            words = " ".join(str(error).split())
            remedy = "Check `database_url`, or look with module credentials; then run this again"
            raise failure(spoken, "database-unreachable", f"could not log in: {words}", remedy) from error

        self.closed = _CLOSED if closed else ""
        self.doubts: Sequence[Finding] = (
            [Finding(WARNING, spoken, "database-pooled", _POOLED, _DIRECTLY)] if pooled else []
        )
        if pooled:  # what is prepared in one session is not in the next
            self._connection.prepare_threshold = None

    def close(self) -> None:
        self._connection.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def describe(self, tables: Collection[str]) -> dict[str, LiveTable | None]:
        names = list(tables)
        try:
            quoted = [self._sql.Identifier(*name.split(".", 1)).as_string(self._connection) for name in names]
        except self._error as error:
            raise self._failed("look for a table", error) from error
        found: dict[str, LiveTable | None] = dict.fromkeys(names)
        for number, hidden, view, columns, unique in self._rows("look at the tables", _TABLES, (quoted,)):
            name = names[number - 1]
            live = {column: LiveColumn(_kind(kind), *about) for column, kind, *about in columns or ()}
            self._json[name] = [column for column in live if live[column].kind == JSON]
            self._types[name] = {column: live[column].type for column in live}
            found[name] = LiveTable(live, frozenset(frozenset(at) for at in unique or ()), hidden, view)
        return found

    def now(self) -> datetime:
        [(now,)] = self._rows("tell the time", "SELECT clock_timestamp()")
        found: datetime = now
        return found

    def time(self, value: Any) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise ValueError(f"{value!r} is no time")
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)

    def select(self, table: str, columns: Sequence[str], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        text = self._sql.SQL("SELECT {} FROM {}").format(self._columns(columns), self._table(table))
        if not where:
            return self._named(columns, self._rows("read", text))
        text += self._sql.SQL(" WHERE {} = ANY(%s)").format(self._name(where))
        return self._named(columns, self._rows("read", text, (list(values),))) if values else []

    def starting(self, table: str, columns: Sequence[str], column: str, prefix: str) -> list[Row]:
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        text = self._sql.SQL("SELECT {} FROM {} WHERE {} LIKE %s").format(
            self._columns(columns), self._table(table), self._name(column)
        )
        return self._named(columns, self._rows("read", text, (f"{escaped}%",)))

    # -- changing ---------------------------------------------------------------------------------------------------

    def create(self, statements: Sequence[str]) -> None:
        with self.transaction():
            for statement in statements:
                self._run("create tables", statement)

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        names = self._columns(list(rows[0]))
        text = self._sql.SQL("INSERT INTO {} ({}) {}").format(self._table(table), names, self._read(table, rows[0]))
        self._run(f"add rows to {table}", text, (_json([self._ready(table, row) for row in rows]),))

    def rehearse(self, table: str, row: Row) -> None:
        self._rows(f"add rows to {table}", self._read(table, row), (_json([self._ready(table, row)]),))

    def update(self, table: str, key: str, changes: Sequence[Change]) -> set[Any]:
        if not changes:
            return set()
        column = self._name
        assigned = self._sql.SQL(", ").join(
            self._sql.SQL("{0} = n.{0}").format(column(name)) for name in changes[0].new
        )
        holds = self._sql.SQL(" AND ").join(
            self._sql.SQL("t.{0} IS NOT DISTINCT FROM o.{0}").format(column(name))
            for name in changes[0].old
            if name != key
        )
        text = self._sql.SQL(
            "UPDATE {table} AS t SET {assigned} FROM jsonb_array_elements(%s::jsonb) AS e(doc),"
            " LATERAL jsonb_to_record(e.doc -> 'old') AS o({old}), LATERAL jsonb_to_record(e.doc -> 'new') AS n({new})"
            " WHERE t.{key} = o.{key}{holds} RETURNING t.{key}"
        ).format(
            table=self._table(table),
            assigned=assigned,
            old=self._typed(table, changes[0].old),
            new=self._typed(table, changes[0].new),
            key=column(key),
            holds=self._sql.SQL(" AND ") + holds if len(changes[0].old) > 1 else self._sql.SQL(""),
        )
        ready = [{"old": dict(at.old), "new": self._ready(table, at.new)} for at in changes]
        documents = _json(ready)
        return {found for (found,) in self._rows(f"change rows of {table}", text, (documents,))}

    def _ready(self, table: str, row: Row) -> dict[str, Any]:
        """With what its columns of JSON get as documents, and not as text."""
        documents = self._json.get(table) or ()
        return {name: _document(row[name]) if name in documents else row[name] for name in row}

    def delete(self, table: str, column: str, values: Collection[Any]) -> None:
        if values:
            text = self._sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(self._table(table), self._name(column))
            self._run(f"remove rows from {table}", text, (list(values),))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        connection = self._connection
        try:
            connection.isolation_level, connection.read_only = self._repeatable, True
        except self._error as error:
            raise self._failed("begin", error) from error
        try:
            with self.transaction():
                yield
        finally:
            with suppress(self._error):  # of a connection that is lost nothing can be set
                connection.isolation_level, connection.read_only = None, None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self._connection.transaction():
                yield
        except self._error as error:
            raise self._failed("commit", error) from error

    # -- locks ------------------------------------------------------------------------------------------------------

    @contextmanager
    def run_lock(self) -> Iterator[None]:
        deadline = time.monotonic() + _PATIENCE
        while not self._rows("lock", "SELECT pg_try_advisory_lock(%s, 0)", (LOCK_CLASS,))[0][0]:
            if time.monotonic() > deadline:
                what = f"somebody else has been cleaning its slots for {_PATIENCE:g} s"
                raise failure("pool", "pool-busy", what, "Wait for it to end, and run this again")
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self._unlock("SELECT pg_advisory_unlock(%s, 0)", (LOCK_CLASS,))

    @contextmanager
    def slot_locks(self, numbers: Collection[int]) -> Iterator[set[int]]:
        wanted = sorted(number for number in numbers if number <= MOST)
        text = "SELECT n FROM unnest(%s::int[]) AS n WHERE pg_try_advisory_lock(%s, n)"
        held = {number for (number,) in self._rows("lock slots", text, (wanted, LOCK_CLASS))} if wanted else set()
        try:
            yield held | {number for number in numbers if number > MOST}  # of those no lock can be taken, by nobody
        finally:
            if held:
                text = "SELECT pg_advisory_unlock(%s, n) FROM unnest(%s::int[]) AS n"
                self._unlock(text, (LOCK_CLASS, sorted(held)))

    def _unlock(self, text: str, values: Sequence[Any]) -> None:
        """A session that has ended holds no lock, and what the locks were for is done, or has failed and says why."""
        with suppress(self._error):
            if not self._connection.closed:
                self._connection.execute(text, values)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _table(self, name: str) -> Any:
        return self._name(*name.split(".", 1))

    def _name(self, *parts: str) -> Any:
        """psycopg would take a per cent sign for the beginning of a placeholder, also in a name."""
        return self._sql.SQL(self._sql.Identifier(*parts).as_string(self._connection).replace("%", "%%"))

    def _columns(self, names: Sequence[str]) -> Any:
        return self._sql.SQL(", ").join(self._name(name) for name in names)

    def _typed(self, table: str, names: Iterable[str]) -> Any:
        """Columns with their types, as a list of what is in JSON. Only those that are there: the whole row's type would
        make nulls of the others, which a domain may refuse."""
        if table not in self._types:
            self.describe([table])
        types = self._types.get(table, {})
        listed = ((self._name(name), self._sql.SQL(types.get(name, "text").replace("%", "%%"))) for name in names)
        return self._sql.SQL(", ").join(self._sql.SQL(" ").join(pair) for pair in listed)

    def _read(self, table: str, names: Iterable[str]) -> Any:
        """Rows out of JSON, as the table's columns have them."""
        listed, typed = self._columns(list(names)), self._typed(table, names)
        return self._sql.SQL("SELECT {} FROM jsonb_to_recordset(%s::jsonb) AS r({})").format(listed, typed)

    def _named(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Row]:
        return [dict(zip(columns, row)) for row in rows]

    def _rows(self, doing: str, text: Any, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(text, values).fetchall()
        except self._error as error:
            raise self._failed(doing, error) from error
        return found

    def _run(self, doing: str, text: Any, values: Sequence[Any] = ()) -> None:
        try:
            self._connection.execute(text, values)
        except self._error as error:
            raise self._failed(doing, error) from error

    def _failed(self, doing: str, error: Any) -> ShipshapeError:
        """Either the server refused, or it is not there any more (57P01 to 57P03: it ends sessions, or itself)."""
        state = error.sqlstate or ""
        if self._connection.closed or state.startswith(("57P0", "08")):
            return lost(self.spoken, doing)
        return refused(self.spoken, doing, _words(error), rows=state.startswith(_OF_ROWS))


def _words(error: Any) -> str:
    """Without the context, in which a server may repeat what it was sent: sessions and tokens are in that, and in the
    row that it shows whole."""
    said = error.diag
    if not said.message_primary:
        return str(error)
    detail = said.message_detail if error.sqlstate not in _WHOLE_ROWS else ""
    more = (("DETAIL", detail), ("HINT", said.message_hint))
    return " ".join([said.message_primary, *(f"{name}: {text}" for name, text in more if text)])


def _json(rows: Any) -> str:
    return json.dumps(rows, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, Far):
        return value.text
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _document(value: Any) -> Any:
    """What a column of JSON gets: a text that is an object or a list in JSON is that."""
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _kind(name: str) -> str:
    return LIST if name.startswith("_") else _KINDS.get(name, OTHER)
